// Options that several commands share.
import type { Argv } from 'yargs'
import { loadConfigFile, type LoadedConfig } from '../config/index.js'

export interface CommonArguments { config: string; set: string[]; json: boolean }

export function commonOptions<T>(yargs: Argv<T>) {
  return yargs
    .option('config', { type: 'string', demandOption: true, describe: 'Config file (YAML)', requiresArg: true })
    .option('set', {
      type: 'string', array: true, nargs: 1, default: [] as string[], describe: 'Override one option: key.path=value (repeatable)',
    })
    .option('json', { type: 'boolean', default: false, describe: 'One JSON object a line on standard output' })
}

export function checkpointOption<T>(yargs: Argv<T>) {
  return yargs.option('checkpoint', {
    type: 'string', requiresArg: true, describe: 'Folder of the checkpoint [default: the newest in checkpoint.dir]',
  })
}

export function loadConfig({ config, set }: CommonArguments): LoadedConfig {
  return loadConfigFile(config, { set })
}
