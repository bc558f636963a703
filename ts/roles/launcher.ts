// `persia launch`: a whole cluster on this host. The coordinator is in this process, every other role in one of its
// own. The launcher knows before anybody else when a process ends; it says so to the coordinator, with its last lines.
// It returns when all of them are gone.
import { availableParallelism } from 'node:os'
import type { Config, LoadedConfig } from '../config/index.js'
import type { Credentials } from '../control/auth.js'
import type { ClusterOutcome } from '../control/cluster.js'
import { places } from '../control/roles.js'
import { PersiaError } from '../errors.js'
import type { RunEvent } from '../train/run-events.js'
import { RoleChild, type Exit } from './child.js'
import { openCoordinator, type Coordinator } from './coordinator.js'
import { within } from './within.js'

export interface LaunchOptions {
  loaded: LoadedConfig
  credentials: Credentials
  resume: string | undefined
  reportEverySeconds: number
  /** Ends training after the step under way, with a checkpoint. */
  signal: AbortSignal
  onEvent: (event: RunEvent) => void
  /** A line of a role's log. */
  onLine: (source: string, line: string) => void
}

/** How long processes may take to end after the cluster has. */
const exitSeconds = 5

export async function launch(options: LaunchOptions): Promise<ClusterOutcome> {
  const log = (line: string) => options.onLine('coordinator', line)
  const coordinator = await openCoordinator({ ...options, log })
  log(`listens on ${coordinator.address}; config ${coordinator.cluster.configHash}`)
  const children: RoleChild[] = []
  const killAll = () => { for (const child of children) child.kill() }
  process.on('exit', killAll)
  const onAbort = () => coordinator.cluster.stop()
  options.signal.addEventListener('abort', onAbort)
  try {
    for (const place of places(options.loaded.config)) children.push(start(place, coordinator, options))
    const outcome = await coordinator.ended
    await within(exitSeconds, Promise.all(children.map(({ exited }) => exited)))
    return outcome
  } finally {
    options.signal.removeEventListener('abort', onAbort)
    killAll()
    await Promise.all(children.map(({ exited }) => exited))
    process.off('exit', killAll)
    await coordinator.close()
  }
}

function start(place: RoleChild['place'], coordinator: Coordinator, options: LaunchOptions): RoleChild {
  const { credentials, loaded: { config: { cluster } } } = options
  const { tls } = cluster.auth ?? {}
  const args = ['--coordinator', coordinator.address, '--listen', cluster.host,
    ...(place.role === 'nn-worker' ? ['--threads', String(threadsOfWorker(options.loaded.config))] : []),
    ...(tls ? ['--tls-ca', tls.ca, '--tls-cert', tls.cert, '--tls-key', tls.key] : [])]
  const environment = credentials.token === undefined ? {} : { PERSIA_CLUSTER_TOKEN: credentials.token }
  const child: RoleChild = new RoleChild(place, args, environment,
    (line) => options.onLine(`${place.role}-${place.rank}`, line))
  void child.exited.then(async (exit) => {
    const error = exitError(child, exit)
    const hadLeft = !(await coordinator.cluster.lost(place, error))
    if (hadLeft && exit.signal !== null) options.onLine('coordinator', error.message)
  })
  return child
}

/** The NN workers of one host share out its threads, as they do in one process. */
function threadsOfWorker({ threads, cluster: { nnWorkers } }: Config): number {
  return Math.max(1, Math.floor((threads === 0 ? availableParallelism() : threads) / nnWorkers))
}

/** Names a process that ended before its work was done, with its last lines. */
function exitError(child: RoleChild, { code, signal }: Exit): PersiaError {
  const how = signal === null ? `ended with exit code ${code}` : `was killed by ${signal}`
  const lines = child.lastLines().map((line) => `\n  ${line}`).join('')
  return new PersiaError('PERSIA_PEER_LOST',
    `${child.name} (process ${child.pid}) ${how}${lines && `; its last lines:${lines}`}`, { ...child.place })
}
