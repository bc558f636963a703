// A cluster over RDMA: `persia launch` in a virtual machine with soft-RoCE (ci/rdma-guest) learns what one process learns
// on this machine. ci/rdma-test runs it, once it has what the guest needs.
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { folder } from '../ts/folders.js'
import { adult, checkSameWeights, eventsOf, main, persia, root } from '../integration/cluster-fixtures.js'

t.setTimeout(600_000)

const config = `
mode: sync
batchSize: 64
epochs: 1
threads: 2
data:
  train: { path: train.csv }
  labels: [{ column: income, positive: '>50K' }]
  dense: [age, education_num]
  transform: standardize
  missing: ['', '?']
features: { defaults: { dim: 8 }, columns: { workclass: , education: , occupation: } }
embedding: { optimizer: { type: adagrad, lr: 0.05 } }
model: { hidden: [32, 16], optimizer: { type: sgd, lr: 0.05 } }
checkpoint: { resume: never }
cluster: { joinTimeoutSeconds: 500 }
`

t.test('two parameter servers over rdma end with the weights of one process', async (t) => {
  const run = folder(t)
  const csv = gunzipSync(readFileSync(join(adult, '..', 'train.csv.gz'))).toString().split('\n').slice(0, 513).join('\n')
  writeFileSync(join(run, 'train.csv'), csv)
  writeFileSync(join(run, 'persia.yml'), config)

  const alone = persia(['train', '--config', join(run, 'persia.yml'), '--set', `checkpoint.dir=${join(run, 'alone')}`])
  t.equal(alone.status, 0, alone.stderr)

  // The run's folder is /mnt/out in the guest.
  const command = `${process.execPath} ${main} launch --json --config /mnt/out/persia.yml --set checkpoint.dir=/tmp/cluster `
    + '--set cluster.transport=rdma --set cluster.parameterServers=2 && cp -r /tmp/cluster /mnt/out'
  const { status, stdout, stderr } = spawnSync(join(root, 'ci/rdma-guest'), ['bash', '-c', command],
    { cwd: root, encoding: 'utf8', env: { ...process.env, RDMA_OUT: run, RDMA_LIMIT: '560' } })
  const lines = stdout.replaceAll('\r', '')
  if (status !== 0) t.comment(lines + stderr)
  t.equal(status, 0)
  t.match(eventsOf(lines).at(-1), { event: 'done', steps: 8 })

  const carried = [...lines.matchAll(/ (\S+) +\| answered .*, over (.*)$/gm)].map(([, role, carriers]) => `${role}: ${carriers}`)
  for (const line of carried) t.comment(line)
  t.same(carried.sort(), ['embedding-worker-0', 'nn-worker-0', 'parameter-server-0', 'parameter-server-1']
    .map((role) => `${role}: rdma (rxe0:1), because it was asked for`))
  await checkSameWeights(t, join(run, 'alone', '8'), join(run, 'cluster', '8'), csv)
})
