// The reader: DuckDB reads and splits (Arrow files: the addon), native threads decode and cut batches, this file passes
// chunks from one to the other.
//
//   next chunk (DuckDB's threads) ─► batcher.push (pool thread) ─► up to `readAhead` ready batches ─► consumer
//
// While a chunk is decoded the next one is fetched. Whoever doesn't pull batches stops the whole chain, so memory
// stays the same however large the files are. Rows come in the order of the files, for any number of threads.
import { PersiaError } from '../errors.js'
import { native } from '../native.js'
import type { NativeBatch } from '../native-types.js'
import { badRowError, badRowOf, dropRejects, lineOf, takeRejects, type BadRow } from './bad-rows.js'
import { chunksOf, type Chunk, type OpenChunks } from './chunks.js'
import { decoderOptions, shareOptions } from './decoder-options.js'
import { openDatabase, type Database } from './duckdb.js'
import { damageOf, throwIfDamaged } from './integrity.js'
import type { NativeBadRow, NativeBatcher, NativeBatcherOptions, NativeMoments } from './native-batcher.js'
import type { NativeShuffle } from './native-data.js'
import { readAhead } from './read-ahead.js'
import { openRelations, unreadable, type Relation, type RelationColumn } from './relation.js'
import type { WantedColumns } from './select.js'
import type { DataSource, DenseColumn, IdColumn, LabelColumn, RowSplit } from './source.js'
import type { Statistics } from './statistics.js'

export type { BadRow } from './bad-rows.js'

export interface ReaderOptions {
  source: DataSource
  /** The folder that relative paths start from: the config's. */
  baseDir: string
  ids: IdColumn[]
  dense: DenseColumn[]
  /** `none` reads files without label columns, for prediction. */
  labels: LabelColumn[] | 'none'
  /** Texts that mean "no value". */
  missing: string[]
  onBadRow: 'fail' | 'skip'
  batchSize: number
  /** Takes one side of the source. */
  split?: { rule: RowSplit; seed: number; side: 'train' | 'test' } | undefined
  /** Of the training data, for columns with `transform: standardize`. */
  statistics?: Statistics | undefined
  /** Keeps a share of the rows that are negative in `label`; which ones follows from seed, epoch and their number. */
  sampling?: NativeBatcherOptions['sampling'] | undefined
  /** The order of files, and of the rows in every `buffer` of them; drawn from seed and epoch. */
  shuffle?: NativeShuffle | undefined
  /** Leaves out the first batches: a resumed run has trained on them. */
  skipBatches?: number | undefined
  /** Ready batches that may wait for the consumer. */
  readAhead?: number | undefined
  /** Threads of DuckDB. */
  threads?: number | undefined
}

/** Batches in the order of the data; iterate once. Ending the iteration early or `close` frees everything. */
export interface BatchReader extends AsyncIterable<NativeBatch>, AsyncDisposable {
  /** Rows read so far, bad ones included. */
  readonly rowsRead: number
  /** Bad rows left out so far (onBadRow: skip). */
  readonly skippedRows: number
  /** The first of them; a file's are known when it has been read to its end. */
  readonly skippedSamples: readonly BadRow[]
  close(): Promise<void>
}

const mostReports = 5

/**
 * Opens a source and checks that all files are there with the wanted columns.
 * Throws PERSIA_DATA_NOT_FOUND, PERSIA_DATA_MISSING_COLUMN or PERSIA_DATA_UNREADABLE; iterating may throw
 * PERSIA_DATA_BAD_ROW and PERSIA_DATA_UNREADABLE.
 */
export async function openReader(options: ReaderOptions): Promise<BatchReader> {
  return openRows(options, false)
}

/** @internal The reader with access to the moments of its dense columns. */
export async function openRows(options: ReaderOptions, collectMoments: boolean): Promise<Reader> {
  const database = await openDatabase(options.baseDir, options.threads ?? 2)
  try {
    const found = await openRelations(database.connection, options.source, options.baseDir)
    const relations = options.shuffle?.files ? shuffled(found, options.shuffle) : found
    return new Reader(options, database, relations, collectMoments)
  } catch (error) {
    database.close()
    throw error
  }
}

/** The columns of a source's first file (or of its query), for messages and for `persia data`. */
export async function describeColumns(source: DataSource, baseDir: string): Promise<{ name: string; type: string }[]> {
  const database = await openDatabase(baseDir, 1)
  try {
    const [relation] = await openRelations(database.connection, source, baseDir)
    return (relation?.columns ?? []).map(({ name, type }: RelationColumn) => ({ name, type }))
  } finally {
    database.close()
  }
}

class Reader implements BatchReader {
  rowsRead = 0
  skippedRows = 0
  readonly skippedSamples: BadRow[] = []

  private readonly skip: boolean
  private readonly wanted: WantedColumns
  private readonly chunks: OpenChunks[]
  private readonly batcher: NativeBatcher
  private readonly batches: AsyncGenerator<NativeBatch, void, undefined>
  private readonly checks = new AbortController()
  private closing: Promise<void> | undefined

