// The config: what is accepted, what is refused and in which words, where values come from.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { runTraining, Trainer } from 'persia'
import t from 'tap'
import yargs from 'yargs'
import { configCommand } from '#persia/cli/config.js'
import { withGeneratedPart } from '#persia/config/docs.js'
import {
  configJsonSchema, diffFingerprint, leavesOf, loadConfigFile, modelFingerprint, parseConfig, type ConfigInput,
} from '#persia/config/index.js'
import { configHash } from '#persia/control/config-hash.js'
import { PersiaError } from '#persia/errors.js'
import { nativeConfig } from '#persia/train/native-config.js'

const root = path.resolve(import.meta.dirname, '../../..')

const contract = `
name: adult-income
mode: hybrid                 # sync | hybrid | async
staleness: 8                 # most batches in flight per NN worker; sync means 0
batchSize: 1024
epochs: 4
seed: 7                      # deterministic: true gives bit-identical reruns
device: auto                 # auto | cpu | cuda
data:
  train: { path: train.csv } # csv | tsv | parquet | arrow, globs; or sql: "select … from read_parquet('…')"
  test:  { path: test.csv }
  labels: [income]           # one column per task
  dense:  [age, hours]       # numeric columns; transform: log1p | standardize | none
features:                    # one entry per id column: dim, pooling, group, hash stack, sequence length, …
  defaults: { dim: 8, pooling: sum }
  columns: { workclass: {}, education: { dim: 16 } }
  groups: [[workclass, education]]
embedding:
  optimizer: { type: adagrad, lr: 0.05 }
  init: { type: uniform, low: -0.01, high: 0.01 }
  capacity: 1000000          # rows per PS before eviction
  admit: 1.0                 # probability (or frequency) of admitting a new id
  weightBound: 10
model:
  hidden: [4096, 2048, 1024, 512, 256]
  tasks: [{ label: income, loss: bce }]
  optimizer: { type: adam, lr: 0.001 }
  precision: fp32            # fp32 | bf16
cluster: { parameterServers: 1, embeddingWorkers: 1, nnWorkers: 1, dataLoaders: 1, transport: auto }
checkpoint: { dir: checkpoints, everySteps: 0, resume: auto }
metrics: { port: 0 }
`

const least: ConfigInput = { data: { labels: ['income'] }, features: { columns: { workclass: {}, education: { dim: 16 } } } }

/** `least` in YAML, with a free place for more keys. */
const yaml = (more = '') => `data:
  train: { path: train.csv }
  labels: [income]
  dense: [age, hours]
features:
  columns: { workclass: {}, education: { dim: 16 } }
${more}`

function load(test: Tap, text: string, set: string[] = []) {
  return loadConfigFile(path.join(test.testdir({ 'c.yml': text }), 'c.yml'), { set })
}

/** The error of `action`, its message without the folder of the test. */
function refusal(action: () => unknown): PersiaError {
  try {
    action()
  } catch (error) {
    if (error instanceof PersiaError) return error
    throw error
  }
  throw new Error('expected a PersiaError, nothing was thrown')
}

const lines = ({ message }: Error) => message.split('\n').map((line) => line.replace(/^\/.*\/(?=c\.yml)/, ''))

type Tap = Pick<typeof t, 'testdir'>

