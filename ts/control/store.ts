// Where the coordinator keeps who is in the cluster. A small interface in the shape of etcd, so that the state can move
// there: keys with leases, a create that fails where the key exists, and watches. `MemoryStore` is one coordinator's
// own memory.

export interface Entry {
  key: string
  value: string
}

/** A watched key got a value, or went: it was deleted, or its lease ran out. */
export type Change = { kind: 'put'; key: string; value: string } | { kind: 'delete'; key: string }

export interface Store {
  get(key: string): Promise<string | undefined>
  list(prefix: string): Promise<Entry[]>
  /** With a lease the key goes when that ends. */
  put(key: string, value: string, lease?: string): Promise<void>
  /** As put, unless the key exists; whether it did not. Of several at once, one succeeds. */
  create(key: string, value: string, lease?: string): Promise<boolean>
  delete(key: string): Promise<void>
  /** A lease that ends after so many seconds without keepAlive. */
  grant(seconds: number): Promise<string>
  /** Whether the lease still holds; it then lasts its full time again. */
  keepAlive(lease: string): Promise<boolean>
  /** Ends a lease; its keys are deleted. */
  revoke(lease: string): Promise<void>
  /** Tells every change of keys with this prefix, in order, until the returned function is called. */
  watch(prefix: string, onChange: (change: Change) => void): () => void
  close(): Promise<void>
}
