// The coordinator's rules: who is in the cluster, what comes next, and how it ends. It knows nothing of gRPC; members
// are reached through links.
//
//   gathering ──all listen──► connecting ──all ready──► running ──the driver has ended──► draining ──all gone──► ended
//       └───────────────────── deadline, failure, stop ───────────────────────────────────►┘
//
// Members are keys with leases in a store, `members/ROLE/RANK`: a rank belongs to whoever created its key, and a member
// whose lease runs out is lost. Before the cluster runs a lost member makes room for another; afterwards its loss ends
// the run. Draining goes role by role, in the order of `roles`, so that nobody loses a peer that it still needs.
//
// Thread-confined. Every change comes through the watch of the store or through a method, one after another.
import { randomBytes, randomUUID } from 'node:crypto'
import type { LoadedConfig } from '../config/index.js'
import { PersiaError, type ErrorCode } from '../errors.js'
import type { RunEvent } from '../train/run-events.js'
import { checkJoin, refused, unreachableMember } from './admission.js'
import { MemberHandle, keyOf, membersAt, type Attendance, type Link, type MemberRecord } from './attendance.js'
import { configHash } from './config-hash.js'
import { deferred, type Deferred } from './deferred.js'
import {
  packageVersion, type ClusterStatus, type Command, type JoinMessage, type Leaving, type SavedMessage, type ToMember,
  type Welcome,
} from './messages.js'
import { countOf, isDriver, memberName, places, roles, type Role } from './roles.js'
import type { Change, Store } from './store.js'

export type Phase = 'gathering' | 'connecting' | 'running' | 'draining' | 'ended'

/** How a cluster ended. */
export type ClusterOutcome = { kind: 'done' } | { kind: 'interrupted' } | { kind: 'failed'; error: PersiaError }

export interface ClusterOptions {
  loaded: LoadedConfig
  store: Store
  /** As `--resume` of `persia train`. */
  resume?: string
  reportEverySeconds?: number
  log: (message: string) => void
  /** Called with every event of the run. */
  onEvent?: (event: RunEvent) => void
  onPhase?: (phase: Phase) => void
}

/** Of several failures the one that explains the others counts: that a peer was lost is what is said last. */
interface Failure { error: PersiaError; weight: 1 | 2 | 3 }

/** How long a stream that broke may be away before the member counts as lost. */
const reconnectSeconds = 3

export class Cluster {
  readonly configHash: string
  private phaseNow: Phase = 'gathering'
  private readonly finished = deferred<ClusterOutcome>()
  /** By the key in the store, which it mirrors. */
  private readonly members = new Map<string, MemberRecord>()
  private readonly attendances = new Map<string, Attendance>()
  /** Keys of those that said how they ended. */
  private readonly departed = new Set<string>()
  private readonly unwatch: () => void
  private readonly joinTimer: NodeJS.Timeout
  private drainTimer: NodeJS.Timeout | undefined
  private outcome: Exclude<ClusterOutcome, { kind: 'failed' }> = { kind: 'done' }
  private failure: Failure | undefined
  private progress = ''
  private waiting: Deferred<SavedMessage>[] = []

  private constructor(private readonly options: ClusterOptions, private readonly secret: Buffer) {
    const { config } = options.loaded
    this.configHash = configHash(config)
    this.unwatch = options.store.watch(membersAt, (change) => this.changed(change))
    this.joinTimer = setTimeout(() => this.joinTimedOut(), config.cluster.joinTimeoutSeconds * 1000)
  }

  static async open(options: ClusterOptions): Promise<Cluster> {
    const secret = randomBytes(32)
    await options.store.create('secret', secret.toString('hex'))
    return new Cluster(options, Buffer.from((await options.store.get('secret'))!, 'hex'))
  }

  get phase(): Phase {
    return this.phaseNow
  }

  /** Resolves when every member is gone, or was given up. */
  get ended(): Promise<ClusterOutcome> {
    return this.finished.promise
  }

  // ---- members

