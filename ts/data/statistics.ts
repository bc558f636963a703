// Statistics of the training data for `transform: standardize`: one pass with the reader itself, so that the same
// rows are bad, the same values are missing and the order of summation is the file's. The same data gives the same
// bits.
import { openRows, type ReaderOptions } from './reader.js'

/** Mean and population standard deviation by dense column, over the values that are there. Plain JSON. */
export type Statistics = Record<string, { mean: number; stddev: number }>

/**
 * The statistics of the columns with `transform: standardize`, over all rows, and how many of those `options` would
 * train on; null when nothing was read.
 */
export async function collectStatistics(
  options: ReaderOptions,
): Promise<{ statistics: Statistics; rows: number | null }> {
  const dense = options.dense.filter(({ transform }) => transform === 'standardize')
  if (dense.length === 0) return { statistics: {}, rows: null }
  // Hashed ids are never bad; integer ids stay, so that rows with a bad one are left out here as in training.
  const ids = options.ids.filter(({ encoding }) => encoding === 'integer')
  const reader = await openRows({ ...options, dense, ids, skipBatches: 0 }, true)
  try {
    let rows = 0  // that an epoch trains on
    for await (const batch of reader) rows += batch.rows
    const statistics = Object.fromEntries(reader.moments().map(({ count, mean, m2 }, i) =>
      [(dense[i] as { column: string }).column, { mean, stddev: count === 0 ? 0 : Math.sqrt(m2 / count) }]))
    return { statistics, rows }
  } finally {
    await reader.close()
  }
}
