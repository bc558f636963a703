// Evaluation within a run: when it is owed, what it reports, and early stopping, which watches it.
import { join } from 'node:path'
import type { Config, LoadedConfig } from '../config/index.js'
import type { DenseColumn } from '../config/resolved.js'
import type { Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import type { CallbackRunner } from './callbacks.js'
import { openDataset, ownDataset, type FileDataset } from './datasets.js'
import { EarlyStopping, type EarlyStoppingState } from './early-stopping.js'
import type { DoneReport, EvalReport } from './reports.js'
import type { RunEvent, RunOptions } from './run-events.js'
import type { Trainer } from './trainer.js'

/** Evaluations that the config asks for and the run cannot make. */
export function checkEvaluation({ data, evaluate }: Config, { datasets, metrics = {} }: RunOptions): void {
  if (evaluate.earlyStopping) EarlyStopping.checkMetric(evaluate.earlyStopping, Object.keys(metrics))
  const wants = evaluate.earlyStopping ? 'earlyStopping' : evaluate.everySteps > 0 ? 'everySteps' : undefined
  if (wants === undefined || data.test || datasets?.test) return
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `evaluate.${wants} needs data to evaluate on: give data.test`, { path: `evaluate.${wants}` })
}

/**
 * Test data of the config that no evaluation could read, such as a file or column that is not there: it would show only
 * after an epoch.
 */
export async function checkTestData(
  loaded: LoadedConfig, { datasets }: RunOptions, { statistics }: Trainer,
): Promise<void> {
  const { data } = loaded.config
  if (!data.test || datasets?.test) return
  checkStandardized(data, statistics)
  const dataset = openDataset(loaded, 'test', statistics)
  try {
    for await (const _first of dataset) break
  } finally {
    await dataset.close()
  }
}

function checkStandardized({ dense }: Config['data'], statistics: Statistics): void {
  const isUnknown = ({ column, transform }: DenseColumn) => transform === 'standardize' && !statistics[column]
  const { column } = dense.find(isUnknown) ?? {}
  if (column === undefined) return
  throw new PersiaError('PERSIA_USAGE',
    `data.test cannot be standardized: mean and deviation of ${column} are those of data.train, which a run on batches `
    + 'of your own does not read. Give options.datasets.test too, leave out data.test, or choose another transform',
    { column })
}

/** What evaluations do to the run that they belong to. */
interface Effects {
  /** Keeps the checkpoint of this step. */
  save(): Promise<void>
  stop(): void
}

export class RunEvaluation {
  private readonly config: Config
  private readonly earlyStopping: EarlyStopping | undefined
  readonly hasTest: boolean
  /** Events of evaluations that were made while training; they come out with the next report. */
  private pending: RunEvent[] = []
  private evaluatedStep: number | undefined

  constructor(private readonly loaded: LoadedConfig, private readonly options: RunOptions,
    private readonly trainer: Trainer, private readonly callbacks: CallbackRunner,
    before: EarlyStoppingState | undefined, private readonly effects: Effects) {
    this.config = loaded.config
    const settings = this.config.evaluate.earlyStopping
    this.earlyStopping = settings && new EarlyStopping(settings, before)
    this.hasTest = (options.datasets?.test ?? this.config.data.test) !== undefined
  }

  /** Part of a checkpoint. */
  get state(): EarlyStoppingState | undefined {
    return this.earlyStopping?.state
  }

  get exhausted(): boolean {
    return this.earlyStopping?.exhausted ?? false
  }

  /** Whether the model was evaluated as it is now. */
  get isDone(): boolean {
    return this.evaluatedStep === this.trainer.steps
  }

  /** Whether the run was interrupted at a step whose evaluation counts and had not been made. */
  owed(): boolean {
    const { everySteps } = this.config.evaluate
    const { steps } = this.trainer
    const isDue = everySteps > 0 && steps > 0 && steps % everySteps === 0
    return isDue && this.earlyStopping !== undefined && this.earlyStopping.state.step !== steps
  }

  async *now(): AsyncGenerator<RunEvent, void, undefined> {
    try {
      await this.evaluate()
    } finally {
      yield* this.takePending()
    }
  }

  *takePending(): Generator<RunEvent, void, undefined> {
    const events = this.pending
    this.pending = []
    yield* events
  }

  /** The model is at rest. */
  async evaluate(): Promise<void> {
    const dataset = this.openTest()
    const { metrics = {} } = this.options
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
    }
  }

  best(): DoneReport['best'] {
    const { settings: { metric, label } = {}, state } = this.earlyStopping ?? {}
    if (metric === undefined || !state?.best) return undefined
    const { step, value } = state.best
    return {
      metric, ...(label !== undefined && { label }), value, step,
      checkpoint: join(this.config.checkpoint.dir, String(step)),
    }
  }

  private openTest(): FileDataset {
    const own = this.options.datasets?.test?.()
    return own ? ownDataset('test', own) : openDataset(this.loaded, 'test', this.trainer.statistics)
  }

  private async watch(report: EvalReport): Promise<void> {
    // A resumed run may repeat the evaluation that its checkpoint has counted.
    if (!this.earlyStopping || this.earlyStopping.state.step === report.step) return
    if (this.earlyStopping.take(report)) await this.effects.save()
    else if (this.earlyStopping.exhausted) this.effects.stop()
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
