// A data loader that does not drive: reads its share of each pass that the driver opens, and hands the batches to the
// native role, which sends them to where they are trained when the driver says so (cpp/trainer/loader_queue.h).
import type { LoadedConfig } from '../config/index.js'
import { batchNumbers } from '../data/indexed.js'
import type { Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import { calling, native, settling } from '../native.js'
import type { NativeLoaderQueue } from '../native-types.js'
import { openDataset } from '../train/datasets.js'
import { layoutOf } from '../train/native-config.js'
import { serve } from './serving.js'
import type { Session, Work } from './session.js'

/** What the driver tells the others of a pass over the training data. */
export interface PassText {
  epoch: number
  /** Batches of all loaders that were trained before. */
  skipBatches: number
  /** Of the training data, for columns with `standardize`. */
  statistics: Statistics
}

export const reading: Work = (session) => {
  const queue = new (native().LoaderQueue)()
  const failed = readPasses(queue, session)
  failed.catch(() => {})  // whoever serves sees it
  return serve(session, (config, options) => native().createDataLoader(config, options, queue), failed)
}

/** One pass after the other, until it fails: with PERSIA_CLOSED when the role is closed. */
async function readPasses(queue: NativeLoaderQueue, session: Session): Promise<never> {
  for (let last = 0; ;) {
    const opened = last
    const { number, text } = await settling(() => queue.nextPass(opened))
    last = number
    try {
      await readPass(queue, number, JSON.parse(text) as PassText, session)
    } catch (error) {
      const isOver = error instanceof PersiaError && error.code === 'PERSIA_ABORTED'
      if (!isOver) throw error
    }
  }
}

/** PERSIA_ABORTED: another one was opened. */
async function readPass(queue: NativeLoaderQueue, pass: number, { epoch, skipBatches, statistics }: PassText,
  { config, welcome: { baseDir }, rank }: Session): Promise<void> {
  const loaded: LoadedConfig = { config, baseDir, file: '', sources: new Map() }
  const loader = { index: rank.rank, count: rank.size }
  const layout = layoutOf(config)
  const numbers = batchNumbers(Infinity, skipBatches, loader)
  const dataset = openDataset(loaded, 'train', statistics, { epoch, skipBatches, loader, reuseMemory: true })
  try {
    for await (const batch of dataset) {
      const handle = batch.handle(layout, 'labelled')
      const number = numbers.next().value as number
      await settling(() => queue.deliver(pass, number, handle))
    }
  } finally {
    await dataset.close()
  }
  calling(() => queue.finish(pass))
}
