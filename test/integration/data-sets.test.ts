// The public data sets by the command line: prepared from their owners' files, trained on by the presets. The real samples
// are not in the repository; tests of them are skipped where they are not found.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync, gzipSync } from 'node:zlib'
import t from 'tap'
import { contents, folder } from '../ts/folders.js'

t.setTimeout(300_000)

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')
const main = join(root, 'dist', 'cli', 'main.js')
const samples = process.env['PERSIA_SAMPLES'] ?? join(root, '..', 'shared', 'data')
const sample = (name: string) => join(samples, name)
const needs = (name: string) => (existsSync(sample(name)) ? {} : { skip: `${name} is not in ${samples}` })
const preset = (name: string) => join(root, 'examples', name, `${name}.yml`)

type Event = Record<string, any>

function persia(args: string[]): { status: number | null; stderr: string; events: Event[] } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' })
  return { status, stderr, events: stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line)) }
}

function prepare(name: string, from: string, out: string, ...more: string[]): Event[] {
  const { status, stderr, events } = persia(['data', 'prepare', '--dataset', name, '--from', from, '--out', out, '--json', ...more])
  t.equal(status, 0, stderr)
  return events
}

/** The AUC after each epoch of the preset's model, small enough for the sample. */
function train(name: string, out: string, ...settings: string[]): number[] {
  const { status, stderr, events } = persia(['train', '--config', preset(name), '--json',
    ...['train', 'test'].flatMap((side) => ['--set', `data.${side}.prepared=${join(out, side)}`]),
    ...['model.hidden=[128, 64]', 'batchSize=256', 'features.defaults.dim=8', 'embedding.capacity=200000', 'deterministic=true',
      `checkpoint.dir=${join(out, '..', 'checkpoints')}`, 'checkpoint.resume=never', ...settings].flatMap((setting) => ['--set', setting])])
  t.equal(status, 0, stderr)
  return events.filter(({ event }) => event === 'eval').map(({ auc }) => Object.values(auc as Record<string, number>)[0]!)
}

t.test('criteo: the sample is prepared, and one epoch reaches the AUC of its README', needs('criteo-1tb-sample'), async (t) => {
  const out = join(folder(t), 'out')
  const events = prepare('criteo', sample('criteo-1tb-sample'), out)
  t.match(events.at(-1), { event: 'done', rows: { train: 50_000, test: 10_000 }, badRows: 0 })
  const card = events.find(({ event }) => event === 'card')!
  t.ok(Math.abs(card['train'].labels.label.rate - 0.0317) < 0.001)
  t.equal(card['train'].ids.C6.distinct, 3)
  t.ok(Math.abs(card['train'].ids.C14.missing - 0.42) < 0.01)
  const [auc] = train('criteo', out)
  t.ok(auc! >= 0.706, `AUC ${auc}`)
})

t.test('criteo: the format of Kaggle', needs('criteo-kaggle-format'), async (t) => {
  const out = join(folder(t), 'out')
  const done = prepare('criteo', sample('criteo-kaggle-format'), out).at(-1)!
  t.equal(done['rows'].train + done['rows'].test, 500)
})

t.test('avazu: the split is by hour, and the sample reaches the AUC of its README', needs('avazu-sample'), async (t) => {
  const work = folder(t)
  const done = prepare('avazu', sample('avazu-sample'), join(work, 'whole')).at(-1)!
  t.ok(Math.abs(done['rows'].test / 23_299 - 0.2) < 0.03)
  const out = join(work, 'out')
  prepare('avazu', sample('avazu-sample'), out, '--set', 'data.split.from=14102208')  // the last tenth
  const auc = Math.max(...train('avazu', out, 'epochs=3'))
  t.ok(auc >= 0.723, `AUC ${auc}`)
})

t.test('taobao: the joined sample, with its histories', needs('taobao-ad-sample'), async (t) => {
  const out = join(folder(t), 'out')
  const events = prepare('taobao', sample('taobao-ad-sample'), out)
  const done = events.at(-1)!
  t.equal(done['rows'].train + done['rows'].test, 261)
  const { train: { ids, labels }, test } = events.find(({ event }) => event === 'card')!
  t.ok(Math.abs(ids.user.distinct + test.ids.user.distinct - 198) <= 5, 'every user is on one side')
  t.ok(labels.clk.positive >= 1 && test.labels.clk.positive >= 1, 'there are clicks on both')
  t.ok(ids.cate_his.ids > 5000)
  t.equal(train('taobao', out, 'batchSize=32').length, 1, 'the preset fits to the joined table too')
})

