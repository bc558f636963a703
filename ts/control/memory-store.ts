// The store of a coordinator that keeps its state in its own memory. Watchers are called after the change, from a
// microtask of their own, as they would be over a network.
import { randomUUID } from 'node:crypto'
import type { Change, Entry, Store } from './store.js'

interface Value { value: string; lease: string | undefined }
interface Lease { seconds: number; timer: NodeJS.Timeout }
interface Watcher { prefix: string; onChange: (change: Change) => void }

export class MemoryStore implements Store {
  private readonly values = new Map<string, Value>()
  private readonly leases = new Map<string, Lease>()
  private readonly watchers = new Set<Watcher>()

  async get(key: string): Promise<string | undefined> {
    return this.values.get(key)?.value
  }

  async list(prefix: string): Promise<Entry[]> {
    return [...this.values].filter(([key]) => key.startsWith(prefix)).map(([key, { value }]) => ({ key, value }))
  }

  async put(key: string, value: string, lease?: string): Promise<void> {
    if (lease !== undefined && !this.leases.has(lease)) throw new Error(`no lease ${lease}`)
    this.values.set(key, { value, lease })
    this.tell({ kind: 'put', key, value })
  }

  async create(key: string, value: string, lease?: string): Promise<boolean> {
    if (this.values.has(key)) return false
    await this.put(key, value, lease)
    return true
  }

  async delete(key: string): Promise<void> {
    if (this.values.delete(key)) this.tell({ kind: 'delete', key })
  }

  async grant(seconds: number): Promise<string> {
    const id = randomUUID()
    this.leases.set(id, { seconds, timer: this.timer(id, seconds) })
    return id
  }

  async keepAlive(id: string): Promise<boolean> {
    const lease = this.leases.get(id)
    if (!lease) return false
    clearTimeout(lease.timer)
    lease.timer = this.timer(id, lease.seconds)
    return true
  }

  async revoke(id: string): Promise<void> {
    clearTimeout(this.leases.get(id)?.timer)
    if (!this.leases.delete(id)) return
    for (const [key, { lease }] of [...this.values]) if (lease === id) await this.delete(key)
  }

  watch(prefix: string, onChange: (change: Change) => void): () => void {
    const watcher = { prefix, onChange }
    this.watchers.add(watcher)
    return () => { this.watchers.delete(watcher) }
  }

  async close(): Promise<void> {
    for (const { timer } of this.leases.values()) clearTimeout(timer)
    this.leases.clear()
    this.watchers.clear()
  }

  private timer(id: string, seconds: number): NodeJS.Timeout {
    return setTimeout(() => { void this.revoke(id) }, seconds * 1000)
  }

  private tell(change: Change): void {
    queueMicrotask(() => {
      for (const { prefix, onChange } of this.watchers) if (change.key.startsWith(prefix)) onChange(change)
    })
  }
}
