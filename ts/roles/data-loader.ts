// Data loaders. Number 0 drives the training of the whole cluster, as `persia train` does in one process: epochs,
// evaluation, early stopping and checkpoints are those of ts/train/run.ts; only the trainer is another one. The others
// read for it (reading.ts).
import type { LoadedConfig } from '../config/index.js'
import { native } from '../native.js'
import type { NativeLoaders, NativePeers, NativeTrainer } from '../native-types.js'
import { openDataset, type FileDataset } from '../train/datasets.js'
import { runTraining } from '../train/run.js'
import type { RunEvent, RunOptions } from '../train/run-events.js'
import { reading } from './reading.js'
import { peersOf, type Session, type Work } from './session.js'
import { SharedPass } from './shared-pass.js'
import { within } from './within.js'

/** `onEvent` gets every event of the run that this one drives, beside the coordinator. */
export function dataLoading(onEvent: (event: RunEvent) => void): Work {
  return (session) => (session.rank.rank === 0 ? drive(session, onEvent) : reading(session))
}

async function drive(session: Session, onEvent: (event: RunEvent) => void): Promise<'done' | 'interrupted'> {
  const { membership, stopped } = session
  membership.listening('')
  const members = await Promise.race([membership.roster, stopped])
  if (!members) return 'interrupted'
  membership.ready()
  const begins = await Promise.race([membership.begun.then(() => true), stopped])
  return begins ? new ClusterRun(session, peersOf(members), onEvent).run() : 'interrupted'
}

class ClusterRun {
  private readonly stop = new AbortController()
  private trainer: NativeTrainer | undefined
  private loaders: NativeLoaders | undefined
  private passes = 0
  private checkpointWanted = false

  constructor(private readonly session: Session, private readonly peers: NativePeers,
    private readonly onEvent: (event: RunEvent) => void) {}

  async run(): Promise<'done' | 'interrupted'> {
    const { session } = this
    session.onCommand = ({ what }) => {
      if (what === 'drain') this.stop.abort()
      else this.checkpointWanted = true
    }
    // A cluster that failed answers nothing any more: what waits for it must end.
    const failed = session.stopped.catch(async (error: unknown) => { await this.trainer?.close(); throw error })
    const run = this.events()
    run.catch(() => {})  // ends with the trainer; what ended the cluster says more
    try {
      return await Promise.race([run, failed.then(() => 'interrupted' as const)])
    } finally {
      // The run gives its folder free before this process ends.
      await within(session.config.cluster.drainTimeoutSeconds / 2, run)
    }
  }

  private async events(): Promise<'done' | 'interrupted'> {
    const { config, welcome: { baseDir, resume, reportEverySeconds }, membership } = this.session
    const loaded: LoadedConfig = { config, baseDir, file: '', sources: new Map() }
    const options: RunOptions = {
      signal: this.stop.signal, reportEverySeconds, ...(resume && { resume }),
      callbacks: { onCheckpoint: ({ step, checkpoint }) => membership.saved(step, checkpoint) },
      checkpointWhen: () => this.takeCheckpointWish(),
      createNative: async (natively) => {
        const { net, wire, rank } = this.session
        const driver = await native().createClusterTrainer(natively, { net, wire, rank, peers: this.peers })
        this.loaders = driver.loaders
        this.trainer = driver.trainer
        return this.trainer
      },
      openTrain: (...pass) => this.openTrain(...pass),
    }
    let outcome: 'done' | 'interrupted' = 'done'
    for await (const event of runTraining(loaded, options)) {
      membership.report(event)
      this.onEvent(event)
      if (event.event === 'interrupted') outcome = 'interrupted'
    }
    return outcome
  }

  private openTrain(...[loaded, split, statistics = {}, options = {}]: Parameters<typeof openDataset>): FileDataset {
    const count = this.session.rank.size
    if (count === 1) return openDataset(loaded, split, statistics, options)
    const { epoch = 0, skipBatches = 0 } = options
    return new SharedPass({
      loaders: this.loaders!, count, pass: ++this.passes, text: { epoch, skipBatches, statistics },
      own: openDataset(loaded, split, statistics, { ...options, loader: { index: 0, count } }),
    })
  }

  private takeCheckpointWish(): boolean {
    const wanted = this.checkpointWanted
    this.checkpointWanted = false
    return wanted
  }
}
