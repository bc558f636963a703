// The schema: the one source of all options. Types, defaults, validation, JSON Schema, `persia config explain` and the
// table in docs/config.md come from it. Every key is described with its unit; maps are strict, so a misspelt key is an
// error. What ties two sections together (groups name features, tasks name labels) is checked in resolve.ts.
import { z } from 'zod'
import { byteSizePattern, bytesOf } from './byte-size.js'

const text = () => z.string().min(1)
const integer = (least: number, most?: number) =>
  (most === undefined ? z.int().min(least) : z.int().min(least).max(most))
const fraction = () => z.number().min(0).max(1)

/**
 * A number that the core holds as float32: 0, or so far from where that becomes 0 or infinite that sums and ratios
 * don't get there either.
 */
const leastFloat = 1e-30
const mostFloat = 1e30
const fitsFloat = (value: number) => value === 0 || (Math.abs(value) >= leastFloat && Math.abs(value) <= mostFloat)
const float = () => z.number().refine(fitsFloat, {
  abort: true,
  error: ({ input }) =>
    `expected 0 or a number of a size from ${leastFloat} to ${mostFloat} (it is held as float32), got ${input}`,
})
const aboveZero = () => float().gt(0)
const atLeastZero = () => float().min(0)
/** Below 1 as a float32 too. */
const belowOne = () => float().min(0).max(0.9999999)

/** The discriminator of a union: the variant whose type is `orDefault` is also taken when no type is written. */
const type = <const T extends string>(name: T) => z.literal(name).describe('Which variant')
const typeOrDefault = <const T extends string>(name: T) =>
  z.literal(name).optional().default(name).describe('Which variant')

// ---- data

const synth = z.strictObject({
  like: z.enum(['criteo', 'avazu', 'taobao', 'criteo-syn'])
    .describe('The data set whose fields, cardinalities, skew and click rate it has; `criteo-syn`: that of Criteo with '
      + '`ids` as many as you like'),
  rows: integer(1).describe('Rows of a pass'),
  firstRow: integer(0).default(0).describe('Number of the first row: training and test data are other rows'),
  ids: integer(0).default(0).describe('Distinct ids in all features together; 0: as many as the data set has'),
  seed: integer(0).default(0).describe('Of the rows and of the hidden model that decides the labels'),
})

const source = z.strictObject({
  path: z.union([text(), z.array(text()).min(1)]).optional()
    .describe("File, glob, or list of these; relative to the config file's folder. One of `path`, `sql`, `prepared` "
      + 'and `synth`'),
  sql: text().optional().describe('A DuckDB query whose result is the data'),
  prepared: text().optional()
    .describe('Folder that `persia data prepare` has written: `train` or `test` in its output'),
  synth: synth.optional().describe('Synthetic data, made while training'),
  format: z.enum(['csv', 'tsv', 'parquet', 'arrow']).optional()
    .describe('Format of the files. Without it: by the file ending, also before `.gz` and `.zst`'),
  delimiter: z.string().length(1).optional()
    .describe('csv and tsv: the character between fields. Without it: `,` for csv, a tab for tsv'),
  header: z.boolean().optional()
    .describe('csv and tsv: whether the first line names the columns. Without it: true, or false where `columns` is '
      + 'given'),
  columns: z.array(text()).min(1).optional()
    .describe('csv and tsv: the names of the columns of files without a header line'),
})

const label = z.union([
  text(),
  z.strictObject({
    column: text().describe('Column of the label'),
    positive: z.string().optional()
      .describe('The text that means 1; all other texts mean 0. Without it the column holds numbers'),
  }),
])

const transform = z.enum(['none', 'log1p', 'standardize'])

const dense = z.union([
  text(),
  z.strictObject({
    column: text().describe('A numeric column'),
    transform: transform.optional().describe('As `data.transform`, for this column'),
    missing: z.union([z.number(), z.literal('auto')]).default('auto')
      .describe('What stands for a missing value: a raw number, transformed like any other; `auto`: 0 after the '
        + 'transform (with standardize that is the mean)'),
  }),
])

const negativeSampling = z.strictObject({
  keep: z.number().gt(0).max(1)
    .describe('Share of the negatives (label below 0.5) that a pass over the training data keeps; another choice in '
      + 'each epoch'),
  label: text().optional().describe('The label whose negatives are meant. Without it: the label of the only bce task'),
})

