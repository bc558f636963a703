// Accuracy of hybrid against sync: trains one config in both modes with paired seeds and compares the test AUC.
//
//   node bench/modes.mjs [--config FILE] [--seeds 5] [--staleness 8] [--set key=value …]
//
// Prints a line a run, then the means and the difference with its 95 % interval (paired t).
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
    staleness: { type: 'string', default: '8' },
    set: { type: 'string', multiple: true, default: [] },
  },
})
const runs = mkdtempSync(join(tmpdir(), 'persia-modes-'))
process.on('exit', () => rmSync(runs, { recursive: true, force: true }))

/** Trains once; AUC of the first label after each epoch. */
function train(mode, seed) {
  const settings = [`mode=${mode}`, `staleness=${values.staleness}`, `seed=${seed}`,
    `checkpoint.dir=${join(runs, `${mode}-${seed}`)}`, ...values.set]
  const { status, stdout, stderr } = spawnSync(process.execPath,
    [join(root, 'dist/cli/main.js'), 'train', '--json', '--config', values.config,
      ...settings.flatMap((setting) => ['--set', setting])],
    { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${mode}, seed ${seed}: exit code ${status}\n${stderr}`)
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line))
  rmSync(join(runs, `${mode}-${seed}`), { recursive: true })
  const auc = events.filter(({ event }) => event === 'eval').map((event) => Object.values(event.auc)[0])
  console.log(`${mode.padEnd(6)}  seed ${seed}  AUC by epoch ${auc.map((value) => value.toFixed(5)).join(' ')}  `
    + `${events.at(-1).samplesPerSecond} samples/s`)
  return auc.at(-1)
}

// Two-sided 95 % quantiles of Student's t by degrees of freedom.
const t95 = [NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]
const mean = (all) => all.reduce((sum, value) => sum + value, 0) / all.length

const seeds = Array.from({ length: Number(values.seeds) }, (_, i) => i + 1)
const pairs = seeds.map((seed) => ({ sync: train('sync', seed), hybrid: train('hybrid', seed) }))
const differences = pairs.map(({ sync, hybrid }) => hybrid - sync)
const difference = mean(differences)
const deviation = Math.sqrt(differences.reduce((sum, d) => sum + (d - difference) ** 2, 0) / (differences.length - 1))
const interval = (t95[differences.length - 1] ?? 1.96) * deviation / Math.sqrt(differences.length)
console.log(`sync   mean AUC ${mean(pairs.map(({ sync }) => sync)).toFixed(5)}`)
console.log(`hybrid mean AUC ${mean(pairs.map(({ hybrid }) => hybrid)).toFixed(5)}  (staleness ${values.staleness})`)
console.log(`difference ${difference.toFixed(5)} ± ${interval.toFixed(5)} (95 %)`)
