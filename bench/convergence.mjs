// Accuracy of the hybrid algorithm: trains the same networks in mode sync, hybrid and async with paired seeds and
// compares test AUC.
//
//   node bench/convergence.mjs [--data FOLDER] [--only NAME,…] [--seeds 5] [--jobs N] [--svg FILE] [--out FILE]
//
// FOLDER holds the data sets that the repository may not contain (bench/convergence/data-sets.mjs); without them
// adult-income alone is trained. Every run is a `persia train` of its own with one thread; N of them run at a time. A
// hybrid run is compared with the sync run of the same seed; a run of n workers in mode async makes as many updates of
// batches as large as a sync run. Prints a Markdown table; --svg draws it, --out appends a JSON line a run.
import { execFile } from 'node:child_process'
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { dataSets } from './convergence/data-sets.mjs'
import { estimate, plot } from './convergence/statistics.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values: options } = parseArgs({
  options: {
    data: { type: 'string', default: '' }, only: { type: 'string' }, seeds: { type: 'string', default: '5' },
    jobs: { type: 'string', default: String(availableParallelism()) }, svg: { type: 'string' }, out: { type: 'string' },
  },
})
const modes = [
  { label: 'sync', mode: 'sync' },
  ...[1, 4, 8, 16].map((staleness) => ({ label: `hybrid, staleness ${staleness}`, mode: 'hybrid', staleness })),
  ...[2, 4].map((workers) => ({ label: `async, ${workers} workers`, mode: 'async', staleness: 8, workers })),
]
const seeds = Array.from({ length: count('seeds') }, (_, i) => i + 1)
const folder = mkdtempSync(join(tmpdir(), 'persia-convergence-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const { found, missing } = dataSets(root, options.data)
if (missing.length > 0) console.error(`not found and left out: ${missing.join(', ')} (--data names their folder)`)
const wanted = options.only?.split(',')
const chosen = found.filter(([name]) => !wanted || wanted.includes(name))
if (chosen.length === 0) {
  console.error(`none of ${found.map(([name]) => name).join(', ')} was asked for`)
  process.exit(2)
}
const tasks = chosen.flatMap(([name, config]) =>
  seeds.flatMap((seed) => modes.map((mode) => ({ name, config, mode, seed }))))
const results = []
await Promise.all(Array.from({ length: count('jobs') }, work))
report()

function count(option) {
  const number = Number(options[option])
  if (Number.isInteger(number) && number > 0) return number
  console.error(`--${option}: ${options[option]} is no positive integer`)
  process.exit(2)
}

async function work() {
  for (let task = tasks.shift(); task; task = tasks.shift()) {
    const result = { ...await train(task), set: task.name, mode: task.mode.label, seed: task.seed }
    results.push(result)
    console.error(`${result.set}, ${result.mode}, seed ${result.seed}: AUC ${result.auc.toFixed(5)}`)
    if (options.out) appendFileSync(options.out, `${JSON.stringify({ bench: 'convergence', ...result })}\n`)
  }
}

async function train({ name, config, mode, seed }) {
  const run = join(folder, `${name}-${mode.label}-${seed}`.replaceAll(/\W+/g, '-'))
  const file = `${run}.yml`
  writeFileSync(file, JSON.stringify({
    ...config, name, seed, mode: mode.mode, threads: 1, checkpoint: { dir: run },
    ...mode.staleness && { staleness: mode.staleness }, ...mode.workers && { cluster: { nnWorkers: mode.workers } },
  }))
  const { stdout } = await promisify(execFile)(process.execPath,
    [join(root, 'dist/cli/main.js'), 'train', '--json', '--config', file], { maxBuffer: 1 << 26 })
  rmSync(run, { recursive: true, force: true })
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line))
  const { auc, logloss } = events.findLast(({ event }) => event === 'eval')
  const { samplesPerSecond } = events.find(({ event }) => event === 'done')
  return { auc: Object.values(auc)[0], logloss: Object.values(logloss)[0], samplesPerSecond }
}

function report() {
  const panels = chosen.map(([name]) => ({ name, points: modes.map((mode) => summary(name, mode.label)) }))
  const cell = ({ mean, interval }) => `${mean.toFixed(5)} ± ${interval.toFixed(5)}`
  console.log(`| data set | mode | test AUC | − sync, same seed |\n|---|---|---|---|`)
  for (const { name, points } of panels) {
    for (const { label, auc, ...gap } of points) {
      console.log(`| ${name} | ${label} | ${cell(auc)} | ${label === 'sync' ? '' : cell(gap)} |`)
    }
  }
  const title = `Test AUC minus that of sync, ${seeds.length} paired seeds, 95 % intervals`
  const drawn = panels.map(({ name, points }) => ({ name, points: points.filter(({ label }) => label !== 'sync') }))
  if (options.svg) writeFileSync(options.svg, plot(drawn, title))
}

function summary(name, label) {
  const of = (mode) => seeds.map((seed) =>
    results.find((result) => result.set === name && result.mode === mode && result.seed === seed).auc)
  const sync = of('sync'), own = of(label)
  return { label, auc: estimate(own), ...estimate(own.map((value, i) => value - sync[i])) }
}