const split = z.strictObject({
  by: z.enum(['share', 'hash', 'time']).default('share')
    .describe('What decides which rows are test data; `share`: a draw for each row, `hash`: one for each value of '
      + '`column`, `time`: whether `column` is `from` or later'),
  test: z.number().gt(0).lt(1).optional().describe('share and hash: the part of the rows, or of the values'),
  column: text().optional().describe('hash and time: the column, which need not be one of the model'),
  from: z.union([z.number(), text()]).optional()
    .describe('time: the first value of the test data. A number compares with numbers, a text with texts, byte by '
      + 'byte'),
})

const shuffle = z.strictObject({
  buffer: integer(0, 2 ** 24).default(65536)
    .describe('Rows that are shuffled with each other, a run of so many at a time; 0: rows keep their order'),
  files: z.boolean().default(true).describe('Whether files, or shards of prepared data, come in another order'),
})

const data = z.strictObject({
  train: source.optional().describe('What the model is trained on'),
  test: source.optional().describe('What the model is evaluated on'),
  split: split.optional()
    .describe('Divides `data.train` into training and test data, in place of `data.test`; the draws depend on `seed`'),
  shuffle: shuffle.optional()
    .describe('The order of the training data is drawn anew in each epoch, from `seed`. Without it rows come in the '
      + 'order of the data'),
  labels: z.array(label).min(1).describe('Label columns, one per task: the name, or a map'),
  dense: z.array(dense).default([])
    .describe('Numeric columns that go to the dense network as they are: the name, or a map'),
  transform: transform.default('none')
    .describe('Of all dense columns: `log1p` is sign(x) · log(1 + |x|), `standardize` is (x - mean) / standard '
      + 'deviation of the training data'),
  missing: z.array(z.string()).default(['']).describe('Texts that mean "no value", in every column'),
  onBadRow: z.enum(['fail', 'skip']).default('fail')
    .describe('A row that cannot be read: stop and name it, or leave it out and count it'),
  negativeSampling: negativeSampling.optional()
    .describe('Training on all positives and a share of the negatives. Predictions for the label are corrected for it, '
      + 'in evaluation too'),
})

// ---- features

const dim = integer(1, 65536)
const pooling = z.enum(['sum', 'mean', 'sqrt', 'last', 'none'])
const encoding = z.enum(['hash', 'integer'])

const features = z.strictObject({
  defaults: z.strictObject({
    dim: dim.default(8).describe('Floats in an embedding row'),
    pooling: pooling.default('sum')
      .describe('How the rows of several ids become one vector; `sqrt`: the sum divided by the square root of their '
        + 'number; `last`: that of the last id; `none`: not at all, `sequenceLength` vectors lie side by side'),
    encoding: encoding.default('hash')
      .describe('How a value becomes an id; `hash`: XXH64 of its text, `integer`: the value is the id'),
    separator: text().optional()
      .describe('Text that splits a value into several ids. Without it a value is one id'),
  }).prefault({}).describe('What holds for every feature that does not say otherwise'),
  columns: z.record(text(), z.strictObject({
    dim: dim.optional().describe('As `features.defaults.dim`, for this feature'),
    pooling: pooling.optional().describe('As `features.defaults.pooling`, for this feature'),
    encoding: encoding.optional().describe('As `features.defaults.encoding`, for this feature'),
    separator: text().optional().describe('As `features.defaults.separator`, for this feature'),
    sequenceLength: integer(1, 65536).optional()
      .describe('How many ids of a sample count, the last ones; places that a sample does not fill are masked (pooling '
        + 'none: zeros). Without it all count'),
    mask: z.boolean().optional()
      .describe('pooling none: whether the network also gets a 0 or 1 for each of the `sequenceLength` places, 1 where '
        + 'an id fills it; they count as dense columns of the model'),
    hashStack: z.strictObject({
      rounds: integer(1, 16).default(2).describe('Rows that an id is the sum of'),
      buckets: integer(1).describe('Rows of a round'),
    }).optional().describe('Instead of a row for each id, rounds × buckets rows in all: ids share rows, but hardly any '
      + 'two share all of theirs'),
    frozen: z.boolean().optional().describe('Whether its rows keep their values: new ids get rows, none is trained'),
    column: text().optional().describe('Column that the feature is read from. Without it the one of its name'),
    slice: z.tuple([integer(0), integer(1)]).optional()
      .describe('Of a text only the bytes from the first number up to before the second count: `[6, 8]` of `14102107` '
        + 'is `07`'),
  }).nullable()).refine((columns) => Object.keys(columns).length > 0, 'at least one id column is needed')
    .describe('The id columns, by name'),
  groups: z.array(z.array(text()).min(1)).default([])
    .describe('Features that share one index space: the same id is the same row (of equal dim). Others have one of '
      + 'their own'),
  prefixBits: integer(1, 32).default(8)
    .describe('Bits of a sign that tell the feature groups apart; n bits are enough for 2^n - 1 groups'),
})

