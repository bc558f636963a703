// What the options of `cluster` need of each other, and what one process has no use for.
import { isLoopback } from '../control/address.js'
import { PersiaError } from '../errors.js'
import type { Resolution } from './resolution.js'
import type { Config } from './resolved.js'

export function checkCluster({ cluster: { host, auth, dataLoaders }, data }: Config, resolution: Resolution): void {
  const { tokenFile, tokenEnv } = auth ?? {}
  if (auth && (tokenFile === undefined) === (tokenEnv === undefined)) {
    resolution.refuse(['cluster', 'auth'],
      `expected either tokenFile or tokenEnv, got ${tokenFile ? 'both' : 'neither'}`)
  }
  if (!auth && !isLoopback(host)) {
    resolution.refuse(['cluster', 'host'], `${host} can be reached from other machines: give cluster.auth, or use `
      + '127.0.0.1')
  }
  const { train } = data
  if (dataLoaders > 1 && train && 'sql' in train && !/\border\s+by\b/i.test(train.sql)) {
    resolution.refuse(['cluster', 'dataLoaders'], 'each data loader runs data.train.sql for itself and takes its share of '
      + 'the rows as they come, so they need one order: add an order by that leaves no two rows equal')
  }
}

/**
 * Refuses what training in one process would ignore. The number of NN workers is not among it: they are threads then.
 */
export function checkOneProcess({ cluster }: Config): void {
  const { wire, ...options } = cluster
  const wanted = [
    ...(['parameterServers', 'embeddingWorkers', 'dataLoaders'] as const).filter((key) => options[key] !== 1),
    ...(options.transport === 'auto' ? [] : ['transport']),
    ...Object.entries(wire).filter(([, format]) => format !== 'fp32' && format !== 'none')
      .map(([key]) => `wire.${key}`),
  ]
  if (wanted.length === 0) return
  const path = `cluster.${wanted[0]}`
  throw new PersiaError('PERSIA_CONFIG_UNSUPPORTED',
    `${path} is for a cluster, and one process does everything here: use persia launch, or leave it out`, { path })
}
