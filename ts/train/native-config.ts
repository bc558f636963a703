// From the resolved config to what the addon takes: flat, every field given, nothing decided here.
import type { Config } from '../config/index.js'
import type { BatchLayout } from '../data/batch.js'
import type { NativeTrainerConfig } from '../native-types.js'

export function nativeConfig(config: Config): NativeTrainerConfig {
  const { embedding, model } = config
  const groupOf = new Map(config.features.groups.flatMap((names, group) => names.map((name) => [name, group] as const)))
  return {
    seed: config.seed,
    staleness: config.staleness,
    deterministic: config.deterministic,
    prefixBits: config.features.prefixBits,
    features: Object.entries(config.features.columns).map(([name, { dim, pooling }]) =>
      ({ name, dim, pooling, group: groupOf.get(name)! })),
    embedding: {
      optimizer: withBetas(embedding.optimizer),
      init: embedding.init,
      capacity: embedding.capacity,
      admit: embedding.admit,
      weightBound: embedding.weightBound,
    },
    model: {
      denseCount: config.data.dense.length,
      threads: config.threads,
      hidden: model.hidden,
      tasks: model.tasks,
      optimizer: withBetas(model.optimizer),
      schedule: model.schedule,
    },
  }
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
