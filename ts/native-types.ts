// The shape of the native addon, as bindings/ registers it. Everything here is internal: users see ts/index.ts.
import type { NativeBatcherConstructor } from './data/native-batcher.js'

export interface NativeFeature { name: string; dim: number; pooling: 'sum' | 'mean' | 'sqrt'; group: number }

/** bindings/trainer_config.cc reads every field; there are no defaults on that side. */
export interface NativeTrainerConfig {
  seed: number
  staleness: number
  deterministic: boolean
  prefixBits: number
  features: NativeFeature[]
  embedding: { optimizer: object; init: object; capacity: number; admit: number; weightBound: number }
  model: {
    denseCount: number
    threads: number
    hidden: number[]
    tasks: { label: string; loss: 'bce' | 'mse'; weight: number }[]
    optimizer: object
    schedule: object
  }
}

export interface NativeIdColumn { ids: BigUint64Array; offsets?: Uint32Array }

export interface NativeBatchSource {
  rows: number
  ids: NativeIdColumn[]
  denseCount: number
  dense: Float32Array | Float32Array[]
  labelCount: number
  labels: Float32Array | Float32Array[]
}

/** A batch in native hands: views on typed arrays, or memory of the reader. */
export interface NativeBatch { readonly rows: number }

export interface NativeSnapshotFile { name: string; bytes: number; checksum: bigint }

export interface NativeProgress {
  steps: number
  samples: number
  lossSum: number
  lossSteps: number
  staleness: number
  mostStaleness: number
}

/** Counters of one table (one row class). */
export interface TableCounters {
  rows: number
  bytes: number
  hits: number
  misses: number
  inserts: number
  evictions: number
  refused: number
  missedUpdates: number
  nonFiniteSkipped: number
}

export interface NativeTrainer {
  push(batch: NativeBatch): Promise<void>
  drain(): Promise<void>
  pause(afterStep?: number): Promise<void>
  resume(): void
  atRest(): boolean
  save(directory: string): Promise<NativeSnapshotFile[]>
  restore(directory: string, files: NativeSnapshotFile[]): Promise<void>
  predict(batch: NativeBatch): Promise<Float32Array>
  progress(): NativeProgress
  counters(): TableCounters[]
  close(): Promise<void>
}

export interface NativeTaskMetrics { label: string; samples: number; auc?: number; logloss?: number; mse?: number }

export interface NativeEvaluator {
  add(batch: NativeBatch): Promise<void>
  results(): Promise<NativeTaskMetrics[]>
}

export interface NativeAddon {
  BatchHandle: new (source: NativeBatchSource) => NativeBatch
  Batcher: NativeBatcherConstructor
  createTrainer(config: NativeTrainerConfig): Promise<NativeTrainer>
  Evaluator: new (trainer: NativeTrainer) => NativeEvaluator
  hashId(text: string): bigint
  checksum(bytes: Uint8Array): bigint
  verifySnapshot(directory: string, files: NativeSnapshotFile[]): Promise<void>
  formatOutputs(outputs: Float32Array, labelsAsJson: string[], style: 'csv' | 'json', firstRow: number): Buffer
  machine(): { cores: number; avx2: boolean }
}
