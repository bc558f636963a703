// Runs on batches of one's own: evaluation while training, early stopping, callbacks, metrics, stopping and resuming.
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Batch, PersiaError, Trainer, runTraining, type ConfigInput, type EvalReport, type Metrics, type RunEvent, type RunOptions,
} from 'persia'
import t from 'tap'
import { parseConfig } from '#persia/config/index.js'
import { openDataset } from '#persia/train/datasets.js'
import { evaluateCheckpoint } from '#persia/train/inference.js'
import { contents, folder } from './folders.js'
import { batches, drained, makeBatch, smallConfig } from './training-fixtures.js'

/** Two epochs of 20 batches each; every step has other batches. */
const datasets = { train: (epoch: number) => batches(20, 20 * epoch), test: () => batches(4, 5000) }

function configOf(dir: string, more: object = {}): ConfigInput {
  return { ...smallConfig, deterministic: true, epochs: 2, checkpoint: { dir }, ...more } as ConfigInput
}

const run = (config: ConfigInput, options: RunOptions = {}) => drained(runTraining(config, { datasets, ...options }))
const evals = (events: RunEvent[]) => events.flatMap((event) => (event.event === 'eval' ? [event] : []))
const done = (events: RunEvent[]) => {
  const last = events.at(-1)!
  if (last.event !== 'done') throw new Error(`the run ended with ${last.event}`)
  return last
}
const rejected = (promise: Promise<unknown>) => promise.then(() => undefined, (error: unknown) => error as PersiaError)

t.test('evaluating every n steps comes at these steps and at the end of epochs, and changes nothing that is learnt', async (t) => {
  const root = folder(t)
  const plain = await run(configOf(join(root, 'plain')))
  t.same(evals(plain).map(({ step }) => step), [20, 40])
  for (const everySteps of [1, 7, 10]) {
    const dir = join(root, String(everySteps))
    const events = await run(configOf(dir, { evaluate: { everySteps } }))
    const expected = Array.from({ length: 40 }, (_, i) => i + 1).filter((step) => step % everySteps === 0 || step % 20 === 0)
    t.same(evals(events).map(({ step }) => step), expected)
    t.same(contents(join(dir, '40')), contents(join(root, 'plain', '40')), 'to the last byte')
    t.same(evals(events).at(-1), evals(plain).at(-1))
  }
})

t.test('evaluations and early stopping are the same with several NN workers, in every mode', async (t) => {
  const root = folder(t)
  for (const [name, more] of Object.entries({
    workers: { cluster: { nnWorkers: 2 } }, async: { mode: 'async', deterministic: false, cluster: { nnWorkers: 2 } },
  })) {
    const plain = join(root, `${name}-plain`)
    const often = join(root, `${name}-often`)
    await run(configOf(plain, more))
    const events = await run(configOf(often, { ...more, evaluate: { everySteps: 7 } }))
    t.same(evals(events).map(({ step }) => step), [7, 14, 20, 21, 28, 35, 40])
    if (name !== 'async') t.same(contents(join(often, '40')), contents(join(plain, '40')))
    const stopped = await run(configOf(join(root, `${name}-stopped`), { ...more, ...watching({ mode: 'max', patience: 2 }) }),
      { metrics: scripted([0.5, 0.7, 0.6, 0.65]) })
    t.match(done(stopped), { steps: 20, stopped: 'early stopping', best: { step: 10 } })
  }
})

