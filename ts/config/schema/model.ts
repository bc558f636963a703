// `model`: the dense network.
import { z } from 'zod'
import { aboveZero, atLeastZero, integer, text, type, typeOrDefault } from './kinds.js'
import { betas, decoupled, eps, l2, lr, momentum } from './optimizers.js'

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

export const model = z.strictObject({
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