t.test('accepted', async (t) => {
  t.test('the example of the design is accepted as it stands', async (t) => {
    const { config } = load(t, contract)
    t.equal(config.name, 'adult-income')
    t.equal(config.embedding.optimizer.lr, 0.05)
    t.same(config.model.tasks, [{ label: 'income', loss: 'bce', weight: 1, positiveWeight: 1 }])
    t.same(config.features.groups, [['workclass', 'education']])
  })

  t.test('what is left out gets its default', async (t) => {
    const config = parseConfig(least)
    t.same([config.mode, config.staleness, config.batchSize, config.seed], ['hybrid', 8, 1024, 0])
    t.same(config.features.columns, {
      workclass: { dim: 8, pooling: 'sum', encoding: 'hash' }, education: { dim: 16, pooling: 'sum', encoding: 'hash' },
    })
    t.same(config.features.groups, [['workclass'], ['education']])
    t.same(config.data.labels, [{ column: 'income' }])
    t.match(config.embedding.optimizer, { type: 'adagrad', lr: 0.05, eps: 1e-10 })
    t.match(config.model.optimizer, { type: 'adam', lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, clipNorm: 0 })
    t.same(config.model.hidden, [4096, 2048, 1024, 512, 256])
    t.equal(config.checkpoint.keep, 3)
  })

  t.test('a resolved config is plain JSON, a valid config, and resolves to itself', async (t) => {
    const { config } = load(t, contract.replace('mode: hybrid', 'mode: sync'))
    const again: ConfigInput = config // compiles only while a Config is a ConfigInput
    t.strictSame(parseConfig(again), config)
    t.strictSame(JSON.parse(JSON.stringify(config)), config)
  })

  t.test('a key set to undefined in TypeScript is a key left out', async (t) => {
    const config = parseConfig({
      mode: undefined,
      data: { train: undefined, labels: [{ column: 'y', positive: undefined }] },
      features: { defaults: { separator: undefined }, columns: { x: { dim: undefined } } },
    })
    t.strictSame(config, parseConfig({ data: { labels: ['y'] }, features: { columns: { x: null } } }))
  })

  t.test('the staleness is 0 in mode sync whatever is written', async (t) => {
    t.equal(parseConfig({ ...least, mode: 'sync', staleness: 5 }).staleness, 0)
  })

  t.test('lookups run just in time, or as far ahead as is written, never beyond the staleness', async (t) => {
    const native = (more: object) => {
      const { staleness, justInTime, deterministic } = nativeConfig(parseConfig({ ...least, ...more } as ConfigInput))
      return [staleness, justInTime, deterministic]
    }
    t.same(native({}), [8, true, false])
    t.same(native({ deterministic: true }), [1, false, true])
    t.same(native({ lookahead: 4 }), [4, false, false])
    t.same(native({ lookahead: 8, deterministic: true }), [8, false, true])
    t.same(native({ mode: 'sync', deterministic: true }), [0, false, true])
    const refused = (more: object) => refusal(() => parseConfig({ ...least, ...more } as ConfigInput))
    t.match(refused({ lookahead: 9 }), { details: { path: 'lookahead' }, message: /at most the staleness \(8\), got 9/ })
    t.match(refused({ lookahead: 1, mode: 'sync' }), { details: { path: 'lookahead' }, message: /\(0 in mode sync\), got 1/ })
  })

  t.test('a map chosen by type may leave the type out and is then the default one', async (t) => {
    t.match(parseConfig({ ...least, embedding: { optimizer: { eps: 1e-8 } } }).embedding.optimizer, { type: 'adagrad', lr: 0.05, eps: 1e-8 })
    t.match(parseConfig({ ...least, model: { schedule: { warmupSteps: 5 } } }).model.schedule, { type: 'constant', warmupSteps: 5 })
  })

  t.test('dense columns inherit the transform, features the defaults', async (t) => {
    const { data, features } = parseConfig({
      data: { labels: ['y'], transform: 'standardize', dense: ['a', { column: 'b', transform: 'log1p', missing: 3 }] },
      features: { defaults: { dim: 4, separator: '|' }, columns: { x: null, z: { pooling: 'mean', separator: ' ' } } },
    })
    t.same(data.dense, [{ column: 'a', transform: 'standardize', missing: 'auto' }, { column: 'b', transform: 'log1p', missing: 3 }])
    t.same(features.columns['x'], { dim: 4, pooling: 'sum', encoding: 'hash', separator: '|' })
    t.same(features.columns['z'], { dim: 4, pooling: 'mean', encoding: 'hash', separator: ' ' })
  })

  t.test('sequences, hash stacks and frozen features reach the core', async (t) => {
    const columns: ConfigInput['features']['columns'] = {
      seen: { pooling: 'none', sequenceLength: 5, mask: true }, user: { hashStack: { buckets: 100 } }, ad: { frozen: true },
    }
    const native = nativeConfig(parseConfig({ ...least, features: { columns }, embedding: { clipNorm: 2 } }))
    const none = { dim: 8, pooling: 'sum', sequenceLength: 0, hashRounds: 0, hashBuckets: 0, mask: false, frozen: false, optimizer: 0 }
    t.same(native.features, [
      { ...none, name: 'seen', group: 0, pooling: 'none', sequenceLength: 5, mask: true },
      { ...none, name: 'user', group: 1, hashRounds: 2, hashBuckets: 100 },
      { ...none, name: 'ad', group: 2, frozen: true },
    ])
    t.equal(native.embeddingClipNorm, 2)
  })

  t.test('what belongs to the type of the model is filled in, and what does not is left out', async (t) => {
    const { model } = parseConfig({ ...least, model: { type: 'dcn', cross: { rank: 3 } } })
    t.same(model.cross, { layers: 3, rank: 3, structure: 'parallel' })
    t.notOk('bottom' in model)
    const features = { columns: { user: {}, ad: {} } }
    t.same(parseConfig({ ...least, data: { labels: ['y'], dense: ['a'] }, features, model: { type: 'dlrm' } }).model.bottom, [512, 256])
    t.notOk('cross' in parseConfig(least).model)
    t.notOk('bottom' in parseConfig({ ...least, data: { labels: ['y'] }, features, model: { type: 'dlrm' } }).model, 'nothing would go through it')
    const masked = { columns: { ad: { pooling: 'none' as const, sequenceLength: 3, mask: true } } }
    t.ok('bottom' in parseConfig({ ...least, data: { labels: ['y'] }, features: masked, model: { type: 'dlrm' } }).model, 'the mask goes through it')
    const resolved = parseConfig({ ...least, features, model: { type: 'dlrm' } })
    t.same(parseConfig(resolved), resolved, 'a resolved config resolves to itself')
  })

  t.test('tasks come in the order of the labels', async (t) => {
    const { tasks } = parseConfig({
      ...least, data: { labels: ['a', 'b'] }, model: { tasks: [{ label: 'b', loss: 'mse' }, { label: 'a', weight: 2 }] },
    }).model
    t.same(tasks, [
      { label: 'a', loss: 'bce', weight: 2, positiveWeight: 1 }, { label: 'b', loss: 'mse', weight: 1, positiveWeight: 1 },
    ])
  })

  t.test('the embedding table: storage, capacities, admission and eviction have defaults and are kept as written', async (t) => {
    t.match(parseConfig(least).embedding, {
      storage: 'fp32', capacity: 1_000_000, groupCapacity: {}, admit: 1, eviction: 'lru', timeToLiveSeconds: 0, weightBound: 10,
    })
    const written = {
      storage: 'bf16', capacity: '1.5GiB', groupCapacity: { education: 500 }, admit: 3, eviction: 'lfu', timeToLiveSeconds: 0.5,
      optimizer: { type: 'adamw', biasCorrection: 'group' }, init: { type: 'normal', truncate: 2 },
    } as const
    const config = parseConfig({ ...least, embedding: written })
    t.match(config.embedding, written)
    t.match(config.embedding.optimizer, { lr: 0.001, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01 })
    t.strictSame(parseConfig(config), config)
    t.same(parseConfig(least, { set: ['embedding.optimizer={type: ftrl, l1: 0.1}'] }).embedding.optimizer,
      { type: 'ftrl', lr: 0.05, initialAccumulator: 0, beta: 1, l1: 0.1, l2: 0, weightDecay: 0 })
    const init = (text: string) => parseConfig(least, { set: [`embedding.init=${text}`] }).embedding.init
    t.same(init('{type: normal}'), { type: 'normal', mean: 0, stddev: 0.01, truncate: 0 })
    t.same(init('{type: gamma}'), { type: 'gamma', shape: 1, scale: 1 })
    t.same(init('{type: poisson}'), { type: 'poisson', lambda: 1 })
    t.same(init('{type: inverse_sqrt_dim}'), { type: 'inverse_sqrt_dim' })
    for (const admit of [0, 0.25, 1, 2, 15]) t.equal(parseConfig({ ...least, embedding: { admit } }).embedding.admit, admit)
    t.match(parseConfig(least, { set: ['embedding.optimizer={type: adam}'] }).embedding.optimizer, { biasCorrection: 'row', weightDecay: 0 })
  })

  t.test('a column may be an id feature and a dense column', async (t) => {
    t.ok(parseConfig({ data: { labels: ['y'], dense: ['age'] }, features: { columns: { age: {} } } }))
  })

  t.test('the format comes from the file ending, the delimiter from the format', async (t) => {
    const source = (train: NonNullable<ConfigInput['data']['train']>) => parseConfig({ ...least, data: { labels: ['income'], train } }).data.train
    t.same(source({ path: 'a.CSV.gz' }), { path: ['a.CSV.gz'], format: 'csv', delimiter: ',', header: true })
    t.same(source({ path: ['x/*.tsv.zst', 'b.tsv'] }), { path: ['x/*.tsv.zst', 'b.tsv'], format: 'tsv', delimiter: '\t', header: true })
    t.same(source({ path: 'a.parquet' }), { path: ['a.parquet'], format: 'parquet' })
    t.same(source({ path: 'a.txt', format: 'csv', delimiter: ';' }), { path: ['a.txt'], format: 'csv', delimiter: ';', header: true })
    const columns = ['income', 'workclass', 'education']
    t.same(source({ path: 'a.csv', columns }), { path: ['a.csv'], format: 'csv', delimiter: ',', header: false, columns })
    t.same(source({ sql: 'select 1' }), { sql: 'select 1' })
  })

  t.test('anchors, aliases and merge keys work', async (t) => {
    const { config, sources } = load(t, `data: { labels: [y] }
features:
  columns:
    a: &big { dim: 64, pooling: mean }
    b: *big
    c: { <<: *big, pooling: sqrt }
`)
    t.same(Object.values(config.features.columns).map(({ dim, pooling }) => [dim, pooling]), [[64, 'mean'], [64, 'mean'], [64, 'sqrt']])
    t.match(sources.get('features.columns.c.dim'), /c\.yml:4$/)
    t.match(sources.get('features.columns.c.pooling'), /c\.yml:6$/)
  })
})

t.test('unknown keys', async (t) => {
  const check = (more: string, expected: string) => {
    const error = refusal(() => load(t, yaml(more)))
    t.equal(error.code, 'PERSIA_CONFIG_UNKNOWN_KEY', more)
    t.same(lines(error), [expected], more)
    return error
  }
  const error = check('model:\n  hiden: [1]', 'c.yml:8:3: model.hiden: unknown key; did you mean model.hidden?')
  t.match(error.details, { path: 'model.hiden', count: 1, suggestion: 'model.hidden', line: 8, column: 3 })
  t.equal(error.exitCode, 2)
  check('batch_size: 5', 'c.yml:7:1: batch_size: unknown key; did you mean batchSize?')
  check('lr: 0.1', 'c.yml:7:1: lr: unknown key; it exists as embedding.optimizer.lr, embedding.groupOptimizer.<name>.lr, '
    + 'model.optimizer.lr')
  check('dim: 4', 'c.yml:7:1: dim: unknown key; it exists as features.defaults.dim, features.columns.<name>.dim')
  check('checkpoint: { bucket: x }', 'c.yml:7:15: checkpoint.bucket: unknown key; known here: dir, everySteps, resume, keep')
  check('embedding: { optimizer: { type: adagrad, momentum: 0.9 } }', 'c.yml:7:42: embedding.optimizer.momentum: unknown key '
    + 'with type adagrad, it belongs to type sgd; adagrad has: type, lr, initialAccumulator, eps, weightDecay')

  t.test('in the settings of a column the path names the column', async (t) => {
    const error = refusal(() => parseConfig({ ...least, features: { columns: { 'site.id': { dims: 4 } } } }))
    t.equal(error.message, 'features.columns."site.id".dims: unknown key; did you mean features.columns."site.id".dim?')
  })

  t.test('a misspelt key that is needed is not also called missing', async (t) => {
    const error = refusal(() => load(t, yaml().replace('columns:', 'colums:')))
    t.same(lines(error), ['c.yml:6:3: features.colums: unknown key; did you mean features.columns?'])
  })
})

