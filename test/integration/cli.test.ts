// The command line on real data: the contracts of output, exit codes, checkpoints and interruption.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DuckDBInstance } from '@duckdb/node-api'
import type { DoneReport, TableReport } from 'persia'
import t from 'tap'
import { lockFolder } from '#persia/disk.js'
import { contents, folder } from '../ts/folders.js'

t.setTimeout(300_000)

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')
const main = join(root, 'dist', 'cli', 'main.js')
const adult = join(root, 'examples', 'adult-income', 'persia.yml')

interface Outcome { status: number | null; stdout: string; stderr: string; events: Record<string, never>[] }

function persia(args: string[], cwd?: string): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', cwd, maxBuffer: 2 ** 26 })
  return { status, stdout, stderr, events: eventsOf(stdout) }
}

const eventsOf = (stdout: string) => stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Record<string, never>)

/** Options that make the reference model small enough for a test. */
const small = (run: string) => ['--config', adult, '--set', 'model.hidden=[64, 32]', '--set', 'model.optimizer.lr=0.003',
  '--set', `checkpoint.dir=${run}`, '--set', 'threads=1']

t.test('train, eval and predict on adult-income keep the contract', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const trained = persia(['train', ...small(run), '--set', 'epochs=3', '--json'])
  t.equal(trained.status, 0, trained.stderr)
  t.ok(trained.stdout.trim().split('\n').every((line) => line.startsWith('{')), 'standard output carries JSON lines only')
  const progress = trained.events.filter(({ event }) => event === 'progress')
  t.ok(progress.length >= 3)
  for (const event of progress) t.same(Object.keys(event), ['event', 'step', 'samples', 'loss', 'samplesPerSecond', 'staleness'])
  const evals = trained.events.filter(({ event }) => event === 'eval')
  t.equal(evals.length, 3, 'one evaluation an epoch')
  t.same(Object.keys(evals[0]!), ['event', 'split', 'step', 'samples', 'auc', 'logloss', 'calibration'])
  t.match(evals[2], { split: 'test', samples: 16281 })
  const { auc } = evals[2] as unknown as { auc: { income: number } }
  t.ok(auc.income > 0.9, `AUC ${auc.income}`)
  const done = trained.events.at(-1)!
  t.match(done, { event: 'done', steps: 96, checkpoint: join(run, '96') })
  t.same(Object.keys(done), ['event', 'steps', 'seconds', 'samplesPerSecond', 'checkpoint', 'skippedSteps', 'staleness', 'pipeline', 'table'])
  const { groups, distinct, ...table } = done['table'] as unknown as TableReport
  t.ok(table.rows > 0 && table.rows === table.inserts && table.evictions === 0 && table.hits > table.misses)
  t.equal(groups.length, Object.keys(distinct).length)
  t.equal(groups.reduce((rows, group) => rows + group.rows, 0), table.rows)

  const evaluated = persia(['eval', ...small(run), '--json'])
  t.equal(evaluated.status, 0, evaluated.stderr)
  t.same(evaluated.events, [evals[2]], 'the checkpoint evaluates as the model did')

  const output = join(run, 'scores.csv')
  t.equal(persia(['predict', ...small(run), '--output', output]).status, 0)
  const lines = readFileSync(output, 'utf8').trim().split('\n')
  t.equal(lines[0], 'income')
  t.equal(lines.length, 16281 + 1, 'a line a row')
  const json = persia(['predict', ...small(run), '--json'])
  t.same(json.events[4], { event: 'prediction', row: 5, outputs: { income: Number(lines[5]) } })
})

t.test('two deterministic runs leave the same bytes, and an interrupted one too after --resume', async (t) => {
  const runs = folder(t)
  const deterministic = (name: string) => [...small(join(runs, name)), '--set', 'deterministic=true', '--set', 'epochs=4', '--json']
  t.equal(persia(['train', ...deterministic('a')]).status, 0)
  t.equal(persia(['train', ...deterministic('b')]).status, 0)
  t.same(contents(join(runs, 'a', '128')), contents(join(runs, 'b', '128')))

  const status = await interrupted(['train', ...deterministic('c'), '--set', 'checkpoint.everySteps=2', '--report-every', '0'], 'SIGINT')
  t.equal(status, 130)
  const stopped = readFileSync(join(runs, 'c', 'latest'), 'utf8').trim()
  t.ok(Number(stopped) < 128, `stopped after step ${stopped}`)
  t.equal(persia(['eval', ...deterministic('c')]).status, 0, 'the checkpoint is complete')
  const resumed = persia(['train', ...deterministic('c'), '--resume'])
  t.equal(resumed.status, 0, resumed.stderr)
  t.same(contents(join(runs, 'c', '128')), contents(join(runs, 'a', '128')))
})

