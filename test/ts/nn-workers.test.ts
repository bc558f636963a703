// Several NN workers, the modes and the trace through the public API.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Trainer, type ConfigInput } from 'persia'
import t from 'tap'
import { parseConfig } from '#persia/config/index.js'
import { nativeConfig } from '#persia/train/native-config.js'
import { batches, drained, makeBatch, smallConfig } from './training-fixtures.js'

const workers = (nnWorkers: number, more: ConfigInput | object = {}): ConfigInput =>
  ({ ...smallConfig, cluster: { nnWorkers }, ...more } as ConfigInput)

t.test('in every mode several workers learn, and tell how stale they were', async (t) => {
  for (const mode of ['sync', 'hybrid', 'async'] as const) {
    await using trainer = await Trainer.create(workers(2, { mode }))
    const reports = await drained(trainer.fit(batches(300)))
    t.match(reports.at(-1), { step: 300, samples: 300 * 64, staleness: 0 })
    const { auc } = await trainer.evaluate(batches(10, 5000))
    t.ok(auc['click']! > 0.99, `${mode}: AUC ${auc['click']}`)
    const { stages, lookups, rows, dense } = trainer.pipeline()
    t.same(stages.map(({ stage, worker }) => `${stage} ${worker}`),
      ['prepare 0', 'lookup 0', 'train 0', 'apply 0', 'lookup 1', 'train 1', 'apply 1'])
    t.ok(stages.every(({ steps, busy, idle, held }) => steps === 300 && busy > 0 && idle >= 0 && held >= 0))
    t.equal(lookups.length, mode === 'sync' ? 1 : 4, 'from 0 to the bound')
    t.equal(lookups.reduce((sum, count) => sum + count), 600, 'a lookup a step and worker')
    t.ok(rows.count > 0 && (mode !== 'sync' || rows.most === 0))
    t.equal(dense.count, mode === 'async' ? 600 : 0)
  }
})

t.test('two workers predict what one does that was trained on the same batches, also in pieces', async (t) => {
  const predictions: Float32Array[] = []
  for (const config of [workers(1), workers(2), workers(2, { accumulate: 4 })]) {
    await using trainer = await Trainer.create({ ...config, mode: 'sync', model: { hidden: [16, 8], optimizer: { type: 'sgd', lr: 0.1 } } })
    await drained(trainer.fit(batches(40)))
    predictions.push(await trainer.predict(makeBatch(999)))
  }
  for (const others of predictions.slice(1)) {
    t.ok(others.every((value, i) => Math.abs(value - predictions[0]![i]!) < 1e-4))
  }
})

t.test('a checkpoint of three workers loads with one', async (t) => {
  const run = mkdtempSync(join(tmpdir(), 'persia-workers-'))
  t.teardown(() => rmSync(run, { recursive: true, force: true }))
  await using trainer = await Trainer.create(workers(3))
  await drained(trainer.fit(batches(30)))
  await trainer.save(join(run, '30'))
  const { trainer: loaded, manifest } = await Trainer.load(join(run, '30'), workers(1))
  t.same(await loaded.predict(makeBatch(900)), await trainer.predict(makeBatch(900)))
  t.equal((manifest.config as { cluster: { nnWorkers: number } }).cluster.nnWorkers, 3, 'it says how many it had')
  await drained(loaded.fit(batches(10, 30)))
  t.equal(loaded.steps, 40)
  await loaded.close()
})

interface TraceEvent { ph: string; name: string; pid: number; tid: number; ts: number; dur: number; args: { step: number; name: string } }

t.test('the trace has a process a worker and a thread a stage, whose spans follow each other in the order of steps', async (t) => {
  await using trainer = await Trainer.create(workers(2, { name: 'traced "run"' }), {}, { trace: true })
  await drained(trainer.fit(batches(50)))
  const { traceEvents } = JSON.parse(await trainer.trace()) as { traceEvents: TraceEvent[] }
  const spans = traceEvents.filter(({ ph }) => ph === 'X')
  t.equal(spans.length, 50 * 7)
  t.equal(new Set(spans.map(({ pid }) => pid)).size, 2)
  const byThread = grouped(spans)
  t.equal(byThread.size, 7)
  for (const thread of byThread.values()) {
    t.same(thread.map(({ args }) => args.step), Array.from({ length: 50 }, (_, i) => i + 1))
    const overlapping = thread.filter(({ ts }, i) => i > 0 && ts + 0.002 < thread[i - 1]!.ts + thread[i - 1]!.dur)
    t.same(overlapping, [], 'to the rounding of a nanosecond')
  }
  const of = (name: string, pid: number, step: number) =>
    spans.find((span) => span.name === name && span.pid === pid && span.args.step === step)!
  for (const pid of [1, 2]) {
    for (let step = 1; step <= 50; step++) {
      const [lookup, train, apply] = [of('lookup', pid, step), of('train', pid, step), of('apply', pid, step)]
      t.ok(lookup.ts + lookup.dur <= train.ts + 0.002 && train.ts + train.dur <= apply.ts + 0.002)
    }
  }
  const names = traceEvents.filter(({ ph, name }) => ph === 'M' && name === 'process_name').map(({ args }) => args.name)
  t.same([...new Set(names)], ['NN worker 0', 'NN worker 1'])
})

function grouped(spans: TraceEvent[]): Map<number, TraceEvent[]> {
  const groups = new Map<number, TraceEvent[]>()
  for (const span of spans) groups.set(span.tid, [...(groups.get(span.tid) ?? []), span])
  return groups
}

t.test('a trace has its bound of spans for all stages together, however many workers there are', async (t) => {
  for (const nnWorkers of [1, 2, 256]) {
    const { traceSpans } = nativeConfig(parseConfig(workers(nnWorkers)), { trace: true })
    const all = traceSpans * (1 + 3 * nnWorkers)
    t.ok(all > 39_000 && all <= 40_000, `${all} with ${nnWorkers}`)
  }
})

t.test('without being asked for a trace is empty', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  await trainer.step(makeBatch(0))
  const { traceEvents } = JSON.parse(await trainer.trace()) as { traceEvents: TraceEvent[] }
  t.ok(traceEvents.every(({ ph }) => ph === 'M'))
})
