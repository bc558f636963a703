// Arrow record batches as batches, without a copy where the types agree and without depending on a version of the library:
// only the stable surface of apache-arrow's RecordBatch, Vector and Data is used.
import { PersiaError } from '../errors.js'
import type { BatchSource, IdColumn } from './batch.js'

interface DataLike {
  length: number
  nullCount: number
  values: ArrayLike<unknown>
  valueOffsets: Int32Array
  children: DataLike[]
}

/** What an apache-arrow RecordBatch looks like from here. */
export interface RecordBatchLike {
  readonly numRows: number
  readonly schema: { readonly fields: readonly { readonly name: string }[] }
  getChild(name: never): { readonly data: readonly unknown[] } | null
}

export function isRecordBatch(value: object): value is RecordBatchLike {
  return 'numRows' in value && 'schema' in value && 'getChild' in value
}

/** Integer columns and lists of them are ids; floating-point columns are offered both as dense features and as labels. */
export function columnsOfRecordBatch(batch: RecordBatchLike): BatchSource {
  const ids: Record<string, IdColumn> = {}
  const floats: Record<string, Float32Array> = {}
  for (const { name } of batch.schema.fields) {
    const data = dataOf(batch, name)
    if (data.values instanceof Float32Array || data.values instanceof Float64Array) {
      floats[name] = floatsOf(data, name)
    } else {
      ids[name] = idsOf(data, name)
    }
  }
  return { ids, dense: floats, labels: floats }
}

function dataOf(batch: RecordBatchLike, name: string): DataLike {
  const chunks = (batch.getChild(name as never)?.data ?? []) as DataLike[]
  if (chunks.length !== 1) throw refused(name, `has ${chunks.length} chunks, a record batch has one`)
  return chunks[0]!
}

function floatsOf(data: DataLike, name: string): Float32Array {
  if (data.nullCount > 0) throw refused(name, `has ${data.nullCount} nulls; fill them before`)
  return data.values instanceof Float32Array ? data.values.subarray(0, data.length)
    : new Float32Array((data.values as Float64Array).subarray(0, data.length))
}

function idsOf(data: DataLike, name: string): IdColumn {
  const [child] = data.children
  if (!child) {
    if (data.nullCount > 0) throw refused(name, `has ${data.nullCount} nulls; use a list column, in which a sample may have no id`)
    return unsigned(data, name).subarray(0, data.length)
  }
  const first = data.valueOffsets[0] ?? 0
  const offsets = data.valueOffsets.subarray(0, data.length + 1)
  const ids = unsigned(child, name).subarray(first, offsets[data.length])
  return { ids, offsets: first === 0 ? reinterpret(offsets) : Uint32Array.from(offsets, (offset) => offset - first) }
}

const reinterpret = (offsets: Int32Array) => new Uint32Array(offsets.buffer, offsets.byteOffset, offsets.length)

function unsigned(data: DataLike, name: string): BigUint64Array {
  const { values } = data
  if (data.nullCount > 0) throw refused(name, 'has nulls inside its lists')
  if (values instanceof BigUint64Array) return values
  if (values instanceof BigInt64Array) return new BigUint64Array(values.buffer, values.byteOffset, values.length)
  throw refused(name, 'is neither uint64, int64, a list of these, float32 nor float64. Text ids: hash them with hashId first')
}

function refused(column: string, why: string): PersiaError {
  return new PersiaError('PERSIA_BATCH_INVALID', `Arrow column ${column} ${why}`, { column })
}