  /** Lets a member in, or one whose stream broke back in. PERSIA_CLUSTER_REFUSED says why not. */
  async join(message: JoinMessage, link: Link): Promise<{ welcome: Welcome; member: MemberHandle }> {
    if (this.failure) throw new PersiaError('PERSIA_ABORTED', `the cluster failed: ${this.failure.error.message}`)
    if (this.phase === 'ended') throw new PersiaError('PERSIA_PEER_LOST', 'the coordinator has ended its cluster')
    const attendance = message.memberId ? this.attendAgain(message, link) : await this.admit(message, link)
    const { record } = attendance
    const { loaded, resume = '', reportEverySeconds = 1 } = this.options
    const welcome: Welcome = {
      memberId: record.id, rank: record.rank, config: JSON.stringify(loaded.config), baseDir: loaded.baseDir,
      resume, reportEverySeconds, secret: this.secret, received: attendance.received,
    }
    return { welcome, member: new MemberHandle(this, attendance.record.id, link) }
  }

  private attendAgain({ memberId, role }: JoinMessage, link: Link): Attendance {
    const attendance = this.attendances.get(memberId)
    if (!attendance) throw refused(`this ${role} is no member any more: it was away for too long`)
    this.options.log(`${memberName(attendance.record)} is back`)
    clearTimeout(attendance.awayTimer)
    attendance.link = link
    return attendance
  }

  private async admit(message: JoinMessage, link: Link): Promise<Attendance> {
    const role = checkJoin(message, this.options.loaded.config, this.configHash)
    if (this.phase !== 'gathering') throw refused(`the cluster is ${this.phase}: roles join before it begins`)
    const { store, loaded: { config }, log } = this.options
    const lease = await store.grant(config.cluster.peerTimeoutSeconds)
    const ranks = message.rank === undefined ? [...Array(countOf(config, role)).keys()] : [message.rank]
    for (const rank of ranks) {
      const { host, pid, listensOn } = message
      const record: MemberRecord =
        { id: randomUUID(), role, rank, host, pid, listensOn, address: '', state: 'joined' }
      const attendance: Attendance = { record, lease, link, told: false, received: 0 }
      this.attendances.set(record.id, attendance)
      if (await store.create(keyOf(record), JSON.stringify(record), lease)) {
        log(`${memberName(record)} joined: process ${pid} on ${host}`)
        return attendance
      }
      this.attendances.delete(record.id)
    }
    await store.revoke(lease)
    throw refused(message.rank === undefined
      ? `the places of all ${ranks.length} of role ${role} are taken`
      : `${role} ${message.rank} is in the cluster already`)
  }

  /** @internal Of a member's stream; a link that another has taken the place of says nothing any more. */
  attendance(id: string, link: Link): Attendance | undefined {
    const attendance = this.attendances.get(id)
    return attendance?.link === link ? attendance : undefined
  }

  /** @internal Tells a member that attends again what it may have missed. */
  catchUp({ link, told }: Attendance): void {
    if (this.phase === 'connecting' || this.phase === 'running') link?.send(this.roster())
    if (this.phase === 'running') link?.send({ begin: {} })
    if (told) link?.send(stopCommand)
  }

  /** @internal */
  async update({ record, lease }: Attendance, change: Partial<MemberRecord>): Promise<void> {
    Object.assign(record, change)
    if (this.attendances.has(record.id)) await this.options.store.put(keyOf(record), JSON.stringify(record), lease)
  }

  /** @internal */
  async keepAlive({ lease }: Attendance): Promise<void> {
    await this.options.store.keepAlive(lease)
  }

  /** @internal */
  async leave(attendance: Attendance, leaving: Leaving): Promise<void> {
    attendance.leaving = leaving
    this.departed.add(keyOf(attendance.record))
    await this.options.store.revoke(attendance.lease)
  }

  /** @internal */
  disconnected(attendance: Attendance): void {
    attendance.link = undefined
    if (attendance.leaving) return
    this.options.log(`${memberName(attendance.record)}: its connection broke`)
    const giveUp = () => void this.options.store.revoke(attendance.lease)
    attendance.awayTimer = setTimeout(giveUp, reconnectSeconds * 1000).unref()
  }

