// The examples run as their readers run them, and do what they say.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { folder as emptyFolder } from '../ts/folders.js'

t.setTimeout(120_000)

const root = join(import.meta.dirname, '..', '..', '..')

function example(t: Test, name: string): { stdout: string; folder: string } {
  const folder = emptyFolder(t)
  const { status, stdout, stderr } = spawnSync('npm', ['run', '-s', 'example', name, folder], { cwd: root, encoding: 'utf8' })
  t.equal(status, 0, `${stdout}\n${stderr}`)
  return { stdout, folder }
}

t.test('own-pipeline trains on batches made in TypeScript', async (t) => {
  const { stdout, folder } = example(t, 'own-pipeline')
  const steps = [...stdout.matchAll(/^step (\d+): AUC (0\.\d{4}), calibration (\d\.\d{3})$/gm)]
  t.same(steps.slice(0, 3).map(([, step]) => step), ['16', '32', '48'])
  t.ok(Number(steps.at(-1)![2]) > 0.89, stdout)
  t.match(stdout, /^epoch 1 is complete: 32561 samples$/m)
  const { step } = JSON.parse(/^best: (.*)$/m.exec(stdout)![1]!) as { step: number }
  t.ok(readdirSync(folder).includes(String(step)), 'the best checkpoint is there')
})

t.test('single-steps stops by a metric of its own', async (t) => {
  const { stdout, folder } = example(t, 'single-steps')
  t.match(stdout, /^step 8: loss 0\.\d{4}, accuracy 0\.\d{4}, top tenth 0\.\d{4}$/m)
  const [, best] = /^best: step (\d+), top tenth (0\.\d{4})/m.exec(stdout)!
  const last = [...stdout.matchAll(/^step (\d+)/gm)].at(-1)![1]
  t.ok(Number(last) - Number(best) >= 32 || Number(last) === 320, `best ${best}, last ${last}`)
  t.ok(readdirSync(folder).includes('manifest.json'))
})

t.test('rows-and-resume goes on where it stopped and starts another model from its rows', async (t) => {
  const { stdout } = example(t, 'rows-and-resume')
  t.match(stdout, /^a new run\ninterrupted: .*\/(4\d|5\d)\ngoes on\ndone: .*\/96\n/)
  t.match(stdout, /^Exec-managerial and Exec-managerial: 1\.00$/m)
  const [, cold, warm] = /^logloss after 8 steps: cold (0\.\d{4}), warm (0\.\d{4})$/m.exec(stdout)!
  t.ok(Number(warm) < Number(cold), `warm ${warm}, cold ${cold}`)
})
