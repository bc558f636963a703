// From what the schema fills in to what the program runs with: short forms written out, inherited settings copied to
// every column, and the checks that need two sections at once. A resolved config is itself a valid config and resolves
// to itself.
import { checkCluster } from './cluster.js'
import { resolveEarlyStopping, resolveSampling, type EarlyStopping, type NegativeSampling } from './evaluation.js'
import { invalid, unknownName, type Problem } from './problems.js'
import { pathText, type Path } from './path.js'
import { resolveSource, type Source } from './source.js'
import { resolveSplit, type Split } from './split.js'
import { crossSchema, type FilledConfig } from './schema.js'
import type { z } from 'zod'

export interface LabelColumn {
  column: string
  /** The text that means 1. Without it the column holds numbers. */
  positive?: string
}

export interface DenseColumn {
  column: string
  transform: 'none' | 'log1p' | 'standardize'
  /** A raw value that stands for a missing one, or `auto`: 0 after the transform. */
  missing: number | 'auto'
}

export interface FeatureColumn {
  /** Where it is read from, if that is not the column of its name. */
  column?: string
  /** The bytes of a text that count: from, to. */
  slice?: [number, number]
  dim: number
  pooling: 'sum' | 'mean' | 'sqrt' | 'last' | 'none'
  encoding: 'hash' | 'integer'
  separator?: string
  sequenceLength?: number
  mask?: boolean
  hashStack?: { rounds: number; buckets: number }
  frozen?: boolean
}

/** What the network takes in beside embeddings: the dense columns, and the masks of sequences. */
function denseInputs({ data, features }: Pick<Config, 'data' | 'features'>): number {
  const masks = Object.values(features.columns).map(({ mask, sequenceLength = 0 }) => (mask ? sequenceLength : 0))
  return masks.reduce((sum, places) => sum + places, data.dense.length)
}

/** Vectors of a sample in the input of the dense network. */
export const vectorsOf = ({ pooling, sequenceLength = 1 }: FeatureColumn) => (pooling === 'none' ? sequenceLength : 1)

export interface Task {
  label: string
  loss: 'bce' | 'mse'
  weight: number
  positiveWeight: number
}

/** The config that everything runs with: plain JSON, nothing left to derive. */
export interface Config extends Omit<FilledConfig, 'data' | 'features' | 'model' | 'evaluate'> {
  data: Omit<FilledConfig['data'], 'train' | 'test' | 'split' | 'labels' | 'dense' | 'negativeSampling'> & {
    train?: Source
    /** With a split, the same as `train`. */
    test?: Source
    split?: Split
    labels: LabelColumn[]
    dense: DenseColumn[]
    negativeSampling?: NegativeSampling
  }
  features: Omit<FilledConfig['features'], 'columns' | 'groups'> & {
    /** In the order of the embedding matrix: the order of its keys. */
    columns: Record<string, FeatureColumn>
    /** Every feature is in exactly one; the place of a group is its number. */
    groups: string[][]
  }
  model: Omit<FilledConfig['model'], 'tasks'> & {
    /** Task i predicts label i. */
    tasks: Task[]
  }
  evaluate: Omit<FilledConfig['evaluate'], 'earlyStopping'> & { earlyStopping?: EarlyStopping }
}

/** Where a resolved value comes from when that is not its own path: another path, or a reason. */
export type Origin = { from: Path } | { derived: string }

/** Collects what is wrong, and where resolved values come from (by the text of their path). */
export class Resolution {
  readonly problems: Problem[] = []
  readonly origins = new Map<string, Origin>()

  refuse(path: Path, message: string): void {
    this.problems.push(invalid(path, message))
  }

  note(path: Path, origin: Origin): void {
    this.origins.set(pathText(path), origin)
  }
}

