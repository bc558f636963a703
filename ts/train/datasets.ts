// The splits of a config as datasets: what the reader needs of the config, and its batches as `Batch`.
import type { Config, LoadedConfig } from '../config/index.js'
import { describeBadRow } from '../data/bad-rows.js'
import { Batch } from '../data/batch.js'
import { openReader, type BatchReader, type ReaderOptions } from '../data/reader.js'
import type { DataSource } from '../data/source.js'
import { collectStatistics, type Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import { samplesPerStep } from './native-config.js'
import type { Dataset } from './trainer.js'

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
  /** Of training data: which pass it is. With data.negativeSampling each has its own negatives. 0 unless given. */
  epoch?: number
  /** `all`: no negative sampling, for evaluation on training data. */
  negatives?: 'all'
  /** `none`: read files without label columns, for prediction; bad rows are then always errors. */
  labels?: 'none'
}

/** The training or test data of a config. Errors come with the first batch: PERSIA_DATA_*. */
export function openDataset(loaded: LoadedConfig, split: 'train' | 'test', statistics: Statistics,
  options: DatasetOptions = {}): FileDataset {
  const { labels, skipBatches, epoch = 0, negatives } = options
  const { sampling, ...rest } = readerOptions(loaded, split, epoch)
  const training = split === 'train' && negatives !== 'all' && labels !== 'none'
  return new ReaderDataset(split, {
    ...rest,
    ...(training ? { sampling } : { batchSize: loaded.config.batchSize }),
    statistics,
    ...(skipBatches !== undefined && { skipBatches }),
    ...(labels === 'none' && { labels, onBadRow: 'fail' as const }),
  })
}

/**
 * What `transform: standardize` needs of the training data, and how many of its rows an epoch trains on where that had
 * to be read.
 */
export function readStatistics(loaded: LoadedConfig): Promise<{ statistics: Statistics; rows: number | null }> {
  return collectStatistics(readerOptions(loaded, 'train', 0))
}

/** As training reads a split: batches of a whole step. */
function readerOptions({ config, baseDir }: LoadedConfig, split: 'train' | 'test', epoch: number): ReaderOptions {
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
    batchSize: samplesPerStep(config),
    sampling: samplingOf(config, epoch),
  }
}

function samplingOf({ data: { negativeSampling, labels }, seed }: Config, epoch: number): ReaderOptions['sampling'] {
  if (!negativeSampling) return undefined
  const { keep, label } = negativeSampling
  return { label: labels.findIndex(({ column }) => column === label), keep, seed, epoch }
}

function sourceOf(config: Config, split: 'train' | 'test'): DataSource {
  const source = config.data[split]
  if (source) return source as DataSource  // the format is one the reader knows: config/unsupported.ts
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `data.${split} is not given: expected { path } or { sql }`, { path: `data.${split}` })
}

/** Batches of a user's own, without the first `skipBatches`. */
export function ownDataset(split: string, batches: Dataset, skipBatches = 0): FileDataset {
  return {
    skipped: { split, rows: 0, first: [] },
    async *[Symbol.asyncIterator]() {
      let left = skipBatches
      for await (const batch of batches) if (left-- <= 0) yield batch
    },
    close: () => Promise.resolve(),
  }
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
