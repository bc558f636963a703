// The splits of a config as datasets: what the reader needs of the config, and its batches as `Batch`.
import type { Config, LoadedConfig } from '../config/index.js'
import { describeBadRow } from '../data/bad-rows.js'
import { Batch } from '../data/batch.js'
import { batchNumbers, readBatches, type LoaderShard } from '../data/indexed.js'
import type { NativeBatchSource } from '../data/native-data.js'
import { openPreparedData, preparedStatistics } from '../data/prepared.js'
import { openReader, type BatchReader, type ReaderOptions } from '../data/reader.js'
import type { DataSource, PreparedSource, SynthSource } from '../data/source.js'
import { openSynthData } from '../data/synth.js'
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
  /**
   * How many passes follow each other, from `epoch` on, each shuffled and sampled anew; `Infinity`: as many as are
   * asked for. `skipBatches` is of the first one. 1 unless given.
   */
  repeat?: number
  /**
   * A batch is there until the next one is asked for, which may take its memory: faster in loops that keep no batches.
   * Steps and evaluations that were begun with it are not affected. false unless given.
   */
  reuseMemory?: boolean
  /** `all`: no negative sampling, for evaluation on training data. */
  negatives?: 'all'
  /** `none`: read files without label columns, for prediction; bad rows are then always errors. */
  labels?: 'none'
  /**
   * Of several loaders that share the data out: this one gets every `count`-th batch of the pass, from `index` on.
   * `skipBatches` counts those of all loaders.
   */
  loader?: LoaderShard
}

/**
 * The training or test data of a config. Errors come with the first batch: PERSIA_DATA_*. Columns with `standardize`
 * need `statistics`: those of `readStatistics`, or `trainer.statistics` of a model that was loaded.
 */
export function openDataset(loaded: LoadedConfig, split: 'train' | 'test', statistics: Statistics = {},
  options: DatasetOptions = {}): FileDataset {
  const { repeat = 1, reuseMemory = false, ...pass } = options
  const dataset = repeat === 1 ? openPass(loaded, split, statistics, pass)
    : openPasses(loaded, split, statistics, repeat, pass)
  return reuseMemory ? new LendingDataset(dataset) : dataset
}

function openPasses(loaded: LoadedConfig, split: 'train' | 'test', statistics: Statistics, repeat: number,
  pass: PassOptions): FileDataset {
  if (!(repeat >= 1) || (repeat !== Infinity && !Number.isInteger(repeat))) {
    throw new PersiaError('PERSIA_USAGE', `repeat is ${repeat}; expected a whole number from 1 on, or Infinity`)
  }
  const { epoch = 0, skipBatches = 0 } = pass
  return new RepeatedDataset(split, repeat, (number) => {
    const left = number === 0 ? skipBatches : 0
    return openPass(loaded, split, statistics, { ...pass, epoch: epoch + number, skipBatches: left })
  })
}

type PassOptions = Omit<DatasetOptions, 'repeat' | 'reuseMemory'>

function openPass(loaded: LoadedConfig, split: 'train' | 'test', statistics: Statistics, options: PassOptions):
FileDataset {
  const { labels, skipBatches = 0, epoch = 0, negatives, loader = { index: 0, count: 1 } } = options
  const { config } = loaded
  const training = split === 'train' && negatives !== 'all' && labels !== 'none'
  const source = sourceOf(config, split)
  const sampling = training ? samplingOf(config, epoch) : undefined
  const common = {
    ...columnsOf(loaded),
    ...(labels === 'none' && { labels, onBadRow: 'fail' as const }),
    batchSize: training ? samplesPerStep(config) : config.batchSize,
    statistics,
    ...(sampling && { sampling }),
  }
  const shuffle = training && config.data.shuffle ? { ...config.data.shuffle, seed: config.seed, epoch } : undefined
  if ('prepared' in source) {
    const open = () => openPreparedData({ ...common, folder: source.prepared, shuffle })
    return new IndexedDataset(split, open, skipBatches, loader)
  }
  if ('synth' in source) {
    const open = () => openSynthData({ ...common, synth: source.synth, shuffle })
    return new IndexedDataset(split, open, skipBatches, loader)
  }
  return new ReaderDataset(split, { ...common, source, skipBatches, shuffle, ...splitOf(config, split) }, loader)
}

/**
 * What `transform: standardize` needs of the training data, and how many of its rows an epoch trains on where that had
 * to be read.
 */
