// What training and evaluation report; the command line prints these with `event` in front.
import type { StageReport, StalenessReport } from './pipeline-report.js'
import type { TableReport } from './table-counters.js'

export interface ProgressReport {
  /** Steps applied so far, over all epochs and runs of this model. */
  step: number
  samples: number
  /** Mean loss of the steps since the last report. */
  loss: number
  /** Of the time since the last report. */
  samplesPerSecond: number
  /** Batches that the newest lookup of an NN worker is behind; of several workers the most. */
  staleness: number
}

export interface EvalReport {
  split: string
  samples: number
  /** By label; tasks with loss bce. null without samples, and for AUC where a split has one class only. */
  auc: Record<string, number | null>
  logloss: Record<string, number | null>
  /** By label; tasks with loss mse, left out when there are none. */
  mse?: Record<string, number | null>
}

export interface DoneReport {
  steps: number
  /** Time spent in training, without reading statistics and evaluation. */
  seconds: number
  samplesPerSecond: number
  checkpoint: string
  staleness: StalenessReport
  /** What the stages of the pipeline did while training was under way. */
  pipeline: StageReport[]
  /** What the embedding tables hold, and what happened to them since this process started or resumed the run. */
  table: TableReport
}
