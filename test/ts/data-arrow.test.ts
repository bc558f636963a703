// Arrow files and streams as a source: every form that pyarrow and polars write, and files that are damaged.
import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  Dictionary, Float32, Float64, Int64, Int8, List, Field, Table, TimestampNanosecond, Uint64, Utf8, makeData, makeVector,
  tableToIPC, vectorFromArray,
} from 'apache-arrow'
import t, { type Test } from 'tap'
import { describeColumns, openReader, type ReaderOptions } from '#persia/data/reader.js'
import { hashId } from '#persia/index.js'
import { readAll, runSql, samplesOf, writeFiles, type Sample } from './data-fixtures.js'

t.setTimeout(120_000)

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')
const corpus = join(root, 'test', 'fuzz', 'corpus', 'fuzz_arrow_file')
const rows = 100

const wanted: Omit<ReaderOptions, 'source' | 'baseDir'> = {
  ids: [
    ...['user', 'city', 'tags', 'score', 'day', 'seen'].map((name) => ({ name, encoding: 'hash' as const })),
    { name: 'item', encoding: 'integer' },
  ],
  dense: [{ column: 'age', transform: 'none', missing: -1 }],
  labels: [{ column: 'click', loss: 'bce' }],
  missing: [''],
  onBadRow: 'fail',
  batchSize: 16,
}

const golden = (name: string): ReaderOptions => ({ ...wanted, source: { path: [name] }, baseDir: corpus })

const texts = (...values: (string | null)[]) => values.flatMap((value) => (value === null ? [] : [hashId(value)]))

/** 1969-12-31 23:59:58.25 */
const timeText = (milliseconds: number) =>
  new Date(milliseconds).toISOString().replace('T', ' ').replace('Z', '').replace(/\.?0*$/, '')

/** Row i of the table that test/golden/arrow_golden.py writes. */
function sample(i: number): Sample {
  const tag = (j: number) => ((i + j) % 4 === 3 ? null : `t${(i + j) % 9}`)
  const tags = i % 5 === 0 ? [] : Array.from({ length: i % 4 }, (_, j) => tag(j))
  const score = i * 2.5
  return {
    ids: [
      texts(i % 7 === 0 ? null : i % 2 === 1 ? `user-${i}-with-a-long-name` : `u${i}`),
      texts(i % 11 === 0 ? null : ['Zürich', 'Bern', 'a city with a long name'][i % 3]!),
      texts(...tags),
      texts(Number.isInteger(score) ? `${score}.0` : `${score}`),
      texts(new Date(Date.UTC(2024, 1, 25 + (i % 10))).toISOString().slice(0, 10)),
      texts(timeText(-2000 + 250 * i)),
      [BigInt.asUintN(64, BigInt(i - 50) * 10n ** 14n)],
    ],
    dense: [i % 13 === 0 ? -1 : i / 4],
    labels: [i % 3 === 0 ? 1 : 0],
  }
}

const all = Array.from({ length: rows }, (_, i) => sample(i))

for (const [name, what] of Object.entries({
  'plain.arrow': 'a file', 'large.arrow': 'texts and lists with 64-bit offsets, and wider numbers',
  'lz4.arrow': 'buffers compressed with LZ4', 'zstd.arrow': 'buffers compressed with Zstandard',
  'stream.arrows': 'a stream', 'replaced.arrows': 'a stream whose dictionaries are replaced on the way',
  'delta.arrows': 'a stream whose dictionaries grow', 'polars.arrow': 'views of texts',
  'polars-zstd.arrow': 'compressed views of texts',
})) {
  t.test(`${name}: ${what}`, async (t) => {
    t.same(await samplesOf(golden(name)), all)
  })
}

t.test('files of several forms are one source, read in order, whatever the size of batches', async (t) => {
  const source = { path: ['plain.arrow', 'stream.arrows', 'polars*.arrow'] }
  const { samples, sizes } = await readAll(await openReader({ ...golden(''), source, batchSize: 150 }))
  t.same(sizes, [150, 150, 100])
  t.same(samples, [...all, ...all, ...all, ...all])
})

t.test('a resumed reader leaves out the batches that were trained on', async (t) => {
  t.same(await samplesOf({ ...golden('lz4.arrow'), skipBatches: 3 }), all.slice(48))
})

t.test('shuffled rows are the same rows, in an order that a seed draws', async (t) => {
  const shuffle = { files: true, buffer: 64, seed: 1, epoch: 0 }
  const shuffled = await samplesOf({ ...golden('plain.arrow'), shuffle })
  t.notSame(shuffled, all)
  t.same(await samplesOf({ ...golden('zstd.arrow'), shuffle }), shuffled)
  t.same(new Set(shuffled.map(String)).size, new Set(all.map(String)).size)
})

t.test('a split by time and one by hash put every row on one side', async (t) => {
  for (const rule of [
    { by: 'time', column: 'item', from: 0 }, { by: 'time', column: 'day', from: '2024-03-01' },
    { by: 'hash', column: 'score', test: 0.3 },
  ] as const) {
    const [train, test] = await Promise.all((['train', 'test'] as const).map((side) =>
      samplesOf({ ...golden('plain.arrow'), split: { rule, seed: 1, side } })))
    t.equal(train!.length + test!.length, rows)
    t.ok(test!.length > 10 && train!.length > 10)
  }
})

