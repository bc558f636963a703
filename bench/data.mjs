// Data of Criteo's shape: how fast it is prepared, read as batches and made, beside the physical bounds of the same
// files (reading and copying their bytes) and beside pandas and polars reading the text. One core each;
// `npm run bench -- data` runs this and names machine and commit.
//
//   node bench/data.mjs [--rows N] [--rounds N] [--python PYTHON3] [--smoke] [--out FILE]
import { spawnSync } from 'node:child_process'
import {
  appendFileSync, closeSync, mkdtempSync, openSync, readFileSync, readSync, readdirSync, rmSync, statSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const load = (file) => import(pathToFileURL(join(root, 'dist', file)).href)
const { parseConfig } = await load('config/index.js')
const { dataSetConfig } = await load('data/sets/index.js')
const { prepare } = await load('data/prepare.js')
const { writeSynthText } = await load('data/synth.js')
const { columnsOf, openDataset } = await load('train/datasets.js')

const { values } = parseArgs({ options: {
  rows: { type: 'string' }, rounds: { type: 'string' }, python: { type: 'string', default: 'python3' },
  smoke: { type: 'boolean', default: false }, out: { type: 'string' },
} })
const rows = Number(values.rows ?? (values.smoke ? 20_000 : 1_000_000))
const rounds = Number(values.rounds ?? (values.smoke ? 1 : 5))
const batchSize = 4096
const names = (prefix, count) => Array.from({ length: count }, (_, i) => `${prefix}${i + 1}`)
const [dense, tokens] = [names('I', 13), names('C', 26)]
const work = mkdtempSync(join(tmpdir(), 'persia-data-'))
const [text, prepared] = [join(work, 'train.tsv'), join(work, 'prepared')]
try {
  await writeSynthText(text, { like: 'criteo', rows, ids: 0, seed: 1 }, 2, () => {})
  const bytes = statSync(text).size
  const shards = () => readdirSync(join(prepared, 'train')).filter((name) => name.endsWith('.arrow'))
    .map((name) => join(prepared, 'train', name))
  await prepareText()
  const shardBytes = shards().reduce((sum, file) => sum + statSync(file).size, 0)
  const train = { prepared: join(prepared, 'train') }
  const configs = {
    text: reading({ train: rawSource() }), shards: reading({ train }),
    shuffled: reading({ train, shuffle: { buffer: 65536 } }),
    synth: reading({ train: { synth: { like: 'criteo', rows } } }),
  }
  const sides = {
    'text: its bytes read': [bytes, () => readFiles([text])],
    'text: prepared': [bytes, prepareText],
    'text: read as batches (DuckDB)': [bytes, () => readBatches(configs.text)],
    'shards: their bytes copied': [shardBytes, () => copyFiles(shards())],
    'shards: read as batches': [shardBytes, () => readBatches(configs.shards)],
    'shards: read as batches, shuffled': [shardBytes, () => readBatches(configs.shuffled)],
    'synthetic: made as batches': [0, () => readBatches(configs.synth)],
  }
  const seconds = Object.fromEntries(Object.keys(sides).map((name) => [name, []]))
  for (let round = -1; round < rounds; round++) {  // one to warm up
    for (const [name, [, run]] of Object.entries(sides)) {
      const before = process.cpuUsage()
      await run()
      const { user, system } = process.cpuUsage(before)
      if (round >= 0 || rounds === 1) seconds[name].push((user + system) / 1e6)
    }
  }
  console.log(`${rows} rows of Criteo's shape, ${(bytes / rows).toFixed(0)} bytes of text and `
    + `${(shardBytes / rows).toFixed(0)} of shard a row; seconds are those of a core (user + system)`)
  for (const [name, [size]] of Object.entries(sides)) print(name, seconds[name], size)
  for (const line of peers(text)) 'skipped' in line ? skip(line) : print(line.name, line.seconds, bytes)
} finally {
  rmSync(work, { recursive: true })
}

function rawSource() {
  return { path: text, format: 'tsv', columns: ['label', ...dense, ...tokens] }
}

async function prepareText() {
  rmSync(prepared, { recursive: true, force: true })
  const config = parseConfig(await dataSetConfig('criteo', text))
  const columns = columnsOf({ config, baseDir: work })
  await prepare({ ...columns, out: prepared, train: config.data.train, seed: 1, threads: 1 })
}

async function readBatches(config) {
  const dataset = openDataset({ config, baseDir: work }, 'train', {}, { reuseMemory: true })  // as training does
  let read = 0
  for await (const batch of dataset) read += batch.rows
  await dataset.close()
  if (read !== rows) throw new Error(`${read} of ${rows} rows were read`)
}

function reading(data) {
  return parseConfig({
    batchSize,
    data: { ...data, labels: ['label'], dense, transform: 'log1p' },
    features: { columns: Object.fromEntries(tokens.map((name) => [name, {}])) },
  })
}

function readFiles(files) {
  const buffer = Buffer.allocUnsafe(1 << 20)
  for (const file of files) {
    const fd = openSync(file, 'r')
    while (readSync(fd, buffer) > 0);
    closeSync(fd)
  }
}

function copyFiles(files) {
  for (const file of files) {
    const content = readFileSync(file)
    Buffer.allocUnsafeSlow(content.length).set(content)
  }
}

/** What pandas and polars need to read the same text, on one thread. */
function peers(file) {
  const script = join(root, 'bench', 'peers', 'read_tsv.py')
  const { status, stdout } = spawnSync(values.python, [script, file, String(rounds)],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  if (status !== 0) return [{ name: 'pandas and polars', skipped: `${values.python} failed` }]
  return stdout.trim().split('\n').map((line) => JSON.parse(line))
}

function print(name, samples, size) {
  const sorted = [...samples].sort((a, b) => a - b)
  const median = sorted[sorted.length >> 1]
  const perSecond = { rows: rows / median, bytes: size / median }
  const spread = (sorted.at(-1) - sorted[0]) / median
  console.log(`${name.padEnd(36)} ${(perSecond.rows / 1e6).toFixed(2).padStart(7)} M rows/s`
    + (size > 0 ? `  ${(perSecond.bytes / 1e9).toFixed(2).padStart(6)} GB/s` : ' '.repeat(13))
    + `  ± ${(50 * spread).toFixed(0)} %`)
  record({ name, rowsPerSecond: perSecond.rows, bytesPerSecond: perSecond.bytes, seconds: sorted })
}

function skip({ name, skipped }) {
  console.log(`${name.padEnd(36)} skipped: ${skipped}`)
  record({ name, skipped })
}

function record(line) {
  if (values.out) appendFileSync(values.out, `${JSON.stringify(line)}\n`)
}
