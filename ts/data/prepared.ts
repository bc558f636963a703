// Prepared data as a source of batches: the config's columns are found in the manifest, and what the shards were made
// with has to agree with what the config says, since nothing is decoded again.
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { closestWord } from '../config/suggest.js'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import type { NativeBatchSource } from './native-data.js'
import { readPreparedManifest, shardColumns, type PreparedColumns } from './prepared-manifest.js'
import { denseOptions, type ReaderOptions } from './reader.js'
import type { Statistics } from './statistics.js'

export interface PreparedOptions extends Omit<ReaderOptions, 'source' | 'split'> {
  folder: string
}

/** PERSIA_DATA_NOT_FOUND, PERSIA_DATA_UNREADABLE, PERSIA_DATA_MISSING_COLUMN, PERSIA_CONFIG_INVALID. */
export async function openPreparedData(options: PreparedOptions): Promise<NativeBatchSource> {
  const { directory, manifest } = await readPreparedManifest(options.folder, options.baseDir)
  const { columns } = manifest
  const places = new Places(directory, columns)
  places.checkMissing(options.missing)
  const labels = options.labels === 'none' ? [] : options.labels
  return settling(() => native().openPrepared({
    shards: manifest.shards.map(({ file, ...shard }) => ({ path: join(directory, file), ...shard })),
    columns: shardColumns(columns),
    ids: options.ids.map((id) => places.idOf(id)),
    dense: options.dense.map(({ column }) => places.denseOf(column)),
    transforms: options.dense.map((column) => denseOptions(column, options.statistics ?? manifest.statistics, false)),
    labels: labels.map((label) => places.labelOf(label)),
    batchSize: options.batchSize,
    ...(options.sampling && { sampling: options.sampling }),
    ...(options.shuffle && { shuffle: options.shuffle }),
  }))
}

/** Mean and deviation of the columns with `transform: standardize`, as the manifest has them. */
export async function preparedStatistics({ folder, baseDir, dense }:
Pick<PreparedOptions, 'folder' | 'baseDir' | 'dense'>): Promise<{ statistics: Statistics; rows: number }> {
  const { directory, manifest } = await readPreparedManifest(folder, baseDir)
  const places = new Places(directory, manifest.columns)
  const wanted = dense.filter(({ transform }) => transform === 'standardize')
  for (const { column } of wanted) places.denseOf(column)
  const statistics = Object.fromEntries(wanted.map(({ column }) => [column, manifest.statistics[column]!]))
  return { statistics, rows: manifest.rows }
}

class Places {
  constructor(private readonly directory: string, private readonly columns: PreparedColumns) {}

  idOf(wanted: ReaderOptions['ids'][number]): number {
    const { ids } = this.columns
    const place = this.find('id column', wanted.name, ids.map(({ name }) => name))
    const found = ids[place]!
    for (const key of ['column', 'slice', 'encoding', 'separator'] as const) {
      this.compare(`features.columns.${wanted.name}.${key}`, wanted[key], found[key])
    }
    return place
  }

  denseOf(column: string): number {
    return this.find('dense column', column, this.columns.dense)
  }

  labelOf({ column, positive }: { column: string; positive?: string | undefined }): number {
    const place = this.find('label', column, this.columns.labels.map((label) => label.column))
    this.compare(`data.labels.${place}.positive`, positive, this.columns.labels[place]!.positive)
    return place
  }

  checkMissing(missing: string[]): void {
    this.compare('data.missing', missing, this.columns.missing)
  }

  private find(what: string, name: string, known: string[]): number {
    const place = known.indexOf(name)
    if (place >= 0) return place
    const near = closestWord(name, known)
    const hint = near === undefined ? `It has: ${known.slice(0, 50).join(', ')}.` : `Did you mean ${near}?`
    throw new PersiaError('PERSIA_DATA_MISSING_COLUMN',
      `The prepared data in ${this.directory} has no ${what} ${name}. ${hint}`,
      { file: this.directory, column: name, columns: known })
  }

  /** What was fixed when the data was prepared cannot be different now. */
  private compare(path: string, now: unknown, then: unknown): void {
    if (isDeepStrictEqual(now, then)) return
    const text = (value: unknown) => (value === undefined ? 'not given' : JSON.stringify(value))
    throw new PersiaError('PERSIA_CONFIG_INVALID',
      `${path} is ${text(now)}, but the data in ${this.directory} was prepared with ${text(then)}: `
      + 'write that, or prepare the data again', { path, file: this.directory })
  }
}