t.test('wrong values', async (t) => {
  const check = (text: string, ...expected: string[]) => {
    const error = refusal(() => load(t, text))
    t.equal(error.code, 'PERSIA_CONFIG_INVALID', text)
    t.same(lines(error), expected, text)
    t.notMatch(error.message, /zod|ZodError|Invalid input/, 'nothing of the validator shows')
  }
  const more = (text: string, expected: string) => check(yaml(text), `c.yml:7:${expected}`)

  more('staleness: 2000', '12: staleness: expected an integer from 0 to 1024, got 2000')
  more('staleness: "8"', "12: staleness: expected an integer from 0 to 1024, got '8'; write 8")
  more('batchSize: 1_000', "12: batchSize: expected an integer from 1 to 16777216, got '1_000'; write 1000")
  more('epochs: 0', '9: epochs: expected an integer >= 1, got 0')
  more('epochs: 1.5', '9: epochs: expected an integer >= 1, got 1.5')
  more('seed: 9007199254740993', '7: seed: expected an integer >= 0, got 9007199254740992; integers go up to 2^53 - 1')
  more('deterministic: yes', "16: deterministic: expected true | false, got 'yes'; write true")
  more('mode: hybird', "7: mode: expected sync | hybrid | async, got 'hybird'; did you mean hybrid?")
  more('metrics: 9090', '10: metrics: expected a map with the keys port, got 9090; write { port: 9090 }')
  more('name:', '6: name: expected a non-empty text, got null')
  more('model: { optimizer: adam }', "21: model.optimizer: expected a map with type: adam | adamw | sgd, got 'adam'; write { type: adam }")
  more('model: { optimizer: { type: adamm } }', "29: model.optimizer.type: expected adam or adamw or sgd, got 'adamm'; did you mean adam?")
  more('model: { optimizer: { betas: [0.9] } }',
    '30: model.optimizer.betas: expected a list of 2: a number from 0 to 0.9999999, a number from 0 to 0.9999999, got [ 0.9 ]')
  more('model: { hidden: [64, 0] }', '23: model.hidden.1: expected an integer from 1 to 65536, got 0')
  more('model: { schedule: { type: cosine } }', '10: model.schedule.totalSteps: is missing; expected an integer >= 1')
  more('model: { schedule: { type: linear, totalSteps: 5, warmupSteps: 5 } }',
    '48: model.schedule.totalSteps: must be greater than warmupSteps (5), got 5')
  more('embedding: { init: { low: 3 } }', '27: embedding.init.low: low must be below high, got low 3 and high 0.01')
  for (const admit of [1.5, 2.5, -1, 16]) {
    more(`embedding: { admit: ${admit} }`,
      `21: embedding.admit: expected a number from 0 to 1 or an integer from 2 to 15, got ${admit}`)
  }
  const capacity = (written: string, got: string, hint = '') => more(`embedding: { capacity: ${written} }`,
    `24: embedding.capacity: expected an integer >= 1 or a size in bytes such as 512MiB or 8GiB, got ${got}${hint}`)
  capacity('0', '0')
  capacity('-5', '-5')
  capacity('1.5', '1.5')
  capacity('0GiB', "'0GiB'")
  capacity('-8GiB', "'-8GiB'")
  capacity('lots', "'lots'")
  capacity('8PiB', "'8PiB'")
  capacity('.inf', 'Infinity')
  capacity('8Gib', "'8Gib'", '; write 8GiB')
  capacity('8gb', "'8gb'", '; write 8GB')
  capacity('1.5 G', "'1.5 G'", '; write 1.5GiB')
  capacity("'1_000_000'", "'1_000_000'", '; write 1000000')
  capacity('[8GiB]', "[ '8GiB' ]")
  more('embedding: { capacity: 9000TiB }', '24: embedding.capacity: expected less than 8192TiB, got 9000TiB')
  more('embedding: { capacity: 0.5KB }', '24: embedding.capacity: expected at least 1KiB, got 0.5KB')
  more('embedding: { groupCapacity: { workclass: 0 } }', '42: embedding.groupCapacity.workclass: expected an integer >= 1, got 0')
  more('embedding: { groupCapacity: [workclass] }',
    "29: embedding.groupCapacity: expected a map from column names to an integer >= 1, got [ 'workclass' ]")
  more('embedding: { timeToLiveSeconds: -1 }', '33: embedding.timeToLiveSeconds: expected a number from 0 to 1000000000, got -1')
  more('embedding: { storage: float16 }', "23: embedding.storage: expected fp32 | fp16 | bf16, got 'float16'")
  more('embedding: { eviction: fifo }', "24: embedding.eviction: expected lru | lfu, got 'fifo'")
  more('embedding: { init: { type: normal, truncate: -1 } }', '46: embedding.init.truncate: expected a number >= 0, got -1')
  more('embedding: { init: { type: gamma, shape: 0 } }', '42: embedding.init.shape: expected a number > 0, got 0')
  more('embedding: { init: { type: poisson, lambda: -1 } }', '45: embedding.init.lambda: expected a number >= 0, got -1')
  more('embedding: { optimizer: { type: ftrl, lr: 0 } }', '43: embedding.optimizer.lr: expected a number > 0, got 0')
  more('embedding: { optimizer: { type: ftrl, beta: 0 } }',
    '45: embedding.optimizer.beta: one of beta, l2 and initialAccumulator must be above 0 (at least 1e-30)')
  more('embedding: { optimizer: { type: adam, biasCorrection: rows } }',
    "55: embedding.optimizer.biasCorrection: expected row | group, got 'rows'; did you mean row?")
  const float = 'expected 0 or a number of a size from 1e-30 to 1e+30 (it is held as float32)'
  const tooSmall = (section: string, column: number, key: string) => more(section, `${column}: ${key}: ${float}, got 1e-50`)
  tooSmall('embedding: { weightBound: 1e-50 }', 27, 'embedding.weightBound')
  more('embedding: { weightBound: 1e+50 }', `27: embedding.weightBound: ${float}, got 1e+50`)
  tooSmall('embedding: { init: { low: 1e-50 } }', 27, 'embedding.init.low')
  more('embedding: { init: { low: -1e+31 } }', `27: embedding.init.low: ${float}, got -1e+31`)
  tooSmall('embedding: { init: { type: normal, stddev: 1e-50 } }', 44, 'embedding.init.stddev')
  tooSmall('embedding: { init: { type: gamma, scale: 1e-50 } }', 42, 'embedding.init.scale')
  tooSmall('embedding: { init: { type: poisson, lambda: 1e-50 } }', 45, 'embedding.init.lambda')
  for (const key of ['lr', 'initialAccumulator', 'eps', 'weightDecay']) {
    tooSmall(`embedding: { optimizer: { ${key}: 1e-50 } }`, 29 + key.length, `embedding.optimizer.${key}`)
  }
  for (const key of ['lr', 'beta', 'l1', 'l2']) {
    tooSmall(`embedding: { optimizer: { type: ftrl, ${key}: 1e-50 } }`, 41 + key.length, `embedding.optimizer.${key}`)
  }
  tooSmall('embedding: { optimizer: { type: sgd, momentum: 1e-50 } }', 48, 'embedding.optimizer.momentum')
  more('embedding: { optimizer: { type: sgd, momentum: 0.99999999 } }',
    '48: embedding.optimizer.momentum: expected a number from 0 to 0.9999999, got 0.99999999')
  tooSmall('model: { optimizer: { clipNorm: 1e-50 } }', 33, 'model.optimizer.clipNorm')
  tooSmall('model: { schedule: { type: step, everySteps: 1, gamma: 1e-50 } }', 56, 'model.schedule.gamma')
  tooSmall('model: { schedule: { type: linear, totalSteps: 1, finalFactor: 1e-50 } }', 64, 'model.schedule.finalFactor')
  tooSmall('model: { tasks: [{ label: income, weight: 1e-50 }] }', 43, 'model.tasks.0.weight')
  more('embedding: { weightBound: .nan }', '27: embedding.weightBound: expected a number >= 0, got NaN')

  const data = (from: string, to: string, ...expected: string[]) => check(yaml().replace(from, to), ...expected)
  data('{ path: train.csv }', 'train.csv', 'c.yml:2:10: data.train: expected a map with the keys path, sql, prepared, synth, format, delimiter, header, '
    + "columns, got 'train.csv'; write { path: train.csv }")
  data('[income]', '[]', 'c.yml:3:11: data.labels: expected a non-empty list, each entry a non-empty text or a map with the keys column, positive, got []')
  data('[income]', '[{ column: income, positive: 1 }]', 'c.yml:3:40: data.labels.0.positive: expected a text, got 1; write "1"')
  data('[income]', '[{ positive: "1" }]', 'c.yml:3:12: data.labels.0.column: is missing; expected a non-empty text')
  data('{ workclass: {}, education: { dim: 16 } }', '[workclass, education]', 'c.yml:6:12: features.columns: expected a map from column '
    + "names to settings, got [ 'workclass', 'education' ]; write { workclass: {}, education: {} }")
  data('{ workclass: {}, education: { dim: 16 } }', '{}', 'c.yml:6:12: features.columns: at least one id column is needed')
  data('workclass: {}', '"": {}', 'c.yml:6:18: features.columns."": a name must not be empty')

  check('', '2 problems in the config:',
    'c.yml: data: is missing; expected a map with the keys train, test, split, shuffle, labels, dense, transform, missing, onBadRow, negativeSampling',
    'c.yml: features: is missing; expected a map with the keys defaults, columns, groups, prefixBits')

  t.test('a config that is no map is refused', async (t) => {
    for (const input of [undefined, null, 5, 'x', [least]]) {
      t.match(refusal(() => parseConfig(input)), { code: 'PERSIA_CONFIG_INVALID', message: /^config: / })
    }
  })
})

