// Reads a source whose batches are made in any order: several are made at once, on libuv's threads, and come in order.
import { settling } from '../native.js'
import type { NativeBatch } from '../native-types.js'
import type { NativeBatchSource } from './native-data.js'

/** Of several data loaders that read the same data, number `index` takes every `count`-th batch, from `index` on. */
export interface LoaderShard { index: number; count: number }

/** The batches of a loader from number `skip` of the pass on. */
export function* batchNumbers(batches: number, skip: number, { index, count }: LoaderShard): Generator<number> {
  const first = skip + ((index - skip) % count + count) % count
  for (let batch = first; batch < batches; batch += count) yield batch
}

/** Batches of the given numbers, in their order; up to `ahead` are made before they are asked for. */
export async function* readBatches(source: NativeBatchSource, numbers: Iterable<number>, ahead: number):
AsyncGenerator<NativeBatch, void, undefined> {
  const coming: Promise<NativeBatch>[] = []
  for (const number of numbers) {
    const read = settling(() => source.read(number))
    read.catch(() => {})  // whoever awaits it sees the error
    coming.push(read)
    if (coming.length > ahead) yield await coming.shift()!
  }
  for (const read of coming) yield await read
}
