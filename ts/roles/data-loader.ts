// The data loader: reads the data and drives the training of the whole cluster, as `persia train` does in one process.
// Epochs, evaluation, early stopping and checkpoints are those of ts/train/run.ts; only the trainer is another one.
import type { LoadedConfig } from '../config/index.js'
import { native } from '../native.js'
import type { NativePeers, NativeTrainer } from '../native-types.js'
import { runTraining } from '../train/run.js'
import type { RunEvent, RunOptions } from '../train/run-events.js'
import { peersOf, type Session, type Work } from './session.js'
import { within } from './within.js'

/** `onEvent` gets every event of the run, beside the coordinator. */
export function dataLoading(onEvent: (event: RunEvent) => void): Work {
  return async (session) => {
    const { membership, stopped } = session
    membership.listening('')
    const members = await Promise.race([membership.roster, stopped])
    if (!members) return 'interrupted'
    membership.ready()
    const begins = await Promise.race([membership.begun.then(() => true), stopped])
    return begins ? new ClusterRun(session, peersOf(members), onEvent).run() : 'interrupted'
  }
}

class ClusterRun {
  private readonly stop = new AbortController()
  private trainer: NativeTrainer | undefined
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
        this.trainer = await native().createClusterTrainer(natively, { net, wire, rank, peers: this.peers })
        return this.trainer
      },
    }
    let outcome: 'done' | 'interrupted' = 'done'
    for await (const event of runTraining(loaded, options)) {
      membership.report(event)
      this.onEvent(event)
      if (event.event === 'interrupted') outcome = 'interrupted'
    }
    return outcome
  }

  private takeCheckpointWish(): boolean {
    const wanted = this.checkpointWanted
    this.checkpointWanted = false
    return wanted
  }
}
