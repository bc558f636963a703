// Batch: the samples of one training step, as users hand them over. Typed arrays and Arrow columns are read in place by
// the C++ threads until the step has been prepared: don't change or transfer them before `trainer.step`, or the next
// batch of `trainer.fit`, has been taken.
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
  private released = false

  private constructor(readonly rows: number, private readonly source: BatchSource | RecordBatchLike | NativeBatch) {}

  /**
   * Makes a batch of typed arrays, or of an Arrow RecordBatch whose columns are named as in the config (ids: uint64,
   * int64 or lists of these; dense and labels: numbers without nulls; other columns are left alone).
   * Throws PERSIA_BATCH_INVALID when a column has a wrong type or length.
   */
  static from(source: BatchSource | RecordBatchLike): Batch {
    if (typeof source !== 'object' || source === null) {
      throw invalid(`a batch is made of an object, got ${source}`, 'ids')
    }
    if (isRecordBatch(source)) return new Batch(source.numRows, source)
    if (typeof source.ids !== 'object' || source.ids === null) {
      throw invalid('ids must be an object of id columns by name', 'ids')
    }
    const columns = Object.entries(source.ids)
    for (const [name, column] of columns) checkIdColumn(name, column)
    const [first] = columns
    if (!first) throw invalid('a batch needs at least one id column', 'ids')
    const rows = rowsOf(first[1])
    for (const [name, column] of columns) {
      if (rowsOf(column) !== rows) {
        throw invalid(`ids.${name} has ${rowsOf(column)} samples, ids.${first[0]} has ${rows}`, name)
      }
    }
    return new Batch(rows, source)
  }

  /** @internal A batch of the native reader. */
  static fromNative(handle: NativeBatch): Batch {
    return new Batch(handle.rows, handle)
  }

  /** @internal Gives native memory back for the next batches; steps that have the batch keep it. */
  release(): void {
    this.released = true
    if ('release' in this.source) this.source.release()
  }

  /** @internal The native handle for a model with this layout; prediction leaves labels out. */
  handle(layout: BatchLayout, use: 'labelled' | 'unlabelled'): NativeBatch {
    if (this.released) {
      throw invalid('the batch was given back when the next one was asked for; leave reuseMemory out to keep batches',
        'reuseMemory')
    }
    const wanted = { ...layout, labels: use === 'labelled' ? layout.labels : [] }
    if (isRecordBatch(this.source)) return this.handleOf(columnsOfRecordBatch(this.source, wanted), wanted)
    return 'ids' in this.source ? this.handleOf(this.source, wanted) : this.source
  }

  private handleOf({ ids, dense, labels }: BatchSource, layout: BatchLayout): NativeBatch {
    return new (native().BatchHandle)({
      rows: this.rows,
      ids: layout.features.map((name) => nativeColumn(name, ids[name])),
      denseCount: layout.dense.length,
      dense: matrix(dense, layout.dense, this.rows, 'dense'),
      labelCount: layout.labels.length,
      labels: matrix(layout.labels.length > 0 ? labels : undefined, layout.labels, this.rows, 'labels'),
    })
  }
}

const rowsOf = (column: IdColumn) => (column instanceof BigUint64Array ? column.length : column.offsets.length - 1)

function checkIdColumn(name: string, column: IdColumn): void {
  const plain = column instanceof BigUint64Array
  if (!plain && !(column?.ids instanceof BigUint64Array && column.offsets instanceof Uint32Array)) {
    throw invalid(`ids.${name} must be a BigUint64Array, or { ids: BigUint64Array, offsets: Uint32Array }`, name)
  }
  checkOwned(plain ? column : column.ids, `ids.${name}`)
  if (!plain && column.offsets.length === 0) {
    throw invalid(`ids.${name}.offsets is empty; it has one entry more than samples`, name)
  }
}

/** C++ reads the memory later: another thread must not be able to change it meanwhile. */
function checkOwned(array: BigUint64Array | Float32Array, name: string): void {
  if (!(array.buffer instanceof ArrayBuffer)) throw invalid(`${name} lies in a SharedArrayBuffer; copy it first`, name)
}

function nativeColumn(name: string, column: IdColumn | undefined): NativeIdColumn {
  if (column === undefined) throw invalid(`the batch has no id column ${name}, which the model needs`, name)
  return column instanceof BigUint64Array ? { ids: column } : column
}

/** Row-major as it is; columns in the model's order, which the addon interleaves. */
function matrix(
  given: FloatMatrix | undefined, names: string[], rows: number, what: string,
): Float32Array | Float32Array[] {
  if (given === undefined || given === null) {
    if (names.length === 0) return new Float32Array(0)
    throw invalid(`the batch has no ${what}, the model needs ${names.join(', ')}`, what)
  }
  if (given instanceof Float32Array) {
    checkOwned(given, what)
    if (given.length === rows * names.length) return given
    throw invalid(`${what} has ${given.length} values, expected ${rows} samples × ${names.length} columns`, what)
  }
  return names.map((name) => {
    const column = given[name]
    if (!(column instanceof Float32Array)) throw invalid(`${what}.${name} must be a Float32Array`, name)
    checkOwned(column, `${what}.${name}`)
    if (column.length === rows) return column
    throw invalid(`${what}.${name} has ${column.length} values, expected ${rows}`, name)
  })
}

function invalid(message: string, key: string): PersiaError {
  return new PersiaError('PERSIA_BATCH_INVALID', message, { key })
}
