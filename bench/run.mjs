// Builds and runs the micro benchmarks (google-benchmark).
//
//   npm run bench -- [NAME] [--smoke] [--out FILE]
//
// NAME picks the benchmarks whose name or source file contains it (dense, embedding, gather, …). A full run repeats each benchmark,
// interleaved with the others, and reports median and spread; with --out every result is appended to FILE as a JSON line
// with machine and commit. --smoke runs each once, shortly, to see that it works, and ends with a tally.
import { execFileSync, spawnSync } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { cpus, release, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

process.chdir(fileURLToPath(new URL('..', import.meta.url)))
const program = 'out/release/persia_bench'
const { values: { smoke, out }, positionals: [name = ''] } = parseArgs({
  allowPositionals: true,
  options: { smoke: { type: 'boolean', default: false }, out: { type: 'string' } },
})

build()
const { context, benchmarks } = run(chosen())
const here = {
  date: context.date, commit: commit(), cpu: cpus()[0].model, cores: cpus().length, system: `${process.platform} ${release()}`,
}
console.log(`${here.cpu}, ${here.cores} cores, ${here.system}, commit ${here.commit}`)
if (out) record(out)
const failed = benchmarks.filter((benchmark) => benchmark.error_occurred).length
if (smoke) console.log(`${benchmarks.length - failed} passed, ${failed} failed, 0 skipped`)
process.exitCode = failed > 0 ? 1 : 0

function build() {
  const jobs = process.env.CMAKE_BUILD_PARALLEL_LEVEL ?? String(cpus().length)
  execFileSync('cmake', ['--preset', 'release'], { stdio: ['ignore', 'ignore', 'inherit'] })
  execFileSync('cmake', ['--build', '--preset', 'release', '--target', 'persia_bench', '-j', jobs],
    { stdio: ['ignore', 'ignore', 'inherit'] })
  if (!/^CMAKE_BUILD_TYPE:\w+=Release$/m.test(readFileSync('out/release/CMakeCache.txt', 'utf8'))) {
    throw new Error('out/release is no optimised build: its times mean nothing. Remove it and run this again.')
  }
}

/** The names of the benchmarks to run; ends the process when there are none. */
function chosen() {
  const all = execFileSync(program, ['--benchmark_list_tests=true'], { encoding: 'utf8' }).trim().split('\n')
  const matching = all.filter((benchmark) => `${benchmark} ${sourceOf(benchmark)}`.toLowerCase().includes(name.toLowerCase()))
  if (matching.length > 0) return matching
  console.error(`no benchmark is called ${name}; there are ${all.join(', ')}`)
  process.exit(2)
}

function sourceOf(benchmark) {
  const registration = `BENCHMARK(${benchmark.split('/')[0]})`
  return readdirSync('bench/micro').find((file) => readFileSync(join('bench/micro', file), 'utf8').includes(registration))
}

/** Runs the program, which shows a table meanwhile, and returns its report. */
function run(names) {
  const work = mkdtempSync(join(tmpdir(), 'persia-bench-'))
  const report = join(work, 'report.json')
  try {
    const { status } = spawnSync(program, [
      `--benchmark_filter=^(${names.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})$`,
      ...(smoke ? ['--benchmark_min_time=0.01']
        : ['--benchmark_repetitions=5', '--benchmark_enable_random_interleaving=true', '--benchmark_report_aggregates_only=true']),
      `--benchmark_out=${report}`, '--benchmark_out_format=json',
    ], { stdio: ['ignore', 'inherit', 'inherit'] })
    if (status !== 0) throw new Error(`${program} ended with ${status}`)
    return JSON.parse(readFileSync(report, 'utf8'))
  } finally {
    rmSync(work, { recursive: true })
  }
}

function commit() {
  const git = (...args) => spawnSync('git', args, { encoding: 'utf8' }).stdout?.trim() ?? ''
  return (git('rev-parse', '--short', 'HEAD') || 'unknown') + (git('status', '--porcelain') ? ' with changes' : '')
}

function record(file) {
  mkdirSync(dirname(file), { recursive: true })
  appendFileSync(file, benchmarks.map((benchmark) => `${JSON.stringify({ ...here, ...benchmark })}\n`).join(''))
}
