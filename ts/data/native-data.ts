// The shape of the native sources and of the writer of prepared data (bindings/data_binding.cc). Internal.
import type { NativeBatch } from '../native-types.js'
import type { NativeArrow, NativeArrowRows } from './native-arrow.js'
import type { NativeChunk, NativeDecoderOptions, NativeDense, NativeSampling, NativeShare } from './native-batcher.js'

/** Data whose batches are made in any order, each by itself. */
export interface NativeBatchSource {
  readonly rows: number
  readonly batches: number
  read(batch: number): Promise<NativeBatch>
}

/** The columns of shards, in their order. */
export interface NativeShardColumns {
  /** `list`: a row may have several ids. */
  ids: { name: string; list: boolean }[]
  dense: string[]
  labels: string[]
}

/** A shard, and the XXH64 of its parts in hexadecimal: of everything but the bodies of its blocks, and of each body. */
export interface NativeShard { rows: number; bytes: number; checksum: string; blocks: string[] }

export interface NativePreparedOptions {
  shards: ({ path: string } & NativeShard)[]
  columns: NativeShardColumns
  /** The wanted columns, by their places. */
  ids: number[]
  dense: number[]
  transforms: NativeDense[]
  labels: number[]
  batchSize: number
  sampling?: NativeSampling
  shuffle?: NativeShuffle
}

export interface NativeShuffle { files: boolean; buffer: number; seed: number; epoch: number }

/** What synthetic data is drawn from. `ids`: distinct ids in all, 0: as many as the real data has. */
export interface NativeSynth { like: string; ids: number; seed: number }

export interface NativeSynthOptions extends NativeSynth {
  rows: number
  firstRow: number
  /** The wanted columns, by their places. */
  fields: number[]
  dense: number[]
  transforms: NativeDense[]
  labels: boolean
  batchSize: number
  shuffle?: NativeShuffle
}

/** The columns of synthetic data, and the header line of its text form ('' when it has none). */
export interface NativeSynthColumns {
  label: string
  fields: { name: string; list: boolean }[]
  dense: string[]
  header: string
}

export interface NativeSynthRows {
  /** Rows as the lines of the owner's file. */
  text(firstRow: number, rows: number): Promise<Buffer>
}

export interface NativeTextFormat {
  delimiter: string
  columns: number
  /** Places of the columns to read: those of ids, dense, labels and split. */
  wanted: number[]
}

export interface NativePartOptions extends NativeDecoderOptions {
  shardColumns: NativeShardColumns
  trainPath: string
  testPath?: string
  share?: NativeShare
  stopAtBadRow: boolean
  mostReports: number
}

export interface NativeCard {
  ids: { registers: Uint8Array; ids: number; missing: number }[]
  dense: { count: number; mean: number; m2: number; least: number; most: number }[]
  labels: { sum: number; positive: number }[]
}

export interface NativePart {
  rows: number
  lines: number
  begin: number
  end: number
  badCount: number
  bad: { line: number; column: string; value: string; reason: string }[]
  /** Training rows, and test rows where there may be some. */
  sides: { shard: NativeShard; card: NativeCard }[]
}

export interface NativeTextStream { readonly position: number; readonly lines: number }

export interface NativePartWriter {
  pushFile(range: {
    path: string; format: NativeTextFormat; begin: number; end: number; isLine: boolean; linesToSkip: number
  }): Promise<void>
  /** null: the text is complete. */
  pushText(stream: NativeTextStream, bytes: Uint8Array | null): Promise<void>
  /** Rows [from, end) of the chunk. */
  pushChunk(chunk: NativeChunk, from: number, end: number): Promise<void>
  /** Rows [first, end). */
  pushArrow(rows: NativeArrowRows, first: number, end: number): Promise<void>
  pushSynth(rows: NativeSynthRows, first: number, end: number): Promise<void>
  finish(): Promise<NativePart>
}

export interface NativeData extends NativeArrow {
  openPrepared(options: NativePreparedOptions): Promise<NativeBatchSource>
  openSynth(options: NativeSynthOptions): Promise<NativeBatchSource>
  synthColumns(like: string): NativeSynthColumns
  /** What the best possible model reaches. */
  synthCeiling(synth: NativeSynth): Promise<{ auc: number; logloss: number }>
  SynthRows: new (synth: NativeSynth) => NativeSynthRows
  PartWriter: new (options: NativePartOptions) => NativePartWriter
  TextStream: new (format: NativeTextFormat, position: number, linesToSkip: number) => NativeTextStream
  /** The estimate of a HyperLogLog with these registers. */
  distinct(registers: Uint8Array): number
}
