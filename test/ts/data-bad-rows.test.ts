// Bad rows: every kind, in both modes, with the exact file, line and column.
import t from 'tap'
import { openReader, type ReaderOptions } from '#persia/data/reader.js'
import { collectStatistics } from '#persia/data/statistics.js'
import { clicks, readAll, runSql, samplesOf, writeFiles } from './data-fixtures.js'

const header = 'user,tags,age,click\n'
const good = 'ann,a,1,1\n'

interface Kind { row: string | Buffer; reason: RegExp; column?: string; value?: string; options?: Partial<ReaderOptions> }

const kinds: Record<string, Kind> = {
  'a dense value that is no number': { row: 'bob,,old,1\n', column: 'age', value: 'old', reason: /^"old" is not a number$/ },
  'a dense value beyond float32': { row: 'bob,,1e300,1\n', column: 'age', value: '1e300', reason: /finite/ },
  'a dense value that is infinite': { row: 'bob,,inf,1\n', column: 'age', value: 'inf', reason: /finite/ },
  'a missing label': { row: 'bob,,1,\n', column: 'click', reason: /missing/ },
  'a label outside of [0, 1]': { row: 'bob,,1,2\n', column: 'click', value: '2', reason: /between 0 and 1/ },
  'a label that is not finite': {
    row: 'bob,,1,nan\n', column: 'click', value: 'nan', reason: /finite/,
    options: { labels: [{ column: 'click', loss: 'mse' }] },
  },
  'a text label': {
    row: 'bob,,1,yes\n', column: 'click', value: 'yes', reason: /labels: \[\{column: click, positive: "yes"\}\]/,
  },
  'an integer id that is none': {
    row: 'bob,12x,1,1\n', column: 'tags', value: '12x', reason: /not an integer/,
    options: { ids: [{ name: 'tags', encoding: 'integer' }] },
  },
  'too few columns': { row: 'bob,,1\n', reason: /expected 4 columns, found 3/ },
  'too many columns': { row: 'bob,,1,1,1\n', reason: /expected 4 columns, found 5/ },
  'text behind a quoted value': { row: '"bob"x,,1,1\n', reason: /quoted value/ },
  'invalid UTF-8': { row: Buffer.from('b\xfcb,,1,1\n', 'latin1'), reason: /UTF-8/ },
}

for (const [kind, { row, reason, column, value, options }] of Object.entries(kinds)) {
  t.test(`${kind}: fail names the place, skip leaves the row out and counts it`, async (t) => {
    const baseDir = t.testdir({})
    const lines = kind.startsWith('an integer') ? good.replace('a,', '7,') : good
    const content = Buffer.concat([Buffer.from(header + lines + lines), Buffer.from(row), Buffer.from(lines)])
    writeFiles(baseDir, { 'in/x.csv': content })
    const reading = { ...clicks, ...options, baseDir, source: { path: ['in/x.csv'] } }
    const place = { file: 'in/x.csv', line: 4, ...(value === undefined ? {} : { value }) }

    const error = await samplesOf(reading).then(() => undefined, (failure) => failure)
    t.match(error, { code: 'PERSIA_DATA_BAD_ROW', details: { ...place, ...(column ? { column } : {}) } })
    t.match(error.message, column ? `in/x.csv line 4, column ${column}: ` : 'in/x.csv line 4: ')
    t.match(error.details.reason, reason)

    const reader = await openReader({ ...reading, onBadRow: 'skip' })
    const { samples, sizes } = await readAll(reader)
    t.same(sizes, [2, 1])
    t.equal(new Set(samples.map((sample) => JSON.stringify(sample.dense))).size, 1, 'only the good rows')
    t.equal(reader.skippedRows, 1)
    t.equal(reader.rowsRead, 4)
    t.match(reader.skippedSamples, [{ ...place, ...(column ? { column } : {}), reason }])
  })
}

t.test('invalid UTF-8 is told in every column that is read, whichever columns before it are not', async (t) => {
  const baseDir = t.testdir({})
  const lines = (row: string) => Buffer.from(`a,b,c,d\n1,x,x,x\n${row}\n0,x,x,x\n`, 'latin1')
  writeFiles(baseDir, { 'b.csv': lines('1,b\xfc,c,d'), 'd.csv': lines('1,b,c,d\xfc') })
  const options = { ...clicks, baseDir, dense: [], labels: [{ column: 'a', loss: 'bce' as const }] }
  const reading = (column: string, file: string) =>
    ({ ...options, source: { path: [file] }, ids: [{ name: column, encoding: 'hash' as const }] })
  for (const column of ['b', 'd']) {
    const bad = reading(column, `${column}.csv`)
    await t.rejects(samplesOf(bad), { code: 'PERSIA_DATA_BAD_ROW', details: { line: 3, reason: /UTF-8/ } })
    const reader = await openReader({ ...bad, onBadRow: 'skip' })
    t.equal((await readAll(reader)).samples.length, 2)
    t.match(reader.skippedSamples, [{ line: 3, column, reason: /UTF-8/ }])
  }
  t.equal((await samplesOf(reading('b', 'd.csv'))).length, 3, 'columns behind the last one are not looked at')
})

