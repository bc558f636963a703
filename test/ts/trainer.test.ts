// The public API: training from batches of one's own, prediction, saving and loading, the event loop.
import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { RecordBatch, Field, Schema, Float32, Uint64, List, makeData, vectorFromArray, Struct, tableFromArrays } from 'apache-arrow'
import { Batch, PersiaError, Trainer, hashId, hashIds, type BatchSource, type ConfigInput } from 'persia'
import t from 'tap'
import { contents, folder } from './folders.js'
import { batches, drained, makeBatch, numbers, smallConfig } from './training-fixtures.js'

const rejected = (promise: Promise<unknown>) => promise.then(() => undefined, (error: unknown) => error as PersiaError)

t.test('fit learns, reports and respects the staleness bound', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const before = await trainer.evaluate(batches(10, 5000))
  const reports = await drained(trainer.fit(batches(400), { reportEverySeconds: 0.01 }))
  const last = reports.at(-1)!
  t.equal(last.step, 400)
  t.equal(last.samples, 400 * 64)
  t.equal(last.staleness, 0, 'nothing is in flight at the end')
  t.ok(reports.every(({ staleness }) => staleness <= 3))
  t.ok(trainer.mostStaleness <= 3)
  const after = await trainer.evaluate(batches(10, 5000))
  t.equal(after.samples, 640)
  t.ok(before.auc['click']! < 0.7 && after.auc['click']! > 0.99, `AUC ${before.auc['click']} to ${after.auc['click']}`)
  t.ok(after.logloss['click']! < before.logloss['click']!)
})

const hasBf16 = /avx512_bf16|amx_bf16/.test(readFileSync('/proc/cpuinfo', 'utf8'))
const bf16Config: ConfigInput = { ...smallConfig, model: { ...smallConfig.model, precision: 'bf16' } }

t.test('bf16 products learn, and predict as they were saved',
  { skip: !hasBf16 && 'this CPU has neither AMX-BF16 nor AVX512-BF16' }, async (t) => {
    const run = folder(t)
    await using trainer = await Trainer.create(bf16Config)
    await drained(trainer.fit(batches(400)))
    const { auc } = await trainer.evaluate(batches(10, 5000))
    t.ok(auc['click']! > 0.99, `AUC ${auc['click']}`)
    await trainer.save(join(run, '400'))
    const { trainer: loaded } = await Trainer.load(join(run, '400'))
    t.same(await loaded.predict(makeBatch(9)), await trainer.predict(makeBatch(9)))
    await loaded.close()
  })

t.test('bf16 is refused with the reason where the CPU lacks it', { skip: hasBf16 && 'this CPU has it' }, async (t) => {
  t.match(await rejected(Trainer.create(bf16Config)), { code: 'PERSIA_CONFIG_UNSUPPORTED', message: /use fp32/ })
})

t.test('a mask makes a sequence tell how long it is, in training, prediction, evaluation and after a resume', async (t) => {
  const run = folder(t)
  /** Clicked where the sequence has at least two ids; which ids these are says nothing. */
  const lengths = (number: number, rows = 64) => {
    const next = numbers(number + 1)
    const counts = Array.from({ length: rows }, () => next() % 5)
    const offsets = Uint32Array.from([0, ...counts.map((_, row) => counts.slice(0, row + 1).reduce((sum, count) => sum + count))])
    const ids = BigUint64Array.from({ length: offsets[rows]! }, () => BigInt(next() % 10))
    return Batch.from({
      ids: { user: new BigUint64Array(rows), item: { ids, offsets } }, dense: new Float32Array(rows),
      labels: Float32Array.from(counts, (count) => (count >= 2 ? 1 : 0)),
    })
  }
  function* all(count: number, first = 0) { for (let i = first; i < first + count; i++) yield lengths(i) }
  // Frozen rows of zeros: the mask alone can say how long a sequence is.
  const config = (mask: boolean): ConfigInput => ({
    ...smallConfig, deterministic: true, embedding: { init: { type: 'zeros' } },
    features: { columns: { user: { frozen: true }, item: { pooling: 'none', sequenceLength: 3, frozen: true, ...(mask && { mask }) } } },
  })
  await using without = await Trainer.create(config(false))
  await drained(without.fit(all(150)))
  t.equal((await without.evaluate(all(4, 900))).auc['click'], 0.5)
  await using trainer = await Trainer.create(config(true))
  await drained(trainer.fit(all(100)))
  await trainer.save(join(run, '100'))
  const { trainer: resumed } = await Trainer.load(join(run, '100'))
  await drained(trainer.fit(all(50, 100)))
  await drained(resumed.fit(all(50, 100)))
  const report = await trainer.evaluate(all(4, 900))
  t.equal(report.auc['click'], 1)
  t.same(await resumed.evaluate(all(4, 900)), report)
  t.same(await resumed.predict(lengths(7)), await trainer.predict(lengths(7)))
  await resumed.close()
  t.match(await rejected(Trainer.load(join(run, '100'), config(false))), { code: 'PERSIA_CHECKPOINT_MISMATCH', message: /item\.mask/ })
})

