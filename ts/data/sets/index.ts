// The public data sets that `persia data prepare --dataset` knows: where their owners' files lie in a folder, what the
// columns are, and what divides training and test data. Each is a part of a config; presets in examples/ fit to it.
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import type { ConfigInput } from '../../config/index.js'
import { PersiaError } from '../../errors.js'
import { avazu, avazuColumns } from './avazu.js'
import { criteo, criteoColumns } from './criteo.js'
import { Folder, type DataSetConfig } from './folder.js'
import { taobao, taobaoColumns } from './taobao.js'

export const dataSets: Record<string, (folder: Folder) => Promise<DataSetConfig>> = { criteo, avazu, taobao }

/** The columns of synthetic data like a data set: those that a preset for the real one has. */
export function synthSetConfig(synth: NonNullable<ConfigInput['data']['train']>['synth'] & object): DataSetConfig {
  const { labels, dense, features } = synth.like === 'avazu' ? avazuColumns
    : synth.like === 'taobao' ? taobaoColumns() : criteoColumns
  return { data: { train: { synth }, labels, dense }, features }
}

/** The config of a data set whose files lie in `from`: a folder, or the file of the training data. */
export async function dataSetConfig(name: string, from: string): Promise<DataSetConfig> {
  const path = resolve(from)
  if (!existsSync(path)) {
    throw new PersiaError('PERSIA_DATA_NOT_FOUND', `There is no file or folder ${from}.`, { file: from })
  }
  return dataSets[name]!(statSync(path).isFile() ? new Folder(dirname(path), basename(path)) : new Folder(path))
}
