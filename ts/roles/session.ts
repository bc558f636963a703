// The life of a process in a cluster: it joins, does its role's work, and leaves, whatever happens. Roles differ in
// their work alone (serving.ts, data-loader.ts, reading.ts).
import { parseConfig, type Config } from '../config/index.js'
import { addressText, isLoopback } from '../control/address.js'
import { CoordinatorClient } from '../control/commands.js'
import { configHash } from '../control/config-hash.js'
import { deferred } from '../control/deferred.js'
import { Membership } from '../control/membership.js'
import type { Command, Leaving, MemberMessage, Outcome, Welcome } from '../control/messages.js'
import { countOf, memberName, type Role } from '../control/roles.js'
import { PersiaError } from '../errors.js'
import type { NativeNet, NativePeers, NativeRank, NativeWire } from '../native-types.js'
import type { RoleOptions } from './options.js'

/** What a role's work has to do with. */
export interface Session {
  readonly config: Config
  readonly welcome: Welcome
  readonly membership: Membership
  readonly net: NativeNet
  readonly wire: NativeWire
  readonly rank: NativeRank
  /** Ends when the coordinator says that the work is done. Fails when the cluster has failed, or is gone. */
  readonly stopped: Promise<void>
  /** Called with `checkpoint` and `drain`, which the driver gets. */
  onCommand: (command: Command) => void
  readonly log: (message: string) => void
}

/** How the work ended; a failure is thrown. */
export type Work = (session: Session) => Promise<Exclude<Outcome, 'failed'>>

/** PERSIA_CLUSTER_REFUSED, PERSIA_CLUSTER_TIMEOUT, PERSIA_PEER_LOST; PERSIA_ABORTED when another role has failed. */
export async function runRole(options: RoleOptions, work: Work): Promise<Exclude<Outcome, 'failed'>> {
  checkListening(options)
  const stopped = deferred()
  let session: Session | undefined
  const membership = new Membership({
    ...options,
    configHash: options.loaded ? configHash(options.loaded.config) : '',
    listensOn: options.listen.host,
    onCommand: (command) => {
      if (command.what === 'stop') stopped.resolve()
      else if (command.what === 'abort') stopped.reject(aborted(command.reason))
      else session?.onCommand(command)
    },
  })
  membership.lost.catch((error: unknown) => stopped.reject(error))
  const signals = stopOnSignals(options)
  try {
    const welcome = await membership.welcome
    session = sessionOf(options, welcome, membership, stopped.promise)
    options.log(`joined as ${memberName({ role: options.role, rank: welcome.rank })}`)
    const outcome = await work(session)
    await membership.leave({ outcome, code: '', message: '' })
    return outcome
  } catch (error) {
    await membership.leave(leavingOf(error))
    throw error
  } finally {
    signals.off()
    membership.close()
  }
}

const aborted = (reason: string) => new PersiaError('PERSIA_ABORTED', `the cluster failed: ${reason}`)

/** Where others can connect to, everybody must show who they are. */
function checkListening({ listen, credentials }: RoleOptions): void {
  if (isLoopback(listen.host) || credentials.token !== undefined) return
  throw new PersiaError('PERSIA_CLUSTER_REFUSED',
    `${listen.host} can be reached from other machines, and there is no token: give --token-file or `
    + 'PERSIA_CLUSTER_TOKEN, or listen on 127.0.0.1')
}

function sessionOf({ role, listen, loaded, log }: RoleOptions, welcome: Welcome, membership: Membership,
  stopped: Promise<void>): Session {
  const config = loaded?.config ?? parseConfig(JSON.parse(welcome.config))
  const { transport, wire, peerTimeoutSeconds } = config.cluster
  return {
    config, membership, stopped, log, wire,
    welcome: loaded ? { ...welcome, baseDir: loaded.baseDir } : welcome,
    net: { ...listen, transport, secret: welcome.secret, deadlineMs: Math.ceil(peerTimeoutSeconds * 1000) },
    rank: { rank: welcome.rank, size: countOf(config, role) },
    onCommand: () => {},
  }
}

function leavingOf(error: unknown): Leaving {
  // Who ends because another has failed is no failure of its own.
  const isAborted = error instanceof PersiaError && error.code === 'PERSIA_ABORTED'
  if (isAborted) return { outcome: 'interrupted', code: '', message: '' }
  const { code, message } = error instanceof PersiaError ? error
    : { code: 'PERSIA_INTERNAL', message: error instanceof Error ? error.stack ?? error.message : String(error) }
  return { outcome: 'failed', code, message }
}

/** A signal stops the whole cluster in good order; the next one ends this process. */
function stopOnSignals({ coordinator, credentials, log }: RoleOptions): { off: () => void } {
  let asked = false
  const onSignal = () => {
    if (asked) process.exit(130)
    asked = true
    log('stopping the cluster after this step; once more to end this process at once')
    const client = new CoordinatorClient(coordinator, credentials)
    client.stop().catch((error: unknown) => {
      log(`the coordinator at ${addressText(coordinator)} cannot be told: ${(error as Error).message}`)
      process.exit(130)
    }).finally(() => client.close())
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  return { off: () => process.off('SIGINT', onSignal).off('SIGTERM', onSignal) }
}

/** Addresses by role and rank. */
export function peersOf(members: MemberMessage[]): NativePeers {
  const of = (wanted: Role) => members.filter(({ role }) => role === wanted)
    .sort((a, b) => a.rank - b.rank).map(({ address }) => address)
  return {
    parameterServers: of('parameter-server'), embeddingWorkers: of('embedding-worker'), nnWorkers: of('nn-worker'),
    dataLoaders: of('data-loader'),
  }
}