  /**
   * Says that a member is gone, of whoever knows first: the launcher sees its processes end. Whether that was news: it
   * had not left in good order, and it ended for a reason of its own: who has not joined when the cluster ends is not let
   * in any more.
   */
  async lost(place: { role: Role; rank: number }, error: PersiaError): Promise<boolean> {
    if (this.departed.has(keyOf(place))) return false
    const attendance = [...this.attendances.values()].find(({ record }) => keyOf(record) === keyOf(place))
    if (!attendance && (this.phase === 'draining' || this.phase === 'ended')) return false
    this.fail({ error, weight: 3 })
    if (attendance) await this.options.store.revoke(attendance.lease)
    return true
  }

  // ---- what happens

  private changed(change: Change): void {
    if (change.kind === 'put') {
      this.members.set(change.key, JSON.parse(change.value) as MemberRecord)
      return this.advance()
    }
    const record = this.members.get(change.key)
    this.members.delete(change.key)
    if (record) this.gone(record)
  }

  private advance(): void {
    const all = [...this.members.values()]
    const isComplete = all.length === places(this.options.loaded.config).length
    if (this.phase === 'gathering' && isComplete && all.every(({ state }) => state !== 'joined')) {
      const unreachable = unreachableMember(all)
      if (unreachable) return this.fail({ error: unreachable, weight: 2 })
      this.enter('connecting')
      this.options.log('all roles are there; they connect')
      this.tellAll(this.roster())
    } else if (this.phase === 'connecting' && all.every(({ state }) => state === 'ready')) {
      this.enter('running')
      clearTimeout(this.joinTimer)
      this.options.log('the cluster runs')
      this.tellAll({ begin: {} })
    }
  }

  private roster(): ToMember {
    return { roster: { members: [...this.members.values()] } }
  }

  private gone(record: MemberRecord): void {
    const { leaving, link } = this.attendances.get(record.id) ?? {}
    this.attendances.delete(record.id)
    link?.end()
    if (leaving) this.left(record, leaving)
    else this.notHeardOf(record, link === undefined)
    if (this.phase === 'draining') this.drainNext()
  }

  private left(record: MemberRecord, { outcome, code, message }: Leaving): void {
    const name = memberName(record)
    if (outcome === 'failed') {
      const error = new PersiaError(code as ErrorCode, `${name}: ${message}`, { role: record.role, rank: record.rank })
      return this.fail({ error, weight: code === 'PERSIA_PEER_LOST' || code === 'PERSIA_ABORTED' ? 1 : 2 })
    }
    if (isDriver(record) && this.phase === 'running') this.drain({ kind: outcome })
    else if (this.phase === 'gathering') this.options.log(`${name} left`)
    else if (this.phase !== 'draining') this.fail({ error: lostError(record, 'left too early'), weight: 2 })
  }

  private notHeardOf(record: MemberRecord, isCut: boolean): void {
    const { peerTimeoutSeconds } = this.options.loaded.config.cluster
    if (this.phase === 'gathering') return this.options.log(`${memberName(record)} is gone; its place is free again`)
    const how = isCut ? `lost its connection and did not come back within ${reconnectSeconds} s`
      : `was not heard of for ${peerTimeoutSeconds} s (cluster.peerTimeoutSeconds)`
    this.fail({ error: lostError(record, how), weight: 2 })
  }

  private joinTimedOut(): void {
    const { joinTimeoutSeconds } = this.options.loaded.config.cluster
    const late = this.phase === 'gathering' ? this.missing()
      : [...this.members.values()].filter(({ state }) => state !== 'ready').map(memberName)
    const what = this.phase === 'gathering' ? 'did not join' : 'did not connect to its peers'
    this.fail({ weight: 2, error: new PersiaError('PERSIA_CLUSTER_TIMEOUT',
      `${late.join(', ')} ${what} within ${joinTimeoutSeconds} s (cluster.joinTimeoutSeconds)`, { missing: late }) })
  }

  /** Places that nobody has, or has not made ready for its peers. */
  private missing(): string[] {
    return places(this.options.loaded.config)
      .filter((place) => (this.members.get(keyOf(place))?.state ?? 'joined') === 'joined').map(memberName)
  }

  // ---- the end

  private fail(failure: Failure): void {
    if (this.phase === 'ended') return
    if (!this.failure || failure.weight > this.failure.weight) this.failure = failure
    this.options.log(failure.error.message)
    this.beginDraining()
    this.tellAll(command('abort', failure.error.message))
    this.drainNext()
  }

