// The shape of the native Batcher (bindings/batcher_binding.cc). Internal.
import type { NativeBatch } from '../native-types.js'
import type { NativeArrowRows } from './native-arrow.js'

export interface NativeDense {
  name: string
  transform: 'none' | 'log1p' | 'standardize'
  mean: number
  stddev: number
  missing?: number
}

/** What the values of a chunk mean. */
export interface NativeDecoderOptions {
  ids: { name: string; encoding: 'hash' | 'integer'; separator: string; slice?: [number, number] }[]
  dense: NativeDense[]
  labels: { name: string; positive?: string; probability: boolean }[]
  missing: string[]
  split?: { name: string } & ({ by: 'hash'; testShare: number; seed: number } | { by: 'time'; from: number | string })
}

/** Of all rows of a stream of random numbers, a share is test data. */
export interface NativeShare { testShare: number; seed: number; stream: number }

/** `label` is the place of the label whose negatives are left out. */
export interface NativeSampling { label: number; keep: number; seed: number; epoch: number }

export interface NativeBatcherOptions extends NativeDecoderOptions {
  batchSize: number
  share?: NativeShare
  /** Which side of a share or split is taken. */
  wantsTest: boolean
  sampling?: NativeSampling
  /** More than one row. */
  shuffle?: { buffer: number; seed: number; epoch: number }
  skipRows: number
  stopAtBadRow: boolean
  mostReports: number
  collectMoments: boolean
}

/** One column of a chunk, as views on DuckDB's memory; cpp/batch/chunk.h has the layout. */
export interface NativeColumn {
  kind: 'text' | 'number' | 'integer'
  values: Uint8Array
  validity?: BigUint64Array | undefined
  entries?: BigUint64Array
  entryValidity?: BigUint64Array | undefined
}

export interface NativeChunk {
  rows: number
  ids: NativeColumn[]
  dense: NativeColumn[]
  labels: NativeColumn[]
  split?: NativeColumn | undefined
  /** Owns the memory of the columns; the batcher holds the whole object until its work is done. */
  owner: object
}

export interface NativeBadRow { row: number; column: string; value: string; reason: string }

export interface NativeBatcherOutput { batches: NativeBatch[]; badCount: number; bad: NativeBadRow[] }

export interface NativeMoments { count: number; mean: number; m2: number }

export interface NativeBatcher {
  /** Decodes the chunk on a worker thread; one push at a time. */
  push(chunk: NativeChunk): Promise<NativeBatcherOutput>
  /** The same of rows [first, first + count). */
  pushArrow(rows: NativeArrowRows, first: number, count: number): Promise<NativeBatcherOutput>
  finish(): NativeBatch[]
  moments(): NativeMoments[]
}

export interface NativeBatchColumns {
  ids: { ids: BigUint64Array; offsets?: Uint32Array }[]
  dense: Float32Array
  labels: Float32Array
}

export interface NativeBatcherConstructor {
  new (options: NativeBatcherOptions): NativeBatcher
  /** A copy of what is in a batch, to look at it. */
  columnsOf(batch: NativeBatch): NativeBatchColumns
}
