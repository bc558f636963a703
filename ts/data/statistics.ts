// Statistics of the training data for `transform: standardize`: one pass with the reader itself, so that the same
// rows are bad, the same values are missing and the order of summation is the file's. The same data gives the same
// bits.
import { openRows, type ReaderOptions } from './reader.js'

/** Mean and population standard deviation by dense column, over the values that are there. Plain JSON. */
export type Statistics = Record<string, { mean: number; stddev: number }>

/**
 * The statistics of the columns with `transform: standardize`, and how many rows were read for them; null when none
 * was.
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
    for await (const _batch of reader);
    const statistics = Object.fromEntries(reader.moments().map(({ count, mean, m2 }, i) =>
      [(dense[i] as { column: string }).column, { mean, stddev: count === 0 ? 0 : Math.sqrt(m2 / count) }]))
    return { statistics, rows: reader.rowsRead - reader.skippedRows }
  } finally {
    await reader.close()
  }
}
