// From what the schema fills in to what the program runs with: short forms written out, inherited settings copied to
// every column, and the checks that need two sections at once. A resolved config is itself a valid config and resolves
// to itself.
import { checkCluster } from './cluster.js'
import { checkColumns, checkSynth, resolveData } from './columns.js'
import { checkEmbedding } from './embedding.js'
import { resolveEarlyStopping, resolveSampling } from './evaluation.js'
import { resolveFeatures } from './features.js'
import { resolveInteraction, resolveTasks } from './model.js'
import type { Resolution } from './resolution.js'
import type { Config } from './resolved.js'
import type { FilledConfig } from './schema.js'

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
