// Negative sampling: what a run trains on, what its model predicts, what a checkpoint knows of it.
import { join } from 'node:path'
import {
  Batch, Trainer, loadConfigFile, openDataset, readStatistics, runTraining, type LoadedConfig, type PersiaError, type RunEvent,
} from 'persia'
import { native } from '#persia/native.js'
import t, { type Test } from 'tap'
import { drained, numbers, smallConfig } from './training-fixtures.js'

/** 6000 rows of which 5 % are clicks, by a user who clicks always or seldom. */
function project(t: Test, more = ''): (set?: string[]) => LoadedConfig {
  const next = numbers(3)
  const rows = Array.from({ length: 6000 }, () => {
    const user = next() % 40
    return `u${user},${next() % 100},${next() % 1000 < (user === 0 ? 900 : 28) ? 1 : 0}`
  })
  const folder = t.testdir({
    'train.csv': `user,age,click\n${rows.join('\n')}\n`,
    'persia.yml': `
batchSize: 100
threads: 1
deterministic: true
epochs: 3
data: { train: { path: train.csv }, test: { path: train.csv }, labels: [click], dense: [age], transform: standardize }
features: { columns: { user: } }
model: { hidden: [8], optimizer: { type: adam, lr: 0.01 } }
embedding: { optimizer: { type: adagrad, lr: 0.1 } }
${more}`,
  })
  return (set = []) => loadConfigFile(join(folder, 'persia.yml'), { set: [`checkpoint.dir=${join(folder, 'run')}`, ...set] })
}

const sampling = 'data.negativeSampling.keep=0.1'

async function labelsOf(dataset: ReturnType<typeof openDataset>): Promise<number[]> {
  const labels: number[] = []
  for await (const batch of dataset) {
    const handle = (batch as unknown as { source: Parameters<ReturnType<typeof native>['Batcher']['columnsOf']>[0] }).source
    labels.push(...native().Batcher.columnsOf(handle).labels)
  }
  return labels
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)

t.test('a pass over the training data keeps the positives and about the share of the negatives, another one each epoch', async (t) => {
  const load = project(t)
  const loaded = load([sampling])
  const { statistics, rows } = await readStatistics(loaded)
  t.same(statistics, (await readStatistics(load())).statistics, 'statistics are those of all rows')
  const all = await labelsOf(openDataset(load(), 'train', statistics))
  const first = await labelsOf(openDataset(loaded, 'train', statistics))
  t.equal(sum(first), sum(all))
  t.equal(first.length, rows, 'the number of rows of the first epoch is known')
  const negatives = first.length - sum(first)
  t.ok(Math.abs(negatives / (all.length - sum(all)) - 0.1) < 0.015, `${negatives} negatives`)
  t.same(await labelsOf(openDataset(loaded, 'train', statistics, { epoch: 0 })), first)
  t.notSame(await labelsOf(openDataset(loaded, 'train', statistics, { epoch: 1 })), first)
  t.same(await labelsOf(openDataset(loaded, 'train', statistics, { skipBatches: 2 })), first.slice(200))
  t.equal((await labelsOf(openDataset(loaded, 'train', statistics, { negatives: 'all' }))).length, 6000)
  t.equal((await labelsOf(openDataset(loaded, 'test', statistics))).length, 6000, 'test data is taken whole')
})

const lastEval = (events: RunEvent[]) => events.flatMap((event) => (event.event === 'eval' ? [event] : [])).at(-1)!

t.test('predictions of a model that saw a tenth of the negatives are calibrated for all of them', async (t) => {
  const load = project(t)
  const whole = lastEval(await drained(runTraining(load())))
  const loaded = load([sampling, 'epochs=12', 'checkpoint.resume=never'])
  const sampled = lastEval(await drained(runTraining(loaded)))
  t.ok(Math.abs(whole.calibration['click']! - 1) < 0.25, `without sampling ${whole.calibration['click']}`)
  t.ok(Math.abs(sampled.calibration['click']! - 1) < 0.25, `with sampling ${sampled.calibration['click']}`)
  t.ok(Math.abs(sampled.auc['click']! - whole.auc['click']!) < 0.05)

  const { trainer } = await Trainer.load(join(loaded.config.checkpoint.dir, String(sampled.step)))
  t.equal(trainer.config.data.negativeSampling?.keep, 0.1, 'the checkpoint knows the share')
  t.same(await trainer.evaluate(openDataset(loaded, 'test', trainer.statistics)), withoutEvent(sampled), 'and corrects as the run did')
  await trainer.close()
})

const withoutEvent = ({ event: _, ...report }: ReturnType<typeof lastEval>) => report

t.test('the correction is p / (p + (1 - p) / keep) for the sampled label alone', async (t) => {
  const predictions = async (more: object) => {
    const data = { labels: ['click', 'like'], dense: ['x'], ...more }
    await using trainer = await Trainer.create({ ...smallConfig, data, embedding: { init: { type: 'normal', stddev: 1 } } })
    await trainer.step(makeTwoTaskBatch())
    return trainer.predict(makeTwoTaskBatch())
  }
  const plain = await predictions({})
  const corrected = await predictions({ negativeSampling: { keep: 0.2, label: 'like' } })
  t.ok(corrected.every((value, i) => {
    const p = plain[i]!
    return Math.abs(value - (i % 2 === 1 ? p / (p + (1 - p) / 0.2) : p)) < 1e-6
  }), `${plain} and ${corrected}`)
})

function makeTwoTaskBatch(): Batch {
  const ids = BigUint64Array.of(1n, 2n, 3n)
  return Batch.from({ ids: { user: ids, item: ids }, dense: Float32Array.of(1, 2, 3), labels: Float32Array.of(0, 1, 1, 0, 1, 1) })
}

t.test('a checkpoint made with another share is refused', async (t) => {
  const load = project(t)
  await drained(runTraining(load([sampling, 'epochs=1'])))
  const resume = (set: string[]) =>
    drained(runTraining(load(set), { resume: 'always' })).then(() => undefined, (error: unknown) => error as PersiaError)
  t.match(await resume(['data.negativeSampling.keep=0.2']), { code: 'PERSIA_CHECKPOINT_MISMATCH',
    message: /data.negativeSampling.keep: 0.1 in the checkpoint, 0.2 in the config/ })
  t.match(await resume([]), { code: 'PERSIA_CHECKPOINT_MISMATCH', message: /data.negativeSampling: .* in the checkpoint, not in the config/ })
})

t.test('an interrupted run with sampling goes on with the same rows, to the same bytes', async (t) => {
  const load = project(t)
  const final = async (name: string, stopAt?: number) => {
    const loaded = load([sampling, `checkpoint.dir=${join(load().baseDir, name)}`])
    const stop = new AbortController()
    const onStep = ({ step }: { step: number }) => { if (stopAt !== undefined && step >= stopAt) stop.abort() }
    let events = await drained(runTraining(loaded, { signal: stop.signal, callbacks: { onStep } }))
    if (stopAt !== undefined) {
      t.equal(events.at(-1)!.event, 'interrupted')
      events = await drained(runTraining(loaded))
    }
    const last = events.at(-1)!
    if (last.event !== 'done') throw new Error(last.event)
    const { trainer, manifest } = await Trainer.load(last.checkpoint)
    await trainer.close()
    return manifest
  }
  const whole = await final('whole')
  t.same(await final('stopped', 12), whole)
  t.ok(whole.samples < 3 * 1200)
})
