// Alibaba's "Ad Display/Click Data on Taobao.com" (Tianchi): raw_sample.csv joined with ad_feature.csv and
// user_profile.csv, and with the last behaviours of the user before the impression where behavior_log.csv is there. The
// last day is the test data. A table that is joined already (clk, uid, …, with ^-joined histories) is taken as well; it
// has no time, so a fifth of its users is the test data.
import { PersiaError } from '../../errors.js'
import { literal, openDatabase, rowsOf } from '../duckdb.js'
import { damageOf, throwIfDamaged } from '../integrity.js'
import { unreadable } from '../relation.js'
import { type DataSetConfig, type Folder } from './folder.js'

const userColumns = ['cms_segid', 'cms_group_id', 'final_gender_code', 'age_level', 'pvalue_level', 'shopping_level',
  'occupation', 'new_user_class_level']
const adColumns = ['cate_id', 'campaign_id', 'customer', 'brand']
const histories = ['btag', 'cate', 'brand']
const mostBehaviours = 50
const secondsOfDay = 86_400, hoursAhead = 8  // days are those of Shanghai

export async function taobao(folder: Folder): Promise<DataSetConfig> {
  const samples = folder.need('taobao', 'raw_sample.csv', 'raw_sample.csv.gz', 'train.csv', 'train.csv.gz')
  return /raw_sample/.test(samples) ? joined(folder, samples) : readyMade(samples)
}

export const taobaoColumns = () => ({
  labels: ['clk'],
  dense: [{ column: 'price', transform: 'log1p' as const }],
  features: {
    columns: {
      ...Object.fromEntries(['user', ...userColumns, 'adgroup_id', ...adColumns, 'pid'].map((name) => [name, {}])),
      ...Object.fromEntries(histories.map((name) => [`${name}_his`, { sequenceLength: mostBehaviours }])),
    },
    groups: [['cate_id', 'cate_his'], ['brand', 'brand_his']],
  },
})

/** Of a joined table the columns that joining makes, so that the same preset trains on both. */
async function readyMade(path: string): Promise<DataSetConfig> {
  await checkWhole(path)
  const { labels, dense, features } = taobaoColumns()
  const raw = table(path, ['clk', 'uid', ...userColumns, 'adgroup_id', ...adColumns, 'price', 'pid', 'his_len',
    ...histories.map((name) => `${name}_his`)])
  await valueOf('count(*)', raw, path)
  const lists = histories.map((name) => `string_split(${name}_his, '^') as ${name}_his`)
  const sql = `select * exclude (uid, his_len) replace (${lists.join(', ')}), uid as user from ${raw}`
  return { data: { train: { sql }, split: { by: 'hash', column: 'user', test: 0.2 }, labels, dense }, features }
}

async function joined(folder: Folder, samples: string): Promise<DataSetConfig> {
  const other = (name: string) => folder.find(`${name}.csv`, `${name}.csv.gz`)
  const [ads, users, log] = [other('ad_feature'), other('user_profile'), other('behavior_log')]
  if (ads === undefined || users === undefined) {
    throw new PersiaError('PERSIA_DATA_NOT_FOUND',
      `${folder.path} lacks ${ads === undefined ? 'ad_feature.csv' : 'user_profile.csv'}, which raw_sample.csv is `
      + 'joined with.', { file: folder.path })
  }
  for (const file of [samples, ads, users, log]) await checkWhole(file)
  const columns = taobaoColumns()
  const raw = table(samples, ['user', 'time_stamp', 'adgroup_id', 'pid', 'nonclk', 'clk'])
  return {
    data: {
      train: { sql: joinSql(raw, ads, users, log) },
      split: { by: 'time', column: 'time_stamp', from: await lastDay(raw, samples) },
      labels: columns.labels,
      dense: columns.dense,
    },
    features: columns.features,
  }
}

/** PERSIA_DATA_UNREADABLE for a compressed file that is cut off: a query takes the end of its bytes for the data's. */
async function checkWhole(file: string | undefined): Promise<void> {
  if (file !== undefined) await throwIfDamaged(file, damageOf(file, new AbortController().signal))
}

/** A file with these columns, all of them texts; NULL and nothing are missing. The header's names are not looked at. */
function table(file: string, columns: string[]): string {
  const declared = columns.map((name) => `${name}: 'VARCHAR'`).join(', ')
  return `read_csv(${literal(file)}, columns = {${declared}}, header = true, delim = ',', quote = '"', `
    + "auto_detect = false, nullstr = ['NULL', ''])"
}

function joinSql(raw: string, ads: string, users: string, log: string | undefined): string {
  const ad = table(ads, ['adgroup_id', ...adColumns, 'price'])
  const user = table(users, ['userid', ...userColumns])
  const profile = userColumns.map((name) => `u.${name}`).join(', ')
  const none = 'cast([] as varchar[])'
  const last = `greatest(h.n - ${mostBehaviours - 1}, 1):h.n`
  const lists = histories.map((name) =>
    `${log === undefined ? none : `coalesce(h.${name}[${last}], ${none})`} as ${name}_his`)
  const from = log === undefined ? '' : `left join (${historySql(raw, log)}) h on h.id = r.id`
  return `select r.user, r.time_stamp, r.adgroup_id, r.pid, r.clk, ${profile}, a.cate_id, a.campaign_id, a.customer,
    a.brand, a.price, ${lists.join(', ')}
    from (select *, row_number() over () as id from ${raw}) r
    left join ${ad} a on a.adgroup_id = r.adgroup_id
    left join ${user} u on u.userid = r.user
    ${from}
    order by cast(r.time_stamp as bigint), r.id`
}

/** For every sample the behaviours of its user in order of time, and how many of them came before it. */
function historySql(raw: string, log: string): string {
  const entries = table(log, ['user', 'time_stamp', 'btag', 'cate', 'brand'])
  return `select r.id, l.btag, l.cate, l.brand, len(list_filter(l.times, t -> t < r.t)) as n
    from (select row_number() over () as id, user, cast(time_stamp as bigint) as t from ${raw}) r
    join (select user, list(t order by t, btag, cate, brand) as times, list(btag order by t, btag, cate, brand) as btag,
      list(cate order by t, btag, cate, brand) as cate, list(brand order by t, btag, cate, brand) as brand
      from (select *, cast(time_stamp as bigint) as t from ${entries}) group by user) l on l.user = r.user`
}

/** When the last day of the samples begins. */
async function lastDay(raw: string, file: string): Promise<number> {
  const shift = hoursAhead * 3600
  const last = Number(await valueOf('max(cast(time_stamp as bigint))', raw, file))
  return Math.floor((last + shift) / secondsOfDay) * secondsOfDay - shift
}

/**
 * A value of the whole table of a file. All of its columns are read for it: a query that leaves out some can't name the
 * line of text that is not valid UTF-8.
 */
async function valueOf(expression: string, raw: string, file: string): Promise<unknown> {
  const database = await openDatabase('.', 2)
  try {
    const [row] = await rowsOf(database.connection, `select ${expression}, count(columns(*)) from ${raw}`)
    return row![0]
  } catch (error) {
    throw unreadable(file, error)
  } finally {
    database.close()
  }
}
