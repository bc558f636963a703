// `persia launch`: the whole cluster of a config on this host, with one progress view.
import type { CommandModule } from 'yargs'
import { launch } from '../roles/launcher.js'
import { timedLog } from './log.js'
import { clusterRunOptions, runCluster, type ClusterRunArguments } from './run-cluster.js'

export const launchCommand: CommandModule<object, ClusterRunArguments> = {
  command: 'launch',
  describe: 'Train with a cluster of processes on this host',
  builder: clusterRunOptions,
  handler: (args) => runCluster(args, ({ loaded, printer, signal, ...options }) => {
    const log = timedLog(printer)
    return launch({ ...options, loaded, signal, onLine: (source, line) => log(`${source.padEnd(18)} | ${line}`) })
  }),
}
