// Who may be a member of a cluster, and of which kind of cluster. PERSIA_CLUSTER_REFUSED says why not.
import type { Config } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { isLoopback } from './address.js'
import type { MemberRecord } from './attendance.js'
import { packageVersion, type JoinMessage } from './messages.js'
import { countOf, isDriver, isRole, memberName, roles, type Role } from './roles.js'

export const refused = (why: string) => new PersiaError('PERSIA_CLUSTER_REFUSED', why)

/** Whether who wants to join could be a member of the cluster of this config; its role. */
export function checkJoin({ role, rank, version, configHash }: JoinMessage, config: Config, ours: string): Role {
  const mine = packageVersion()
  if (version !== mine) {
    throw refused(`the coordinator is persia ${mine}, this ${role} is ${version}: use one version everywhere`)
  }
  if (configHash !== '' && configHash !== ours) {
    throw refused(`the config of this ${role} is another one (hash ${configHash}) than the coordinator's (${ours}): `
      + 'give it the same file, or leave out --config to take what the coordinator hands out')
  }
  if (!isRole(role)) throw refused(`there is no role ${role}; there are ${roles.join(', ')}`)
  if (rank !== undefined && rank >= countOf(config, role)) {
    throw refused(`there is no ${role} ${rank}: the cluster has ${countOf(config, role)}, counted from 0`)
  }
  return role
}

/** On several hosts nobody may listen where only its own host can reach it. */
export function unreachableMember(members: MemberRecord[]): PersiaError | undefined {
  if (new Set(members.map(({ host }) => host)).size === 1) return undefined
  const member = members.find((one) => !isDriver(one) && isLoopback(one.listensOn))
  return member && new PersiaError('PERSIA_CLUSTER_REFUSED',
    `${memberName(member)} on ${member.host} listens on ${member.listensOn}, which the roles on other hosts cannot `
    + 'reach: start it with --listen ADDRESS', { role: member.role, rank: member.rank })
}
