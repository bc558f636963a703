// `persia data prepare`: makes shards of any source, for training at the speed of memory. `persia data synth`: makes
// data.
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { SingleBar } from 'cli-progress'
import type { CommandModule } from 'yargs'
import { byteText } from '../config/byte-size.js'
import type { PrepareProgress } from '../data/prepare.js'
import { dataSets } from '../data/sets/index.js'
import { synthCeiling, writeSynthText } from '../data/synth.js'
import { PersiaError } from '../errors.js'
import {
  prepareConfig, prepareDataSet, prepareSynth, type PrepareRequest, type PrepareResult, type SynthRequest,
} from '../train/prepare.js'
import { cardText } from './card-text.js'
import { onlyOnce } from './options.js'

interface PrepareArguments {
  dataset: string | undefined
  from: string | undefined
  config: string | undefined
  out: string | undefined
  set: string[]
  threads: number
  json: boolean
}

const prepareCommand: CommandModule<object, PrepareArguments> = {
  command: 'prepare',
  describe: 'Turn data into shards that training reads at memory speed; goes on where an earlier run was ended',
  builder: (yargs) => yargs
    .option('dataset', {
      type: 'string', requiresArg: true, choices: Object.keys(dataSets), coerce: onlyOnce('dataset'),
      describe: 'A public data set, its files as their owner ships them in --from',
    })
    .option('from', {
      type: 'string', requiresArg: true, coerce: onlyOnce('from'),
      describe: 'Folder of the data set, or its training file',
    })
    .option('config', {
      type: 'string', requiresArg: true, coerce: onlyOnce('config'), describe: 'Config file whose data is prepared',
    })
    .option('out', {
      type: 'string', requiresArg: true, coerce: onlyOnce('out'),
      describe: 'Folder for the shards [default: prepared/<data set, or name of the config>]',
    })
    .option('set', {
      type: 'string', array: true, nargs: 1, default: [] as string[],
      describe: 'Override one option of the config, also of a data set: key.path=value (repeatable)',
    })
    .option('threads', {
      type: 'number', default: availableParallelism(), coerce: threadCount, describe: 'Parts that are made at once',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' }),
  async handler(args) {
    const { dataset, from, config, json } = args
    const meter = new ProgressMeter(json)
    const onProgress = (progress: PrepareProgress) => meter.show(progress)
    const request = { set: args.set, threads: args.threads, onProgress }
    try {
      const result = await resultOf({ dataset, from, config, out: args.out }, request)
      meter.end()
      report(result, json, meter.seconds)
    } finally {
      meter.end()
    }
  },
}

type Chosen = Pick<PrepareArguments, 'dataset' | 'from' | 'config' | 'out'>

function resultOf(
  { dataset, from, config, out }: Chosen, request: Omit<PrepareRequest, 'out'>,
): Promise<PrepareResult> {
  if (config !== undefined && (dataset ?? from) === undefined) return prepareConfig(config, { ...request, out })
  if (dataset !== undefined && from !== undefined && config === undefined) {
    return prepareDataSet(dataset, from, { ...request, out: out ?? join('prepared', dataset) })
  }
  throw new PersiaError('PERSIA_USAGE', 'persia data prepare takes --dataset and --from, or --config')
}

interface SynthArguments {
  like: SynthRequest['like']
  rows: number
  ids: number
  seed: number
  test: number
  format: 'shards' | 'text'
  out: string | undefined
  threads: number
  json: boolean
}

const synthCommand: CommandModule<object, SynthArguments> = {
  command: 'synth',
  describe: 'Make synthetic click data of any size, with a known best AUC',
  builder: (yargs) => yargs
    .option('like', {
      choices: ['criteo', 'avazu', 'taobao', 'criteo-syn'] as const, demandOption: true, requiresArg: true,
      describe: 'The data set whose fields, cardinalities, skew and click rate it has',
    })
    .option('rows', { type: 'number', demandOption: true, coerce: wholeNumber('rows', 1), describe: 'Rows in all' })
    .option('ids', {
      type: 'number', default: 0, coerce: wholeNumber('ids', 0),
      describe: 'Distinct ids in all features together; 0: as many as the data set has',
    })
    .option('seed', {
      type: 'number', default: 0, coerce: wholeNumber('seed', 0),
      describe: 'Of the rows and of the hidden model that decides the labels',
    })
    .option('test', {
      type: 'number', default: 0.2, coerce: testShare, describe: 'Share of the rows that is test data (shards)',
    })
    .option('format', {
      choices: ['shards', 'text'] as const, default: 'shards' as const,
      describe: 'shards: for training; text: a file like those of the owner, with all rows',
    })
    .option('out', {
      type: 'string', requiresArg: true, coerce: onlyOnce('out'),
      describe: 'Folder for the shards, or file [default: prepared/<like>, or <like>.csv or .tsv]',
    })
    .option('threads', {
      type: 'number', default: availableParallelism(), coerce: threadCount, describe: 'Parts that are made at once',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' }),
  async handler({ like, rows, ids, seed, test, format, out, threads, json }) {
    const meter = new ProgressMeter(json)
    const onProgress = (progress: PrepareProgress) => meter.show(progress)
    const synth = { like, rows, ids, seed }
    try {
      if (format === 'text') {
        const file = out ?? `${like}.${like.startsWith('criteo') ? 'tsv' : 'csv'}`
        await writeSynthText(file, synth, threads, onProgress)
        meter.end()
        reportText({ rows, out: file }, json, meter.seconds)
      } else {
        const request = { set: [], threads, out: out ?? join('prepared', like), onProgress }
        const result = await prepareSynth(synth, test, request)
        meter.end()
        report(result, json, meter.seconds)
      }
      reportCeiling(await synthCeiling(synth), json)
    } finally {
      meter.end()
    }
  },
}

function reportText({ rows, out }: { rows: number; out: string }, json: boolean, seconds: number): void {
  process.stdout.write(json ? `${JSON.stringify({ event: 'done', out: resolve(out), rows, seconds })}\n`
    : `done: ${rows} rows in ${out}\n`)
}

function reportCeiling({ auc, logloss }: { auc: number; logloss: number }, json: boolean): void {
  process.stdout.write(json ? `${JSON.stringify({ event: 'ceiling', auc, logloss })}\n`
    : `the best possible model has AUC ${auc.toFixed(4)} and log loss ${logloss.toFixed(4)}\n`)
}

function report({ out, card, resumedParts }: PrepareResult, json: boolean, seconds: number): void {
  const rows = { train: card.train.rows, test: card.test?.rows ?? 0 }
  const { badRows, firstBad } = card
  if (json) {
    const done = { event: 'done', out: resolve(out), rows, badRows, firstBad, resumedParts, seconds }
    process.stdout.write(`${JSON.stringify({ event: 'card', ...card })}\n${JSON.stringify(done)}\n`)
    return
  }
  if (badRows > 0) process.stderr.write(`${badRows} bad rows skipped, first: ${firstBad.join('; ')}\n`)
  const note = resumedParts === 'all' ? '; it was complete already'
    : resumedParts > 0 ? `; ${resumedParts} parts were there already` : ''
  process.stdout.write(`${cardText(card)}\ndone: ${rows.train} training and ${rows.test} test rows in ${out}${note}\n`)
}

/** A bar on a terminal, a JSON line a second with --json, nothing elsewhere. */
class ProgressMeter {
  private readonly started = performance.now()
  private readonly bar = process.stdout.isTTY
    ? new SingleBar({
      format: '{bar} {percentage}%  {rows} rows  {rate} rows/s  {read} read', barsize: 24, hideCursor: true,
      stream: process.stdout,
    })
    : undefined
  private last = 0
  private active = false

  constructor(private readonly json: boolean) {}

  get seconds(): number {
    return Math.round(performance.now() - this.started) / 1000
  }

  show(progress: PrepareProgress): void {
    const rowsPerSecond = Math.round(progress.rows / Math.max(this.seconds, 1e-3))
    if (this.json) {
      if (this.seconds - this.last < 1) return
      this.last = this.seconds
      process.stdout.write(`${JSON.stringify({ event: 'progress', ...progress, rowsPerSecond })}\n`)
    } else if (this.bar && progress.totalBytes !== null) {
      const shown = { rows: progress.rows, rate: rowsPerSecond, read: byteText(progress.bytes) }
      if (this.active) this.bar.update(progress.bytes, shown)
      else this.bar.start(progress.totalBytes, progress.bytes, shown)
      this.active = true
    }
  }

  end(): void {
    if (this.active) this.bar?.stop()
    this.active = false
  }
}

function wholeNumber(name: string, least: number): (value: number) => number {
  return (value) => {
    if (Number.isSafeInteger(value) && value >= least) return value
    throw new PersiaError('PERSIA_USAGE', `--${name} takes an integer from ${least} up to 2^53 - 1, got ${value}`)
  }
}

function testShare(value: number): number {
  if (value >= 0 && value < 1) return value
  throw new PersiaError('PERSIA_USAGE', `--test takes a share from 0 to below 1, got ${value}`)
}

function threadCount(value: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= 1024) return value
  throw new PersiaError('PERSIA_USAGE', `--threads takes an integer from 1 to 1024, got ${value}`)
}

export const dataCommand: CommandModule = {
  command: 'data',
  describe: 'Prepare data for training, or make synthetic data',
  builder: (yargs) => yargs.command(prepareCommand).command(synthCommand)
    .demandCommand(1, 'Expected one of: persia data prepare, synth'),
  handler: () => {},
}
