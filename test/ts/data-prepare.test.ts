// Prepared data: any source becomes shards that give the same samples as the source itself; malformed data is told or
// left out as the config says; a run that was cut off goes on to the same bytes.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { Table, Utf8, tableFromIPC, tableToIPC, vectorFromArray } from 'apache-arrow'
import t from 'tap'
import { batchNumbers, readBatches } from '#persia/data/indexed.js'
import { prepare, type PrepareOptions } from '#persia/data/prepare.js'
import { openPreparedData } from '#persia/data/prepared.js'
import { openReader } from '#persia/data/reader.js'
import type { DataSource, RowSplit } from '#persia/data/source.js'
import { clicks, columnsOfBatches, readAll, runSql, writeFiles, type Sample } from './data-fixtures.js'
import { contents } from './folders.js'

const header = 'user,tags,age,click\n'
const line = (i: number) =>
  `${i % 7 === 0 ? '' : `user ${i}`},${['', 'a', 'a|b', '"x, ""y"""'][i % 4]},${i % 5 === 0 ? '' : i / 4},${i % 3 === 0 ? 1 : 0}\n`
const lines = (count: number) => Array.from({ length: count }, (_, i) => line(i)).join('')

function options(baseDir: string, source: DataSource, more: Partial<PrepareOptions> = {}): PrepareOptions {
  const { ids, dense, labels, missing, onBadRow } = clicks
  if (labels === 'none') throw new Error('the fixture has labels')
  return { out: join(baseDir, 'out'), baseDir, train: source, seed: 3, ids, dense, labels, missing, onBadRow, threads: 2, ...more }
}

async function samplesOfPrepared(baseDir: string, folder: string): Promise<Sample[]> {
  const source = await openPreparedData({ ...clicks, baseDir, folder, batchSize: 100 })
  const { samples } = await columnsOfBatches(readBatches(source, batchNumbers(source.batches, 0, { index: 0, count: 1 }), 2))
  return samples
}

t.test('every kind of source gives the samples that training reads from it, in parts of any size', async (t) => {
  const baseDir = t.testdir({})
  const text = header + lines(500)
  writeFiles(baseDir, {
    'x.csv': text, 'x.csv.gz': text, 'crlf.csv': text.replaceAll('\n', '\r\n'), 'bom.csv': '\ufeff' + text,
    'x.tsv': text.replaceAll(/,(?! )/g, '\t').replaceAll('"x, ""y"""', 'x'), 'blank.csv': text.replaceAll('\n', '\n\n'),
  })
  await runSql(`copy (from read_csv('${baseDir}/x.csv', all_varchar = true)) to '${baseDir}/x.parquet';
    copy (from read_csv('${baseDir}/x.csv', all_varchar = true)) to '${baseDir}/x.csv.zst' (format csv, header, compression zstd)`)
  const texts = lines(500).split('\n').slice(0, -1).map((row) => row.match(/("(""|[^"])*"|[^,]*)(,|$)/g)!.slice(0, 4)
    .map((field) => field.replace(/,$/, '').replace(/^"(.*)"$/, (_, value: string) => value.replaceAll('""', '"'))))
  const table = new Table(Object.fromEntries(['user', 'tags', 'age', 'click'].map((name, i) =>
    [name, vectorFromArray(texts.map((row) => row[i] || null), new Utf8())])))
  writeFiles(baseDir, { 'x.arrow': Buffer.from(tableToIPC(table, 'file')), 'x.arrows': Buffer.from(tableToIPC(table)) })
  const sources: DataSource[] = [
    { path: ['x.arrow', 'x.arrows'] },
    ...['x.csv', 'x.csv.gz', 'bom.csv', 'x.csv.zst', 'x.parquet', 'crlf.csv', 'x.tsv'].map((path) => ({ path: [path] })),
    { path: ['*.csv.gz', 'x.csv'] }, { sql: "from 'x.parquet'" },
  ]
  for (const source of sources) {
    const { samples: expected } = await readAll(await openReader({ ...clicks, baseDir, source }))
    for (const [partBytes, partRows] of [[1000, 100], [1 << 26, 1 << 18]] as const) {
      rmSync(join(baseDir, 'out'), { recursive: true, force: true })
      const { card } = await prepare(options(baseDir, source, { partBytes, partRows }))
      t.equal(card.train.rows, expected.length, JSON.stringify(source))
      t.same(await samplesOfPrepared(baseDir, 'out/train'), expected, JSON.stringify([source, partBytes]))
    }
  }
  t.test('blank lines are left out', async (t) => {
    rmSync(join(baseDir, 'out'), { recursive: true, force: true })
    t.equal((await prepare(options(baseDir, { path: ['blank.csv'] }))).card.train.rows, 500)
  })
})