export function resolveConfig(filled: FilledConfig, resolution: Resolution): Config {
  const data = resolveData(filled.data, resolution)
  const features = resolveFeatures(filled.features, resolution)
  checkColumns({ data, features }, resolution)
  checkSynth(data, resolution)
  checkEmbedding(filled, features.groups, resolution)
  const { negativeSampling, ...dataRest } = data
  const { type, hidden, cross, bottom, tasks, ...modelRest } = filled.model
  const model = {
    type, hidden, ...resolveInteraction({ type, cross, bottom }, { data: dataRest, features }, resolution),
    tasks: resolveTasks(tasks, data.labels, resolution), ...modelRest,
  }
  const { earlyStopping: _, ...evaluateRest } = filled.evaluate
  const sampling = negativeSampling && resolveSampling(negativeSampling, model.tasks, resolution)
  const stopping = resolveEarlyStopping(filled.evaluate, features, model.tasks, resolution)
  const config: Config = {
    ...filled,
    data: { ...dataRest, ...(sampling && { negativeSampling: sampling }) },
    features,
    model,
    evaluate: { ...evaluateRest, ...(stopping && { earlyStopping: stopping }) },
  }
  checkWorkers(config, resolution)
  checkCluster(config, resolution)
  if (config.mode === 'sync' && config.staleness !== 0) {
    config.staleness = 0
    resolution.note(['staleness'], { derived: 'mode: sync' })
  }
  checkLookahead(config, resolution)
  return config
}

function checkLookahead({ mode, staleness, lookahead }: Config, resolution: Resolution): void {
  if (lookahead === 'auto' || lookahead <= staleness) return
  resolution.refuse(['lookahead'], `expected auto or at most the staleness (${staleness}`
    + `${mode === 'sync' ? ' in mode sync' : ''}), got ${lookahead}`)
}

const mostSamples = 2 ** 24

function checkWorkers(
  { mode, deterministic, batchSize, accumulate, cluster: { nnWorkers } }: Config, resolution: Resolution,
): void {
  if (mode === 'async' && deterministic && nnWorkers > 1) {
    resolution.refuse(['deterministic'], 'several NN workers in mode async come in no fixed order, so no two runs are '
      + 'alike; use mode hybrid or sync, cluster.nnWorkers: 1, or deterministic: false')
  }
  const samples = batchSize * accumulate * nnWorkers
  if (samples > mostSamples) {
    resolution.refuse(['batchSize'], `expected at most ${mostSamples} samples a step, got batchSize ${batchSize} × `
      + `accumulate ${accumulate} × cluster.nnWorkers ${nnWorkers} = ${samples}`)
  }
}

/** Without the keys whose value is undefined: in TypeScript that is a way to leave a key out. */
function defined<T extends object>(map: T): T {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined)) as T
}

// ---- columns

function resolveData({ train, test, split, ...written }: FilledConfig['data'], resolution: Resolution) {
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
function checkColumns(
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
function checkSynth({ train, dense, negativeSampling }: ReturnType<typeof resolveData>, resolution: Resolution): void {
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

// ---- features

function resolveFeatures(written: FilledConfig['features'], resolution: Resolution): Config['features'] {
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

// ---- embedding

function checkEmbedding(
  { embedding, features, deterministic }: FilledConfig, groups: string[][], resolution: Resolution,
): void {
  for (const [key, what] of [['groupCapacity', 'capacity'], ['groupOptimizer', 'optimizer']] as const) {
    checkGroupNames(Object.keys(embedding[key]), ['embedding', key], what, features, groups, resolution)
  }
  if (deterministic && embedding.timeToLiveSeconds > 0) {
    resolution.refuse(['embedding', 'timeToLiveSeconds'],
      'rows that age by the clock make no two runs alike; leave it out, or set deterministic: false')
  }
}

/** Settings of groups, each named by one of its features. */
function checkGroupNames(names: string[], at: Path, what: string, { columns }: FilledConfig['features'],
  groups: string[][], resolution: Resolution): void {
  const namedBy = new Map<string[], string>()
  for (const name of names) {
    const path = [...at, name]
    const group = groups.find((members) => members.includes(name))
    const other = group && namedBy.get(group)
    if (!group) {
      resolution.problems.push(unknownName(path, 'a column of features.columns', name, Object.keys(columns)))
    } else if (other !== undefined) {
      const first = pathText([...at, other])
      resolution.refuse(path, `${name} is in one group with ${other}, which has its ${what} already (${first})`)
    } else {
      namedBy.set(group, name)
    }
  }
}

// ---- model

type Interaction = Pick<FilledConfig['model'], 'type' | 'cross' | 'bottom'>

/** What belongs to the model's type, filled in; anything that belongs to another one is refused. */
function resolveInteraction({ type, cross, bottom }: Interaction, columns: Pick<Config, 'data' | 'features'>,
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

// ---- tasks

/** One task for each label, in the order of the labels. */
function resolveTasks(written: Task[] | undefined, labels: LabelColumn[], resolution: Resolution): Task[] {
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
