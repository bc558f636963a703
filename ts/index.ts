// The public API of the package.
export {
  Trainer, type Dataset, type EvaluateOptions, type FitOptions, type SaveOptions, type TrainerOptions,
} from './train/trainer.js'
export type { RowOptions, Rows, Table } from './train/table.js'
export type { MetricFunction, Metrics, StreamingMetric } from './train/evaluation.js'
export type { Callbacks, RunControl } from './train/callbacks.js'
export { Batch, type BatchSource, type FloatMatrix, type IdColumn } from './data/batch.js'
export type { RecordBatchLike } from './data/arrow.js'
export { loadConfigFile, parseConfig, type Config, type ConfigInput, type LoadedConfig } from './config/index.js'
export { openDataset, readStatistics, type DatasetOptions, type FileDataset } from './train/datasets.js'
export type { LoaderShard } from './data/indexed.js'
export { runTraining } from './train/run.js'
export type { RunDatasets, RunEvent, RunOptions } from './train/run-events.js'
export { newestCheckpoint, type Manifest, type Position } from './train/checkpoint.js'
export type {
  DoneReport, EpochReport, EvalReport, GroupReport, ProgressReport, SavedReport, StartReport,
} from './train/reports.js'
export { PersiaError, type ErrorCode, type ErrorDetails } from './errors.js'
export { hashId, hashIds } from './hash-id.js'
export type { NativePipeline, NativeStage, TableCounters } from './native-types.js'
export type { StageReport, StalenessReport } from './train/pipeline-report.js'
export type { GroupCounters, RowClassCounters, TableReport } from './train/table-counters.js'
