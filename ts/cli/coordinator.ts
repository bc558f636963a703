// `persia coordinator`: the coordinator of a cluster alone, for roles that are started one by one, on any host.
import type { CommandModule } from 'yargs'
import { openCoordinator } from '../roles/coordinator.js'
import { timedLog } from './log.js'
import { clusterRunOptions, runCluster, type ClusterRunArguments } from './run-cluster.js'

export const coordinatorCommand: CommandModule<object, ClusterRunArguments> = {
  command: 'coordinator',
  describe: 'Coordinate a cluster whose roles are started one by one',
  builder: clusterRunOptions,
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
