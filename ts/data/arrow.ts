// Arrow record batches as batches, without a copy where the types agree and without depending on a version of the
// library: only the stable surface of apache-arrow's RecordBatch, Vector and Data is used.
import { PersiaError } from '../errors.js'
import type { BatchLayout, BatchSource, IdColumn } from './batch.js'

interface DataLike {
  type: { typeId: number }
  length: number
  nullCount: number
  values: unknown
  valueOffsets: unknown
  children: DataLike[]
}

/** Of Arrow's format: the types whose values are what they stand for, and lists. */
const typeIds = { int: 2, float: 3, list: 12 }

/** What an apache-arrow RecordBatch looks like from here. */
export interface RecordBatchLike {
  readonly numRows: number
  readonly schema: { readonly fields: readonly { readonly name: string }[] }
  getChild(name: never): { readonly data: readonly unknown[] } | null
}

export function isRecordBatch(value: object): value is RecordBatchLike {
  return 'numRows' in value && 'schema' in value && 'getChild' in value
}

/** The columns that a model with this layout takes; others are not looked at. */
export function columnsOfRecordBatch(batch: RecordBatchLike, layout: BatchLayout): BatchSource {
  const pick = <T>(names: string[], read: (data: DataLike, name: string) => T) =>
    Object.fromEntries(names.map((name) => [name, read(dataOf(batch, name), name)]))
  return {
    ids: pick(layout.features, idsOf), dense: pick(layout.dense, floatsOf), labels: pick(layout.labels, floatsOf),
  }
}

function dataOf(batch: RecordBatchLike, name: string): DataLike {
  const chunks = (batch.getChild(name as never)?.data ?? []) as DataLike[]
  if (chunks.length === 1) return chunks[0]!
  throw refused(name, chunks.length === 0 ? 'is missing'
    : `has ${chunks.length} chunks; use the record batches of the table`)
}

function floatsOf({ type, length, nullCount, values }: DataLike, name: string): Float32Array {
  if (nullCount > 0) throw refused(name, `has ${nullCount} nulls; fill them before`)
  if (values instanceof Float32Array) return values.subarray(0, length)
  const half = type.typeId === typeIds.float && values instanceof Uint16Array
  const wide = values instanceof BigInt64Array || values instanceof BigUint64Array
  if ((type.typeId === typeIds.int || type.typeId === typeIds.float) && !wide && !half) {
    return new Float32Array((values as Float64Array | Int32Array).subarray(0, length))
  }
  throw refused(name, 'must hold integers of 8 to 32 bits, float32 or float64')
}

function idsOf(data: DataLike, name: string): IdColumn {
  if (data.type.typeId !== typeIds.list) {
    if (data.nullCount > 0) {
      throw refused(name, `has ${data.nullCount} nulls; use a list column, in which a sample may have no id`)
    }
    return unsigned(data, name).subarray(0, data.length)
  }
  const offsets = (data.valueOffsets as Int32Array).subarray(0, data.length + 1)
  const first = offsets[0] ?? 0
  const ids = unsigned(data.children[0]!, name).subarray(first, offsets[data.length])
  return { ids, offsets: first === 0 ? reinterpret(offsets) : Uint32Array.from(offsets, (offset) => offset - first) }
}

const reinterpret = (offsets: Int32Array) => new Uint32Array(offsets.buffer, offsets.byteOffset, offsets.length)

function unsigned({ type, nullCount, values }: DataLike, name: string): BigUint64Array {
  if (nullCount > 0) throw refused(name, 'has nulls inside its lists')
  if (type.typeId === typeIds.int && values instanceof BigUint64Array) return values
  if (type.typeId === typeIds.int && values instanceof BigInt64Array) {
    return new BigUint64Array(values.buffer, values.byteOffset, values.length)
  }
  throw refused(name, 'must be uint64, int64 or a list of these. Text ids: hash them with hashId first')
}

function refused(column: string, why: string): PersiaError {
  return new PersiaError('PERSIA_BATCH_INVALID', `Arrow column ${column} ${why}`, { column })
}
