// One training run from config to checkpoint: epochs, evaluation, early stopping, periodic and final checkpoints,
// resuming, callbacks. The command line prints what this yields.
import { basename, join } from 'node:path'
import { checkOneProcess } from '../config/cluster.js'
import { parseConfig, type Config, type ConfigInput, type LoadedConfig } from '../config/index.js'
import type { DenseColumn } from '../config/resolve.js'
import { PersiaError } from '../errors.js'
import { CallbackRunner, type Callbacks } from './callbacks.js'
import {
  lockRun, markLatest, newestCheckpoint, pruneCheckpoints, readingCheckpoint, type Manifest, type Position,
} from './checkpoint.js'
import { openDataset, ownDataset, readStatistics, type FileDataset, type SkippedRows } from './datasets.js'
import { EarlyStopping, type EarlyStoppingState } from './early-stopping.js'
import type { Metrics } from './evaluation.js'
import { samplesPerStep } from './native-config.js'
import { PipelineMeter } from './pipeline-report.js'
import type { DoneReport, EvalReport, ProgressReport } from './reports.js'
import { tableReport } from './table-counters.js'
import { Trainer, type Dataset, type TrainerOptions } from './trainer.js'

export type RunEvent =
  | { event: 'start'; name: string; resumedFrom: string | null; totalSamples: number | null }
  | ({ event: 'progress' } & ProgressReport)
  | ({ event: 'skipped' } & SkippedRows)
  | ({ event: 'eval' } & EvalReport)
  | { event: 'warning'; message: string }
  | { event: 'interrupted'; checkpoint: string }
  | ({ event: 'done' } & DoneReport)

export interface RunOptions {
  /** A folder of a checkpoint, or as `checkpoint.resume` in the config, which holds unless given. */
  resume?: string
  /** Stops after the step under way, with a complete checkpoint; the last event is then `interrupted`. */
  signal?: AbortSignal
  reportEverySeconds?: number
  /** Batches of your own in place of the config's data. */
  datasets?: RunDatasets
  /** Called one after another at each turn of the run. */
  callbacks?: Callbacks | Callbacks[]
  /** Metrics of your own for every evaluation; early stopping may watch one. */
  metrics?: Metrics
  /** Gets the trace of the pipeline (Chrome's JSON format) at the end, also of a run that was interrupted or failed. */
  onTrace?: (trace: string) => void
  /** Asked as each step is handed in: whether to save after it, beside `checkpoint.everySteps`. */
  checkpointWhen?: () => boolean
  /** @internal As in TrainerOptions. */
  createNative?: TrainerOptions['createNative']
}

export interface RunDatasets {
  /**
   * A pass over the training data; `epoch` counts from 0. The same epoch gives the same batches: a resumed run draws
   * and drops those that it has trained on.
   */
  train(epoch: number): Dataset
  /** What each evaluation takes; without it `data.test`. */
  test?(): Dataset
}

/**
 * Trains as the config says. Ends with the event `done` or `interrupted`; throws PersiaError. Paths of a config that is
 * not from a file start at the current folder.
 */
export async function* runTraining(
  config: LoadedConfig | ConfigInput | Config, options: RunOptions = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const loaded = loadedConfig(config)
  checkOptions(loaded.config, options)
  if (!options.createNative) checkOneProcess(loaded.config)
  const { checkpoint, epochs, name } = loaded.config
  const unlock = await lockRun(checkpoint.dir)
  try {
    const { trainer, rows, ...start } = await openTrainer(loaded, options)
    try {
      checkTestData(loaded.config, options, trainer)
      yield { event: 'start', name, resumedFrom: start.resumedFrom, totalSamples: rows && rows * epochs }
      yield* withTrace(new Run(loaded, options, trainer, start).events(), trainer, options)
    } finally {
      await trainer.close()
    }
  } finally {
    await unlock()
  }
}

function loadedConfig(config: LoadedConfig | ConfigInput | Config): LoadedConfig {
  if ('baseDir' in config) return config
  return { config: parseConfig(config), file: '', baseDir: process.cwd(), sources: new Map() }
}

/** What a run cannot begin with. */
function checkOptions({ data, evaluate }: Config, { datasets, metrics = {} }: RunOptions): void {
  if (evaluate.earlyStopping) EarlyStopping.checkMetric(evaluate.earlyStopping, Object.keys(metrics))
  const wants = evaluate.earlyStopping ? 'earlyStopping' : evaluate.everySteps > 0 ? 'everySteps' : undefined
  if (wants === undefined || data.test || datasets?.test) return
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `evaluate.${wants} needs data to evaluate on: give data.test`, { path: `evaluate.${wants}` })
}