  constructor(options: ReaderOptions, private readonly database: Database, private readonly relations: Relation[],
    collectMoments: boolean) {
    this.skip = options.onBadRow === 'skip'
    const { ids, dense, labels, split } = options
    this.wanted = { ids, dense, labels: labels === 'none' ? [] : labels, split: split?.rule }
    this.chunks = relations.map((relation) => chunksOf(relation, this.wanted, this.skip))
    this.batcher = newBatcher(options, this.wanted, collectMoments)
    this.batches = readAhead(this.readAll(), options.readAhead ?? 4)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<NativeBatch, void, undefined> {
    if (this.closing) throw new PersiaError('PERSIA_CLOSED', 'the reader is closed')
    try {
      yield* this.batches
    } finally {
      await this.close()
    }
  }

  moments(): NativeMoments[] {
    return this.batcher.moments()
  }

  close(): Promise<void> {
    this.closing ??= (async () => {
      this.checks.abort()
      this.database.connection.interrupt()
      await this.batches.return()
      this.database.close()
    })()
    return this.closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  private async *readAll(): AsyncGenerator<NativeBatch, void, undefined> {
    for (const [i, relation] of this.relations.entries()) yield* this.readRelation(relation, this.chunks[i]!)
    yield* this.batcher.finish()
  }

  private async *readRelation(relation: Relation, open: OpenChunks): AsyncGenerator<NativeBatch, void, undefined> {
    const damage = damageIn(relation, this.checks.signal)
    const skipped: { n: number; bad: NativeBadRow }[] = []
    let rows = 0
    let next: Promise<Chunk | null> | undefined
    try {
      const chunks = await open(this.database.connection)
      const fetch = () => {
        const coming = chunks.next()
        coming.catch(() => {})  // whoever awaits it sees the error; nobody does when the reader stops first
        return coming
      }
      for (next = fetch(); ;) {
        const chunk = await next
        if (!chunk) break
        next = fetch()
        const output = await chunk.push(this.batcher)
        yield* output.batches
        const found = output.bad.map((bad) => ({ n: rows + bad.row + 1, bad }))
        rows += chunk.rows
        this.rowsRead += chunk.rows
        if (this.skip) {
          this.skippedRows += output.badCount
          skipped.push(...found.slice(0, mostReports - skipped.length))
        } else if (found[0]) {
          await next.catch(() => {})
          throw badRowError(await this.locate(relation, found[0]), relation)
        }
      }
    } catch (error) {
      if (this.closing) throw new PersiaError('PERSIA_CLOSED', 'the reader was closed')
      throw await explain(error, relation, damage)
    } finally {
      await next?.catch(() => {})
    }
    if (!this.closing) await throwIfDamaged(relation.name, damage)
    if (this.skip) await this.report(relation, skipped)
  }

  private async locate(relation: Relation, { n, bad }: { n: number; bad: NativeBadRow }): Promise<BadRow> {
    const line = await lineOf(this.database.connection, relation, n, this.skip && relation.text !== undefined)
    const { column, value, reason } = bad
    return { file: relation.name, line, column, ...(value !== '' && { value }), reason }
  }

  /** Counts and describes the rows of a finished file that DuckDB or the batcher left out. */
  private async report(relation: Relation, skipped: { n: number; bad: NativeBadRow }[]): Promise<void> {
    const { connection } = this.database
    const room = mostReports - this.skippedSamples.length
    const found: BadRow[] = []
    for (const row of skipped.slice(0, room)) found.push(await this.locate(relation, row))
    if (relation.text) {
      const rejects = await takeRejects(connection, relation, room)
      await dropRejects(connection)
      this.rowsRead += rejects.count
      this.skippedRows += rejects.count
      found.push(...rejects.first)
    }
    this.skippedSamples.push(...found.sort((a, b) => a.line - b.line).slice(0, room))
  }
}

/** The check of the relation's file, which runs beside the reading. */
function damageIn(relation: Relation, signal: AbortSignal): Promise<string | undefined> {
  const damage = relation.path === undefined ? Promise.resolve(undefined) : damageOf(relation.path, signal)
  damage.catch(() => {})  // whoever awaits it sees the error; nobody does when the reader stops first
  return damage
}

async function explain(error: unknown, relation: Relation, damage: Promise<string | undefined>): Promise<unknown> {
  await throwIfDamaged(relation.name, damage)
  if (error instanceof PersiaError || error instanceof TypeError) return error
  const bad = badRowOf(error, relation)
  return bad ? badRowError(bad, relation, error) : unreadable(relation.name, error)
}

/** In the order of hashes of (seed, epoch, place). */
function shuffled(relations: Relation[], { seed, epoch }: NativeShuffle): Relation[] {
  const keyed = relations.map((relation, place) => ({ relation, key: native().hashId(`${seed} ${epoch} ${place}`) }))
  return keyed.sort((a, b) => (a.key < b.key ? -1 : 1)).map(({ relation }) => relation)
}

function newBatcher(options: ReaderOptions, wanted: WantedColumns, collectMoments: boolean): NativeBatcher {
  const dense = wanted.dense.map((column) => denseOptions(column, options.statistics, collectMoments))
  const { seed = 0 } = options.split ?? {}
  return new (native().Batcher)({
    ...decoderOptions(wanted, dense, options.missing, seed),
    ...shareOptions(wanted, seed, 0),
    wantsTest: options.split?.side === 'test',
    batchSize: options.batchSize,
    ...(options.sampling && { sampling: options.sampling }),
    ...(options.shuffle && options.shuffle.buffer > 1 && { shuffle: options.shuffle }),
    skipRows: (options.skipBatches ?? 0) * options.batchSize,
    stopAtBadRow: options.onBadRow === 'fail',
    mostReports,
    collectMoments,
  })
}

/** Of one dense column; `collecting`: its statistics are not known yet. */
export function denseOptions(wanted: DenseColumn, statistics: Statistics | undefined, collecting: boolean) {
  const { column, transform, missing } = wanted
  const known = transform !== 'standardize' || collecting ? { mean: 0, stddev: 1 } : statistics?.[column]
  if (!known) {
    throw new PersiaError('PERSIA_USAGE', `column ${column} has transform: standardize, which needs the mean and the `
      + 'deviation in the training data: pass the statistics of readStatistics, or of the model', { column })
  }
  return { name: column, transform, ...known, ...(missing === 'auto' ? {} : { missing }) }
}
