// The parts of a source: which there are, and how one is made. Plain text files are cut into ranges of bytes, Arrow
// files into ranges of rows, that are made by themselves; compressed files and what DuckDB reads come from front to
// back, a part after the other.
import { stat } from 'node:fs/promises'
import { native, settling } from '../native.js'
import type { NativePartWriter } from './native-data.js'
import { makeFromDuckDb } from './prepare-duckdb.js'
import {
  defaultPartBytes, defaultPartRows, openPart, partNumber, resultOf, textFormat, wantedColumns,
  type FilePiece, type PartContext, type PartResult, type Piece,
} from './prepare-part.js'
import { makeFromStream } from './prepare-stream.js'
import type { PrepareOptions } from './prepare.js'
import type { Relation } from './relation.js'
import { arrowLayout } from './select.js'
import type { SynthSource } from './source.js'

export async function partsOf(relation: Relation, file: number, sides: Piece['sides'],
  { partBytes = defaultPartBytes, partRows = defaultPartRows }: PrepareOptions): Promise<Piece[]> {
  const base = { file, relation, sides }
  const { reads } = relation
  const isQuery = typeof reads === 'function'
  if (isQuery && relation.path === undefined) return [{ ...base, name: `${partNumber(file)}-`, identity: reads(false) }]
  const { size, mtimeMs } = await stat(relation.path!)
  const identity = `${relation.name} ${size} ${mtimeMs}`
  if (!isQuery) {
    const parts = Math.max(1, Math.ceil(reads.rows / partRows))
    return Array.from({ length: parts }, (_, i) => ({
      ...base, name: `${partNumber(file)}-${partNumber(i)}`, identity,
      bytes: Math.floor((i + 1) * size / parts) - Math.floor(i * size / parts),
      arrow: { file: reads, first: i * partRows, end: Math.min((i + 1) * partRows, reads.rows) },
    }))
  }
  if (!relation.text || /\.(gz|zst)$/i.test(relation.path!)) {
    return [{ ...base, name: `${partNumber(file)}-`, identity, bytes: size }]
  }
  return Array.from({ length: Math.max(1, Math.ceil(size / partBytes)) }, (_, i) => {
    const begin = i * partBytes
    const end = Math.min(size, begin + partBytes)
    const name = `${partNumber(file)}-${partNumber(i)}`
    return { ...base, name, identity, bytes: end - begin, range: { begin, end, isLine: i === 0 } }
  })
}

export function synthParts(synth: SynthSource['synth'], sides: Piece['sides'],
  { partRows = defaultPartRows }: PrepareOptions): Piece[] {
  const rows = new (native().SynthRows)(synth)
  return Array.from({ length: Math.ceil(synth.rows / partRows) }, (_, i) => {
    const first = synth.firstRow + i * partRows
    const end = Math.min(first + partRows, synth.firstRow + synth.rows)
    const name = `${partNumber(0)}-${partNumber(i)}`
    return { file: 0, sides, name, identity: JSON.stringify(synth), synth: { rows, first, end } }
  })
}

/** Makes the parts of a piece that are not made, and notes them. */
export async function* makePart(piece: Piece, context: PartContext): AsyncGenerator<PartResult, void, undefined> {
  const { range, synth, arrow } = piece
  const isMade = context.done.get(piece.name)
  if (isMade && !(range?.isLine && isMade.begin !== range.begin)) return
  const inFile = piece as FilePiece
  if (synth) yield await makeWhole(piece, context, (writer) => writer.pushSynth(synth.rows, synth.first, synth.end))
  else if (arrow) yield await makeWhole(piece, context, (writer) => pushArrow(writer, inFile, arrow, context.options))
  else if (range) yield await makeWhole(piece, context, (writer) => pushRange(writer, inFile, range, context.options))
  else if (inFile.relation.text && /\.gz$/i.test(inFile.relation.path ?? '')) yield* makeFromStream(inFile, context)
  else yield* makeFromDuckDb(inFile, context)
}

/** A part that is pushed at once. */
async function makeWhole(piece: Piece, context: PartContext, push: (writer: NativePartWriter) => Promise<void>):
Promise<PartResult> {
  const writer = openPart(piece, piece.name, context)
  await settling(() => push(writer))
  const result = resultOf(piece, await settling(() => writer.finish()))
  await context.keep(piece.name, result)
  context.onProgress(result.rows, piece.bytes ?? 0)
  return result
}

function pushArrow(writer: NativePartWriter, piece: FilePiece, { file, first, end }: NonNullable<Piece['arrow']>,
  options: PrepareOptions): Promise<void> {
  const rows = new (native().ArrowRows)(file, arrowLayout(piece.relation, wantedColumns(piece, options)))
  return writer.pushArrow(rows, first, end)
}

function pushRange(writer: NativePartWriter, piece: FilePiece, range: NonNullable<Piece['range']>,
  options: PrepareOptions): Promise<void> {
  const { path, text } = piece.relation
  const linesToSkip = range.begin === 0 && text!.header ? 1 : 0
  return writer.pushFile({ path: path!, format: textFormat(piece, options), ...range, linesToSkip })
}
