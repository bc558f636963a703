// Bad rows: where they are and how they are told.
//
// The batcher knows a bad row by its place among the rows that DuckDB delivered. The line in the file is that place,
// plus the header, plus blank lines and lines that DuckDB left out before it; both are counted only when a line is
// asked for.
import type { DuckDBConnection } from '@duckdb/node-api'
import { PersiaError, type ErrorDetails } from '../errors.js'
import { rowsOf } from './duckdb.js'
import type { Relation } from './relation.js'

/** A row that was not taken. */
export interface BadRow {
  file: string
  /** From 1, with the header; a quoted value with line breaks counts as one line. For Parquet and SQL: the row. */
  line: number
  column?: string
  value?: string
  reason: string
}

/** `train.csv line 4, column age: "xx" is not a number` */
export function describeBadRow(bad: BadRow, unit: 'line' | 'row'): string {
  return `${bad.file} ${unit} ${bad.line}${bad.column === undefined ? '' : `, column ${bad.column}`}: ${bad.reason}`
}

export function badRowError(bad: BadRow, relation: Relation, cause?: unknown): PersiaError {
  const { reason, ...fields } = bad
  return new PersiaError('PERSIA_DATA_BAD_ROW', describeBadRow(bad, relation.text ? 'line' : 'row'),
    { ...fields, reason } as ErrorDetails, { cause })
}

/** The line of the n-th row (from 1) that DuckDB delivered; `rejects` when it left out rows. */
export async function lineOf(connection: DuckDBConnection, relation: Relation, n: number, rejects: boolean):
Promise<number> {
  if (!relation.text) return n
  const first = n + (relation.text.header ? 1 : 0)
  // Lines left out move the row down, past possibly more such lines; the first place where this settles is the row's.
  for (let line = first; ;) {
    const { rejected, unreadable } = rejects ? await countRejects(connection, line) : { rejected: 0, unreadable: 0 }
    const next = first + rejected + await countBlankLines(connection, relation, line - unreadable)
    if (next === line) return line
    line = next
  }
}

/** How many of the first `lines` lines are blank; DuckDB skips those, except in files of one column. */
async function countBlankLines(connection: DuckDBConnection, relation: Relation, lines: number): Promise<number> {
  if (!relation.text || relation.columns.length === 1) return 0
  const first = `(select line from ${relation.text.lines} limit ${lines})`
  const [row] = await rowsOf(connection, `select count(*) from ${first} where line is null`)
  return Number(row?.[0])
}

// Kinds of rejected lines that reading line by line leaves out too.
const unreadableKinds = "('INVALID ENCODING', 'LINE SIZE OVER MAXIMUM')"

interface RejectCounts { rejected: number; unreadable: number }

async function countRejects(connection: DuckDBConnection, upTo: number): Promise<RejectCounts> {
  const [row] = await rowsOf(connection, 'select count(distinct line), '
    + `count(distinct line) filter (error_type in ${unreadableKinds}) from reject_errors where line <= ${upTo}`)
  return { rejected: Number(row?.[0]), unreadable: Number(row?.[1]) }
}

/** The rows that DuckDB left out of the file just read: how many, and the first ones. */
export async function takeRejects(connection: DuckDBConnection, relation: Relation, most: number):
Promise<{ count: number; first: BadRow[] }> {
  const [row] = await rowsOf(connection, 'select count(distinct line) from reject_errors')
  const first = await rowsOf(connection, 'select line, any_value(column_name order by byte_position), '
    + `any_value(error_message order by byte_position) from reject_errors group by line order by line limit ${most}`)
  const rows = first.map(([line, reference, message]) => {
    const column = relation.columns.find((candidate) => candidate.reference === reference)?.name
    const reason = reasonOf(String(message))
    return { file: relation.name, line: Number(line), ...(column !== undefined && { column }), reason }
  })
  return { count: Number(row?.[0]), first: rows }
}

export async function dropRejects(connection: DuckDBConnection): Promise<void> {
  await connection.run('drop table if exists reject_errors; drop table if exists reject_scans')
}

/** The bad row that an error of DuckDB's CSV reader is about; undefined for other errors. */
export function badRowOf(error: unknown, relation: Relation): BadRow | undefined {
  if (!relation.text || !(error instanceof Error)) return undefined
  const line = /CSV Error on Line: (\d+)/.exec(error.message)?.[1]
  return line === undefined ? undefined : { file: relation.name, line: Number(line), reason: reasonOf(error.message) }
}

/** What is wrong with a line, of an error of DuckDB's. */
export function reasonOf(message: string): string {
  const columns = /Expected Number of Columns: (\d+) Found: (\d+)/.exec(message)
  if (columns) return `expected ${columns[1]} columns, found ${columns[2]}`
  if (/unterminated quote/i.test(message)) return 'a quoted value does not end, or has text behind its closing quote'
  if (/invalid unicode|not utf-8/i.test(message)) return 'the text is not valid UTF-8'
  if (/maximum line size/i.test(message)) return 'the line is longer than 2 MB'
  return message.split('\n').find((text) => text.trim() !== '' && !text.includes('CSV Error on Line')) ?? message
}
