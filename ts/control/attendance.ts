// Members as the coordinator deals with them: what the store holds of one, the way to it, and what its stream may say.
import type { RunEvent } from '../train/run-events.js'
import type { Cluster } from './cluster.js'
import type { FromMember, Leaving, SavedMessage, ToMember } from './messages.js'
import type { Role } from './roles.js'

/** The way to a member while its stream stands. */
export interface Link {
  send(message: ToMember): void
  /** Ends the stream; nothing is sent afterwards. */
  end(): void
}

/** What the store holds of a member. */
export interface MemberRecord {
  id: string
  role: Role
  rank: number
  host: string
  pid: number
  listensOn: string
  address: string
  state: 'joined' | 'listening' | 'ready'
}

/** A member as far as this process deals with it. */
export interface Attendance {
  readonly record: MemberRecord
  readonly lease: string
  link: Link | undefined
  told: boolean
  /** The number of its last message. */
  received: number
  /** Runs while its stream is away. */
  awayTimer?: NodeJS.Timeout
  leaving?: Leaving
}

export const membersAt = 'members/'
export const keyOf = ({ role, rank }: { role: string; rank: number }) => `${membersAt}${role}/${rank}`

/** What a member's stream says, for as long as that stream is the member's. */
export class MemberHandle {
  constructor(private readonly cluster: Cluster, private readonly id: string, private readonly link: Link) {}

  /** The Welcome is on its way. */
  welcomed(): void {
    const member = this.cluster.attendance(this.id, this.link)
    if (member) this.cluster.catchUp(member)
  }

  /** Whether a message is to be taken: not when it came before, on a stream that broke. */
  takes({ number = 0 }: FromMember): boolean {
    const member = this.cluster.attendance(this.id, this.link)
    if (!member || (number !== 0 && number <= member.received)) return false
    member.received = Math.max(member.received, number)
    return true
  }

  listening(address: string): Promise<void> {
    return this.with((member) => this.cluster.update(member, { address, state: 'listening' }))
  }

  ready(): Promise<void> {
    return this.with((member) => this.cluster.update(member, { state: 'ready' }))
  }

  heartbeat(): Promise<void> {
    return this.with((member) => this.cluster.keepAlive(member))
  }

  leave(leaving: Leaving): Promise<void> {
    return this.with((member) => this.cluster.leave(member, leaving))
  }

  report(event: RunEvent): void {
    this.cluster.reported(event)
  }

  saved(message: SavedMessage): void {
    this.cluster.saved(message)
  }

  disconnected(): void {
    const member = this.cluster.attendance(this.id, this.link)
    if (member) this.cluster.disconnected(member)
  }

  private async with(work: (member: Attendance) => Promise<void>): Promise<void> {
    const member = this.cluster.attendance(this.id, this.link)
    if (member) await work(member)
  }
}
