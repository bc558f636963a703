// A training loop of your own: single steps, metrics of your own, and a rule of your own for when to stop.
import { Trainer, loadConfigFile, openDataset, readStatistics, type Metrics } from 'persia'

const loaded = loadConfigFile('examples/adult-income/persia.yml',
  { set: ['model.hidden=[64, 32]', 'model.optimizer.lr=0.003'] })
const folder = process.argv[2] ?? 'checkpoints/single-steps'

const metrics: Metrics = {
  // A mean over samples is a function of one batch.
  accuracy: (outputs, labels) => outputs.filter((p, i) => (p >= 0.5) === (labels[i] === 1)).length / outputs.length,
  // What is no such mean sees every batch and then says its result: the share of positives in the best-ranked tenth.
  topTenth: {
    start() {
      const samples: { p: number; label: number }[] = []
      return {
        add: (outputs, labels) => outputs.forEach((p, i) => samples.push({ p, label: labels[i]! })),
        result() {
          const top = samples.sort((a, b) => b.p - a.p).slice(0, samples.length / 10)
          return top.reduce((sum, { label }) => sum + label, 0) / top.length
        },
      }
    },
  },
}

const { statistics } = await readStatistics(loaded)
await using trainer = await Trainer.create(loaded.config, statistics)
let best = { step: 0, topTenth: 0 }

training: for (let epoch = 0; epoch < 10; epoch++) {
  for await (const batch of openDataset(loaded, 'train', statistics, { epoch })) {
    const { step, loss } = await trainer.step(batch)
    if (step % 8 !== 0) continue
    const { metrics: own } = await trainer.evaluate(openDataset(loaded, 'test', statistics), { metrics })
    const topTenth = own!['topTenth']!
    const accuracy = own!['accuracy']!
    console.log(`step ${step}: loss ${loss.toFixed(4)}, accuracy ${accuracy.toFixed(4)}, top tenth ${topTenth.toFixed(4)}`)
    if (topTenth > best.topTenth) {
      best = { step, topTenth }
      await trainer.save(folder)
    } else if (step - best.step >= 32) {
      break training
    }
  }
}
console.log(`best: step ${best.step}, top tenth ${best.topTenth.toFixed(4)}, saved in ${folder}`)
