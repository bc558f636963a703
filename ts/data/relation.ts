// Relation: one file of a source, or the user's SQL, with the names and types of its columns. DuckDB reads all but
// Arrow files, which the addon reads.
//
// CSV columns are declared, never sniffed: all are text under made-up names (c0, c1, …), so that neither DuckDB's
// guesses nor odd header lines change what a value means. What a text means is decided in cpp/batch/chunk_decoder.
import type { DuckDBConnection } from '@duckdb/node-api'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import { reasonOf } from './bad-rows.js'
import { escapeGlob, identifier, literal, rowsOf } from './duckdb.js'
import type { NativeArrowFile } from './native-arrow.js'
import { isRemote, lacksExtension, listFiles, type DataFile, type DataSource, type FileSource } from './source.js'

export interface RelationColumn {
  name: string
  /** DuckDB's type, such as VARCHAR, DOUBLE or BIGINT[]. */
  type: string
  /** How SQL refers to it. */
  reference: string
}

export interface Relation {
  /** For messages. */
  name: string
  columns: RelationColumn[]
  /** What reads it. */
  reads: QueryItem | NativeArrowFile
  /** The file, where it is one on this machine. */
  path?: string
  /** For CSV and TSV: what is needed to count lines, and to split them without DuckDB. */
  text?: { header: boolean; delimiter: string; lines: string }
}

/**
 * The FROM item of a query. With `reject`, DuckDB leaves out rows that it cannot split and notes them in reject_errors.
 */
export type QueryItem = (reject: boolean) => string

/** The relations of a source in reading order, their columns read. */
export async function openRelations(connection: DuckDBConnection, source: DataSource, baseDir: string):
Promise<Relation[]> {
  if ('sql' in source) return [await sqlRelation(connection, source.sql)]
  const relations: Relation[] = []
  for (const file of await listFiles(connection, source, baseDir)) {
    if (file.format === 'arrow') relations.push(await arrowRelation(file))
    else if (file.format === 'parquet') relations.push(await parquetRelation(connection, file))
    else relations.push(await csvRelation(connection, file, source))
  }
  return relations
}

async function sqlRelation(connection: DuckDBConnection, sql: string): Promise<Relation> {
  const query = `(${sql.replace(/[;\s]+$/, '')}\n)`
  return { name: 'sql query', columns: await describe(connection, query, 'sql query'), reads: () => query }
}

async function parquetRelation(connection: DuckDBConnection, { path, name }: DataFile): Promise<Relation> {
  const scan = `read_parquet(${literal(escapeGlob(path))}, hive_partitioning = false)`
  return { name, ...local(path), columns: await describe(connection, scan, name), reads: () => scan }
}

async function arrowRelation({ path, name }: DataFile): Promise<Relation> {
  const file = await settling(() => native().openArrow(path, name))
  const columns = file.columns.map((column) => ({ ...column, reference: identifier(column.name) }))
  return { name, path, columns, reads: file }
}

const local = (path: string) => (isRemote(path) ? {} : { path })

async function describe(connection: DuckDBConnection, from: string, name: string): Promise<RelationColumn[]> {
  try {
    const rows = await rowsOf(connection, `describe select * from ${from}`) as string[][]
    return rows.map(([column = '', type = '']) => ({ name: column, type, reference: identifier(column) }))
  } catch (error) {
    throw unreadable(name, error)
  }
}