t.test('steps whose gradients are not finite are skipped and told, and the scale of the loss is that of the checkpoint', async (t) => {
  const root = folder(t)
  const overflowing = () => {
    const ids = BigUint64Array.of(1n, 2n)
    return Batch.from({ ids: { user: ids, item: ids }, dense: Float32Array.of(1e30, 1), labels: Float32Array.of(-1e30, 1) })
  }
  const train = function* (epoch: number) {
    yield* batches(4, 20 * epoch)
    yield overflowing()
    yield* batches(4, 20 * epoch + 4)
  }
  const events = async (name: string, lossScaling: unknown, epochs = 2) => run(configOf(join(root, name), {
    epochs, model: { hidden: [8], tasks: [{ label: 'click', loss: 'mse' }], lossScaling },
  }), { datasets: { train }, resume: 'auto' })
  const off = await events('off', 'off')
  t.match(done(off), { steps: 18, skippedSteps: 2 })
  t.notOk('lossScale' in done(off))
  t.match(off.at(-2), { event: 'warning', message: /^2 steps were skipped, because their gradients were not finite/ })
  const fixed = await events('static', 1024)
  t.match(done(fixed), { steps: 18, skippedSteps: 2, lossScale: 1024 })
  for (const name of ['dense.bin', 'embedding-0.bin', 'embedding-1.bin']) {
    t.same(contents(join(root, 'static', '18'))[name], contents(join(root, 'off', '18'))[name], `${name} to the last byte`)
  }
  const dynamic = await events('dynamic', { initial: 4096, growthInterval: 6 })
  t.match(done(dynamic), { steps: 18, skippedSteps: 2, lossScale: 2048 }, '4 good, skipped, 6 good, 2 good, skipped, 4 good')
  t.notOk(dynamic.some(({ event }) => event === 'warning'), 'skipping is a part of the method')
  const { trainer } = await Trainer.load(join(root, 'dynamic', '18'))
  t.equal(trainer.skippedSteps, 2)
  t.equal(trainer.lossScale, 2048)
  await trainer.close()
})

t.test('an evaluation at a step is that of the model saved at this step', async (t) => {
  const dir = folder(t)
  const events = await run(configOf(dir, { deterministic: false, evaluate: { everySteps: 8 }, checkpoint: { dir, everySteps: 8, keep: 0 } }))
  for (const { event: _, ...report } of evals(events).filter(({ step }) => step % 8 === 0)) {
    const { trainer } = await Trainer.load(join(dir, String(report.step)))
    t.same(await trainer.evaluate(batches(4, 5000)), report)
    await trainer.close()
  }
})

/** Own metrics whose values are given by the number of the evaluation. */
const scripted = (values: number[]): Metrics => {
  let next = 0
  return { scripted: { start: () => ({ add() {}, result: () => values[next++] ?? Number.NaN }) } }
}

const watching = (more: object) => ({ evaluate: { everySteps: 5, earlyStopping: { metric: 'scripted', ...more } } })

t.test('early stopping ends after `patience` evaluations without a better one, and keeps and names the best', async (t) => {
  const dir = folder(t)
  const config = configOf(dir, { ...watching({ mode: 'max', patience: 2 }), checkpoint: { dir, everySteps: 1, keep: 1 } })
  const events = await run(config, { metrics: scripted([0.5, 0.7, 0.6, 0.65, 0.9]) })
  t.same(evals(events).map(({ step }) => step), [5, 10, 15, 20])
  t.match(done(events), {
    steps: 20, stopped: 'early stopping', checkpoint: join(dir, '20'),
    best: { metric: 'scripted', value: 0.7, step: 10, checkpoint: join(dir, '10') },
  })
  t.same(readdirSync(dir).sort(), ['10', '20', 'latest'], 'the best one is kept whatever `keep` says')
  await (await Trainer.load(join(dir, '10'))).trainer.close()
})

t.test('less is better with mode min, and changes up to minChange are none', async (t) => {
  const root = folder(t)
  const best = async (name: string, settings: object, values: number[]) => {
    const dir = join(root, name)
    return done(await run(configOf(dir, watching({ patience: 3, ...settings })), { metrics: scripted(values) }))
  }
  t.match(await best('min', { mode: 'min' }, [3, 2, 1, 4, 4, 4]), { steps: 30, best: { value: 1, step: 15 } })
  t.match(await best('change', { mode: 'min', minChange: 0.5 }, [3, 2.6, 2.5, 2.4, 2.3]), { steps: 35, best: { value: 2.4, step: 20 } })
  t.match(await best('nan', { mode: 'max' }, [Number.NaN, 1, Number.NaN, Number.NaN, Number.NaN, 2]), { steps: 25, best: { value: 1, step: 10 } })
  const whole = await best('whole', { mode: 'max' }, [1, 2, 3, 4, 5, 6, 7, 8])
  t.equal(whole.steps, 40)
  t.notOk('stopped' in whole)
})