t.test('values that do not go together', async (t) => {
  const check = (input: object, ...expected: string[]) => {
    const error = refusal(() => parseConfig({ ...least, ...input }))
    t.equal(error.code, 'PERSIA_CONFIG_INVALID')
    t.same(lines(error).slice(expected.length > 1 ? 1 : 0), expected)
  }
  const train = (source: object, ...expected: string[]) => check({ data: { labels: ['income'], train: source } }, ...expected)
  const columns = ['income', 'workclass', 'education']

  train({ path: 'a.csv', sql: 'select 1' }, 'data.train: has path and sql; keep one of them')
  train({ prepared: 'x', header: true }, 'data.train.header: is for files of text')
  const divided = (split: object, ...expected: string[]) =>
    check({ data: { labels: ['income'], train: { path: 'a.csv' }, split } }, ...expected)
  divided({ test: 0.2, column: 'age' }, 'data.split.column: does not belong to by: share')
  divided({ by: 'hash', column: 'age' }, 'data.split.test: is missing; by: hash needs it')
  divided({ by: 'time', column: 'age', from: 3, test: 0.2 }, 'data.split.test: does not belong to by: time')
  check({ data: { labels: ['income'], train: { path: 'a.csv' }, test: { path: 'b.csv' }, split: { test: 0.2 } } },
    'data.split: divides data.train, but data.test is given too; keep one of them')
  check({ data: { labels: ['income'], train: { prepared: 'x' }, split: { test: 0.2 } } },
    'data.split: prepared data is divided when it is prepared; give its test folder as data.test')
  check({ data: { labels: ['income'], train: { synth: { like: 'criteo', rows: 9 } }, negativeSampling: { keep: 0.5 } } },
    'data.negativeSampling: is not for synthetic data')
  check({ features: { columns: { hour: { slice: [8, 6] } } } },
    'features.columns.hour.slice: the second number must be above the first, got [8,6]')
  train({}, 'data.train: has none of path, sql, prepared, synth; one of them is needed')
  train({ sql: 'select 1', delimiter: ';' }, 'data.train.delimiter: is for files; a query brings its own')
  train({ path: 'a.parquet', header: true }, 'data.train.header: is for csv and tsv; parquet files bring their own')
  train({ path: 'data/*' }, 'data.train.format: is missing, and the ending of data/* does not say it; expected csv | tsv | parquet | arrow')
  train({ path: ['a.csv', 'b.parquet'] }, 'data.train.path: mixes csv and parquet files; a source has one format')
  train({ path: 'a.csv', delimiter: '"' }, 'data.train.delimiter: a quote or a line end cannot separate fields')
  train({ path: 'a.csv', delimiter: '\\t' }, String.raw`data.train.delimiter: expected a single character, got '\\t'; write "\t" in double quotes`)
  train({ path: 'a.csv', header: false }, 'data.train.columns: is missing; header: false needs the names of the columns')
  train({ path: 'a.csv', header: true, columns },
    'data.train.header: columns names the columns of files without a header line; keep header: true or columns')
  train({ path: 'a.csv', columns: [...columns, 'income'] }, 'data.train.columns: names the column income twice')
  train({ path: 'a.csv', columns: ['incom', 'workclass', 'education'] },
    "data.labels.0: 'income' is not in data.train.columns; did you mean incom?")

  check({ data: { labels: ['a', { column: 'a' }] } }, 'data.labels.1: a is already a label (data.labels.0)')
  check({ data: { labels: ['a'], dense: ['x', 'x'] } }, 'data.dense.1: x is already a dense column (data.dense.0)')
  check({ data: { labels: ['a'], dense: ['a'] } }, 'data.dense.0: a is a label (data.labels.0); a label cannot be an input of the model')
  check({ data: { labels: ['education'] } },
    'features.columns.education: education is a label (data.labels.0); a label cannot be an input of the model')

  const groups = (groups: string[][], expected: string, more = {}) =>
    check({ features: { columns: { a1: {}, bb: { encoding: 'integer' }, cc: {} }, groups, ...more } }, expected)
  groups([['a1', 'ac1']], "features.groups.0.1: 'ac1' is not a column of features.columns; did you mean a1?")
  groups([['a1', 'cc'], ['cc']], 'features.groups.1.0: cc is already in group 0; a feature is in one group')
  groups([['a1', 'bb']], 'features.groups.0.1: bb has encoding integer, a1 has hash; features that share ids need the same')
  groups([], 'features.prefixBits: expected at least 2 bits for 3 feature groups, got 1', { prefixBits: 1 })

  const rooms = (groupCapacity: object, expected: string) => check({
    features: { columns: { user: {}, friend: {}, item: {} }, groups: [['user', 'friend']] }, embedding: { groupCapacity },
  }, expected)
  rooms({ itme: 5 }, "embedding.groupCapacity.itme: 'itme' is not a column of features.columns; did you mean item?")
  rooms({ user: 5, item: 5, friend: 5 }, 'embedding.groupCapacity.friend: friend is in one group with user, which has its capacity '
    + 'already (embedding.groupCapacity.user)')
  check({ features: { columns: { user: {}, friend: {} }, groups: [['user', 'friend']] }, embedding: { groupOptimizer: { user: {}, friend: {} } } },
    'embedding.groupOptimizer.friend: friend is in one group with user, which has its optimizer already (embedding.groupOptimizer.user)')
  check({ deterministic: true, embedding: { timeToLiveSeconds: 60 } },
    'embedding.timeToLiveSeconds: rows that age by the clock make no two runs alike; leave it out, or set deterministic: false')

  const sequences = (columns: object, expected: string, groups: string[][] = []) => check({ features: { columns, groups } }, expected)
  sequences({ seen: { pooling: 'none' } },
    'features.columns.seen.sequenceLength: missing: pooling none needs the number of ids that lie side by side')
  sequences({ seen: { pooling: 'last', sequenceLength: 3 } },
    'features.columns.seen.sequenceLength: pooling last takes one id, the last; leave it out')
  sequences({ seen: { sequenceLength: 3, mask: true } },
    'features.columns.seen.mask: pooling sum leaves no places to mask; leave it out, or use pooling none')
  sequences({ user: { hashStack: { buckets: 9 } }, friend: {} }, 'features.groups.0.1: friend has hashStack none, user has '
    + '{rounds:2,buckets:9}; features that share ids need the same', [['user', 'friend']])

  const tasks = (tasks: object[], expected: string) => check({ data: { labels: ['click', 'like'] }, model: { tasks } }, expected)
  tasks([{ label: 'click' }, { label: 'likes' }], "model.tasks.1.label: 'likes' is not a label of data.labels; did you mean like?")
  tasks([{ label: 'click' }, { label: 'like' }, { label: 'like' }], 'model.tasks.2.label: like already has a task (model.tasks.1)')
  tasks([{ label: 'click' }], 'model.tasks: no task for like; add { label: like }, or leave it out of data.labels')

  tasks([{ label: 'click' }, { label: 'like', loss: 'mse', positiveWeight: 2 }],
    'model.tasks.1.positiveWeight: only bce has positive samples, the loss is mse')

  const model = (model: object, expected: string, columns: object = { user: { dim: 4 }, ad: {}, site: { dim: 2 } }) =>
    check({ features: { defaults: { dim: 4 }, columns }, model }, expected)
  model({ type: 'deepfm' }, 'model.type: deepfm needs all features of one dim; user has 4, site 2')
  model({ type: 'dlrm' }, 'model.type: dlrm needs all features of one dim; user has 4, site 2')
  model({ type: 'dlrm' }, 'model.type: dlrm multiplies features in pairs: it needs two id features, or one and dense columns', { user: {} })
  model({ cross: { layers: 2 } }, 'model.cross: belongs to model.type dcn, which is ffnn here')
  model({ type: 'dcn', bottom: [8] }, 'model.bottom: belongs to model.type dlrm, which is dcn here')
  model({ type: 'dlrm', bottom: [8] }, 'model.bottom: is for the dense columns, and data.dense has none; leave it out', { user: {}, ad: {} })
  model({ type: 'dcn', cross: { rank: 10 } }, 'model.cross.rank: expected less than the 10 columns of the input (all dims and dense '
    + 'columns), got 10; 0 is the full matrix')

  t.test('three bits are enough for seven groups', async (t) => {
    const of = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`c${index}`, {}]))
    t.ok(parseConfig({ data: { labels: ['y'] }, features: { columns: of(7), prefixBits: 3 } }))
    t.match(refusal(() => parseConfig({ data: { labels: ['y'] }, features: { columns: of(8), prefixBits: 3 } })), { message: /at least 4 bits/ })
  })
})

