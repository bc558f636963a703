// A pass over the training data that several data loaders share, as the driver goes through it: batches in the order of
// their numbers, its own ones and between them those of the others, of which it sees the number of rows alone.
import { Batch } from '../data/batch.js'
import { ahead, batchNumbers } from '../data/indexed.js'
import { PersiaError } from '../errors.js'
import { settling } from '../native.js'
import type { NativeBatch, NativeLoaders } from '../native-types.js'
import type { FileDataset, SkippedRows } from '../train/datasets.js'
import type { PassText } from './reading.js'

export interface SharedPassOptions {
  loaders: NativeLoaders
  /** Of all loaders, this one included. */
  count: number
  /** Each pass has a number of its own; they rise. */
  pass: number
  text: PassText
  /** The driver's share. */
  own: FileDataset
}

/** Batches of each other loader that are asked for before it is their turn. */
const askedAhead = 4

export class SharedPass implements FileDataset {
  constructor(private readonly options: SharedPassOptions) {}

  /** Of the rows that the driver reads: of sources whose rows can be bad these are all. */
  get skipped(): SkippedRows {
    return this.options.own.skipped
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, undefined> {
    const { loaders, pass, text, count } = this.options
    await settling(() => loaders.open(pass, JSON.stringify(text)))
    const own = this.options.own[Symbol.asyncIterator]()
    const others = ahead(this.askOthers(), askedAhead * (count - 1))
    const next = async (number: number) => (number % count === 0 ? nextOf(own) : otherOf(await others.next()))
    try {
      let number = text.skipBatches
      for (let batch = await next(number); batch; batch = await next(++number)) yield batch
      await this.checkEnd(number, next)
    } finally {
      await own.return?.()
      await others.return()
    }
  }

  close(): Promise<void> {
    return this.options.own.close()
  }

  /** The others' batches, in the order of their numbers. */
  private *askOthers(): Generator<Promise<NativeBatch | null>> {
    const { loaders, pass, text: { skipBatches }, count } = this.options
    for (const number of batchNumbers(Infinity, skipBatches, { index: 0, count: 1 })) {
      if (number % count !== 0) yield settling(() => loaders.ask(pass, number))
    }
  }

  /** Nobody has a batch behind the first one that is not there: else they have read different data. */
  private async checkEnd(end: number, next: (number: number) => Promise<Batch | undefined>): Promise<void> {
    const { count } = this.options
    for (let number = end + 1; number < end + count; ++number) {
      if (!await next(number)) continue
      throw new PersiaError('PERSIA_DATA_UNREADABLE',
        `the training data ends before batch ${end} at data-loader ${end % count}, but data-loader ${number % count} `
        + `has batch ${number}: all data loaders have to read the same data`, { split: 'train' })
    }
  }
}

async function nextOf(batches: AsyncIterator<Batch>): Promise<Batch | undefined> {
  const { done, value } = await batches.next()
  return done ? undefined : value as Batch
}

const otherOf = ({ value }: IteratorResult<NativeBatch | null, void>) => (value ? Batch.fromNative(value) : undefined)
