// `persia data prepare | synth`.
import type { CommandModule } from 'yargs'
import { dataPrepareCommand } from './data-prepare.js'
import { dataSynthCommand } from './data-synth.js'

export const dataCommand: CommandModule = {
  command: 'data',
  describe: 'Prepare data for training, or make synthetic data',
  builder: (yargs) => yargs.command(dataPrepareCommand).command(dataSynthCommand)
    .demandCommand(1, 'Expected one of: persia data prepare, synth'),
  handler: () => {},
}
