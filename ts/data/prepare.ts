// `persia data prepare`: any source becomes folders of shards, which training maps into memory.
//
//   source files ─► parts (64 MiB of text, 2^18 rows) ─► threads: split, decode, count, write ─► journal ─► manifests
//
// Where a part begins follows from the source alone, so a part that is made again has the same bytes. Each finished
// part is noted in a journal: a run that was killed goes on with the parts that are missing, and ends with the same files as
// one that was not.
import { createHash } from 'node:crypto'
import { readFile, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { DuckDBConnection } from '@duckdb/node-api'
import { lockFolder, makeFolder, onDisk, openSealedJson, sealedJson, syncDirectory, writeWhole } from '../disk.js'
import { PersiaError } from '../errors.js'
import { native } from '../native.js'
import { badRowError, describeBadRow, type BadRow } from './bad-rows.js'
import { mergeCards, type DataCard } from './data-card.js'
import { openDatabase } from './duckdb.js'
import { mostReports, type PartContext, type PartResult, type Piece } from './prepare-part.js'
import { makePart, partsOf, synthParts } from './prepare-parts.js'
import { preparedFormat, type PreparedColumns, type PreparedManifest } from './prepared-manifest.js'
import { openRelations, type Relation } from './relation.js'
import type { DataSource, DenseColumn, IdColumn, LabelColumn, RowSplit, SynthSource } from './source.js'
import type { Statistics } from './statistics.js'

export interface PrepareOptions {
  /** The folder that gets `train` and `test`. */
  out: string
  baseDir: string
  train: DataSource | SynthSource
  test?: DataSource | undefined
  /** Divides `train`, where there is no `test`. */
  split?: RowSplit | undefined
  seed: number
  ids: IdColumn[]
  dense: DenseColumn[]
  labels: LabelColumn[]
  missing: string[]
  onBadRow: 'fail' | 'skip'
  /** Parts that are made at once. */
  threads: number
  /** Bytes of text in a part, and rows where the source is no text. */
  partBytes?: number | undefined
  partRows?: number | undefined
  onProgress?: (progress: PrepareProgress) => void
}

export interface PrepareProgress {
  rows: number
  /** Of the files as they lie on disk; null for queries. */
  bytes: number
  totalBytes: number | null
}

/** What is in the output: its card.json. */
export interface PreparedCard {
  badRows: number
  /** The first of them. */
  firstBad: string[]
  train: DataCard
  test?: DataCard
}

export interface PrepareReport {
  card: PreparedCard
  /** Parts that an earlier run had made; `all`: there was nothing left to do. */
  resumedParts: number | 'all'
}

type Side = 'train' | 'test'

/** PERSIA_DATA_*, PERSIA_USAGE when `out` holds something else, PERSIA_IO. */
export async function prepare(options: PrepareOptions): Promise<PrepareReport> {
  const unlock = await lockFolder(options.out, 'give another --out')
  try {
    return await new Preparation(options).run()
  } finally {
    await unlock()
  }
}

class Preparation {
  private readonly journal: string
  private readonly columns: PreparedColumns
  private readonly done = new Map<string, PartResult>()
  private resumedParts = 0

  constructor(private readonly options: PrepareOptions) {
    this.journal = join(options.out, 'parts')
    const { ids, dense, labels, missing } = options
    this.columns = {
      ids: ids.map((id) => ({ ...id, list: id.separator !== undefined })),
      dense: dense.map(({ column }) => column),
      labels: labels.map(({ column, positive }) => ({ column, ...(positive !== undefined && { positive }) })),
      missing,
    }
  }

  async run(): Promise<PrepareReport> {
    const database = await openDatabase(this.options.baseDir, this.options.threads)
    try {
      const pieces = await this.openPieces(database.connection)
      const key = this.keyOf(pieces)
      const complete = await this.checkOut(key)
      if (complete) return { card: complete, resumedParts: 'all' }
      await this.readJournal(key)
      await this.makeParts(pieces, {
        options: this.options, columns: this.columns, done: this.done,
        keep: (name, result) => this.note(key, name, result),
        onProgress: this.progressOf(pieces),
      })
      return { card: await this.finish(pieces), resumedParts: this.resumedParts }
    } finally {
      database.close()
    }
  }

  private progressOf(pieces: Piece[]): PartContext['onProgress'] {
    const sizes = pieces.map(({ bytes }) => bytes)
    const known = sizes.filter((size) => size !== undefined)
    const progress: PrepareProgress = {
      rows: 0, bytes: 0, totalBytes: known.length < sizes.length ? null : known.reduce((sum, size) => sum + size, 0),
    }
    return (rows, bytes) => {
      progress.rows += rows
      progress.bytes += bytes
      this.options.onProgress?.({ ...progress })
    }
  }

  /** What can be worked on at once: parts of plain files, and whole files or queries that come from front to back. */
  private async openPieces(connection: DuckDBConnection): Promise<Piece[]> {
    const { train, test, baseDir, split } = this.options
    const sides = split ? 'both' : 'train'
    if ('synth' in train) return this.synthPieces(train, sides)
    const sources: { source: DataSource; sides: Piece['sides'] }[] = [{ source: train, sides }]
    if (test) sources.push({ source: test, sides: 'test' })
    const pieces: Piece[] = []
    let file = 0
    for (const { source, sides: to } of sources) {
      for (const relation of await openRelations(connection, source, baseDir)) {
        this.findLists(relation)
        pieces.push(...await partsOf(relation, file++, to, this.options))
      }
    }
    return pieces
  }

  private synthPieces({ synth }: SynthSource, sides: Piece['sides']): Piece[] {
    const { fields } = native().synthColumns(synth.like)
    for (const id of this.columns.ids) id.list = fields.find(({ name }) => name === id.name)!.list
    return synthParts(synth, sides, this.options)
  }

  /** Columns that hold lists have several ids a row, whatever the config says. */
  private findLists({ columns }: Relation): void {
    for (const id of this.columns.ids) {
      const { type = '' } = columns.find(({ name }) => name === (id.column ?? id.name)) ?? {}
      if (type.endsWith(']')) id.list = true
    }
  }

  /** Says which source and which settings parts belong to. */
  private keyOf(pieces: Piece[]): string {
    const { out: _out, threads: _threads, onProgress: _onProgress, baseDir: _baseDir, ...settings } = this.options
    const sources = pieces.map(({ name, identity }) => [name, identity])
    const text = JSON.stringify([preparedFormat, settings, this.columns, sources])
    return createHash('sha256').update(text).digest('hex')
  }

  /** What a complete output holds; otherwise makes `out` ready. Only output of this very run is gone on with. */
  private async checkOut(key: string): Promise<PreparedCard | undefined> {
    const { out } = this.options
    const entries = (await readdir(out)).filter((name) => name !== '.lock')
    const known = await readSealed<{ key: string }>(join(out, 'source.json'))
    const card = await readSealed<PreparedCard>(join(out, 'card.json'))
    if (known?.key === key) return card
    if (entries.length > 0 && (!known || card)) {
      throw new PersiaError('PERSIA_USAGE', known
        ? `${out} holds data that was prepared from other files or with other settings. Remove it, or give another `
          + '--out'
        : `${out} is not empty and holds no prepared data. Give another --out`, { directory: out })
    }
    await onDisk(out, async () => {
      for (const entry of entries) await rm(join(out, entry), { recursive: true })  // of a run that did not end
      await writeWhole(join(out, 'source.json'), sealedJson({ key }))
    })
    return undefined
  }

  private async readJournal(key: string): Promise<void> {
    const folders = [this.journal, ...['train', 'test'].map((side) => join(this.options.out, side))]
    for (const folder of folders) await onDisk(folder, () => makeFolder(folder))
    for (const file of await readdir(this.journal)) {
      const entry = await readSealed<{ key: string; result: PartResult }>(join(this.journal, file))
      if (entry?.key === key) this.done.set(file.replace(/\.json$/, ''), entry.result)
    }
    this.resumedParts = this.done.size
  }

  private async note(key: string, name: string, result: PartResult): Promise<void> {
    this.done.set(name, result)
    if (this.fails(result)) return  // it would be found again
    await onDisk(this.journal, async () => {
      for (const side of ['train', 'test']) await syncDirectory(join(this.options.out, side))
      await writeWhole(join(this.journal, `${name}.json`), sealedJson({ key, result }))
    })
  }

  private fails(result: PartResult): boolean {
    return this.options.onBadRow === 'fail' && result.badCount > 0
  }

  /** Makes the parts that are missing, in order, several at once; stops taking new ones when one fails. */
  private async makeParts(pieces: Piece[], context: PartContext): Promise<void> {
    for (;;) {
      let next = 0
      let failed = false
      const work = async () => {
        while (!failed && next < pieces.length) {
          const piece = pieces[next++]!
          for await (const result of makePart(piece, context)) failed ||= this.fails(result)
        }
      }
      const workers = await Promise.allSettled(Array.from({ length: this.options.threads }, work))
      for (const worker of workers) if (worker.status === 'rejected') throw worker.reason
      if (await this.repair(pieces, context)) return
    }
  }

  /**
   * A part of a plain file assumes that a line begins behind the first line end in it. Where that was inside of a
   * quoted value, the part before says where the line really begins, and the part is made again from there. True when all is
   * made; throws for the first bad row.
   */
  private async repair(pieces: Piece[], context: PartContext): Promise<boolean> {
    const ends = new Map<number, number>()
    for (const piece of pieces) {
      let parts = this.partsOfPiece(piece)
      const begin = ends.get(piece.file)
      if (parts.length > 0 && piece.range && begin !== undefined && parts[0]![1].begin !== begin) {
        const again = { ...piece, range: { ...piece.range, begin, isLine: true } }
        for await (const _ of makePart(again, context)) { /* it is noted */ }
        parts = this.partsOfPiece(piece)
      }
      for (const [name, result] of parts) {
        if (this.fails(result)) throw badRowError(this.badRows(piece, name)[0]!, piece.relation!)
      }
      if (parts.length === 0) return false  // a failure that was none kept it from being made
      ends.set(piece.file, parts.at(-1)![1].end)
    }
    return true
  }

  /** The parts of a piece that are made, in order. */
  private partsOfPiece(piece: Piece): [string, PartResult][] {
    const isWhole = piece.range !== undefined || piece.synth !== undefined || piece.arrow !== undefined
    const parts = [...this.done]
      .filter(([name]) => (isWhole ? name === piece.name : name.startsWith(piece.name)))
    return parts.sort(([a], [b]) => (a < b ? -1 : 1))
  }

  /** The bad rows of a part that are described, with their lines in the file. */
  private badRows(piece: Piece, part: string): BadRow[] {
    const prefix = part.slice(0, part.indexOf('-') + 1)
    const before = [...this.done].filter(([name]) => name.startsWith(prefix) && name < part)
      .reduce((lines, [, result]) => lines + result.lines, 0)
    return this.done.get(part)!.bad.map(({ line, column, value, reason }) => ({
      file: piece.relation!.name, line: before + line, ...(column !== '' && { column }), ...(value !== '' && { value }),
      reason,
    }))
  }

  private async finish(pieces: Piece[]): Promise<PreparedCard> {
    const parts = pieces.flatMap((piece) => this.partsOfPiece(piece).map(([name, result]) => ({ piece, name, result })))
    const bad = parts.flatMap(({ piece, name }) =>
      this.badRows(piece, name).map((row) => describeBadRow(row, piece.relation?.text ? 'line' : 'row')))
    const shardsOf = (side: Side) =>
      parts.flatMap(({ name, result }) => (result[side] ? [{ name, ...result[side] }] : []))
    const { card: train, statistics } = await this.writeManifest('train', shardsOf('train'), undefined)
    const hasTest = this.options.test !== undefined || this.options.split !== undefined
    const test = hasTest ? await this.writeManifest('test', shardsOf('test'), statistics) : undefined
    const card: PreparedCard = {
      badRows: parts.reduce((count, { result }) => count + result.badCount, 0),
      firstBad: bad.slice(0, mostReports),
      train, ...(test && { test: test.card }),
    }
    const { out } = this.options
    await onDisk(out, async () => {
      if (!hasTest) await rm(join(out, 'test'), { recursive: true, force: true })
      await writeWhole(join(out, 'card.json'), sealedJson(card))
      await rm(this.journal, { recursive: true })
    })
    return card
  }

  /** Test data is standardized as the training data is. */
  private async writeManifest(side: Side, shards: ({ name: string } & NonNullable<PartResult[Side]>)[],
    statistics: Statistics | undefined): Promise<{ card: DataCard; statistics: Statistics }> {
    const rows = shards.reduce((sum, { shard }) => sum + shard.rows, 0)
    const merged = mergeCards(shards.map(({ card }) => card), this.columns, rows)
    const manifest: PreparedManifest = {
      format: preparedFormat,
      rows,
      columns: this.columns,
      statistics: statistics ?? merged.statistics,
      shards: shards.filter(({ shard }) => shard.rows > 0)
        .map(({ name, shard }) => ({ file: `${name}.arrow`, ...shard })),
    }
    const path = join(this.options.out, side, 'manifest.json')
    await onDisk(path, () => writeWhole(path, sealedJson(manifest)))
    return merged
  }
}

/** What a file of sealed JSON holds; undefined when it is damaged or not there. */
async function readSealed<T>(path: string): Promise<T | undefined> {
  const text = await readFile(path, 'utf8').catch(() => undefined)
  return text === undefined ? undefined : openSealedJson(text) as T | undefined
}