t.test('two NN workers split steps of twice the batch size, and --profile leaves a trace', async (t) => {
  const run = folder(t), trace = join(run, 'trace.json')
  const args = [...small(join(run, 'checkpoints')), '--json', '--set', 'epochs=1', '--set', 'cluster.nnWorkers=2', '--profile', trace]
  for (const mode of ['hybrid', 'async']) {
    const done = persia(['train', ...args, '--set', `mode=${mode}`, '--set', 'checkpoint.resume=never']).events.at(-1)!
    t.match(done, { event: 'done', steps: 16 }, '32561 samples in steps of 2 × 1024')
    const { staleness, pipeline } = done as unknown as DoneReport
    t.equal(staleness.histogram.length, 9)
    t.equal(staleness.histogram.reduce((sum, count) => sum + count), 2 * 16)
    t.equal(staleness.dense !== undefined, mode === 'async')
    t.equal(pipeline.length, 7)
    for (const { busy, held, idle, steps } of pipeline) {
      t.ok(Math.abs(busy + held + idle - 1) < 0.001 && busy > 0)
      t.equal(steps, 16)
    }
    const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as { traceEvents: { ph: string }[] }
    t.equal(traceEvents.filter(({ ph }) => ph === 'X').length, 7 * 16)
  }
  t.match(persia(['train', ...args, '--profile', join(run, 'none', 'x.json')]), { status: 2, stderr: /--profile is given 2 times/ })
  const unwritable = persia(['train', ...args.slice(0, -1), join(run, 'none', 'x.json')])
  t.match(unwritable, { status: 1, stderr: /PERSIA_IO: cannot write the trace/ })
  const before = readFileSync(trace, 'utf8')
  t.match(persia(['train', ...args, '--set', 'data.train.path=none.csv']), { status: 2, stderr: /PERSIA_DATA_NOT_FOUND/ })
  t.equal(readFileSync(trace, 'utf8'), before, 'a run that does not begin leaves an older trace alone')
})

t.test('a run in the middle of an epoch goes on with other NN workers only where steps keep their size', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const args = [...small(run), '--json', '--set', 'epochs=2', '--set', 'cluster.nnWorkers=2', '--set', 'batchSize=512']
  t.equal(await interrupted(['train', ...args, '--report-every', '0'], 'SIGINT'), 130)
  const stopped = Number(readFileSync(join(run, 'latest'), 'utf8'))
  if (stopped % 32 !== 0) {
    const refused = persia(['train', ...args, '--resume', '--set', 'cluster.nnWorkers=4'])
    t.match(refused, { status: 2, stderr: /PERSIA_CHECKPOINT_MISMATCH: .*steps of 1024 samples in/ })
  }
  const resumed = persia(['train', ...args, '--resume', '--set', 'cluster.nnWorkers=4', '--set', 'batchSize=256'])
  t.match(resumed.events.at(-1), { event: 'done', steps: 64 }, resumed.stderr)
})

/** Runs a command and sends it the signal at its first progress; its exit code. */
function interrupted(args: string[], signal: NodeJS.Signals): Promise<number | null> {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
  let sent = false
  child.stdout.on('data', (data: Buffer) => {
    if (!sent && data.includes('"progress"')) sent = child.kill(signal)
  })
  return new Promise((resolve) => child.on('exit', resolve))
}

t.test('a finished run starts anew, an unfinished one goes on, --resume says which', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const args = [...small(run), '--json']
  t.match(persia(['train', ...args, '--resume']), { status: 2, stderr: /PERSIA_CHECKPOINT_NOT_FOUND/ })
  t.equal(persia(['train', ...args, '--set', 'epochs=1']).events.at(-1)!['steps'], 32)
  const anew = persia(['train', ...args, '--set', 'epochs=1']).events
  t.equal(anew.find(({ event }) => event === 'progress')!['step']! <= 32, true)
  const more = persia(['train', ...args, '--set', 'epochs=2', '--resume']).events
  t.equal(more.at(-1)!['steps'], 64)
  t.ok(more.find(({ event }) => event === 'progress')!['step']! > 32, 'goes on after step 32')
  const nothing = persia(['train', ...args, '--set', 'epochs=2', '--resume'])
  t.equal(nothing.status, 0)
  t.match(nothing.events.at(-1), { event: 'done', steps: 64, samplesPerSecond: 0 })
  const shown = persia(['train', ...small(run), '--set', 'epochs=2', '--resume']).stderr
  t.ok(shown.startsWith('table: ') && !shown.includes('queue (most)'), 'no table of stages that did nothing')
})