// ---- embedding

const lr = (value: number) => atLeastZero().default(value).describe('Learning rate')
const momentum = () => belowOne().default(0).describe('Momentum')
const weightDecay = (value: number, how: string) => atLeastZero().default(value).describe(`Weight decay, ${how}`)
const l2 = () => weightDecay(0, 'added to the gradient (L2)')
const eps = (value: number) => aboveZero().default(value).describe('Added to the denominator')
const betas = () => z.tuple([belowOne(), belowOne()]).default([0.9, 0.999])
  .describe('Decay rates of the first and second moment')
const decoupled = () => weightDecay(0.01, 'decoupled from the gradient')
/** Adam and AdamW of the embedding rows: their bias correction needs to know how often a row was updated. */
const rowAdam = () => ({
  lr: lr(0.001),
  betas: betas(),
  eps: eps(1e-8),
  biasCorrection: z.enum(['row', 'group']).default('row')
    .describe("Whose updates the bias correction counts: the row's own, or the requests that updated its feature "
      + 'group, which saves a float a row'),
})
const initialAccumulator = () => atLeastZero().default(0).describe('Where the sum of squared gradients starts')
const adagrad = () => ({
  lr: lr(0.05),
  initialAccumulator: initialAccumulator(),
  eps: eps(1e-10),
  weightDecay: l2(),
})

/** The largest count of the table's frequency sketch (cpp/table/frequency_sketch.h). */
const mostFrequency = 15
const mostSeconds = 1e9

const byteSize = () => z.string().regex(byteSizePattern, { abort: true })
  .refine((size) => bytesOf(size) <= Number.MAX_SAFE_INTEGER,
    { abort: true, error: ({ input }) => `expected less than 8192TiB, got ${input}` })
  .refine((size) => bytesOf(size) >= 1024, { error: ({ input }) => `expected at least 1KiB, got ${input}` })
  .meta({ title: 'a size in bytes such as 512MiB or 8GiB' })

type Bounds = { low: number; high: number }
const belowHigh = ({ low, high }: Bounds) => `low must be below high, got low ${low} and high ${high}`

const rowOptimizer = z.discriminatedUnion('type', [
  z.strictObject({ type: typeOrDefault('adagrad'), ...adagrad() }),
  z.strictObject({ type: type('rowwise_adagrad'), ...adagrad() }),
  z.strictObject({ type: type('sgd'), lr: lr(0.01), momentum: momentum(), weightDecay: l2() }),
  z.strictObject({ type: type('adam'), ...rowAdam(), weightDecay: l2() }),
  z.strictObject({ type: type('adamw'), ...rowAdam(), weightDecay: decoupled() }),
  z.strictObject({
    type: type('ftrl'),
    lr: aboveZero().default(0.05).describe('Learning rate'),
    initialAccumulator: initialAccumulator(),
    beta: atLeastZero().default(1).describe('Added to the root of the sum of squared gradients'),
    l1: atLeastZero().default(0).describe('Strength of the L1 penalty, which makes weights exactly 0'),
    l2: atLeastZero().default(0).describe('Strength of the L2 penalty'),
    weightDecay: l2(),
  }).refine(({ beta, l2, initialAccumulator }) => beta + l2 + initialAccumulator >= leastFloat,
    { path: ['beta'], error: `one of beta, l2 and initialAccumulator must be above 0 (at least ${leastFloat})` }),
])