t.test('sequences, hash stacks and a clip norm learn together, and predict as they were saved', async (t) => {
  const run = folder(t)
  const config: ConfigInput = {
    ...smallConfig,
    features: {
      defaults: { dim: 4 },
      columns: { user: { hashStack: { buckets: 40 } }, item: { dim: 8, pooling: 'none', sequenceLength: 2 } },
    },
    embedding: { ...smallConfig.embedding, clipNorm: 0.5 },
  }
  await using trainer = await Trainer.create(config)
  await drained(trainer.fit(batches(400)))
  const { auc } = await trainer.evaluate(batches(10, 5000))
  t.ok(auc['click']! > 0.97, `AUC ${auc['click']}`)
  t.ok(trainer.counters().find(({ dim }) => dim === 4)!.rows <= 80)
  await trainer.save(join(run, '400'))
  const { trainer: loaded } = await Trainer.load(join(run, '400'))
  t.same(await loaded.predict(makeBatch(9)), await trainer.predict(makeBatch(9)))
  await loaded.close()
})

t.test('of frozen features no row is trained, and groups have their own optimizer', async (t) => {
  const { features, model } = smallConfig
  const still: ConfigInput = { ...smallConfig, model: { ...model, optimizer: { type: 'adam', lr: 0 } } }  // rows alone learn
  const frozen = Object.fromEntries(
    Object.entries(features.columns).map(([name, column]) => [name, { ...column, frozen: true }]))
  const changes = async (config: ConfigInput) => {
    await using trainer = await Trainer.create(config)
    await drained(trainer.fit([makeBatch(0)]))
    const before = await trainer.predict(makeBatch(0))
    await drained(trainer.fit([makeBatch(0), makeBatch(0)]))
    return !isDeepStrictEqual(await trainer.predict(makeBatch(0)), before)
  }
  t.ok(await changes(still))
  t.notOk(await changes({ ...still, features: { ...features, columns: frozen } }))
  const halts = { type: 'sgd', lr: 0 } as const
  t.ok(await changes({ ...still, embedding: { ...still.embedding, groupOptimizer: { user: halts } } }))
  t.notOk(await changes({ ...still, embedding: { ...still.embedding, groupOptimizer: { user: halts, item: halts } } }))
})

const fields: ConfigInput['features'] = { defaults: { dim: 4 }, columns: { user: null, item: { pooling: 'mean' } } }
const modelTypes: ConfigInput['model'][] = [
  { type: 'deepfm' }, { type: 'dcn', cross: { layers: 2 } }, { type: 'dcn', cross: { rank: 3, structure: 'stacked' } },
  { type: 'dlrm', bottom: [8] },
]

t.test('dlrm without dense columns has no bottom layers, and learns', async (t) => {
  const config: ConfigInput = { ...smallConfig, data: { labels: ['click'] }, features: fields, model: { ...smallConfig.model, type: 'dlrm' } }
  await using trainer = await Trainer.create(config)
  const withoutDense = (number: number) => {
    const { ids, labels } = (makeBatch(number) as unknown as { source: BatchSource }).source
    return Batch.from({ ids, ...(labels && { labels }) })
  }
  await drained(trainer.fit(Array.from({ length: 300 }, (_, i) => withoutDense(i))))
  const { auc } = await trainer.evaluate([withoutDense(5000), withoutDense(5001)])
  t.ok(auc['click']! > 0.9, `AUC ${auc['click']}`)
})

for (const model of modelTypes) {
  t.test(`a model of ${JSON.stringify(model)} learns, and goes on from a checkpoint as if nothing had been`, async (t) => {
    const run = folder(t)
    const config: ConfigInput = {
      ...smallConfig, features: fields, deterministic: true, model: { ...smallConfig.model, ...model },
    }
    {
      await using trainer = await Trainer.create(config)
      await drained(trainer.fit(batches(200)))
      await trainer.save(join(run, 'half', '200'))
      await drained(trainer.fit(batches(200, 200)))
      await trainer.save(join(run, 'whole', '400'))
      const { auc } = await trainer.evaluate(batches(10, 5000))
      t.ok(auc['click']! > 0.99, `AUC ${auc['click']}`)
    }
    const { trainer } = await Trainer.load(join(run, 'half', '200'), config)
    await using resumed = trainer
    await drained(resumed.fit(batches(200, 200)))
    await resumed.save(join(run, 'resumed', '400'))
    t.same(contents(join(run, 'resumed', '400')), contents(join(run, 'whole', '400')))
  })
}

