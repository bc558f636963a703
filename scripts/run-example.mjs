// `npm run example NAME [FOLDER]`: compiles examples/*.ts and runs one of them. Checkpoints go to FOLDER.
// `npm run example -- DATASET --from FOLDER [--set …]`: prepares a public data set, unless that is done, and trains its
// preset.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [name, ...rest] = process.argv.slice(2)
const files = readdirSync(`${root}/examples`)
const names = files.filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -3))
const presets = files.filter((file) => existsSync(`${root}/examples/${file}/${file}.yml`))
const isPreset = presets.includes(name) && rest[0] === '--from' && rest[1] !== undefined
if (!isPreset && !names.includes(name)) {
  console.error(`usage: npm run example NAME [FOLDER], with one of the names ${names.join(', ')}\n`
    + `       npm run example -- DATASET --from FOLDER [options of persia train], with one of ${presets.join(', ')}`)
  process.exit(2)
}
const run = (script, ...args) => {
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
if (isPreset) {
  const [, from, ...options] = rest
  run('dist/cli/main.js', 'data', 'prepare', '--dataset', name, '--from', from)
  run('dist/cli/main.js', 'train', '--config', `examples/${name}/${name}.yml`, ...options)
} else {
  run('node_modules/typescript/bin/tsc', '-p', 'examples/tsconfig.json')
  run(`build/examples/${name}.js`, ...rest)
}