/** Test data of the config that no evaluation could read, which would show only after an epoch. */
function checkTestData({ data }: Config, { datasets }: RunOptions, { statistics }: Trainer): void {
  if (!data.test || datasets?.test) return
  const isUnknown = ({ column, transform }: DenseColumn) => transform === 'standardize' && !statistics[column]
  const { column } = data.dense.find(isUnknown) ?? {}
  if (column === undefined) return
  throw new PersiaError('PERSIA_USAGE',
    `data.test cannot be standardized: mean and deviation of ${column} are those of data.train, which a run on batches `
    + 'of your own does not read. Give options.datasets.test too, leave out data.test, or choose another transform',
    { column })
}

/** The events of a run, then its trace, also when it failed. */
async function* withTrace(
  events: AsyncGenerator<RunEvent, void, undefined>, trainer: Trainer, { onTrace }: RunOptions,
): AsyncGenerator<RunEvent, void, undefined> {
  const tell = async () => onTrace?.(await trainer.trace())
  try {
    yield* events
  } catch (error) {
    await tell().catch(() => {})  // what ended the run says more
    throw error
  }
  await tell()
}

interface Start {
  position: Position
  resumedFrom: string | null
  earlyStopping: EarlyStoppingState | undefined
}

async function openTrainer(loaded: LoadedConfig, { resume, datasets, onTrace, createNative }: RunOptions):
Promise<Start & { trainer: Trainer; rows: number | null }> {
  const { config } = loaded
  const options = { trace: onTrace !== undefined, createNative }
  const from = await checkpointToResume(config.checkpoint.dir, resume ?? config.checkpoint.resume)
  if (from !== null) {
    if (!datasets) await readingCheckpoint(from, config, async (manifest) => checkPosition(from, manifest, config))
    const { trainer, manifest: { position, earlyStopping } } = await Trainer.load(from, config, options)
    return { trainer, position, earlyStopping, resumedFrom: from, rows: null }
  }
  const { statistics, rows } = datasets ? { statistics: {}, rows: null } : await readStatistics(loaded)
  const trainer = await Trainer.create(config, statistics, options)
  return { trainer, position: { epoch: 0, epochStep: 0 }, earlyStopping: undefined, resumedFrom: null, rows }
}

/** The checkpoint to go on from, or null to start anew. */
async function checkpointToResume(run: string, resume: string): Promise<string | null> {
  if (resume === 'never') return null
  if (resume !== 'auto' && resume !== 'always') return resume
  const newest = await newestCheckpoint(run)
  if (newest === undefined) {
    if (resume === 'auto') return null
    throw new PersiaError('PERSIA_CHECKPOINT_NOT_FOUND',
      `there is no checkpoint to resume in ${run}`, { directory: run })
  }
  if (resume === 'always') return newest
  const finished = await readingCheckpoint(newest, undefined, async (manifest) => manifest.finished)
  return finished ? null : newest
}

/**
 * A position in the middle of an epoch counts steps: in files it means other rows when these have changed in size.
 * Batches of a user's own are steps of whatever size they have.
 */
function checkPosition(directory: string, { position, config }: Manifest, now: Config): void {
  const before = samplesPerStep(parseConfig(config)), samples = samplesPerStep(now)
  if (position.epochStep === 0 || before === samples) return
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH',
    `${directory} stands in the middle of an epoch, ${position.epochStep} steps of ${before} samples in: `
    + `until its end a step cannot have ${samples} (batchSize × accumulate × cluster.nnWorkers)`,
    { directory, before, samples })
}

class Run {
  private readonly config: Config
  private readonly end = new AbortController()
  private readonly signal: AbortSignal
  private readonly callbacks: CallbackRunner
  private readonly earlyStopping: EarlyStopping | undefined
  private readonly hasTest: boolean
  /** Of evaluations that were made while training; they come out with the next report. */
  private pending: RunEvent[] = []
  private readonly resumedFrom: string | null
  private position: Position
  /** The step before the epoch under way. */
  private epochStart: number | undefined
  private evaluatedStep: number | undefined
  private savedStep: number | undefined
  private stopped: DoneReport['stopped']
  private trainingSeconds = 0
  private readonly pipeline: PipelineMeter
  private readonly stepsBefore: number
  private readonly samplesBefore: number

