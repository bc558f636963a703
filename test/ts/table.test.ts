// Embedding rows from TypeScript: reading, writing, warm starts, and what is refused.
import { Batch, Trainer, type PersiaError } from 'persia'
import t from 'tap'
import { batches, drained, makeBatch, smallConfig } from './training-fixtures.js'

const rejected = (promise: Promise<unknown>) => promise.then(() => undefined, (error: unknown) => error as PersiaError)
const ids = (...values: number[]) => BigUint64Array.from(values, BigInt)

t.test('rows are read as training left them, ids without a row as zeros', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync' })
  await drained(trainer.fit(batches(20)))
  const before = trainer.counters()
  const { rows, found } = await trainer.table.get('user', ids(3, 1000, 4))
  t.equal(rows.length, 3 * 4)
  t.same([...found], [1, 0, 1])
  t.ok(rows.subarray(0, 4).some((value) => value !== 0) && rows.subarray(4, 8).every((value) => value === 0))
  t.same(trainer.counters(), before, 'reading is no use and inserts nothing')
  await trainer.step(makeBatch(21))
  t.notSame((await trainer.table.get('user', ids(3, 4))).rows, [...rows.subarray(0, 4), ...rows.subarray(8)])
  t.same(await trainer.table.get('item', ids()), { rows: new Float32Array(0), found: new Uint8Array(0) })
})

t.test('rows that are written are what a model predicts with, and training goes on from them', async (t) => {
  await using source = await Trainer.create({ ...smallConfig, mode: 'sync' })
  await using target = await Trainer.create({ ...smallConfig, mode: 'sync' })
  await drained(source.fit(batches(30)))
  const users = ids(...Array(50).keys())
  const items = ids(...Array(20).keys())
  for (const [feature, all] of [['user', users], ['item', items]] as const) {
    const { rows } = await source.table.get(feature, all, { state: true })
    t.equal(source.table.width(feature, { state: true }), rows.length / all.length)
    await target.table.set(feature, all, rows)
    t.same(await target.table.get(feature, all, { state: true }), { rows, found: new Uint8Array(all.length).fill(1) })
  }
  t.notSame(await target.predict(makeBatch(7)), await source.predict(makeBatch(7)), 'their networks differ')
  const loss = async (trainer: Trainer) => (await trainer.evaluate(batches(5, 5000))).logloss['click']!
  await using cold = await Trainer.create({ ...smallConfig, mode: 'sync' })
  for (const trainer of [target, cold]) await drained(trainer.fit(batches(5)))
  t.ok(await loss(target) < await loss(cold), `a warm start is ahead: ${await loss(target)} and ${await loss(cold)}`)
})

t.test('an embedding that is written starts with the optimizer state of a new row', async (t) => {
  await using trainer = await Trainer.create({ ...smallConfig, mode: 'sync', embedding: { optimizer: { type: 'adagrad', initialAccumulator: 0.5 } } })
  await drained(trainer.fit(batches(5)))
  await trainer.table.set('user', ids(3), Float32Array.of(1, 2, 3, 4))
  t.same([...(await trainer.table.get('user', ids(3), { state: true })).rows], [1, 2, 3, 4, 0.5, 0.5, 0.5, 0.5])
})

t.test('features of a group share what is written, whatever admits new ids', async (t) => {
  const features = { columns: { user: null, item: null, shop: null }, defaults: { dim: 2 }, groups: [['user', 'item']] }
  await using trainer = await Trainer.create({ ...smallConfig, features, embedding: { admit: 0 } })
  await trainer.table.set('user', ids(1), Float32Array.of(1, 2))
  t.same([...(await trainer.table.get('item', ids(1))).rows], [1, 2])
  t.same([...(await trainer.table.get('shop', ids(1))).found], [0])
  const batch = Batch.from({ ids: { user: ids(1), item: ids(1), shop: ids(1) }, dense: Float32Array.of(0), labels: Float32Array.of(1) })
  await trainer.step(batch)
  t.notSame([...(await trainer.table.get('user', ids(1))).rows], [1, 2], 'a written row is trained')
})

t.test('wrong features, lengths, types and values are refused by name and nothing is written', async (t) => {
  const trainer = await Trainer.create(smallConfig)
  const { table } = trainer
  const set = (...args: unknown[]) => rejected((async () => table.set(...args as Parameters<typeof table.set>))())
  const four = new Float32Array(4)
  const cases: [unknown[], RegExp][] = [
    [['usr', ids(1), four], /no feature usr; the model has user, item/],
    [['user', [1n], four], /ids of user must be a BigUint64Array/],
    [['user', new BigUint64Array(new SharedArrayBuffer(8)), four], /SharedArrayBuffer/],
    [['user', ids(1), [1, 2, 3, 4]], /rows of user must be a Float32Array/],
    [['user', ids(1, 2), four], /rows of user have 4 values, expected 2 ids × 4, or × 8 with the state/],
    [['user', ids(9), Float32Array.of(1, 2, Number.NaN, 4)], /row 0 of user \(id 9\) has nan at place 2/],
  ]
  for (const [args, message] of cases) t.match(await set(...args), { code: 'PERSIA_USAGE', message })
  t.match(await rejected(table.get('usr', ids(1))), { code: 'PERSIA_USAGE' })
  t.same([...(await table.get('user', ids(1, 9))).found], [0, 0])
  await trainer.close()
  t.match(await set('user', ids(1), four), { code: 'PERSIA_CLOSED' })
})
