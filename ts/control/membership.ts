// A role's side of the control plane: joins, waits for the others, takes commands, reports, leaves. The stream is taken
// up again when it breaks; when the coordinator stays away for seconds, the membership is lost.
import { hostname } from 'node:os'
import * as grpc from '@grpc/grpc-js'
import { PersiaError } from '../errors.js'
import type { RunEvent } from '../train/run-events.js'
import { addressText, type Address } from './address.js'
import { tokenMetadata, type Credentials } from './auth.js'
import { openChannel } from './channel.js'
import { deferred } from './deferred.js'
import {
  coordinatorService, packageVersion, type Command, type FromMember, type Leaving, type MemberMessage, type ToMember,
  type Welcome,
} from './messages.js'
import type { Role } from './roles.js'
import { fromStatus, plainDetails } from './status.js'

export interface JoinOptions {
  coordinator: Address
  credentials: Credentials
  role: Role
  rank: number | undefined
  /** Of the role's own config; empty: it takes the coordinator's. */
  configHash: string
  /** The address of this host that the data plane listens on. */
  listensOn: string
  /** How long the coordinator is waited for. */
  joinTimeoutSeconds: number
  onCommand: (command: Command) => void
}

type Stream = grpc.ClientDuplexStream<FromMember, ToMember>

const retryMs = 300
const heartbeatMs = 1000
/** How long the coordinator may be away while the cluster runs. */
const reconnectSeconds = 3
/** Messages that are kept for another stream. What is older than so many others has long been received. */
const mostKept = 256

export class Membership {
  readonly welcome: Promise<Welcome>
  /** Everybody, once all listen. */
  readonly roster: Promise<MemberMessage[]>
  /** Once all are connected. */
  readonly begun: Promise<void>
  /** Fails when the coordinator is gone for good. */
  readonly lost: Promise<never>

  private readonly welcomed = deferred<Welcome>()
  private readonly rostered = deferred<MemberMessage[]>()
  private readonly beginning = deferred()
  private readonly loss = deferred<never>()
  private readonly ended = deferred()
  private readonly client: grpc.Client
  private stream: Stream | undefined
  private memberId = ''
  /** Runs while there is no stream that the coordinator answers on. */
  private awayTimer: NodeJS.Timeout | undefined
  private trouble = 'it does not answer'
  /** Whether the stream that stands is one on which the coordinator knows the member. */
  private isWelcome = false
  private isClosed = false
  /** Said again on a new stream, unless the coordinator has it. */
  private readonly kept: FromMember[] = []
  private lastNumber = 0
  private readonly heartbeat: NodeJS.Timeout

  constructor(private readonly options: JoinOptions) {
    this.welcome = this.welcomed.promise
    this.roster = this.rostered.promise
    this.begun = this.beginning.promise
    this.lost = this.loss.promise
    this.client = openChannel(options.coordinator, options.credentials)
    this.heartbeat = setInterval(() => this.send({ heartbeat: {} }), heartbeatMs)
    this.awaitCoordinator()
    this.attend()
  }

  listening(address: string): void {
    this.keep({ listening: { address } })
  }

  ready(): void {
    this.keep({ ready: {} })
  }

  report(event: RunEvent): void {
    this.keep({ report: { event: JSON.stringify(event) } })
  }

  saved(step: number, checkpoint: string): void {
    this.keep({ saved: { step, checkpoint } })
  }

  /** Says how it ended; returns when the coordinator has it, or stays away. */
  async leave(leaving: Leaving): Promise<void> {
    if (!this.isClosed && this.memberId) {
      this.keep({ leaving })
      const timer = setTimeout(() => this.ended.resolve(), reconnectSeconds * 1000)
      await this.ended.promise
      clearTimeout(timer)
    }
    this.close()
  }

  close(): void {
    this.isClosed = true
    clearInterval(this.heartbeat)
    clearTimeout(this.awayTimer)
    this.stream?.cancel()
    this.client.close()
    this.ended.resolve()
  }

  // ---- the stream

  private attend(): void {
    const { role, rank, configHash, listensOn, credentials } = this.options
    const { path, requestSerialize, responseDeserialize } = coordinatorService()['Attend']!
    const stream: Stream = this.client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize,
      tokenMetadata(credentials))
    this.stream = stream
    stream.on('data', (message: ToMember) => this.take(message))
    stream.on('error', (error: grpc.ServiceError) => this.broken(stream, error))
    stream.on('end', () => this.broken(stream))
    stream.write({
      join: { role, ...(rank !== undefined && { rank }), version: packageVersion(), configHash, host: hostname(),
        pid: process.pid, memberId: this.memberId, listensOn },
    })
  }

  /** What the coordinator must know, also when the stream breaks meanwhile. */
  private keep(message: FromMember): void {
    const numbered = { ...message, number: ++this.lastNumber }
    this.kept.push(numbered)
    if (this.kept.length > mostKept) this.kept.shift()
    this.send(numbered)
  }

  private send(message: FromMember): void {
    if (this.isWelcome) this.stream?.write(message)
  }

  private take({ welcome, roster, begin, command }: ToMember): void {
    if (welcome) {
      this.memberId = welcome.memberId
      clearTimeout(this.awayTimer)
      this.awayTimer = undefined
      this.isWelcome = true
      for (const message of this.kept) if (message.number! > welcome.received) this.send(message)
      this.welcomed.resolve(welcome)
    }
    if (roster) this.rostered.resolve(roster.members)
    if (begin) this.beginning.resolve()
    if (command) this.options.onCommand(command)
  }

  /** Gives up when no coordinator has answered for too long, whatever it is that keeps it from that. */
  private awaitCoordinator(): void {
    const seconds = this.memberId ? reconnectSeconds : this.options.joinTimeoutSeconds
    this.awayTimer ??= setTimeout(() => this.giveUp(this.unreachable(this.trouble)), seconds * 1000)
  }

  /** The stream ended: it is taken up again unless the coordinator ended it, or stays away. */
  private broken(stream: Stream, error?: grpc.ServiceError): void {
    if (this.stream !== stream) return
    this.stream = undefined
    const hasLeft = this.isWelcome && this.kept.some(({ leaving }) => leaving)
    this.isWelcome = false
    if (this.isClosed || hasLeft) return this.ended.resolve()
    const refusal = error && fromStatus(error)
    if (refusal) return this.giveUp(refusal)
    if (error?.code !== grpc.status.UNAVAILABLE && error !== undefined) {
      return this.giveUp(this.unreachable(plainDetails(error)))
    }
    this.trouble = error ? plainDetails(error) : 'it closed the connection'
    this.awaitCoordinator()
    setTimeout(() => { if (!this.isClosed) this.attend() }, retryMs)
  }

  private giveUp(error: PersiaError): void {
    this.close()
    for (const waiting of [this.welcomed, this.rostered, this.beginning, this.loss]) waiting.reject(error)
  }

  private unreachable(why: string): PersiaError {
    const at = addressText(this.options.coordinator)
    if (this.memberId) {
      return new PersiaError('PERSIA_PEER_LOST', `the coordinator at ${at} is gone: ${why}`, { address: at })
    }
    return new PersiaError('PERSIA_CLUSTER_TIMEOUT',
      `there was no coordinator at ${at} for ${this.options.joinTimeoutSeconds} s (--join-timeout): ${why}`,
      { address: at })
  }
}
