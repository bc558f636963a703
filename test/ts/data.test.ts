// Reading: what becomes of the values of a source, in which order, how far ahead.
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { describeColumns, openReader } from '#persia/data/reader.js'
import { collectStatistics } from '#persia/data/statistics.js'
import { clicks, readAll, runSql, samplesOf, writeFiles } from './data-fixtures.js'

// Reads the column user alone.
const userOnly = { ...clicks, ids: [{ name: 'user', encoding: 'integer' as const }], dense: [], labels: 'none' as const }

const csv = 'user,tags,age,click\nann,a|b,31,1\nbob,,,0\n"carl, jr",b||c,4.5,1\n'

t.test('ids are XXH64 of the text, missing ones are none, several are split', async (t) => {
  const baseDir = t.testdir({ 'x.csv': 'user,tags,age,click\na,|a||,1,0\n"",b,2,1\nn/a,n/a,n/a,0\n' })
  const read = (missing: string[]) => samplesOf({ ...clicks, baseDir, missing, source: { path: ['x.csv'] } })
  const a = 0xd24ec4f1a98c6e5bn
  const samples = await read(['n/a'])
  t.same(samples.map(({ ids }) => ids[0]), [[a], [0xef46db3751d8e999n], []], 'an empty text is a value unless listed')
  t.same(samples[0]?.ids[1], [a])
  t.same(samples[2], { ids: [[], []], dense: [0], labels: [0] })
})

t.test('every format gives the same samples', async (t) => {
  const baseDir = t.testdir({})
  writeFiles(baseDir, {
    'x.csv': csv, 'x.csv.gz': csv, 'crlf.csv': csv.replaceAll('\n', '\r\n'), 'bom.csv': '\ufeff' + csv,
    'x.tsv': 'user\ttags\tage\tclick\nann\ta|b\t31\t1\nbob\t\t\t0\ncarl, jr\tb||c\t4.5\t1\n',
    'semicolon.txt': 'ann;a|b;31;1\nbob;;;0\ncarl, jr;b||c;4.5;1',
  })
  await runSql(`copy (from read_csv('${baseDir}/x.csv', all_varchar = true)) to '${baseDir}/x.csv.zst'
    (format csv, header, compression zstd)`)
  await runSql(`copy (select user, string_split(tags, '|') as tags, age::float as age, click::int as click
    from read_csv('${baseDir}/x.csv')) to '${baseDir}/x.parquet'`)
  const expected = await samplesOf({ ...clicks, baseDir, source: { path: ['x.csv'] } })
  const summary = expected.map(({ dense, labels, ids }) => [...dense, ...labels, ids[1]?.length])
  t.same(summary, [[31, 1, 2], [0, 0, 0], [4.5, 1, 2]])
  const sources = [
    ...['x.csv.gz', 'x.csv.zst', 'crlf.csv', 'bom.csv', 'x.tsv', 'x.parquet'].map((path) => ({ path: [path] })),
    { path: ['semicolon.txt'], format: 'csv' as const, delimiter: ';', columns: ['user', 'tags', 'age', 'click'] },
    { sql: "select * from 'x.parquet'; " },
    { sql: "select user, tags, age, click from read_csv('x.csv', all_varchar = true) -- all of it" },
  ]
  for (const source of sources) t.same(await samplesOf({ ...clicks, baseDir, source }), expected, JSON.stringify(source))
})

t.test('the same value has the same id in CSV and in every column type of Parquet', async (t) => {
  const baseDir = t.testdir({ 'x.csv': 'user\n12\n-3\n' })
  await runSql(['int', 'bigint', 'smallint', 'varchar', 'decimal(9, 0)'].map((type, i) =>
    `copy (select unnest([12, -3])::${type} as user) to '${baseDir}/${i}.parquet';`).join(''))
  for (const encoding of ['hash', 'integer'] as const) {
    const only = { ...clicks, ids: [{ name: 'user', encoding }], dense: [], labels: 'none' as const, baseDir }
    const expected = await samplesOf({ ...only, source: { path: ['x.csv'] } })
    if (encoding === 'integer') t.same(expected.map(({ ids }) => ids[0]), [[12n], [BigInt.asUintN(64, -3n)]])
    for (let i = 0; i < 5; i++) {
      t.same(await samplesOf({ ...only, source: { path: [`${i}.parquet`] } }), expected, `${encoding} ${i}`)
    }
  }
})