export async function readStatistics(loaded: LoadedConfig): Promise<{ statistics: Statistics; rows: number | null }> {
  const { config } = loaded
  const source = sourceOf(config, 'train')
  const columns = columnsOf(loaded)
  const sampling = samplingOf(config, 0)
  if ('prepared' in source) {
    const { statistics, rows } = await preparedStatistics({ ...columns, folder: source.prepared })
    return { statistics, rows: sampling ? null : rows }
  }
  if ('synth' in source) return { statistics: {}, rows: source.synth.rows }
  return collectStatistics({
    ...columns, source, batchSize: samplesPerStep(config), ...(sampling && { sampling }), ...splitOf(config, 'train'),
  })
}

/** What the reader and `persia data prepare` need to know of columns. */
export function columnsOf({ config: { data, features, model }, baseDir }: LoadedConfig) {
  return {
    baseDir,
    ids: Object.entries(features.columns).map(([name, { column, slice, encoding, separator }]) => ({
      name, encoding, ...(column !== undefined && { column }), ...(slice && { slice }),
      ...(separator !== undefined && { separator }),
    })),
    dense: data.dense,
    labels: data.labels.map(({ column, positive }) => ({
      column, ...(positive !== undefined && { positive }),
      loss: model.tasks.find(({ label }) => label === column)!.loss,
    })),
    missing: data.missing,
    onBadRow: data.onBadRow,
  }
}

/** The side of a source that is divided. */
function splitOf({ data: { split }, seed }: Config, side: 'train' | 'test'): Pick<ReaderOptions, 'split'> {
  return split ? { split: { rule: split, seed, side } } : {}
}

function samplingOf({ data: { negativeSampling, labels }, seed }: Config, epoch: number): ReaderOptions['sampling'] {
  if (!negativeSampling) return undefined
  const { keep, label } = negativeSampling
  return { label: labels.findIndex(({ column }) => column === label), keep, seed, epoch }
}

function sourceOf(config: Config, split: 'train' | 'test'): DataSource | PreparedSource | SynthSource {
  const source = config.data[split]
  if (source) return source
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `data.${split} is not given: expected { path }, { sql }, { prepared } or { synth }`, { path: `data.${split}` })
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

class LendingDataset implements FileDataset {
  constructor(private readonly dataset: FileDataset) {}

  get skipped(): SkippedRows {
    return this.dataset.skipped
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    for await (const batch of this.dataset) {
      yield batch
      batch.release()
    }
  }

  close(): Promise<void> {
    return this.dataset.close()
  }
}

class RepeatedDataset implements FileDataset {
  private readonly ended: SkippedRows[] = []
  private pass: FileDataset | undefined
  private closed = false

  constructor(private readonly split: string, private readonly passes: number,
    private readonly open: (number: number) => FileDataset) {}

  get skipped(): SkippedRows {
    const all = [...this.ended, ...(this.pass ? [this.pass.skipped] : [])]
    return { split: this.split, rows: all.reduce((sum, { rows }) => sum + rows, 0), first: all[0]?.first ?? [] }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    for (let number = 0, batches = 1; number < this.passes && batches > 0 && !this.closed; number++) {
      batches = number === 0 ? 1 : 0  // the first pass may be left out whole; one without rows would never end
      this.pass = this.open(number)
      for await (const batch of this.pass) {
        batches++
        yield batch
      }
      this.ended.push(this.pass.skipped)
      this.pass = undefined
    }
  }

  async close(): Promise<void> {
    this.closed = true
    await this.pass?.close()
  }
}

/** Batches made ahead of a consumer. */
const batchesAhead = 4

class IndexedDataset implements FileDataset {
  readonly skipped: SkippedRows

  constructor(split: string, private readonly open: () => Promise<NativeBatchSource>,
    private readonly skipBatches: number, private readonly loader: LoaderShard) {
    this.skipped = { split, rows: 0, first: [] }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const source = await this.open()
    const numbers = batchNumbers(source.batches, this.skipBatches, this.loader)
    for await (const handle of readBatches(source, numbers, batchesAhead)) yield Batch.fromNative(handle)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }
}

class ReaderDataset implements FileDataset {
  private reader: BatchReader | undefined

  constructor(private readonly split: string, private readonly options: ReaderOptions,
    private readonly loader: LoaderShard) {}

  private get unit(): 'line' | 'row' {
    const { source } = this.options
    return 'path' in source && source.format !== 'parquet' && source.format !== 'arrow' ? 'line' : 'row'
  }

  get skipped(): SkippedRows {
    const { skippedRows = 0, skippedSamples = [] } = this.reader ?? {}
    return { split: this.split, rows: skippedRows, first: skippedSamples.map((row) => describeBadRow(row, this.unit)) }
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const { index, count } = this.loader
    this.reader = await openReader(this.options)
    let number = this.options.skipBatches ?? 0
    for await (const handle of this.reader) {
      if (number++ % count === index) yield Batch.fromNative(handle)
      else handle.release()
    }
  }

  async close(): Promise<void> {
    await this.reader?.close()
  }
}