t.test('single steps train too, and give the loss of their batch', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync' })
  const first = await trainer.step(makeBatch(0))
  t.equal(first.step, 1)
  t.ok(Math.abs(first.loss - Math.log(2)) < 0.1, `an untrained model's loss is about ln 2: ${first.loss}`)
  for (let i = 1; i < 100; i++) await trainer.step(makeBatch(i))
  t.ok((await trainer.step(makeBatch(100))).loss < first.loss / 2)
  t.equal(trainer.steps, 101)
  t.ok(trainer.counters().every(({ rows, missedUpdates }) => rows > 0 && missedUpdates === 0))
})

t.test('steps that are asked for at once are trained one after another, and each gives the loss of its batch', async (t) => {
  const losses = async (ask: (trainer: Trainer) => Promise<{ step: number; loss: number }[]>) => {
    await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync' })
    return (await ask(trainer)).map(({ step, loss }) => ({ step, loss }))
  }
  const wanted = await losses(async (trainer) => {
    const reports = []
    for (let i = 0; i < 5; i++) reports.push(await trainer.step(makeBatch(i)))
    return reports
  })
  t.same(await losses((trainer) => Promise.all([0, 1, 2, 3, 4].map((i) => trainer.step(makeBatch(i))))), wanted)
})

t.test('what is no dataset is refused by name', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const refused = { code: 'PERSIA_USAGE', message: /expected an iterable or async iterable of Batch, got number/ }
  await t.rejects(drained(trainer.fit(5 as never)), refused)
  await t.rejects(trainer.evaluate(5 as never), refused)
  t.equal((await trainer.step(makeBatch(0))).step, 1)
})

t.test('deterministic runs end in the same bytes, the manifest included, also with other numbers of threads', async (t) => {
  const run = folder(t)
  for (const [name, threads] of [['a', 1], ['b', 1], ['c', 2]] as const) {
    await using trainer = await Trainer.create({ ...smallConfig, deterministic: true, threads })
    await drained(trainer.fit(batches(50)))
    await trainer.save(join(run, name, '50'))
  }
  t.same(contents(join(run, 'a', '50')), contents(join(run, 'b', '50')))
  t.same(contents(join(run, 'a', '50')), contents(join(run, 'c', '50')))
})

t.test('a deterministic run that is stopped by a signal, saved, loaded and continued ends like one that was not', async (t) => {
  const run = folder(t)
  const config = { ...smallConfig, deterministic: true }
  {
    await using trainer = await Trainer.create(config)
    await drained(trainer.fit(batches(60)))
    await trainer.save(join(run, 'whole', '60'))
  }
  for (const stopAfter of [1, 17, 40]) {
    const stop = new AbortController()
    const saved = join(run, `stopped-${stopAfter}`, 'checkpoint')
    function* stopping() {
      for (let i = 0; i < 60; i++) {
        if (i === stopAfter) stop.abort()
        yield makeBatch(i)
      }
    }
    {
      await using trainer = await Trainer.create(config)
      await drained(trainer.fit(stopping(), { signal: stop.signal }))
      t.ok(trainer.steps < 60, `stopped after step ${trainer.steps}`)
      await trainer.save(saved)
    }
    const { trainer } = await Trainer.load(saved, config)
    await drained(trainer.fit(batches(60 - trainer.steps, trainer.steps)))
    await trainer.save(join(run, `resumed-${stopAfter}`, '60'))
    await trainer.close()
    t.same(contents(join(run, `resumed-${stopAfter}`, '60')), contents(join(run, 'whole', '60')))
  }
})

t.test('periodic saving, also more often than the bound, does not change what is learnt', async (t) => {
  const run = folder(t)
  const config = { ...smallConfig, deterministic: true }
  const trained = async (everySteps: number) => {
    await using trainer = await Trainer.create(config)
    const save = () => trainer.save(join(run, `every-${everySteps}`, String(trainer.steps)))
    await drained(trainer.fit(batches(30), { checkpoint: { everySteps, save } }))
    await trainer.save(join(run, `final-${everySteps}`, '30'))
    return contents(join(run, `final-${everySteps}`, '30'))
  }
  const undisturbed = await trained(0)
  for (const everySteps of [1, 2, 7]) {
    t.same(await trained(everySteps), undisturbed)
    const steps = readdirSync(join(run, `every-${everySteps}`))
    t.equal(steps.length, Math.floor(30 / everySteps))
    for (const step of steps.map(Number)) {
      const { trainer } = await Trainer.load(join(run, `every-${everySteps}`, String(step)))
      await drained(trainer.fit(batches(30 - step, step)))
      await trainer.save(join(run, 'continued', '30'))
      await trainer.close()
      t.same(contents(join(run, 'continued', '30')), undisturbed, `from step ${step}`)
    }
  }
})