t.test('lists of any length, also longer than a chunk, keep to their rows', async (t) => {
  const baseDir = t.testdir({})
  await runSql(`copy (select case i % 3 when 0 then null when 1 then [] else list_transform(range(i % 7), x -> x + i) end
    as user from range(5000) r(i)) to '${baseDir}/x.parquet'; copy (select range(10000) as user) to '${baseDir}/long.parquet'`)
  const only = { ...userOnly, baseDir, batchSize: 1000 }
  const samples = await samplesOf({ ...only, source: { path: ['x.parquet'] } })
  t.equal(samples.length, 5000)
  const wrong = samples.findIndex(({ ids }, i) =>
    ids[0]?.join() !== (i % 3 === 2 ? Array.from({ length: i % 7 }, (_, x) => x + i) : []).join())
  t.equal(wrong, -1)
  const [long] = await samplesOf({ ...only, source: { path: ['long.parquet'] } })
  t.equal(long?.ids[0]?.length, 10000)
  t.equal(long?.ids[0]?.[9999], 9999n)
})

t.test('dictionary-coded and constant Parquet columns give the same as CSV', async (t) => {
  const baseDir = t.testdir({})
  const rows = `select 'a user with a long name ' || (i % 50) as user, if(i % 10 = 0, null, 'tag' || (i % 3)) as tags,
    1.5 as age, (i % 2)::double as click from range(10000) r(i)`
  await runSql(`copy (${rows}) to '${baseDir}/x.parquet'; copy (${rows}) to '${baseDir}/x.csv'`)
  const read = (path: string) => samplesOf({ ...clicks, baseDir, batchSize: 999, source: { path: [path] } })
  t.same(await read('x.parquet'), await read('x.csv'))
})

t.test('a file that mixes line endings is refused', async (t) => {
  const baseDir = t.testdir({ 'x.csv': 'user,tags,age,click\na,,1,1\r\nb,,2,1\n' })
  await t.rejects(samplesOf({ ...clicks, baseDir, source: { path: ['x.csv'] } }),
    { code: 'PERSIA_DATA_UNREADABLE', message: /some lines end in/ })
})

t.test('files and globs are read in order, what matches nothing is named', async (t) => {
  const file = (user: number) => `user\n${user}\n`
  const baseDir = t.testdir({ 'b[1].csv': file(1), part: { '10.csv': file(10), '2.csv': file(2), '1.csv': file(3) } })
  const options = { ...userOnly, baseDir }
  const samples = await samplesOf({ ...options, source: { path: ['b[1].csv', 'part/*.csv'] } })
  t.same(samples.map(({ ids }) => ids[0]?.[0]), [1n, 3n, 10n, 2n])
  await t.rejects(openReader({ ...options, source: { path: ['b[1].csv', 'nope/*.csv'] } }),
    { code: 'PERSIA_DATA_NOT_FOUND', details: { file: 'nope/*.csv' } })
  await t.rejects(openReader({ ...options, source: { path: ['part'] } }), { code: 'PERSIA_DATA_NOT_FOUND' })
})

t.test('a missing column is named with the nearest one, before anything is read', async (t) => {
  const baseDir = t.testdir({ 'x.csv': csv, 'old.csv': 'usr,tags,age,click\n' })
  await t.rejects(openReader({ ...clicks, baseDir, source: { path: ['x.csv', 'old.csv'] } }), {
    code: 'PERSIA_DATA_MISSING_COLUMN', message: 'old.csv has no column user. Did you mean usr?',
    details: { file: 'old.csv', column: 'user' },
  })
  t.same((await describeColumns({ path: ['old.csv'] }, baseDir)).map(({ name }) => name), ['usr', 'tags', 'age', 'click'])
})