t.test('numbers have the ids that they have in a Parquet file', async (t) => {
  const folder = t.testdir()
  const doubles = [0, 1, 12, 0.1, 1e15, 1e16, 9007199254740993, 123456789012345680, 1e-4, 1e-5, 1.5e30, -2.5, 5e-324,
    1 / 3, 100, 1e22, 2 ** 53 + 2, NaN, Infinity, -Infinity,
    ...Array.from({ length: 500 }, (_, i) => Math.sin(i) * 10 ** (i % 40 - 20))]
  const floats = doubles.map((_, i) => (i % 3 - 1) * 2 ** (i % 30 - 5) || 0)
  const list = doubles.map((value, i) => `('${value}'::double, ${floats[i]}::float)`).join(',')
  await runSql(`copy (select d as double, f as float from (values ${list}) v(d, f)) to '${folder}/x.parquet'`)
  writeFiles(folder, { 'x.arrow': Buffer.from(tableToIPC(new Table({
    double: makeVector(Float64Array.from(doubles)), float: makeVector(Float32Array.from(floats)),
  }), 'file')) })
  const options = { ...wanted, baseDir: folder, labels: 'none' as const, dense: [],
    ids: ['double', 'float'].map((name) => ({ name, encoding: 'hash' as const })) }
  const parquet = await samplesOf({ ...options, source: { path: ['x.parquet'] } })
  const arrow = await samplesOf({ ...options, source: { path: ['x.arrow'] } })
  for (const [i, value] of doubles.entries()) t.same(arrow[i], parquet[i], `${value}`)
})

t.test('times of nanoseconds have the ids that they have in a Parquet file', async (t) => {
  const folder = t.testdir()
  const times = [1199145601889268321n, 1199145601889268000n, 1199145601889000000n, 1199145601000000000n, 1n, -1n, 1500n,
    -86400000000001n]
  const list = times.map((time) => `(make_timestamp_ns(${time}))`).join(',')
  await runSql(`copy (select seen from (values ${list}) v(seen)) to '${folder}/x.parquet'`)
  const seen = makeVector(makeData({ type: new TimestampNanosecond(), data: BigInt64Array.from(times) }))
  writeFiles(folder, { 'x.arrow': Buffer.from(tableToIPC(new Table({ seen }), 'file')) })
  const options = { ...wanted, baseDir: folder, labels: 'none' as const, dense: [],
    ids: [{ name: 'seen', encoding: 'hash' as const }] }
  const arrow = await samplesOf({ ...options, source: { path: ['x.arrow'] } })
  t.same(arrow, await samplesOf({ ...options, source: { path: ['x.parquet'] } }))
  t.same(arrow[0]!.ids, [texts('2008-01-01 00:00:01.889268321')])
})

t.test('two columns with one dictionary and different values are refused', async (t) => {
  const folder = t.testdir()
  const table = new Table({
    user: vectorFromArray(['a', 'b'], new Dictionary(new Utf8(), new Int8(), 0x12345671)),
    item: vectorFromArray([1n, 2n], new Dictionary(new Int64(), new Int8(), 0x12345672)),
  })
  const bytes = Buffer.from(tableToIPC(table, 'file'))
  const other = Buffer.from([0x72, 0x56, 0x34, 0x12])
  for (let at = bytes.indexOf(other); at >= 0; at = bytes.indexOf(other)) bytes[at] = 0x71
  writeFiles(folder, { 'x.arrow': bytes })
  await t.rejects(openReader({ ...wanted, baseDir: folder, source: { path: ['x.arrow'] } }),
    { code: 'PERSIA_DATA_UNREADABLE', message: /x.arrow .*have one dictionary, but not the same type/ })
})

t.test('what apache-arrow writes: dictionaries, lists of integers, unsigned integers', async (t) => {
  const folder = t.testdir()
  const table = new Table({
    user: vectorFromArray(['a', 'b', null, 'a'], new Dictionary(new Utf8(), new Int8())),
    ids: vectorFromArray([[1n, 2n], [], null, [2n ** 63n - 1n]], new List(new Field('item', new Int64()))),
    big: vectorFromArray([2n ** 64n - 1n, 0n, 1n, 2n], new Uint64()),
    age: vectorFromArray([1, 2, null, 4], new Float32()),
    click: vectorFromArray([0, 1, 0, 1], new Float64()),
  })
  writeFiles(folder, { 'x.arrow': Buffer.from(tableToIPC(table, 'file')), 'y.arrow': Buffer.from(tableToIPC(table)) })
  const options: ReaderOptions = { ...wanted, baseDir: folder, source: { path: ['x.arrow', 'y.arrow'] }, batchSize: 3,
    ids: [
      { name: 'user', encoding: 'hash' }, { name: 'ids', encoding: 'integer' }, { name: 'big', encoding: 'integer' },
    ] }
  const expected = [
    { ids: [texts('a'), [1n, 2n], [2n ** 64n - 1n]], dense: [1], labels: [0] },
    { ids: [texts('b'), [], [0n]], dense: [2], labels: [1] },
    { ids: [[], [], [1n]], dense: [-1], labels: [0] },
    { ids: [texts('a'), [2n ** 63n - 1n], [2n]], dense: [4], labels: [1] },
  ]
  t.same(await samplesOf(options), [...expected, ...expected])
  t.same(await describeColumns(options.source, folder), [
    { name: 'user', type: 'VARCHAR' }, { name: 'ids', type: 'BIGINT[]' }, { name: 'big', type: 'UBIGINT' },
    { name: 'age', type: 'FLOAT' }, { name: 'click', type: 'DOUBLE' },
  ])
})