// Files as Alibaba ships them, with its odd headers and NULLs.
function taobaoFiles(directory: string, withLog: boolean): void {
  const day = 86_400, start = 1_494_000_000 - 1_494_000_000 % day - 8 * 3600
  const lines = (rows: string[]) => `${rows.join('\n')}\n`
  const raw = Array.from({ length: 800 }, (_, i) =>
    `${i % 41},${start + (i % 8) * day + 3600 + i},${i % 25},430548_100${i % 2},${i % 10 === 0 ? 0 : 1},${i % 10 === 0 ? 1 : 0}`)
  writeFileSync(join(directory, 'raw_sample.csv'), lines(['user,time_stamp,adgroup_id,pid,nonclk,clk', ...raw]))
  writeFileSync(join(directory, 'ad_feature.csv'), lines(['adgroup_id,cate_id,campaign_id,customer,brand,price',
    ...Array.from({ length: 24 }, (_, i) => `${i},${i % 5},${i % 9},${i % 7},${i % 4 === 0 ? 'NULL' : i},${i * 10}.5`)]))
  writeFileSync(join(directory, 'user_profile.csv'), lines([
    'userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level ,shopping_level,occupation,new_user_class_level ',
    ...Array.from({ length: 30 }, (_, i) => `${i},${i},${i % 13},${1 + i % 2},${i % 7},,3,${i % 2},`)]))
  if (!withLog) return
  writeFileSync(join(directory, 'behavior_log.csv'), lines(['user,time_stamp,btag,cate,brand',
    ...Array.from({ length: 4000 }, (_, i) => `${i % 20},${start + (i % 9) * day},pv,${i % 5},${i % 24}`)]))
}

t.test("taobao: the owner's files are joined, split at the last day, and train", async (t) => {
  for (const withLog of [false, true]) {
    const work = folder(t)
    taobaoFiles(work, withLog)
    const out = join(work, 'out')
    const events = prepare('taobao', work, out)
    t.match(events.at(-1), { rows: { train: 700, test: 100 }, badRows: 0 })
    const { ids, dense } = events.find(({ event }) => event === 'card')!['train']
    t.equal(ids.user.distinct, 41)
    t.equal(ids.user.missing, 0)
    t.ok(Math.abs(ids.cms_segid.missing - 11 / 41) < 0.03, '11 of 41 users have no profile')
    t.ok(ids.brand.missing > 0.2 && ids.brand.missing < 0.35, 'NULL is missing')
    t.ok(dense.price.missing > 0 && dense.price.missing < 0.1, 'one of 25 ads is not in the table')
    t.equal(ids.cate_his.ids > 0, withLog)
    // Of 4000 behaviours in 9 days, user 0 has those of days before: never one of the future, at most 50.
    t.ok(ids.cate_his.ids <= 700 * 50)
    t.equal(train('taobao', out, 'batchSize=100').length, 1)
  }
})

t.test('malformed copies of the samples are told by file and line, or left out and counted', needs('criteo-1tb-sample'), async (t) => {
  const work = folder(t)
  const good = gunzipSync(readFileSync(join(sample('criteo-1tb-sample'), 'valid.tsv.gz'))).toString().split('\n').slice(0, 200)
  const line = good[99]!
  const variants: Record<string, [string | Buffer, RegExp]> = {
    'a column less': [line.slice(0, line.lastIndexOf('\t')), /train.tsv line 100: expected 40 columns, found 39/],
    'a column more': [`${line}\tx`, /train.tsv line 100: expected 40 columns, found 41/],
    'no number': [line.replace(/^0\t[^\t]*/, '0\tx'), /train.tsv line 100, column I1: "x" is not a number/],
    'no label': [line.replace(/^./, ''), /train.tsv line 100, column label: the label is missing/],
    'broken UTF-8': [Buffer.concat([Buffer.from(line.slice(0, -3)), Buffer.from([0xc3, 0x28])]), /train.tsv line 100, column C26: the text is not valid UTF-8/],
    'a quote that does not end': [line.replace(/\t[^\t]*$/, '\t"open'), /train.tsv line 100: a quoted value does not end/],
    'ten megabytes': [line + 'f'.repeat(10_000_000), /train.tsv line 100: the line is longer than 2 MB/],
  }
  for (const [kind, [bad, message]] of Object.entries(variants)) {
    const text = Buffer.concat([Buffer.from(`${good.slice(0, 99).join('\n')}\n`), Buffer.from(bad), Buffer.from(`\n${good.slice(100).join('\n')}\n`)])
    writeFileSync(join(work, 'train.tsv'), text)
    const out = join(work, 'out')
    rmSync(out, { recursive: true, force: true })
    const args = ['data', 'prepare', '--dataset', 'criteo', '--from', join(work, 'train.tsv'), '--out', out, '--json']
    const { status, stderr } = persia(args)
    t.equal(status, 2, kind)
    t.match(stderr, message)
    const done = persia([...args, '--set', 'data.onBadRow=skip']).events.at(-1)!
    t.match(done, { badRows: 1, firstBad: [message] }, kind)
    t.equal(done['rows'].train + done['rows'].test, 199)
  }
  const whole = readFileSync(join(sample('criteo-1tb-sample'), 'valid.tsv.gz'))
  writeFileSync(join(work, 'train.tsv.gz'), whole.subarray(0, whole.length / 2))
  const cut = persia(['data', 'prepare', '--dataset', 'criteo', '--from', join(work, 'train.tsv.gz'), '--out', join(work, 'cut')])
  t.equal(cut.status, 2)
  t.match(cut.stderr, /PERSIA_DATA_UNREADABLE: .*train.tsv.gz cannot be read: the file is cut off/)

  writeFileSync(join(work, 'train.tsv.gz'), gzipSync(`${good.join('\r\n')}\r\n`))
  const windows = prepare('criteo', join(work, 'train.tsv.gz'), join(work, 'crlf')).at(-1)!
  t.equal(windows['rows'].train + windows['rows'].test, 200, 'lines may end as on Windows')
})

