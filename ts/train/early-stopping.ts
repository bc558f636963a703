// Early stopping: watches one metric over the evaluations of a run. Its state is plain JSON and part of the run's
// checkpoints, so that a resumed run stops where an uninterrupted one would have.
import { isBuiltIn, type EarlyStopping as Settings } from '../config/evaluation.js'
import { PersiaError } from '../errors.js'
import type { EvalReport } from './reports.js'

export interface EarlyStoppingState extends Watched {
  /** The last evaluation that counted. */
  step: number
  best: { step: number; value: number } | null
  /** Evaluations since the best one. */
  withoutBetter: number
}

/** What values are of: those of another metric say nothing about this one. */
type Watched = Pick<Settings, 'metric' | 'label' | 'mode'>

export class EarlyStopping {
  state: EarlyStoppingState

  /** Goes on from `state` if that watched the same, and starts anew otherwise. */
  constructor(readonly settings: Settings, state?: EarlyStoppingState) {
    const { metric, label, mode } = settings
    const isSame = state?.metric === metric && state.label === label && state.mode === mode
    const watched: Watched = { metric, ...(label !== undefined && { label }), mode }
    this.state = isSame ? state : { ...watched, step: 0, best: null, withoutBetter: 0 }
  }

  /** PERSIA_CONFIG_INVALID when the metric is neither built in nor among `own`. */
  static checkMetric({ metric }: Settings, own: string[]): void {
    if (isBuiltIn(metric) || own.includes(metric)) return
    const known = own.length === 0 ? 'there are none' : `there are ${own.join(', ')}`
    throw new PersiaError('PERSIA_CONFIG_INVALID',
      `evaluate.earlyStopping.metric: ${metric} is not a metric of this run's own (options.metrics); ${known}`,
      { path: 'evaluate.earlyStopping.metric' })
  }

  /** Whether the report is the best one so far. A metric without a value is no better than any. */
  take(report: EvalReport): boolean {
    const value = this.valueIn(report)
    const better = value !== null && this.isBetter(value)
    this.state = {
      ...this.state,
      step: report.step,
      best: better ? { step: report.step, value } : this.state.best,
      withoutBetter: better ? 0 : this.state.withoutBetter + 1,
    }
    return better
  }

  get exhausted(): boolean {
    return this.state.withoutBetter >= this.settings.patience
  }

  private valueIn(report: EvalReport): number | null {
    const { metric, label } = this.settings
    if (!isBuiltIn(metric)) return report.metrics?.[metric] ?? null
    return report[metric]?.[label ?? ''] ?? null
  }

  private isBetter(value: number): boolean {
    const { mode, minChange } = this.settings
    if (this.state.best === null) return true
    const gain = mode === 'max' ? value - this.state.best.value : this.state.best.value - value
    return gain > minChange
  }
}
