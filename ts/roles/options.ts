// What a process of a cluster is started with.
import type { LoadedConfig } from '../config/index.js'
import type { Address } from '../control/address.js'
import type { Credentials } from '../control/auth.js'
import type { Role } from '../control/roles.js'

export interface RoleOptions {
  role: Role
  rank: number | undefined
  coordinator: Address
  credentials: Credentials
  /** The address of this host that the data plane listens on; port 0: any. */
  listen: Address
  /** A config of its own, which must be the coordinator's. */
  loaded: LoadedConfig | undefined
  joinTimeoutSeconds: number
  log: (message: string) => void
}
