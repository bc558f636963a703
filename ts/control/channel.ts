// A client's connection to the coordinator, with TLS where it has certificates.
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import * as grpc from '@grpc/grpc-js'
import { addressText, type Address } from './address.js'
import type { Credentials } from './auth.js'

const options = {
  'grpc.keepalive_time_ms': 10_000, 'grpc.keepalive_timeout_ms': 10_000, 'grpc.enable_retries': 0,
  'grpc.max_reconnect_backoff_ms': 1000, 'grpc.initial_reconnect_backoff_ms': 200,
}

/** TLS asks for a server by a name, which an address is not (RFC 6066). A coordinator looks at none. */
const anyName = 'coordinator'

export function openChannel(coordinator: Address, { tls }: Credentials): grpc.Client {
  const at = addressText(coordinator)
  if (!tls) return new grpc.Client(at, grpc.credentials.createInsecure(), options)
  const credentials = grpc.credentials.createSsl(tls.ca, tls.key, tls.cert, {
    // Whatever name was asked for: the certificate is for where we connect to.
    checkServerIdentity: (_name, certificate) => checkServerIdentity(coordinator.host, certificate),
  })
  const isAddress = isIP(coordinator.host) !== 0
  return new grpc.Client(at, credentials, { ...options, ...(isAddress && { 'grpc.ssl_target_name_override': anyName }) })
}
