/** A promise that is settled from outside. Its failure is not "unhandled" while nobody waits for it. */
export interface Deferred<T> {
  readonly promise: Promise<T>
  resolve(value: T): void
  reject(error: unknown): void
}

export function deferred<T = void>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((onValue, onError) => { [resolve, reject] = [onValue, onError] })
  promise.catch(() => {})
  return { promise, resolve, reject }
}
