// The schema: the one source of all options, with a file for each large section in schema/. Types, defaults,
// validation, JSON Schema, `persia config explain` and the table in docs/config.md come from it. Every key is described
// with its unit; maps are strict, so a misspelt key is an error. What ties two sections together (groups name features,
// tasks name labels) is checked in resolve.ts.
import { z } from 'zod'
import { cluster } from './schema/cluster.js'
import { data } from './schema/data.js'
import { embedding } from './schema/embedding.js'
import { evaluate } from './schema/evaluate.js'
import { features } from './schema/features.js'
import { integer, text } from './schema/kinds.js'
import { model } from './schema/model.js'

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
