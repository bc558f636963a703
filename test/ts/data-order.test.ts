// The order of training data: shuffled anew in each epoch, the same for a seed, gone on with at any batch, shared out over
// loaders; for text, prepared and synthetic data alike.
import { join } from 'node:path'
import t from 'tap'
import { parseConfig, type ConfigInput } from '#persia/config/index.js'
import { native } from '#persia/native.js'
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

t.test('shuffled batches', async (t) => {
  const lines = (from: number) => Array.from({ length: 600 }, (_, i) => `${i % 2},v${from + i}\n`).join('')
  const baseDir = t.testdir(Object.fromEntries([0, 1, 2].map((i) => [`${i}.csv`, `label,C1\n${lines(i * 600)}`])))
  const path = ['0.csv', '1.csv', '2.csv']
  const config = parseConfig({ data: { train: { path }, labels: ['label'] }, features: { columns: { C1: {} } } })
  await prepare({ ...columnsOf({ config, baseDir, file: '', sources: new Map() }), out: join(baseDir, 'out'), train: { path }, seed: 0,
    threads: 2, partBytes: 2000 })
  const sources = {
    text: { train: { path } },
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
})
