// What `persia launch` and `persia coordinator` have in common: they run a cluster, and end as `persia train` does.
import type { Argv } from 'yargs'
import type { LoadedConfig } from '../config/index.js'
import { readCredentials } from '../control/auth.js'
import type { ClusterOutcome } from '../control/cluster.js'
import { commonOptions, loadConfig, type CommonArguments } from './options.js'
import { makePrinter, type Printer } from './printer.js'
import { stoppable } from './stoppable.js'
import { reportEveryOption, resumeOption } from './train.js'

export interface ClusterRunArguments extends CommonArguments {
  resume: string | undefined
  'report-every': number
}

export function clusterRunOptions<T>(yargs: Argv<T>) {
  return reportEveryOption(resumeOption(commonOptions(yargs)))
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

export async function runCluster(
  args: ClusterRunArguments, run: (running: Running) => Promise<ClusterOutcome>,
): Promise<void> {
  const loaded = loadConfig(args)
  const credentials = readCredentials(loaded.config.cluster.auth)
  const printer = makePrinter(args.json)
  try {
    await stoppable((line) => printer.log(line), async (signal) => {
      const outcome = await run({
        loaded, credentials, printer, signal, resume: args.resume, reportEverySeconds: args['report-every'],
        onEvent: (event) => printer.print(event),
      })
      if (outcome.kind === 'failed') throw outcome.error
      if (outcome.kind === 'interrupted') process.exitCode = 130
    })
  } finally {
    printer.close()
  }
}
