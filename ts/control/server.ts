// The coordinator over gRPC: proto/coordinator.proto around a Cluster, and grpc.health.v1 beside it. Every call shows
// the token where there is one; health is open, as probes of other tools know no token.
import * as grpc from '@grpc/grpc-js'
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check'
import type { LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import type { RunEvent } from '../train/run-events.js'
import { addressText, type Address } from './address.js'
import { refused } from './admission.js'
import { serverCredentials, showsToken, type Credentials } from './auth.js'
import type { Link, MemberHandle } from './attendance.js'
import type { Cluster } from './cluster.js'
import { coordinatorService, type FromMember, type ToMember } from './messages.js'
import { toStatus } from './status.js'

// What grpc-js would log comes as an error too, and is told as one. With GRPC_VERBOSITY it logs all the same.
if (!process.env['GRPC_NODE_VERBOSITY'] && !process.env['GRPC_VERBOSITY']) grpc.setLogVerbosity(grpc.logVerbosity.NONE)

type Stream = grpc.ServerDuplexStream<FromMember, ToMember>
type Unary<T> = grpc.handleUnaryCall<object, T>

/** Health services: the coordinator as a whole, and whether the cluster runs. */
export const healthServices = { all: '', cluster: 'persia.cluster' } as const

export class CoordinatorServer {
  private constructor(private readonly server: grpc.Server, private readonly health: HealthImplementation,
    readonly address: Address) {}

  /** Listens where `cluster.host` and `cluster.port` say. PERSIA_IO when that is not to be had. */
  static async listen(cluster: Cluster, { config }: LoadedConfig, credentials: Credentials): Promise<CoordinatorServer> {
    const server = new grpc.Server({ 'grpc.keepalive_time_ms': 10_000, 'grpc.keepalive_timeout_ms': 10_000 })
    const status: ServingStatusMap = { [healthServices.all]: 'SERVING', [healthServices.cluster]: 'NOT_SERVING' }
    const health = new HealthImplementation(status)
    health.addToServer(server)
    server.addService(coordinatorService(), handlers(cluster, credentials))
    const { host, port } = config.cluster
    const bound = await bind(server, { host, port }, credentials)
    return new CoordinatorServer(server, health, { host, port: bound })
  }

  /** For probes: whether the cluster runs. */
  setRunning(running: boolean): void {
    this.health.setStatus(healthServices.cluster, running ? 'SERVING' : 'NOT_SERVING')
  }

  /** Lets the streams that are ending end, for a moment. */
  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => { this.server.tryShutdown(() => resolve()) })
    const timer = setTimeout(() => this.server.forceShutdown(), 1000)
    await ended
    clearTimeout(timer)
  }
}

function bind(server: grpc.Server, { host, port }: Address, credentials: Credentials): Promise<number> {
  const at = addressText({ host, port })
  return new Promise((resolve, reject) => {
    server.bindAsync(at, serverCredentials(credentials), (error, bound) => {
      if (!error) return resolve(bound)
      const [, why = error.message] = /errors: \[(.*)\]$/.exec(error.message) ?? []
      reject(new PersiaError('PERSIA_IO', `the coordinator cannot listen on ${at}: ${why}`, { address: at }))
    })
  })
}

function handlers(cluster: Cluster, credentials: Credentials): grpc.UntypedServiceImplementation {
  const allowed = (metadata: grpc.Metadata) => {
    if (showsToken(metadata, credentials)) return
    throw refused('the token is missing or wrong: give the one that cluster.auth of the coordinator names, with '
      + '--token-file or in PERSIA_CLUSTER_TOKEN')
  }
  const unary = <T>(work: () => T | Promise<T>): Unary<T> => (call, callback) => {
    const answer = async () => { allowed(call.metadata); return work() }
    answer().then((value) => callback(null, value), (error: unknown) => callback(toStatus(error)))
  }
  return {
    Attend: (stream: Stream) => attend(stream, cluster, allowed),
    Status: unary(() => cluster.status()),
    Checkpoint: unary(() => cluster.checkpoint()),
    Stop: unary(() => { cluster.stop(); return {} }),
  }
}

/** One member's stream. Its messages are taken one after another. */
function attend(stream: Stream, cluster: Cluster, allowed: (metadata: grpc.Metadata) => void): void {
  let member: MemberHandle | undefined
  let last: Promise<void> = Promise.resolve()
  let isOpen = true
  const link: Link = {
    send: (message) => { if (isOpen) stream.write(message) },
    end: () => { if (isOpen) stream.end(); isOpen = false },
  }
  const take = async (message: FromMember) => {
    if (message.join) {
      allowed(stream.metadata)
      const joined = await cluster.join(message.join, link)
      member = joined.member
      link.send({ welcome: joined.welcome })
      member.welcomed()
    } else if (member?.takes(message)) {
      await passOn(message, member)
    }
  }
  const refuse = (error: unknown) => { isOpen = false; stream.emit('error', toStatus(error)) }
  stream.on('data', (message: FromMember) => { last = last.then(() => take(message)).catch(refuse) })
  const gone = () => { isOpen = false; void last.then(() => member?.disconnected()) }
  stream.on('end', () => { link.end(); gone() })
  stream.on('cancelled', gone)
  stream.on('error', gone)
}

async function passOn(message: FromMember, member: MemberHandle): Promise<void> {
  if (message.listening) await member.listening(message.listening.address)
  else if (message.ready) await member.ready()
  else if (message.heartbeat) await member.heartbeat()
  else if (message.report) member.report(JSON.parse(message.report.event) as RunEvent)
  else if (message.saved) member.saved(message.saved)
  else if (message.leaving) await member.leave(message.leaving)
}
