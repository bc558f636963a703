// `persia predict`: the outputs of a checkpoint for every row of a file, in the order of the rows. Rows that cannot be read
// are always errors here: a line of output stands for a row of input.
import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import type { CommandModule } from 'yargs'
import { PersiaError } from '../errors.js'
import { predictFile } from '../train/inference.js'
import { checkpointOption, commonOptions, loadConfig, type CommonArguments } from './options.js'

interface PredictArguments extends CommonArguments { checkpoint: string | undefined; input: string | undefined; output: string | undefined }

export const predictCommand: CommandModule<object, PredictArguments> = {
  command: 'predict',
  describe: 'Write the predictions of a checkpoint, one line a row',
  builder: (yargs) => checkpointOption(commonOptions(yargs))
    .option('input', { type: 'string', requiresArg: true, describe: 'File or glob, labels not needed [default: data.test]' })
    .option('output', { type: 'string', requiresArg: true, describe: 'File to write [default: standard output]' }),
  async handler(args) {
    const output = args.output === undefined ? process.stdout : await openOutput(args.output)
    const style = args.json ? 'json' : 'csv'
    for await (const text of predictFile(loadConfig(args), { style, checkpoint: args.checkpoint, input: args.input })) {
      if (!output.write(text)) await once(output, 'drain')
    }
    if (output === process.stdout) return
    output.end()
    await finished(output)
  },
}

async function openOutput(path: string): Promise<Writable> {
  const stream = createWriteStream(path)
  try {
    await once(stream, 'open')
    return stream
  } catch (cause) {
    throw new PersiaError('PERSIA_IO', `cannot write ${path}: ${(cause as Error).message}`, { file: path }, { cause })
  }
}
