// `persia eval`: metrics of a checkpoint on a labelled split.
import type { CommandModule } from 'yargs'
import { checkpointOption, commonOptions, loadConfig, type CommonArguments } from './options.js'
import { makePrinter } from './printer.js'

interface EvalArguments extends CommonArguments { checkpoint: string | undefined; split: 'train' | 'test' }

export const evalCommand: CommandModule<object, EvalArguments> = {
  command: 'eval',
  describe: 'Evaluate a checkpoint on the test data',
  builder: (yargs) => checkpointOption(commonOptions(yargs))
    .option('split', {
      choices: ['train', 'test'] as const, default: 'test' as const, describe: 'Which data of the config',
    }),
  async handler(args) {
    const { evaluateCheckpoint } = await import('../train/inference.js')
    const printer = makePrinter(args.json)
    for await (const event of evaluateCheckpoint(loadConfig(args), args.split, args.checkpoint)) printer.print(event)
  },
}
