// Addresses of a cluster: HOST:PORT, and which of them only this machine can reach.
import { BlockList, isIP } from 'node:net'
import { PersiaError } from '../errors.js'

export interface Address { host: string; port: number }

/** `HOST:PORT`, an IPv6 address in brackets. PERSIA_USAGE names the option it came from. */
export function parseAddress(text: string, option: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text)
  const [host, port] = [match?.[1] ?? match?.[2], Number(match?.[3])]
  if (host !== undefined && port > 0 && port < 65536) return { host, port }
  throw new PersiaError('PERSIA_USAGE',
    `${option} takes HOST:PORT, such as 127.0.0.1:7100 or [::1]:7100; got ${JSON.stringify(text)}`)
}

export const addressText = ({ host, port }: Address) => `${isIP(host) === 6 ? `[${host}]` : host}:${port}`

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Whether only processes of this machine can connect to what listens there. Names but localhost may be anything. */
export function isLoopback(host: string): boolean {
  const version = isIP(host)
  return version === 0 ? host === 'localhost' : loopback.check(host, version === 6 ? 'ipv6' : 'ipv4')
}
