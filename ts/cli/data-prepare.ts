// `persia data prepare`: makes shards of any source, for training at the speed of memory.
import { join } from 'node:path'
import type { CommandModule } from 'yargs'
import type { PrepareProgress } from '../data/prepare.js'
import { dataSets } from '../data/sets/index.js'
import { PersiaError } from '../errors.js'
import { prepareConfig, prepareDataSet, type PrepareRequest, type PrepareResult } from '../train/prepare.js'
import { onlyOnce, partsOption } from './options.js'
import { PrepareMeter, reportPrepared } from './prepare-output.js'

interface PrepareArguments {
  dataset: string | undefined
  from: string | undefined
  config: string | undefined
  out: string | undefined
  set: string[]
  threads: number
  json: boolean
}

export const dataPrepareCommand: CommandModule<object, PrepareArguments> = {
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
    .option('threads', partsOption)
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' }),
  async handler(args) {
    const { dataset, from, config, json } = args
    const meter = new PrepareMeter(json)
    const onProgress = (progress: PrepareProgress) => meter.show(progress)
    const request = { set: args.set, threads: args.threads, onProgress }
    try {
      const result = await resultOf({ dataset, from, config, out: args.out }, request)
      meter.end()
      reportPrepared(result, json, meter.seconds)
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
