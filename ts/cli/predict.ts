// `persia predict`: the outputs of a checkpoint for every row of a file, in the order of the rows. Rows that cannot be
// read are always errors here: a line of output stands for a row of input.
import { createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import type { CommandModule } from 'yargs'
import { PersiaError } from '../errors.js'
import { checkpointOption, commonOptions, loadConfig, onlyOnce, type CommonArguments } from './options.js'

interface PredictArguments extends CommonArguments {
  checkpoint: string | undefined
  input: string | undefined
  output: string | undefined
}

export const predictCommand: CommandModule<object, PredictArguments> = {
  command: 'predict',
  describe: 'Write the predictions of a checkpoint, one line a row',
  builder: (yargs) => checkpointOption(commonOptions(yargs))
    .option('input', {
      type: 'string', requiresArg: true, coerce: onlyOnce('input'),
      describe: 'File or glob, labels not needed [default: data.test]',
    })
    .option('output', {
      type: 'string', requiresArg: true, coerce: onlyOnce('output'),
      describe: 'File to write [default: standard output]',
    }),
  async handler(args) {
    const { predictFile } = await import('../train/inference.js')
    const style = args.json ? 'json' : 'csv'
    const lines = predictFile(loadConfig(args), { style, checkpoint: args.checkpoint, input: args.input })
    const first = await lines.next()  // the model and the data are found before any file is touched
    const text = restOf(first, lines)
    if (args.output === undefined) await pipeline(text, process.stdout, { end: false })
    else await writeFileWhole(args.output, text)
  },
}

type Text = AsyncGenerator<string | Buffer, void, undefined>

async function* restOf(first: IteratorResult<string | Buffer, void>, rest: Text): Text {
  if (first.done) return
  yield first.value
  yield* rest
}

/**
 * A file appears, or is replaced, only when all of it is written; what is no file (a pipe, a device) is written as it
 * is.
 */
async function writeFileWhole(path: string, text: Text): Promise<void> {
  const special = await stat(path).then((found) => !found.isFile(), () => false)
  const target = special ? path : `${path}.tmp-${process.pid}`
  try {
    await pipeline(text, createWriteStream(target))
    if (!special) await rename(target, path)
  } catch (error) {
    if (!special) await rm(target, { force: true })
    if (error instanceof PersiaError) throw error
    throw new PersiaError('PERSIA_IO', `cannot write ${path}: ${(error as Error).message}`,
      { file: path }, { cause: error })
  }
}
