// `embedding`: the table and its optimizers.
import { z } from 'zod'
import { byteSizePattern, bytesOf } from '../byte-size.js'
import { aboveZero, atLeastZero, float, fraction, integer, leastFloat, text, type, typeOrDefault } from './kinds.js'
import { betas, decoupled, eps, l2, lr, momentum } from './optimizers.js'

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

export const embedding = z.strictObject({
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
