// The order of training data: shuffled anew in each epoch, the same for a seed, gone on with at any batch, shared out over
// loaders; for text, prepared and synthetic data alike.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Float32, Table, Utf8, tableToIPC, vectorFromArray } from 'apache-arrow'
import t from 'tap'
import { parseConfig, type ConfigInput } from '#persia/config/index.js'
import { native } from '#persia/native.js'
import type { Batch } from '#persia/data/batch.js'
import { columnsOf, openDataset, type DatasetOptions } from '#persia/train/datasets.js'
import { prepare } from '#persia/data/prepare.js'

const layout = { features: ['C1'], dense: [], labels: ['label'] }

/** The ids of each batch, as texts. */
async function batchesOf(data: object, baseDir: string, options: DatasetOptions = {}, seed = 1): Promise<string[]> {
  const config = parseConfig({
    batchSize: 50, seed, data: { shuffle: { buffer: 200 }, labels: ['label'], ...data }, features: { columns: { C1: {} } },
  } as ConfigInput)
  const dataset = openDataset({ config, baseDir, file: '', sources: new Map() }, 'train', {}, options)
  const batches: string[] = []
  for await (const batch of dataset) {
    batches.push(native().Batcher.columnsOf(batch.handle(layout, 'labelled')).ids[0]!.ids.join())
  }
  await dataset.close()
  return batches
}

t.test('repeat: Infinity gives batches for as long as they are asked for', async (t) => {
  const config = parseConfig({ batchSize: 50, data: { train: { synth: { like: 'criteo', rows: 120 } }, labels: ['label'] },
    features: { columns: { C1: {} } } })
  const loaded = { config, baseDir: '.', file: '', sources: new Map() }
  const sizes: number[] = []
  for await (const { rows } of openDataset(loaded, 'train', {}, { repeat: Infinity })) {
    sizes.push(rows)
    if (sizes.length === 8) break
  }
  t.same(sizes, [50, 50, 20, 50, 50, 20, 50, 50])
  let rows = 0
  for await (const batch of openDataset(loaded, 'train')) rows += batch.rows
  t.equal(rows, 120, 'one pass unless more are asked for')
  for (const repeat of [0, 1.5, NaN, -1]) {
    t.throws(() => openDataset(loaded, 'train', {}, { repeat }), { code: 'PERSIA_USAGE', message: /^repeat is/ })
  }
})

t.test('with reuseMemory a batch that was kept cannot be used, and says why', async (t) => {
  const config = parseConfig({ batchSize: 50, data: { train: { synth: { like: 'criteo', rows: 100 } }, labels: ['label'] },
    features: { columns: { C1: {} } } })
  const kept: Batch[] = []
  const loaded = { config, baseDir: '.', file: '', sources: new Map() }
  for await (const batch of openDataset(loaded, 'train', {}, { reuseMemory: true })) {
    t.ok(native().Batcher.columnsOf(batch.handle(layout, 'labelled')).labels.length)
    kept.push(batch)
  }
  t.throws(() => kept[0]!.handle(layout, 'labelled'), { code: 'PERSIA_BATCH_INVALID', message: /reuseMemory/ })
})

t.test('shuffled batches', async (t) => {
  const lines = (from: number) => Array.from({ length: 600 }, (_, i) => `${i % 2},v${from + i}\n`).join('')
  const baseDir = t.testdir(Object.fromEntries([0, 1, 2].map((i) => [`${i}.csv`, `label,C1\n${lines(i * 600)}`])))
  const path = ['0.csv', '1.csv', '2.csv']
  const config = parseConfig({ data: { train: { path }, labels: ['label'] }, features: { columns: { C1: {} } } })
  await prepare({ ...columnsOf({ config, baseDir, file: '', sources: new Map() }), out: join(baseDir, 'out'), train: { path }, seed: 0,
    threads: 2, partBytes: 2000 })
  for (const file of [0, 1, 2]) {
    const rows = Array.from({ length: 600 }, (_, i) => i)
    const label = vectorFromArray(rows.map((i) => i % 2), new Float32())
    const C1 = vectorFromArray(rows.map((i) => `v${file * 600 + i}`), new Utf8())
    writeFileSync(join(baseDir, `${file}.arrow`), tableToIPC(new Table({ label, C1 }), 'file'))
  }
  const sources = {
    text: { train: { path } },
    arrow: { train: { path: '*.arrow' } },
    prepared: { train: { prepared: 'out/train' } },
    'prepared, with negative sampling': { train: { prepared: 'out/train' }, negativeSampling: { keep: 0.5 } },
    synthetic: { train: { synth: { like: 'criteo', rows: 1800 } } },
  }
  for (const [kind, data] of Object.entries(sources)) {
    const pass = await batchesOf(data, baseDir)
    t.same(await batchesOf(data, baseDir), pass, `${kind}: the same again`)
    t.notSame(await batchesOf(data, baseDir, { epoch: 1 }), pass, `${kind}: another order in the next epoch`)
    t.notSame(await batchesOf(data, baseDir, {}, 2), pass, `${kind}: and for another seed`)
    for (const skipBatches of [1, 7, pass.length]) {
      t.same(await batchesOf(data, baseDir, { skipBatches }), pass.slice(skipBatches), `${kind}: goes on at batch ${skipBatches}`)
    }
    const shares = await Promise.all([0, 1, 2].map((index) =>
      batchesOf(data, baseDir, { skipBatches: 2, loader: { index, count: 3 } })))
    const merged = pass.slice(2).map((_, i) => shares[(i + 2) % 3]!.shift())
    t.same(merged, pass.slice(2), `${kind}: three loaders have each batch once, in this order`)
    t.same(shares.flat(), [])
    if (kind.includes('sampling')) continue
    const ids = (batches: string[]) => batches.join().split(',').sort()
    const ordered = await batchesOf({ ...data, shuffle: undefined }, baseDir)
    t.same(ids(ordered), ids(pass), `${kind}: every row once`)
    t.notSame(ordered, pass)
  }
  t.same(await batchesOf(sources.arrow, baseDir), await batchesOf(sources.text, baseDir),
    'the same rows have the same order in any format')
  for (const data of [sources.text, sources.arrow, sources.prepared, sources.synthetic]) {
    const [first, second, third] = await Promise.all([0, 1, 2].map((epoch) => batchesOf(data, baseDir, { epoch })))
    t.same(await batchesOf(data, baseDir, { repeat: 3 }), [...first!, ...second!, ...third!], 'repeat: pass after pass')
    t.same(await batchesOf(data, baseDir, { repeat: 2, epoch: 1, skipBatches: 5 }), [...second!.slice(5), ...third!])
    t.same(await batchesOf(data, baseDir, { repeat: 2, reuseMemory: true }), [...first!, ...second!])
  }
})
