// Accuracy of the hybrid algorithm: trains the same networks in mode sync, hybrid and async with paired seeds and
// compares test AUC.
//
//   node bench/convergence.mjs [--data FOLDER] [--only NAME,…] [--modes LABEL,…] [--seeds 5] [--jobs N]
//                              [--svg FILE] [--out FILE] [--from FILE]
//
// FOLDER holds the data sets that the repository may not contain (bench/convergence/data-sets.mjs); without them
// adult-income alone is trained. Every run is a `persia train` of its own with one thread; N of them run at a time. Runs
// but async ones are deterministic: a hybrid run (hybrid-8: of staleness 8) has every lookup as far behind as it may be,
// however busy the machine is. It is compared with the sync run of the same seed; a run in mode async (async-4:
// of four workers) makes as many updates from batches as large as a sync run. Prints a Markdown table; --svg draws it,
// --out appends a JSON line a run, --from takes such lines in place of training. Needs the built package (npm run build).
import { execFile } from 'node:child_process'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { dataSets } from './convergence/data-sets.mjs'
import { estimate, plot } from './convergence/statistics.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values: options } = parseArgs({
  options: {
    data: { type: 'string', default: '' }, only: { type: 'string' }, modes: { type: 'string' },
    seeds: { type: 'string', default: '5' }, jobs: { type: 'string', default: String(availableParallelism()) },
    svg: { type: 'string' }, out: { type: 'string' }, from: { type: 'string' },
  },
})
const allModes = [
  { label: 'sync', mode: 'sync' },
  ...[1, 4, 8, 16].map((staleness) => ({ label: `hybrid-${staleness}`, mode: 'hybrid', staleness })),
  ...[4, 8, 16].map((staleness) => (
    { label: `worst-${staleness}`, mode: 'hybrid', staleness, lookahead: staleness, deterministic: true })),
  ...[2, 4].map((workers) => ({ label: `async-${workers}`, mode: 'async', staleness: 8, workers })),
]
const modes = allModes.filter(({ label }) => label === 'sync' || picked('modes', label))
const seeds = Array.from({ length: count('seeds') }, (_, i) => i + 1)
const folder = mkdtempSync(join(tmpdir(), 'persia-convergence-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

const { found, missing } = dataSets(root, options.data)
if (missing.length > 0) console.error(`not found and left out: ${missing.join(', ')} (--data names their folder)`)
const chosen = found.filter(([name]) => picked('only', name))
checkNames('modes', allModes.map(({ label }) => label))
checkNames('only', found.map(([name]) => name))
const tasks = chosen.flatMap(([name, config]) =>
  seeds.flatMap((seed) => modes.map((mode) => ({ name, config, mode, seed }))))
const results = options.from ? linesOf(options.from) : []
if (!options.from) await Promise.all(Array.from({ length: count('jobs') }, work))
report()

function linesOf(file) {
  return readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line))
}

function picked(option, name) {
  return options[option]?.split(',').includes(name) ?? true
}

function checkNames(option, known) {
  const unknown = options[option]?.split(',').filter((name) => !known.includes(name)) ?? []
  if (unknown.length === 0) return
  console.error(`--${option}: ${unknown.join(', ')} is none of ${known.join(', ')}`)
  process.exit(2)
}

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
    ...mode.lookahead && { lookahead: mode.lookahead, deterministic: true },
  }))
  const { stdout } = await promisify(execFile)(process.execPath,
    [join(root, 'dist/cli/main.js'), 'train', '--json', '--config', file], { maxBuffer: 1 << 26 })
  rmSync(run, { recursive: true, force: true })
  const events = stdout.trim().split('\n').map((line) => JSON.parse(line))
  const { auc, logloss } = events.findLast(({ event }) => event === 'eval')
  const { samplesPerSecond, staleness } = events.find(({ event }) => event === 'done')
  const { mean, most, histogram } = staleness
  return { auc: Object.values(auc)[0], logloss: Object.values(logloss)[0], samplesPerSecond, staleness: { mean, most, histogram } }
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
