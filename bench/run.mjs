// Builds and runs the benchmarks: the micro benchmarks (google-benchmark) and the table's, which stand beside other
// maps.
//
//   npm run bench -- [NAME] [--smoke] [--out FILE]
//
// NAME picks the micro benchmarks whose name or source file contains it (dense, embedding, gather, …). A full run
// repeats each benchmark, interleaved with the others, and reports median and spread; with --out every result is
// appended to FILE as a JSON line with machine and commit. --smoke runs each once, shortly, to see that it works, and
// ends with a tally.
//
//   npm run bench -- table|table-show|table-growth|table-size [--dim N] [--rows N] [--batch N] [--threads N]
//                    [--rounds N] [--seconds S] [--depth N] [--python python3] [--smoke] [--out FILE]
//
// runs a mode of the table's program (bench/table); PyTorch takes part when the python3 given has torch.
//
//   npm run bench -- net [--rounds N] [--seconds S] [--smoke] [--out FILE]
//
// the data plane (bench/net): lookup-like round trips over tcp and shared memory beside plain sockets and ucx_perftest, sums
// over processes beside Gloo; those of the peers that are not installed are named and left out.
//
//   npm run bench -- dense-peer --python PYTHON3 [--precision fp32|bf16] [--out FILE]
//
// trains the reference network beside PyTorch (bench/peers/ffnn_cpu.py), eager and compiled, in batches of 1024 and
// 4096;
//
//   npm run bench -- dense-types-peer --python PYTHON3 [--out FILE]
//
// a step of each model type (bench/peers/model_types_cpu.py);
//
//   npm run bench -- cluster [OPTIONS]
//
// a cluster beside one process (bench/cluster.mjs, which says what its options are).
//
//   npm run bench -- data [--rows N] [--rounds N] [--python PYTHON3] [--smoke] [--out FILE]
//
// preparing and reading data (bench/data.mjs), with the built addon.
import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { cpus, release, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
if (process.argv[2] === 'cluster') {
  const { status } = spawnSync(process.execPath, ['bench/cluster.mjs', ...process.argv.slice(3)], { stdio: 'inherit' })
  process.exit(status ?? 1)
}
const program = 'out/release/persia_bench', tableProgram = 'out/release/persia_table_bench'
const netProgram = 'out/release/persia_net_bench'
const tableModes = { table: 'grid', 'table-show': 'show', 'table-growth': 'growth', 'table-size': 'size' }
const tableOptions = ['dim', 'rows', 'batch', 'threads', 'rounds', 'seconds', 'depth']
const smokeTimeoutMs = 300_000  // of a mode that takes seconds: a thread that waits for ever shows as a failure
const { values, positionals: [name = ''] } = parseArgs({
  allowPositionals: true,
  options: {
    smoke: { type: 'boolean', default: false }, out: { type: 'string' }, python: { type: 'string', default: 'python3' },
    precision: { type: 'string' },
    ...Object.fromEntries(tableOptions.map((option) => [option, { type: 'string' }])),
  },
})
const { smoke, out } = values
const peerModes = { 'dense-peer': referencePeers, 'dense-types-peer': typePeers }
const netOptions = ['rounds', 'seconds'], dataOptions = ['rows', 'rounds']
const isTaken = (option) => name === '' || name in tableModes
  || (name === 'net' && netOptions.includes(option)) || (name === 'data' && dataOptions.includes(option))
const ignored = tableOptions.filter((option) => values[option] !== undefined && !isTaken(option))
if (ignored.length > 0) {
  console.error(`--${ignored.join(', --')}: only ${Object.keys(tableModes).join(', ')} take this`)
  process.exit(2)
}

if (values.precision !== undefined && name !== 'dense-peer') {
  console.error('--precision: only dense-peer takes this')
  process.exit(2)
}

build()
const system = `${process.platform} ${release()}`
const here = { commit: commit(), cpu: cpus()[0].model, cores: cpus().length, system }
console.log(`${here.cpu}, ${here.cores} cores, ${here.system}, commit ${here.commit}`)
const tally = { passed: 0, failed: 0, skipped: 0 }
if (name === 'data' || (smoke && name === '')) runData()
if (name in peerModes) runPeers(peerModes[name]())
else if (!['net', 'data'].includes(name) && !(name in tableModes)) runMicro(chosen())
for (const mode of modes()) runTable(mode)
if (name === 'net' || (smoke && name === '')) runNet()
if (smoke && name === '') {
  check('bench/convergence.mjs', '--only', 'adult-income', '--modes', 'hybrid-8,async-2', '--seeds', '2')
  check('bench/cluster.mjs', '--smoke')
}
if (smoke) console.log(`${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`)
process.exitCode = tally.failed > 0 ? 1 : 0

function build() {
  const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(cpus().length)
  execFileSync('cmake', ['--preset', 'release'], { stdio: ['ignore', 'ignore', 'inherit'] })
  execFileSync('cmake',
    ['--build', '--preset', 'release', '--target', 'persia_bench', 'persia_table_bench', 'persia_net_bench', '-j', jobs],
    { stdio: ['ignore', 'ignore', 'inherit'] })
  if (!/^CMAKE_BUILD_TYPE:\w+=Release$/m.test(readFileSync('out/release/CMakeCache.txt', 'utf8'))) {
    throw new Error('out/release is no optimised build: its times mean nothing. Remove it and run this again.')
  }
}

/** The names of the micro benchmarks to run; ends the process when there are none. */
function chosen() {
  const all = execFileSync(program, ['--benchmark_list_tests=true'], { encoding: 'utf8' }).trim().split('\n')
  const wanted = name.toLowerCase()
  const matching = all.filter((benchmark) => `${benchmark} ${sourceOf(benchmark)}`.toLowerCase().includes(wanted))
  if (matching.length > 0) return matching
  const others = [...Object.keys(tableModes), 'net', ...Object.keys(peerModes), 'data', 'cluster']
  console.error(`no benchmark is called ${name}; there are ${[...all, ...others].join(', ')}`)
  process.exit(2)
}

function sourceOf(benchmark) {
  const registration = `BENCHMARK(${benchmark.split('/')[0]})`
  const holds = (file) => readFileSync(join('bench/micro', file), 'utf8').includes(registration)
  return readdirSync('bench/micro').find(holds)
}

/**
 * The table's modes to run: the named one; without a name the grid, and all of them when it is only to see that they
 * work.
 */
function modes() {
  if (name in tableModes) return [tableModes[name]]
  if (name !== '') return []
  return smoke ? Object.values(tableModes) : [tableModes.table]
}

/** Runs the micro benchmarks, whose program shows a table meanwhile. */
function runMicro(names) {
  const report = inScratch('report.json', (file) => {
    const { status } = spawnSync(program, [
      `--benchmark_filter=^(${names.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})$`,
      ...(smoke ? ['--benchmark_min_time=0.01']
        : ['--benchmark_repetitions=5', '--benchmark_enable_random_interleaving=true',
          '--benchmark_report_aggregates_only=true']),
      `--benchmark_out=${file}`, '--benchmark_out_format=json',
    ], { stdio: ['ignore', 'inherit', 'inherit'] })
    if (status !== 0) throw new Error(`${program} ended with ${status}`)
    return JSON.parse(readFileSync(file, 'utf8'))
  })
  const failed = report.benchmarks.filter((benchmark) => benchmark.error_occurred).length
  tally.failed += failed
  tally.passed += report.benchmarks.length - failed
  record(report.benchmarks, report.context.date)
}

/** Runs a mode of the table's program, which prints its figures and writes them as JSON lines. */
function runTable(mode) {
  const lines = inScratch('lines.jsonl', (file) => {
    const given = tableOptions.filter((option) => values[option] !== undefined)
    const options = given.flatMap((option) => [`--${option}`, values[option]])
    const peer = `${values.python} bench/peers/embedding_cpu.py`
    const { status, signal } = spawnSync(tableProgram, [
      mode, ...options, ...(smoke ? ['--smoke'] : []), '--peer', peer, '--out', file,
    ], { stdio: ['ignore', 'inherit', 'inherit'], timeout: smoke ? smokeTimeoutMs : undefined })
    if (status === 2) process.exit(2)
    if (status !== 0) {
      console.error(`${tableProgram} ${mode} ended with ${signal ?? status}`)
      tally.failed += 1
    }
    return linesOf(file)
  })
  const skipped = lines.filter((line) => 'skipped' in line).length
  tally.skipped += skipped
  tally.passed += lines.length - skipped
  record(lines, new Date().toISOString())
}

/** Data: prepared, read and made. */
function runData() {
  const lines = inScratch('lines.jsonl', (file) => {
    const given = name === 'data' ? dataOptions.filter((option) => values[option] !== undefined) : []
    const { status } = spawnSync(process.execPath, [
      'bench/data.mjs', ...given.flatMap((option) => [`--${option}`, values[option]]), ...(smoke ? ['--smoke'] : []),
      '--python', values.python, '--out', file,
    ], { stdio: ['ignore', 'inherit', 'inherit'], timeout: smoke ? smokeTimeoutMs : undefined })
    tally[status === 0 ? 'passed' : 'failed'] += 1
    return linesOf(file)
  })
  tally.skipped += lines.filter((line) => 'skipped' in line).length
  record(lines, new Date().toISOString())
}

/** Runs the data plane's program, which prints its figures and writes them as JSON lines. */
function runNet() {
  const lines = inScratch('lines.jsonl', (file) => {
    const options = name === 'net' ? netOptions.filter((option) => values[option] !== undefined) : []
    const { status, signal } = spawnSync(netProgram, [
      ...options.flatMap((option) => [`--${option}`, values[option]]), ...(smoke ? ['--smoke'] : []), '--out', file,
    ], { stdio: ['ignore', 'inherit', 'inherit'], timeout: smoke ? smokeTimeoutMs : undefined })
    if (status !== 0) {
      console.error(`${netProgram} ended with ${signal ?? status}`)
      tally.failed += 1
    }
    return linesOf(file)
  })
  tally.passed += lines.length
  record(lines, new Date().toISOString())
}

/** That another script works, on the data set of the repository; needs the built addon. */
function check(script, ...args) {
  const { status } = spawnSync(process.execPath, [script, ...args],
    { stdio: ['ignore', 'inherit', 'inherit'], timeout: smokeTimeoutMs })
  tally[status === 0 ? 'passed' : 'failed'] += 1
}

/** What a benchmark left in a file of JSON lines; nothing when it failed before it wrote any. */
function linesOf(file) {
  if (!existsSync(file)) return []
  return readFileSync(file, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line))
}

