// One part of prepared data: what it is made of, and its writer.
import { join } from 'node:path'
import { native } from '../native.js'
import { partCard, type PartCard } from './data-card.js'
import { decoderOptions, shareOptions } from './decoder-options.js'
import type { NativeArrowFile } from './native-arrow.js'
import type { NativePart, NativePartWriter, NativeShard, NativeSynthRows, NativeTextFormat } from './native-data.js'
import type { PrepareOptions } from './prepare.js'
import { shardColumns, type PreparedColumns } from './prepared-manifest.js'
import type { Relation } from './relation.js'
import { findColumn, type WantedColumns } from './select.js'

/** What one thread works on. */
export interface Piece {
  /** Of its part; where it becomes several parts, what their names begin with. */
  name: string
  /** The number of its file or query in the source. */
  file: number
  /** Of files and queries. */
  relation?: Relation
  /** Synthetic rows [first, end), and those of an Arrow file. */
  synth?: { rows: NativeSynthRows; first: number; end: number }
  arrow?: { file: NativeArrowFile; first: number; end: number }
  /** Where rows go: to one folder, or to both as the split says. */
  sides: 'train' | 'test' | 'both'
  /** Size and time of change of its file, or the query. */
  identity: string
  /** Of its file that are read; undefined for a query. */
  bytes?: number
  /** Of a plain text file: its bytes. `isLine`: a line begins right at `begin`. */
  range?: { begin: number; end: number; isLine: boolean }
}

/** A part that is made, as the journal keeps it. Lines count from 1 at the part's first line. */
export interface PartResult extends Omit<NativePart, 'sides'> {
  train?: { shard: NativeShard; card: PartCard }
  test?: { shard: NativeShard; card: PartCard }
}

export interface PartContext {
  options: PrepareOptions
  columns: PreparedColumns
  done: ReadonlyMap<string, PartResult>
  keep(name: string, result: PartResult): Promise<void>
  /** Rows that were taken, and bytes of files that were read, since the last call. */
  onProgress(rows: number, bytes: number): void
}

/** A piece with a relation. */
export type FilePiece = Piece & { relation: Relation }

export const defaultPartBytes = 1 << 26
export const defaultPartRows = 1 << 18
export const mostReports = 5

export const partNumber = (n: number) => String(n).padStart(5, '0')

/** A writer of one part. */
export function openPart(piece: Piece, name: string, { options, columns }: PartContext): NativePartWriter {
  const { out, split, seed, onBadRow } = options
  const dense = columns.dense.map((column) => ({ name: column, transform: 'none' as const, mean: 0, stddev: 1 }))
  const path = (side: 'train' | 'test') => join(out, side, `${name}.arrow`)
  const wanted = wantedColumns(piece, options)
  const stream = Number(name.replace('-', ''))  // every part draws numbers of its own
  // Synthetic ids come as they are.
  const ids = piece.synth ? wanted.ids.map(({ name: id }) => ({ name: id, encoding: 'integer' as const })) : wanted.ids
  return new (native().PartWriter)({
    ...decoderOptions({ ...wanted, ids }, dense, options.missing, seed),
    shardColumns: shardColumns(columns),
    trainPath: path(piece.sides === 'test' ? 'test' : 'train'),
    ...(piece.sides === 'both' && split && { testPath: path('test') }),
    ...(piece.sides === 'both' ? shareOptions(wanted, seed, stream) : {}),
    stopAtBadRow: onBadRow === 'fail',
    mostReports,
  })
}

export function wantedColumns({ sides }: Piece, { ids, dense, labels, split }: PrepareOptions): WantedColumns {
  return { ids, dense, labels, split: sides === 'both' ? split : undefined }
}

export function resultOf(piece: Piece, { sides, ...part }: NativePart): PartResult {
  const [first, second] = sides.map(({ shard, card }) => ({ shard, card: partCard(card) }))
  if (piece.sides === 'test') return { ...part, test: first! }
  return { ...part, train: first!, ...(second && { test: second }) }
}

/** Where the wanted columns stand in the lines of a text file. */
export function textFormat(piece: FilePiece, options: PrepareOptions): NativeTextFormat {
  const { relation } = piece
  const { ids, dense, labels, split } = wantedColumns(piece, options)
  const names = [
    ...ids.map(({ name, column = name }) => column), ...dense.map(({ column }) => column),
    ...labels.map(({ column }) => column), ...(split && split.by !== 'share' ? [split.column] : []),
  ]
  return {
    delimiter: relation.text!.delimiter,
    columns: relation.columns.length,
    wanted: names.map((name) => relation.columns.indexOf(findColumn(relation, name))),
  }
}
