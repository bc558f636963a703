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

/** Batches of the given numbers, in their order; up to `most` are made before they are asked for. */
export function readBatches(source: NativeBatchSource, numbers: Iterable<number>, most: number):
AsyncGenerator<NativeBatch, void, undefined> {
  return ahead(function* () {
    for (const number of numbers) yield settling(() => source.read(number))
  }(), most)
}

/** What promises come to, in order; up to `most` of them are taken before they are asked for. */
export async function* ahead<T>(promises: Iterable<Promise<T>>, most: number): AsyncGenerator<T, void, undefined> {
  const coming: Promise<T>[] = []
  for (const promise of promises) {
    promise.catch(() => {})  // whoever awaits it sees the error
    coming.push(promise)
    if (coming.length > most) yield await coming.shift()!
  }
  for (const promise of coming) yield await promise
}
