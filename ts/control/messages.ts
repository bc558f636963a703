// The messages of proto/coordinator.proto as TypeScript sees them, and the service that they belong to.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type * as grpc from '@grpc/grpc-js'
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader'

export interface JoinMessage {
  role: string
  rank?: number
  version: string
  configHash: string
  host: string
  pid: number
  memberId: string
  listensOn: string
}

export interface Welcome {
  memberId: string
  rank: number
  config: string
  baseDir: string
  resume: string
  reportEverySeconds: number
  secret: Uint8Array
  received: number
}

export interface MemberMessage {
  role: string
  rank: number
  address: string
  host: string
  pid: number
  state: string
}

export type Outcome = 'done' | 'interrupted' | 'failed'
export interface Leaving { outcome: Outcome; code: string; message: string }

export interface Command { what: 'checkpoint' | 'drain' | 'stop' | 'abort'; reason: string }
export interface SavedMessage { step: number; checkpoint: string }

type Nothing = Record<string, never>

/** One of these is set; on arrival `message` says which. */
export interface FromMember {
  message?: keyof FromMember
  join?: JoinMessage
  listening?: { address: string }
  ready?: Nothing
  heartbeat?: Nothing
  report?: { event: string }
  saved?: SavedMessage
  leaving?: Leaving
  /** From 1 on, of what must come exactly once. */
  number?: number
}

export interface ToMember {
  message?: keyof ToMember
  welcome?: Welcome
  roster?: { members: MemberMessage[] }
  begin?: Nothing
  command?: Command
}

export interface ClusterStatus {
  name: string
  phase: string
  members: MemberMessage[]
  missing: string[]
  progress: string
  version: string
  configHash: string
}

/** In the package the protos lie where they do in the repository. */
const protos = new URL('../../ts/control/proto/', import.meta.url)

export function coordinatorService(): grpc.ServiceDefinition {
  const loaded = loadSync('coordinator.proto', {
    includeDirs: [fileURLToPath(protos)], longs: Number, enums: String, defaults: true, oneofs: true,
  })
  return loaded['persia.control.v1.Coordinator'] as ServiceDefinition as grpc.ServiceDefinition
}

/** Of the package: all processes of a cluster have the same. */
export function packageVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