t.test('a cluster that others can reach needs to know who is let in', async (t) => {
  const check = (cluster: object, path: string, message: RegExp) =>
    t.match(refusal(() => parseConfig({ ...least, cluster })), { code: 'PERSIA_CONFIG_INVALID', details: { path }, message })
  for (const host of ['0.0.0.0', '10.0.0.1', '::', 'db.example.com', '128.0.0.1']) {
    check({ host }, 'cluster.host', /can be reached from other machines: give cluster.auth/)
    t.ok(parseConfig({ ...least, cluster: { host, auth: { tokenEnv: 'TOKEN' } } }))
  }
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) t.ok(parseConfig({ ...least, cluster: { host } }))
  check({ auth: {} }, 'cluster.auth', /either tokenFile or tokenEnv, got neither/)
  check({ auth: { tokenFile: 'a', tokenEnv: 'b' } }, 'cluster.auth', /got both/)
  const ordered = (sql: string) => ({ ...least, data: { ...least.data, train: { sql } }, cluster: { dataLoaders: 2 } })
  t.match(refusal(() => parseConfig(ordered('select * from clicks'))),
    { code: 'PERSIA_CONFIG_INVALID', details: { path: 'cluster.dataLoaders' }, message: /add an order by/ })
  t.ok(parseConfig(ordered('select * from clicks ORDER\n  BY id')))
})

t.test('training in one process refuses what only a cluster has', async (t) => {
  const refused = async (cluster: object, path: string) => {
    const config = { ...least, cluster } as ConfigInput
    const expected = { code: 'PERSIA_CONFIG_UNSUPPORTED', details: { path }, message: /use persia launch/ }
    await t.rejects(Trainer.create(config), expected)
    await t.rejects(runTraining(config).next(), expected)
  }
  await refused({ parameterServers: 2 }, 'cluster.parameterServers')
  await refused({ embeddingWorkers: 3 }, 'cluster.embeddingWorkers')
  await refused({ dataLoaders: 2 }, 'cluster.dataLoaders')
  await refused({ transport: 'tcp' }, 'cluster.transport')
  await refused({ wire: { rows: 'int8' } }, 'cluster.wire.rows')
  await refused({ wire: { compression: 'zstd' } }, 'cluster.wire.compression')
})

t.test('what is the same config for a cluster does not depend on how its processes are reached', async (t) => {
  const hash = (more: object) => configHash(parseConfig({ ...least, ...more } as ConfigInput))
  t.equal(hash({ cluster: { host: '::1', port: 7000, auth: { tokenEnv: 'X' } } }), hash({}))
  for (const more of [{ seed: 1 }, { cluster: { parameterServers: 2 } }, { cluster: { wire: { rows: 'fp16' } } }]) {
    t.not(hash(more), hash({}))
  }
  t.equal(configHash(parseConfig(JSON.parse(JSON.stringify(parseConfig(least))))), hash({}), 'also once it was handed out')
})

t.test('NN workers, accumulation and the bound on their product', async (t) => {
  const native = (more: object) => nativeConfig(parseConfig({ ...least, ...more } as ConfigInput))
  t.match(native({ mode: 'async', accumulate: 3, cluster: { nnWorkers: 4 } }),
    { mode: 'async', accumulate: 3, nnWorkers: 4, traceSpans: 0 })
  t.match(native({ mode: 'sync' }), { mode: 'sync', staleness: 0, syncSteps: 0, nnWorkers: 1, accumulate: 1 })
  t.match(native({ syncSteps: 100 }), { syncSteps: 100 })
  const check = (sets: string[], path: string, message: RegExp) =>
    t.match(refusal(() => parseConfig(least, { set: sets })), { code: 'PERSIA_CONFIG_INVALID', details: { path }, message })
  check(['mode=async', 'cluster.nnWorkers=2', 'deterministic=true'], 'deterministic', /no fixed order.*cluster.nnWorkers: 1/)
  t.ok(parseConfig(least, { set: ['mode=async', 'deterministic=true'] }))
  check(['batchSize=16777216', 'cluster.nnWorkers=2'], 'batchSize', /16777216 × accumulate 1 × cluster.nnWorkers 2/)
})

t.test('what the addon is told of loss scaling', async (t) => {
  const native = (lossScaling?: unknown) =>
    nativeConfig(parseConfig({ ...least, ...(lossScaling !== undefined && { model: { lossScaling } }) } as ConfigInput)).lossScaling
  t.match(native(), { scale: 1, dynamic: false })
  t.match(native('off'), { scale: 1, dynamic: false })
  t.match(native(1024), { scale: 1024, dynamic: false })
  t.same(native('dynamic'), { scale: 65536, dynamic: true, growthInterval: 2000, growth: 2, backoff: 0.5 })
  t.same(native({}), native('dynamic'))
  t.same(native({ initial: 8, growthInterval: 3, growth: 4, backoff: 0.25 }), { scale: 8, dynamic: true, growthInterval: 3, growth: 4, backoff: 0.25 })
  for (const wrong of [0, 0.5, 2 ** 25, { initial: 0 }, { growth: 1 }, { backoff: 1 }, { growthInterval: 0 }, 'on']) {
    t.match(refusal(() => native(wrong)), { code: 'PERSIA_CONFIG_INVALID' })
  }
})

