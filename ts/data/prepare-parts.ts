// The parts of a source: which there are, and how one is made. Plain text files are cut into ranges of bytes, Arrow
// files into ranges of rows, that are made by themselves; compressed files and what DuckDB reads come from front to
// back, a part after the other.
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createGunzip } from 'node:zlib'
import type { DuckDBConnection, DuckDBDataChunk } from '@duckdb/node-api'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import { badRowError, badRowOf, lineOf } from './bad-rows.js'
import { nativeChunk } from './chunk.js'
import { partCard, type PartCard } from './data-card.js'
import { decoderOptions, shareOptions } from './decoder-options.js'
import { openDatabase } from './duckdb.js'
import { damageOf, throwIfDamaged } from './integrity.js'
import type { NativeArrowFile } from './native-arrow.js'
import type { NativePart, NativePartWriter, NativeShard, NativeSynthRows, NativeTextFormat } from './native-data.js'
import type { PrepareOptions } from './prepare.js'
import { shardColumns, type PreparedColumns } from './prepared-manifest.js'
import { unreadable, type QueryItem, type Relation } from './relation.js'
import { arrowLayout, findColumn, selectColumns, type WantedColumns } from './select.js'
import type { SynthSource } from './source.js'

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

const defaultPartBytes = 1 << 26
const defaultPartRows = 1 << 18
export const mostReports = 5

const number = (n: number) => String(n).padStart(5, '0')

export async function partsOf(relation: Relation, file: number, sides: Piece['sides'],
  { partBytes = defaultPartBytes, partRows = defaultPartRows }: PrepareOptions): Promise<Piece[]> {
  const base = { file, relation, sides }
  const { reads } = relation
  const isQuery = typeof reads === 'function'
  if (isQuery && relation.path === undefined) return [{ ...base, name: `${number(file)}-`, identity: reads(false) }]
  const { size, mtimeMs } = await stat(relation.path!)
  const identity = `${relation.name} ${size} ${mtimeMs}`
  if (!isQuery) {
    const parts = Math.max(1, Math.ceil(reads.rows / partRows))
    return Array.from({ length: parts }, (_, i) => ({
      ...base, name: `${number(file)}-${number(i)}`, identity,
      bytes: Math.floor((i + 1) * size / parts) - Math.floor(i * size / parts),
      arrow: { file: reads, first: i * partRows, end: Math.min((i + 1) * partRows, reads.rows) },
    }))
  }
  if (!relation.text || /\.(gz|zst)$/i.test(relation.path!)) {
    return [{ ...base, name: `${number(file)}-`, identity, bytes: size }]
  }
  return Array.from({ length: Math.max(1, Math.ceil(size / partBytes)) }, (_, i) => {
    const begin = i * partBytes
    const end = Math.min(size, begin + partBytes)
    const name = `${number(file)}-${number(i)}`
    return { ...base, name, identity, bytes: end - begin, range: { begin, end, isLine: i === 0 } }
  })
}

/** A piece with a relation. */
type FilePiece = Piece & { relation: Relation }

