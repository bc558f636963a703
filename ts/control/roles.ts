// The roles of a cluster, their numbers and their names.
import type { Config } from '../config/index.js'

/** In the order in which they end: each needs those behind it until it has ended itself. */
export const roles = ['data-loader', 'nn-worker', 'embedding-worker', 'parameter-server'] as const

export type Role = (typeof roles)[number]

export const isRole = (name: string): name is Role => (roles as readonly string[]).includes(name)

const counts = {
  'data-loader': 'dataLoaders', 'nn-worker': 'nnWorkers', 'embedding-worker': 'embeddingWorkers',
  'parameter-server': 'parameterServers',
} as const

/** How many of a role the config wants. */
export const countOf = ({ cluster }: Config, role: Role): number => cluster[counts[role]]

/** How people call a member: `parameter-server 1`. */
export const memberName = ({ role, rank }: { role: string; rank: number }) => `${role} ${rank}`

/** Data loader 0 drives the training; the others read for it. */
export const isDriver = ({ role, rank }: { role: Role; rank: number }) => role === 'data-loader' && rank === 0

/** Every place in the cluster of a config. */
export function places(config: Config): { role: Role; rank: number }[] {
  return roles.flatMap((role) => Array.from({ length: countOf(config, role) }, (_, rank) => ({ role, rank })))
}
