// A small model with a task that can be learnt: the label follows from the first id.
import { Batch, type ConfigInput } from 'persia'

export const smallConfig: ConfigInput = {
  name: 'small',
  mode: 'hybrid',
  staleness: 3,
  batchSize: 64,
  seed: 11,
  threads: 1,
  data: { labels: ['click'], dense: ['x'] },
  features: { defaults: { dim: 4 }, columns: { user: null, item: { dim: 8, pooling: 'mean' } } },
  embedding: { optimizer: { type: 'adagrad', lr: 0.1 } },
  model: { hidden: [16, 8], optimizer: { type: 'adam', lr: 0.01 } },
}

/** A linear congruential generator: the same numbers on every run. */
export function numbers(seed: number): () => number {
  let state = BigInt(seed) * 2n + 1n
  return () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn
    return Number(state >> 33n)
  }
}

/** Batch `number` of an endless data set; items are jagged with 0 to 2 ids. */
export function makeBatch(number: number, rows = 64): Batch {
  const next = numbers(number + 1)
  const users = BigUint64Array.from({ length: rows }, () => BigInt(next() % 50))
  const offsets = new Uint32Array(rows + 1)
  for (let row = 0; row < rows; row++) offsets[row + 1] = offsets[row]! + (next() % 3)
  const items = BigUint64Array.from({ length: offsets[rows]! }, () => BigInt(next() % 20))
  return Batch.from({
    ids: { user: users, item: { ids: items, offsets } },
    dense: Float32Array.from({ length: rows }, () => (next() % 1000) / 1000),
    labels: Float32Array.from(users, (user) => (user % 3n === 0n ? 1 : 0)),
  })
}

export function* batches(count: number, first = 0): Generator<Batch> {
  for (let i = first; i < first + count; i++) yield makeBatch(i)
}

export async function drained<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of iterable) all.push(item)
  return all
}