t.test('built-in metrics are watched by label with the mode that they have', async (t) => {
  for (const metric of ['auc', 'logloss', 'gauc']) {
    const events = await run(configOf(folder(t), { evaluate: { everySteps: 10, groupBy: 'item', earlyStopping: { metric, patience: 9 } } }))
    const { best } = done(events)
    const values = evals(events).map((report) => report[metric as 'auc']['click']!)
    t.match(best, { metric, label: 'click', value: metric === 'logloss' ? Math.min(...values) : Math.max(...values) })
  }
})

t.test('a checkpoint that is asked for comes after that step, is resumed like any other, and changes nothing', async (t) => {
  const root = folder(t)
  await run(configOf(join(root, 'plain')))
  const dir = join(root, 'asked')
  let asked = 0
  const saved: number[] = []
  await run(configOf(dir), {
    checkpointWhen: () => ++asked === 13 || asked === 20, callbacks: { onCheckpoint: ({ step }) => saved.push(step) },
  })
  t.equal(asked, 40, 'once a step')
  t.same(saved, [13, 20, 40])
  t.same(contents(join(dir, '40')), contents(join(root, 'plain', '40')))
  const again = configOf(join(root, 'again'))
  await run(again, { resume: join(dir, '13') })
  t.same(contents(join(root, 'again', '40')), contents(join(root, 'plain', '40')))
})

t.test('a run that is interrupted and resumed stops early where an uninterrupted one does, with the same bytes', async (t) => {
  const root = folder(t)
  // Values by step, so that they don't depend on how often the process began anew.
  const values = new Map([[5, 0.5], [10, 0.7], [15, 0.6], [20, 0.65], [25, 0.6], [30, 0.9]])
  const metricsAt = (trainer: () => Trainer): Metrics =>
    ({ scripted: { start: () => ({ add() {}, result: () => values.get(trainer().steps) ?? 0 }) } })
  const finish = async (dir: string, stopAt?: number) => {
    let trainer: Trainer | undefined
    const stop = new AbortController()
    const callbacks = {
      onStep(report: { step: number }) { if (stopAt !== undefined && report.step >= stopAt) stop.abort() },
    }
    const config = configOf(dir, watching({ mode: 'max', patience: 3 }))
    const create = runTraining(config, {
      datasets: { ...datasets, test: () => batches(1, 5000) }, signal: stop.signal,
      metrics: metricsAt(() => trainer!),
      callbacks: [{ onStart(_, run) { trainer = run.trainer } }, callbacks],
    })
    return drained(create)
  }
  const whole = await finish(join(root, 'whole'))
  t.match(done(whole), { steps: 25, best: { step: 10 }, stopped: 'early stopping' })
  for (const stopAt of [4, 5, 12, 20]) {
    const dir = join(root, String(stopAt))
    t.equal((await finish(dir, stopAt)).at(-1)!.event, 'interrupted')
    t.match(done(await finish(dir)), { steps: 25, best: { step: 10 } }, `interrupted after step ${stopAt}`)
    t.same(contents(join(dir, '25')), contents(join(root, 'whole', '25')))
  }
  const again = await drained(runTraining(configOf(join(root, 'whole'), watching({ mode: 'max', patience: 3 })),
    { datasets, resume: 'always', metrics: scripted([]) }))
  t.match(done(again), { steps: 25, stopped: 'early stopping' }, 'a run that has stopped stays so')
  const patient = await drained(runTraining(configOf(join(root, 'whole'), watching({ mode: 'max', patience: 4 })),
    { datasets, resume: 'always', metrics: scripted([0.1]) }))
  t.match(done(patient), { steps: 30, stopped: 'early stopping', best: { step: 10 } }, 'with more patience it goes on')
})

