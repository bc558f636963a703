// Trainer: one model in this process. A thin shell over the native pipeline: batches go over in one call each, counters
// come back as reports. What happens to a batch in between: cpp/trainer/trainer.h.
import { parseConfig, type Config, type ConfigInput } from '../config/index.js'
import { checkOneProcess } from '../config/cluster.js'
import { Batch } from '../data/batch.js'
import type { Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import { calling, native, settling } from '../native.js'
import type { MetricsEndpoint } from '../observe/endpoint.js'
import type { NativeBatch, NativePipeline, NativeTrainer, NativeTrainerConfig } from '../native-types.js'
import { readingCheckpoint, writeCheckpoint, type Manifest, type Position } from './checkpoint.js'
import { Feeder, Meter } from './feeder.js'
import { layoutOf, nativeConfig } from './native-config.js'
import { evalReport, OwnMetrics, type Metrics } from './evaluation.js'
import type { EarlyStoppingState } from './early-stopping.js'
import type { EvalReport, ProgressReport } from './reports.js'
import { Table } from './table.js'
import { rowClassCounters, tableReport, type RowClassCounters } from './table-counters.js'

export type Dataset = Iterable<Batch> | AsyncIterable<Batch>

export interface FitOptions {
  /** Seconds between two reports; 1 unless given. */
  reportEverySeconds?: number
  /** Ends the pass early, at a step at which the model can be saved. Afterwards only `save`, `predict` and `close`. */
  signal?: AbortSignal
  /**
   * `save` runs while training rests after each step whose number is a multiple of `everySteps` (0: none), and after
   * those for which `when`, which is asked as their batches are handed in, says so.
   */
  checkpoint?: { everySteps: number; save: () => Promise<unknown>; when?: (() => boolean) | undefined }
  /** As `checkpoint`, and before it at the same step. Nothing that is learnt changes by resting. */
  evaluate?: { everySteps: number; run: () => Promise<unknown> }
  /**
   * Called with what happened since the last call: after every step, or after the last of several that were applied
   * meanwhile. Training goes on when it is done.
   */
  onStep?: (report: ProgressReport) => unknown
}

export interface EvaluateOptions {
  /** Named in the report; `test` unless given. */
  split?: string
  /** Metrics of your own. */
  metrics?: Metrics
}

export interface TrainerOptions {
  /** Keeps what `trace()` shows: a few megabytes at most. */
  trace?: boolean
  /** @internal Makes the pipeline; unless given, one in this process. */
  createNative?: ((config: NativeTrainerConfig) => Promise<NativeTrainer>) | undefined
}

export interface SaveOptions {
  /** Where the data stands, for resuming. */
  position?: Position
  /** Whether training is complete: `resume: auto` starts anew after such a checkpoint. */
  finished?: boolean
  earlyStopping?: EarlyStoppingState
}

/** How often `onStep` is looked after while the last batches are trained. */
const stepPollSeconds = 0.01

export class Trainer {
  /** The embedding rows, by feature and ids. */
  readonly table: Table
  private readonly layout
  private saving: Promise<void> = Promise.resolve()
  private stepping: Promise<unknown> = Promise.resolve()
  /** A fit was ended by its signal: the pipeline rests in the middle of what was handed in. */
  private stopped = false
  private fitting = false
  /** With metrics.port. */
  private endpoint: MetricsEndpoint | undefined

  private constructor(
    readonly config: Config,
    private readonly nativeTrainer: NativeTrainer,
    /** Of the training data, for columns with `standardize`; kept in checkpoints. */
    readonly statistics: Statistics,
  ) {
    this.layout = layoutOf(config)
    this.table = new Table(nativeTrainer, config)
  }

  /**
   * Makes a new model. PERSIA_CONFIG_* when the config is wrong, PERSIA_ADDON_NOT_FOUND when the addon does not load,
   * PERSIA_IO when metrics.port is taken.
   */
  static async create(
    config: ConfigInput | Config, statistics: Statistics = {}, options: TrainerOptions = {},
  ): Promise<Trainer> {
    const resolved = parseConfig(config)
    if (!options.createNative) checkOneProcess(resolved)
    return Trainer.make(resolved, statistics, options)
  }

  private static async make(config: Config, statistics: Statistics, options: TrainerOptions): Promise<Trainer> {
    const create = options.createNative ?? ((natively) => native().createTrainer(natively))
    const trainer = new Trainer(config, await settling(() => create(nativeConfig(config, options))), statistics)
    try {
      await trainer.exportMetrics()
    } catch (error) {
      await trainer.close()
      throw error
    }
    return trainer
  }

  private async exportMetrics(): Promise<void> {
    const { metrics: { port }, staleness } = this.config
    if (port === 0) return
    const { MetricsEndpoint } = await import('../observe/endpoint.js')
    this.endpoint = await MetricsEndpoint.listen(port, {
      progress: () => this.progress(),
      pipeline: () => this.pipeline(),
      table: () => tableReport(this.counters(), this.config),
    }, staleness)
  }

  /**
   * Makes the model of a checkpoint, with the checkpoint's config unless one is given. Everything is checked before
   * anything is taken: PERSIA_CHECKPOINT_NOT_FOUND, PERSIA_CHECKPOINT_DAMAGED, and PERSIA_CHECKPOINT_MISMATCH when
   * `config` describes another model.
   */
  static async load(
    directory: string, config?: ConfigInput | Config, options: TrainerOptions = {},
  ): Promise<{ trainer: Trainer; manifest: Manifest }> {
    return readingCheckpoint(directory, config && parseConfig(config), async (manifest, files) => {
      // The model of a cluster may be looked at in one process.
      const resolved = parseConfig(config ?? manifest.config)
      const trainer = await Trainer.make(resolved, manifest.statistics, options)
      try {
        await settling(() => trainer.nativeTrainer.restore(directory, files))
      } catch (error) {
        await trainer.close()
        throw error
      }
      return { trainer, manifest }
    })
  }

  /** Steps applied so far, those before a restore included. */
  get steps(): number {
    return this.progress().steps
  }

  /** Samples trained so far, those before a restore included. */
  get samples(): number {
    return this.progress().samples
  }

  /**
   * Steps that were skipped because their gradients were not finite, those before a restore included. In mode async an
   * NN worker skips its part of a step alone, and parts are counted.
   */
  get skippedSteps(): number {
    return this.progress().skipped
  }

  /** What the loss of the next step is multiplied by in backward: see `model.lossScaling`. */
  get lossScale(): number {
    return this.progress().lossScale
  }

  /** The highest number of batches that a lookup was behind; never above `config.staleness`. */
  get mostStaleness(): number {
    return this.progress().mostStaleness
  }

  /** Counters of the embedding tables, one object for each row class (dim), with those of its feature groups. */
  counters(): RowClassCounters[] {
    return rowClassCounters(calling(() => this.nativeTrainer.counters()), this.config)
  }

  /** What the stages did so far, in seconds, and how stale lookups were. */
  pipeline(): NativePipeline {
    return calling(() => this.nativeTrainer.pipeline())
  }

  /**
   * The last steps of every stage as a trace in Chrome's JSON format, which ui.perfetto.dev opens; empty unless the
   * trainer was made with `trace`.
   */
  trace(): Promise<string> {
    return settling(() => this.nativeTrainer.trace())
  }

  /**
   * Trains on every batch of `dataset` once, in order, and ends when all are applied. A batch is one step, of any size:
   * several NN workers share its samples out. Yields a report about every
   * second, and one at the end. Breaking out of the loop still applies what was handed in.
   */
  async *fit(dataset: Dataset, options: FitOptions = {}): AsyncGenerator<ProgressReport, void, undefined> {
    this.checkGoing()
    checkIterable(dataset)
    const meter = new Meter(this.nativeTrainer, options.reportEverySeconds ?? 1)
    const steps = new Meter(this.nativeTrainer, 0)
    const tellSteps = async () => { if (options.onStep && steps.hasNews()) await options.onStep(steps.report()) }
    const feeder = new Feeder(this.nativeTrainer, options, tellSteps)
    this.fitting = true
    try {
      for await (const batch of dataset) {
        await feeder.push(this.handleOf(batch, 'labelled'))
        await tellSteps()
        if (feeder.stopped) break
        if (meter.due()) yield meter.report()
      }
      while (!(await feeder.endedWithin(options.onStep ? stepPollSeconds : meter.everySeconds))) {
        await tellSteps()
        if (meter.due()) yield meter.report()
      }
    } finally {
      this.fitting = false
      await feeder.end()
      this.stopped = feeder.stopped
    }
    await tellSteps()
    if (meter.hasNews()) yield meter.report()
  }

  /**
   * Trains one step on one batch and ends when it is applied, for loops of your own. Steps that are asked for at once are
   * trained one after another.
   */
  async step(batch: Batch): Promise<ProgressReport> {
    const handle = this.handleOf(batch, 'labelled')
    const stepped = this.stepping.then(() => this.stepAlone(handle))
    this.stepping = stepped.catch(() => {})
    return stepped
  }

  private async stepAlone(batch: NativeBatch): Promise<ProgressReport> {
    this.checkGoing()
    const meter = new Meter(this.nativeTrainer, 0)
    await settling(() => this.nativeTrainer.push(batch))
    await settling(() => this.nativeTrainer.drain(false))
    return meter.report()
  }

  /** Metrics over labelled batches; the model does not change. */
  async evaluate(dataset: Dataset, { split = 'test', metrics = {} }: EvaluateOptions = {}): Promise<EvalReport> {
    checkIterable(dataset)
    const { groupBy } = this.config.evaluate
    const group = groupBy === undefined ? undefined : this.layout.features.indexOf(groupBy)
    const evaluator = calling(() => new (native().Evaluator)(this.nativeTrainer, group))
    const own = new OwnMetrics(metrics)
    const step = this.steps
    let samples = 0
    for await (const batch of dataset) {
      const handle = this.handleOf(batch, 'labelled')
      const { outputs, labels } = await settling(() => evaluator.add(handle))
      own.add(outputs, labels, batch)
      samples += batch.rows
    }
    const ofTasks = await evalReport(evaluator, { split, step, samples }, this.config)
    const report = Object.keys(metrics).length === 0 ? ofTasks : { ...ofTasks, metrics: own.results() }
    this.endpoint?.metrics.evaluated(report)
    return report
  }

  /**
   * Outputs of the tasks, (rows × tasks) row-major: probabilities for bce, values for mse. Unknown ids count as zeros.
   */
  async predict(batch: Batch): Promise<Float32Array> {
    return settling(() => this.nativeTrainer.predict(this.handleOf(batch, 'unlabelled')))
  }

  /**
   * Writes a checkpoint to `directory`, which is replaced as a whole or not at all; a folder that holds anything else
   * is refused. Training rests meanwhile. In deterministic mode a save in the middle of a `fit` changes what is learnt,
   * unless it comes from `fit`'s `checkpoint` option.
   */
  save(directory: string, options: SaveOptions = {}): Promise<void> {
    // One after another, so that two saves of one folder can't meet.
    const saved = this.saving.then(() => this.saveAtRest(directory, options))
    this.saving = saved.catch(() => {})
    return saved
  }

  private async saveAtRest(
    directory: string, { position, finished = true, earlyStopping }: SaveOptions,
  ): Promise<void> {
    if (!calling(() => this.nativeTrainer.atRest())) {
      // Where lookups have to get ahead before the pipeline can rest, they must not wait for batches that nobody hands
      // in.
      settling(() => this.nativeTrainer.drain(true)).catch(() => {})  // says only what pause says too
    }
    await settling(() => this.nativeTrainer.pause())
    try {
      const { steps, samples } = this.progress()
      await writeCheckpoint(directory, {
        step: steps, samples, position: position ?? { epoch: 0, epochStep: steps }, finished,
        ...(earlyStopping && { earlyStopping }),
        config: this.config, statistics: this.statistics,
      }, (target) => settling(() => this.nativeTrainer.save(target)))
    } finally {
      this.nativeTrainer.resume()
    }
  }

  /** Ends the threads and frees the memory; what was handed in but not trained is dropped. May be called again. */
  async close(): Promise<void> {
    await this.endpoint?.close()
    await settling(() => this.nativeTrainer.close())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  private handleOf(batch: Batch, use: 'labelled' | 'unlabelled') {
    if (batch instanceof Batch) return calling(() => batch.handle(this.layout, use))
    throw new PersiaError('PERSIA_BATCH_INVALID', `expected a Batch, got ${typeof batch}; make one with Batch.from`)
  }

  private checkGoing(): void {
    if (this.fitting) {
      throw new PersiaError('PERSIA_USAGE',
        'a fit of this trainer is under way: take single steps, or begin another fit, when it has ended')
    }
    if (!this.stopped) return
    throw new PersiaError('PERSIA_USAGE',
      'training was stopped by its signal: save this trainer, close it, and load the checkpoint to go on')
  }

  private progress() {
    return calling(() => this.nativeTrainer.progress())
  }
}

function checkIterable(dataset: unknown): void {
  const object = Object(dataset) as object
  if (Symbol.iterator in object || Symbol.asyncIterator in object) return
  throw new PersiaError('PERSIA_USAGE', `expected an iterable or async iterable of Batch, got ${typeof dataset}`)
}
