#!/usr/bin/env node
// The command line. Commands are modules of their own; this file finds the one that was asked for and turns errors into
// messages on standard error and exit codes: 0 done, 1 failure, 2 bad usage, config or data, 130 interrupted. What reads
// data is imported by the commands that need it, when they run: most processes of a cluster don't.
import yargs, { type Argv, type CommandModule } from 'yargs'
import { hideBin } from 'yargs/helpers'
import { PersiaError } from '../errors.js'
import { clusterCommand } from './cluster.js'
import { configCommand } from './config.js'
import { coordinatorCommand } from './coordinator.js'
import { dataCommand } from './data.js'
import { doctorCommand } from './doctor.js'
import { evalCommand } from './eval.js'
import { launchCommand } from './launch.js'
import { predictCommand } from './predict.js'
import { roleCommands } from './role.js'
import { trainCommand } from './train.js'
import { usageText, type Known } from './usage.js'

/** Ends the process: with the command's own exit code for a PersiaError, 2 for a wrong command line. */
function fail(error: unknown): never {
  if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(0)  // a reader that went away
  if (error instanceof PersiaError) {
    process.stderr.write(`${error.code}: ${error.message}\n`)
    process.exit(error.exitCode)
  }
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  process.exit(1)
}

/** A reader that goes away (`| head`) ends the output, not the work; what can't be written else is a failure. */
function watchStandardOutput(): void {
  let failed = false
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (failed || error.code === 'EPIPE') return
    failed = true
    process.stderr.write(`PERSIA_IO: cannot write to standard output: ${error.message}\n`)
    process.exitCode = 1
  })
}

const commands = [
  trainCommand, evalCommand, predictCommand, dataCommand, configCommand, doctorCommand, launchCommand,
  coordinatorCommand, ...roleCommands, clusterCommand,
] as CommandModule[]
const words = hideBin(process.argv)
const commandLine = yargs(words) as Argv & { getOptions(): { key: object } }

/** What the command line may say, at the command that yargs has come to. */
function known(): Known {
  return {
    commands: commands.map(({ command }) => String(command).split(' ')[0]!),
    options: Object.keys(commandLine.getOptions().key),
  }
}

try {
  watchStandardOutput()
  await commandLine
    .scriptName('persia')
    .locale('en')
    .command(commands)
    .demandCommand(1, 'Which command?')
    .recommendCommands()
    .strict()
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .parserConfiguration({ 'duplicate-arguments-array': true })
    .fail((message, error) => {
      if (error && error.name !== 'YError') throw error
      throw new PersiaError('PERSIA_USAGE', usageText(message ?? error?.message, words, known()))
    })
    .parseAsync()
} catch (error) {
  fail(error)
}