t.test('a run that is resumed with another metric, label or mode counts anew', async (t) => {
  const root = folder(t)
  const resumed = async (name: string, earlyStopping: object) => {
    const dir = join(root, name)
    const scripts = (...names: string[]): Metrics => Object.assign({}, ...names.map((metric) => ({ [metric]: scripted([0.5, 0.4, 0.3])['scripted'] })))
    const settings = (more: object) => ({ evaluate: { everySteps: 5, earlyStopping: { metric: 'scripted', mode: 'max', patience: 2, ...more } } })
    t.match(done(await run(configOf(dir, settings({})), { metrics: scripts('scripted') })), { steps: 15, best: { step: 5, value: 0.5 } })
    return done(await run(configOf(dir, settings(earlyStopping)), { resume: 'always', metrics: scripts('scripted', 'other') }))
  }
  t.match(await resumed('same', {}), { steps: 15, stopped: 'early stopping', best: { step: 5 } })
  // Evaluated once more at step 15, as an evaluation that was not made.
  t.match(await resumed('metric', { metric: 'other' }), { steps: 25, stopped: 'early stopping', best: { metric: 'other', step: 15, value: 0.5 } })
  const { best } = await resumed('mode', { mode: 'min', patience: 9 })
  t.match(best, { step: 25, value: 0.3 })
})

t.test('evaluations that were made before a failure are reported, and so is the trace', async (t) => {
  const events: RunEvent[] = []
  let trace = ''
  const failing = { ...datasets, *train() { yield* batches(12); throw new Error('boom') } }
  const config = configOf(folder(t), { evaluate: { everySteps: 5 } })
  const failed = (async () => {
    const options = { datasets: failing, reportEverySeconds: 1000, onTrace(text: string) { trace = text } }
    for await (const event of runTraining(config, options)) events.push(event)
  })()
  await t.rejects(failed, { message: 'boom' })
  t.same(evals(events).map(({ step }) => step), [5, 10])
  t.ok((JSON.parse(trace) as { traceEvents: { ph: string }[] }).traceEvents.some(({ ph }) => ph === 'X'))
})

t.test('a run on batches of one\'s own is resumed in the middle of an epoch whatever batchSize says', async (t) => {
  const dir = folder(t)
  const stop = new AbortController()
  const events = await run(configOf(dir), { signal: stop.signal, callbacks: { onStep({ step }) { if (step >= 7) stop.abort() } } })
  t.equal(events.at(-1)!.event, 'interrupted')
  t.equal(done(await run(configOf(dir, { batchSize: 32, accumulate: 4 }))).steps, 40)
})

t.test('callbacks are called in order at their turns, one at a time, asynchronous ones to their end', async (t) => {
  const dir = folder(t)
  const calls: string[] = []
  let running = 0
  let lastStep = 0
  const note = async (text: string) => {
    t.equal(running++, 0, 'no two at a time')
    calls.push(text)
    await sleep(1)
    running--
  }
  const config = configOf(dir, { evaluate: { everySteps: 15 }, checkpoint: { dir, everySteps: 15 } })
  await run(config, {
    callbacks: {
      onStart: ({ step, resumedFrom }) => note(`start ${step} ${resumedFrom}`),
      async onStep({ step }, { trainer }) {
        t.ok(step > lastStep && trainer.steps >= step)
        lastStep = step
        await sleep(1)
      },
      onEval: ({ step }, { trainer }) => {
        t.equal(lastStep, step, 'after onStep of its step')
        t.equal(trainer.steps, step, 'training rests')
        return note(`eval ${step}`)
      },
      onEpoch: ({ epoch, step, samples }) => note(`epoch ${epoch} ${step} ${samples}`),
      onCheckpoint: ({ step, checkpoint }) => note(`checkpoint ${step} ${checkpoint === join(dir, String(step))}`),
    },
  })
  t.same(calls, ['start 0 null', 'eval 15', 'checkpoint 15 true', 'eval 20', 'epoch 1 20 1280', 'eval 30', 'checkpoint 30 true', 'eval 40',
    'epoch 2 40 2560', 'checkpoint 40 true'])
  t.equal(lastStep, 40)
})

t.test('a callback stops its run, which then is complete', async (t) => {
  for (const deterministic of [false, true]) {
    const dir = folder(t)
    const events = await run(configOf(dir, { deterministic, evaluate: { everySteps: 6 } }), {
      callbacks: { onEval: ({ step }, control) => { if (step === 12) control.stop() } },
    })
    t.match(done(events), { steps: 12, stopped: 'callback', checkpoint: join(dir, '12') })
    t.same(evals(events).map(({ step }) => step), [6, 12])
  }
})