t.test('bad rows are told by their number, or left out and counted', async (t) => {
  const folder = t.testdir()
  const clicks = vectorFromArray(Array.from({ length: 5000 }, (_, i) => (i === 4000 ? 7 : i % 2)), new Float64())
  const users = vectorFromArray(Array.from({ length: 5000 }, (_, i) => `u${i}`), new Utf8())
  writeFiles(folder, { 'x.arrow': Buffer.from(tableToIPC(new Table({ user: users, click: clicks }), 'file')) })
  const options: ReaderOptions = { ...wanted, ids: [{ name: 'user', encoding: 'hash' }], dense: [], baseDir: folder,
    source: { path: ['x.arrow'] } }
  await t.rejects(samplesOf(options), { code: 'PERSIA_DATA_BAD_ROW', message: /^x\.arrow row 4001, column click: / })
  const reader = await openReader({ ...options, onBadRow: 'skip' })
  t.equal((await readAll(reader)).samples.length, 4999)
  t.equal(reader.skippedRows, 1)
  t.match(reader.skippedSamples, [{ file: 'x.arrow', line: 4001, column: 'click' }])
})

t.test('a column that cannot be read as what is wanted is named with its type', async (t) => {
  const number = { ...golden('plain.arrow'), dense: [{ column: 'day', transform: 'none' as const, missing: 0 }] }
  await t.rejects(openReader(number), { code: 'PERSIA_DATA_UNREADABLE',
    message: 'plain.arrow, column day has the type DATE, expected numbers. Convert it where the file is written.' })
  const missing = { ...golden('plain.arrow'), ids: [{ name: 'usr', encoding: 'hash' as const }] }
  await t.rejects(openReader(missing), { code: 'PERSIA_DATA_MISSING_COLUMN', message: /Did you mean user\?/ })
})

async function damaged(t: Test, name: string, change: (bytes: Buffer) => Buffer): Promise<string> {
  const folder = t.testdir()
  writeFiles(folder, { [name]: change(readFileSync(join(corpus, name))) })
  try {
    const samples = await samplesOf({ ...golden(name), baseDir: folder })
    return JSON.stringify(samples, (_, value) => (typeof value === 'bigint' ? String(value) : value))
  } catch (error) {
    const { code, message, details } = error as { code: string; message: string; details: { file?: string } }
    if (code !== 'PERSIA_DATA_BAD_ROW' && code !== 'PERSIA_DATA_MISSING_COLUMN') {
      t.equal(code, 'PERSIA_DATA_UNREADABLE', message)
    }
    t.equal(details.file, name)
    return message
  }
}

t.test('a file or stream that is cut off anywhere is refused, and named', async (t) => {
  for (const name of ['plain.arrow', 'stream.arrows', 'lz4.arrow']) {
    const { length } = readFileSync(join(corpus, name))
    for (let keep = 0; keep < length; keep += 97) {
      t.match(await damaged(t, name, (bytes) => bytes.subarray(0, keep)),
        new RegExp(`^${name} cannot be read: (it is cut off|it is neither an Arrow file nor an Arrow stream)`))
    }
    t.match(await damaged(t, name, (bytes) => bytes.subarray(0, length - 1)), /it is cut off/)
  }
})

t.test('what is no Arrow file is refused, and so is what stands behind a stream', async (t) => {
  t.match(await damaged(t, 'plain.arrow', () => Buffer.from('user,click\na,1\n')), /neither an Arrow file nor/)
  t.match(await damaged(t, 'stream.arrows', (bytes) => Buffer.concat([bytes, bytes])), /behind the end of the stream/)
})

t.test('whatever bit is flipped, the process goes on: the file is refused, or read with a value changed', async (t) => {
  for (const name of readdirSync(corpus).filter((file) => file !== 'shard.arrow')) {
    const { length } = readFileSync(join(corpus, name))
    for (let at = 0; at < length; at += 509) {
      const message = await damaged(t, name, (bytes) => {
        bytes[at]! ^= 1 << (at % 8)
        return bytes
      })
      t.ok(message.length > 0)
    }
  }
})

t.test('files on another machine are refused before anything is read', async (t) => {
  await t.rejects(openReader({ ...golden(''), source: { path: ['https://127.0.0.1:9/x.arrow'] } }),
    { code: 'PERSIA_CONFIG_UNSUPPORTED', message: /Arrow files are mapped into memory/ })
})