export function synthParts(synth: SynthSource['synth'], sides: Piece['sides'],
  { partRows = defaultPartRows }: PrepareOptions): Piece[] {
  const rows = new (native().SynthRows)(synth)
  return Array.from({ length: Math.ceil(synth.rows / partRows) }, (_, i) => {
    const first = synth.firstRow + i * partRows
    const end = Math.min(first + partRows, synth.firstRow + synth.rows)
    const name = `${number(0)}-${number(i)}`
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

/** A writer of one part. */
function openPart(piece: Piece, name: string, { options, columns }: PartContext): NativePartWriter {
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

function wantedColumns({ sides }: Piece, { ids, dense, labels, split }: PrepareOptions): WantedColumns {
  return { ids, dense, labels, split: sides === 'both' ? split : undefined }
}

function resultOf(piece: Piece, { sides, ...part }: NativePart): PartResult {
  const [first, second] = sides.map(({ shard, card }) => ({ shard, card: partCard(card) }))
  if (piece.sides === 'test') return { ...part, test: first! }
  return { ...part, train: first!, ...(second && { test: second }) }
}

/** Where the wanted columns stand in the lines of a text file. */
function textFormat(piece: FilePiece, options: PrepareOptions): NativeTextFormat {
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

/** The parts of a piece that are made already, from the first on without a gap. */
function madeParts({ name }: Piece, { done }: PartContext): PartResult[] {
  const parts: PartResult[] = []
  for (let part; (part = done.get(name + number(parts.length)));) parts.push(part)
  return parts
}

// Part n of a compressed file ends with the last line that ends within its first (n + 1) · partBytes bytes of text.
async function* makeFromStream(piece: FilePiece, context: PartContext): AsyncGenerator<PartResult, void, undefined> {
  const { partBytes = defaultPartBytes } = context.options
  const { relation } = piece
  const made = madeParts(piece, context)
  const begin = made.at(-1)?.end ?? 0
  const stream = new (native().TextStream)(textFormat(piece, context.options), begin,
    made.length === 0 && relation.text!.header ? 1 : 0)
  let part = made.length
  let writer = openPart(piece, piece.name + number(part), context)
  let linesBefore = 0, fileBytes = 0
  const close = async (): Promise<PartResult> => {
    const native_ = await settling(() => writer.finish())
    const result = resultOf(piece, {
      ...native_, lines: stream.lines - linesBefore, begin: 0, end: stream.position,
      bad: native_.bad.map((bad) => ({ ...bad, line: bad.line - linesBefore })),
    })
    await context.keep(piece.name + number(part), result)
    linesBefore = stream.lines
    part += 1
    return result
  }
  let position = 0
  for await (const { bytes, read } of decompressed(relation)) {
    for (let from = Math.max(0, begin - position); from < bytes.length;) {
      const end = Math.min(bytes.length, (part + 1) * partBytes - position)
      if (end > from) await settling(() => writer.pushText(stream, bytes.subarray(from, end)))
      from = Math.max(from, end)
      if (position + from < (part + 1) * partBytes) continue
      const result = await close()
      context.onProgress(result.rows, 0)
      yield result
      writer = openPart(piece, piece.name + number(part), context)
    }
    position += bytes.length
    context.onProgress(0, read - fileBytes)
    fileBytes = read
  }
  await settling(() => writer.pushText(stream, null))
  const result = await close()
  context.onProgress(result.rows, 0)
  yield result
}

/** The text of a gzip file, in pieces, and how much of the file was read for it. */
async function* decompressed({ path, name }: Relation): AsyncGenerator<{ bytes: Buffer; read: number }> {
  const file = createReadStream(path!, { highWaterMark: 1 << 18 })
  const text = file.pipe(createGunzip({ chunkSize: 1 << 20 }))
  file.on('error', (error) => text.destroy(error))
  try {
    for await (const bytes of text) yield { bytes: bytes as Buffer, read: file.bytesRead }
  } catch (error) {
    if (error instanceof PersiaError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    const why = code === 'Z_BUF_ERROR' ? 'the file is cut off' : `the file is damaged: ${message}`
    throw new PersiaError('PERSIA_DATA_UNREADABLE', `${name} cannot be read: ${why}`, { file: name }, { cause: error })
  } finally {
    file.destroy()
    text.destroy()
  }
}

// Part n has rows n · partRows and on, of results that come in the same order each time.
async function* makeFromDuckDb(piece: FilePiece, context: PartContext): AsyncGenerator<PartResult, void, undefined> {
  const { relation } = piece
  const { baseDir, threads } = context.options
  if (relation.path !== undefined) {
    await throwIfDamaged(relation.name, damageOf(relation.path, new AbortController().signal))
  }
  const database = await openDatabase(baseDir, threads)
  try {
    yield* new DuckDbParts(piece, relation.reads as QueryItem, context, database.connection).make()
  } catch (error) {
    if (error instanceof PersiaError || error instanceof TypeError) throw error
    const bad = badRowOf(error, relation)
    throw bad ? badRowError(bad, relation, error) : unreadable(relation.name, error)
  } finally {
    database.close()
  }
}

class DuckDbParts {
  private part = 0
  /** Rows of finished parts, and all so far. */
  private rowsBefore = 0
  private rows = 0
  private writer: NativePartWriter | undefined
  private readonly wanted: WantedColumns

  constructor(private readonly piece: FilePiece, private readonly item: QueryItem,
    private readonly context: PartContext, private readonly connection: DuckDBConnection) {
    this.wanted = wantedColumns(piece, context.options)
  }

  async *make(): AsyncGenerator<PartResult, void, undefined> {
    const { onBadRow, partRows = defaultPartRows } = this.context.options
    const skips = onBadRow === 'skip'
    const query = selectColumns(this.piece.relation, this.wanted, this.item(skips))
    const result = await this.connection.stream(query)
    for (;;) {
      const chunk = await result.fetchChunk()
      if (!chunk || chunk.rowCount === 0) break
      for (let from = 0; from < chunk.rowCount;) {
        const room = (this.part + 1) * partRows - this.rows
        const end = Math.min(chunk.rowCount, from + room)
        await this.take(chunk, from, end)
        this.rows += end - from
        if (end - from === room) yield* this.close()
        from = end
      }
    }
    if (!this.context.done.has(this.name)) this.writer ??= openPart(this.piece, this.name, this.context)
    yield* this.close()
  }

  private get name(): string {
    return this.piece.name + number(this.part)
  }

  /** Rows [from, end) of a chunk, unless their part is made. */
  private async take(chunk: DuckDBDataChunk, from: number, end: number): Promise<void> {
    if (!this.writer && this.context.done.has(this.name)) return
    const writer = this.writer ??= openPart(this.piece, this.name, this.context)
    await settling(() => writer.pushChunk(nativeChunk(chunk, this.wanted), from, end))
  }

  private async *close(): AsyncGenerator<PartResult, void, undefined> {
    if (this.writer) {
      const part = await settling(() => this.writer!.finish())
      const result = resultOf(this.piece, { ...part, bad: await this.withLines(part.bad) })
      await this.context.keep(this.name, result)
      this.context.onProgress(result.rows, 0)
      yield result
    }
    this.writer = undefined
    this.part += 1
    this.rowsBefore = this.rows
  }

  /** The lines of bad rows of a compressed text file, still counted from the first row of the part. */
  private async withLines(bad: NativePart['bad']): Promise<NativePart['bad']> {
    const { relation } = this.piece
    if (!relation.text || bad.length === 0) return bad
    const database = await openDatabase(this.context.options.baseDir, 1)  // this one's result is still being read
    try {
      return await Promise.all(bad.map(async (row) => {
        const line = await lineOf(database.connection, relation, this.rowsBefore + row.line, false)
        return { ...row, line: line - this.rowsBefore }
      }))
    } finally {
      database.close()
    }
  }
}