t.test('a failed periodic save ends fit with its error', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const save = () => Promise.reject(new Error('no space left'))
  t.match(await rejected(drained(trainer.fit(batches(50), { checkpoint: { everySteps: 10, save } }))), { message: 'no space left' })
})

t.test('a loaded model predicts what the saved one did', async (t) => {
  const run = folder(t)
  await using trainer = await Trainer.create(smallConfig)
  await drained(trainer.fit(batches(50)))
  const expected = await trainer.predict(makeBatch(900))
  await trainer.save(join(run, '50'))
  const { trainer: loaded, manifest } = await Trainer.load(join(run, '50'))
  t.same(await loaded.predict(makeBatch(900)), expected)
  t.equal(manifest.step, 50)
  await loaded.close()
})

t.test('saving over a checkpoint replaces it whole', async (t) => {
  const run = folder(t)
  await using trainer = await Trainer.create(smallConfig)
  await trainer.step(makeBatch(0))
  await trainer.save(join(run, 'x'))
  const before = contents(join(run, 'x'))
  await trainer.step(makeBatch(1))
  await trainer.save(join(run, 'x'))
  t.not(contents(join(run, 'x'))['dense.bin'], before['dense.bin'])
  t.same(readdirSync(run), ['x'], 'and leaves nothing else')
})

t.test('a folder that holds anything but a checkpoint is not replaced by one', async (t) => {
  const run = folder(t)
  writeFileSync(join(run, 'thesis.txt'), 'precious')
  await using trainer = await Trainer.create(smallConfig)
  t.match(await rejected(trainer.save(run)), { code: 'PERSIA_USAGE', message: /not empty/ })
  t.same(readdirSync(run), ['thesis.txt'])
  t.match(await rejected(trainer.save(join(run, 'thesis.txt', 'x'))), { code: 'PERSIA_IO' })
  t.match(await rejected(trainer.save('/proc/none/x')), { code: 'PERSIA_IO' }, 'where no folder can be made')
})

t.test('saves at the same time, beside periodic ones too, are all complete', async (t) => {
  const run = folder(t)
  for (const deterministic of [false, true]) {
    await using trainer = await Trainer.create({ ...smallConfig, deterministic })
    const others: Promise<void>[] = []
    const checkpoint = { everySteps: 4, save: () => trainer.save(join(run, 'periodic')) }
    for await (const { step } of trainer.fit(batches(60), { reportEverySeconds: 0, checkpoint })) {
      if (others.length < 6) others.push(trainer.save(join(run, 'own')), trainer.save(join(run, `own-${step}`)))
    }
    await Promise.all(others)
    t.equal(trainer.steps, 60)
    for (const name of readdirSync(run)) await (await Trainer.load(join(run, name))).trainer.close()
  }
})

t.test('a refused batch at a step to save at ends fit with its error', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  function* refused() {
    yield* batches(4)
    yield Batch.from({
      ids: { user: new BigUint64Array(1), item: new BigUint64Array(1) }, dense: Float32Array.of(Number.NaN), labels: Float32Array.of(0),
    })
  }
  const checkpoint = { everySteps: 5, save: () => Promise.reject(new Error('not reached')) }
  t.match(await rejected(drained(trainer.fit(refused(), { checkpoint }))), { code: 'PERSIA_BATCH_INVALID' })
  t.equal(trainer.steps, 4)
  t.equal((await trainer.step(makeBatch(9))).step, 5)
})

t.test('after its signal a trainer can be saved but does not train on', async (t) => {
  const run = folder(t)
  for (const deterministic of [false, true]) {
    await using trainer = await Trainer.create({ ...smallConfig, deterministic })
    const stop = new AbortController()
    for await (const report of trainer.fit(batches(1000), { reportEverySeconds: 0, signal: stop.signal })) {
      if (report.step >= 5) stop.abort()
    }
    const { steps } = trainer
    t.ok(steps >= 5 && steps < 1000)
    await trainer.save(join(run, 'a'))
    await trainer.save(join(run, 'b'))
    t.equal(trainer.steps, steps)
    t.same(contents(join(run, 'a')), contents(join(run, 'b')))
    t.match(await rejected(trainer.step(makeBatch(0))), { code: 'PERSIA_USAGE' })
    t.match(await rejected(drained(trainer.fit(batches(1)))), { code: 'PERSIA_USAGE' })
  }
})

