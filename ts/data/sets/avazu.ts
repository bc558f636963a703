// Avazu's click-through data: Kaggle's train.csv. With a header: id, click, hour (YYMMDDHH), 21 tokens. The latest
// fifth of the rows, in whole hours, is the test data; of rows of one hour alone it is a random fifth.
import { PersiaError } from '../../errors.js'
import { openDatabase, rowsOf } from '../duckdb.js'
import { damageOf, throwIfDamaged } from '../integrity.js'
import { linesOf, openRelations, unreadable } from '../relation.js'
import { findColumn } from '../select.js'
import { names, type DataSetConfig, type Folder } from './folder.js'

const testShare = 0.2

const tokens = [
  'C1', 'banner_pos', 'site_id', 'site_domain', 'site_category', 'app_id', 'app_domain', 'app_category', 'device_id',
  'device_ip', 'device_model', 'device_type', 'device_conn_type', ...names('C', 8, 14),
]

export const avazuColumns = {
  labels: ['click'],
  dense: [],
  features: {
    columns: {
      hour_of_day: { column: 'hour', slice: [6, 8] as [number, number] },
      ...Object.fromEntries(tokens.map((name) => [name, {}])),
    },
  },
}

export async function avazu(folder: Folder): Promise<DataSetConfig> {
  const train = folder.need('avazu', 'train.csv', 'train.csv.gz', 'train.gz', /^train.*\.csv(\.gz)?$/)
  const from = firstTestHour(await rowsOfHours(train, folder.path))
  return {
    data: {
      train: { path: train, format: 'csv' },
      split: from === undefined ? { by: 'share', test: testShare } : { by: 'time', column: 'hour', from },
      labels: avazuColumns.labels,
    },
    features: avazuColumns.features,
  }
}

/**
 * How many rows the hours have, the latest first. Lines are cut at their commas, whatever else is wrong with them: bad
 * rows are told when the data is prepared, and the few of them hardly move the split.
 */
async function rowsOfHours(file: string, folder: string): Promise<[hour: number, rows: number][]> {
  await throwIfDamaged(file, damageOf(file, new AbortController().signal))
  const database = await openDatabase(folder, 2)
  try {
    const [relation] = await openRelations(database.connection, { path: [file], format: 'csv' }, folder)
    const place = relation!.columns.indexOf(findColumn(relation!, 'hour')) + 1
    const hours = await rowsOf(database.connection,
      `select try_cast(trim(split_part(line, ',', ${place}), '" ') as bigint) as h, count(*) `
      + `from ${linesOf(file, false)} where h between 10000000 and 99999999 group by h order by h desc`)
    return hours.map(([hour, rows]) => [Number(hour), Number(rows)])
  } catch (error) {
    throw error instanceof PersiaError ? error : unreadable(file, error)
  } finally {
    database.close()
  }
}

/** The hour from which on the rows are nearest to the share of the test data; of one hour alone there is none. */
function firstTestHour(hours: [hour: number, rows: number][]): number | undefined {
  if (hours.length < 2) return undefined
  const wanted = testShare * hours.reduce((sum, [, rows]) => sum + rows, 0)
  let late = 0
  for (const [hour, rows] of hours) {
    if (late + rows >= wanted) return nearer(late, late + rows, wanted) ? hour + 1 : hour
    late += rows
  }
  return undefined
}

const nearer = (without: number, including: number, wanted: number) =>
  without > 0 && wanted - without < including - wanted
