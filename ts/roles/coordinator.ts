// The coordinator of a cluster in this process: `persia coordinator`, and inside `persia launch`.
import type { LoadedConfig } from '../config/index.js'
import { addressText } from '../control/address.js'
import type { Credentials } from '../control/auth.js'
import { Cluster, type ClusterOutcome } from '../control/cluster.js'
import { MemoryStore } from '../control/memory-store.js'
import { CoordinatorServer } from '../control/server.js'
import type { RunEvent } from '../train/run-events.js'

export interface CoordinatorOptions {
  loaded: LoadedConfig
  credentials: Credentials
  resume: string | undefined
  reportEverySeconds: number
  log: (message: string) => void
  onEvent: (event: RunEvent) => void
}

/** A coordinator that listens. */
export interface Coordinator {
  readonly cluster: Cluster
  /** HOST:PORT for `--coordinator`. */
  readonly address: string
  readonly ended: Promise<ClusterOutcome>
  close(): Promise<void>
}

export async function openCoordinator(options: CoordinatorOptions): Promise<Coordinator> {
  const { loaded, credentials, resume, log, onEvent } = options
  const store = new MemoryStore()
  let server: CoordinatorServer | undefined
  const cluster = await Cluster.open({
    loaded, store, log, reportEverySeconds: options.reportEverySeconds, ...(resume !== undefined && { resume }),
    onEvent,
    onPhase: (phase) => server?.setRunning(phase === 'running'),
  })
  try {
    server = await CoordinatorServer.listen(cluster, loaded, credentials)
  } catch (error) {
    cluster.close()
    await store.close()
    throw error
  }
  const close = async () => {
    cluster.close()
    await server.close()
    await store.close()
  }
  return { cluster, address: addressText(server.address), ended: cluster.ended, close }
}