t.test('a damaged checkpoint is refused with the file, and the last good one is named', async (t) => {
  const run = folder(t)
  await using trainer = await Trainer.create(smallConfig)
  for (const step of [1, 2]) {
    await trainer.step(makeBatch(step))
    await trainer.save(join(run, String(step)))
  }
  for (const name of ['manifest.json', 'dense.bin', 'embedding-0.bin', 'embedding-1.bin', 'pipeline.bin']) {
    const path = join(run, '2', name)
    const good = readFileSync(path)
    const bad = Buffer.from(good)
    bad[Math.floor(bad.length / 2)]! ^= 4
    writeFileSync(path, bad)
    const error = await rejected(Trainer.load(join(run, '2')))
    t.equal(error?.code, 'PERSIA_CHECKPOINT_DAMAGED', name)
    t.match(error?.message, path)
    t.equal(error?.details['lastGood'], join(run, '1'))
    writeFileSync(path, good)
  }
  rmSync(join(run, '2', 'dense.bin'))
  t.match(await rejected(Trainer.load(join(run, '2'))), { code: 'PERSIA_CHECKPOINT_DAMAGED' })
  t.match(await rejected(Trainer.load(join(run, 'none'))), { code: 'PERSIA_CHECKPOINT_NOT_FOUND' })
})

t.test('a checkpoint of another model is refused with what differs', async (t) => {
  const run = folder(t)
  await using trainer = await Trainer.create(smallConfig)
  await trainer.save(join(run, '0'))
  const other = { ...smallConfig, features: { defaults: { dim: 4 }, columns: { user: null, item: { dim: 16 } } } }
  const error = await rejected(Trainer.load(join(run, '0'), other))
  t.equal(error?.code, 'PERSIA_CHECKPOINT_MISMATCH')
  t.match(error?.message, 'features.columns.item.dim: 8 in the checkpoint, 16 in the config')
})

t.test('the event loop stays free while a long step trains', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, threads: 0, model: { hidden: [2048, 2048] } })
  const big = makeBatch(0, 2048)
  await trainer.step(big)
  let ticks = 0
  const timer = setInterval(() => ticks++, 1)
  const started = performance.now()
  let steps = 0
  while (performance.now() - started < 500) {
    await trainer.step(big)
    steps++
  }
  const elapsed = performance.now() - started
  clearInterval(timer)
  // A blocked loop would tick once a step at most.
  t.ok(ticks > 3 * steps, `${ticks} ticks of a 1 ms timer in ${elapsed.toFixed(0)} ms, ${steps} steps`)
})

t.test('batches of wrong shape are refused by name and the trainer goes on', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const ids = { user: new BigUint64Array(2), item: new BigUint64Array(2) }
  const [dense, labels] = [new Float32Array(2), new Float32Array(2)]
  const step = (source: object) => rejected((async () => trainer.step(Batch.from(source as never)))())
  const cases: [object, RegExp][] = [
    [null as never, /made of an object, got null/],
    [5 as never, /made of an object, got 5/],
    [{ ids: null }, /ids must be an object/],
    [{ ids: {}, dense, labels }, /at least one id column/],
    [{ ids: { user: null } }, /ids.user must be a BigUint64Array/],
    [{ ids: { user: new BigInt64Array(2) } }, /ids.user must be a BigUint64Array/],
    [{ ids: { user: new BigUint64Array(new SharedArrayBuffer(16)) } }, /SharedArrayBuffer/],
    [{ ids, dense: null, labels }, /no dense, the model needs x/],
    [{ ids, dense, labels: Float32Array.of(0, 3) }, /label click of sample 1 is 3/],
    [{ ids: { user: ids.user }, dense, labels }, /no id column item/],
    [{ ids: { ...ids, item: new BigUint64Array(3) }, dense, labels }, /ids.item has 3 samples, ids.user has 2/],
    [{ ids: { ...ids, item: [1n, 2n] }, dense, labels }, /ids.item must be a BigUint64Array/],
    [{ ids: { ...ids, item: { ids: new BigUint64Array(1), offsets: Uint32Array.of(0, 1, 5) } }, dense, labels }, /item/],
    [{ ids: { ...ids, item: { ids: new BigUint64Array(5), offsets: Uint32Array.of(0, 6, 5) } }, dense, labels }, /item/],
    [{ ids, labels }, /no dense, the model needs x/],
    [{ ids, dense: new Float32Array(3), labels }, /dense has 3 values, expected 2 samples × 1 columns/],
    [{ ids, dense: { y: dense }, labels }, /dense.x must be a Float32Array/],
    [{ ids, dense: Float32Array.of(1, Number.NaN), labels }, /sample 1, column 0/],
    [{ ids, dense }, /no labels, the model needs click/],
    [{ ids, dense, labels: Float32Array.of(0, Number.POSITIVE_INFINITY) }, /label/],
  ]
  for (const [source, message] of cases) t.match(await step(source), { code: 'PERSIA_BATCH_INVALID', message })
  t.equal(trainer.steps, 0)
  t.equal((await trainer.step(Batch.from({ ids, dense: { x: dense }, labels: { click: labels } }))).step, 1)
})

