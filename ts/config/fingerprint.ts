// What a checkpoint and a config must agree on: everything that gives the stored numbers their shape and their meaning.
// Learning rates, batch size or data paths may change between two runs; these may not.
import type { NegativeSampling } from './evaluation.js'
import { isMap } from './path.js'
import type { Config, DenseColumn, FeatureColumn, LabelColumn, Task } from './resolved.js'

/** Plain JSON, kept in the checkpoint. Lists of maps are keyed by their first entry (`column`, `label`). */
export interface ModelFingerprint {
  seed: number
  data: {
    labels: LabelColumn[]
    dense: Pick<DenseColumn, 'column' | 'transform'>[]
    negativeSampling?: NegativeSampling
  }
  features: { columns: ({ column: string } & Omit<FeatureColumn, 'frozen'>)[]; groups: string[][]; prefixBits: number }
  embedding: {
    optimizer: OptimizerKind
    groupOptimizer?: Record<string, OptimizerKind>
    init: Config['embedding']['init']
  }
  model: Partial<Pick<Config['model'], 'type' | 'cross' | 'bottom'>> & {
    hidden: number[]; tasks: Pick<Task, 'label' | 'loss'>[]; optimizer: OptimizerKind
  }
}

interface OptimizerKind {
  type: string
  /** sgd: whether there is a momentum buffer. */
  momentum?: 'on' | 'off'
  /** Adam of the embedding rows: whether a row counts its updates. */
  biasCorrection?: 'row' | 'group'
}

export function modelFingerprint({ seed, data, features, embedding, model }: Config): ModelFingerprint {
  return {
    seed,
    data: {
      labels: data.labels,
      dense: data.dense.map(({ column, transform }) => ({ column, transform })),
      ...(data.negativeSampling && { negativeSampling: data.negativeSampling }),
    },
    features: {
      columns: Object.entries(features.columns)
        .map(([column, { frozen: _, mask, ...settings }]) => ({ column, ...settings, ...(mask && { mask }) })),
      groups: features.groups,
      prefixBits: features.prefixBits,
    },
    embedding: {
      optimizer: optimizerKind(embedding.optimizer),
      ...(Object.keys(embedding.groupOptimizer).length > 0
        && { groupOptimizer: groupOptimizerKinds(embedding, features) }),
      init: embedding.init,
    },
    model: {
      ...(model.type !== 'ffnn' && { type: model.type }),  // checkpoints of the first version name no type
      ...(model.cross && { cross: model.cross }),
      ...(model.bottom && { bottom: model.bottom }),
      hidden: model.hidden,
      tasks: model.tasks.map(({ label, loss }) => ({ label, loss })),
      optimizer: optimizerKind(model.optimizer),
    },
  }
}

/** By the first feature of the group, in the order of groups, whichever feature the config names a group by. */
function groupOptimizerKinds(
  { groupOptimizer }: Config['embedding'], { groups }: Config['features'],
): Record<string, OptimizerKind> {
  return Object.fromEntries(groups.flatMap((names) => {
    const named = names.find((name) => Object.hasOwn(groupOptimizer, name))
    return named === undefined ? [] : [[names[0]!, optimizerKind(groupOptimizer[named]!)]]
  }))
}

function optimizerKind(optimizer: Config['embedding']['optimizer'] | Config['model']['optimizer']): OptimizerKind {
  if (optimizer.type === 'sgd') return { type: 'sgd', momentum: optimizer.momentum > 0 ? 'on' : 'off' }
  return { type: optimizer.type, ...('biasCorrection' in optimizer && { biasCorrection: optimizer.biasCorrection }) }
}

/** A line for each difference; none when the config can go on from the checkpoint. */
export function diffFingerprint(checkpoint: ModelFingerprint, config: ModelFingerprint): string[] {
  return diffValues(checkpoint, config, '')
}

function diffValues(ours: unknown, theirs: unknown, path: string): string[] {
  const [before, after] = [keyed(ours), keyed(theirs)]
  if (before && after) return diffMaps(before, after, path)
  const [a, b] = [JSON.stringify(ours), JSON.stringify(theirs)]
  return a === b ? [] : [`${path}: ${valueText(ours)} in the checkpoint, ${valueText(theirs)} in the config`]
}

function diffMaps(before: Map<string, unknown>, after: Map<string, unknown>, path: string): string[] {
  const at = (key: string) => (path === '' ? key : `${path}.${key}`)
  const lines = [...new Set([...before.keys(), ...after.keys()])].flatMap((key) =>
    before.has(key) && after.has(key) ? diffValues(before.get(key), after.get(key), at(key))
      : [`${at(key)}: ${placeText(before, key)} in the checkpoint, ${placeText(after, key)} in the config`])
  const [orderBefore, orderAfter] = [[...before.keys()].join(', '), [...after.keys()].join(', ')]
  if (lines.length > 0 || orderBefore === orderAfter) return lines
  return [`${path}: in the order ${orderBefore} in the checkpoint, ${orderAfter} in the config`]
}

const placeText = (entries: Map<string, unknown>, key: string) =>
  (entries.has(key) ? valueText(entries.get(key)) : 'not')

/** A map, or a list of maps by their first entry; nothing else has keys. */
function keyed(value: unknown): Map<string, unknown> | undefined {
  if (isMap(value)) return new Map(Object.entries(value))
  if (!Array.isArray(value) || !value.every(isMap)) return undefined
  return new Map(value.map((item: Record<string, unknown>) => {
    const [[, name] = [], ...rest] = Object.entries(item)
    return [String(name), Object.fromEntries(rest)]
  }))
}

const valueText = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))