t.test('what the addon is told of the tables', async (t) => {
  const features = { columns: { user: { dim: 16 }, friend: { dim: 8 }, item: { dim: 8 }, day: { dim: 16 } }, groups: [['user', 'friend']] }
  const native = (embedding: ConfigInput['embedding']) => nativeConfig(parseConfig({ ...least, features, embedding })).embedding
  const groupCapacities: never[] = []

  t.match(native({}).tables, [
    { dim: 16, capacityRows: 1_000_000, capacityBytes: 0, groupCapacities }, { dim: 8, capacityRows: 1_000_000, capacityBytes: 0, groupCapacities },
  ], 'rows hold for each dim, in the order of the features')
  for (const [capacity, bytes] of [['48MB', 48e6], ['3KiB', 3072], ['1.5 GiB', 1.5 * 2 ** 30], ['0.5TB', 5e11]] as const) {
    t.same(native({ capacity }).tables.map(({ capacityRows, capacityBytes }) => [capacityRows, capacityBytes]),
      [[0, Math.floor(bytes * 2 / 3)], [0, Math.floor(bytes / 3)]], 'bytes are shared out by dim × features')
  }
  t.same(native({ groupCapacity: { friend: 7, day: 9 } }).tables.map((table) => table.groupCapacities), [
    [{ group: 0, rows: 7 }, { group: 2, rows: 9 }], [{ group: 0, rows: 7 }],
  ], 'a group has its room in each table that its features use')
  t.match(native({ admit: 0.5 }), { admitProbability: 0.5, admitFrequency: 1, timeToLiveMs: 0 })
  t.match(native({ admit: 5, timeToLiveSeconds: 0.0001 }), { admitProbability: 1, admitFrequency: 5, timeToLiveMs: 1 })
  t.match(native({ optimizer: { type: 'adamw', betas: [0.8, 0.9] } }).tables[1]!.optimizer, { type: 'adamw', beta1: 0.8, beta2: 0.9, biasCorrection: 'row' })
  t.match(native({ groupOptimizer: { friend: { type: 'ftrl' }, day: { lr: 0.1 } } }).tables, [
    { dim: 16, optimizer: { type: 'ftrl' } }, { dim: 8, optimizer: { type: 'ftrl' } },
    { dim: 8, optimizer: { type: 'adagrad', lr: 0.05 } }, { dim: 16, optimizer: { type: 'adagrad', lr: 0.1 } },
  ], 'a table for each dim and optimizer')
})

t.test('all problems are reported at once, in the order of the file', async (t) => {
  const error = refusal(() => load(t, yaml(`staleness: "8"
metrics: { port: 99999 }
model: { hiden: [1], hidden: [0] }
checkpoint: { keep: -1 }
`).replace('[income]', '[income, income]').replace('dim: 16', 'dim: 0')))
  t.same(lines(error), [
    '7 problems in the config:',
    'c.yml:3:20: data.labels.1: income is already a label (data.labels.0)',
    'c.yml:6:47: features.columns.education.dim: expected an integer from 1 to 65536, got 0',
    "c.yml:7:12: staleness: expected an integer from 0 to 1024, got '8'; write 8",
    'c.yml:8:18: metrics.port: expected an integer from 0 to 65535, got 99999',
    'c.yml:9:10: model.hiden: unknown key; did you mean model.hidden?',
    'c.yml:9:31: model.hidden.0: expected an integer from 1 to 65536, got 0',
    'c.yml:10:21: checkpoint.keep: expected an integer >= 0, got -1',
  ])
  t.match(error.details, { path: 'data.labels.1', count: 7, line: 3, column: 20 })

  t.test('a wrong value does not make a false problem elsewhere', async (t) => {
    const error = refusal(() => load(t, yaml('  groups: [[workclass, education]]').replace('{ dim: 16 }', '16')))
    t.same(lines(error), ['c.yml:6:40: features.columns.education: expected a map with the keys dim, pooling, encoding, separator, '
      + 'sequenceLength, mask, hashStack, frozen, column, slice or nothing, got 16; write { dim: 16 }'])
  })

  t.test('a long list of problems is cut, with their number', async (t) => {
    const columns = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`c${index}`, { dim: 0 }]))
    const error = refusal(() => parseConfig({ ...least, features: { columns } }))
    t.equal(error.details['count'], 100)
    t.match(error.message, /^100 problems in the config:\n(.*\n){25}… and 75 more$/)
  })
})

t.test('files that cannot be read', async (t) => {
  const check = (text: string, where: string, why: RegExp) => {
    const error = refusal(() => load(t, text))
    t.equal(error.code, 'PERSIA_CONFIG_UNREADABLE')
    t.match(lines(error)[0], where)
    t.match(error.message, why)
    t.type(error.details['line'], 'number')
    t.type(error.details['column'], 'number')
  }
  check('a: 1\na: 2\n', 'c.yml:2:1: ', /unique/)
  check('a: [1\n', 'c.yml:2:1: ', /end with a \]/)
  check('a: !env HOME\n', 'c.yml:1:4: ', /!env/)
  check('a: 1\n---\nb: 1\n', 'c.yml:2:1: ', /more than one document/)
  check('positive: >50K\n', 'c.yml:1:', /needs quotes/)
  check('a: &a { b: *a }\n', 'c.yml:1:12: ', /alias inside the value/)
  check(`a: &a [${'x,'.repeat(20)}]\nb: &b [${'*a,'.repeat(20)}]\nc: [${'*b,'.repeat(20)}]\n`, 'c.yml:1:1: ', /alias count/)

  t.match(refusal(() => loadConfigFile('/nowhere/c.yml')),
    { code: 'PERSIA_CONFIG_UNREADABLE', message: 'The config /nowhere/c.yml cannot be read: there is no such file.' })
  t.match(refusal(() => loadConfigFile(t.testdir({}))), { code: 'PERSIA_CONFIG_UNREADABLE' })
})