const embedding = z.strictObject({
  optimizer: rowOptimizer.prefault({}).describe('Optimizer of the embedding rows'),
  groupOptimizer: z.record(text(), rowOptimizer.describe('As `embedding.optimizer`, for the group of this feature'))
    .default({})
    .describe('Optimizers of their own for feature groups. A group is named by one of its features'),
  init: z.discriminatedUnion('type', [
    z.strictObject({
      type: typeOrDefault('uniform'),
      low: float().default(-0.01).describe('Lower bound'),
      high: float().default(0.01).describe('Upper bound'),
    }).refine(({ low, high }) => low < high, { path: ['low'], error: ({ input }) => belowHigh(input as Bounds) }),
    z.strictObject({
      type: type('normal'),
      mean: float().default(0).describe('Mean'),
      stddev: aboveZero().default(0.01).describe('Standard deviation'),
      truncate: atLeastZero().default(0)
        .describe('Values farther from the mean than this many standard deviations are drawn again; 0: none are'),
    }),
    z.strictObject({ type: type('inverse_sqrt_dim') }),
    z.strictObject({
      type: type('gamma'),
      shape: aboveZero().default(1).describe('Shape; the mean is shape · scale'),
      scale: aboveZero().default(1).describe('Scale'),
    }),
    z.strictObject({ type: type('poisson'), lambda: atLeastZero().default(1).describe('Mean and variance') }),
    z.strictObject({ type: type('zeros') }),
  ]).prefault({}).describe('Values of a new row; they depend on the seed and the sign only. `inverse_sqrt_dim` is '
    + 'uniform within ± 1 / √dim'),
  storage: z.enum(['fp32', 'fp16', 'bf16']).default('fp32')
    .describe('Number format of the embedding in a row, rounded stochastically at every update; the state of the '
      + 'optimizer is fp32 always'),
  capacity: z.union([integer(1), byteSize()]).default(1_000_000)
    .describe('What a parameter server holds before it evicts: rows of each table (`dim` and optimizer), or bytes of '
      + 'memory, shared out over the dims by dim × features of that dim'),
  groupCapacity: z.record(text(), integer(1).describe('Rows of the group of this feature, of each `dim` in it'))
    .default({})
    .describe('Rooms of their own for feature groups, beside `capacity`, which the others share: a flood of new ids '
      + 'in one then evicts nothing elsewhere. A group is named by one of its features'),
  eviction: z.enum(['lru', 'lfu']).default('lru')
    .describe('What goes when there is no room: `lru`: about the row that was not looked up in training for the '
      + 'longest time, `lfu`: about the row that was looked up least often'),
  timeToLiveSeconds: z.number().min(0).max(mostSeconds).default(0)
    .describe('Seconds without a training lookup after which a row is given up; 0: never'),
  admit: z.union([fraction(), integer(2, mostFrequency)]).default(1)
    .describe('Which ids get a row. Up to 1: the probability with which an id without one gets it, each time it is '
      + 'met in training. From 2 on: the number of training batches (parts of them, with several NN workers) with the id '
      + 'until it gets one, counted in a sketch '
      + 'that forgets slowly and may count too high'),
  clipNorm: atLeastZero().default(0)
    .describe('Largest L2 norm of the gradient of one row from one batch, larger ones are scaled; 0: off'),
  weightBound: atLeastZero().default(10)
    .describe('Largest absolute value of a weight in a row after an update; 0: no bound. New rows are as `init` makes '
      + 'them'),
}).prefault({}).describe('The embedding table')

// ---- model

const clipNorm = () => atLeastZero().default(0)
  .describe('Largest L2 norm of all gradients together, larger ones are scaled; 0: off')
const warmupSteps = () => integer(0).default(0)
  .describe('Steps in which the learning rate rises from 0 to its full value')
const decay = () => ({
  warmupSteps: warmupSteps(),
  totalSteps: integer(1).describe('Steps after which the learning rate stays at its final value'),
  finalFactor: atLeastZero().max(1).default(0).describe('Final learning rate as a part of the full one'),
})
type Decay = { warmupSteps: number; totalSteps: number }
const endsAfterWarmup = ({ warmupSteps, totalSteps }: Decay) => totalSteps > warmupSteps
const tooShort = ({ warmupSteps, totalSteps }: Decay) =>
  `must be greater than warmupSteps (${warmupSteps}), got ${totalSteps}`
