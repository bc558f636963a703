// Small data sets on disk and readers over them, for the tests of ts/data.
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { DuckDBInstance } from '@duckdb/node-api'
import { openReader, type BatchReader, type ReaderOptions } from '#persia/data/reader.js'
import { native } from '#persia/native.js'
import type { NativeBatch } from '#persia/native-types.js'

export type Files = Record<string, string | Buffer>

/** Writes the files into the test's own folder; names ending in .gz are compressed. */
export function writeFiles(folder: string, files: Files): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), name.endsWith('.gz') && typeof content === 'string' ? gzipSync(content) : content)
  }
}

/** Runs SQL that writes files, such as `copy … to 'FOLDER/x.parquet'`. */
export async function runSql(sql: string): Promise<void> {
  const instance = await DuckDBInstance.create(':memory:')
  const connection = await instance.connect()
  await connection.run(sql)
  connection.closeSync()
  instance.closeSync()
}

/** A reader of a user id (hashed), tags (several), age and click. */
export const clicks: Omit<ReaderOptions, 'source' | 'baseDir'> = {
  ids: [{ name: 'user', encoding: 'hash' }, { name: 'tags', encoding: 'hash', separator: '|' }],
  dense: [{ column: 'age', transform: 'none', missing: 'auto' }],
  labels: [{ column: 'click', loss: 'bce' }],
  missing: [''],
  onBadRow: 'fail',
  batchSize: 2,
}

export interface Sample { ids: bigint[][]; dense: number[]; labels: number[] }

/** All samples of a reader, and the sizes of its batches. */
export function readAll(reader: BatchReader): Promise<{ samples: Sample[]; sizes: number[] }> {
  return columnsOfBatches(reader)
}

export async function columnsOfBatches(reader: AsyncIterable<NativeBatch>):
Promise<{ samples: Sample[]; sizes: number[] }> {
  const samples: Sample[] = []
  const sizes: number[] = []
  for await (const batch of reader) {
    sizes.push(batch.rows)
    const { ids, dense, labels } = native().Batcher.columnsOf(batch)
    for (let row = 0; row < batch.rows; row++) {
      samples.push({
        ids: ids.map((column) => [...column.offsets
          ? column.ids.slice(column.offsets[row], column.offsets[row + 1])
          : column.ids.slice(row, row + 1)]),
        dense: [...rowOf(dense, row, batch.rows)],
        labels: [...rowOf(labels, row, batch.rows)],
      })
    }
  }
  return { samples, sizes }
}

function rowOf(matrix: Float32Array, row: number, rows: number): Float32Array {
  const width = matrix.length / rows
  return matrix.subarray(row * width, (row + 1) * width)
}

export async function samplesOf(options: ReaderOptions): Promise<Sample[]> {
  return (await readAll(await openReader(options))).samples
}