t.test('a quoted line break where one part ends is found, and no row is lost or doubled', async (t) => {
  const baseDir = t.testdir({})
  const quoted = Array.from({ length: 300 }, (_, i) => `"user\n${i}\nof ""many""",a,${i},1\n`).join('')
  writeFiles(baseDir, { 'x.csv': header + quoted })
  const source = { path: ['x.csv'] }
  const { samples: expected } = await readAll(await openReader({ ...clicks, baseDir, source }))
  for (const partBytes of [50, 64, 333]) {
    rmSync(join(baseDir, 'out'), { recursive: true, force: true })
    await prepare(options(baseDir, source, { partBytes }))
    t.same(await samplesOfPrepared(baseDir, 'out/train'), expected, `${partBytes} bytes a part`)
  }
})

t.test('shards are Arrow files that other programs read', async (t) => {
  const baseDir = t.testdir({ 'x.csv': header + lines(100) })
  await prepare(options(baseDir, { path: ['x.csv'] }))
  const table = tableFromIPC(readFileSync(join(baseDir, 'out/train/00000-00000.arrow')))
  t.equal(table.numRows, 100)
  t.equal(table.schema.fields.map(({ name, type }) => `${name} ${type}`).join(), 'user Uint64,tags List<Uint64>,age Float32,click Float32')
  const [row7, row6] = [table.get(7)!.toJSON(), table.get(6)!.toJSON()]
  t.equal(row7['user'], null)
  t.equal(row6['tags'].length, 2)
  t.equal(row6['age'], 1.5)
  t.equal(table.get(5)!.toJSON()['age'], null)
})

t.test('a killed run that is started again leaves the bytes of one that was not', async (t) => {
  const baseDir = t.testdir({})
  writeFiles(baseDir, { 'a.csv': header + lines(900), 'b.csv.gz': header + lines(900), 'c.csv': header + lines(50) })
  await runSql(`copy (from read_csv('${baseDir}/a.csv', all_varchar = true)) to '${baseDir}/d.parquet'`)
  for (const source of [{ path: ['a.csv', 'b.csv.gz'] }, { sql: "from 'd.parquet'" }]) {
    const small = { partBytes: 2000, partRows: 64, split: { by: 'share', test: 0.25 } as RowSplit }
    await prepare(options(baseDir, source, { ...small, out: join(baseDir, 'whole') }))
    const whole = contents(join(baseDir, 'whole'))
    const { out } = options(baseDir, source)
    const killed = new Error('killed')
    for (const parts of [1, 3, 5]) {
      let noted = 0
      const dying = prepare(options(baseDir, source, { ...small, onProgress: ({ rows }) => {
        if (rows > 0 && ++noted > parts) throw killed
      } }))
      await t.rejects(dying, killed)
      t.notOk(readdirSync(out).includes('card.json'))
    }
    const { resumedParts } = await prepare(options(baseDir, source, small))
    t.ok(Number(resumedParts) > 4, `${resumedParts} parts were there`)
    t.same(contents(out), whole)
    t.equal((await prepare(options(baseDir, source, small))).resumedParts, 'all')
    rmSync(out, { recursive: true })
    rmSync(join(baseDir, 'whole'), { recursive: true })
  }
})