const warmupFits = { path: ['totalSteps'], error: ({ input }: { input?: unknown }) => tooShort(input as Decay) }

export const crossSchema = z.strictObject({
  layers: integer(1, 64).default(3).describe('Cross layers'),
  rank: integer(0, 65536).default(0)
    .describe('Rank of their matrices, which are then products of two; 0: full matrices'),
  structure: z.enum(['parallel', 'stacked']).default('parallel')
    .describe('`parallel`: beside the hidden layers, both go to the outputs; `stacked`: below, the hidden layers see '
      + 'what they give'),
})

/** Of a dynamic loss scale: LossScaler::kMost. */
const mostLossScale = 2 ** 24
const lossScale = () => z.number().min(1).max(mostLossScale)

const lossScaling = z.union([
  z.enum(['off', 'dynamic']),
  lossScale(),
  z.strictObject({
    initial: lossScale().default(65536).describe('The first scale'),
    growthInterval: integer(1, 2 ** 31).default(2000)
      .describe('Steps with finite gradients, one after another, after which the scale grows'),
    growth: z.number().gt(1).max(1024).default(2).describe('What the scale is multiplied by then'),
    backoff: z.number().gt(0).lt(1).default(0.5).describe('What it is multiplied by after a skipped step'),
  }),
])

const model = z.strictObject({
  type: z.enum(['ffnn', 'deepfm', 'dcn', 'dlrm']).default('ffnn')
    .describe('`ffnn`: hidden layers alone; `deepfm`: beside them a factorization machine; `dcn`: cross layers '
      + '(DCN-v2) beside or below them; `dlrm`: below them the dot products of all pairs of features. deepfm and dlrm '
      + 'need features of one dim'),
  hidden: z.array(integer(1, 65536)).default([4096, 2048, 1024, 512, 256])
    .describe('Widths of the hidden layers, in units; an empty list: logistic regression'),
  cross: crossSchema.optional().describe('dcn: its cross layers'),
  bottom: z.array(integer(1, 65536)).optional()
    .describe('dlrm: widths of the layers that the dense columns go through, before a last one whose width is the dim '
      + 'of the features; not without `data.dense`. Without it: `[512, 256]`'),
  tasks: z.array(z.strictObject({
    label: text().describe('A label of `data.labels`; each has exactly one task'),
    loss: z.enum(['bce', 'mse']).default('bce')
      .describe('`bce`: a probability by binary cross-entropy, `mse`: a value by squared error'),
    weight: atLeastZero().default(1).describe('Factor of its loss in the sum of all'),
    positiveWeight: aboveZero().default(1)
      .describe('bce: factor on the loss of positive samples; predicted probabilities are then higher than the share '
        + 'of positives'),
  })).min(1).optional().describe('What the network predicts. Without it: one bce task per label'),
  optimizer: z.discriminatedUnion('type', [
    z.strictObject({
      type: typeOrDefault('adam'), lr: lr(0.001), betas: betas(), eps: eps(1e-8),
      weightDecay: l2(), clipNorm: clipNorm(),
    }),
    z.strictObject({
      type: type('adamw'), lr: lr(0.001), betas: betas(), eps: eps(1e-8),
      weightDecay: decoupled(), clipNorm: clipNorm(),
    }),
    z.strictObject({ type: type('sgd'), lr: lr(0.01), momentum: momentum(), weightDecay: l2(), clipNorm: clipNorm() }),
  ]).prefault({}).describe('Optimizer of the dense network'),
  schedule: z.discriminatedUnion('type', [
    z.strictObject({ type: typeOrDefault('constant'), warmupSteps: warmupSteps() }),
    z.strictObject({
      type: type('step'),
      warmupSteps: warmupSteps(),
      everySteps: integer(1).describe('Steps between two falls of the learning rate'),
      gamma: aboveZero().max(1).default(0.1).describe('What the learning rate is multiplied by each time'),
    }),
    z.strictObject({ type: type('cosine'), ...decay() }).refine(endsAfterWarmup, warmupFits),
    z.strictObject({ type: type('linear'), ...decay() }).refine(endsAfterWarmup, warmupFits),
  ]).prefault({}).describe("How the dense optimizer's learning rate changes over the steps"),
  precision: z.enum(['fp32', 'tf32', 'bf16']).default('fp32').describe('Number format of the '
    + 'products of hidden layers, heads and the bottom MLP; bf16 needs a GPU or a CPU with AMX-BF16 or AVX512-BF16, '
    + 'tf32 a GPU (`persia doctor`)'),
  lossScaling: lossScaling.default('off')
    .describe('What the loss is multiplied by in backward, so that small gradients do not vanish in number formats of '
      + 'low precision; they are divided by it before anything is done with them. A number (a power of two changes no '
      + 'result in fp32), or a map for a scale that grows, and shrinks after steps whose gradients are not finite; '
      + '`dynamic`: such a scale with the defaults'),
}).prefault({}).describe('The dense network')

