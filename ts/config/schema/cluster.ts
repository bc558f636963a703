// `cluster`: roles and the way between them.
import { z } from 'zod'
import { integer, text } from './kinds.js'

const role = (what: string) => integer(1, 1024).default(1).describe(`Number of ${what}`)
const deadline = (seconds: number, least: number) => z.number().min(least).max(86_400).default(seconds)
const rowWire = z.enum(['fp32', 'fp16', 'bf16', 'int8'])

export const cluster = z.strictObject({
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
