// Options that several commands share.
import { availableParallelism } from 'node:os'
import type { Argv } from 'yargs'
import { loadConfigFile, type LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { integerOption } from './numbers.js'

export interface CommonArguments { config: string; set: string[]; json: boolean }

/** Refuses an option that is given twice, where one value would silently lose. */
export function onlyOnce(name: string): (value: unknown) => string {
  return (value) => {
    if (!Array.isArray(value)) return value as string
    throw new PersiaError('PERSIA_USAGE', `--${name} is given ${value.length} times: ${value.join(', ')}`)
  }
}

export function commonOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('config', {
      type: 'string', demandOption: true, requiresArg: true, coerce: onlyOnce('config'), describe: 'Config file (YAML)',
    })
    .option('set', {
      type: 'string', array: true, nargs: 1, default: [] as string[],
      describe: 'Override one option: key.path=value (repeatable)',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' })
}

export function checkpointOption<T>(yargs: Argv<T>) {
  return yargs.option('checkpoint', {
    type: 'string', requiresArg: true, coerce: onlyOnce('checkpoint'),
    describe: 'Folder of the checkpoint [default: the newest in checkpoint.dir]',
  })
}

/** `--threads` of the commands that make shards. */
export const partsOption = {
  ...integerOption('threads', 1, 1024), default: availableParallelism(), describe: 'Parts that are made at once',
}

export function loadConfig({ config, set }: CommonArguments): LoadedConfig {
  return loadConfigFile(config, { set })
}