// ---- evaluation

const earlyStopping = z.strictObject({
  metric: text().default('auc').describe('`auc`, `gauc`, `logloss`, `mse`, or the name of a metric of your own'),
  label: text().optional().describe('Whose metric. Without it: the first label that has it'),
  mode: z.enum(['max', 'min']).optional()
    .describe('Whether more or less is better. Without it: max for auc and gauc, min for logloss and mse'),
  patience: integer(1).default(3)
    .describe('Evaluations in a row without a better value after which training ends'),
  minChange: atLeastZero().default(0).describe('A value is better if it differs from the best one by more than this'),
})

const evaluate = z.strictObject({
  everySteps: integer(0).default(0)
    .describe('Steps between two evaluations on the test data while training; 0: only after each epoch'),
  groupBy: text().optional()
    .describe("An id column. AUC is then also taken over the samples of each of its ids and averaged, weighted by "
      + 'samples (GAUC); needs a bce task'),
  earlyStopping: earlyStopping.optional()
    .describe('Ends training when evaluations stop getting better, and keeps the checkpoint of the best one'),
}).prefault({}).describe('Evaluation during training')

// ---- all of it

const role = (what: string) => integer(1, 1024).default(1).describe(`Number of ${what}`)
const deadline = (seconds: number, least: number) => z.number().min(least).max(86_400).default(seconds)
const rowWire = z.enum(['fp32', 'fp16', 'bf16', 'int8'])

const cluster = z.strictObject({
  parameterServers: role('embedding parameter servers'),
  embeddingWorkers: role('embedding workers'),
  nnWorkers: integer(1, 256).default(1)
    .describe('Number of NN workers: they share out the samples of each step. Under `persia train` threads of one '
      + 'process, which share out `threads` too; under `persia launch` processes'),
  dataLoaders: integer(1, 1024).default(1)
    .describe('Number of data loaders: they share out the batches of the training data; number 0 drives the training, '
      + 'evaluates and writes the checkpoints. A query (`data.train.sql`) then needs an order by that leaves no two rows '
      + 'equal'),
  transport: z.enum(['auto', 'tcp', 'rdma', 'shm']).default('auto')
    .describe('How the roles exchange data; `auto`: shared memory on one host, RDMA where both sides have a device '
      + 'with an active port, else TCP'),
  wire: z.strictObject({
    rows: rowWire.default('fp32')
      .describe('Rows from parameter servers to embedding workers; `int8`: with a scale a row'),
    gradients: rowWire.default('fp32').describe('Gradients of rows, the other way'),
    activations: z.enum(['fp32', 'fp16', 'bf16']).default('fp32')
      .describe('Pooled embeddings and their gradients, between embedding workers and NN workers'),
    compression: z.enum(['none', 'lz4', 'zstd']).default('none').describe('Of ids'),
  }).prefault({}).describe('How data travels between roles'),
  host: text().default('127.0.0.1')
    .describe('Address that the coordinator listens on, and the roles of `persia launch`. Any other than loopback '
      + 'needs `cluster.auth`'),
  port: integer(0, 65535).default(0).describe('TCP port of the coordinator; 0: any free one'),
  joinTimeoutSeconds: deadline(60, 1).describe('Seconds that roles wait for each other at the start'),
  peerTimeoutSeconds: deadline(30, 3)
    .describe('Seconds without a sign of life after which a role counts as lost and training ends'),
  drainTimeoutSeconds: deadline(30, 1)
    .describe('Seconds that roles have to end in good order once the work is done or the cluster has failed'),
  auth: z.strictObject({
    tokenFile: text().optional()
      .describe('File with the token that every role must show, at least 16 characters; relative to the current '
        + 'directory, like those of `tls`. Either `tokenFile` or `tokenEnv`'),
    tokenEnv: text().optional().describe('Environment variable with the token'),
    tls: z.strictObject({
      ca: text().describe('Certificate of the authority that signs those of all roles (PEM)'),
      cert: text().describe('Certificate of this host (PEM), with its name or address'),
      key: text().describe('Its key (PEM)'),
    }).optional().describe('TLS on the control plane, with certificates on both sides'),
  }).optional().describe('Who is let in'),
}).prefault({}).describe('How many there are of each role in `persia launch`, and how they reach each other')

