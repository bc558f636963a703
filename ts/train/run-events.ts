// What a run takes beside its config, and what it yields.
import type { Callbacks } from './callbacks.js'
import type { openDataset, SkippedRows } from './datasets.js'
import type { Metrics } from './evaluation.js'
import type { DoneReport, EvalReport, ProgressReport } from './reports.js'
import type { Dataset, TrainerOptions } from './trainer.js'

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
  /** @internal Opens each pass over the training data of the config. */
  openTrain?: typeof openDataset
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
