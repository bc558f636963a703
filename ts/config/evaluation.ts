// Resolves what evaluation and negative sampling take from other sections: whose metric stops the run, whose negatives
// are left out.
import type { Path } from './path.js'
import { unknownName } from './problems.js'
import type { Resolution } from './resolution.js'
import type { Config, Task } from './resolved.js'
import type { FilledConfig } from './schema.js'

export interface NegativeSampling {
  keep: number
  label: string
}

export interface EarlyStopping {
  metric: string
  /** Left out for a metric of your own. */
  label?: string
  mode: 'max' | 'min'
  patience: number
  minChange: number
}

/** The metrics by label, with what is better and the loss of the tasks that have them. */
export const builtInMetrics = {
  auc: { mode: 'max', loss: 'bce' },
  gauc: { mode: 'max', loss: 'bce' },
  logloss: { mode: 'min', loss: 'bce' },
  mse: { mode: 'min', loss: 'mse' },
} as const

export type BuiltInMetric = keyof typeof builtInMetrics

export const isBuiltIn = (metric: string): metric is BuiltInMetric => Object.hasOwn(builtInMetrics, metric)

export function resolveSampling({ keep, label }: NonNullable<FilledConfig['data']['negativeSampling']>, tasks: Task[],
  resolution: Resolution): NegativeSampling | undefined {
  const path = ['data', 'negativeSampling', 'label']
  const names = labelsWith('bce', tasks)
  if (label === undefined && names.length !== 1) {
    const which = names.length === 0 ? 'there is no bce task' : `name one of the labels ${names.join(', ')}`
    resolution.refuse(path, `whose negatives are meant? ${which}`)
  }
  const chosen = checkedLabel(label, names, path, 'the label of a bce task', resolution)
  return chosen === undefined ? undefined : { keep, label: chosen }
}

export function resolveEarlyStopping({ earlyStopping, groupBy }: FilledConfig['evaluate'],
  { columns }: Config['features'], tasks: Task[], resolution: Resolution): EarlyStopping | undefined {
  if (groupBy !== undefined) checkGroupBy(groupBy, Object.keys(columns), tasks, resolution)
  if (!earlyStopping) return undefined
  const path = ['evaluate', 'earlyStopping']
  const { metric, label, mode, patience, minChange } = earlyStopping
  if (!isBuiltIn(metric)) return ownMetric(earlyStopping, path, resolution)
  if (metric === 'gauc' && groupBy === undefined) {
    resolution.refuse([...path, 'metric'], 'gauc needs evaluate.groupBy, the id column of its groups')
  }
  const { loss, mode: usual } = builtInMetrics[metric]
  const names = labelsWith(loss, tasks)
  if (label === undefined && names.length === 0) {
    resolution.refuse([...path, 'metric'], `no label has a task with loss ${loss}, so there is no ${metric}`)
  }
  const chosen = checkedLabel(label, names, [...path, 'label'], `the label of a task with loss ${loss}`, resolution)
  if (mode === undefined) resolution.note([...path, 'mode'], { derived: `metric: ${metric}` })
  return { metric, ...(chosen !== undefined && { label: chosen }), mode: mode ?? usual, patience, minChange }
}

function checkGroupBy(groupBy: string, columns: string[], tasks: Task[], resolution: Resolution): void {
  const path = ['evaluate', 'groupBy']
  if (!columns.includes(groupBy)) {
    resolution.problems.push(unknownName(path, 'a column of features.columns', groupBy, columns))
  }
  if (labelsWith('bce', tasks).length > 0) return
  resolution.refuse(path, 'groups are for the AUC of labels whose task has loss bce, and there are none; leave it out')
}

function ownMetric({ metric, label, mode, patience, minChange }: NonNullable<FilledConfig['evaluate']['earlyStopping']>,
  path: Path, resolution: Resolution): EarlyStopping | undefined {
  if (mode === undefined) {
    const problem = unknownName([...path, 'metric'], 'a metric that is known', metric, Object.keys(builtInMetrics))
    const message = `${problem.message} (a metric of your own needs mode: max or min beside it)`
    resolution.problems.push({ ...problem, message })
    return undefined
  }
  if (label !== undefined) resolution.refuse([...path, 'label'], `${metric} is a metric of your own; it has no label`)
  return { metric, mode, patience, minChange }
}

const labelsWith = (loss: Task['loss'], tasks: Task[]) =>
  tasks.filter((task) => task.loss === loss).map(({ label }) => label)

/** The label, or the first of `names`, if it is one of them. */
function checkedLabel(label: string | undefined, names: string[], path: Path, what: string, resolution: Resolution):
string | undefined {
  if (label === undefined) {
    resolution.note(path, { derived: 'model.tasks' })
    return names[0]
  }
  if (names.includes(label)) return label
  resolution.problems.push(unknownName(path, what, label, names))
  return undefined
}
