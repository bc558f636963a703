// The embedding rows of a trainer, read and written by feature and ids, many in one call.
import type { Config } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { calling, settling } from '../native.js'
import type { NativeTrainer } from '../native-types.js'

export interface RowOptions {
  /** Whole rows: the state of the row optimizer stands behind each embedding. */
  state?: boolean
}

export interface Rows {
  /** (ids × width) row-major; zeros for an id that has no row. */
  rows: Float32Array
  /** 1 for an id that has a row, 0 for others. */
  found: Uint8Array
}

export class Table {
  private readonly features: string[]

  /** @internal */
  constructor(private readonly trainer: NativeTrainer, private readonly config: Config) {
    this.features = Object.keys(config.features.columns)
  }

  /** Floats in a row of a feature: its `dim`, and with `state` the state of the row optimizer too. */
  width(feature: string, { state = false }: RowOptions = {}): number {
    const index = this.indexOf(feature)
    return state ? calling(() => this.trainer.rowWidth(index)) : this.config.features.columns[feature]!.dim
  }

  /**
   * Rows of a feature, which are those of its whole group of equal dim. Reading inserts nothing and does not count as a
   * use. `ids` must not be changed meanwhile.
   */
  async get(feature: string, ids: BigUint64Array, options: RowOptions = {}): Promise<Rows> {
    const width = this.width(feature, options)
    checkIds(feature, ids)
    return settling(() => this.trainer.readRows(this.indexOf(feature), ids, width))
  }

  /**
   * Inserts or replaces rows, whatever `embedding.admit` says; at capacity each evicts another. `rows` is
   * (ids × width): embeddings alone, whose optimizer state starts anew, or whole rows as `get` with `state` gives
   * them. Written to a half-precision table they are rounded to nearest. Neither array must be changed meanwhile.
   *
   * Training goes on: in a deterministic run write before `fit` or while it rests (`onEval`, `onCheckpoint`).
   * PERSIA_USAGE, with nothing written: an unknown feature, a wrong length, or a value that is not finite.
   */
  async set(feature: string, ids: BigUint64Array, rows: Float32Array): Promise<void> {
    const index = this.indexOf(feature)
    checkIds(feature, ids)
    if (!(rows instanceof Float32Array)) throw usage(`rows of ${feature} must be a Float32Array`, feature)
    checkOwned(feature, rows)
    const [narrow, wide] = [this.width(feature), this.width(feature, { state: true })]
    const width = rows.length === ids.length * wide ? wide : narrow
    if (rows.length !== ids.length * width) {
      const whole = wide === narrow ? '' : `, or × ${wide} with the state of their optimizer`
      const expected = `${ids.length} ids × ${narrow}${whole}`
      throw usage(`rows of ${feature} have ${rows.length} values, expected ${expected}`, feature)
    }
    return settling(() => this.trainer.writeRows(index, ids, width, rows))
  }

  private indexOf(feature: string): number {
    const index = this.features.indexOf(feature)
    if (this.config.features.columns[feature]?.hashStack) {
      throw usage(`${feature} has a hashStack: its ids share rows, so none has a row of its own`, feature)
    }
    if (index >= 0) return index
    throw usage(`there is no feature ${feature}; the model has ${this.features.join(', ')}`, feature)
  }
}

function checkIds(feature: string, ids: BigUint64Array): void {
  if (!(ids instanceof BigUint64Array)) throw usage(`ids of ${feature} must be a BigUint64Array`, feature)
  checkOwned(feature, ids)
}

/** C++ reads the memory on another thread: JavaScript's other threads must not be able to change it meanwhile. */
function checkOwned(feature: string, array: BigUint64Array | Float32Array): void {
  if (array.buffer instanceof ArrayBuffer) return
  throw usage(`an array of ${feature} lies in a SharedArrayBuffer; copy it first`, feature)
}

const usage = (message: string, feature: string) => new PersiaError('PERSIA_USAGE', message, { feature })
