// The public data sets that `persia data prepare --dataset` knows: where their owners' files lie in a folder, what the
// columns are, and what divides training and test data. Each is a part of a config; presets in examples/ fit to it.
import { existsSync, readdirSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import type { ConfigInput } from '../../config/index.js'
import { PersiaError } from '../../errors.js'
import { avazu } from './avazu.js'
import { criteo } from './criteo.js'
import { taobao } from './taobao.js'

/** What a config says of data and features. */
export type DataSetConfig = Pick<ConfigInput, 'data' | 'features'>

export const dataSets: Record<string, (folder: Folder) => Promise<DataSetConfig>> = { criteo, avazu, taobao }

/** The config of a data set whose files lie in `from`: a folder, or the file of the training data. */
export async function dataSetConfig(name: string, from: string): Promise<DataSetConfig> {
  const path = resolve(from)
  if (!existsSync(path)) throw new PersiaError('PERSIA_DATA_NOT_FOUND', `There is no file or folder ${from}.`, { file: from })
  return dataSets[name]!(statSync(path).isFile() ? new Folder(dirname(path), basename(path)) : new Folder(path))
}

export class Folder {
  constructor(readonly path: string, private readonly only?: string) {}

  /** The file of one of these names, of the first of them that is there; undefined: there is none. */
  find(...names: (string | RegExp)[]): string | undefined {
    const files = readdirSync(this.path).sort()
    for (const name of names) {
      const found = files.find((file) => (typeof name === 'string' ? file === name : name.test(file)))
      if (found !== undefined) return join(this.path, found)
    }
    return undefined
  }

  /** The file of the training data: the one that was named, or the first of these that is there. */
  need(dataSet: string, ...names: (string | RegExp)[]): string {
    const found = this.only === undefined ? this.find(...names) : join(this.path, this.only)
    if (found !== undefined) return found
    const expected = names.filter((name) => typeof name === 'string').join(', ')
    throw new PersiaError('PERSIA_DATA_NOT_FOUND',
      `${this.path} has none of the files of ${dataSet}: expected ${expected}. --from also takes the file itself.`,
      { file: this.path })
  }
}

export const names = (prefix: string, count: number, first = 1) =>
  Array.from({ length: count }, (_, i) => `${prefix}${i + first}`)