t.test('--set', async (t) => {
  const set = (...set: string[]) => parseConfig(least, { set })

  t.test('takes YAML values', async (t) => {
    t.equal(set('batchSize=64').batchSize, 64)
    t.equal(set('deterministic=true').deterministic, true)
    t.equal(set('name=a=b').name, 'a=b')
    t.same(set('model.hidden=[64, 32]').model.hidden, [64, 32])
    t.match(set('embedding.optimizer={type: adam, lr: 1e-2}').embedding.optimizer, { type: 'adam', lr: 0.01 })
  })

  t.test('later ones go over earlier ones, and the input is not changed', async (t) => {
    const before = structuredClone(least)
    t.equal(set('seed=1', 'model={hidden: [8]}', 'seed=2').seed, 2)
    t.same(least, before)
  })

  t.test('reaches into lists and into columns without settings', async (t) => {
    t.equal(set('model.tasks=[{label: income}]', 'model.tasks.0.weight=2').model.tasks[0]?.weight, 2)
    t.equal(parseConfig({ ...least, features: { columns: { x: null } } }, { set: ['features.columns.x.dim=4'] }).features.columns['x']?.dim, 4)
    t.equal(set('features.columns."site.id".dim=4').features.columns['site.id']?.dim, 4)
    t.same(set('data.labels.1=other').data.labels.map(({ column }) => column), ['income', 'other'])
  })

  t.test('is checked like the file', async (t) => {
    const error = refusal(() => set('model.hiden=[1]'))
    t.match(error, { code: 'PERSIA_CONFIG_UNKNOWN_KEY', message: '--set: model.hiden: unknown key; did you mean model.hidden?' })
    t.match(refusal(() => set('seed=x')), { code: 'PERSIA_CONFIG_INVALID', message: "--set: seed: expected an integer >= 0, got 'x'" })
    t.match(refusal(() => set('seed=')), { code: 'PERSIA_CONFIG_INVALID', message: '--set: seed: expected an integer >= 0, got null' })
  })

  t.test('of another type over keys of the old one says how to replace them', async (t) => {
    const text = yaml('embedding: { optimizer: { type: adagrad, initialAccumulator: 0.1 } }')
    const error = refusal(() => load(t, text, ['embedding.optimizer.type=adam']))
    t.equal(error.code, 'PERSIA_CONFIG_UNKNOWN_KEY')
    t.same(lines(error), ['c.yml:7:42: embedding.optimizer.initialAccumulator: unknown key with type adam, it belongs to type adagrad | '
      + "rowwise_adagrad | ftrl; adam has: type, lr, betas, eps, biasCorrection, weightDecay; --set 'embedding.optimizer={type: adam}' replaces the whole map"])
  })

  t.test('of a whole map names the wrong key in it, without that advice', async (t) => {
    const error = refusal(() => set('embedding.optimizer={type: adam, momentum: 0.9}'))
    t.match(error.message, /^--set: embedding.optimizer.momentum: unknown key with type adam.*weightDecay$/)
  })

  t.test('that is malformed is bad usage', async (t) => {
    const check = (setting: string, why: RegExp) => {
      t.match(refusal(() => set(setting)), { code: 'PERSIA_USAGE', exitCode: 2, message: why }, setting)
    }
    for (const setting of ['mode', '=1', 'a..b=1', '.a=1', '']) check(setting, /expected key.path=value/)
    check('model.hidden=[64, 32', /not valid YAML/)
    check('features.defaults.separator=|', /needs double quotes inside: '"\|"'/)
    check('data.labels.3=x', /list of 1; expected an index from 0 to 1 in place of 3/)
    check('data.labels.first=x', /in place of first/)
    check('data.labels.0.positive=x', /data.labels.0 is "income", which has no keys/)
    check('model.tasks.0.weight=2', /no entries yet; set the whole list/)
    check('__proto__.x=1', /no such key/)
    t.match(refusal(() => parseConfig([], { set: ['mode=sync'] })), { code: 'PERSIA_USAGE', message: /the config is a list/ })
  })
})

t.test('every value says where it comes from', async (t) => {
  const { config, sources, baseDir } = load(t, `mode: sync
data:
  train: { path: t.csv }
  labels: [x, y]
  dense: [a]
  transform: log1p
features:
  defaults: { dim: 4 }
  columns:
    u: { pooling: mean }
    v:
model: { hidden: [8, 4], tasks: [{ label: y, loss: mse }, { label: x, weight: 3 }] }
`, ['model.tasks.1.weight=9', 'features.columns.v.dim=5', 'model.hidden.1=2', 'embedding.init={type: zeros}'])
  const from = (path: string) => sources.get(path)?.replace(`${baseDir}/`, '')
  t.equal(baseDir, t.testdirName)
  t.equal(from('name'), 'default')
  t.equal(from('mode'), 'c.yml:1')
  t.equal(from('staleness'), 'derived (mode: sync)')
  t.equal(from('data.train.path'), 'c.yml:3')
  t.equal(from('data.train.format'), 'derived (file ending)')
  t.equal(from('data.train.delimiter'), 'derived (format: csv)')
  t.equal(from('data.labels.1.column'), 'c.yml:4')
  t.equal(from('data.dense.0.transform'), 'c.yml:6')
  t.equal(from('data.dense.0.missing'), 'default')
  t.equal(from('features.columns.u.dim'), 'c.yml:8')
  t.equal(from('features.columns.u.pooling'), 'c.yml:10')
  t.equal(from('features.columns.v.dim'), '--set')
  t.equal(from('features.columns.v.pooling'), 'default')
  t.equal(from('features.groups'), 'derived (features.columns)')
  t.equal(from('embedding.init.type'), '--set')
  t.equal(from('model.hidden'), 'c.yml:12, --set')
  t.equal(from('model.tasks.0.weight'), '--set', 'task 0 is the one of label x, written second')
  t.equal(from('model.tasks.1.loss'), 'c.yml:12')
  t.same([...sources.keys()], leavesOf(config).map(({ path }) => path.join('.')), 'every leaf has a source')

  t.test('tasks that nobody wrote come from the labels', async (t) => {
    const { sources } = load(t, yaml())
    t.equal(sources.get('model.tasks.0.label'), 'derived (data.labels)')
    t.equal(sources.get('model.tasks.0.loss'), 'default')
  })
})

t.test('the fingerprint of a model', async (t) => {
  const base: ConfigInput = {
    data: { labels: [{ column: 'y', positive: 'yes' }], dense: ['a', 'b'] },
    features: { columns: { workclass: {}, education: { dim: 8 } } },
    model: { hidden: [8, 4] },
  }
  const diff = (...set: string[]) =>
    diffFingerprint(JSON.parse(JSON.stringify(modelFingerprint(parseConfig(base)))), modelFingerprint(parseConfig(base, { set })))

  t.same(diff(), [], 'is the same for the same config, also after a trip through JSON')
  t.same(diff('model.optimizer.lr=0.5', 'batchSize=7', 'data.train={path: x.csv}', 'mode=sync', 'embedding.capacity=5', 'epochs=9',
    'model.optimizer.clipNorm=1', 'model.tasks=[{label: y, weight: 4}]', 'embedding.clipNorm=1',
    'features.columns.education.frozen=true'), [], 'does not hold what may change')
  t.same(diff('features.columns.education.dim=16'), ['features.columns.education.dim: 8 in the checkpoint, 16 in the config'])
  t.same(diff('features.columns.sex={}'), [
    'features.columns.sex: not in the checkpoint, {"dim":8,"pooling":"sum","encoding":"hash"} in the config',
    'features.groups: [["workclass"],["education"]] in the checkpoint, [["workclass"],["education"],["sex"]] in the config'])
  t.same(diff('features.columns={education: {}, workclass: {}}', 'features.groups=[[workclass], [education]]'),
    ['features.columns: in the order workclass, education in the checkpoint, education, workclass in the config'])
  t.same(diff('features.defaults.separator=;', 'features.prefixBits=9'), [
    'features.columns.workclass.separator: not in the checkpoint, ; in the config',
    'features.columns.education.separator: not in the checkpoint, ; in the config',
    'features.prefixBits: 8 in the checkpoint, 9 in the config'])
  t.same(diff('data.dense=[a, {column: c, transform: log1p}]'), [
    'data.dense.b: {"transform":"none"} in the checkpoint, not in the config',
    'data.dense.c: not in the checkpoint, {"transform":"log1p"} in the config'])
  t.same(diff('data.dense=[]'), [
    'data.dense.a: {"transform":"none"} in the checkpoint, not in the config',
    'data.dense.b: {"transform":"none"} in the checkpoint, not in the config'])
  t.same(diff('data.labels.0.positive="no"', 'seed=5'),
    ['seed: 0 in the checkpoint, 5 in the config', 'data.labels.y.positive: yes in the checkpoint, no in the config'])
  t.same(diff('model.hidden=[8]', 'model.tasks=[{label: y, loss: mse}]'),
    ['model.hidden: [8,4] in the checkpoint, [8] in the config', 'model.tasks.y.loss: bce in the checkpoint, mse in the config'])
  t.same(diff('embedding.groupOptimizer.education={type: sgd}'), [
    'embedding.groupOptimizer: not in the checkpoint, {"education":{"type":"sgd","momentum":"off"}} in the config'])
  t.same(diff('model.type=dcn'), [
    'model.type: not in the checkpoint, dcn in the config',
    'model.cross: not in the checkpoint, {"layers":3,"rank":0,"structure":"parallel"} in the config'])
  t.same(diff('embedding.storage=bf16', 'embedding.capacity=8GiB', 'embedding.groupCapacity.workclass=9', 'embedding.eviction=lfu',
    'embedding.admit=3', 'embedding.timeToLiveSeconds=5'), [], 'nor how rows are stored, admitted and evicted')
  t.same(diff('embedding.init.high=0.5', 'embedding.optimizer={type: rowwise_adagrad}'), [
    'embedding.optimizer.type: adagrad in the checkpoint, rowwise_adagrad in the config',
    'embedding.init.high: 0.01 in the checkpoint, 0.5 in the config'])

  t.test('is the same whichever feature names a group, in whatever order', async (t) => {
    const of = (groupOptimizer: object) => modelFingerprint(parseConfig({
      ...base, features: { columns: { workclass: {}, education: {}, sex: {} }, groups: [['education', 'workclass']] }, embedding: { groupOptimizer },
    }))
    const [adam, sgd] = [{ type: 'adam' }, { type: 'sgd' }]
    t.same(diffFingerprint(of({ workclass: adam, sex: sgd }), of({ sex: sgd, education: adam })), [])
    t.same(diffFingerprint(of({ workclass: adam }), of({ workclass: sgd })).map((line) => line.split(':')[0]),
      ['embedding.groupOptimizer.education.type', 'embedding.groupOptimizer.education.biasCorrection', 'embedding.groupOptimizer.education.momentum'])
  })

  t.test('tells Adam with a count of updates in each row from Adam without', async (t) => {
    const of = (optimizer: NonNullable<ConfigInput['embedding']>['optimizer']) => modelFingerprint(parseConfig({ ...base, embedding: { optimizer } }))
    t.same(diffFingerprint(of({ type: 'adam' }), of({ type: 'adam', biasCorrection: 'group' })),
      ['embedding.optimizer.biasCorrection: row in the checkpoint, group in the config'])
    t.same(diffFingerprint(of({ type: 'adam' }), of({ type: 'adamw' })), ['embedding.optimizer.type: adam in the checkpoint, adamw in the config'])
  })

  t.test('tells SGD with momentum, which has a buffer, from SGD without', async (t) => {
    const of = (momentum: number) => modelFingerprint(parseConfig({ ...base, model: { optimizer: { type: 'sgd', momentum } } }))
    t.same(diffFingerprint(of(0.9), of(0.5)), [])
    t.same(diffFingerprint(of(0), of(0.9)), ['model.optimizer.momentum: off in the checkpoint, on in the config'])
  })
})