  constructor(private readonly loaded: LoadedConfig, private readonly options: RunOptions,
    private readonly trainer: Trainer, { position, resumedFrom, earlyStopping }: Start) {
    const { callbacks = [], signal, datasets } = options
    this.config = loaded.config
    this.resumedFrom = resumedFrom
    this.position = position
    this.signal = AbortSignal.any([this.end.signal, ...(signal ? [signal] : [])])
    this.callbacks = new CallbackRunner([callbacks].flat(), { trainer, stop: () => this.stop('callback') })
    const settings = this.config.evaluate.earlyStopping
    this.earlyStopping = settings && new EarlyStopping(settings, earlyStopping)
    this.hasTest = (datasets?.test ?? this.config.data.test) !== undefined
    this.stepsBefore = trainer.steps
    this.samplesBefore = trainer.samples
    this.pipeline = new PipelineMeter(() => trainer.pipeline())
  }

  async *events(): AsyncGenerator<RunEvent, void, undefined> {
    const { signal } = this.options
    await this.callbacks.call('onStart', { step: this.stepsBefore, resumedFrom: this.resumedFrom })
    if (this.earlyStopping?.exhausted) this.stop('early stopping')
    if (!this.signal.aborted && this.owesEvaluation()) yield* this.evaluateNow()
    while (!this.signal.aborted && this.position.epoch < this.config.epochs) {
      yield* this.trainEpoch()
      if (!this.signal.aborted) yield* this.endEpoch()
    }
    if (this.callbacks.failure) throw await this.savedFailure(this.callbacks.failure)
    if (signal?.aborted && !this.stopped) return yield { event: 'interrupted', checkpoint: await this.save(false) }
    const untouched = this.trainer.steps === this.stepsBefore
    if (untouched && this.hasTest && this.evaluatedStep === undefined) yield* this.evaluateNow()
    const checkpoint = await this.save(true)
    if (this.callbacks.failure) throw await this.savedFailure(this.callbacks.failure)
    yield { event: 'done', ...this.done(checkpoint) }
  }

  private async *trainEpoch(): AsyncGenerator<RunEvent, void, undefined> {
    const { reportEverySeconds } = this.options
    const { checkpoint, evaluate } = this.config
    this.epochStart = this.trainer.steps - this.position.epochStep
    const dataset = this.openTrain()
    const started = performance.now()
    this.pipeline.start()
    try {
      const reports = this.trainer.fit(dataset, {
        signal: this.signal,
        ...(reportEverySeconds !== undefined && { reportEverySeconds }),
        ...(this.callbacks.has('onStep') && { onStep: (report) => this.callbacks.call('onStep', report) }),
        evaluate: { everySteps: evaluate.everySteps, run: () => this.evaluate() },
        checkpoint: {
          everySteps: checkpoint.everySteps, save: () => this.saveOnce(), when: this.options.checkpointWhen,
        },
      })
      for await (const report of reports) {
        yield* this.takePending()
        yield { event: 'progress', ...report }
      }
    } catch (error) {
      yield* this.takePending()  // evaluations that were made all the same
      throw error
    } finally {
      this.trainingSeconds += (performance.now() - started) / 1000
      this.pipeline.stop()
      await dataset.close()
    }
    yield* this.takePending()
    if (this.trainer.steps === 0 && !this.signal.aborted) {
      throw new PersiaError('PERSIA_DATA_UNREADABLE', 'the training data has no rows', { split: 'train' })
    }
    if (dataset.skipped.rows > 0) yield { event: 'skipped', ...dataset.skipped }
  }

  private async *endEpoch(): AsyncGenerator<RunEvent, void, undefined> {
    this.position = { epoch: this.position.epoch + 1, epochStep: 0 }
    this.epochStart = undefined
    const { steps: step, samples } = this.trainer
    if (this.hasTest && this.evaluatedStep !== step) yield* this.evaluateNow()
    await this.callbacks.call('onEpoch', { epoch: this.position.epoch, step, samples })
  }

  private openTrain(): FileDataset {
    const { epoch, epochStep } = this.position
    const own = this.options.datasets?.train(epoch)
    if (own) return ownDataset('train', own, epochStep)
    return openDataset(this.loaded, 'train', this.trainer.statistics, { skipBatches: epochStep, epoch })
  }

  private openTest(): FileDataset {
    const own = this.options.datasets?.test?.()
    return own ? ownDataset('test', own) : openDataset(this.loaded, 'test', this.trainer.statistics)
  }

  // ---- evaluation and early stopping

  /** Whether the run was interrupted at a step whose evaluation counts and had not been made. */
  private owesEvaluation(): boolean {
    const { everySteps } = this.config.evaluate
    const { steps } = this.trainer
    const isDue = everySteps > 0 && steps > 0 && steps % everySteps === 0 && this.position.epoch < this.config.epochs
    return isDue && this.earlyStopping !== undefined && this.earlyStopping.state.step !== steps
  }