export const configSchema = z.strictObject({
  name: text().default('persia').describe('Name of the run in reports'),
  mode: z.enum(['sync', 'hybrid', 'async']).default('hybrid')
    .describe('`hybrid`: embedding rows asynchronous, dense network synchronous; `sync`: both synchronous; '
      + '`async`: neither, for comparison: each NN worker pushes its gradients to dense weights that all share'),
  staleness: integer(0, 1024).default(8)
    .describe('When a batch is looked up, at most this many earlier batches of the NN worker are not yet applied; '
      + 'always 0 in mode sync'),
  lookahead: z.union([z.literal('auto'), integer(1, 1024)]).default('auto')
    .describe('Batches that lookups run ahead of updates. `auto`: as few as keep the stages busy, up to `staleness`; '
      + 'with `deterministic` exactly 1. A number: as soon as so many allow it, with `deterministic` exactly so many'),
  syncSteps: integer(0).default(0)
    .describe('So many first steps are trained as in mode sync: while rows are new, stale ones cost most. From then on '
      + 'the bound on the staleness rises by one a step'),
  batchSize: integer(1, 2 ** 24).default(1024)
    .describe('Samples in a batch of one NN worker; a step trains on batchSize × accumulate × cluster.nnWorkers'),
  accumulate: integer(1, 1024).default(1)
    .describe('Batches of an NN worker whose gradients are added up before one step, which is as with a batch of that '
      + 'size: for batches whose activations have no room'),
  epochs: integer(1).default(1).describe('Passes over the training data'),
  seed: integer(0).default(0).describe('Start of everything random, up to 2^53 - 1'),
  deterministic: z.boolean().default(false)
    .describe('Whether two runs on machines of one kind give bit-identical results, also with other `threads`'),
  device: z.enum(['auto', 'cpu', 'cuda']).default('auto')
    .describe('Where the dense network runs; `auto`: the fastest that is there'),
  threads: integer(0, 1024).default(0)
    .describe('Threads of the dense network, shared out among the NN workers of a host under `persia train` and '
      + '`persia launch`; 0: one per core'),
  data: data.describe('Where the samples come from and what their columns mean'),
  features: features.describe('The id features, each looked up in the embedding table'),
  embedding,
  model,
  cluster,
  evaluate,
  checkpoint: z.strictObject({
    dir: text().default('checkpoints').describe('Folder of the checkpoints; relative to the current directory'),
    everySteps: integer(0).default(0).describe('Steps between two checkpoints; 0: only at the end and on interruption'),
    resume: z.enum(['auto', 'never', 'always']).default('auto')
      .describe('`auto`: continue an interrupted run, start anew after a finished one; `never`: start anew; '
        + '`always`: continue, fail without a checkpoint'),
    keep: integer(0).default(3).describe('Newest checkpoints that are kept; 0: all'),
  }).prefault({}).describe('When and where the state is saved'),
  metrics: z.strictObject({
    port: integer(0, 65535).default(0)
      .describe('TCP port of the Prometheus endpoint, http://127.0.0.1:PORT/metrics; 0: off. In a cluster it is that of '
        + 'data loader 0, for all'),
  }).prefault({}).describe('What is exported while it trains'),
})

/** What users write: everything that has a default may be left out. */
export type ConfigInput = z.input<typeof configSchema>

/** What the schema gives: defaults filled in, not yet resolved. */
export type FilledConfig = z.output<typeof configSchema>

/** The JSON Schema of `ConfigInput`, for editors and for `persia config schema`. */
export const configJsonSchema = z.toJSONSchema(configSchema, { io: 'input' })
