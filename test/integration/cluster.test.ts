// Clusters of processes on real data: they learn what one process learns, and their checkpoints are the same.
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { folder } from '../ts/folders.js'
import { adult, checkSameWeights, persia, small, twoOfEach, type Event } from './cluster-fixtures.js'

t.setTimeout(600_000)

const aucOf = (events: Event[]) => {
  const { auc } = events.filter(({ event }) => event === 'eval').at(-1) as unknown as { auc: { income: number } }
  return auc.income
}

t.test('a cluster of two of each role reaches the AUC of one process, with the same output', async (t) => {
  const runs = folder(t)
  const alone = persia(['train', ...small(join(runs, 'alone')), '--json'])
  t.equal(alone.status, 0, alone.stderr)
  const cluster = persia(['launch', ...small(join(runs, 'cluster'), twoOfEach), '--json'])
  t.equal(cluster.status, 0, cluster.stderr)
  const [expected, auc] = [aucOf(alone.events), aucOf(cluster.events)]
  t.ok(expected > 0.88 && Math.abs(auc - expected) < 0.002, `AUC ${auc}, in one process ${expected}`)
  for (const kind of ['progress', 'eval', 'done']) {
    const keys = (events: Event[]) => Object.keys(events.filter(({ event }) => event === kind).at(-1) ?? {})
    t.same(keys(cluster.events), keys(alone.events), kind)
  }
  t.match(cluster.events.at(-1), { event: 'done', steps: 64, checkpoint: join(runs, 'cluster', '64') })
  t.ok(cluster.stdout.trim().split('\n').every((line) => line.startsWith('{')), 'standard output carries JSON lines only')
  for (const name of ['coordinator', 'parameter-server-1', 'embedding-worker-1', 'nn-worker-1', 'data-loader-0']) {
    t.match(cluster.stderr, new RegExp(`^[\\d:.]+ ${name} +\\| `, 'm'), 'the log says which role')
  }

  const evaluated = persia(['eval', ...small(join(runs, 'cluster'), twoOfEach), '--json'])
  t.equal(evaluated.status, 0, evaluated.stderr)
  t.ok(Math.abs(aucOf(evaluated.events) - auc) < 1e-6, 'one process evaluates the checkpoint of a cluster')

  // The checkpoint of two parameter servers goes on with one and with three.
  for (const parameterServers of [1, 3]) {
    const run = join(runs, `with ${parameterServers}`)
    const more = persia(['launch', ...small(run, { 'cluster.parameterServers': parameterServers, epochs: 3 }), '--json',
      '--resume', join(runs, 'cluster', '64')])
    t.match(more.events.at(-1), { event: 'done', steps: 96 }, more.stderr)
    t.ok(aucOf(more.events) > 0.88)
  }
})

const sync = { mode: 'sync', epochs: 1, 'model.optimizer': { type: 'sgd', lr: 0.05 } }

t.test('in sync mode a cluster ends with the weights of one process', async (t) => {
  const runs = folder(t)
  const never = { ...sync, 'checkpoint.resume': 'never' }
  t.equal(persia(['train', ...small(join(runs, 'alone'), never)]).status, 0)
  const outcome = persia(['launch', ...small(join(runs, 'cluster'), { ...never, ...twoOfEach })])
  t.equal(outcome.status, 0, outcome.stderr)
  await sameModel(t, join(runs, 'alone', '32'), join(runs, 'cluster', '32'))
})

t.test('several data loaders train on every row once an epoch, in the order of one, also when a run is resumed', async (t) => {
  const runs = folder(t)
  const shuffled = {
    ...sync, epochs: 2, 'data.shuffle': { buffer: 4096 },
    'features.columns.workclass': { pooling: 'none', sequenceLength: 2, mask: true },
  }
  t.equal(persia(['train', ...small(join(runs, 'alone'), shuffled)]).status, 0)
  // Shares of 11, 11 and 10 batches.
  const three = { ...shuffled, ...twoOfEach, 'cluster.dataLoaders': 3, 'checkpoint.everySteps': 13, 'checkpoint.keep': 10 }
  const outcome = persia(['launch', ...small(join(runs, 'cluster'), three), '--json'])
  t.equal(outcome.status, 0, outcome.stderr)
  t.match(outcome.events.filter(({ event }) => event === 'progress').at(-1), { step: 64, samples: 2 * 32_561 })
  await sameModel(t, join(runs, 'alone', '64'), join(runs, 'cluster', '64'))

  // From the middle of each epoch, with another number of them.
  for (const [dataLoaders, step] of [[2, 13], [3, 39]] as const) {
    const run = join(runs, `from ${step}`)
    const resumed = persia(['launch', '--resume', join(runs, 'cluster', String(step)), '--json',
      ...small(run, { ...three, 'cluster.dataLoaders': dataLoaders, 'checkpoint.everySteps': 0 })])
    t.match(resumed.events.at(-1), { event: 'done', steps: 64 }, resumed.stderr)
    await sameModel(t, join(runs, 'alone', '64'), join(run, '64'))
  }
})

t.test('in hybrid mode several data loaders reach the AUC of one process', async (t) => {
  const runs = folder(t)
  const alone = persia(['train', ...small(join(runs, 'alone')), '--json'])
  const outcome = persia(['launch', ...small(join(runs, 'cluster'), { ...twoOfEach, 'cluster.dataLoaders': 2 }), '--json'])
  t.equal(outcome.status, 0, outcome.stderr)
  const [expected, auc] = [aucOf(alone.events), aucOf(outcome.events)]
  t.ok(expected > 0.88 && Math.abs(auc - expected) < 0.002, `AUC ${auc}, in one process ${expected}`)
  t.match(outcome.stderr, /^[\d:.]+ data-loader-1 +\| answered \d+ requests/m)
})

/** Two checkpoints have the same model, to 1e-5. */
async function sameModel(t: Test, alone: string, cluster: string): Promise<void> {
  t.same(readdirSync(cluster).filter((name) => !name.startsWith('embedding')),
    readdirSync(alone).filter((name) => !name.startsWith('embedding')))
  await checkSameWeights(t, alone, cluster, gunzipSync(readFileSync(join(adult, '..', 'train.csv.gz'))).toString())
}
