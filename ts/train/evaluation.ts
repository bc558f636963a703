// Evaluation: the native metrics of a model over labelled batches, and metrics of the user's own over the same outputs.
import type { Config } from '../config/index.js'
import type { Batch } from '../data/batch.js'
import { PersiaError } from '../errors.js'
import { settling } from '../native.js'
import type { NativeEvaluator, NativeTaskMetrics } from '../native-types.js'
import type { EvalReport } from './reports.js'

/**
 * A metric of your own that is a mean over samples: its value for the samples of one batch. `outputs` and `labels` are
 * (rows × tasks) row-major, in the order of `data.labels`; outputs are probabilities for bce, values for mse.
 */
export type MetricFunction = (outputs: Float32Array, labels: Float32Array, batch: Batch) => number

/** A metric of your own that is no such mean: each evaluation starts one, which gets every batch. */
export interface StreamingMetric {
  start(): { add(outputs: Float32Array, labels: Float32Array, batch: Batch): void; result(): number }
}

/** Metrics of your own, by name; they come as `metrics` of the report. */
export type Metrics = Record<string, MetricFunction | StreamingMetric>

type Running = ReturnType<StreamingMetric['start']>

/** The metrics of one evaluation, in step with its batches. */
export class OwnMetrics {
  private readonly running: [string, Running][]

  constructor(metrics: Metrics) {
    this.running = Object.entries(metrics).map(([name, metric]) =>
      [name, typeof metric === 'function' ? new Mean(metric) : calling(name, () => metric.start())])
  }

  add(outputs: Float32Array, labels: Float32Array, batch: Batch): void {
    for (const [name, metric] of this.running) calling(name, () => metric.add(outputs, labels, batch))
  }

  results(): Record<string, number | null> {
    return Object.fromEntries(this.running.map(([name, metric]) => {
      const value: unknown = calling(name, () => metric.result())
      if (typeof value === 'number') return [name, numberOrNull(value)]
      throw failed(name, new TypeError(`expected a number, got ${String(value)}`))
    }))
  }
}

/** The mean of a function's values, each batch weighted by its samples. */
class Mean implements Running {
  private sum = 0
  private samples = 0

  constructor(private readonly metric: MetricFunction) {}

  add(outputs: Float32Array, labels: Float32Array, batch: Batch): void {
    const value: unknown = this.metric(outputs, labels, batch)
    if (typeof value !== 'number') throw new TypeError(`expected a number, got ${String(value)}`)
    this.sum += value * batch.rows
    this.samples += batch.rows
  }

  result(): number {
    return this.sum / this.samples
  }
}

function calling<T>(name: string, call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw failed(name, error)
  }
}

const failed = (metric: string, cause: unknown) => new PersiaError('PERSIA_CALLBACK_FAILED',
  `metric ${metric} failed: ${cause instanceof Error ? cause.message : String(cause)}`, { metric }, { cause })

export async function evalReport(evaluator: NativeEvaluator, head: Pick<EvalReport, 'split' | 'step' | 'samples'>,
  { evaluate: { groupBy } }: Config): Promise<EvalReport> {
  const report: EvalReport = { ...head, auc: {}, logloss: {}, calibration: {} }
  for (const { label, ...task } of await settling(() => evaluator.results())) addTask(report, label, task, groupBy)
  return report
}

function addTask(report: EvalReport, label: string, task: Omit<NativeTaskMetrics, 'label'>, groupBy?: string): void {
  const { auc, aucErrorBound = 0, logloss, calibration, grouped, mse } = task
  if (auc !== undefined) report.auc[label] = numberOrNull(auc)
  if (logloss !== undefined) report.logloss[label] = numberOrNull(logloss)
  if (calibration !== undefined) report.calibration[label] = numberOrNull(calibration)
  if (aucErrorBound > 0) report.aucErrorBound = { ...report.aucErrorBound, [label]: aucErrorBound }
  if (mse !== undefined) report.mse = { ...report.mse, [label]: numberOrNull(mse) }
  if (!grouped || groupBy === undefined) return
  const { value, ...counts } = grouped
  report.gauc = { ...report.gauc, [label]: numberOrNull(value) }
  report.groups = { ...report.groups, [label]: { column: groupBy, ...counts } }
}

const numberOrNull = (value: number) => (Number.isNaN(value) ? null : value)