async function csvRelation(connection: DuckDBConnection, dataFile: DataFile, source: FileSource): Promise<Relation> {
  const { path, name, format } = dataFile
  const delimiter = source.delimiter ?? (format === 'tsv' ? '\t' : ',')
  const header = source.header ?? source.columns === undefined
  if (!header && !source.columns) {
    throw new PersiaError('PERSIA_CONFIG_INVALID',
      `${name} has no header line (header: false), so \`columns\` must name its columns.`, { file: name })
  }
  const file = literal(escapeGlob(path))
  const common = 'auto_detect = false, hive_partitioning = false'
  const names = source.columns ?? await headerOf(connection, linesOf(path, false), name, delimiter)
  const columns = names.map((column, i) => ({ name: column, type: 'VARCHAR', reference: `c${i}` }))
  const declared = columns.map(({ reference }) => `${reference}: 'VARCHAR'`).join(', ')
  const texts = columns.map(({ reference }) => `'${reference}'`).join(', ')
  return {
    name,
    ...local(path),
    columns,
    text: { header, delimiter, lines: linesOf(path, true) },
    reads: (reject) => `read_csv(${file}, columns = {${declared}}, delim = ${literal(delimiter)}, quote = '"', `
      + `escape = '"', header = ${header}, force_not_null = [${texts}], store_rejects = ${reject}, ${common})`,
  }
}

/** Every line of a file as one text; blank ones are NULL. Not `strict`: lines may end in `\n` and `\r\n` in one file. */
export function linesOf(path: string, strict: boolean): string {
  return `read_csv(${literal(escapeGlob(path))}, columns = {line: 'VARCHAR'}, delim = '\u0001', quote = '', `
    + "escape = '', header = false, nullstr = '', ignore_errors = true, auto_detect = false, "
    + `hive_partitioning = false, strict_mode = ${strict})`
}

async function headerOf(connection: DuckDBConnection, lines: string, name: string, delimiter: string):
Promise<string[]> {
  let rows: unknown[][]
  try {
    rows = await rowsOf(connection, `select line from ${lines} limit 1`)
  } catch (error) {
    throw unreadable(name, error)
  }
  const line = rows[0]?.[0]
  if (typeof line === 'string') return splitHeader(line, delimiter)
  throw new PersiaError('PERSIA_DATA_UNREADABLE',
    `${name} has no header line: its first line is empty. Files without one need \`columns\` beside \`path\`.`,
    { file: name })
}

/** The fields of a header line; quotes may hold the delimiter and doubled quotes. */
function splitHeader(line: string, delimiter: string): string[] {
  const fields: string[] = []
  let field = ''
  let quoted = false
  for (let i = 0; i < line.length; i++) {
    const character = line[i] as string
    if (quoted && character === '"' && line[i + 1] === '"') field += line[++i]
    else if (character === '"' && (quoted || field === '')) quoted = !quoted
    else if (character === delimiter && !quoted) {
      fields.push(field)
      field = ''
    } else field += character
  }
  return [...fields, field]
}

/** A failure of DuckDB that is not about one row. */
export function unreadable(name: string, error: unknown): PersiaError {
  const message = error instanceof Error ? error.message : String(error)
  const extension = /required extension '(\w+)'/.exec(message)?.[1]
  if (extension !== undefined) return lacksExtension(name, extension, error)
  const reason = formReason(message) ?? csvReason(message, name)
    ?? message.split('\n').find((line) => line.trim() !== '') ?? message
  return new PersiaError('PERSIA_DATA_UNREADABLE', `${name} cannot be read: ${reason}`,
    { file: name }, { cause: error })
}

/** Of failures of DuckDB's CSV reader that say nothing of the text. */
function formReason(message: string): string | undefined {
  if (message.includes('state machine reached an invalid state')) {
    return 'its text is not in the form of CSV; perhaps some lines end in \\r\\n and others in \\n'
  }
  // What telling of invalid UTF-8 ends in, where a query leaves out a column before that of the text.
  if (/INTERNAL Error: Attempted to access index \d+ within vector/.test(message)) {
    return 'a CSV file in it probably has text that is not valid UTF-8'
  }
  return undefined
}

/** Of a line that DuckDB cannot split, in a file that a query reads. */
function csvReason(message: string, name: string): string | undefined {
  const line = /CSV Error on Line: (\d+)/.exec(message)?.[1]
  if (line === undefined) return undefined
  const file = /^\s*file ?= ?(\S.*)$/m.exec(message)?.[1]
  return `${file === undefined || file === name ? '' : `${file} `}line ${line}: ${reasonOf(message)}`
}
