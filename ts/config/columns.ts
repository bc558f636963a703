// Resolves what `data` says: sources, and the columns of labels and numbers.
import { defined } from './defined.js'
import { pathText, type Path } from './path.js'
import { unknownName } from './problems.js'
import type { Resolution } from './resolution.js'
import type { Config, DenseColumn, LabelColumn } from './resolved.js'
import type { FilledConfig } from './schema.js'
import { resolveSource } from './source.js'
import { resolveSplit } from './split.js'

export function resolveData({ train, test, split, ...written }: FilledConfig['data'], resolution: Resolution) {
  const sources = {
    ...(train && { train: resolveSource(train, ['data', 'train'], resolution) }),
    ...(test && { test: resolveSource(test, ['data', 'test'], resolution) }),
  }
  return {
    ...sources,
    ...(split && resolveSplit(split, sources, resolution)),
    ...written,
    labels: resolveLabels(written.labels, resolution),
    dense: resolveDense(written, resolution),
  }
}

function resolveLabels(written: FilledConfig['data']['labels'], resolution: Resolution): LabelColumn[] {
  return written.map((label, index) => {
    if (typeof label !== 'string') return defined(label) as LabelColumn
    resolution.note(['data', 'labels', index, 'column'], { from: ['data', 'labels', index] })
    return { column: label }
  })
}

function resolveDense(data: Pick<FilledConfig['data'], 'dense' | 'transform'>, resolution: Resolution): DenseColumn[] {
  return data.dense.map((written, index) => {
    const path = ['data', 'dense', index]
    if (typeof written === 'string') resolution.note([...path, 'column'], { from: path })
    const { column, transform = undefined, missing = 'auto' } =
      typeof written === 'string' ? { column: written } : written
    if (transform === undefined) resolution.note([...path, 'transform'], { from: ['data', 'transform'] })
    return { column, transform: transform ?? data.transform, missing }
  })
}

/** Each column has one use (an id column may also be a dense one), and is among the names of files without a header. */
export function checkColumns(
  { data, features }: { data: ReturnType<typeof resolveData>; features: Config['features'] }, resolution: Resolution,
): void {
  const labelPaths = new Map<string, Path>()
  const densePaths = new Map<string, Path>()
  const featurePaths = new Map<string, Path>()
  data.labels.forEach(({ column }, index) => {
    noteOnce(labelPaths, column, ['data', 'labels', index], 'label', resolution)
  })
  data.dense.forEach(({ column }, index) => {
    noteOnce(densePaths, column, ['data', 'dense', index], 'dense column', resolution)
  })
  for (const [name, { column = name }] of Object.entries(features.columns)) {
    featurePaths.set(column, ['features', 'columns', name])
  }
  for (const [column, path] of labelPaths) {
    const other = densePaths.get(column) ?? featurePaths.get(column)
    if (other) {
      resolution.refuse(other, `${column} is a label (${pathText(path)}); a label cannot be an input of the model`)
    }
  }
  for (const split of ['train', 'test'] as const) {
    const source = data[split]
    if (!source || !('path' in source) || !source.columns) continue
    for (const [column, path] of [...labelPaths, ...densePaths, ...featurePaths]) {
      if (source.columns.includes(column)) continue
      resolution.problems.push(unknownName(path, `in data.${split}.columns`, column, source.columns))
    }
  }
}

/** Synthetic rows are made one by one, with nothing known of the others. */
export function checkSynth(
  { train, dense, negativeSampling }: ReturnType<typeof resolveData>, resolution: Resolution,
): void {
  if (!train || !('synth' in train)) return
  if (negativeSampling) resolution.refuse(['data', 'negativeSampling'], 'is not for synthetic data')
  dense.forEach(({ transform }, index) => {
    if (transform !== 'standardize') return
    resolution.refuse(['data', 'dense', index, 'transform'], 'standardize is not for synthetic data; use log1p')
  })
}

function noteOnce(paths: Map<string, Path>, column: string, path: Path, what: string, resolution: Resolution): void {
  const first = paths.get(column)
  if (first) resolution.refuse(path, `${column} is already a ${what} (${pathText(first)})`)
  else paths.set(column, path)
}
