// Synthetic data as a source of batches: columns are found by the names of features, dense columns and labels. How a
// text becomes an id says nothing here, since there is no text.
import { createWriteStream } from 'node:fs'
import { rename } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { closestWord } from '../config/suggest.js'
import { onDisk } from '../disk.js'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import { ahead } from './indexed.js'
import type { NativeBatchSource, NativeShuffle } from './native-data.js'
import type { PrepareProgress } from './prepare.js'
import { denseOptions, type ReaderOptions } from './reader.js'
import type { SynthSource } from './source.js'

export interface SynthOptions extends Pick<ReaderOptions, 'ids' | 'dense' | 'labels' | 'batchSize'> {
  synth: SynthSource['synth']
  shuffle?: NativeShuffle | undefined
}

/** PERSIA_DATA_MISSING_COLUMN names a column that the synthetic data does not have. */
export async function openSynthData({ synth, ids, dense, labels, batchSize, shuffle }: SynthOptions):
Promise<NativeBatchSource> {
  const columns = native().synthColumns(synth.like)
  const find = (what: string, name: string, known: string[]) => {
    const place = known.indexOf(name)
    if (place >= 0) return place
    const near = closestWord(name, known)
    const hint = near === undefined ? `It has: ${known.join(', ') || 'none'}.` : `Did you mean ${near}?`
    throw new PersiaError('PERSIA_DATA_MISSING_COLUMN',
      `Synthetic data like ${synth.like} has no ${what} ${name}. ${hint}`, { column: name, columns: known })
  }
  const fields = columns.fields.map(({ name }) => name)
  const wantedLabels = labels === 'none' ? [] : labels
  for (const { column } of wantedLabels) find('label', column, [columns.label])
  return settling(() => native().openSynth({
    ...synth,
    fields: ids.map(({ name }) => find('id column', name, fields)),
    dense: dense.map(({ column }) => find('dense column', column, columns.dense)),
    transforms: dense.map((column) => denseOptions(column, undefined, false)),
    labels: wantedLabels.length > 0,
    batchSize,
    ...(shuffle && { shuffle }),
  }))
}

type Synth = Omit<SynthSource['synth'], 'firstRow'>

/** AUC and log loss of the best possible model. */
export function synthCeiling(synth: Synth): Promise<{ auc: number; logloss: number }> {
  return settling(() => native().synthCeiling(synth))
}

const textRows = 1 << 15  // of a piece

/** Writes rows as the owner's files have them, `threads` pieces made at once. The file appears when it is whole. */
export async function writeSynthText(path: string, { rows, ...synth }: Synth, threads: number,
  onProgress: (progress: PrepareProgress) => void): Promise<void> {
  const { header } = native().synthColumns(synth.like)
  const source = new (native().SynthRows)(synth)
  const pieces = function* () {
    for (let first = 0; first < rows; first += textRows) yield source.text(first, Math.min(textRows, rows - first))
  }
  const progress = { rows: 0, bytes: 0, totalBytes: null }
  const text = async function* () {
    if (header !== '') yield `${header}\n`
    for await (const piece of ahead(pieces(), threads)) {
      yield piece
      progress.rows = Math.min(rows, progress.rows + textRows)
      progress.bytes += piece.length
      onProgress(progress)
    }
  }
  await onDisk(path, async () => {
    await pipeline(text, createWriteStream(`${path}.tmp`))
    await rename(`${path}.tmp`, path)
  })
}