t.test('a callback that throws ends the run with its name, its cause and a complete checkpoint', async (t) => {
  const cases: [string, RunOptions['callbacks'], RegExp][] = [
    ['onStep', { onStep: () => Promise.reject(new Error('boom')) }, /callback onStep failed after step \d+: boom/],
    ['onEval', { onEval() { throw new Error('boom') } }, /callback onEval failed after step 6: boom/],
    ['onCheckpoint', { onCheckpoint() { throw new Error('boom') } }, /callback onCheckpoint failed after step 9: boom/],
    ['callbacks[1].onEpoch', [{}, { async onEpoch() { throw new Error('boom') } }], /callback callbacks\[1\].onEpoch failed after step 20: boom/],
  ]
  for (const [callback, callbacks, message] of cases) {
    const dir = folder(t)
    const config = configOf(dir, { evaluate: { everySteps: 6 }, checkpoint: { dir, everySteps: 9 } })
    const error = await rejected(run(config, { callbacks: callbacks! }))
    t.match(error, { name: 'PersiaError', code: 'PERSIA_CALLBACK_FAILED', message, details: { callback }, cause: { message: 'boom' } })
    const { trainer, manifest } = await Trainer.load(error!.details['checkpoint'] as string)
    t.equal(trainer.steps, manifest.step)
    t.equal(manifest.finished, false, 'the run can go on')
    await trainer.close()
    t.equal(done(await run(config)).steps, 40)
  }
})

t.test('metrics of one\'s own get outputs, labels and batch, and are means over samples unless they stream', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const sizes: number[] = []
  const test = () => [makeBatch(1, 10), makeBatch(2, 30)]
  const report = await trainer.evaluate(test(), {
    metrics: {
      observed: (_, labels) => labels.reduce((sum, label) => sum + label, 0) / labels.length,
      logloss: (outputs, labels, batch) => {
        sizes.push(batch.rows)
        return outputs.reduce((sum, p, i) => sum - Math.log(labels[i] === 1 ? p : 1 - p), 0) / batch.rows
      },
      most: { start() { let most = 0; return { add(outputs) { most = Math.max(most, ...outputs) }, result: () => most } } },
    },
  })
  const predictions = [...await trainer.predict(test()[0]!), ...await trainer.predict(test()[1]!)]
  t.same(sizes, [10, 30])
  t.ok(Math.abs(report.metrics!['logloss']! - report.logloss['click']!) < 1e-6)
  t.equal(report.metrics!['most'], Math.max(...predictions))
  const predicted = predictions.reduce((sum, p) => sum + p, 0)
  t.ok(Math.abs(report.calibration['click']! - predicted / (report.metrics!['observed']! * 40)) < 1e-5)
  const failing = (metrics: Metrics) => rejected(trainer.evaluate(test(), { metrics }))
  t.match(await failing({ odd: () => { throw new Error('boom') } }), { code: 'PERSIA_CALLBACK_FAILED', message: 'metric odd failed: boom' })
  t.match(await failing({ odd: () => undefined as never }), { message: 'metric odd failed: expected a number, got undefined' })
  const dir = folder(t)
  t.match(await rejected(run(configOf(dir), { metrics: { odd: () => { throw new Error('boom') } } })),
    { code: 'PERSIA_CALLBACK_FAILED', message: /metric odd failed: boom. The model as it was is saved in/ })
})

