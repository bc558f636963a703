// Where a run starts: anew, or at the position of a checkpoint.
import { parseConfig, type Config, type LoadedConfig } from '../config/index.js'
import { PersiaError } from '../errors.js'
import { newestCheckpoint, readingCheckpoint, type Manifest, type Position } from './checkpoint.js'
import { readStatistics } from './datasets.js'
import type { EarlyStoppingState } from './early-stopping.js'
import { samplesPerStep } from './native-config.js'
import type { RunOptions } from './run-events.js'
import { Trainer } from './trainer.js'

export interface Start {
  position: Position
  resumedFrom: string | null
  earlyStopping: EarlyStoppingState | undefined
}

/** The model of the checkpoint that the run goes on from, or a new one. */
export async function openTrainer(loaded: LoadedConfig, { resume, datasets, onTrace }: RunOptions):
Promise<Start & { trainer: Trainer; rows: number | null }> {
  const { config } = loaded
  const trace = onTrace !== undefined
  const from = await checkpointToResume(config.checkpoint.dir, resume ?? config.checkpoint.resume)
  if (from !== null) {
    if (!datasets) await readingCheckpoint(from, config, async (manifest) => checkPosition(from, manifest, config))
    const { trainer, manifest: { position, earlyStopping } } = await Trainer.load(from, config, { trace })
    return { trainer, position, earlyStopping, resumedFrom: from, rows: null }
  }
  const { statistics, rows } = datasets ? { statistics: {}, rows: null } : await readStatistics(loaded)
  const trainer = await Trainer.create(config, statistics, { trace })
  return { trainer, position: { epoch: 0, epochStep: 0 }, earlyStopping: undefined, resumedFrom: null, rows }
}

/** The checkpoint to go on from, or null to start anew. */
async function checkpointToResume(run: string, resume: string): Promise<string | null> {
  if (resume === 'never') return null
  if (resume !== 'auto' && resume !== 'always') return resume
  const newest = await newestCheckpoint(run)
  if (newest === undefined) {
    if (resume === 'auto') return null
    throw new PersiaError('PERSIA_CHECKPOINT_NOT_FOUND',
      `there is no checkpoint to resume in ${run}`, { directory: run })
  }
  if (resume === 'always') return newest
  const finished = await readingCheckpoint(newest, undefined, async (manifest) => manifest.finished)
  return finished ? null : newest
}

/**
 * A position in the middle of an epoch counts steps: in files it means other rows when these have changed in size.
 * Batches of a user's own are steps of whatever size they have.
 */
function checkPosition(directory: string, { position, config }: Manifest, now: Config): void {
  const before = samplesPerStep(parseConfig(config)), samples = samplesPerStep(now)
  if (position.epochStep === 0 || before === samples) return
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH',
    `${directory} stands in the middle of an epoch, ${position.epochStep} steps of ${before} samples in: `
    + `until its end a step cannot have ${samples} (batchSize × accumulate × cluster.nnWorkers)`,
    { directory, before, samples })
}
