// `npm run example NAME [FOLDER]`: compiles examples/*.ts and runs one of them. Checkpoints go to FOLDER.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [name, ...rest] = process.argv.slice(2)
const names = readdirSync(`${root}/examples`).filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -3))
if (!names.includes(name)) {
  console.error(`usage: npm run example NAME [FOLDER], with one of the names ${names.join(', ')}`)
  process.exit(2)
}
const run = (script, ...args) => {
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}
run('node_modules/typescript/bin/tsc', '-p', 'examples/tsconfig.json')
run(`build/examples/${name}.js`, ...rest)
