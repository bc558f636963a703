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
  /** Steps that the model had been trained. */
  step: number
  samples: number
  /** By label; tasks with loss bce. null without samples, and for AUC where a split has one class only. */
  auc: Record<string, number | null>
  logloss: Record<string, number | null>
  /** By label: the sum of predictions divided by the sum of labels. Above 1 the model promises too much. */
  calibration: Record<string, number | null>
  /** By label, where AUC was not counted exactly (more than 10^7 samples): it is off by no more than this. */
  aucErrorBound?: Record<string, number>
  /** By label, with evaluate.groupBy: AUC within groups, averaged by their samples. */
  gauc?: Record<string, number | null>
  groups?: Record<string, GroupReport>
  /** By label; tasks with loss mse, left out when there are none. */
  mse?: Record<string, number | null>
  /** Metrics of your own, by name. */
  metrics?: Record<string, number | null>
}

/** The groups of GAUC. */
export interface GroupReport {
  /** The id column that makes them. */
  column: string
  /** Groups with both classes, and their samples. */
  groups: number
  samples: number
  /** Groups that were left out: all of their samples have the same label. */
  oneClass: number
  /** Samples that were left out: they have no id, or several. */
  withoutGroup: number
}

export interface StartReport {
  /** 0 for a new model. */
  step: number
  /** The checkpoint that the model comes from. */
  resumedFrom: string | null
}

/** A pass over the training data that is complete. */
export interface EpochReport {
  /** Passes that are complete: 1 after the first. */
  epoch: number
  step: number
  samples: number
}

export interface SavedReport {
  step: number
  checkpoint: string
}

export interface DoneReport {
  steps: number
  /** Time spent in training, without reading statistics and evaluation. */
  seconds: number
  samplesPerSecond: number
  checkpoint: string
  /** Why training ended before its last epoch was complete. */
  stopped?: 'early stopping' | 'callback'
  /** With evaluate.earlyStopping: the best evaluation, and the checkpoint that was kept of it. */
  best?: { metric: string; label?: string; value: number; step: number; checkpoint: string }
  /** Steps that changed nothing because their gradients were not finite, over all runs of this model. */
  skippedSteps: number
  /** With model.lossScaling: the scale at the end. */
  lossScale?: number
  staleness: StalenessReport
  /** What the stages of the pipeline did while training was under way. */
  pipeline: StageReport[]
  /** What the embedding tables hold, and what happened to them since this process started or resumed the run. */
  table: TableReport
}