t.test('an Arrow record batch trains like the same typed arrays', async (t) => {
  const users = [1n, 2n, 3n, 4n]
  const items = [[7n], [], [8n, 9n], [7n]]
  const fields = {
    user: vectorFromArray(users, new Uint64()),
    item: vectorFromArray(items, new List(new Field('item', new Uint64(), false))),
    x: vectorFromArray([0.5, 1, 1.5, 2], new Float32()),
    click: vectorFromArray([0, 1, 0, 1], new Float32()),
  }
  const schema = new Schema(Object.entries(fields).map(([name, { type }]) => new Field(name, type, false)))
  const struct = makeData({
    type: new Struct(schema.fields), length: 4, nullCount: 0, children: Object.values(fields).map(({ data }) => data[0]!) as never,
  })
  const arrays = Batch.from({
    ids: { user: BigUint64Array.from(users), item: { ids: BigUint64Array.from(items.flat()), offsets: Uint32Array.of(0, 1, 1, 3, 4) } },
    dense: Float32Array.of(0.5, 1, 1.5, 2),
    labels: Float32Array.of(0, 1, 0, 1),
  })
  const whole = new RecordBatch(schema, struct as never)
  const losses: number[] = []
  for (const batch of [arrays, Batch.from(whole), Batch.from(whole.slice(1, 4))]) {
    await using trainer = await Trainer.create(smallConfig)
    losses.push((await trainer.step(batch)).loss)
  }
  t.equal(losses[0], losses[1])
  t.ok(Number.isFinite(losses[2]!), 'a slice, whose offsets do not start at 0')
  await using trainer = await Trainer.create(smallConfig)
  const wrong = (columns: Record<string, unknown>, message: RegExp) =>
    t.rejects(async () => trainer.step(Batch.from(tableFromArrays(columns as never).batches[0]!)), { code: 'PERSIA_BATCH_INVALID', message })
  const user = BigUint64Array.of(1n, 2n)
  const x = Float32Array.of(1, 2)
  await wrong({ user: [1n, null], item: user, x, click: x }, /user has 1 nulls/)
  await wrong({ user: ['a', 'b'], item: user, x, click: x }, /user must be uint64/)
  await wrong({ user, x, click: x }, /item is missing/)
  await wrong({ user, item: user, x: ['a', 'b'], click: x }, /x must hold integers/)
  await wrong({ user, item: user, x: [true, false], click: x }, /x must hold integers/)
  await wrong({ user, item: user, x: user, click: x }, /x must hold integers/)
  t.equal((await trainer.step(Batch.from(tableFromArrays({
    user, item: user, x: Float64Array.of(1, 2), click: Int32Array.of(0, 1), comment: ['not', 'used'],
  }).batches[0]!))).step, 1, 'other number types are converted, other columns left alone')
})

t.test('a closed trainer says so, and closing again is fine', async (t) => {
  const trainer = await Trainer.create(smallConfig)
  await trainer.close()
  await trainer.close()
  t.match(await rejected(trainer.step(makeBatch(0))), { code: 'PERSIA_CLOSED' })
  t.match(await rejected(trainer.predict(makeBatch(0))), { code: 'PERSIA_CLOSED' })
  t.match(await rejected(trainer.save('/tmp/none')), { code: 'PERSIA_CLOSED' })
  t.throws(() => trainer.counters(), { code: 'PERSIA_CLOSED' })
})

t.test('a dataset that throws ends fit with its error, after what was handed in', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  function* failing() {
    yield* batches(5)
    throw new Error('disk on fire')
  }
  t.match(await rejected(drained(trainer.fit(failing()))), { message: 'disk on fire' })
  t.equal(trainer.steps, 5)
})

t.test('breaking out of fit applies what was handed in', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  for await (const report of trainer.fit(batches(1000), { reportEverySeconds: 0 })) {
    if (report.step >= 3) break
  }
  const steps = trainer.steps
  t.ok(steps >= 3 && steps < 1000)
  t.equal((await trainer.step(makeBatch(0))).step, steps + 1)
})

t.test('while a fit is under way neither a step nor another fit can begin', async (t) => {
  await using trainer = await Trainer.create(smallConfig)
  const underWay = { code: 'PERSIA_USAGE', message: /under way/ }
  let release = () => {}
  const checked = new Promise<void>((resolve) => { release = resolve })
  async function* waiting() {
    yield* batches(10)
    await checked
    yield* batches(10, 10)
  }
  let rests = 0
  const evaluate = { everySteps: 5, run: async () => { t.match(await rejected(trainer.step(makeBatch(0))), underWay, `rest ${++rests}`) } }
  const fitting = drained(trainer.fit(waiting(), { evaluate }))
  t.match(await rejected(trainer.step(makeBatch(0))), underWay)
  t.match(await rejected(drained(trainer.fit(batches(1)))), underWay)
  release()
  await fitting
  t.equal(rests, 4)
  t.equal((await trainer.step(makeBatch(20))).step, 21)
})

