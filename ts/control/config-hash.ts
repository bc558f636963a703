// What makes two configs the same for a cluster: everything but how its processes are reached and who is let in, which
// may be said differently on every host.
import { createHash } from 'node:crypto'
import type { Config } from '../config/index.js'

export function configHash({ cluster: all, ...rest }: Config): string {
  const { host: _host, port: _port, auth: _auth, ...cluster } = all
  return createHash('sha256').update(JSON.stringify({ ...rest, cluster })).digest('hex').slice(0, 16)
}
