// Resolves what the network takes from other sections: its inputs, and a task for each label.
import type { z } from 'zod'
import { unknownName } from './problems.js'
import type { Resolution } from './resolution.js'
import type { Config, FeatureColumn, LabelColumn, Task } from './resolved.js'
import type { FilledConfig } from './schema.js'
import { crossSchema } from './schema/model.js'

type Interaction = Pick<FilledConfig['model'], 'type' | 'cross' | 'bottom'>

/** What belongs to the model's type, filled in; anything that belongs to another one is refused. */
export function resolveInteraction({ type, cross, bottom }: Interaction, columns: Pick<Config, 'data' | 'features'>,
  resolution: Resolution): Pick<Interaction, 'cross' | 'bottom'> {
  if (cross && type !== 'dcn') resolution.refuse(['model', 'cross'], `belongs to model.type dcn, which is ${type} here`)
  if (bottom && type !== 'dlrm') {
    resolution.refuse(['model', 'bottom'], `belongs to model.type dlrm, which is ${type} here`)
  } else if (bottom && denseInputs(columns) === 0) {
    resolution.refuse(['model', 'bottom'], 'is for the dense columns, and data.dense has none; leave it out')
  }
  if (type === 'dcn') return { cross: resolveCross(cross ?? crossSchema.parse({}), columns, resolution) }
  if (type === 'ffnn') return {}
  checkOneDim(type, columns.features, resolution)
  if (type === 'deepfm') return {}
  const vectors = Object.values(columns.features.columns).reduce((sum, column) => sum + vectorsOf(column), 0)
  if (vectors + denseInputs(columns) < 2) {
    resolution.refuse(['model', 'type'],
      'dlrm multiplies features in pairs: it needs two id features, or one and dense columns')
  }
  return denseInputs(columns) === 0 ? {} : { bottom: bottom ?? [512, 256] }
}

function resolveCross(cross: z.output<typeof crossSchema>, { data, features }: Pick<Config, 'data' | 'features'>,
  resolution: Resolution): z.output<typeof crossSchema> {
  const width = Object.values(features.columns)
    .reduce((sum, column) => sum + column.dim * vectorsOf(column), denseInputs({ data, features }))
  if (cross.rank >= width) {
    resolution.refuse(['model', 'cross', 'rank'], `expected less than the ${width} columns of the input (all dims and `
      + `dense columns), got ${cross.rank}; 0 is the full matrix`)
  }
  return cross
}

/** Vectors that are multiplied with each other have one dim. */
function checkOneDim(type: string, { columns }: Config['features'], resolution: Resolution): void {
  const [[firstName, first] = ['', undefined], ...rest] = Object.entries(columns)
  const others = rest.filter(([, { dim }]) => dim !== first?.dim)
  if (others.length === 0) return
  resolution.refuse(['model', 'type'], `${type} needs all features of one dim; ${firstName} has ${first?.dim}, `
    + others.map(([name, { dim }]) => `${name} ${dim}`).join(', '))
}

/** What the network takes in beside embeddings: the dense columns, and the masks of sequences. */
function denseInputs({ data, features }: Pick<Config, 'data' | 'features'>): number {
  const masks = Object.values(features.columns).map(({ mask, sequenceLength = 0 }) => (mask ? sequenceLength : 0))
  return masks.reduce((sum, places) => sum + places, data.dense.length)
}

/** Vectors of a sample in the input of the dense network. */
const vectorsOf = ({ pooling, sequenceLength = 1 }: FeatureColumn) => (pooling === 'none' ? sequenceLength : 1)

/** One task for each label, in the order of the labels. */
export function resolveTasks(written: Task[] | undefined, labels: LabelColumn[], resolution: Resolution): Task[] {
  const names = [...new Set(labels.map(({ column }) => column))]
  if (!written) {
    names.forEach((_, index) => resolution.note(['model', 'tasks', index, 'label'], { derived: 'data.labels' }))
    return names.map((label) => ({ label, loss: 'bce', weight: 1, positiveWeight: 1 }))
  }
  const taskOf = new Map<string, number>()
  written.forEach(({ label, loss, positiveWeight }, index) => {
    const path = ['model', 'tasks', index, 'label']
    if (loss !== 'bce' && positiveWeight !== 1) {
      resolution.refuse([...path.slice(0, -1), 'positiveWeight'], `only bce has positive samples, the loss is ${loss}`)
    }
    const task = taskOf.get(label)
    if (!names.includes(label)) resolution.problems.push(unknownName(path, 'a label of data.labels', label, names))
    else if (task !== undefined) resolution.refuse(path, `${label} already has a task (model.tasks.${task})`)
    else taskOf.set(label, index)
  })
  const without = names.filter((name) => !taskOf.has(name))
  if (without.length > 0 && resolution.problems.every(({ path }) => path[1] !== 'tasks')) {
    resolution.refuse(['model', 'tasks'],
      `no task for ${without.join(', ')}; add { label: ${without[0]} }, or leave it out of data.labels`)
  }
  return names.flatMap((name, index) => {
    const from = taskOf.get(name)
    if (from === undefined) return []
    for (const key of ['label', 'loss', 'weight', 'positiveWeight']) {
      resolution.note(['model', 'tasks', index, key], { from: ['model', 'tasks', from, key] })
    }
    return [written[from]!]
  })
}