t.test('GAUC is the mean of the groups\' AUCs by samples, groups without both classes are counted', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, evaluate: { groupBy: 'item' } })
  await drained(trainer.fit(batches(30)))
  const groups = new Map<bigint, { p: number; y: number }[]>()
  let withoutGroup = 0
  const report: EvalReport = await trainer.evaluate(batches(3, 5000), {
    metrics: {
      collect(outputs, labels, batch) {
        const { ids, offsets } = (batch as unknown as { source: { ids: { item: { ids: BigUint64Array; offsets: Uint32Array } } } }).source.ids.item
        outputs.forEach((p, row) => {
          if (offsets[row + 1]! - offsets[row]! !== 1) return void withoutGroup++
          const id = ids[offsets[row]!]!
          groups.set(id, [...groups.get(id) ?? [], { p, y: labels[row]! }])
        })
        return 0
      },
    },
  })
  const aucOf = (samples: { p: number; y: number }[]) => {
    const [positives, negatives] = [samples.filter(({ y }) => y === 1), samples.filter(({ y }) => y === 0)]
    const ordered = positives.flatMap((a) => negatives.map((b) => (a.p > b.p ? 1 : a.p === b.p ? 0.5 : 0)))
    return ordered.reduce((sum: number, one) => sum + one, 0) / ordered.length
  }
  const kept = [...groups.values()].filter((samples) => !Number.isNaN(aucOf(samples)))
  const samples = kept.reduce((sum, group) => sum + group.length, 0)
  const expected = kept.reduce((sum, group) => sum + aucOf(group) * group.length, 0) / samples
  t.ok(Math.abs(report.gauc!['click']! - expected) < 1e-12)
  t.same(report.groups!['click'], { column: 'item', groups: kept.length, samples, oneClass: groups.size - kept.length, withoutGroup })
})

t.test('what a run cannot begin with is refused before anything is written', async (t) => {
  const dir = join(folder(t), 'none')
  const train = { train: datasets.train }
  const refused = (more: object, options: RunOptions = {}) => rejected(drained(runTraining(configOf(dir, more), { datasets: train, ...options })))
  t.match(await refused({ evaluate: { everySteps: 5 } }), { code: 'PERSIA_CONFIG_INVALID', message: /evaluate.everySteps needs data/ })
  t.match(await refused({ evaluate: { earlyStopping: {} } }), { code: 'PERSIA_CONFIG_INVALID', message: /evaluate.earlyStopping needs data/ })
  t.match(await refused(watching({ mode: 'max' }), { metrics: { other: () => 0 } }),
    { code: 'PERSIA_CONFIG_INVALID', message: /scripted is not a metric of this run's own .*; there are other/ })
  const standardized = { data: { labels: ['click'], dense: [{ column: 'x', transform: 'standardize' }], test: { path: 'none.csv' } } }
  t.match(await refused(standardized), { code: 'PERSIA_USAGE', message: /data.test cannot be standardized: mean and deviation of x are/ })
  const absent = { data: { ...smallConfig.data, test: { path: 'none.csv' } } }
  t.match(await refused(absent), { code: 'PERSIA_DATA_NOT_FOUND', message: /none\.csv/ })
  const file = join(folder(t), 'test.csv')
  writeFileSync(file, 'user,item,click\n1,2,0\n')
  const narrow = { data: { ...smallConfig.data, test: { path: file } } }
  t.match(await refused(narrow), { code: 'PERSIA_DATA_MISSING_COLUMN', message: /test\.csv has no column x/ })
  t.throws(() => readdirSync(dir), { code: 'ENOENT' })
})

t.test('options of a run that are no functions, or callbacks that do not exist, are refused before anything is written', async (t) => {
  const dir = join(folder(t), 'none')
  const refused = (options: object) => rejected(run(configOf(dir), options as RunOptions))
  const check = async (options: object, option: string, message: RegExp) =>
    t.match(await refused(options), { code: 'PERSIA_USAGE', details: { option }, message })
  await check({ datasets: { train: batches(3) } }, 'datasets.train', /expected a function of the epoch, got object/)
  await check({ datasets: { ...datasets, test: 5 } }, 'datasets.test', /expected a function, got number/)
  await check({ callbacks: 5 }, 'callbacks', /expected an object of callbacks, got number/)
  await check({ callbacks: [{}, { onStep: 'x' }] }, 'callbacks[1].onStep', /expected a function, got string/)
  await check({ callbacks: { onStpe() {} } }, 'callbacks.onStpe', /no such callback; did you mean onStep\?/)
  await check({ metrics: { half: 0.5 } }, 'metrics.half', /expected a function, or \{ start \}, got number/)
  t.throws(() => readdirSync(dir), { code: 'ENOENT' })
})

t.test('of runs that begin in one folder at once one runs, and the others are told which process has it', async (t) => {
  for (let round = 0; round < 2; round++) {
    const dir = join(folder(t), 'run')
    const callbacks = { onStart: () => sleep(500) }  // longer than the others take to be refused
    const ends = await Promise.allSettled([1, 2, 3].map(() => run(configOf(dir, { epochs: 1 }), { callbacks })))
    const refusals = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as PersiaError] : []))
    t.equal(refusals.length, 2)
    for (const refusal of refusals) {
      t.match(refusal, { code: 'PERSIA_USAGE', message: new RegExp(`in use by process ${process.pid}`) })
    }
  }
})