t.test('batches before a bad row are whole, nothing comes after it', async (t) => {
  const baseDir = t.testdir({ 'x.csv': header + good.repeat(5) + 'bob,,old,1\n' + good.repeat(5) })
  const reader = await openReader({ ...clicks, baseDir, source: { path: ['x.csv'] } })
  const sizes: number[] = []
  const reading = async () => { for await (const batch of reader) sizes.push(batch.rows) }
  await t.rejects(reading, { code: 'PERSIA_DATA_BAD_ROW', details: { line: 7 } })
  t.same(sizes, [2, 2])
})

t.test('line numbers stay right behind blank lines, rows left out, in later files and chunks', async (t) => {
  const baseDir = t.testdir({})
  writeFiles(baseDir, {
    'a.csv': Buffer.concat([
      Buffer.from(`${header}\n\n${good}too,few\n\n${good}bob,,old,1\n`),  // lines 2, 3 and 6 blank, 5 short, 8 no number
      Buffer.from('b\xfcb,,1,1\n', 'latin1'),                             // line 9
      Buffer.from(`\n${good}bob,,1,7\n`),                                 // line 12
    ]),
    'b.csv': header + good.repeat(9000) + 'bob,,1,\n' + good.repeat(10),
  })
  const options = { ...clicks, baseDir, source: { path: ['a.csv', 'b.csv'] }, batchSize: 100 }
  const reader = await openReader({ ...options, onBadRow: 'skip' })
  const { samples } = await readAll(reader)
  t.equal(samples.length, 3 + 9010)
  t.equal(reader.skippedRows, 5)
  t.same(reader.skippedSamples.map(({ file, line, column }) => [file, line, column]), [
    ['a.csv', 5, 'age'], ['a.csv', 8, 'age'], ['a.csv', 9, 'user'], ['a.csv', 12, 'click'], ['b.csv', 9002, 'click'],
  ])
  await t.rejects(samplesOf({ ...options, source: { path: ['b.csv'] } }),
    { message: 'b.csv line 9002, column click: the label is missing' })
})

t.test('a blank line before the bad row counts as a line in fail mode too', async (t) => {
  const baseDir = t.testdir({ 'x.csv': `${header}${good}\n\n${good}bob,,old,1\n` })
  await t.rejects(samplesOf({ ...clicks, baseDir, source: { path: ['x.csv'] } }),
    { code: 'PERSIA_DATA_BAD_ROW', details: { line: 6 } })
})

t.test('a quote that never ends is no silent loss of the rows behind it', async (t) => {
  const baseDir = t.testdir({ 'x.csv': `${header}${good}"bob,,1,1\n${good}${good}` })
  const options = { ...clicks, baseDir, source: { path: ['x.csv'] } }
  await t.rejects(samplesOf(options), { code: 'PERSIA_DATA_BAD_ROW', details: { line: 3 } })
  const reader = await openReader({ ...options, onBadRow: 'skip' })
  t.equal((await readAll(reader)).samples.length, 1)
  t.match(reader.skippedSamples, [{ line: 3, reason: /quoted value/ }])
})

t.test('Parquet and SQL count rows', async (t) => {
  const baseDir = t.testdir({})
  await runSql(`copy (select 'u' as user, 't' as tags, if(i = 2, 'nan'::double, 1) as age, if(i = 3, null, 1) as click
    from range(5) r(i)) to '${baseDir}/x.parquet'`)
  await t.rejects(samplesOf({ ...clicks, baseDir, source: { path: ['x.parquet'] } }),
    { code: 'PERSIA_DATA_BAD_ROW', message: /^x.parquet row 3, column age: nan is not a finite number/ })
  const reader = await openReader({ ...clicks, onBadRow: 'skip', baseDir, source: { sql: "from 'x.parquet'" } })
  t.equal((await readAll(reader)).samples.length, 3)
  const file = 'sql query'
  t.match(reader.skippedSamples, [{ file, line: 3, column: 'age' }, { file, line: 4, column: 'click' }])
})

t.test('SQL that does not run is unreadable data', async (t) => {
  const options = { ...clicks, baseDir: t.testdir({}) }
  const code = 'PERSIA_DATA_UNREADABLE'
  await t.rejects(openReader({ ...options, source: { sql: 'selec 1' } }), { code, message: /^sql query cannot be read: Parser Error/ })
  const late = "select 'u' as user, 't' as tags, 1 as age, if(i < 9000, '1', 'x')::int as click from range(10000) r(i)"
  await t.rejects(samplesOf({ ...options, source: { sql: late } }), { code, message: /Could not convert string 'x'/ })
})

t.test('only the first bad rows are described, all are counted', async (t) => {
  const baseDir = t.testdir({ 'x.csv': header + 'bob,,old,1\nfew\n'.repeat(3000) + good })
  const reader = await openReader({ ...clicks, onBadRow: 'skip', baseDir, source: { path: ['x.csv'] } })
  t.equal((await readAll(reader)).samples.length, 1)
  t.equal(reader.skippedRows, 6000)
  t.same(reader.skippedSamples.map(({ line }) => line), [2, 3, 4, 5, 6])
})

t.test('rows left out in training are left out of the statistics', async (t) => {
  const baseDir = t.testdir({ 'x.csv': `${header}${good}bob,,1000,7\nfew\nann,a,3,1\n` })
  const dense = [{ column: 'age', transform: 'standardize' as const, missing: 'auto' as const }]
  const options = { ...clicks, dense, onBadRow: 'skip' as const, baseDir, source: { path: ['x.csv'] } }
  t.same((await collectStatistics(options)).statistics, { age: { mean: 2, stddev: 1 } })
})
