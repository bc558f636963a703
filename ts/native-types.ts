// The shape of the native addon, as bindings/ registers it. Everything here is internal: users see ts/index.ts.
import type { NativeBatcherConstructor } from './data/native-batcher.js'
import type { NativeData } from './data/native-data.js'

export interface NativeFeature {
  name: string
  dim: number
  pooling: 'sum' | 'mean' | 'sqrt' | 'max' | 'last' | 'none'
  group: number
  /** 0: any. */
  sequenceLength: number
  /** 0: no hash stack. */
  hashRounds: number
  hashBuckets: number
  /** Adds `sequenceLength` to the dense inputs of the network; not to those of a batch. */
  mask: boolean
  frozen: boolean
  /** Features of unequal numbers have tables of their own. */
  optimizer: number
}

/** The table of a row class. One of the capacities is 0: not bounded by it. */
export interface NativeTable {
  dim: number
  optimizer: object
  capacityRows: number
  capacityBytes: number
  groupCapacities: { group: number; rows: number }[]
}

export interface NativeEmbedding {
  storage: 'fp32' | 'fp16' | 'bf16'
  init: object
  admitProbability: number
  admitFrequency: number
  eviction: 'lru' | 'lfu'
  timeToLiveMs: number
  weightBound: number
  tables: NativeTable[]
}

