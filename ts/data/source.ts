// What a reader reads: files or an SQL query, and what the model wants of their columns. Structurally the same as the
// resolved config's `data` section, so that this folder does not depend on the schema.
import { existsSync, statSync } from 'node:fs'
import { isAbsolute, relative, resolve } from 'node:path'
import type { DuckDBConnection } from '@duckdb/node-api'
import { PersiaError } from '../errors.js'
import { escapeGlob, literal, rowsOf } from './duckdb.js'

export type FileFormat = 'csv' | 'tsv' | 'parquet' | 'arrow'

export interface FileSource {
  /** Files and globs, relative to the base folder; each glob's files are read in the order of their names. */
  path: string[]
  format?: FileFormat | undefined
  delimiter?: string | undefined
  /** Whether the first line names the columns. Without it: true, or false where `columns` is given. */
  header?: boolean | undefined
  columns?: string[] | undefined
}

export interface SqlSource { sql: string }

/** What a reader reads. */
export type DataSource = FileSource | SqlSource

/** A folder that `persia data prepare` has written. */
export interface PreparedSource { prepared: string }

/** Synthetic data, made row by row. */
export interface SynthSource {
  synth: { like: string; rows: number; firstRow: number; ids: number; seed: number }
}

export interface IdColumn {
  name: string
  /** Where it is read from; the column of its name unless given. */
  column?: string | undefined
  /** The bytes of a text that count: from, to. */
  slice?: [number, number] | undefined
  encoding: 'hash' | 'integer'
  separator?: string | undefined
}

/** Divides rows into training and test data; the draws of `share` and `hash` depend on a seed. */
export type RowSplit =
  | { by: 'share'; test: number }
  | { by: 'hash'; column: string; test: number }
  | { by: 'time'; column: string; from: number | string }

export interface DenseColumn {
  column: string
  transform: 'none' | 'log1p' | 'standardize'
  /** The raw value that stands for a missing one; `auto`: 0 after the transform. */
  missing: number | 'auto'
}

export interface LabelColumn { column: string; positive?: string | undefined; loss: 'bce' | 'mse' }

export interface DataFile {
  path: string
  /** For messages: relative to the base folder where it lies below it. */
  name: string
  format: FileFormat
}

/** The files of a source, in reading order. Throws PERSIA_DATA_NOT_FOUND with the pattern that matches nothing. */
export async function listFiles(connection: DuckDBConnection, source: FileSource, baseDir: string):
Promise<DataFile[]> {
  const files: DataFile[] = []
  for (const pattern of source.path) {
    if (isRemote(pattern) && (source.format ?? formatOf(pattern)) === 'arrow') throw notMapped(pattern)
    for (const path of await expand(connection, pattern, baseDir)) {
      const inside = relative(baseDir, path)
      const name = isRemote(path) || inside.startsWith('..') || isAbsolute(inside) ? path : inside
      files.push({ path, name, format: source.format ?? formatOf(name) })
    }
  }
  return files
}

/** Places that DuckDB's extension httpfs reads. */
const remote = /^(s3|s3a|s3n|gcs|gs|r2|https?|hf):\/\//i

export const isRemote = (path: string) => remote.test(path)

async function expand(connection: DuckDBConnection, pattern: string, baseDir: string): Promise<string[]> {
  if (isRemote(pattern)) return expandRemote(connection, pattern)
  const path = resolve(baseDir, pattern)
  if (existsSync(path)) {
    if (statSync(path).isFile()) return [path]
    throw notFound(`${pattern} is no file. For all files of a folder write a glob such as ${pattern}/*.csv.`, pattern)
  }
  const glob = isAbsolute(pattern) ? pattern : `${escapeGlob(baseDir)}/${pattern}`
  const found = await rowsOf(connection, `select file from glob(${literal(glob)})`)
  if (found.length > 0) return found.map(([file]) => resolve(file as string)).sort(byCodeUnits)
  throw notFound(`No file matches ${pattern} (looked in ${baseDir}).`, pattern)
}

async function expandRemote(connection: DuckDBConnection, pattern: string): Promise<string[]> {
  await loadHttpfs(connection, pattern)
  try {
    const found = await rowsOf(connection, `select file from glob(${literal(pattern)})`)
    if (found.length > 0) return found.map(([file]) => file as string).sort(byCodeUnits)
  } catch (error) {
    throw notFound(`${pattern} cannot be read: ${(error as Error).message.split('\n')[0]}`, pattern)
  }
  throw notFound(`No file matches ${pattern}.`, pattern)
}

/** PERSIA_CONFIG_UNSUPPORTED where the extension is not installed; nothing is downloaded for it. */
async function loadHttpfs(connection: DuckDBConnection, pattern: string): Promise<void> {
  try {
    await connection.run('load httpfs')
  } catch (error) {
    throw lacksExtension(pattern, 'httpfs', error)
  }
}

export function lacksExtension(name: string, extension: string, cause: unknown): PersiaError {
  return new PersiaError('PERSIA_CONFIG_UNSUPPORTED',
    `${name} needs DuckDB's extension ${extension}, which is not installed on this machine: run `
    + `\`install ${extension}\` in DuckDB once, or copy the files to a disk.`, { file: name }, { cause })
}

function notMapped(pattern: string): PersiaError {
  return new PersiaError('PERSIA_CONFIG_UNSUPPORTED',
    `${pattern}: Arrow files are mapped into memory, so they have to lie on this machine. Copy them, or use Parquet.`,
    { file: pattern })
}

const byCodeUnits = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

const formats: Record<string, FileFormat> = {
  csv: 'csv', tsv: 'tsv', parquet: 'parquet', arrow: 'arrow', arrows: 'arrow', feather: 'arrow', ipc: 'arrow',
}

function formatOf(name: string): FileFormat {
  const ending = /\.([^./]+?)(\.(gz|zst))?$/i.exec(name)?.[1]?.toLowerCase() ?? ''
  const format = formats[ending]
  if (format) return format
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `The format of ${name} is not clear from its ending. Expected .csv, .tsv (.gz or .zst may follow), .parquet or `
    + '.arrow, or `format` beside `path`.', { file: name })
}

function notFound(message: string, pattern: string): PersiaError {
  return new PersiaError('PERSIA_DATA_NOT_FOUND', message, { file: pattern })
}
