// Makes test/fuzz/corpus/fuzz_snapshot anew: the files of a checkpoint of about the smallest model. Run it after
// `npm run build` when the format of snapshot files changes.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const config = `
deterministic: true
batchSize: 2
data: { train: { path: train.csv }, labels: [click] }
features: { defaults: { dim: 2 }, columns: { id: } }
model: { hidden: [2] }
checkpoint: { dir: checkpoints }
`
const root = fileURLToPath(new URL('..', import.meta.url))
const corpus = join(root, 'test/fuzz/corpus/fuzz_snapshot')
const work = mkdtempSync(join(tmpdir(), 'persia-corpus-'))
try {
  writeFileSync(join(work, 'config.yml'), config)
  writeFileSync(join(work, 'train.csv'), 'click,id\n1,a\n0,b\n1,a\n0,c\n')
  execFileSync(process.execPath, [join(root, 'dist/cli/main.js'), 'train', '--config', 'config.yml'], { cwd: work })
  rmSync(corpus, { recursive: true, force: true })
  mkdirSync(corpus, { recursive: true })
  for (const file of readdirSync(work, { recursive: true }).filter((name) => name.endsWith('.bin'))) {
    cpSync(join(work, file), join(corpus, file.split('/').at(-1)))
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}
