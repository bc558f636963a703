// What the data sets share: the folder that their files lie in, and names of columns.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { ConfigInput } from '../../config/index.js'
import { PersiaError } from '../../errors.js'

/** What a config says of data and features. */
export type DataSetConfig = Pick<ConfigInput, 'data' | 'features'>

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
