#!/usr/bin/env node
// The command line. Commands are modules of their own; this file finds the one that was asked for and turns errors into
// messages on standard error and exit codes: 0 done, 1 failure, 2 bad usage, config or data, 130 interrupted. What reads
// data is imported by the commands that need it, when they run: most processes of a cluster don't.
import yargs from 'yargs'
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

try {
  await yargs(hideBin(process.argv))
    .scriptName('persia')
    .command(trainCommand)
    .command(evalCommand)
    .command(predictCommand)
    .command(dataCommand)
    .command(configCommand)
    .command(doctorCommand)
    .command(launchCommand)
    .command(coordinatorCommand)
    .command(roleCommands)
    .command(clusterCommand)
    .demandCommand(1, 'Which command?')
    .strict()
    .wrap(Math.min(110, process.stdout.columns ?? 110))
    .parserConfiguration({ 'duplicate-arguments-array': true })
    .fail((message, error) => {
      if (error && error.name !== 'YError') throw error
      throw new PersiaError('PERSIA_USAGE',
        `${message ?? error?.message}. See persia --help, or persia <command> --help.`)
    })
    .parseAsync()
} catch (error) {
  fail(error)
}
