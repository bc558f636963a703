// What a finished model is used for from files: evaluation and prediction.
import { resolve } from 'node:path'
import { formatByEnding, parseConfig, type Config, type LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { native } from '../native.js'
import { newestCheckpoint } from './checkpoint.js'
import { openDataset } from './datasets.js'
import type { RunEvent } from './run-events.js'
import { Trainer } from './trainer.js'

/** The model of a checkpoint: the given folder, or the newest of the config's run. */
async function loadModel(loaded: LoadedConfig, checkpoint: string | undefined): Promise<Trainer> {
  const run = loaded.config.checkpoint.dir
  const directory = checkpoint ?? await newestCheckpoint(run)
  if (directory === undefined) {
    throw new PersiaError('PERSIA_CHECKPOINT_NOT_FOUND',
      `there is no checkpoint in ${run}; train first, or give --checkpoint`, { directory: run })
  }
  return (await Trainer.load(directory, inferenceConfig(loaded.config))).trainer
}

/**
 * Replicas of the dense network and summed gradients are for training only, and so is the port of its metrics, which a
 * training under way may have.
 */
function inferenceConfig(config: Config): Config {
  return { ...config, accumulate: 1, cluster: { ...config.cluster, nnWorkers: 1 }, metrics: { port: 0 } }
}

export async function* evaluateCheckpoint(loaded: LoadedConfig, split: 'train' | 'test',
  checkpoint?: string): AsyncGenerator<RunEvent, void, undefined> {
  await using trainer = await loadModel(loaded, checkpoint)
  const dataset = openDataset(loaded, split, trainer.statistics, { negatives: 'all' })
  yield { event: 'eval', ...await trainer.evaluate(dataset, { split }) }
  if (dataset.skipped.rows > 0) yield { event: 'skipped', ...dataset.skipped }
}

export interface PredictOptions { style: 'csv' | 'json'; checkpoint?: string | undefined; input?: string | undefined }

/** Text, in pieces: a header line for csv, then a line a row. */
export async function* predictFile(loaded: LoadedConfig,
  { style, checkpoint, input }: PredictOptions): AsyncGenerator<string | Buffer, void, undefined> {
  const source = input === undefined ? loaded : withInput(loaded, input)
  await using trainer = await loadModel(loaded, checkpoint)
  const labels = trainer.config.data.labels.map(({ column }) => JSON.stringify(column))
  let header = style === 'csv' ? `${labels.map(csvField).join(',')}\n` : ''
  let row = 1
  for await (const batch of openDataset(source, 'test', trainer.statistics, { labels: 'none', reuseMemory: true })) {
    if (header !== '') yield header  // not before the data could be read
    header = ''
    yield native().formatOutputs(await trainer.predict(batch), labels, style, row)
    row += batch.rows
  }
  if (header !== '') yield header
}

const csvField = (json: string) => {
  const text = JSON.parse(json) as string
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/** The same config, reading `input` as the test data: with the layout of data.test if that has the same format. */
function withInput(loaded: LoadedConfig, input: string): LoadedConfig {
  const { data } = loaded.config
  const known = data.test && 'path' in data.test ? data.test : undefined
  const format = formatByEnding(input) ?? known?.format
  const layout = known && known.format === format ? known : { ...(format && { format }) }
  const test = { ...layout, path: [resolve(input)] }
  const { split: _, ...undivided } = data
  return { ...loaded, config: parseConfig({ ...loaded.config, data: { ...undivided, test } }) }
}