t.test('output of something else is not written over, but that of a run that did not end is', async (t) => {
  const baseDir = t.testdir({ 'x.csv': header + lines(10), 'bad.csv': `${header}a,,old,1\n`, out: {}, other: { file: 'x' } })
  const code = 'PERSIA_USAGE'
  await t.rejects(prepare(options(baseDir, { path: ['x.csv'] }, { out: join(baseDir, 'other') })), { code, message: /no prepared data/ })
  await t.rejects(prepare(options(baseDir, { path: ['bad.csv'] })), { code: 'PERSIA_DATA_BAD_ROW' })
  writeFileSync(join(baseDir, 'bad.csv'), header + lines(10))
  await prepare(options(baseDir, { path: ['bad.csv'] }))
  await t.rejects(prepare(options(baseDir, { path: ['x.csv'] })), { code, message: /other files/ })
  await t.rejects(prepare(options(baseDir, { path: ['bad.csv'] }, { seed: 4 })), { code })
})

t.test('splits put every row on one side, by share, by value and by time', async (t) => {
  const baseDir = t.testdir({ 'x.csv': `day,${header}${Array.from({ length: 1000 }, (_, i) => `${20 + i / 100 | 0},${line(i)}`).join('')}` })
  const sides = async (split: RowSplit) => {
    rmSync(join(baseDir, 'out'), { recursive: true, force: true })
    const { card } = await prepare(options(baseDir, { path: ['x.csv'] }, { split, partBytes: 3000 }))
    t.equal(card.train.rows + card.test!.rows, 1000)
    const [train, test] = [await samplesOfPrepared(baseDir, 'out/train'), await samplesOfPrepared(baseDir, 'out/test')]
    return { train, test }
  }
  const { test } = await sides({ by: 'share', test: 0.2 })
  t.ok(Math.abs(test.length - 200) < 60)
  const byDay = await sides({ by: 'time', column: 'day', from: 28 })
  t.equal(byDay.test.length, 200)
  const tags = (samples: Sample[]) => new Set(samples.map(({ ids }) => String(ids[1])))
  const byTag = await sides({ by: 'hash', column: 'tags', test: 0.5 })
  t.same([...tags(byTag.train)].filter((tag) => tags(byTag.test).has(tag)), [])

  const onTheFly = async (split: RowSplit, side: 'train' | 'test') =>
    (await readAll(await openReader({ ...clicks, baseDir, source: { path: ['x.csv'] }, split: { rule: split, seed: 3, side } }))).samples
  for (const split of [{ by: 'time', column: 'day', from: 28 }, { by: 'hash', column: 'tags', test: 0.5 }] as RowSplit[]) {
    const prepared = await sides(split)
    t.same(await onTheFly(split, 'train'), prepared.train, 'the reader divides as prepare does')
    t.same(await onTheFly(split, 'test'), prepared.test)
  }
  const share = { by: 'share', test: 0.2 } as const
  t.equal((await onTheFly(share, 'train')).length + (await onTheFly(share, 'test')).length, 1000)
})

t.test('several loaders share the batches out: each one once, in the order of one loader', (t) => {
  for (const skip of [0, 1, 5]) {
    const shares = [0, 1, 2].map((index) => [...batchNumbers(17, skip, { index, count: 3 })])
    t.same(shares.flat().sort((a, b) => a - b), Array.from({ length: 17 - skip }, (_, i) => i + skip))
    shares.forEach((share, index) => t.ok(share.every((batch) => batch % 3 === index)))
  }
  t.end()
})

t.test('prepared data has to fit to what is asked of it', async (t) => {
  const baseDir = t.testdir({ 'x.csv': header + lines(100) })
  await prepare(options(baseDir, { path: ['x.csv'] }))
  const open = (more: object) => openPreparedData({ ...clicks, baseDir, folder: 'out/train', ...more })
  await t.rejects(open({ folder: 'out' }), { code: 'PERSIA_DATA_NOT_FOUND', message: /`train` or `test`/ })
  await t.rejects(open({ missing: ['?'] }), { code: 'PERSIA_CONFIG_INVALID', message: /data.missing is \["\?"\], but .* \[""\]/ })
  await t.rejects(open({ ids: [{ name: 'users', encoding: 'hash' }] }), { code: 'PERSIA_DATA_MISSING_COLUMN', message: /Did you mean user\?/ })
  await t.rejects(open({ ids: [{ name: 'tags', encoding: 'hash' }] }), { code: 'PERSIA_CONFIG_INVALID', message: /tags.separator is not given/ })
  const manifest = join(baseDir, 'out/train/manifest.json')
  const text = readFileSync(manifest, 'utf8')
  writeFileSync(manifest, text.replace('"rows": 100', '"rows": 101'))
  await t.rejects(open({}), { code: 'PERSIA_DATA_UNREADABLE', message: /checksum/ })
})