t.test('a Parquet column of an unfit type is refused, a text column with numbers is read', async (t) => {
  const baseDir = t.testdir({})
  await runSql(`copy (select 'a' as user, null::varchar as tags, date '2024-01-01' as age, '1' as click)
    to '${baseDir}/x.parquet'`)
  const source = { path: ['x.parquet'] }
  await t.rejects(openReader({ ...clicks, baseDir, source }),
    { code: 'PERSIA_DATA_UNREADABLE', message: /column age has the type DATE/ })
  t.same((await samplesOf({ ...clicks, dense: [], baseDir, source }))[0]?.labels, [1])
})

t.test('an empty file is refused, a header alone gives no batches', async (t) => {
  const baseDir = t.testdir({ 'empty.csv': '', 'header.csv': 'user,tags,age,click\n' })
  await t.rejects(openReader({ ...clicks, baseDir, source: { path: ['empty.csv'] } }), { code: 'PERSIA_DATA_UNREADABLE' })
  t.same(await samplesOf({ ...clicks, baseDir, source: { path: ['header.csv'] } }), [])
  await t.rejects(openReader({ ...clicks, baseDir, source: { path: ['header.csv'], header: false } }),
    { code: 'PERSIA_CONFIG_INVALID' })
})

t.test('files cut off or damaged are refused, not read half', async (t) => {
  const baseDir = t.testdir({})
  const rows = Array.from({ length: 20000 }, (_, i) => `user${i * 7919 % 20011},,${i},1`).join('\n')
  const whole = gzipSync(`user,tags,age,click\n${rows}\n`)
  const flipped = Buffer.from(whole)
  flipped[flipped.length - 6]! ^= 1  // in the checksum
  await runSql(`copy (select 'user' || i as user, '' as tags, i as age, 1 as click from range(20000) r(i))
    to '${baseDir}/x.csv.zst' (format csv, header, compression zstd)`)
  writeFiles(baseDir, {
    'cut.csv.gz': whole.subarray(0, whole.length >> 1), 'flipped.csv.gz': flipped,
    'cut.csv.zst': readFileSync(`${baseDir}/x.csv.zst`).subarray(0, -1),
  })
  t.equal((await samplesOf({ ...clicks, baseDir, batchSize: 4096, source: { path: ['x.csv.zst'] } })).length, 20000)
  for (const onBadRow of ['fail', 'skip'] as const) {
    for (const file of ['cut.csv.gz', 'flipped.csv.gz', 'cut.csv.zst']) {
      await t.rejects(samplesOf({ ...clicks, onBadRow, baseDir, batchSize: 4096, source: { path: [file] } }),
        { code: 'PERSIA_DATA_UNREADABLE', details: { file } }, `${onBadRow} ${file}`)
    }
  }
})

t.test('standardize uses the statistics of the present values, the same bits every time', async (t) => {
  const baseDir = t.testdir({
    'x.csv': 'user,tags,age,click\na,,2,1\nb,,4,0\nc,,,1\nd,,9,0\n',
    'test.csv': 'user,tags,age,click\na,,8,1\nb,,,1\n',
  })
  const dense = [{ column: 'age', transform: 'standardize' as const, missing: 'auto' as const }]
  const options = { ...clicks, dense, baseDir, source: { path: ['x.csv'] } }
  const { statistics, rows } = await collectStatistics(options)
  t.same(statistics, { age: { mean: 5, stddev: Math.sqrt(26 / 3) } })
  t.equal(rows, 4)
  const kept = JSON.parse(JSON.stringify(statistics))
  const test = await samplesOf({ ...options, statistics: kept, source: { path: ['test.csv'] } })
  t.same(test.map(({ dense }) => dense[0]), [Math.fround(3 / Math.sqrt(26 / 3)), 0])
  await t.rejects(openReader(options), { code: 'PERSIA_USAGE', message: /^column age has transform: standardize.*readStatistics/ })
  t.same(await collectStatistics({ ...options, dense: clicks.dense }), { statistics: {}, rows: null }, 'nothing to collect')

  await runSql(`copy (select 'a' as user, '' as tags, sin(i) * 1e6 as age, 1 as click from range(100000) r(i))
    to '${baseDir}/big.csv'`)
  const big = { ...options, batchSize: 4096, source: { path: ['big.csv'] } }
  t.same(await collectStatistics({ ...big, threads: 4 }), await collectStatistics({ ...big, threads: 1 }))
})

