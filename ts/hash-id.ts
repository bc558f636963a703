// The id of a text value, for rows that don't come through the data reader (serving, own pipelines).
import { native } from './native.js'

/** XXH64 (seed 0) of the text's UTF-8 bytes: the id that the reader gives the same value of a `hash` feature. */
export function hashId(text: string): bigint {
  return native().hashId(text)
}

/** `hashId` of many texts in one call, for the id column of a batch. */
export function hashIds(texts: readonly string[]): BigUint64Array {
  return native().hashIds(texts)
}