// A file of Avazu's form: the last of its 200 rows are those of the later hour.
function avazuLines(laterRows: number): string[] {
  const tokens = Array.from({ length: 21 }, (_, i) => `t${i}`).join(',')
  const header = ['id', 'click', 'hour', 'C1', 'banner_pos', 'site_id', 'site_domain', 'site_category', 'app_id', 'app_domain',
    'app_category', 'device_id', 'device_ip', 'device_model', 'device_type', 'device_conn_type',
    ...Array.from({ length: 8 }, (_, i) => `C${i + 14}`)].join(',')
  return [header, ...Array.from({ length: 200 }, (_, i) =>
    `${i},${i % 5 === 0 ? 1 : 0},141021${i < 200 - laterRows ? '03' : '04'},${tokens}`)]
}

t.test('avazu: bad lines hide neither their place nor the hour of the split', async (t) => {
  const work = folder(t)
  const file = join(work, 'train.csv')
  const good = avazuLines(40)
  const line = good[99]!
  const prepareFile = (...more: string[]) => {
    rmSync(join(work, 'out'), { recursive: true, force: true })
    return persia(['data', 'prepare', '--dataset', 'avazu', '--from', file, '--out', join(work, 'out'), '--json', ...more])
  }
  const variants: Record<string, [Buffer, RegExp]> = {
    'ten megabytes': [Buffer.from(line + 'f'.repeat(10_000_000)), /train.csv line 100: the line is longer than 2 MB/],
    'a column less': [Buffer.from(line.slice(0, line.lastIndexOf(','))), /train.csv line 100: expected 24 columns, found 23/],
    'broken UTF-8': [Buffer.from(`${line}\xfc`, 'latin1'), /train.csv line 100, column C21: the text is not valid UTF-8/],
    'an open quote': [Buffer.from(`"${line}`), /train.csv line 100: a quoted value does not end/],
  }
  for (const [kind, [bad, message]] of Object.entries(variants)) {
    writeFileSync(file, Buffer.concat([Buffer.from(`${good.slice(0, 99).join('\n')}\n`), bad, Buffer.from(`\n${good.slice(100).join('\n')}\n`)]))
    const { status, stderr } = prepareFile()
    t.equal(status, 2, kind)
    t.match(stderr, message)
    t.match(prepareFile('--set', 'data.onBadRow=skip').events.at(-1), { badRows: 1, rows: { train: 159, test: 40 } }, kind)
  }
  writeFileSync(file, `${good.slice(0, 99).join('\n')}\r\n${good.slice(99).join('\n')}\n`)
  t.match(prepareFile().events.at(-1), { badRows: 0, rows: { train: 160, test: 40 } }, 'one line ends as on Windows')
  writeFileSync(file, '')
  t.match(prepareFile(), { status: 2, stderr: /train.csv has no header line/ })
  writeFileSync(file, `${avazuLines(0).join('\n')}\n`)
  const { train, test } = prepareFile().events.at(-1)!['rows']
  t.ok(test > 20 && test < 60 && train + test === 200, 'rows of one hour are divided by draw')
})

t.test('taobao: text that is not UTF-8 is told by file and line, in the last column too', async (t) => {
  const work = folder(t)
  taobaoFiles(work, false)
  const file = join(work, 'raw_sample.csv')
  const lines = readFileSync(file, 'latin1').split('\n')
  lines[49] = `${lines[49]}\xfc`
  writeFileSync(file, lines.join('\n'), 'latin1')
  const { status, stderr } = persia(['data', 'prepare', '--dataset', 'taobao', '--from', work, '--out', join(work, 'out')])
  t.equal(status, 2)
  t.match(stderr, /raw_sample.csv cannot be read: line 50: the text is not valid UTF-8/)
})

