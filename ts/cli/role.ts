// `persia parameter-server | embedding-worker | nn-worker | data-loader`: one process of a cluster, on any host.
import type { Argv, CommandModule } from 'yargs'
import { loadConfigFile } from '../config/index.js'
import { parseAddress, type Address } from '../control/address.js'
import type { Role } from '../control/roles.js'
import { PersiaError } from '../errors.js'
import { runRole, type Work } from '../roles/session.js'
import { serving } from '../roles/serving.js'
import { coordinatorAddress, coordinatorOptions, credentialsOf, type CoordinatorArguments } from './cluster-options.js'
import { integerOption, numberOption } from './numbers.js'
import { onlyOnce } from './options.js'
import { makePrinter, silentPrinter, type Printer } from './printer.js'
import { timedLog } from './log.js'

interface RoleArguments extends CoordinatorArguments {
  rank: number | undefined
  listen: string
  config: string | undefined
  set: string[]
  'join-timeout': number
  threads?: number
  json?: boolean
  launched: boolean
}

const exitMs = 1000

const descriptions: Record<Role, string> = {
  'parameter-server': 'Hold a part of the embedding table, in a cluster',
  'embedding-worker': 'Look embeddings up and sum their gradients, in a cluster',
  'nn-worker': 'Train the dense network, in a cluster',
  'data-loader': 'Read the data, in a cluster; number 0 drives the training',
}

const workOf = async (role: Role, { threads }: RoleArguments, printer: Printer): Promise<Work> => {
  if (role !== 'data-loader') return serving(role, threads)
  const { dataLoading } = await import('../roles/data-loader.js')
  return dataLoading((event) => printer.print(event))
}

export const roleCommands = (Object.keys(descriptions) as Role[]).map(roleCommand)

/** NN workers alone have a dense network. */
function threadsOption<T>(yargs: Argv<T>, role: Role) {
  return role !== 'nn-worker' ? yargs : yargs.option('threads', {
    ...integerOption('threads', 1, 1024),
    describe: 'Threads of the dense network in this process [default: `threads` of the config]',
  })
}

/** Data loaders alone have events to print. */
function jsonOption<T>(yargs: Argv<T>, role: Role) {
  return role !== 'data-loader' ? yargs : yargs.option('json', {
    type: 'boolean', default: false, describe: 'One JSON object a line on standard output',
  })
}

function roleCommand(role: Role): CommandModule<object, RoleArguments> {
  return {
    command: role,
    describe: descriptions[role],
    builder: (yargs) => jsonOption(threadsOption(coordinatorOptions(yargs), role), role)
      .option('rank', {
        ...integerOption('rank', 0),
        describe: 'Which one of its role, from 0 [default: any free one]',
      })
      .option('listen', {
        type: 'string', requiresArg: true, default: '127.0.0.1', coerce: onlyOnce('listen'),
        describe: 'Address of this host that the other roles reach it at: HOST or HOST:PORT',
      })
      .option('config', {
        type: 'string', requiresArg: true, coerce: onlyOnce('config'),
        describe: 'Config file, which must say the same as the coordinator\'s [default: what that hands out]',
      })
      .option('set', {
        type: 'string', array: true, nargs: 1, default: [] as string[],
        describe: 'Override one option of --config: key.path=value (repeatable)',
      })
      .option('join-timeout', {
        ...numberOption('join-timeout', 'a number of seconds above 0', (value) => value > 0 && Number.isFinite(value)),
        default: 60, describe: 'Seconds that the coordinator is waited for',
      })
      .option('launched', { type: 'boolean', default: false, hidden: true }),
    handler: (args) => run(role, args),
  }
}

async function run(role: Role, args: RoleArguments): Promise<void> {
  if (args.set.length > 0 && args.config === undefined) throw new PersiaError('PERSIA_USAGE', '--set needs --config')
  if (args.launched) endWithLauncher()
  // The launcher shows events and adds the time.
  const printer = args.launched ? silentPrinter : makePrinter(args.json ?? false)
  const log = args.launched ? (line: string) => { process.stderr.write(`${line}\n`) } : timedLog(printer)
  const options = {
    role, rank: args.rank, log,
    coordinator: coordinatorAddress(args),
    credentials: credentialsOf(args),
    listen: listenAddress(args.listen),
    loaded: args.config === undefined ? undefined : loadConfigFile(args.config, { set: args.set }),
    joinTimeoutSeconds: args['join-timeout'],
  }
  try {
    if (await runRole(options, await workOf(role, args, printer)) === 'interrupted') process.exitCode = 130
  } catch (error) {
    // The launcher says itself which role has failed.
    if (!args.launched || !(error instanceof PersiaError) || error.code !== 'PERSIA_ABORTED') throw error
    process.exitCode = error.exitCode
  } finally {
    printer.close()
    process.stdin.destroy()
    // What the role could not end keeps nobody waiting.
    setTimeout(() => process.exit(), exitMs).unref()
  }
}

/** The launcher's end of the pipe closes when it ends, however it ends: nobody is left to work for then. */
function endWithLauncher(): void {
  process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL')).on('error', () => {}).resume()
}

function listenAddress(text: string): Address {
  return /:\d+$/.test(text) && !/^[^[]*:[^[]*:/.test(text) ? parseAddress(text, '--listen') : { host: text, port: 0 }
}
