// How this package talks to DuckDB: one in-memory instance a reader, closed with it; quoting of names and texts.
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api'

export interface Database { connection: DuckDBConnection; close(): void }

/** `baseDir` is where relative paths inside SQL are looked for first. */
export async function openDatabase(baseDir: string, threads: number): Promise<Database> {
  const instance = await DuckDBInstance.create(':memory:', { threads: String(threads) })
  const connection = await instance.connect()
  await connection.run('set autoinstall_known_extensions = false')  // nothing is downloaded unasked
  await connection.run(`set file_search_path = ${literal(baseDir)}`)
  return {
    connection,
    close() {
      connection.closeSync()
      instance.closeSync()
    },
  }
}

/** The rows of a small result. */
export async function rowsOf(connection: DuckDBConnection, sql: string): Promise<unknown[][]> {
  return (await connection.runAndReadAll(sql)).getRows()
}

export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
export const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`

/** A file name as a glob that matches only it. */
export const escapeGlob = (path: string) => path.replace(/[*?[]/g, (character) => `[${character}]`)
