// Parts of what DuckDB reads: queries, Parquet, and text that is compressed by Zstandard.
import type { DuckDBConnection, DuckDBDataChunk } from '@duckdb/node-api'
import { PersiaError } from '../errors.js'
import { settling } from '../native.js'
import { badRowError, badRowOf, lineOf } from './bad-rows.js'
import { nativeChunk } from './chunk.js'
import { openDatabase } from './duckdb.js'
import { damageOf, throwIfDamaged } from './integrity.js'
import type { NativePart, NativePartWriter } from './native-data.js'
import {
  defaultPartRows, openPart, partNumber, resultOf, wantedColumns, type FilePiece, type PartContext, type PartResult,
} from './prepare-part.js'
import { unreadable, type QueryItem } from './relation.js'
import { selectColumns, type WantedColumns } from './select.js'

// Part n has rows n · partRows and on, of results that come in the same order each time.
export async function* makeFromDuckDb(
  piece: FilePiece, context: PartContext,
): AsyncGenerator<PartResult, void, undefined> {
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
    return this.piece.name + partNumber(this.part)
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