/** bindings/trainer_config.cc reads every field; there are no defaults on that side. */
export interface NativeTrainerConfig {
  seed: number
  mode: 'sync' | 'hybrid' | 'async'
  /** Of the dense networks. */
  device: 'cpu' | 'cuda'
  nnWorkers: number
  accumulate: number
  /** 1 and not dynamic: off. */
  lossScaling: { scale: number; dynamic: boolean; growthInterval: number; growth: number; backoff: number }
  /** Spans kept for each stage of each NN worker; 0: no trace. */
  traceSpans: number
  staleness: number
  /** Lookups no farther ahead than keeps the stages busy. */
  justInTime: boolean
  syncSteps: number
  deterministic: boolean
  prefixBits: number
  /** Of one row from one batch; 0: off. */
  embeddingClipNorm: number
  features: NativeFeature[]
  embedding: NativeEmbedding
  model: {
    type: 'ffnn' | 'deepfm' | 'dcn' | 'dlrm'
    denseCount: number
    threads: number
    precision: 'fp32' | 'tf32' | 'bf16'
    hidden: number[]
    /** dcn. */
    cross?: { layers: number; rank: number; structure: 'parallel' | 'stacked' }
    /** dlrm. */
    bottom?: number[]
    tasks: { label: string; loss: 'bce' | 'mse'; weight: number; positiveWeight: number; keptNegatives: number }[]
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
export interface NativeBatch {
  readonly rows: number
  /** Gives the memory back, as far as no step needs it; the batch is not used afterwards. */
  release(): void
}

export interface NativeSnapshotFile { name: string; bytes: number; checksum: bigint }

export interface NativeProgress {
  steps: number
  samples: number
  lossSum: number
  /** Parts of steps count as parts. */
  lossSteps: number
  /** Steps whose gradients were not finite, those before a restore included; async: parts of steps. */
  skipped: number
  lossScale: number
  staleness: number
  mostStaleness: number
}

/** What a stage of the pipeline did, in seconds since the trainer was made. */
export interface NativeStage {
  stage: 'prepare' | 'lookup' | 'train' | 'apply'
  worker: number
  /** Nothing there to work on. */
  idle: number
  /** Work is there, but the staleness gate, or in `prepare` a slot, is waited for. */
  held: number
  busy: number
  steps: number
  /** Steps that waited when the stage took one, summed over its steps. */
  queued: number
  mostQueued: number
}

export interface NativeDelays { count: number; sum: number; most: number }

export interface NativePipeline {
  stages: NativeStage[]
  /** Lookups by the number of earlier batches of their NN worker that were not applied. */
  lookups: number[]
  /** Of sampled rows: updates by other batches between lookup and update; the histogram's last entry is "or more". */
  rows: NativeDelays
  rowHistogram: number[]
  /** Mode async: updates of the dense network by others between a worker's pull and push. */
  dense: NativeDelays
}

/** What a table holds, and what happened to it since the trainer was made. */
export interface TableCounters {
  /** Held now. */
  rows: number
  /** Of the rows, their index and the sketch that counts ids (admission by frequency, lfu), now. */
  bytes: number
  /** Places of the index; rows / lanes is its load. */
  lanes: number
  /** Distinct ids of batches that had a row when they were looked up, in training, evaluation and prediction. */
  hits: number
  misses: number
  inserts: number
  evictions: number
  /** Of the evictions those by age (timeToLiveSeconds). */
  expired: number
  /** Lookups whose id was not admitted, and rows for which no room could be made. */
  refused: number
  /** Gradients whose row was evicted or never admitted. */
  missedUpdates: number
  /** Gradients with NaN or infinity. */
  nonFiniteSkipped: number
}

export interface NativeCounters {
  /** By row class. `groups` is by the number of the feature group; the last one counts signs of no group. */
  tables: (TableCounters & { groups: TableCounters[] })[]
  /** By feature: an estimate of the distinct ids seen in training, in the run that was resumed included. */
  distinct: number[]
}

export interface NativeTrainer {
  push(batch: NativeBatch): Promise<void>
  /** Unless more batches come, pauses at steps that were not pushed are withdrawn. */
  drain(moreComes: boolean): Promise<void>
  pause(afterStep?: number): Promise<void>
  resume(): void
  atRest(): boolean
  save(directory: string): Promise<NativeSnapshotFile[]>
  restore(directory: string, files: NativeSnapshotFile[]): Promise<void>
  predict(batch: NativeBatch): Promise<Float32Array>
  /** Of a feature, by its place: floats of a row with the state of its optimizer. */
  rowWidth(feature: number): number
  readRows(feature: number, ids: BigUint64Array, width: number): Promise<{ rows: Float32Array; found: Uint8Array }>
  writeRows(feature: number, ids: BigUint64Array, width: number, rows: Float32Array): Promise<void>
  progress(): NativeProgress
  counters(): NativeCounters
  pipeline(): NativePipeline
  trace(): Promise<string>
  close(): Promise<void>
}

/** How a process takes part in a cluster's data plane. Every field is read; there are no defaults on the native side. */
export interface NativeNet {
  /** Where to listen: an address of this host, and a port; 0: any. */
  host: string
  port: number
  transport: 'auto' | 'tcp' | 'rdma' | 'shm'
  /** Of this run, issued over the control plane: peers that don't know it are refused. At least 16 bytes. */
  secret: Uint8Array
  /** The longest that an answer may take before the peer counts as lost (PERSIA_PEER_LOST names it). */
  deadlineMs: number
}

/** How numbers travel. The two ends of a connection need not agree: messages say what they hold. */
export interface NativeWire {
  /** Rows from parameter servers to embedding workers; in int8 each row has a scale. */
  rows: 'fp32' | 'fp16' | 'bf16' | 'int8'
  /** Gradients of rows, the other way. */
  gradients: 'fp32' | 'fp16' | 'bf16' | 'int8'
  /** Pooled embeddings and their gradients, between embedding workers and NN workers. */
  activations: 'fp32' | 'fp16' | 'bf16'
  /** Of ids and signs. */
  compression: 'none' | 'lz4' | 'zstd'
}

/** Which process of its role this is: 0 … size - 1. */
export interface NativeRank { rank: number; size: number }

export interface NativeRoleOptions { net: NativeNet; wire: NativeWire; rank: NativeRank }

/**
 * Addresses (`NativeRole.address()`) of all processes of each role, by rank; '' is that of data loader 0, the driver. A
 * parameter server needs none, an embedding worker the parameter servers, an NN worker embedding workers and NN
 * workers (its own included), a data loader these too, a cluster trainer all.
 */
export interface NativePeers {
  parameterServers: string[]
  embeddingWorkers: string[]
  nnWorkers: string[]
  dataLoaders: string[]
}

/** Totals since the role was made. */
export interface NativeRoleCounters {
  /** Requests answered by this role, and bytes of its messages, headers included. */
  requests: number
  bytesReceived: number
  bytesSent: number
  /** What has carried messages so far, and why: "rdma (mlx5_0:1), because it was asked for". */
  carriers: string[]
  /** Requests that came again after a reconnect and were answered without being done twice. */
  repeated: number
  /**
   * Now: rows of a parameter server, batches held by an embedding worker or ready at a data loader, steps applied by an
   * NN worker.
   */
  rows: number
  batches: number
  steps: number
}

/**
 * A role of a cluster in this process: it listens from the start, works once it is connected, and ends with `close`.
 *
 *   const role = await createNnWorker(config, options)   // listens
 *   register(role.address())                             // the coordinator hands out everybody's address
 *   await role.connect(peers)                            // waits until every peer answers, deadlineMs each at most
 *   await role.ended()                                   // resolves after close; rejects when the role failed
 */
export interface NativeRole {
  /** What peers connect to: opaque text. */
  address(): string
  /** PERSIA_PEER_LOST: a peer did not answer; its details have `role` and `rank`. Once. */
  connect(peers: NativePeers): Promise<void>
  ended(): Promise<void>
  state(): 'listening' | 'running' | 'draining' | 'stopped'
  counters(): NativeRoleCounters
  /** Answers what it has begun, then stops. May be called again. */
  close(): Promise<void>
}

/** What data loader 0 holds: `config.nnWorkers` is that of the cluster. */
export interface NativeClusterOptions { net: NativeNet; wire: NativeWire; rank: NativeRank; peers: NativePeers }

/**
 * Where a data loader that does not drive puts the batches that it reads, until the driver says as which steps they are
 * trained. What is said of a pass that is not open any more fails with PERSIA_ABORTED, everything after the role was
 * closed with PERSIA_CLOSED.
 */
export interface NativeLoaderQueue {
  /** The pass that is open, when it is another one than `last` (0: any). One call at a time. */
  nextPass(last: number): Promise<{ number: number; text: string }>
  /** Resolves when there is room for the next one. `number` is that in the whole pass. */
  deliver(pass: number, number: number, batch: NativeBatch): Promise<void>
  /** This loader has no more batches of the pass. */
  finish(pass: number): void
}

/** The other data loaders, as the driver sees them. */
export interface NativeLoaders {
  /** Tells all of a pass over the data. Passes have rising numbers, from 1. */
  open(pass: number, text: string): Promise<void>
  /**
   * A batch of another loader, of which only `rows` is here: pushed to the trainer, it is sent by who has it. null: the
   * pass has no such batch.
   */
  ask(pass: number, number: number): Promise<NativeBatch | null>
}

/** `grouped` with groupBy; numbers that there are not are NaN. */
export interface NativeTaskMetrics {
  label: string
  auc?: number
  aucErrorBound?: number
  logloss?: number
  calibration?: number
  grouped?: { value: number; groups: number; samples: number; oneClass: number; withoutGroup: number }
  mse?: number
}

export interface NativeEvaluator {
  /** What the model gave for the batch and what was right, both (rows × tasks). */
  add(batch: NativeBatch): Promise<{ outputs: Float32Array; labels: Float32Array }>
  results(): Promise<NativeTaskMetrics[]>
}

export interface NativeAddon extends NativeData {
  BatchHandle: new (source: NativeBatchSource) => NativeBatch
  Batcher: NativeBatcherConstructor
  createTrainer(config: NativeTrainerConfig): Promise<NativeTrainer>
  /** The roles of a cluster. `config` is the same one in all of them, with `nnWorkers` of the whole cluster. */
  createParameterServer(config: NativeTrainerConfig, options: NativeRoleOptions): Promise<NativeRole>
  createEmbeddingWorker(config: NativeTrainerConfig, options: NativeRoleOptions): Promise<NativeRole>
  createNnWorker(config: NativeTrainerConfig, options: NativeRoleOptions): Promise<NativeRole>
  /** One that does not drive; `queue` is closed with it. */
  createDataLoader(config: NativeTrainerConfig, options: NativeRoleOptions, queue: NativeLoaderQueue):
  Promise<NativeRole>
  LoaderQueue: new () => NativeLoaderQueue
  /**
   * The driver: a cluster that looks like one trainer. Resolves when every peer answered. Its `close` ends the training
   * in the roles, not the roles.
   */
  createClusterTrainer(config: NativeTrainerConfig, options: NativeClusterOptions):
  Promise<{ trainer: NativeTrainer; loaders: NativeLoaders }>
  Evaluator: new (trainer: NativeTrainer, groupBy?: number) => NativeEvaluator
  hashId(text: string): bigint
  hashIds(texts: readonly string[]): BigUint64Array
  checksum(bytes: Uint8Array): bigint
  /** flock(2) of an open file; false: another open file of the path has it. */
  tryLock(file: number): boolean
  verifySnapshot(directory: string, files: NativeSnapshotFile[]): Promise<void>
  formatOutputs(outputs: Float32Array, labelsAsJson: string[], style: 'csv' | 'json', firstRow: number): Buffer
  /** The CUDA backend: where it was loaded from ('' if it wasn't), the GPUs it can use, and why there are none. */
  cuda(): { path: string; devices: { name: string; capability: string; memoryBytes: number }[]; error: string }
  /** What carries data between processes here: a line each, "ucx: …", "shm: …", "rdma: …", "tcp: …". */
  describeTransports(): string
  machine(): { cores: number; avx2: boolean; avx512bf16: boolean; amx: boolean }
}