t.test('a checkpoint of another model and a damaged one are refused', async (t) => {
  const run = join(folder(t), 'checkpoints')
  t.equal(persia(['train', ...small(run), '--set', 'epochs=1', '--set', 'checkpoint.everySteps=10']).status, 0)
  const other = persia(['eval', ...small(run), '--set', 'features.defaults.dim=4'])
  t.match(other, { status: 2, stderr: /PERSIA_CHECKPOINT_MISMATCH/ })
  t.match(other.stderr, 'features.columns.workclass.dim: 8 in the checkpoint, 4 in the config')
  const path = join(run, '32', 'dense.bin')
  const bytes = readFileSync(path)
  bytes[1000]! ^= 1
  writeFileSync(path, bytes)
  const damaged = persia(['eval', ...small(run)])
  t.match(damaged, { status: 1, stderr: /PERSIA_CHECKPOINT_DAMAGED/ })
  t.match(damaged.stderr, `The last good checkpoint is ${join(run, '30')}`)
  t.equal(persia(['eval', ...small(run), '--checkpoint', join(run, '30')]).status, 0)
})

t.test('wrong usage, config and data end with exit code 2 and change nothing', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const cases: [string[], RegExp][] = [
    [[], /Which command/],
    [['trian', '--config', 'a.yml'], /^PERSIA_USAGE: Unknown command trian; did you mean train\? See persia --help/],
    [['serve', '--config', 'a.yml'], /Unknown command serve\. See/],
    [['config', 'explan'], /Did you mean explain\?/],
    [['train'], /Missing required argument: config/],
    [['train', '--confg', 'a.yml'], /Unknown option --confg; did you mean --config\?/],
    [['nn-worker', '--coordinator', 'a:1', '--json'], /Unknown option --json/],
    [['nn-worker', '--coordinator', 'a:1', '--token-file', 'none'], /the cluster's credentials: cannot read none/],
    [['train', '--config', '/nonexistent.yml'], /PERSIA_CONFIG_UNREADABLE.*\/nonexistent.yml/],
    [['train', '--config'], /PERSIA_USAGE/],
    [['train', ...small(run), '--config', 'other.yml'], /--config is given 2 times/],
    [['train', ...small(run), '--report-every', '-1'], /--report-every/],
    [['train', ...small(run), '--report-every', 'often'], /--report-every takes a number of seconds, 0 or more, got no number/],
    [['train', ...small(run), '--report-every'], /Not enough arguments following: report-every/],
    [['train', ...small(run), '--bogus'], /Unknown option --bogus\./],
    [['train', ...small(run), 'bogus'], /Unknown argument: bogus/],
    [['train', ...small(run), '--set', 'model.hiden=[1]'], /PERSIA_CONFIG_UNKNOWN_KEY[^]*model.hidden/],
    [['train', ...small(run), '--set', 'batchSize=many'], /PERSIA_CONFIG_INVALID[^]*batchSize/],
    [['train', ...small(run), '--set', 'data.train.path=none.csv'], /PERSIA_DATA_NOT_FOUND[^]*none.csv/],
    [['train', ...small(run), '--set', 'data.dense=[agee]'], /PERSIA_DATA_MISSING_COLUMN[^]*agee[^]*age/],
    [['train', ...small(run), '--set', 'data.labels=[income]'], /PERSIA_DATA_BAD_ROW[^]*train.csv.gz line 2, column income/],
    [['eval', ...small(run)], /PERSIA_CHECKPOINT_NOT_FOUND/],
  ]
  for (const [args, message] of cases) {
    const outcome = persia(args)
    t.equal(outcome.status, 2, args.join(' '))
    t.match(outcome.stderr, message)
    t.equal(outcome.stdout, '')
  }
  t.throws(() => readdirSync(run), { code: 'ENOENT' }, 'no checkpoint folder was made')
})

