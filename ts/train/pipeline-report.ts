// What the pipeline did during training, from the counters of its stages: where time went, and how stale things were.
import type { NativeDelays, NativePipeline, NativeStage } from '../native-types.js'

export interface StageReport {
  stage: NativeStage['stage']
  worker: number
  steps: number
  /** While it is busy. */
  secondsPerStep: number
  /** Shares of the training time; they add up to 1. `held`: it waits for the staleness gate or for room. */
  busy: number
  held: number
  idle: number
  /** Steps that waited when the stage took one. */
  queue: { mean: number; most: number }
}

export interface StalenessReport {
  /** Earlier batches of the NN worker that a lookup did not see, over all lookups since the start of this process. */
  mean: number
  most: number
  /** Lookups by that number, from 0 to the bound. */
  histogram: number[]
  /** Of a sample of rows: updates by other batches between lookup and update. The histogram's end is "or more". */
  rows: { samples: number; mean: number; most: number; histogram: number[] }
  /** Mode async: updates by other NN workers between a worker's pull of the dense weights and its push. */
  dense?: { mean: number; most: number }
}

/** Adds up what happens between `start` and `stop`, which come in turns. */
export class PipelineMeter {
  private before: NativeStage[] = []
  private total: NativeStage[] = []

  constructor(private readonly read: () => NativePipeline) {}

  start(): void {
    this.before = this.read().stages
  }

  stop(): void {
    // Stages of other processes are known once these have told of them.
    this.total = this.read().stages.map((now) => {
      const [before, total] = [this.before, this.total].map((stages) => stages.find((one) => isSame(one, now)))
      const since = (key: 'idle' | 'held' | 'busy' | 'steps' | 'queued') =>
        (total?.[key] ?? 0) + now[key] - (before?.[key] ?? 0)
      return {
        ...now, idle: since('idle'), held: since('held'), busy: since('busy'), steps: since('steps'),
        queued: since('queued'),
      }
    })
  }

  report(): { staleness: StalenessReport; pipeline: StageReport[] } {
    return { staleness: stalenessReport(this.read()), pipeline: this.total.map(stageReport) }
  }
}

const isSame = (a: NativeStage, b: NativeStage) => a.stage === b.stage && a.worker === b.worker

function stageReport({ stage, worker, steps, idle, held, busy, queued, mostQueued }: NativeStage): StageReport {
  const seconds = idle + held + busy
  return {
    stage, worker, steps,
    secondsPerStep: rounded(ratio(busy, steps), 6),
    busy: rounded(ratio(busy, seconds), 4),
    held: rounded(ratio(held, seconds), 4),
    idle: rounded(ratio(idle, seconds), 4),
    queue: { mean: rounded(ratio(queued, steps), 3), most: mostQueued },
  }
}

function stalenessReport({ lookups, rows, rowHistogram, dense }: NativePipeline): StalenessReport {
  const count = lookups.reduce((sum, value) => sum + value, 0)
  const sum = lookups.reduce((total, value, behind) => total + value * behind, 0)
  return {
    mean: rounded(ratio(sum, count), 3),
    most: Math.max(0, used(lookups) - 1),
    histogram: lookups,
    rows: {
      samples: rows.count, mean: meanOf(rows), most: rows.most, histogram: rowHistogram.slice(0, used(rowHistogram)),
    },
    ...(dense.count > 0 && { dense: { mean: meanOf(dense), most: dense.most } }),
  }
}

const meanOf = ({ sum, count }: NativeDelays) => rounded(ratio(sum, count), 4)
const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole)
const rounded = (value: number, digits: number) => Number(value.toFixed(digits))

/** The length of a histogram without the zeros at its end. */
function used(histogram: number[]): number {
  return histogram.reduce((length, count, i) => (count > 0 ? i + 1 : length), 0)
}
