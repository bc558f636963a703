// `persia launch`: the whole cluster of a config on this host, with one progress view. `persia coordinator`: its
// coordinator alone, for roles that are started one by one, on any host. Both end as `persia train` does.
import type { CommandModule } from 'yargs'
import type { LoadedConfig } from '../config/index.js'
import { readCredentials } from '../control/auth.js'
import type { ClusterOutcome } from '../control/cluster.js'
import { openCoordinator } from '../roles/coordinator.js'
import { launch } from '../roles/launcher.js'
import { timedLog } from './log.js'
import { commonOptions, loadConfig, type CommonArguments } from './options.js'
import { makePrinter, type Printer } from './printer.js'
import { reportEveryOption, resumeOption } from './train.js'

interface ClusterArguments extends CommonArguments {
  resume: string | undefined
  'report-every': number
}

export const launchCommand: CommandModule<object, ClusterArguments> = {
  command: 'launch',
  describe: 'Train with a cluster of processes on this host',
  builder: (yargs) => reportEveryOption(resumeOption(commonOptions(yargs))),
  handler: (args) => runCluster(args, ({ loaded, printer, signal, ...options }) => {
    const log = timedLog(printer)
    return launch({ ...options, loaded, signal, onLine: (source, line) => log(`${source.padEnd(18)} | ${line}`) })
  }),
}

export const coordinatorCommand: CommandModule<object, ClusterArguments> = {
  command: 'coordinator',
  describe: 'Coordinate a cluster whose roles are started one by one',
  builder: (yargs) => reportEveryOption(resumeOption(commonOptions(yargs))),
  handler: (args) => runCluster(args, async ({ printer, signal, ...options }) => {
    const log = timedLog(printer)
    const coordinator = await openCoordinator({ ...options, log })
    log(`listens on ${coordinator.address}; config ${coordinator.cluster.configHash}`)
    signal.addEventListener('abort', () => coordinator.cluster.stop())
    try {
      return await coordinator.ended
    } finally {
      await coordinator.close()
    }
  }),
}

interface Running {
  loaded: LoadedConfig
  credentials: ReturnType<typeof readCredentials>
  resume: string | undefined
  reportEverySeconds: number
  printer: Printer
  signal: AbortSignal
  onEvent: Printer['print']
}

async function runCluster(args: ClusterArguments, run: (running: Running) => Promise<ClusterOutcome>): Promise<void> {
  const loaded = loadConfig(args)
  const credentials = readCredentials(loaded.config.cluster.auth)
  const printer = makePrinter(args.json)
  const stop = new AbortController()
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130)
    printer.log('stopping after this step; once more to stop at once')
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  process.stdout.on('error', () => {})  // a reader that goes away (`| head`) ends the reports, not the training
  try {
    const outcome = await run({
      loaded, credentials, printer, resume: args.resume, reportEverySeconds: args['report-every'], signal: stop.signal,
      onEvent: (event) => printer.print(event),
    })
    if (outcome.kind === 'failed') throw outcome.error
    if (outcome.kind === 'interrupted') process.exitCode = 130
  } finally {
    printer.close()
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}