t.test('bad rows are named, or skipped, counted and reported', async (t) => {
  const directory = folder(t)
  mkdirSync(join(directory, 'data'))
  const rows = Array.from({ length: 300 }, (_, i) => `u${i % 7},${i % 50},${i % 7 < 3 ? 1 : 0}`)
  rows[41] = 'u1,old,1'
  rows[99] = 'u1,3,2'
  writeFileSync(join(directory, 'data', 'train.csv'), `user,age,click\n${rows.join('\n')}\n`)
  writeFileSync(join(directory, 'persia.yml'), `
batchSize: 32
threads: 1
data: { train: { path: data/train.csv }, labels: [click], dense: [age], onBadRow: fail }
features: { columns: { user: } }
model: { hidden: [8] }
`)
  const failed = persia(['train', '--config', 'persia.yml'], directory)
  t.match(failed, { status: 2, stderr: /PERSIA_DATA_BAD_ROW: data\/train.csv line 43, column age: "old"/ })
  const skipped = persia(['train', '--config', 'persia.yml', '--set', 'data.onBadRow=skip', '--json'], directory)
  t.equal(skipped.status, 0, skipped.stderr)
  const event = skipped.events.find(({ event }) => event === 'skipped')
  t.match(event, { split: 'train', rows: 2 })
  t.match(JSON.stringify(event), /line 43, column age[^]*line 101, column click/)
  t.match(skipped.events.at(-1), { event: 'done', steps: 10, checkpoint: 'checkpoints/10' })
})

t.test('standardize statistics are kept in the checkpoint and used for other data', async (t) => {
  const run = join(folder(t), 'checkpoints')
  t.equal(persia(['train', ...small(run), '--set', 'epochs=1', '--set', 'data.transform=standardize']).status, 0)
  const manifest = JSON.parse(readFileSync(join(run, '32', 'manifest.json'), 'utf8')) as { statistics: { age: { mean: number } } }
  t.ok(Math.abs(manifest.statistics.age.mean - 38.58) < 0.01)
})

t.test('without a terminal and without --json people get plain lines', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const { stdout, stderr, status } = persia(['train', ...small(run), '--set', 'epochs=1'])
  t.equal(status, 0)
  t.match(stdout, /^adult-income: a new run\n/)
  t.match(stdout, /step 32 .*loss 0\.\d{4}.*samples\/s.*staleness 0/)
  t.match(stdout, /test: 16281 samples {2}income AUC 0\.\d{4} {2}income logloss 0\.\d{4}/)
  t.match(stdout, /done: 32 steps in .* checkpoint .*\/32\n$/)
  t.match(stderr, /^table: \d+ rows in [\d.]+ KiB, index [\d.]+ % full\nfeature group .*\n(.*\n)*workclass +8 +8 .*\n(.*\n)*all /)
})

t.test('a positive text that never occurs is warned about', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const { stderr, status } = persia(['train', ...small(run), '--set', 'epochs=1', '--set', 'data.labels=[{column: income, positive: ">50k"}]', '--json'])
  t.equal(status, 0)
  t.match(stderr, /warning: all samples of test have the same label income.*is ">50k" the text that means 1\?/)
})

t.test('two runs in one folder are kept apart, and a killed one leaves no lock', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const unlock = await lockFolder(run, 'wait')
  t.match(persia(['train', ...small(run)]), { status: 2, stderr: new RegExp(`in use by process ${process.pid}\\. Wait`) })
  writeFileSync(join(run, '.lock'), '1 elsewhere')
  t.match(persia(['train', ...small(run)]), { status: 2, stderr: /in use by process 1 on elsewhere/ })
  await unlock()
  mkdirSync(run)
  writeFileSync(join(run, '.lock'), `${process.pid} elsewhere`)  // what a killed one leaves
  mkdirSync(join(run, '.tmp-32'))
  t.equal(persia(['train', ...small(run), '--set', 'epochs=1']).status, 0)
  t.same(readdirSync(run).sort(), ['32', 'latest'])
})

