// The README's config, commands and program, run as they stand there.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { DuckDBInstance } from '@duckdb/node-api'
import t from 'tap'

t.setTimeout(180_000)

const root = join(import.meta.dirname, '..', '..', '..')
const readme = readFileSync(join(root, 'README.md'), 'utf8')

/** The text of the first code block that begins so. */
function block(language: string, beginning: string): string {
  const found = [...readme.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].find(([, name, text]) => name === language && text!.startsWith(beginning))
  if (!found) throw new Error(`the README has no ${language} block that begins with ${beginning}`)
  return found[2]!
}

const header = 'click,price,age,user_id,ad_id,site_id,tags'
const row = (i: number) => `${i % 3 === 0 ? 1 : 0},${i % 20}.5,${i % 4 === 0 ? '' : 18 + i % 60},u${i % 50},a${i % 9},s${i % 5},${['', 'news', 'news|cars'][i % 3]}`
const rows = (count: number) => Array.from({ length: count }, (_, i) => row(i)).join('\n')

t.test('clicks.yml, its commands and the program do what they say', async (t) => {
  // Inside of the package's folder, so that the program finds `persia`.
  const folder = join(root, 'build', 'readme')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'days'), { recursive: true })
  for (const day of [1, 2]) writeFileSync(join(folder, 'days', `${day}.csv.gz`), gzipSync(`${header}\n${rows(1500)}\n`))
  writeFileSync(join(folder, 'today.csv'), `${header}\n${rows(7)}\n`)
  const connection = await (await DuckDBInstance.create(':memory:')).connect()
  await connection.run(`copy (from read_csv('${join(folder, 'today.csv')}', all_varchar = true)) to '${join(folder, 'last-day.parquet')}'`)
  writeFileSync(join(folder, 'clicks.yml'), block('yaml', '# clicks.yml'))

  const commands = [...block('sh', 'npx persia train').matchAll(/^npx persia +([^#\n]*)/gm)].map(([, words]) => words!.trim().split(/ +/))
  t.ok(commands.length >= 6)
  for (const words of commands) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'dist', 'cli', 'main.js'), ...words], { cwd: folder, encoding: 'utf8' })
    t.equal(status, 0, `${words.join(' ')}\n${stderr}`)
    if (words[0] === 'predict') t.equal(stdout.trim().split('\n').length, 1 + 7, 'a score a row')
  }

  writeFileSync(join(folder, 'program.ts'), `${block('ts', 'import { Batch, Trainer')}\nconsole.log('probability', probability)\n`)
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../../examples/tsconfig.json',
    compilerOptions: { rootDir: '.', outDir: 'out' }, include: ['program.ts'] }))
  const run = (...words: string[]) => spawnSync(process.execPath, words, { cwd: folder, encoding: 'utf8' })
  const compiled = run(join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.')
  t.equal(compiled.status, 0, compiled.stdout)
  const { status, stdout, stderr } = run('out/program.js')
  t.equal(status, 0, stderr)
  t.match(stdout, /^3 0\.\d+ \d\n\{ click: [\d.]+ \}\nprobability 0\.\d+\n$/)
})
