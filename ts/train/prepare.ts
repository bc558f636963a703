// From a config, or a public data set, to prepared data: what `persia data prepare` does.
import { join } from 'node:path'
import { loadConfigFile, parseConfig, type LoadedConfig, type Split } from '../config/index.js'
import { prepare, type PrepareProgress, type PrepareReport } from '../data/prepare.js'
import { dataSetConfig, synthSetConfig } from '../data/sets/index.js'
import type { DataSource, SynthSource } from '../data/source.js'
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

export interface SynthRequest {
  like: 'criteo' | 'avazu' | 'taobao' | 'criteo-syn'
  rows: number
  ids: number
  seed: number
}

/** Synthetic data as shards; a share of the rows, by draw, is test data. */
export function prepareSynth(synth: SynthRequest, testShare: number, request: PrepareRequest): Promise<PrepareResult> {
  const config = parseConfig({ name: synth.like, seed: synth.seed, ...synthSetConfig(synth) }, { set: request.set })
  const split = testShare > 0 ? { by: 'share' as const, test: testShare } : undefined
  return prepareLoaded({ config, file: '', baseDir: process.cwd(), sources: new Map() }, request, split)
}

async function prepareLoaded(loaded: LoadedConfig, { out, threads, onProgress }: PrepareRequest,
  split: Split | undefined = loaded.config.data.split): Promise<PrepareResult> {
  const { name, seed } = loaded.config
  const folder = out ?? join('prepared', name)
  const report = await prepare({
    ...columnsOf(loaded),
    out: folder,
    train: sourceToPrepare(loaded, 'train')!,
    test: split ? undefined : sourceToPrepare(loaded, 'test') as DataSource,
    split,
    seed,
    threads,
    onProgress,
  })
  return { out: folder, ...report }
}

function sourceToPrepare({ config: { data } }: LoadedConfig, side: 'train' | 'test'):
DataSource | SynthSource | undefined {
  const source = data[side]
  if (side === 'test' && !source) return undefined
  const isRows = source && ('path' in source || 'sql' in source || ('synth' in source && side === 'train'))
  if (isRows) return source as DataSource | SynthSource
  const why = source ? 'is not what can be prepared' : 'is not given'
  throw new PersiaError('PERSIA_CONFIG_INVALID', `data.${side} ${why}: expected { path } or { sql }`,
    { path: `data.${side}` })
}
