// The data sets of the convergence benchmark: for each a config, but for mode, staleness, seed and checkpoints.
//
// adult-income is in the repository; the others may not be redistributed, are read from a folder of the user's and left
// out where it lacks them. Networks are small, so that five seeds of every mode train within minutes.
import { existsSync } from 'node:fs'
import { join } from 'node:path'

const quoted = (path) => `'${path.replaceAll("'", "''")}'`
const names = (prefix, count, first = 1) => Array.from({ length: count }, (_, i) => `${prefix}${i + first}`)
const columns = (list) => Object.fromEntries(list.map((name) => [name, {}]))
const model = { hidden: [256, 128, 64], optimizer: { type: 'adam', lr: 0.001 } }

function adult(folder) {
  const file = (split) => ({ path: join(folder, `${split}.csv.gz`) })
  return {
    batchSize: 256, epochs: 2,
    data: {
      train: file('train'), test: file('test'), missing: ['', '?'], transform: 'standardize',
      labels: [{ column: 'income', positive: '>50K' }],
      dense: ['age', 'education_num', 'capital_gain', 'capital_loss', 'hours_per_week'],
    },
    features: {
      defaults: { dim: 8 },
      columns: columns(['workclass', 'education', 'marital_status', 'occupation', 'relationship', 'race', 'sex',
        'native_country']),
    },
    model,
  }
}

// The last tenth by time is the test set; rows are sorted by hour. In batches of 128 at the default rate mode sync is 0.010
// of AUC worse: 164 steps don't train it through.
function avazu(folder) {
  const rows = `(select *, row_number() over () as n, count(*) over () as total from read_csv(`
    + `${quoted(join(folder, 'train_23k.csv.gz'))}, all_varchar = true))`
  const ids = ['hour_of_day', 'C1', 'banner_pos', 'site_id', 'site_domain', 'site_category', 'app_id', 'app_domain',
    'app_category', 'device_id', 'device_ip', 'device_model', 'device_type', 'device_conn_type', ...names('C', 8, 14)]
  const select = `select *, hour[7:8] as hour_of_day from ${rows}`
  return {
    batchSize: 32, epochs: 1, embedding: { optimizer: { type: 'adagrad', lr: 0.1 } },
    data: {
      train: { sql: `${select} where n <= 0.9 * total` }, test: { sql: `${select} where n > 0.9 * total` },
      labels: ['click'],
    },
    features: { defaults: { dim: 8 }, columns: columns(ids) },
    model,
  }
}

function criteo(folder) {
  const fields = ['label', ...names('I', 13), ...names('C', 26)]
  const source = (file) => ({
    sql: `select * from read_csv(${quoted(join(folder, file))}, delim = '\t', header = false, all_varchar = true, `
      + `names = [${fields.map(quoted).join(', ')}])`,
  })
  return {
    batchSize: 256, epochs: 1,
    data: {
      train: source('train.tsv.gz'), test: source('valid.tsv.gz'), labels: ['label'], missing: [''],
      dense: names('I', 13), transform: 'standardize',
    },
    features: { defaults: { dim: 8 }, columns: columns(names('C', 26)) },
    model,
  }
}

// A tenth of the ratings, by hash, is the test set.
function movielens(folder) {
  const read = (file) => `read_csv(${quoted(join(folder, file))}, delim = '\t', all_varchar = true)`
  const select = 'select r."user_id:token" as user_id, r."item_id:token" as item_id, u."age:token" as age, '
    + 'u."gender:token" as gender, u."occupation:token" as occupation, u."zip_code:token" as zip_code, '
    + 'case when r."rating:float"::float >= 4 then 1 else 0 end as liked, '
    + 'hash(r."user_id:token" || \' \' || r."item_id:token") % 10 as part '
    + `from ${read('ratings.tsv.gz')} r join ${read('users.tsv.gz')} u on r."user_id:token" = u."user_id:token"`
  const part = (condition) => ({ sql: `select * from (${select}) where part ${condition} order by user_id, item_id` })
  return {
    batchSize: 256, epochs: 4,
    // Sorted by hash, because by user a batch would hold one user's ratings.
    data: { train: { sql: shuffled(part('> 0').sql) }, test: part('= 0'), labels: ['liked'] },
    features: {
      defaults: { dim: 8 },
      columns: columns(['user_id', 'item_id', 'age', 'gender', 'occupation', 'zip_code']),
    },
    model,
  }
}

const shuffled = (sql) => `select * from (${sql}) order by hash(item_id || ' ' || user_id)`

/** The sets that are there, as [name, config], and the names of those that are not. */
export function dataSets(root, folder) {
  const all = [
    ['adult-income', join(root, 'examples/adult-income'), adult], ['avazu', join(folder, 'avazu-sample'), avazu],
    ['criteo', join(folder, 'criteo-1tb-sample'), criteo], ['movielens', join(folder, 'movielens-100k'), movielens],
  ]
  return {
    found: all.filter(([, path]) => existsSync(path)).map(([name, path, config]) => [name, config(path)]),
    missing: all.filter(([, path]) => !existsSync(path)).map(([name]) => name),
  }
}
