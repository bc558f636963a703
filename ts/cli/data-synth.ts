// `persia data synth`: makes click data of any size whose best possible AUC is known.
import { join, resolve } from 'node:path'
import type { CommandModule } from 'yargs'
import type { PrepareProgress } from '../data/prepare.js'
import { synthCeiling, writeSynthText } from '../data/synth.js'
import { prepareSynth, type SynthRequest } from '../train/prepare.js'
import { integerOption, numberOption } from './numbers.js'
import { onlyOnce, partsOption } from './options.js'
import { PrepareMeter, reportPrepared } from './prepare-output.js'

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

export const dataSynthCommand: CommandModule<object, SynthArguments> = {
  command: 'synth',
  describe: 'Make synthetic click data of any size, with a known best AUC',
  builder: (yargs) => yargs
    .option('like', {
      choices: ['criteo', 'avazu', 'taobao', 'criteo-syn'] as const, demandOption: true, requiresArg: true,
      describe: 'The data set whose fields, cardinalities, skew and click rate it has',
    })
    .option('rows', { ...integerOption('rows', 1), demandOption: true, describe: 'Rows in all' })
    .option('ids', {
      ...integerOption('ids', 0), default: 0,
      describe: 'Distinct ids in all features together; 0: as many as the data set has',
    })
    .option('seed', {
      ...integerOption('seed', 0), default: 0,
      describe: 'Of the rows and of the hidden model that decides the labels',
    })
    .option('test', {
      ...numberOption('test', 'a share from 0 to below 1', (value) => value >= 0 && value < 1), default: 0.2,
      describe: 'Share of the rows that is test data (shards)',
    })
    .option('format', {
      choices: ['shards', 'text'] as const, default: 'shards' as const,
      describe: 'shards: for training; text: a file like those of the owner, with all rows',
    })
    .option('out', {
      type: 'string', requiresArg: true, coerce: onlyOnce('out'),
      describe: 'Folder for the shards, or file [default: prepared/<like>, or <like>.csv or .tsv]',
    })
    .option('threads', partsOption)
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' }),
  async handler({ like, rows, ids, seed, test, format, out, threads, json }) {
    const meter = new PrepareMeter(json)
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
        reportPrepared(result, json, meter.seconds)
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