t.test('saving inside a running fit works in every mode', async (t) => {
  const run = folder(t)
  for (const deterministic of [false, true]) {
    await using trainer = await Trainer.create({ ...smallConfig, deterministic })
    let saved = 0
    for await (const report of trainer.fit(batches(40), { reportEverySeconds: 0 })) {
      if (report.step < 40 && saved < 3) await trainer.save(join(run, String(deterministic), String(++saved)))
    }
    t.equal(trainer.steps, 40)
    t.ok(saved > 0)
  }
})

t.test('text ids hash to XXH64 of their bytes', async (t) => {
  t.equal(hashId(''), 0xef46db3751d8e999n)
  t.equal(hashId('a'), 0xd24ec4f1a98c6e5bn)
  t.equal(hashId('日本'), hashId(Buffer.from('日本').toString('utf8')))
  const texts = ['', 'a', '日本', 'thirteen byte']
  t.same(hashIds(texts), BigUint64Array.from(texts, hashId))
  t.throws(() => hashIds(['a', 5 as never]), /entry 1 is not a string/)
})

t.test('counters come by row class and feature group, with an estimate of the distinct ids of each feature', async (t) => {
  const features = { defaults: { dim: 4 }, columns: { user: null, item: { dim: 8 } }, groups: [['item', 'user']] }
  for (const config of [smallConfig, { ...smallConfig, features }]) {
    await using trainer = await Trainer.create({ ...config, mode: 'sync' })
    await drained(trainer.fit(batches(20)))
    const [users, items] = trainer.counters()
    t.same([users!.dim, items!.dim], [4, 8])
    t.same(users!.groups.map((group) => group.features), [['user']])
    t.same(items!.groups.map((group) => group.features), [['item']])
    t.equal(users!.rows, 50, 'all of the 50 users came')
    t.equal(users!.inserts, 50)
    t.ok(users!.hits > users!.misses && users!.lanes >= users!.rows && users!.bytes > 0)
    const { features: _, ...group } = users!.groups[0]!
    const { dim, groups, distinct, ...all } = users!
    t.same(group, all, 'one group is all of the table')
    t.same(Object.keys(distinct), ['user'])
    t.ok(Math.abs(distinct['user']! - 50) < 5 && Math.abs(items!.distinct['item']! - 20) < 3, 'the estimates are near')
  }
})

t.test('every way to keep rows reaches the table', async (t) => {
  type Embedding = NonNullable<typeof smallConfig.embedding>
  const optimizer = { type: 'adagrad', lr: 0.1 } as const
  const trained = async (embedding: Embedding, count = 30) => {
    await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding: { optimizer, ...embedding } })
    const reports = await drained(trainer.fit(batches(count)))
    t.ok(reports.every(({ loss }) => Number.isFinite(loss)), JSON.stringify(embedding))
    return trainer.counters()[0]!
  }
  const plain = await trained({})
  t.match(plain, { rows: 50, evictions: 0, refused: 0, missedUpdates: 0 })
  t.ok((await trained({ storage: 'bf16', optimizer: { type: 'sgd' } })).bytes < plain.bytes, 'bf16 and no state is less')
  const few = await trained({ capacity: 20 })
  t.ok(few.rows === 20 && few.evictions > 0)
  const least = await trained({ capacity: 20, eviction: 'lfu' })
  t.ok(least.rows === 20 && least.evictions > 0 && least.hits !== few.hits, 'other rows are evicted')
  const bytes = await trained({ capacity: '3KB' })
  t.ok(bytes.rows < 50 && bytes.rows > 0 && bytes.evictions > 0)
  t.ok((await trained({ admit: 3 }, 2)).rows < 10, 'nearly no id came three times')
  t.match(await trained({ admit: 3 }), { rows: 50, evictions: 0 })
  t.match(await trained({ admit: 0 }), { rows: 0, inserts: 0 })
  const own = await trained({ groupCapacity: { user: 7 } })
  t.ok(own.rows === 7 && own.groups[0]!.rows === 7 && own.evictions > 0)
})