// ---- malformed data

const good = 'ann,a,1,1\n'
const malformed: Record<string, { text: string | Buffer; line: number; reason: RegExp; column?: string; kept?: number }> = {
  'too few columns': { text: 'ann,a,1\n', line: 4, reason: /expected 4 columns, found 3/ },
  'too many columns': { text: 'ann,a,1,1,1\n', line: 4, reason: /expected 4 columns, found 5/ },
  'broken UTF-8': { text: Buffer.from('b\xfcb,a,1,1\n', 'latin1'), line: 4, column: 'user', reason: /not valid UTF-8/ },
  'no number': { text: 'ann,a,x,1\n', line: 4, column: 'age', reason: /"x" is not a number/ },
  'an empty label': { text: 'ann,a,1,\n', line: 4, column: 'click', reason: /label is missing/ },
  'text behind a quote': { text: '"ann"x,a,1,1\n', line: 4, reason: /quoted value/ },
  'a quote that never ends': { text: '"ann,a,1,1\n', line: 4, reason: /quoted value/ },
  'a line of ten megabytes': { text: `${'x'.repeat(10_000_000)},a,1,1\n`, line: 4, reason: /longer than 2 MB/ },
}

for (const [kind, { text, line: at, reason, column }] of Object.entries(malformed)) {
  t.test(`${kind}: fail names the line, skip leaves it out and counts it`, async (t) => {
    const baseDir = t.testdir({})
    const content = Buffer.concat([Buffer.from(header + good + good), Buffer.from(text), Buffer.from(good.repeat(3))])
    writeFiles(baseDir, { 'x.csv': content, 'y.csv.gz': gzipSync(content) })
    for (const [path, partBytes] of [['x.csv', 1 << 26], ['x.csv', 25], ['y.csv.gz', 1 << 26], ['y.csv.gz', 1 << 16]] as const) {
      if (partBytes < 1000 && content.length > 1e6) continue  // hundreds of thousands of parts
      rmSync(join(baseDir, 'out'), { recursive: true, force: true })
      const source = { path: [path] }
      const error = await prepare(options(baseDir, source, { partBytes })).then(() => undefined, (failure) => failure)
      t.match(error, { code: 'PERSIA_DATA_BAD_ROW', details: { file: path, line: at, ...(column && { column }) } }, `${path} ${partBytes}`)
      t.match(error.details.reason, reason)
      const { card } = await prepare(options(baseDir, source, { onBadRow: 'skip', partBytes }))
      t.equal(card.badRows, 1)
      t.equal(card.train.rows, 5)
      t.match(card.firstBad[0], new RegExp(`^${path} line ${at}`))
    }
  })
}

t.test('a compressed file that is cut off or damaged is an error in both modes', async (t) => {
  const baseDir = t.testdir({})
  const packed = gzipSync(header + lines(5000))
  const damaged = Buffer.from(packed)
  damaged[damaged.length - 20]! ^= 1
  writeFiles(baseDir, { 'cut.csv.gz': packed.subarray(0, packed.length - 30), 'flip.csv.gz': damaged })
  for (const path of ['cut.csv.gz', 'flip.csv.gz']) {
    for (const onBadRow of ['fail', 'skip'] as const) {
      await t.rejects(prepare(options(baseDir, { path: [path] }, { onBadRow, partBytes: 4096 })),
        { code: 'PERSIA_DATA_UNREADABLE', message: /cut off|damaged/ }, `${path} ${onBadRow}`)
    }
  }
  mkdirSync(join(baseDir, 'empty'))
  await t.rejects(prepare(options(baseDir, { path: ['empty/*.csv'] })), { code: 'PERSIA_DATA_NOT_FOUND' })
})
