// `persia train`: trains as the config says, with progress, evaluation after each epoch and a checkpoint at the end.
import { writeFileSync } from 'node:fs'
import type { Argv, CommandModule } from 'yargs'
import { PersiaError } from '../errors.js'
import { numberOption } from './numbers.js'
import { commonOptions, loadConfig, onlyOnce, type CommonArguments } from './options.js'
import { makePrinter } from './printer.js'
import { stoppable } from './stoppable.js'

interface TrainArguments extends CommonArguments {
  resume: string | undefined
  'report-every': number
  profile: string | undefined
}

export const trainCommand: CommandModule<object, TrainArguments> = {
  command: 'train',
  describe: 'Train a model',
  builder: (yargs) => reportEveryOption(resumeOption(commonOptions(yargs)))
    .option('profile', {
      type: 'string', requiresArg: true, coerce: onlyOnce('profile'),
      describe: 'Write a trace of the pipeline to this file, for ui.perfetto.dev or chrome://tracing',
    }),
  async handler(args) {
    const { runTraining } = await import('../train/run.js')
    const loaded = loadConfig(args)
    const printer = makePrinter(args.json)
    try {
      await stoppable((line) => process.stderr.write(`${line}\n`), async (signal) => {
        const traceTo = args.profile
        if (traceTo !== undefined) writeTrace(traceTo, '', 'a')  // what can't be written is said before the training
        const reportEverySeconds = args['report-every']
        const options = { signal, reportEverySeconds, ...(args.resume && { resume: args.resume }),
          ...(traceTo !== undefined && { onTrace: (trace: string) => writeTrace(traceTo, trace) }) }
        for await (const event of runTraining(loaded, options)) {
          printer.print(event)
          if (event.event === 'interrupted') process.exitCode = 130
        }
      })
    } finally {
      printer.close()
    }
  },
}

export function resumeOption<T>(yargs: Argv<T>) {
  return yargs.option('resume', {
    type: 'string', describe: 'Go on from the newest checkpoint, or from the one in the given folder',
    coerce: (value: unknown) => onlyOnce('resume')(value) || (value === '' ? 'always' : undefined),
  })
}

export function reportEveryOption<T>(yargs: Argv<T>) {
  return yargs.option('report-every', {
    ...numberOption('report-every', 'a number of seconds, 0 or more', (value) => value >= 0 && Number.isFinite(value)),
    default: 1, describe: 'Seconds between two progress reports',
  })
}

function writeTrace(path: string, trace: string, flag: 'a' | 'w' = 'w'): void {
  try {
    writeFileSync(path, trace, { flag })
  } catch (error) {
    throw new PersiaError('PERSIA_IO', `cannot write the trace to ${path}: ${(error as Error).message}`, { file: path })
  }
}