t.test('every optimizer and initializer of the config trains', async (t) => {
  type Embedding = NonNullable<typeof smallConfig.embedding>
  const trained = async (embedding: Embedding) => {
    await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding })
    const { loss } = await trainer.step(makeBatch(900))
    for (let i = 0; i < 5; i++) await trainer.step(makeBatch(900))
    t.ok((await trainer.step(makeBatch(900))).loss < loss, `learns with ${JSON.stringify(embedding)}`)
    return String(await trainer.predict(makeBatch(900)))
  }
  const results: string[] = []
  const optimizers = [
    { type: 'sgd', momentum: 0.9 }, { type: 'adagrad' }, { type: 'rowwise_adagrad' }, { type: 'ftrl' }, { type: 'ftrl', l1: 0.01 },
    { type: 'adam' }, { type: 'adam', weightDecay: 0.5 }, { type: 'adamw', weightDecay: 0.5 },
  ] as const
  for (const optimizer of optimizers) results.push(await trained({ optimizer }))
  const initializers = [
    { type: 'zeros' }, { type: 'uniform', low: -0.5, high: 0.5 }, { type: 'inverse_sqrt_dim' }, { type: 'normal', stddev: 0.3 },
    { type: 'normal', stddev: 0.3, truncate: 0.5 }, { type: 'gamma', scale: 0.1 }, { type: 'gamma', shape: 2, scale: 0.1 },
    { type: 'poisson', lambda: 0.5 },
  ] as const
  for (const init of initializers) results.push(await trained({ init }))
  t.equal(new Set(results).size, results.length, 'each in its own way')
})

t.test('a group counts the steps of bias correction by itself, which other rows of it see', async (t) => {
  const predictions = async (biasCorrection: 'row' | 'group') => {
    const embedding = { optimizer: { type: 'adam', lr: 0.1, biasCorrection } } as const
    await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding })
    for (let i = 0; i < 3; i++) await trainer.step(makeBatch(i, 8))
    return [...await trainer.predict(makeBatch(2, 8))]
  }
  t.notSame(await predictions('group'), await predictions('row'))
})

t.test('rows that are not looked up for their time to live are given up', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding: { timeToLiveSeconds: 0.05 } })
  await trainer.step(makeBatch(0))
  const one = Batch.from({ ids: { user: BigUint64Array.of(1000n), item: BigUint64Array.of(1000n) },
    dense: Float32Array.of(0), labels: Float32Array.of(0) })
  while (trainer.counters()[0]!.rows > 1) await trainer.step(one)
  const { evictions, expired } = trainer.counters()[0]!
  t.ok(expired > 0 && evictions === expired)
})

t.test('a checkpoint loads with another storage type, capacity and eviction, but not with another width of rows', async (t) => {
  const run = folder(t)
  const config = { ...smallConfig, deterministic: true, embedding: { optimizer: { type: 'adam', lr: 0.01 } } } as const
  await using trainer = await Trainer.create(config)
  await drained(trainer.fit(batches(30)))
  await trainer.save(join(run, 'x'))
  const expected = await trainer.predict(makeBatch(900))
  const load = (embedding: object) => Trainer.load(join(run, 'x'), { ...config, embedding: { ...config.embedding, ...embedding } })
  {
    const { trainer: larger } = await load({ capacity: '64MiB', eviction: 'lfu', admit: 2 })
    t.same(await larger.predict(makeBatch(900)), expected)
    await larger.close()
    const { trainer: half } = await load({ storage: 'fp16' })
    const found = await half.predict(makeBatch(900))
    t.notSame(found, expected)
    t.ok(found.every((value, index) => Math.abs(value - expected[index]!) < 0.01), 'equal but for rounding')
    await half.close()
    const { trainer: smaller } = await load({ capacity: 30 })
    t.equal(smaller.counters()[0]!.rows, 30)
    await smaller.close()
  }
  t.match(await rejected(load({ optimizer: { type: 'adam', biasCorrection: 'group' } })), {
    code: 'PERSIA_CHECKPOINT_MISMATCH', message: /embedding.optimizer.biasCorrection: row in the checkpoint, group in the config/,
  })
  t.match(await rejected(load({ optimizer: { type: 'ftrl' } })), { code: 'PERSIA_CHECKPOINT_MISMATCH', message: /embedding.optimizer/ })
})

t.test('a deterministic run that evicts rounded rows ends in the same bytes when it is continued from a checkpoint', async (t) => {
  const run = folder(t)
  const embedding = { storage: 'bf16', capacity: 25, admit: 2, optimizer: { type: 'adamw', biasCorrection: 'group' } } as const
  const config = { ...smallConfig, deterministic: true, embedding }
  await using whole = await Trainer.create(config)
  const save = () => whole.save(join(run, String(whole.steps)))
  await drained(whole.fit(batches(40), { checkpoint: { everySteps: 13, save } }))
  await whole.save(join(run, 'whole'))
  t.ok(whole.counters().every(({ evictions, refused }) => evictions + refused > 0))
  for (const step of [13, 26]) {
    const { trainer } = await Trainer.load(join(run, String(step)))
    await drained(trainer.fit(batches(40 - step, step)))
    await trainer.save(join(run, 'continued'))
    await trainer.close()
    t.same(contents(join(run, 'continued')), contents(join(run, 'whole')), `from step ${step}`)
  }
})
