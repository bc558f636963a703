// Stopping and resuming a run, reading its embedding rows, and starting another model from them.
import { Trainer, hashIds, loadConfigFile, openDataset, runTraining, type RunOptions } from 'persia'

const folder = process.argv[2] ?? 'checkpoints/rows-and-resume'
const loaded = loadConfigFile('examples/adult-income/persia.yml',
  { set: ['model.hidden=[64, 32]', 'model.optimizer.lr=0.003', `checkpoint.dir=${folder}`] })

/** Trains until the end or the signal; the checkpoint that it left. */
async function train(options: RunOptions): Promise<string> {
  for await (const event of runTraining(loaded, options)) {
    if (event.event === 'start') console.log(event.resumedFrom === null ? 'a new run' : 'goes on')
    if (event.event !== 'interrupted' && event.event !== 'done') continue
    console.log(`${event.event}: ${event.checkpoint}`)
    return event.checkpoint
  }
  throw new Error('a run ends with one of these events')
}

// A signal ends the run at a step at which everything can be saved; the same call then goes on from there.
const stop = new AbortController()
const onStep = ({ step }: { step: number }) => { if (step >= 40) stop.abort() }
await train({ resume: 'never', signal: stop.signal, callbacks: { onStep } })
const { trainer: source, manifest } = await Trainer.load(await train({ resume: 'auto' }))

// Rows are read by feature and ids, many in one call.
const occupations = ['Exec-managerial', 'Prof-specialty', 'Sales', 'Craft-repair', 'Handlers-cleaners', 'Other-service']
const { rows } = await source.table.get('occupation', hashIds(occupations))
const dim = source.table.width('occupation')
const row = (i: number) => rows.subarray(i * dim, (i + 1) * dim)
const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
const cosine = (a: Float32Array, b: Float32Array) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
for (const [i, name] of occupations.entries()) {
  console.log(`${occupations[0]} and ${name}: ${cosine(row(0), row(i)).toFixed(2)}`)
}

// A warm start: a new model, whose network has never seen a sample, begins with rows that were learnt.
const learnt = {
  occupation: occupations,
  relationship: ['Husband', 'Wife', 'Not-in-family', 'Own-child', 'Unmarried', 'Other-relative'],
  marital_status: ['Married-civ-spouse', 'Never-married', 'Divorced', 'Separated', 'Widowed'],
  education: ['Bachelors', 'HS-grad', 'Some-college', 'Masters', 'Doctorate', 'Prof-school', 'Assoc-voc', '11th'],
}
async function lossAfterSteps(steps: number, prepare: (trainer: Trainer) => Promise<void>): Promise<number> {
  await using trainer = await Trainer.create({ ...loaded.config, seed: 8 }, manifest.statistics)
  await prepare(trainer)
  for await (const batch of openDataset(loaded, 'train', manifest.statistics)) {
    if ((await trainer.step(batch)).step === steps) break
  }
  const { logloss } = await trainer.evaluate(openDataset(loaded, 'test', manifest.statistics))
  return logloss['income']!
}
const cold = await lossAfterSteps(8, async () => {})
const warm = await lossAfterSteps(8, async ({ table }) => {
  for (const [feature, values] of Object.entries(learnt)) {
    const ids = hashIds(values)
    await table.set(feature, ids, (await source.table.get(feature, ids)).rows)
  }
})
console.log(`logloss after 8 steps: cold ${cold.toFixed(4)}, warm ${warm.toFixed(4)}`)
await source.close()
