// The packed tarball as its users meet it: installed in an empty folder, imported, required, compiled against, run.
// ci/pack-test packs it and names it in PERSIA_TARBALL; `npm test` leaves this file out.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, renameSync, rmSync, statSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'

t.setTimeout(300_000)

const tarball = path.resolve(process.env['PERSIA_TARBALL'] ?? '')
const root = path.resolve(import.meta.dirname, '../../..')
const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'persia-package-')))
const installed = path.join(folder, 'node_modules/persia')
const prebuilds = path.join(installed, 'prebuilds')
t.teardown(() => rmSync(folder, { recursive: true }))

// Nothing of the repository's own npm run may leak into the empty folder.
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_)/i.test(name)))

/** Runs a command in the empty folder; only prebuilt binaries count there. */
function run(command: string, ...args: string[]) {
  return runWith({}, command, ...args)
}

function runWith(more: NodeJS.ProcessEnv, command: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: folder, encoding: 'utf8', env: { ...environment, PREBUILDS_ONLY: '1', npm_config_loglevel: 'error', ...more },
  })
  return { status, stdout, stderr }
}

function write(name: string, text: string): void {
  writeFileSync(path.join(folder, name), text)
}

t.test('the tarball is small and holds only what runs', async (t) => {
  const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n')
  const allowed = /^package\/(dist\/.*\.(js|d\.ts)|ts\/control\/proto\/\w+\.proto|prebuilds\/linux-\w+\/([\w.]+\.node|ucx\/(ucx\/)?lib\w+\.so\.\d)|[A-Z_]+(\.md)?|package\.json)$/
  t.strictSame(files.filter((file) => !allowed.test(file)), [])
  for (const needed of ['LICENSE', 'THIRD_PARTY_LICENSES', 'CHANGELOG.md', 'dist/index.js', 'dist/index.d.ts',
    'ts/control/proto/coordinator.proto']) {
    t.ok(files.includes(`package/${needed}`), needed)
  }
  t.ok(statSync(tarball).size < 10e6, 'less than 10 MB')
})

t.test('it installs in an empty folder without compiling', async (t) => {
  write('package.json', '{ "private": true }')
  const { status, stderr } = run('npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', tarball)
  t.equal(status, 0, stderr)
  t.notOk(readdirSync(installed).includes('build'))
})

t.test('import and require give the same and print no warning', async (t) => {
  const use = `console.log(Object.keys(persia).filter((name) => name !== 'module.exports').sort().join(), persia.hashId('a'))`
  const imported = run('node', '--input-type=module', '-e', `import * as persia from 'persia'; ${use}`)
  const required = run('node', '-e', `const persia = require('persia'); ${use}`)
  t.match(imported, { status: 0, stdout: /Trainer.* \d+n?\n$/, stderr: /^$/ })
  t.strictSame(required, imported)
})

t.test('TypeScript consumers compile, as ES modules and as CommonJS', async (t) => {
  const use = `
export async function train(config: persia.ConfigInput, batch: persia.Batch): Promise<Float32Array> {
  await using trainer = await persia.Trainer.create(config)
  await trainer.step(batch)
  return trainer.predict(batch)
}
// @ts-expect-error staleness is a number
export const wrong: persia.ConfigInput = { staleness: 'many' }
`
  write('esm.mts', `import * as persia from 'persia'${use}`)
  write('cjs.cts', `import persia = require('persia')${use}`)
  for (const source of ['esm.mts', 'cjs.cts']) {
    const { status, stdout } = run(path.join(root, 'node_modules/.bin/tsc'), '--noEmit', '--strict', '--module', 'nodenext',
      '--target', 'es2022', '--lib', 'es2022,esnext.disposable', '--typeRoots', path.join(root, 'node_modules/@types'),
      '--types', 'node', source)
    t.equal(status, 0, `${source}: ${stdout}`)
  }
})

const checksOf = (stdout: string) =>
  stdout.trim().split('\n').map((line) => JSON.parse(line) as { name: string; ok: boolean; found: string })

t.test('the doctor finds the prebuilt binary and the UCX beside it', async (t) => {
  const { status, stdout } = run('npx', '--no-install', 'persia', 'doctor', '--json')
  t.equal(status, 0, stdout)
  const checks = checksOf(stdout)
  t.match(checks.find(({ name }) => name === 'addon'), { ok: true, found: prebuilds })
  t.match(checks.find(({ name }) => name === 'tcp'), { ok: true, found: 'works' })
  t.match(checks.find(({ name }) => name === 'ucx'), { ok: true, found: prebuilds })
})

