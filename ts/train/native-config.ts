// From the resolved config to what the addon takes: flat, every field given. What is decided here is how capacity is
// shared out over the tables: there is one for each row class, which is all features of equal dim and optimizer.
import type { Config } from '../config/index.js'
import { bytesOf } from '../config/byte-size.js'
import type { BatchLayout } from '../data/batch.js'
import type { NativeFeature, NativeTable, NativeTrainerConfig } from '../native-types.js'

/** Spans that a trace keeps, of about 100 bytes each. */
const traceSpans = 40_000

/** Of each stage, the last so many steps: `prepare`, and `lookup`, `train` and `apply` of each NN worker. */
const spansPerStage = (nnWorkers: number) => Math.floor(traceSpans / (1 + 3 * nnWorkers))

export function nativeConfig(config: Config, { trace = false } = {}): NativeTrainerConfig {
  const { embedding, model } = config
  const features = nativeFeatures(config)
  return {
    seed: config.seed,
    mode: config.mode,
    nnWorkers: config.cluster.nnWorkers,
    accumulate: config.accumulate,
    lossScaling: nativeLossScaling(model.lossScaling),
    traceSpans: trace ? spansPerStage(config.cluster.nnWorkers) : 0,
    ...schedule(config),
    deterministic: config.deterministic,
    prefixBits: config.features.prefixBits,
    embeddingClipNorm: embedding.clipNorm,
    features,
    embedding: {
      storage: embedding.storage,
      init: embedding.init,
      admitProbability: embedding.admit > 1 ? 1 : embedding.admit,
      admitFrequency: embedding.admit > 1 ? embedding.admit : 1,
      eviction: embedding.eviction,
      timeToLiveMs: Math.ceil(embedding.timeToLiveSeconds * 1000),
      weightBound: embedding.weightBound,
      tables: nativeTables(embedding, features),
    },
    model: {
      type: model.type,
      denseCount: config.data.dense.length,
      threads: config.threads,
      precision: model.precision,
      hidden: model.hidden,
      ...(model.cross && { cross: model.cross }),
      ...(model.type === 'dlrm' && { bottom: model.bottom ?? [] }),
      tasks: model.tasks.map((task) => ({ ...task, keptNegatives: keptNegatives(config, task.label) })),
      optimizer: withBetas(model.optimizer),
      schedule: model.schedule,
    },
  }
}

/** How far behind lookups may be, and whether that is a bound alone. */
function schedule({ staleness, lookahead, deterministic }: Config) {
  if (lookahead !== 'auto') return { staleness: lookahead, justInTime: false }
  return { staleness: deterministic ? Math.min(staleness, 1) : staleness, justInTime: !deterministic }
}

const dynamicDefaults = { initial: 65536, growthInterval: 2000, growth: 2, backoff: 0.5 }

function nativeLossScaling(setting: Config['model']['lossScaling']): NativeTrainerConfig['lossScaling'] {
  const dynamic = typeof setting === 'object' || setting === 'dynamic'
  const { initial, ...settings } = typeof setting === 'object' ? setting : dynamicDefaults
  const scale = dynamic ? initial : setting === 'off' ? 1 : setting
  return { scale, dynamic, ...settings }
}

/** The share of the negatives of a label that training sees. */
function keptNegatives({ data: { negativeSampling } }: Config, label: string): number {
  return negativeSampling?.label === label ? negativeSampling.keep : 1
}

/** The row optimizer of everything, then those that feature groups have for themselves. */
function rowOptimizers({ optimizer, groupOptimizer }: Config['embedding']): object[] {
  return [optimizer, ...Object.values(groupOptimizer)]
}

/** In the order of the embedding matrix; `optimizer` is the place in `rowOptimizers`. */
export function nativeFeatures({ features, embedding }: Config): NativeFeature[] {
  const groupOf = new Map(features.groups.flatMap((names, group) => names.map((name) => [name, group] as const)))
  const optimizerOf = new Map(Object.keys(embedding.groupOptimizer).map((name, i) => [groupOf.get(name)!, i + 1]))
  return Object.entries(features.columns)
    .map(([name, { dim, pooling, sequenceLength = 0, hashStack, frozen = false }]) => ({
      name, dim, pooling, group: groupOf.get(name)!, sequenceLength, frozen,
      hashRounds: hashStack?.rounds ?? 0, hashBuckets: hashStack?.buckets ?? 0,
      optimizer: optimizerOf.get(groupOf.get(name)!) ?? 0,
    }))
}

/** One for each row class, in the order of its first feature, as the addon numbers them. */
export function nativeTables(
  embedding: Config['embedding'], features: NativeFeature[],
): NativeTable[] {
  const { capacity, groupCapacity } = embedding
  const floats = features.reduce((sum, { dim }) => sum + dim, 0)
  const bytes = typeof capacity === 'string' ? bytesOf(capacity) : 0
  return rowClasses(features).map((members) => {
    const { dim, optimizer } = members[0]!
    const groups = new Set(members.map(({ group }) => group))
    const groupRows = Object.entries(groupCapacity)
      .map(([name, rows]) => ({ group: features.find((feature) => feature.name === name)!.group, rows }))
    return {
      dim,
      optimizer: withBetas(rowOptimizers(embedding)[optimizer]!),
      capacityRows: typeof capacity === 'number' ? capacity : 0,
      capacityBytes: bytes === 0 ? 0 : Math.max(1, Math.floor(bytes * (dim * members.length / floats))),
      groupCapacities: groupRows.filter(({ group }) => groups.has(group)),
    }
  })
}

/** The features of each row class, in the order of the addon. */
export function rowClasses<T extends { dim: number; optimizer: number }>(features: T[]): T[][] {
  const keyOf = ({ dim, optimizer }: T) => `${dim} ${optimizer}`
  return [...new Set(features.map(keyOf))].map((key) => features.filter((feature) => keyOf(feature) === key))
}

function withBetas(optimizer: object): object {
  if (!('betas' in optimizer)) return optimizer
  const [beta1, beta2] = optimizer.betas as [number, number]
  return { ...optimizer, beta1, beta2 }
}

/** The columns of a batch in the order of the model. */
export function layoutOf(config: Config): BatchLayout {
  return {
    features: Object.keys(config.features.columns),
    dense: config.data.dense.map(({ column }) => column),
    labels: config.data.labels.map(({ column }) => column),
  }
}

/** Samples that one step trains on: what a batch of the training data has. */
export function samplesPerStep({ batchSize, accumulate, cluster }: Config): number {
  return batchSize * accumulate * cluster.nnWorkers
}
