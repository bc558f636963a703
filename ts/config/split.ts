// Resolves what divides one source into training and test data.
import { isDeepStrictEqual } from 'node:util'
import type { Resolution } from './resolution.js'
import type { FilledConfig } from './schema.js'
import type { Source } from './source.js'

export type Split =
  | { by: 'share'; test: number }
  | { by: 'hash'; column: string; test: number }
  | { by: 'time'; column: string; from: number | string }

type WrittenSplit = NonNullable<FilledConfig['data']['split']>

const needs = { share: ['test'], hash: ['column', 'test'], time: ['column', 'from'] } as const
const path = ['data', 'split']

/** The split and the source of the test data, which is that of the training data. */
export function resolveSplit(written: WrittenSplit, { train, test }: { train?: Source; test?: Source },
  resolution: Resolution): { split: Split; test?: Source } {
  const { by } = written
  const needed: readonly string[] = needs[by]
  for (const key of ['column', 'test', 'from'] as const) {
    const given = written[key] !== undefined
    if (given && !needed.includes(key)) resolution.refuse([...path, key], `does not belong to by: ${by}`)
    if (!given && needed.includes(key)) resolution.refuse([...path, key], `is missing; by: ${by} needs it`)
  }
  if (test && !isDeepStrictEqual(test, train)) {
    resolution.refuse(path, 'divides data.train, but data.test is given too; keep one of them')
  }
  if (train && 'prepared' in train) {
    resolution.refuse(path, 'prepared data is divided when it is prepared; give its test folder as data.test')
  }
  if (train && 'synth' in train) {
    resolution.refuse(path, 'is not for synthetic data; give data.test with another firstRow')
  }
  if (train) resolution.note(['data', 'test'], { derived: 'data.split' })
  return { split: written as Split, ...(train && { test: train }) }
}