t.test('log1p keeps the sign, a missing number is transformed like any other', async (t) => {
  const baseDir = t.testdir({ 'x.csv': 'user,tags,age,click\na,,-3,1\nb,,,1\n' })
  const dense = [{ column: 'age', transform: 'log1p' as const, missing: 7 }]
  const samples = await samplesOf({ ...clicks, dense, baseDir, source: { path: ['x.csv'] } })
  t.same(samples.map(({ dense }) => dense[0]), [Math.fround(-Math.log1p(3)), Math.fround(Math.log1p(7))])
})

t.test('a large file', async (t) => {
  const baseDir = t.testdir({})
  const total = 100_000
  await runSql(`copy (select i as user, 'tag' || (i % 97) as tags, i / 7.0 as age, i % 2 as click from range(${total}) r(i))
    to '${baseDir}/big.csv'`)
  const options = {
    ...clicks, ids: userOnly.ids, batchSize: 1000, baseDir, source: { path: ['big.csv'] }, threads: 4,
  }
  t.test('comes in the order of the file from several threads', async (t) => {
    const { samples, sizes } = await readAll(await openReader(options))
    t.equal(samples.findIndex(({ ids }, i) => ids[0]?.[0] !== BigInt(i)), -1)
    t.same(new Set(sizes), new Set([1000]))
    t.equal(samples.length, total)
  })
  t.test('resumes behind the batches it skips', async (t) => {
    const { samples } = await readAll(await openReader({ ...options, skipBatches: 97 }))
    t.same(samples.map(({ ids }) => ids[0]?.[0]), Array.from({ length: 3000 }, (_, i) => BigInt(97_000 + i)))
  })
  t.test('is not read further than a few batches ahead of the consumer', async (t) => {
    const reader = await openReader({ ...options, readAhead: 4 })
    t.teardown(() => reader.close())
    const batches = reader[Symbol.asyncIterator]()
    await batches.next()
    await sleep(300)
    t.ok(reader.rowsRead <= 5 * 1000 + 2 * 2048, `${reader.rowsRead} rows were read`)
    const before = reader.rowsRead
    for (let i = 0; i < 20; i++) await batches.next()
    t.ok(reader.rowsRead > before)
  })
  t.test('can be left early, and closed at any time and twice', async (t) => {
    const left = await openReader(options)
    for await (const batch of left) {
      t.equal(batch.rows, 1000)
      break
    }
    t.ok(left.rowsRead < total)
    const unread = await openReader(options)
    await unread.close()
    await unread.close()
    await t.rejects(readAll(unread), { code: 'PERSIA_CLOSED' })
    const busy = await openReader(options)
    const next = busy[Symbol.asyncIterator]().next()
    const [, outcome] = await Promise.all([busy.close(), next.catch((error) => error)])
    t.ok(outcome.code === 'PERSIA_CLOSED' || outcome.value?.rows === 1000 || outcome.done)
  })
})

t.test('a URL needs an extension of DuckDB, which is never downloaded; the error says so', async (t) => {
  const reading = openReader({ ...userOnly, baseDir: t.testdir({}), source: { path: ['s3://no-such-bucket/x.csv'] } })
  const error = await reading.then(() => undefined, (failure) => failure)
  // Where httpfs is installed it is the bucket that is not found.
  t.ok(['PERSIA_CONFIG_UNSUPPORTED', 'PERSIA_DATA_NOT_FOUND'].includes(error.code), error.message)
  if (error.code === 'PERSIA_CONFIG_UNSUPPORTED') t.match(error.message, /s3:\/\/no-such-bucket\/x.csv needs DuckDB's extension httpfs/)
})

t.test('a URL in a query says the same', async (t) => {
  const sql = "select * from read_csv('s3://no-such-bucket/x.csv')"
  const error = await openReader({ ...userOnly, baseDir: t.testdir({}), source: { sql } }).then(() => undefined, (failure) => failure)
  if (error.code !== 'PERSIA_CONFIG_UNSUPPORTED') t.equal(error.code, 'PERSIA_DATA_UNREADABLE')  // httpfs is installed
  else t.match(error.message, /^data.sql needs DuckDB's extension httpfs, which is not installed/)
})