t.test('a process that is killed half-way and started again leaves the same bytes', async (t) => {
  const work = folder(t)
  const text = join(work, 'train.tsv')
  t.equal(persia(['data', 'synth', '--like', 'criteo', '--rows', '700000', '--format', 'text', '--out', text]).status, 0)
  prepare('criteo', text, join(work, 'whole'), '--threads', '1')
  const out = join(work, 'out')
  const child = spawn(process.execPath, [main, 'data', 'prepare', '--dataset', 'criteo', '--from', text, '--out', out, '--threads', '1'])
  const closed = new Promise<string | null>((resolve) => child.on('close', (_code, signal) => resolve(signal)))
  while (!existsSync(join(out, 'parts')) || readdirSync(join(out, 'parts')).length === 0) await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGKILL')
  t.equal(await closed, 'SIGKILL')
  t.notOk(existsSync(join(out, 'card.json')))
  const done = prepare('criteo', text, out, '--threads', '2').at(-1)!
  t.ok(done['resumedParts'] >= 1)
  const [again, whole] = [contents(out), contents(join(work, 'whole'))]
  t.same(again, whole)
})

t.test("synthetic files have the form of their owner's, so that they are prepared like those", (t) => {
  const work = folder(t)
  for (const [name, file] of [['criteo', 'train.tsv'], ['avazu', 'train.csv'], ['taobao', 'train.csv']] as const) {
    const text = join(work, file)
    t.equal(persia(['data', 'synth', '--like', name, '--rows', '2000', '--format', 'text', '--out', text]).status, 0)
    const events = prepare(name, text, join(work, name))
    const { rows, badRows } = events.at(-1)!
    t.equal(rows.train + rows.test, 2000)
    t.equal(badRows, 0)
    const { ids } = events.find(({ event }) => event === 'card')!['train']
    if (name === 'taobao') t.ok(ids.cate_his.ids > 2 * rows.train, 'histories are lists')
  }
  t.end()
})

t.test('synthetic data trains towards its ceiling, from shards and without a file alike', async (t) => {
  const work = folder(t)
  const out = join(work, 'out')
  const { status, events, stderr } = persia(['data', 'synth', '--like', 'avazu', '--rows', '120000', '--seed', '5', '--out', out, '--json'])
  t.equal(status, 0, stderr)
  t.match(events.map(({ event }) => event).slice(-3), ['card', 'done', 'ceiling'])
  const { auc: ceiling } = events.at(-1)! as { auc: number }
  const [auc] = train('avazu', out, 'batchSize=1024')
  t.ok(auc! > 0.62 && auc! < ceiling, `AUC ${auc}, ceiling ${ceiling}`)
  const synth = (rows: number, firstRow: number) => `{synth: {like: avazu, rows: ${rows}, firstRow: ${firstRow}, seed: 5}}`
  const trained = persia(['train', '--config', preset('avazu'), '--json', ...[
    `data.train=${synth(96_000, 0)}`, `data.test=${synth(24_000, 96_000)}`, 'model.hidden=[128, 64]', 'batchSize=1024',
    'features.defaults.dim=8', 'embedding.capacity=200000', `checkpoint.dir=${join(work, 'c')}`,
  ].flatMap((setting) => ['--set', setting])])
  t.equal(trained.status, 0, trained.stderr)
  const direct = trained.events.find(({ event }) => event === 'eval')!['auc'].click as number
  t.ok(Math.abs(direct - auc!) < 0.03, `${direct} and ${auc}`)
})

t.test('wrong usage ends with 2 and says what is expected', (t) => {
  const cases: [string[], RegExp][] = [
    [['prepare'], /takes --dataset and --from, or --config/],
    [['prepare', '--dataset', 'criteo'], /takes --dataset and --from/],
    [['prepare', '--dataset', 'imagenet', '--from', '.'], /imagenet/],
    [['prepare', '--dataset', 'avazu', '--from', '/nowhere'], /PERSIA_DATA_NOT_FOUND: There is no file or folder \/nowhere/],
    [['prepare', '--dataset', 'avazu', '--from', join(root, 'docs')], /has none of the files of avazu: expected train.csv/],
    [['synth', '--like', 'criteo', '--rows', '0'], /--rows takes an integer from 1/],
    [['synth', '--like', 'criteo', '--rows', '5', '--test', '1'], /--test takes a share/],
    [[], /Expected one of: persia data prepare, synth/],
  ]
  for (const [args, message] of cases) {
    const { status, stderr } = persia(['data', ...args])
    t.equal(status, 2, args.join(' '))
    t.match(stderr, message)
  }
  t.end()
})
