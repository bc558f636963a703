// Parameter servers, embedding workers, NN workers, and data loaders that don't drive (reading.ts): native roles that
// listen, connect to their peers and work until the coordinator says that nobody needs them any more.
import { native, settling } from '../native.js'
import type { NativeRole, NativeRoleOptions, NativeTrainerConfig } from '../native-types.js'
import { nativeConfig } from '../train/native-config.js'
import { peersOf, type Session, type Work } from './session.js'
import { within } from './within.js'

export type ServingRole = 'parameter-server' | 'embedding-worker' | 'nn-worker'

export type Create = (config: NativeTrainerConfig, options: NativeRoleOptions) => Promise<NativeRole>

const creators = {
  'parameter-server': (config, options) => native().createParameterServer(config, options),
  'embedding-worker': (config, options) => native().createEmbeddingWorker(config, options),
  'nn-worker': (config, options) => native().createNnWorker(config, options),
} satisfies Record<ServingRole, Create>

/** `threads` of the dense network in this process; without it those of the config. */
export function serving(role: ServingRole, threads?: number): Work {
  return (session) => serve(session, (config, options) =>
    creators[role]({ ...config, model: { ...config.model, threads: threads ?? config.model.threads } }, options))
}

/** Makes a role that works until the coordinator ends it. What goes wrong `beside` it ends it too. */
export async function serve(session: Session, create: Create, beside?: Promise<never>): Promise<'done'> {
  const { config, net, wire, rank, log } = session
  const server = await settling(() => create(nativeConfig(config), { net, wire, rank }))
  try {
    const ended = settling(() => server.ended())
    await work(server, session, beside ? Promise.race([ended, beside]) : ended)
    log(countersText(server))
    return 'done'
  } finally {
    await within(config.cluster.drainTimeoutSeconds / 2, settling(() => server.close()))
  }
}

/** Until the coordinator ends it, or it has `failed`. */
async function work(server: NativeRole, { membership, stopped, log }: Session, failed: Promise<void>): Promise<void> {
  const orEnded = <T>(step: Promise<T>) => Promise.race([step, failed, stopped])
  membership.listening(server.address())
  log(`listens on ${server.address()}`)
  const members = await orEnded(membership.roster)
  if (!members) return
  await orEnded(settling(() => server.connect(peersOf(members))))
  membership.ready()
  await orEnded(stopped)
}

function countersText(server: NativeRole): string {
  const { requests, repeated, bytesReceived, bytesSent } = server.counters()
  return `answered ${requests} requests (${repeated} came again), received ${bytesReceived} bytes, sent ${bytesSent}`
}
