// The splits of a config as datasets: what the reader needs of the config, and its batches as `Batch`.
import type { Config, LoadedConfig } from '../config/index.js'
import { describeBadRow } from '../data/bad-rows.js'
import { Batch } from '../data/batch.js'
import { openReader, type BatchReader, type ReaderOptions } from '../data/reader.js'
import type { DataSource } from '../data/source.js'
import { collectStatistics, type Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import { samplesPerStep } from './native-config.js'

/** Bad rows that were left out (data.onBadRow: skip). */
export interface SkippedRows {
  split: string
  rows: number
  /** The first of them: file, line, column and reason. */
  first: string[]
}

/** Batches of a split, in the order of the data; iterate once. */
export interface FileDataset extends AsyncIterable<Batch> {
  readonly skipped: SkippedRows
  close(): Promise<void>
}

export interface DatasetOptions {
  /** Leaves out the first batches: a resumed run has trained on them. */
  skipBatches?: number
  /** `none`: read files without label columns, for prediction; bad rows are then always errors. */
  labels?: 'none'
}

/** The training or test data of a config. Errors come with the first batch: PERSIA_DATA_*. */
export function openDataset(loaded: LoadedConfig, split: 'train' | 'test', statistics: Statistics,
  options: DatasetOptions = {}): FileDataset {
  const { labels, skipBatches } = options
  return new ReaderDataset(split, {
    ...readerOptions(loaded, split),
    statistics,
    ...(skipBatches !== undefined && { skipBatches }),
    ...(labels === 'none' && { labels, onBadRow: 'fail' as const }),
  })
}

/** What `transform: standardize` needs of the training data, and its number of rows where that had to be read. */
export function readStatistics(loaded: LoadedConfig): Promise<{ statistics: Statistics; rows: number | null }> {
  return collectStatistics(readerOptions(loaded, 'train'))
}

function readerOptions({ config, baseDir }: LoadedConfig, split: 'train' | 'test'): ReaderOptions {
  const { data, features, model } = config
  return {
    source: sourceOf(config, split),
    baseDir,
    ids: Object.entries(features.columns).map(([name, { encoding, separator }]) => ({ name, encoding, separator })),
    dense: data.dense,
    labels: data.labels.map(({ column, positive }) =>
      ({ column, positive, loss: model.tasks.find(({ label }) => label === column)!.loss })),
    missing: data.missing,
    onBadRow: data.onBadRow,
    batchSize: split === 'train' ? samplesPerStep(config) : config.batchSize,
  }
}

function sourceOf(config: Config, split: 'train' | 'test'): DataSource {
  const source = config.data[split]
  if (source) return source as DataSource  // the format is one the reader knows: config/unsupported.ts
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `data.${split} is not given: expected { path } or { sql }`, { path: `data.${split}` })
}

class ReaderDataset implements FileDataset {
  private reader: BatchReader | undefined

  constructor(private readonly split: string, private readonly options: ReaderOptions) {}

  private get unit(): 'line' | 'row' {
    const { source } = this.options
    return 'path' in source && source.format !== 'parquet' ? 'line' : 'row'
  }

  get skipped(): SkippedRows {
    const { skippedRows = 0, skippedSamples = [] } = this.reader ?? {}
    return { split: this.split, rows: skippedRows, first: skippedSamples.map((row) => describeBadRow(row, this.unit)) }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    this.reader = await openReader(this.options)
    for await (const handle of this.reader) yield Batch.fromNative(handle)
  }

  async close(): Promise<void> {
    await this.reader?.close()
  }
}
