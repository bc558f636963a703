// Avazu's click-through data: Kaggle's train.csv. With a header: id, click, hour (YYMMDDHH), 21 tokens. The latest
// fifth of the rows, in whole hours, is the test data.
import { openDatabase, literal, rowsOf } from '../duckdb.js'
import { unreadable } from '../relation.js'
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
  return {
    data: {
      train: { path: train, format: 'csv' },
      split: { by: 'time', column: 'hour', from: await firstTestHour(train, folder.path) },
      labels: avazuColumns.labels,
    },
    features: avazuColumns.features,
  }
}

/** The hour from which on the rows are nearest to the share of the test data. Rows without an hour are told later. */
async function firstTestHour(file: string, folder: string): Promise<number> {
  const database = await openDatabase(folder, 2)
  try {
    const scan = `read_csv(${literal(file)}, all_varchar = true, header = true, delim = ',', ignore_errors = true)`
    const hours = await rowsOf(database.connection,
      `select try_cast(hour as bigint) as h, count(*) from ${scan} where h is not null group by h order by h desc`)
    const rows = hours.reduce((sum, [, count]) => sum + Number(count), 0)
    let late = 0
    for (const [hour, count] of hours) {
      const next = late + Number(count)
      if (next >= testShare * rows) return nearer(late, next, testShare * rows) ? Number(hour) + 1 : Number(hour)
      late = next
    }
    return 0
  } catch (error) {
    throw unreadable(file, error)
  } finally {
    database.close()
  }
}

const nearer = (without: number, including: number, wanted: number) =>
  without > 0 && wanted - without < including - wanted