t.test('standardized columns are no hindrance where evaluations take batches of one\'s own', async (t) => {
  const data = { labels: ['click'], dense: [{ column: 'x', transform: 'standardize' }], test: { path: 'none.csv' } }
  t.equal(done(await run(configOf(folder(t), { data }))).steps, 40)
})

t.test('evaluation and prediction read a split in batches of batchSize, training in those of a step', async (t) => {
  const dir = folder(t)
  const lines = Array.from({ length: 40 }, (_, i) => `${i % 7},${i % 3},${i / 40},${i % 2}`)
  writeFileSync(join(dir, 'train.csv'), ['user,item,x,click', ...lines, ''].join('\n'))
  const config = parseConfig(configOf(join(dir, 'run'), {
    data: { labels: ['click'], dense: ['x'], train: { path: 'train.csv' } }, batchSize: 2, accumulate: 2, cluster: { nnWorkers: 2 },
  }))
  const loaded = { config, file: '', baseDir: dir, sources: new Map() }
  const sizes = async (options: object) => (await drained(openDataset(loaded, 'train', {}, options))).map(({ rows }) => rows)
  t.same(await sizes({}), Array(5).fill(8))
  t.same(await sizes({ negatives: 'all' }), Array(20).fill(2))
  t.same(await sizes({ labels: 'none' }), Array(20).fill(2))
  const stop = new AbortController()
  const events = await drained(runTraining(loaded, { signal: stop.signal, callbacks: { onStep: () => stop.abort() } }))
  const last = events.at(-1)!
  if (last.event !== 'interrupted') throw new Error(`the run ended with ${last.event}`)
  const { trainer } = await Trainer.load(last.checkpoint)
  t.match(await drained(evaluateCheckpoint(loaded, 'train')), [{ event: 'eval', ...await trainer.evaluate(openDataset(loaded, 'train', {}, { negatives: 'all' }), { split: 'train' }) }])
  await trainer.close()
})

t.test('learning-rate schedules of the config reach the dense optimizer', async (t) => {
  const sgd = { optimizer: { type: 'sgd', lr: 0.1 }, hidden: [] } as const
  /** How far the prediction for one batch moves in each of six steps on it, with rows that stay as they are. */
  const moves = async (schedule: object) => {
    const embedding = { optimizer: { type: 'sgd', lr: 0 }, init: { type: 'zeros' } } as const
    await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding, model: { ...sgd, schedule } as ConfigInput['model'] & object })
    const moved: number[] = []
    for (let step = 0, before = (await trainer.predict(makeBatch(1)))[0]!; step < 6; step++) {
      await trainer.step(makeBatch(1))
      const after = (await trainer.predict(makeBatch(1)))[0]!
      moved.push(Math.abs(after - before))
      before = after
    }
    return moved
  }
  const constant = await moves({})
  const warmup = await moves({ warmupSteps: 4 })
  t.ok(Math.abs(warmup[0]! / constant[0]! - 0.25) < 0.01, 'a quarter of the rate at the first of four steps')
  for (const type of ['cosine', 'linear']) t.same((await moves({ type, totalSteps: 3 })).slice(2), [0, 0, 0, 0], `${type} ends at 0`)
  const step = await moves({ type: 'step', everySteps: 3, gamma: 1e-6 })
  t.ok(step[2]! > 1e-4 && step[3]! < 1e-6, 'falls after three steps')
})
