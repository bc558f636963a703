// One training run from config to checkpoint: epochs, evaluation, periodic and final checkpoints, resuming. The command
// line prints what this yields.
import { basename, join } from 'node:path'
import { parseConfig, type Config, type LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import {
  lockRun, markLatest, newestCheckpoint, pruneCheckpoints, readingCheckpoint, type Manifest, type Position,
} from './checkpoint.js'
import { openDataset, readStatistics, type SkippedRows } from './datasets.js'
import { samplesPerStep } from './native-config.js'
import { PipelineMeter } from './pipeline-report.js'
import type { DoneReport, EvalReport, ProgressReport } from './reports.js'
import { tableReport } from './table-counters.js'
import { Trainer } from './trainer.js'

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
  /** Gets the trace of the pipeline (Chrome's JSON format) at the end, also of an interrupted run. */
  onTrace?: (trace: string) => void
}

/** Trains as the config says. Ends with the event `done` or `interrupted`; throws PersiaError. */
export async function* runTraining(
  loaded: LoadedConfig, options: RunOptions = {},
): AsyncGenerator<RunEvent, void, undefined> {
  const { checkpoint, epochs, name } = loaded.config
  const unlock = await lockRun(checkpoint.dir)
  try {
    const { trainer, position, resumedFrom, rows } = await openTrainer(loaded, options)
    try {
      yield { event: 'start', name, resumedFrom, totalSamples: rows && rows * epochs }
      yield* new Run(loaded, options, trainer, position).events()
      options.onTrace?.(await trainer.trace())
    } finally {
      await trainer.close()
    }
  } finally {
    await unlock()
  }
}

interface Opened { trainer: Trainer; position: Position; resumedFrom: string | null; rows: number | null }

async function openTrainer(loaded: LoadedConfig, options: RunOptions): Promise<Opened> {
  const { config } = loaded
  const trace = options.onTrace !== undefined
  const from = await checkpointToResume(config.checkpoint.dir, options.resume ?? config.checkpoint.resume)
  if (from !== null) {
    await readingCheckpoint(from, config, async (manifest) => checkPosition(from, manifest, config))
    const { trainer, manifest } = await Trainer.load(from, config, { trace })
    return { trainer, position: manifest.position, resumedFrom: from, rows: null }
  }
  const { statistics, rows } = await readStatistics(loaded)
  const trainer = await Trainer.create(config, statistics, { trace })
  return { trainer, position: { epoch: 0, epochStep: 0 }, resumedFrom: null, rows }
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

/** A position in the middle of an epoch counts steps: it means other rows when these have changed in size. */
function checkPosition(directory: string, { position, config }: Manifest, now: Config): void {
  const before = samplesPerStep(parseConfig(config)), samples = samplesPerStep(now)
  if (position.epochStep === 0 || before === samples) return
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH',
    `${directory} stands in the middle of an epoch, ${position.epochStep} steps of ${before} samples in: `
    + `until its end a step cannot have ${samples} (batchSize × accumulate × cluster.nnWorkers)`,
    { directory, before, samples })
}

class Run {
  private trainingSeconds = 0
  private readonly pipeline: PipelineMeter
  private readonly stepsBefore: number
  private readonly samplesBefore: number

  constructor(private readonly loaded: LoadedConfig, private readonly options: RunOptions,
    private readonly trainer: Trainer,
    private position: Position) {
    this.stepsBefore = trainer.steps
    this.samplesBefore = trainer.samples
    this.pipeline = new PipelineMeter(() => trainer.pipeline())
  }

  async *events(): AsyncGenerator<RunEvent, void, undefined> {
    const { config } = this.loaded
    while (this.position.epoch < config.epochs) {
      yield* this.trainEpoch()
      if (this.options.signal?.aborted) return yield { event: 'interrupted', checkpoint: await this.save(false) }
      this.position = { epoch: this.position.epoch + 1, epochStep: 0 }
      if (config.data.test) yield* this.evaluate()
    }
    if (this.trainer.steps === this.stepsBefore && config.data.test) yield* this.evaluate()
    yield { event: 'done', ...this.done(await this.save(true)) }
  }

  private async *trainEpoch(): AsyncGenerator<RunEvent, void, undefined> {
    const { signal, reportEverySeconds } = this.options
    const { everySteps } = this.loaded.config.checkpoint
    const epochStart = this.trainer.steps - this.position.epochStep
    const dataset = openDataset(this.loaded, 'train', this.trainer.statistics, { skipBatches: this.position.epochStep })
    const track = () => { this.position = { ...this.position, epochStep: this.trainer.steps - epochStart } }
    const started = performance.now()
    this.pipeline.start()
    try {
      const reports = this.trainer.fit(dataset, {
        ...(signal && { signal }),
        ...(reportEverySeconds !== undefined && { reportEverySeconds }),
        checkpoint: { everySteps, save: () => { track(); return this.save(false) } },
      })
      for await (const report of reports) yield { event: 'progress', ...report }
    } finally {
      this.trainingSeconds += (performance.now() - started) / 1000
      this.pipeline.stop()
      await dataset.close()
    }
    track()
    if (this.trainer.steps === 0 && !signal?.aborted) {
      throw new PersiaError('PERSIA_DATA_UNREADABLE', 'the training data has no rows', { split: 'train' })
    }
    if (dataset.skipped.rows > 0) yield { event: 'skipped', ...dataset.skipped }
  }

  private async *evaluate(): AsyncGenerator<RunEvent, void, undefined> {
    const dataset = openDataset(this.loaded, 'test', this.trainer.statistics)
    const report = await this.trainer.evaluate(dataset)
    yield { event: 'eval', ...report }
    yield* warnings(this.loaded.config, report)
    if (dataset.skipped.rows > 0) yield { event: 'skipped', ...dataset.skipped }
  }

  private async save(finished: boolean): Promise<string> {
    const { dir, keep } = this.loaded.config.checkpoint
    const directory = join(dir, String(this.trainer.steps))
    await this.trainer.save(directory, { position: this.position, finished })
    await markLatest(dir, basename(directory))
    await pruneCheckpoints(dir, keep, basename(directory))
    return directory
  }

  private done(checkpoint: string): DoneReport {
    const seconds = Math.round(this.trainingSeconds * 1000) / 1000
    const samples = this.trainer.samples - this.samplesBefore
    const samplesPerSecond = samples > 0 ? Math.round(samples / this.trainingSeconds) : 0
    const table = tableReport(this.trainer.counters(), this.loaded.config)
    const { staleness, pipeline } = this.pipeline.report()
    return { steps: this.trainer.steps, seconds, samplesPerSecond, checkpoint, staleness, pipeline, table }
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