  private async *evaluateNow(): AsyncGenerator<RunEvent, void, undefined> {
    try {
      await this.evaluate()
    } finally {
      yield* this.takePending()
    }
  }

  private *takePending(): Generator<RunEvent, void, undefined> {
    const events = this.pending
    this.pending = []
    yield* events
  }

  /** The model is at rest. */
  private async evaluate(): Promise<void> {
    const dataset = this.openTest()
    const { metrics = {} } = this.options
    const started = performance.now()
    try {
      const report = await this.trainer.evaluate(dataset, { metrics })
      this.evaluatedStep = report.step
      this.pending.push({ event: 'eval', ...report }, ...warnings(this.config, report))
      if (dataset.skipped.rows > 0) this.pending.push({ event: 'skipped', ...dataset.skipped })
      await this.watch(report)
      await this.callbacks.call('onEval', report)
    } catch (error) {
      // A metric of the user's own ends the run as a callback does.
      if (!(error instanceof PersiaError) || error.code !== 'PERSIA_CALLBACK_FAILED') throw error
      this.callbacks.fail(error)
    } finally {
      await dataset.close()
      if (this.epochStart !== undefined) this.trainingSeconds -= (performance.now() - started) / 1000
    }
  }

  private async watch(report: EvalReport): Promise<void> {
    // A resumed run may repeat the evaluation that its checkpoint has counted.
    if (!this.earlyStopping || this.earlyStopping.state.step === report.step) return
    if (this.earlyStopping.take(report)) await this.saveOnce()
    else if (this.earlyStopping.exhausted) this.stop('early stopping')
  }

  private stop(why: NonNullable<DoneReport['stopped']>): void {
    this.stopped ??= why
    this.end.abort()
  }

  // ---- checkpoints

  /** Saves unless this step was saved already. */
  private async saveOnce(): Promise<void> {
    if (this.savedStep !== this.trainer.steps) await this.save(false)
  }

  private async save(finished: boolean): Promise<string> {
    const { dir, keep } = this.config.checkpoint
    const { steps } = this.trainer
    if (this.epochStart !== undefined) this.position = { ...this.position, epochStep: steps - this.epochStart }
    const directory = join(dir, String(steps))
    const { state } = this.earlyStopping ?? {}
    await this.trainer.save(directory, { position: this.position, finished, ...(state && { earlyStopping: state }) })
    await markLatest(dir, basename(directory))
    await pruneCheckpoints(dir, keep, basename(directory), state?.best ? String(state.best.step) : undefined)
    this.savedStep = steps
    await this.callbacks.call('onCheckpoint', { step: steps, checkpoint: directory })
    return directory
  }

  /** The error of a callback, with the model saved as it is. */
  private async savedFailure(failure: PersiaError): Promise<PersiaError> {
    const checkpoint = await this.save(false)
    return new PersiaError(failure.code, `${failure.message}. The model as it was is saved in ${checkpoint}`,
      { ...failure.details, checkpoint }, { cause: failure.cause })
  }

  private done(checkpoint: string): DoneReport {
    const seconds = Math.round(this.trainingSeconds * 1000) / 1000
    const samples = this.trainer.samples - this.samplesBefore
    const samplesPerSecond = samples > 0 ? Math.round(samples / this.trainingSeconds) : 0
    const table = tableReport(this.trainer.counters(), this.config)
    const { staleness, pipeline } = this.pipeline.report()
    const best = this.best()
    return {
      steps: this.trainer.steps, seconds, samplesPerSecond, checkpoint,
      ...(this.stopped && { stopped: this.stopped }), ...(best && { best }), staleness, pipeline, table,
    }
  }

  private best(): DoneReport['best'] {
    const { settings: { metric, label } = {}, state } = this.earlyStopping ?? {}
    if (metric === undefined || !state?.best) return undefined
    const { step, value } = state.best
    return {
      metric, ...(label !== undefined && { label }), value, step,
      checkpoint: join(this.config.checkpoint.dir, String(step)),
    }
  }
}

/** What is probably not meant. */
function* warnings(
  { data }: LoadedConfig['config'], { split, auc, samples }: EvalReport,
): Generator<RunEvent, void, undefined> {
  if (samples === 0) yield { event: 'warning', message: `the ${split} data has no rows` }
  for (const { column, positive } of data.labels) {
    if (samples === 0 || auc[column] !== null) continue
    const hint = positive === undefined ? '' : `; is ${JSON.stringify(positive)} the text that means 1?`
    const message = `all samples of ${split} have the same label ${column}, so there is no AUC${hint}`
    yield { event: 'warning', message }
  }
}
