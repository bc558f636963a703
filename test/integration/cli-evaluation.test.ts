// The command line on real data: evaluation while training, GAUC, early stopping and negative sampling.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'

t.setTimeout(120_000)

const root = join(import.meta.dirname, '..', '..', '..')

function persia(args: string[]) {
  const main = join(root, 'dist', 'cli', 'main.js')
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'))
  return { status, stdout, stderr, events: lines.map((line) => JSON.parse(line) as Record<string, never>) }
}

t.test('evaluation while training, GAUC, early stopping and negative sampling work from the command line', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'persia-cli-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const run = join(folder, 'checkpoints')
  const args = ['--config', join(root, 'examples', 'adult-income', 'persia.yml'), '--set', 'threads=1',
    '--set', 'model.hidden=[64, 32]', '--set', 'model.optimizer.lr=0.003', '--set', `checkpoint.dir=${run}`, '--set', 'data.negativeSampling.keep=0.5', '--set', 'evaluate.groupBy=occupation',
    '--set', 'evaluate.everySteps=10', '--set', 'evaluate.earlyStopping={metric: gauc, patience: 2, minChange: 1}']
  const { events, status, stderr } = persia(['train', ...args, '--json'])
  t.equal(status, 0, stderr)
  const evals = events.filter(({ event }) => event === 'eval')
  t.same(evals.map(({ step }) => step), [10, 20, 30], 'half of the negatives: 20 steps an epoch, whose end is evaluated once')
  t.match(evals[0], { gauc: { income: Number }, groups: { income: { column: 'occupation', oneClass: Number, withoutGroup: 966 } } })
  const { calibration } = evals[2] as unknown as { calibration: { income: number } }
  t.ok(Math.abs(calibration.income - 1) < 0.2, `calibrated for all negatives: ${calibration.income}`)
  t.match(events.at(-1), { event: 'done', steps: 30, stopped: 'early stopping',
    best: { metric: 'gauc', label: 'income', step: 10, checkpoint: join(run, '10') } })
  const best = persia(['eval', ...args, '--checkpoint', join(run, '10'), '--json'])
  t.same(best.events, [evals[0]], 'the best checkpoint evaluates as the model did')
  const plain = persia(['train', ...args])
  t.match(plain.stdout, /income GAUC 0\.\d{4} {2}\(step 10\)/)
  t.match(plain.stdout, /done: 30 steps in .*; ended by early stopping\nbest: income gauc 0\.\d{4} at step 10, checkpoint .*\/10\n$/)
  for (const [set, message] of [
    ['evaluate.groupBy=occupatoin', /'occupatoin' is not a column of features.columns; did you mean occupation\?/],
    ['evaluate.earlyStopping.metric=loglos', /'loglos' is not a metric that is known; did you mean logloss\? \(a metric of your own needs mode/],
    ['data.negativeSampling.keep=0', /data.negativeSampling.keep: expected a number > 0 and <= 1, got 0/],
    ['data.negativeSampling.label=incom', /'incom' is not the label of a bce task; did you mean income\?/],
  ] as const) {
    t.match(persia(['train', ...args, '--set', set]), { status: 2, stderr: message })
  }
})