t.test('the schema', async (t) => {
  interface Schema { description?: string; properties?: Record<string, Schema>; [key: string]: unknown }
  const nameless: string[] = []
  const visit = (schema: Schema, at: string): void => {
    for (const [key, child] of Object.entries(schema.properties ?? {})) {
      if (!child.description) nameless.push(`${at}${key}`)
      visit(child, `${at}${key}.`)
    }
    for (const key of ['anyOf', 'oneOf']) for (const child of (schema[key] ?? []) as Schema[]) visit(child, at)
    for (const key of ['items', 'additionalProperties']) if (typeof schema[key] === 'object') visit(schema[key] as Schema, at)
  }
  visit(configJsonSchema as Schema, '')
  t.same(nameless, [], 'describes every key')
  t.match(configJsonSchema, { type: 'object', required: ['data', 'features'], additionalProperties: false })
})

t.test('docs/config.md is up to date (node scripts/generate-config-docs.mjs)', async (t) => {
  const text = readFileSync(path.join(root, 'docs/config.md'), 'utf8')
  t.equal(withGeneratedPart(text), text)
})

t.test('persia config', async (t) => {
  const run = async (...args: string[]): Promise<string> => {
    const log = t.capture(console, 'log')
    try {
      await yargs(args).command(configCommand).strict().exitProcess(false).fail(false).parseAsync()
    } finally {
      log.restore()
    }
    return log().map(({ args }) => args.join(' ')).join('\n')
  }
  const file = path.join(t.testdir({ 'c.yml': contract, 'bad.yml': 'mod: sync' }), 'c.yml')

  t.equal(await run('config', 'validate', '--config', file), 'ok')
  t.equal(await run('config', 'validate', '--config', file, '--json', '--set', 'seed=1', '--set', 'mode=sync'), '{"event":"config","valid":true}')
  await t.rejects(run('config', 'validate', '--config', file, '--set', 'seed=x'), { code: 'PERSIA_CONFIG_INVALID' })
  await t.rejects(run('config', 'validate', '--config', file.replace('c.yml', 'bad.yml')), { message: /did you mean mode\?/ })
  await t.rejects(run('config', 'validate'), /config/)
  await t.rejects(run('config'), /validate, schema, explain/)
  await t.rejects(run('config', 'check'), /check/)

  t.same(JSON.parse(await run('config', 'schema')), JSON.parse(JSON.stringify(configJsonSchema)))

  const rows = (await run('config', 'explain', '--config', file, '--set', 'seed=9')).split('\n')
  const row = (key: string) => rows.find((line) => line.startsWith(`${key} `))?.split(/ {2,}/)
  t.same(row('seed'), ['seed', '9', '--set'])
  t.same(row('epochs'), ['epochs', '4', `${file}:6`])
  t.same(row('checkpoint.keep'), ['checkpoint.keep', '3', 'default'])
  t.equal(new Set(rows.map((line) => line.search(/(default|--set|derived \(.*\)|\/.*:\d+)$/))).size, 1, 'the columns are aligned')

  const events = (await run('config', 'explain', '--json', '--config', file)).split('\n').map((line) => JSON.parse(line))
  t.match(events.find(({ path }) => path === 'model.hidden'), { event: 'config', value: [4096, 2048, 1024, 512, 256], source: `${file}:25` })
})

t.test('early stopping and negative sampling are resolved to the label and the mode that they mean', async (t) => {
  const two: ConfigInput = {
    data: { labels: ['click', 'price'] }, features: { columns: { user: null } },
    model: { tasks: [{ label: 'click' }, { label: 'price', loss: 'mse' }] },
  }
  const stopping = (settings: object, config = two) => parseConfig({ ...config, evaluate: { groupBy: 'user', earlyStopping: settings } }).evaluate.earlyStopping
  t.same(stopping({}), { metric: 'auc', label: 'click', mode: 'max', patience: 3, minChange: 0 })
  t.match(stopping({ metric: 'logloss' }), { label: 'click', mode: 'min' })
  t.match(stopping({ metric: 'mse' }), { label: 'price', mode: 'min' })
  t.same(stopping({ metric: 'profit', mode: 'max' }), { metric: 'profit', mode: 'max', patience: 3, minChange: 0 })
  const sampled = parseConfig({ ...two, data: { ...two.data, negativeSampling: { keep: 0.1 } } })
  t.same(sampled.data.negativeSampling, { keep: 0.1, label: 'click' })
  t.same(parseConfig(sampled), sampled, 'a resolved config resolves to itself')
  const refused = (more: object, message: RegExp) => t.throws(() => parseConfig({ ...two, ...more }), { code: 'PERSIA_CONFIG_INVALID', message })
  refused({ evaluate: { earlyStopping: { metric: 'gauc' } } }, /gauc needs evaluate.groupBy/)
  refused({ evaluate: { earlyStopping: { label: 'price' } } }, /'price' is not the label of a task with loss bce/)
  refused({ evaluate: { earlyStopping: { metric: 'profit' } } }, /a metric of your own needs mode/)
  refused({ evaluate: { earlyStopping: { metric: 'profit', mode: 'max', label: 'click' } } }, /profit is a metric of your own; it has no label/)
  refused({ data: { labels: ['click', 'price'], negativeSampling: { keep: 0.1 } }, model: {} }, /whose negatives are meant\? name one of the labels click, price/)
  refused({ model: { tasks: [{ label: 'click', loss: 'mse' }, { label: 'price', loss: 'mse' }] }, evaluate: { groupBy: 'user' } },
    /evaluate.groupBy: groups are for the AUC of labels whose task has loss bce, and there are none/)
  refused({ model: { tasks: [{ label: 'click', loss: 'mse' }, { label: 'price', loss: 'mse' }] }, evaluate: { earlyStopping: {} } }, /no label has a task with loss bce, so there is no auc/)
})