  private drain(outcome: Exclude<ClusterOutcome, { kind: 'failed' }>): void {
    this.outcome = outcome
    this.beginDraining()
    this.drainNext()
  }

  private enter(phase: Phase): void {
    this.phaseNow = phase
    this.options.onPhase?.(phase)
  }

  private beginDraining(): void {
    if (this.phase === 'draining') return
    this.enter('draining')
    clearTimeout(this.joinTimer)
    const { drainTimeoutSeconds } = this.options.loaded.config.cluster
    this.drainTimer = setTimeout(() => this.giveUp(), drainTimeoutSeconds * 1000)
  }

  /** Tells those of the next role that nobody needs them any more. */
  private drainNext(): void {
    if (this.members.size === 0) return this.end()
    const next = roles.find((role) => [...this.members.values()].some((record) => record.role === role))
    for (const attendance of this.attendances.values()) {
      if (attendance.record.role !== next || attendance.told) continue
      attendance.told = true
      attendance.link?.send(stopCommand)
    }
  }

  private giveUp(): void {
    // Those behind whoever was told to end have only waited for that.
    const late = [...this.attendances.values()].filter(({ told }) => this.failure || told).map(({ record }) => record)
    const left = (late.length > 0 ? late : [...this.members.values()]).map(memberName).join(', ')
    this.failure ??= { weight: 1, error: new PersiaError('PERSIA_CLUSTER_TIMEOUT',
      `${left} did not end in time (cluster.drainTimeoutSeconds)`) }
    this.options.log(`${left} did not end in time`)
    this.end()
  }

  /** Ends it where it stands, without a word to its members; nothing when it has ended. */
  close(): void {
    this.end()
  }

  private end(): void {
    if (this.phase === 'ended') return
    this.enter('ended')
    clearTimeout(this.joinTimer)
    clearTimeout(this.drainTimer)
    this.unwatch()
    for (const { link } of this.attendances.values()) link?.end()
    const aborted = new PersiaError('PERSIA_ABORTED', 'the cluster ended before the checkpoint was made')
    for (const one of this.waiting.splice(0)) one.reject(aborted)
    this.finished.resolve(this.failure ? { kind: 'failed', error: this.failure.error } : this.outcome)
  }

  // ---- commands and reports

  /** The next checkpoint that is complete, made after the step under way. */
  checkpoint(): Promise<SavedMessage> {
    if (this.phase !== 'running') {
      throw new PersiaError('PERSIA_USAGE', `the cluster is ${this.phase}: nothing is trained`)
    }
    const saved = deferred<SavedMessage>()
    this.waiting.push(saved)
    this.tellDriver(command('checkpoint', 'asked for'))
    return saved.promise
  }

  /** Ends training after the step under way, with a checkpoint. Before it has begun, everything ends at once. */
  stop(): void {
    if (this.phase === 'running') return this.tellDriver(command('drain', 'stopped'))
    if (this.phase === 'draining' || this.phase === 'ended') return
    this.drain({ kind: 'interrupted' })
    this.tellAll(command('stop', 'stopped before the cluster ran'))
  }

  /** @internal */
  reported(event: RunEvent): void {
    if (event.event === 'progress') this.progress = JSON.stringify(event)
    this.options.onEvent?.(event)
  }

  /** @internal */
  saved(message: SavedMessage): void {
    for (const one of this.waiting.splice(0)) one.resolve(message)
  }

  status(): ClusterStatus {
    return {
      name: this.options.loaded.config.name, phase: this.phase, members: [...this.members.values()],
      missing: this.phase === 'gathering' ? this.missing() : [], progress: this.progress,
      version: packageVersion(), configHash: this.configHash,
    }
  }

  private tellAll(message: ToMember): void {
    for (const { link } of this.attendances.values()) link?.send(message)
  }

  private tellDriver(message: ToMember): void {
    for (const { record, link } of this.attendances.values()) if (isDriver(record)) link?.send(message)
  }
}

const command = (what: Command['what'], reason: string): ToMember => ({ command: { what, reason } })
const stopCommand = command('stop', 'the work is done')

function lostError(record: MemberRecord, how: string): PersiaError {
  return new PersiaError('PERSIA_PEER_LOST', `${memberName(record)} (process ${record.pid} on ${record.host}) ${how}`,
    { role: record.role, rank: record.rank })
}