/** The reference network beside PyTorch: a script of bench/peers and its options, for each run. */
function referencePeers() {
  return (smoke ? [1024] : [1024, 4096]).flatMap((rows) => (smoke ? [[]] : [[], ['--compile']]).map((compile) =>
    ['ffnn_cpu.py', '--rows', String(rows), '--precision', values.precision ?? 'fp32', '--rounds', '5',
      '--seconds', smoke ? '0.1' : '2', ...compile]))
}

/** A step of each model type beside PyTorch. */
function typePeers() {
  const types = ['ffnn', 'deepfm', 'dcn', 'dcn_low_rank', 'dlrm']
  return types.map((type) =>
    ['model_types_cpu.py', type, ...(smoke ? ['--rounds', '1', '--seconds', '0.1'] : [])])
}

/** Runs that need a python3 with torch; without one they are skipped. */
function runPeers(runs) {
  if (spawnSync(values.python, ['-c', 'import torch'], { stdio: 'ignore' }).status !== 0) {
    console.log(`skipped: ${values.python} has no torch; --python PYTHON3 names one that has`)
    tally.skipped += 1
    return
  }
  for (const [script, ...options] of runs) {
    const lines = inScratch('lines.jsonl', (file) => {
      const { status } = spawnSync(values.python, [join('bench/peers', script), ...options, '--out', file],
        { stdio: ['ignore', 'inherit', 'inherit'] })
      tally[status === 0 ? 'passed' : 'failed'] += 1
      return linesOf(file)
    })
    record(lines, new Date().toISOString())
  }
}

/** What `use` makes of the path of a file in a folder that is gone afterwards. */
function inScratch(file, use) {
  const folder = mkdtempSync(join(tmpdir(), 'persia-bench-'))
  try {
    return use(join(folder, file))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function commit() {
  const git = (...args) => spawnSync('git', args, { encoding: 'utf8' }).stdout?.trim() ?? ''
  return (git('rev-parse', '--short', 'HEAD') || 'unknown') + (git('status', '--porcelain') ? ' with changes' : '')
}

function record(results, date) {
  if (!out) return
  mkdirSync(dirname(out), { recursive: true })
  appendFileSync(out, results.map((result) => `${JSON.stringify({ date, ...here, ...result })}\n`).join(''))
}
