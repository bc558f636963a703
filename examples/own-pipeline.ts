// A pipeline of your own: any iterable of batches trains a model, with evaluation every few steps, early stopping,
// checkpoints and callbacks around it. This one streams a gzipped CSV and makes its batches in TypeScript.
import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'
import { Batch, hashIds, runTraining, type ConfigInput } from 'persia'

const ids = ['workclass', 'education', 'marital_status', 'occupation', 'relationship', 'race', 'sex', 'native_country']
const dense = ['age', 'education_num', 'capital_gain', 'capital_loss', 'hours_per_week']
const batchSize = 1024

const config: ConfigInput = {
  name: 'own-pipeline',
  epochs: 4,
  batchSize,
  seed: 7,
  data: { labels: ['income'], dense },
  features: { defaults: { dim: 8 }, columns: Object.fromEntries(ids.map((name) => [name, {}])) },
  model: {
    hidden: [64, 32],
    optimizer: { type: 'adam', lr: 0.003 },
    schedule: { type: 'cosine', warmupSteps: 8, totalSteps: 128, finalFactor: 0.1 },
  },
  evaluate: { everySteps: 16, earlyStopping: { metric: 'auc', patience: 4 } },
  checkpoint: { dir: process.argv[2] ?? 'checkpoints/own-pipeline', resume: 'never' },
}

type Row = Record<string, string>

async function* rowsOf(file: string): AsyncGenerator<Row> {
  let names: string[] | undefined
  for await (const line of createInterface({ input: createReadStream(file).pipe(createGunzip()) })) {
    const values = line.split(',')
    if (names) yield Object.fromEntries(names.map((name, i) => [name, values[i]!]))
    else names = values
  }
}

/** Typed arrays, a column each; the native side reads them where they lie. */
function batchOf(rows: Row[]): Batch {
  return Batch.from({
    ids: Object.fromEntries(ids.map((name) => [name, hashIds(rows.map((row) => row[name]!))])),
    dense: Object.fromEntries(dense.map((name) =>
      [name, Float32Array.from(rows, (row) => Math.log1p(Number(row[name])))])),
    labels: { income: Float32Array.from(rows, (row) => (row['income'] === '>50K' ? 1 : 0)) },
  })
}

async function* batchesOf(file: string): AsyncGenerator<Batch> {
  let rows: Row[] = []
  for await (const row of rowsOf(file)) {
    if (rows.push(row) < batchSize) continue
    yield batchOf(rows)
    rows = []
  }
  if (rows.length > 0) yield batchOf(rows)
}

const events = runTraining(config, {
  datasets: {
    train: () => batchesOf('examples/adult-income/train.csv.gz'),
    test: () => batchesOf('examples/adult-income/test.csv.gz'),
  },
  callbacks: {
    onEval: ({ step, auc, calibration }) =>
      console.log(`step ${step}: AUC ${auc['income']?.toFixed(4)}, calibration ${calibration['income']?.toFixed(3)}`),
    onEpoch: async ({ epoch, samples }) => console.log(`epoch ${epoch} is complete: ${samples} samples`),
  },
})
for await (const event of events) {
  if (event.event === 'done') console.log(`best: ${JSON.stringify(event.best)}`)
}
