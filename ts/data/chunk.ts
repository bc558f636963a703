// Hands DuckDB's vectors to the native batcher as they lie in memory: a few views a column, nothing per value.
//
// The fields read here are not part of the declared API of @duckdb/node-api; the reader's tests cover every kind.
import {
  DuckDBBigIntVector, DuckDBDoubleVector, DuckDBListVector, DuckDBUBigIntVector, DuckDBVarCharVector,
  type DuckDBDataChunk, type DuckDBVector,
} from '@duckdb/node-api'
import { PersiaError } from '../errors.js'
import type { NativeChunk, NativeColumn } from './native-batcher.js'
import type { WantedColumns } from './select.js'

interface VectorFields {
  validity: { data: BigUint64Array | null }
  dataView: ArrayBufferView
  items: ArrayBufferView
  entryData: BigUint64Array
  childData: DuckDBVector
}

/** The chunk's columns are ids, dense, labels and perhaps that of a split, in this order; those behind don't count. */
export function nativeChunk(chunk: DuckDBDataChunk, { ids, dense, labels, split }: WantedColumns): NativeChunk {
  let next = 0
  const take = (count: number) =>
    Array.from({ length: count }, () => nativeColumn(chunk.getColumnVector(next++)))
  return {
    rows: chunk.rowCount, ids: take(ids.length), dense: take(dense.length), labels: take(labels.length),
    split: take(split && split.by !== 'share' ? 1 : 0)[0], owner: chunk,
  }
}

function nativeColumn(vector: DuckDBVector): NativeColumn {
  const fields = vector as unknown as VectorFields
  const validity = fields.validity.data ?? undefined
  if (vector instanceof DuckDBListVector) {
    return { ...nativeColumn(fields.childData), entries: fields.entryData, entryValidity: validity }
  }
  if (vector instanceof DuckDBVarCharVector) return { kind: 'text', values: bytes(fields.dataView), validity }
  if (vector instanceof DuckDBDoubleVector) return { kind: 'number', values: bytes(fields.items), validity }
  if (vector instanceof DuckDBBigIntVector || vector instanceof DuckDBUBigIntVector) {
    return { kind: 'integer', values: bytes(fields.items), validity }
  }
  throw new PersiaError('PERSIA_INTERNAL', `the reader selected a column of the type ${vector.type}`)
}

const bytes = (view: ArrayBufferView) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
