// One training run from config to checkpoint: epochs, periodic and final checkpoints, callbacks. How it starts, and
// evaluation, are in files of their own. The command line prints what this yields.
import { basename, join } from 'node:path'
import { checkOneProcess } from '../config/cluster.js'
import { parseConfig, type Config, type ConfigInput, type LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { CallbackRunner } from './callbacks.js'
import { checkRunOptions } from './check-options.js'
import { lockRun, markLatest, pruneCheckpoints, type Position } from './checkpoint.js'
import { openDataset, ownDataset, type FileDataset } from './datasets.js'
import { PipelineMeter } from './pipeline-report.js'
import type { DoneReport } from './reports.js'
import { RunEvaluation, checkEvaluation, checkTestData } from './run-evaluation.js'
import type { RunEvent, RunOptions } from './run-events.js'
import { openTrainer, type Start } from './run-start.js'
import { tableReport } from './table-counters.js'
import type { Trainer } from './trainer.js'

/**
 * Trains as the config says. Ends with the event `done` or `interrupted`; throws PersiaError. Paths of a config that is
 * not from a file start at the current folder.
 */
export async function* runTraining(
  config: LoadedConfig | ConfigInput | Config, options: RunOptions = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const loaded = loadedConfig(config)
  checkRunOptions(options)
  if (!options.createNative) checkOneProcess(loaded.config)
  checkEvaluation(loaded.config, options)
  const { checkpoint, epochs, name } = loaded.config
  const unlock = await lockRun(checkpoint.dir)
  try {
    const { trainer, rows, ...start } = await openTrainer(loaded, options)
    try {
      await checkTestData(loaded, options, trainer)
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

class Run {
  private readonly config: Config
  private readonly end = new AbortController()
  private readonly signal: AbortSignal
  private readonly callbacks: CallbackRunner
  private readonly evaluation: RunEvaluation
  private readonly resumedFrom: string | null
  private position: Position
  /** The step before the epoch under way. */
  private epochStart: number | undefined
  private savedStep: number | undefined
  private stopped: DoneReport['stopped']
  private trainingSeconds = 0
  private readonly pipeline: PipelineMeter
  private readonly stepsBefore: number
  private readonly samplesBefore: number
  private readonly skippedBefore: number

  constructor(private readonly loaded: LoadedConfig, private readonly options: RunOptions,
    private readonly trainer: Trainer, { position, resumedFrom, earlyStopping }: Start) {
    const { callbacks = [], signal } = options
    this.config = loaded.config
    this.resumedFrom = resumedFrom
    this.position = position
    this.signal = AbortSignal.any([this.end.signal, ...(signal ? [signal] : [])])
    this.callbacks = new CallbackRunner([callbacks].flat(), { trainer, stop: () => this.stop('callback') })
    this.evaluation = new RunEvaluation(loaded, options, trainer, this.callbacks, earlyStopping,
      { save: () => this.saveOnce(), stop: () => this.stop('early stopping') })
    this.stepsBefore = trainer.steps
    this.skippedBefore = trainer.skippedSteps
    this.samplesBefore = trainer.samples
    this.pipeline = new PipelineMeter(() => trainer.pipeline())
  }

  async *events(): AsyncGenerator<RunEvent, void, undefined> {
    const { signal } = this.options
    await this.callbacks.call('onStart', { step: this.stepsBefore, resumedFrom: this.resumedFrom })
    if (this.evaluation.exhausted) this.stop('early stopping')
    const isWithin = this.position.epoch < this.config.epochs
    if (!this.signal.aborted && isWithin && this.evaluation.owed()) yield* this.evaluation.now()
    while (!this.signal.aborted && this.position.epoch < this.config.epochs) {
      yield* this.trainEpoch()
      if (!this.signal.aborted) yield* this.endEpoch()
    }
    if (this.callbacks.failure) throw await this.savedFailure(this.callbacks.failure)
    if (signal?.aborted && !this.stopped) return yield { event: 'interrupted', checkpoint: await this.save(false) }
    const untouched = this.trainer.steps === this.stepsBefore
    if (untouched && this.evaluation.hasTest && !this.evaluation.isDone) yield* this.evaluation.now()
    const checkpoint = await this.save(true)
    if (this.callbacks.failure) throw await this.savedFailure(this.callbacks.failure)
    yield* this.warnings()
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
        evaluate: { everySteps: evaluate.everySteps, run: () => this.evaluateBetweenSteps() },
        checkpoint: {
          everySteps: checkpoint.everySteps, save: () => this.saveOnce(), when: this.options.checkpointWhen,
        },
      })
      for await (const report of reports) {
        yield* this.evaluation.takePending()
        yield { event: 'progress', ...report }
      }
    } catch (error) {
      yield* this.evaluation.takePending()  // evaluations that were made all the same
      throw error
    } finally {
      this.trainingSeconds += (performance.now() - started) / 1000
      this.pipeline.stop()
      await dataset.close()
    }
    yield* this.evaluation.takePending()
    if (this.trainer.steps === 0 && !this.signal.aborted) {
      throw new PersiaError('PERSIA_DATA_UNREADABLE', 'the training data has no rows', { split: 'train' })
    }
    if (dataset.skipped.rows > 0) yield { event: 'skipped', ...dataset.skipped }
  }

  private async *endEpoch(): AsyncGenerator<RunEvent, void, undefined> {
    this.position = { epoch: this.position.epoch + 1, epochStep: 0 }
    this.epochStart = undefined
    const { steps: step, samples } = this.trainer
    if (this.evaluation.hasTest && !this.evaluation.isDone) yield* this.evaluation.now()
    await this.callbacks.call('onEpoch', { epoch: this.position.epoch, step, samples })
  }

  private openTrain(): FileDataset {
    const { epoch, epochStep } = this.position
    const own = this.options.datasets?.train(epoch)
    if (own) return ownDataset('train', own, epochStep)
    const open = this.options.openTrain ?? openDataset
    const options = { skipBatches: epochStep, epoch, reuseMemory: true }
    return open(this.loaded, 'train', this.trainer.statistics, options)
  }

  /** Not a part of the time that training takes. */
  private async evaluateBetweenSteps(): Promise<void> {
    const started = performance.now()
    try {
      await this.evaluation.evaluate()
    } finally {
      this.trainingSeconds -= (performance.now() - started) / 1000
    }
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
    const { state } = this.evaluation
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

  private *warnings(): Generator<RunEvent, void, undefined> {
    const { lossScaling } = this.config.model
    const skipped = this.trainer.skippedSteps - this.skippedBefore
    if (skipped === 0 || lossScaling === 'dynamic' || typeof lossScaling === 'object') return  // part of the method
    const message = `${skipped} steps were skipped, because their gradients were not finite: look at the data, lower `
      + `the learning rate${lossScaling === 'off' ? '' : ' or model.lossScaling'}`
    yield { event: 'warning', message }
  }

  private done(checkpoint: string): DoneReport {
    const seconds = Math.round(this.trainingSeconds * 1000) / 1000
    const samples = this.trainer.samples - this.samplesBefore
    const samplesPerSecond = samples > 0 ? Math.round(samples / this.trainingSeconds) : 0
    const table = tableReport(this.trainer.counters(), this.config)
    const { staleness, pipeline } = this.pipeline.report()
    const best = this.evaluation.best()
    const { lossScale, skippedSteps } = this.trainer
    return {
      steps: this.trainer.steps, seconds, samplesPerSecond, checkpoint,
      ...(this.stopped && { stopped: this.stopped }), ...(best && { best }), skippedSteps,
      ...(this.config.model.lossScaling !== 'off' && { lossScale }), staleness, pipeline, table,
    }
  }
}