t.test('a reader that goes away does not end training', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const { status } = spawnSync('sh', ['-c', `"$0" "$@" | head -n 1`, process.execPath, main, 'train', ...small(run), '--json', '--report-every', '0'])
  t.equal(status, 0)
  t.ok(readdirSync(run).includes('96'), 'the run was finished and saved')
  t.equal(spawnSync('bash', ['-c', `set -o pipefail; "$0" "$@" | head -n 1`, process.execPath, main, 'predict', ...small(run)]).status, 0)
  const schemaInto = (end: string) => spawnSync('bash', ['-c', `set -o pipefail; "$0" "$@" ${end}`, process.execPath, main, 'config', 'schema'],
    { encoding: 'utf8' })
  t.match(schemaInto('| head -n 1'), { status: 0, stderr: '' })
  t.match(schemaInto('> /dev/full'), { status: 1, stderr: /^PERSIA_IO: cannot write to standard output: ENOSPC/ })
})

t.test('a batch size can change between epochs but not within one', async (t) => {
  const run = join(folder(t), 'checkpoints')
  const args = [...small(run), '--set', 'checkpoint.everySteps=20', '--set', 'checkpoint.keep=0', '--json']
  t.equal(persia(['train', ...args, '--set', 'epochs=1']).status, 0)
  t.equal(persia(['train', ...args, '--set', 'batchSize=512', '--set', 'epochs=2', '--resume']).events.at(-1)!['steps'], 96)
  const middle = persia(['train', ...args, '--set', 'batchSize=512', '--resume', join(run, '20')])
  t.match(middle, { status: 2, stderr: /PERSIA_CHECKPOINT_MISMATCH.*20 steps of 1024 samples/ })
})

t.test('predictions appear as a whole or not at all', async (t) => {
  const directory = folder(t)
  const run = join(directory, 'checkpoints')
  const output = join(directory, 'scores.csv')
  writeFileSync(output, 'before')
  t.equal(persia(['predict', ...small(run), '--output', output]).status, 2)
  t.equal(readFileSync(output, 'utf8'), 'before')
  t.equal(persia(['train', ...small(run), '--set', 'epochs=1']).status, 0)
  t.match(persia(['predict', ...small(run), '--input', 'none.csv']), { status: 2, stdout: '' }, 'nor a header without data')
  t.match(persia(['predict', ...small(run), '--output', '/dev/full']), { status: 1, stderr: /PERSIA_IO/ })
  t.match(persia(['predict', ...small(run), '--output', join(directory, 'none', 'x')]), { status: 1, stderr: /PERSIA_IO/ })
  t.equal(persia(['predict', ...small(run), '--output', output]).status, 0)
  t.equal(readFileSync(output, 'utf8').split('\n').length, 16281 + 2)
})

t.test('predict takes files of another format and without labels', async (t) => {
  const directory = folder(t)
  const run = join(directory, 'checkpoints')
  t.equal(persia(['train', ...small(run), '--set', 'epochs=1']).status, 0)
  const connection = await (await DuckDBInstance.create(':memory:')).connect()
  await connection.run(`copy (select * exclude (income) from read_csv('${join(dirname(adult), 'test.csv.gz')}', all_varchar = true) limit 100)
    to '${join(directory, 'some.parquet')}'`)
  const scores = (stdout: string) => stdout.trim().split('\n').slice(1).map(Number)
  const whole = scores(persia(['predict', ...small(run)]).stdout)
  const some = persia(['predict', ...small(run), '--input', join(directory, 'some.parquet')])
  t.equal(some.status, 0, some.stderr)
  t.equal(scores(some.stdout).length, 100)
  // The sums in a product depend on the number of rows in its last bit.
  for (const [row, score] of scores(some.stdout).entries()) {
    if (!(Math.abs(score - whole[row]!) < 1e-6)) t.fail(`row ${row + 1}: ${score}, in the whole file ${whole[row]}`)
  }
})

t.test('doctor finds the addon and says what it is', async (t) => {
  const { status, events } = persia(['doctor', '--json'])
  t.equal(status, 0)
  t.same(events.map(({ name }) => name), ['persia', 'node', 'addon', 'cuda', 'shm', 'rdma', 'tcp', 'ucx', 'cluster', 'duckdb', 'memory'])
  t.match(events[2], { ok: true, found: /persia.*\.node; \d+ cores/ })
  t.match(events[8], { name: 'cluster', ok: true, found: /^transport auto takes (shm|tcp), since .*; to other hosts (rdma|tcp)/ })
  t.match(events[3], { ok: true, found: /^none: |compute capability/ }, 'a machine without a GPU is no failure')
})
