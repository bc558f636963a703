// Resolves the id columns and their groups.
import { defined } from './defined.js'
import type { Path } from './path.js'
import { unknownName } from './problems.js'
import type { Resolution } from './resolution.js'
import type { Config, FeatureColumn } from './resolved.js'
import type { FilledConfig } from './schema.js'

export function resolveFeatures(written: FilledConfig['features'], resolution: Resolution): Config['features'] {
  const columns: Record<string, FeatureColumn> = {}
  const defaults = defined(written.defaults)
  for (const [name, own] of Object.entries(written.columns)) {
    const overrides = defined(own ?? {})
    columns[name] = { ...defaults, ...overrides } as FeatureColumn
    for (const key of Object.keys(columns[name])) {
      if (Object.hasOwn(overrides, key)) continue
      resolution.note(['features', 'columns', name, key], { from: ['features', 'defaults', key] })
    }
    checkSequence(name, columns[name], resolution)
    checkSlice(name, columns[name], resolution)
  }
  const groups = resolveGroups(written, columns, resolution)
  return { ...written, defaults, columns, groups }
}

function checkSequence(name: string, { pooling, sequenceLength, mask }: FeatureColumn, resolution: Resolution): void {
  const path = ['features', 'columns', name, 'sequenceLength']
  if (pooling === 'none' && sequenceLength === undefined) {
    resolution.refuse(path, 'missing: pooling none needs the number of ids that lie side by side')
  } else if (pooling === 'last' && sequenceLength !== undefined) {
    resolution.refuse(path, 'pooling last takes one id, the last; leave it out')
  }
  if (mask && pooling !== 'none') {
    resolution.refuse(['features', 'columns', name, 'mask'],
      `pooling ${pooling} leaves no places to mask; leave it out, or use pooling none`)
  }
}

function checkSlice(name: string, { slice }: FeatureColumn, resolution: Resolution): void {
  if (!slice || slice[0] < slice[1]) return
  resolution.refuse(['features', 'columns', name, 'slice'], `the second number must be above the first, got [${slice}]`)
}

function resolveGroups({ groups, prefixBits }: FilledConfig['features'], columns: Record<string, FeatureColumn>,
  resolution: Resolution): string[][] {
  const groupOf = new Map<string, number>()
  groups.forEach((group, number) => group.forEach((name, index) => {
    const path = ['features', 'groups', number, index]
    if (!Object.hasOwn(columns, name)) {
      resolution.problems.push(unknownName(path, 'a column of features.columns', name, Object.keys(columns)))
    } else if (groupOf.has(name)) {
      resolution.refuse(path, `${name} is already in group ${groupOf.get(name)}; a feature is in one group`)
    } else {
      groupOf.set(name, number)
      checkEncoding(name, group[0]!, columns, path, resolution)
    }
  }))
  const alone = Object.keys(columns).filter((name) => !groupOf.has(name))
  if (alone.length > 0) resolution.note(['features', 'groups'], { derived: 'features.columns' })
  const count = groups.length + alone.length
  if (count > 2 ** prefixBits - 1) {
    resolution.refuse(['features', 'prefixBits'], `expected at least ${Math.ceil(Math.log2(count + 1))} bits `
      + `for ${count} feature groups, got ${prefixBits}`)
  }
  return [...groups, ...alone.map((name) => [name])]
}

/** Features that share ids must make them in the same way. */
function checkEncoding(name: string, first: string, columns: Record<string, FeatureColumn>, path: Path,
  resolution: Resolution): void {
  const [mine, others] = [columns[name], columns[first]]
  if (!mine || !others) return
  for (const key of ['encoding', 'hashStack'] as const) {
    const [here, there] = [JSON.stringify(mine[key] ?? 'none'), JSON.stringify(others[key] ?? 'none')]
      .map((text) => text.replaceAll('"', ''))
    if (here === there) continue
    resolution.refuse(path, `${name} has ${key} ${here}, ${first} has ${there}; features that share ids need the same`)
  }
}
