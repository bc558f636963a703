// What a trainer exports to Prometheus: the names and meanings of all metrics exist here, once. Their values are totals
// that the trainer keeps anyway; they are read when somebody asks.
import { Counter, Gauge, Registry } from 'prom-client'
import type { NativePipeline, NativeProgress, NativeStage } from '../native-types.js'
import type { EvalReport } from '../train/reports.js'
import type { TableReport } from '../train/table-counters.js'
import { CountedHistogram } from './counted-histogram.js'

/** What metrics are read from. */
export interface Observed {
  progress(): NativeProgress
  pipeline(): NativePipeline
  table(): TableReport
}

/** The largest effective staleness that the native side tells apart from more. */
const mostRowStaleness = 63

export class TrainerMetrics {
  private readonly registry = new Registry()
  private readonly steps = this.counter('steps_total', 'Steps applied, those before a resume included')
  private readonly samples = this.counter('samples_total', 'Samples trained, those before a resume included')
  private readonly skipped = this.counter('skipped_steps_total', 'Steps skipped: their gradients were not finite')
  private readonly lossSum = this.counter('step_loss_total', 'Sum of the losses of steps, see persia_step_losses_total')
  private readonly lossSteps = this.counter('step_losses_total', 'Number of losses in persia_step_loss_total')
  private readonly lossScale = this.gauge('loss_scale', 'What the loss is multiplied by in backward')
  private readonly staleness = this.gauge('staleness',
    'Earlier batches of an NN worker that its newest lookup did not see, looked up and not yet applied; of several '
    + 'workers the most')
  private readonly stalenessBound = this.gauge('staleness_bound', 'What persia_staleness never exceeds')
  private readonly lookupStaleness: CountedHistogram
  private readonly rowStaleness = this.histogram('row_staleness', boundsTo(mostRowStaleness),
    "Effective staleness of sampled rows: updates by other batches between a batch's lookup and its own update")
  private readonly stageSeconds = this.counter('stage_seconds_total',
    'What the stages of the pipeline did: busy, held (waiting for the staleness gate or for room), idle',
    ['stage', 'worker', 'state'])
  private readonly stageSteps = this.counter('stage_steps_total', 'Steps that a stage took', ['stage', 'worker'])
  private readonly stageQueued = this.counter('stage_queued_steps_total',
    'Steps that waited when the stage took one, summed over its steps: divided by these, the mean depth of its queue',
    ['stage', 'worker'])
  private readonly rows = this.gauge('table_rows', 'Embedding rows held', ['features'])
  private readonly bytes = this.gauge('table_bytes', 'Memory of the embedding rows and their index', ['features'])
  private readonly tableEvents = this.counter('table_events_total',
    'What happened to embedding rows: hits and misses of lookups, inserts, evictions, refused, updates that missed '
    + 'their row, gradients that were not finite',
    ['features', 'event'])
  private readonly evaluation = this.gauge('evaluation', 'The last evaluation', ['split', 'metric', 'label'])

  constructor(private readonly observed: Observed, private readonly bound: number) {
    this.lookupStaleness = this.histogram('lookup_staleness', boundsTo(bound),
      'Lookups by the number of earlier batches of their NN worker that were not yet applied')
  }

  get contentType(): string {
    return this.registry.contentType
  }

  /** In Prometheus' text format, as it is now. */
  text(): Promise<string> {
    this.readTable(this.observed.table())
    this.readProgress(this.observed.progress())
    this.readPipeline(this.observed.pipeline())
    return this.registry.metrics()
  }

  evaluated({ split, auc, gauc, logloss, calibration, mse, metrics = {} }: EvalReport): void {
    this.evaluation.reset()
    const set = (metric: string, label: string, value: number | null) => {
      if (value !== null) this.evaluation.set({ split, metric, label }, value)
    }
    for (const [metric, byLabel] of Object.entries({ auc, gauc, logloss, calibration, mse })) {
      for (const [label, value] of Object.entries(byLabel ?? {})) set(metric, label, value)
    }
    for (const [metric, value] of Object.entries(metrics)) set(metric, '', value)
  }

  private readProgress({ steps, samples, skipped, lossSum, lossSteps, lossScale, staleness }: NativeProgress): void {
    setTotal(this.steps, {}, steps)
    setTotal(this.samples, {}, samples)
    setTotal(this.skipped, {}, skipped)
    setTotal(this.lossSum, {}, lossSum)
    setTotal(this.lossSteps, {}, lossSteps)
    this.lossScale.set(lossScale)
    this.staleness.set(staleness)
    this.stalenessBound.set(this.bound)
  }

  private readPipeline({ stages, lookups, rows, rowHistogram }: NativePipeline): void {
    const sum = lookups.reduce((total, count, behind) => total + count * behind, 0)
    this.lookupStaleness.setCounts({ counts: lookups, sum })
    this.rowStaleness.setCounts({ counts: rowHistogram, sum: rows.sum })
    for (const counter of [this.stageSeconds, this.stageSteps, this.stageQueued]) counter.reset()
    for (const stage of stages) this.readStage(stage)
  }

  private readStage({ stage, worker, steps, queued, ...seconds }: NativeStage): void {
    for (const state of ['busy', 'held', 'idle'] as const) {
      this.stageSeconds.inc({ stage, worker, state }, seconds[state])
    }
    this.stageSteps.inc({ stage, worker }, steps)
    this.stageQueued.inc({ stage, worker }, queued)
  }

  private readTable({ groups }: TableReport): void {
    this.tableEvents.reset()
    for (const { features: names, rows, bytes, lanes: _lanes, ...events } of groups) {
      const features = names.join(',')
      this.rows.set({ features }, rows)
      this.bytes.set({ features }, bytes)
      for (const [event, count] of Object.entries(events)) this.tableEvents.inc({ features, event }, count)
    }
  }

  private counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ ...this.named(name, help), labelNames })
  }

  private gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ ...this.named(name, help), labelNames })
  }

  private histogram(name: string, buckets: number[], help: string): CountedHistogram {
    return new CountedHistogram(buckets, this.named(name, help))
  }

  private named(name: string, help: string) {
    return { name: `persia_${name}`, help, registers: [this.registry] }
  }
}

/** Buckets from 0 to `most`: every number of the first ones, then powers of two. */
function boundsTo(most: number): number[] {
  const bounds = [0, 1, 2, 3, 4, 5, 6, 7, 8]
  for (let bound = 16; bound <= 1024; bound *= 2) bounds.push(bound)
  return [...bounds.filter((bound) => bound < most), most]
}

function setTotal(counter: Counter, labels: Record<string, string>, total: number): void {
  counter.reset()
  counter.inc(labels, total)
}