t.test('the doctor says what a machine without UCX lacks, and how to get it', async (t) => {
  const without = { PERSIA_UCX_LIBRARY: '/nowhere/libucp.so.0' }
  const { status, stdout } = runWith(without, 'npx', '--no-install', 'persia', 'doctor', '--json')
  t.equal(status, 0, 'one process works without it')
  const checks = checksOf(stdout)
  t.match(checks.find(({ name }) => name === 'ucx'), { found: /\/nowhere\/libucp.*apt-get install libucx0/ })
  t.match(checks.find(({ name }) => name === 'tcp'), { found: 'works' })
})

t.test('the command line trains', async (t) => {
  const rows = Array.from({ length: 64 }, (_, i) => `${i % 2},user${i % 7},${i}`)
  write('train.csv', `click,user,age\n${rows.join('\n')}\n`)
  write('persia.yml', `
batchSize: 16
data: { train: { path: train.csv }, labels: [click], dense: [age] }
features: { defaults: { dim: 4 }, columns: { user: } }
model: { hidden: [8] }
`)
  const { status, stdout, stderr } = run('npx', '--no-install', 'persia', 'train', '--config', 'persia.yml', '--json')
  t.equal(status, 0, stderr)
  t.match(JSON.parse(stdout.trim().split('\n').at(-1) ?? ''), { event: 'done', steps: 4 })
})

t.test('a cluster over tcp and the doctor take nothing of UCX from the system', async (t) => {
  // The dynamic loader tells, process by process, which libraries it starts.
  const loads = path.join(folder, 'loads')
  mkdirSync(loads)
  const { status, stdout, stderr } = runWith({ LD_DEBUG: 'files', LD_DEBUG_OUTPUT: path.join(loads, 'of') },
    'npx', '--no-install', 'persia', 'launch', '--config', 'persia.yml', '--json', '--set', 'cluster.transport=tcp',
    '--set', 'cluster.parameterServers=2', '--set', 'checkpoint.dir=cluster')
  t.equal(status, 0, stderr)
  t.match(JSON.parse(stdout.trim().split('\n').at(-1) ?? ''), { event: 'done', steps: 4 })
  t.match(stderr, /parameter-server-1 +\| answered .*, over tcp/)
  const doctor = runWith({ LD_DEBUG: 'files', LD_DEBUG_OUTPUT: path.join(loads, 'of') }, 'npx', '--no-install', 'persia', 'doctor')
  t.equal(doctor.status, 0)
  const started = readdirSync(loads).flatMap((file) =>
    [...readFileSync(path.join(loads, file), 'utf8').matchAll(/calling init: (\S+)/g)].map(([, library]) => library ?? ''))
  const ofUcx = [...new Set(started)].filter((library) => /\/(libuc[mpst]|libuct_\w+|libnuma)\.so/.test(library))
  for (const name of ['libucp', 'libuct', 'libucs', 'libucm', 'libnuma']) {
    t.ok(ofUcx.some((library) => library.includes(`/${name}.so`)), name)
  }
  t.strictSame(ofUcx.filter((library) => !library.startsWith(prebuilds)), [])
})

t.test('the binary runs on glibc 2.34 and libstdc++ 12, as its load error says, and needs nothing else', async (t) => {
  const [platform = ''] = readdirSync(prebuilds)
  const name = readdirSync(path.join(prebuilds, platform)).find((file) => file.endsWith('.node')) ?? ''
  const binary = path.join(prebuilds, platform, name)
  const objdump = (option: string) => execFileSync('objdump', [option, binary], { encoding: 'utf8', maxBuffer: 1 << 28 })
  const libraries = [...objdump('-p').matchAll(/NEEDED\s+(\S+)/g)].map(([, library]) => library ?? '')
  t.strictSame(libraries.filter((library) => !/^(lib(stdc\+\+|m|gcc_s|c)|ld-linux-.*)\.so\.\d+$/.test(library)), [])

  const newest = (symbols: string) => [...objdump('-T').matchAll(new RegExp(`\\b${symbols}_([0-9.]+)`, 'g'))]
    .map(([, version]) => version ?? '').sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1) ?? ''
  for (const [symbols, most] of [['GLIBC', '2.34'], ['GLIBCXX', '3.4.30']] as const) {
    t.comment(`needs ${symbols}_${newest(symbols)}`)
    t.ok(newest(symbols).localeCompare(most, 'en', { numeric: true }) <= 0, `${symbols}_${newest(symbols)} <= ${most}`)
  }
})

t.test('without a binary the error says what was tried and what to do', async (t) => {
  renameSync(prebuilds, `${prebuilds}-away`)
  t.teardown(() => renameSync(`${prebuilds}-away`, prebuilds))
  const { status, stdout } = run('npx', '--no-install', 'persia', 'doctor', '--json')
  t.equal(status, 1)
  t.match(stdout, prebuilds)
  t.match(stdout, /Install a release with a prebuilt binary/)
  t.match(run('node', '-e', `require('persia').hashId('a')`), { status: 1, stderr: /PERSIA_ADDON_NOT_FOUND/ })
})
