// Accuracy of hybrid and async against sync: trains one config in several ways with paired seeds and compares the test
// AUC of the first label.
//
//   node bench/modes.mjs [--config FILE] [--seeds 5] [--staleness 1,4,8,16] [--workers 2,4] [--batch 1024]
//                       [--set key=value …]
//
// sync and hybrid run with one NN worker, hybrid once for each staleness; async with each number of workers and the
// last staleness. A step has --batch samples in all of them: a worker of n gets one n-th. async makes an update of the
// dense weights for each of these parts, n times as many as sync; so it is compared with sync in batches of their size,
// which makes as many. --workers '' leaves async out. Prints a line a run, then each way's mean and its difference from
// sync with the 95 % interval (paired t).
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const root = new URL('..', import.meta.url).pathname
const { values } = parseArgs({
  options: {
    config: { type: 'string', default: join(root, 'examples/adult-income/persia.yml') },
    seeds: { type: 'string', default: '5' },
    staleness: { type: 'string', default: '1,4,8,16' },
    workers: { type: 'string', default: '2,4' },
    batch: { type: 'string', default: '1024' },
    set: { type: 'string', multiple: true, default: [] },
  },
})
const runs = mkdtempSync(join(tmpdir(), 'persia-modes-'))
process.on('exit', () => rmSync(runs, { recursive: true, force: true }))

/** Trains once; AUC of the first label after the last epoch. */
function train({ name, settings }, seed) {
  const all = [...settings, `seed=${seed}`, `checkpoint.dir=${join(runs, 'run')}`, ...values.set]
  const { status, stdout, stderr } = spawnSync(process.execPath,
    [join(root, 'dist/cli/main.js'), 'train', '--json', '--config', values.config,
      ...all.flatMap((setting) => ['--set', setting])],
    { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${name}, seed ${seed}: exit code ${status}\n${stderr}`)
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line))
  rmSync(join(runs, 'run'), { recursive: true })
  const auc = events.filter(({ event }) => event === 'eval').map((event) => Object.values(event.auc)[0])
  const { samplesPerSecond, staleness } = events.at(-1)
  const dense = staleness.dense ? `, dense weights ${staleness.dense.mean}` : ''
  console.log(`${name.padEnd(24)}  seed ${seed}  AUC by epoch ${auc.map((value) => value.toFixed(5)).join(' ')}  `
    + `${samplesPerSecond} samples/s  stale: batches ${staleness.mean}, rows ${staleness.rows.mean}${dense}`)
  return auc.at(-1)
}

const numbers = (text) => text.split(',').filter(Boolean).map(Number)
const stalenesses = numbers(values.staleness), batch = Number(values.batch)
const ways = [
  { name: 'sync', settings: ['mode=sync', `batchSize=${batch}`] },
  ...stalenesses.map((staleness) => ({
    name: `hybrid, staleness ${staleness}`,
    settings: ['mode=hybrid', `staleness=${staleness}`, `batchSize=${batch}`],
  })),
  ...numbers(values.workers).flatMap((workers) => {
    const batchSize = `batchSize=${Math.round(batch / workers)}`, control = `sync, batch / ${workers}`
    const settings = ['mode=async', `staleness=${stalenesses.at(-1)}`, `cluster.nnWorkers=${workers}`, batchSize]
    return [
      { name: control, settings: ['mode=sync', batchSize] },
      { name: `async, ${workers} NN workers`, settings, against: control },
    ]
  }),
]

// Two-sided 95 % quantiles of Student's t by degrees of freedom.
const t95 = [NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]
const mean = (all) => all.reduce((sum, value) => sum + value, 0) / all.length

const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1)
const aucs = new Map(ways.map(({ name }) => [name, []]))
for (const seed of seeds) for (const way of ways) aucs.get(way.name).push(train(way, seed))
console.log()
for (const { name, against = 'sync' } of ways) {
  const all = aucs.get(name)
  const differences = all.map((auc, i) => auc - aucs.get(against)[i])
  const difference = mean(differences)
  const deviation = Math.sqrt(differences.reduce((sum, d) => sum + (d - difference) ** 2, 0) / (seeds.length - 1))
  const interval = (t95[seeds.length - 1] ?? 1.96) * deviation / Math.sqrt(seeds.length)
  const gap = name === against ? '' : `  against ${against}: ${difference.toFixed(5)} ± ${interval.toFixed(5)} (95 %)`
  console.log(`${name.padEnd(24)}  mean AUC ${mean(all).toFixed(5)}${gap}`)
}
