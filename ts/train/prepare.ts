// From a config, or a public data set, to prepared data: what `persia data prepare` does.
import { join } from 'node:path'
import { loadConfigFile, parseConfig, type LoadedConfig } from '../config/index.js'
import { prepare, type PrepareProgress, type PrepareReport } from '../data/prepare.js'
import { dataSetConfig } from '../data/sets/index.js'
import type { DataSource } from '../data/source.js'
import { PersiaError } from '../errors.js'
import { columnsOf } from './datasets.js'

export interface PrepareRequest {
  /** Settings over the config, as of `--set`. */
  set: string[]
  threads: number
  out: string | undefined
  onProgress: (progress: PrepareProgress) => void
}

export interface PrepareResult extends PrepareReport { out: string }

/** The data of a config file; by default into `prepared/<name of the config>`. */
export function prepareConfig(file: string, request: PrepareRequest): Promise<PrepareResult> {
  return prepareLoaded(loadConfigFile(file, { set: request.set }), request)
}

/** A public data set whose files lie in `from`. */
export async function prepareDataSet(name: string, from: string, request: PrepareRequest): Promise<PrepareResult> {
  const config = parseConfig({ name, ...await dataSetConfig(name, from) }, { set: request.set })
  return prepareLoaded({ config, file: '', baseDir: process.cwd(), sources: new Map() }, request)
}

async function prepareLoaded(loaded: LoadedConfig, { out, threads, onProgress }: PrepareRequest): Promise<PrepareResult> {
  const { name, seed, data } = loaded.config
  const folder = out ?? join('prepared', name)
  const report = await prepare({
    ...columnsOf(loaded),
    out: folder,
    train: sourceToPrepare(loaded, 'train')!,
    test: data.split ? undefined : sourceToPrepare(loaded, 'test'),
    split: data.split,
    seed,
    threads,
    onProgress,
  })
  return { out: folder, ...report }
}

function sourceToPrepare({ config: { data } }: LoadedConfig, side: 'train' | 'test'): DataSource | undefined {
  const source = data[side]
  const why = !source ? 'is not given' : !('path' in source || 'sql' in source) ? 'is no source of rows to prepare' : undefined
  if (why === undefined) return source as DataSource
  if (side === 'test' && !source) return undefined
  throw new PersiaError('PERSIA_CONFIG_INVALID', `data.${side} ${why}: expected { path } or { sql }`, { path: `data.${side}` })
}
