// Batch: the samples of one training step, as users hand them over. Typed arrays and Arrow columns are read in place by the
// C++ threads until the step has been prepared: don't change or transfer them before `trainer.step`, or the next batch of
// `trainer.fit`, has been taken.
import { PersiaError } from '../errors.js'
import { native } from '../native.js'
import type { NativeBatch, NativeIdColumn } from '../native-types.js'
import { columnsOfRecordBatch, isRecordBatch, type RecordBatchLike } from './arrow.js'

/** Ids of one feature: one per sample, or jagged (sample i has `ids[offsets[i]]` up to `ids[offsets[i + 1]]`). */
export type IdColumn = BigUint64Array | { ids: BigUint64Array; offsets: Uint32Array }

/** A matrix of samples × columns: row-major in one array, or one array a column, by name. */
export type FloatMatrix = Float32Array | Record<string, Float32Array>

export interface BatchSource {
  /** Ids by feature name. */
  ids: Record<string, IdColumn>
  /** Dense features after their transforms, in the order of `data.dense`. */
  dense?: FloatMatrix
  /** One column a task, in the order of `data.labels`; left out for prediction. */
  labels?: FloatMatrix
}

/** Names of the columns that a model takes, in its order. */
export interface BatchLayout { features: string[]; dense: string[]; labels: string[] }

export class Batch {
  private constructor(readonly rows: number, private readonly source: BatchSource | NativeBatch) {}

  /**
   * Makes a batch of typed arrays, or of an Arrow RecordBatch whose columns are named as in the config (ids: uint64, int64 or
   * lists of these; dense and labels: float32 or float64 without nulls).
   * Throws PERSIA_BATCH_INVALID when a column has a wrong type or length.
   */
  static from(source: BatchSource | RecordBatchLike): Batch {
    if (isRecordBatch(source)) return new Batch(source.numRows, columnsOfRecordBatch(source))
    const columns = Object.entries(source.ids ?? {})
    const [first] = columns
    if (!first) throw invalid('a batch needs at least one id column', 'ids')
    const rows = rowsOf(first[1])
    for (const [name, column] of columns) checkIdColumn(name, column, rows)
    return new Batch(rows, source)
  }

  /** @internal A batch of the native reader. */
  static fromNative(handle: NativeBatch): Batch {
    return new Batch(handle.rows, handle)
  }

  /** @internal The native handle for a model with this layout; prediction leaves labels out. */
  handle(layout: BatchLayout, use: 'labelled' | 'unlabelled'): NativeBatch {
    if (!('ids' in this.source)) return this.source
    const { ids, dense, labels } = this.source
    const labelNames = use === 'labelled' ? layout.labels : []
    return new (native().BatchHandle)({
      rows: this.rows,
      ids: layout.features.map((name) => nativeColumn(name, ids[name])),
      denseCount: layout.dense.length,
      dense: matrix(dense, layout.dense, this.rows, 'dense'),
      labelCount: labelNames.length,
      labels: matrix(labelNames.length > 0 ? labels : undefined, labelNames, this.rows, 'labels'),
    })
  }
}

const rowsOf = (column: IdColumn) => (column instanceof BigUint64Array ? column.length : column.offsets.length - 1)

function checkIdColumn(name: string, column: IdColumn, rows: number): void {
  const ids = column instanceof BigUint64Array ? column : column?.ids
  const jagged = !(column instanceof BigUint64Array)
  if (!(ids instanceof BigUint64Array) || (jagged && !(column.offsets instanceof Uint32Array))) {
    throw invalid(`ids.${name} must be a BigUint64Array, or { ids: BigUint64Array, offsets: Uint32Array }`, name)
  }
  if (rowsOf(column) !== rows) throw invalid(`ids.${name} has ${rowsOf(column)} samples, the first id column ${rows}`, name)
}

function nativeColumn(name: string, column: IdColumn | undefined): NativeIdColumn {
  if (column === undefined) throw invalid(`the batch has no id column ${name}, which the model needs`, name)
  return column instanceof BigUint64Array ? { ids: column } : column
}

/** Row-major as it is; columns in the model's order, which the addon interleaves. */
function matrix(given: FloatMatrix | undefined, names: string[], rows: number, what: string): Float32Array | Float32Array[] {
  if (given === undefined) {
    if (names.length === 0) return new Float32Array(0)
    throw invalid(`the batch has no ${what}, the model needs ${names.join(', ')}`, what)
  }
  if (given instanceof Float32Array) {
    if (given.length === rows * names.length) return given
    throw invalid(`${what} has ${given.length} values, expected ${rows} samples × ${names.length} columns`, what)
  }
  return names.map((name) => {
    const column = given[name]
    if (!(column instanceof Float32Array)) throw invalid(`${what}.${name} must be a Float32Array`, name)
    if (column.length === rows) return column
    throw invalid(`${what}.${name} has ${column.length} values, expected ${rows}`, name)
  })
}

function invalid(message: string, key: string): PersiaError {
  return new PersiaError('PERSIA_BATCH_INVALID', message, { key })
}
