// What lies in a folder of prepared data:
//
//   card.json              what is in the data, for people and programs; written last
//   source.json            a hash of what it was made of
//   train/manifest.json    columns, statistics, list of shards; its first line is the checksum of the rest
//         00000-00000.arrow …   shards: the number of the source file, the number of the part of it
//   test/ …                the same
//
// A folder with a manifest is complete. Nothing in manifests and shards depends on machine, time or place.
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { openSealedJson } from '../disk.js'
import { PersiaError } from '../errors.js'
import type { NativeShard, NativeShardColumns } from './native-data.js'
import type { IdColumn, LabelColumn } from './source.js'
import type { Statistics } from './statistics.js'

export const preparedFormat = 1

/** What the shards were made of, by column: all that decides what is in them. */
export interface PreparedColumns {
  ids: (IdColumn & { list: boolean })[]
  dense: string[]
  labels: Pick<LabelColumn, 'column' | 'positive'>[]
  /** Texts that meant "no value". */
  missing: string[]
}

export interface PreparedManifest {
  format: number
  rows: number
  columns: PreparedColumns
  /** Mean and deviation of all dense columns, of the training rows. */
  statistics: Statistics
  shards: ({ file: string } & NativeShard)[]
}

export const shardColumns = ({ ids, dense, labels }: PreparedColumns): NativeShardColumns => ({
  ids: ids.map(({ name, list }) => ({ name, list })), dense, labels: labels.map(({ column }) => column),
})

/** The manifest of a folder of shards. PERSIA_DATA_NOT_FOUND, PERSIA_DATA_UNREADABLE. */
export async function readPreparedManifest(folder: string, baseDir: string):
Promise<{ directory: string; manifest: PreparedManifest }> {
  const directory = resolve(baseDir, folder)
  const path = join(directory, 'manifest.json')
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new PersiaError('PERSIA_DATA_NOT_FOUND', error.code === 'ENOENT'
      ? `There is no prepared data in ${directory}: ${path} is missing. \`persia data prepare\` makes it; the folder `
        + 'is `train` or `test` in its output.'
      : `cannot read ${path}: ${error.message}`, { file: path }, { cause: error })
  })
  const manifest = openSealedJson(text) as PreparedManifest | undefined
  if (!manifest) {
    throw new PersiaError('PERSIA_DATA_UNREADABLE', `${path} is damaged: its checksum is wrong`, { file: path })
  }
  if (manifest.format === preparedFormat) return { directory, manifest }
  throw new PersiaError('PERSIA_DATA_UNREADABLE',
    `${path} has format ${manifest.format}, this release reads ${preparedFormat}; prepare the data again`,
    { file: path })
}
