// How the events of a run reach people and programs: JSON lines with --json, a progress bar on a terminal, plain lines
// elsewhere. Standard output carries results, standard error logs.
import { SingleBar } from 'cli-progress'
import type { RunEvent } from '../train/run-events.js'
import { pipelineText } from './pipeline-text.js'
import { tableText } from './table-text.js'

export interface Printer {
  print(event: RunEvent): void
  /** Leaves the terminal clean; may be called again. */
  close(): void
}

export function makePrinter(json: boolean): Printer {
  if (json) return { print: printJson, close() {} }
  return process.stdout.isTTY ? new ProgressBar() : { print: printLine, close() {} }
}

const forPeople = new Set<RunEvent['event']>(['start', 'warning'])

function printJson(event: RunEvent): void {
  if (forPeople.has(event.event)) process.stderr.write(`${describe(event)}\n`)
  else process.stdout.write(`${JSON.stringify(event)}\n`)
}

function printLine(event: RunEvent): void {
  (event.event === 'warning' ? process.stderr : process.stdout).write(`${describe(event)}\n`)
  if (event.event === 'done') process.stderr.write(`${tableText(event.table)}\n${pipelineText(event)}\n`)
}

function describe(event: RunEvent): string {
  switch (event.event) {
    case 'start':
      return `${event.name}: ${event.resumedFrom === null ? 'a new run' : `goes on from ${event.resumedFrom}`}`
    case 'progress':
      return `step ${event.step}  samples ${event.samples}  loss ${fixed(event.loss)}  `
        + `${event.samplesPerSecond} samples/s`
        + `  staleness ${event.staleness}`
    case 'eval':
      return `${event.split}: ${event.samples} samples  ${metricsText(event)}  (step ${event.step})`
    case 'skipped':
      return `${event.split}: ${event.rows} bad rows skipped, first: ${event.first.join('; ')}`
    case 'warning':
      return `warning: ${event.message}`
    case 'interrupted':
      return `interrupted; checkpoint ${event.checkpoint} is complete, --resume goes on from it`
    case 'done':
      return `done: ${event.steps} steps in ${event.seconds} s, ${event.samplesPerSecond} samples/s, `
        + `checkpoint ${event.checkpoint}${endText(event)}`
  }
}

const fixed = (value: number | null) => (value === null ? 'n/a' : value.toFixed(4))

function metricsText(event: Extract<RunEvent, { event: 'eval' }>): string {
  const { auc, logloss, calibration, gauc = {}, mse = {}, metrics = {}, aucErrorBound = {} } = event
  const bound = (label: string) => (label in aucErrorBound ? ` ± ${aucErrorBound[label]!.toExponential(0)}` : '')
  const own = Object.entries(metrics).map(([name, value]) => `${name} ${fixed(value)}`)
  const byMetric = { AUC: auc, logloss, calibration, GAUC: gauc, MSE: mse }
  return [...Object.entries(byMetric).flatMap(([name, byLabel]) => Object.entries(byLabel).map(([label, value]) =>
    `${label} ${name} ${fixed(value)}${name === 'AUC' ? bound(label) : ''}`)), ...own].join('  ')
}

function endText({ stopped, best, skippedSteps }: Extract<RunEvent, { event: 'done' }>): string {
  const skipped = skippedSteps === 0 ? '' : `; ${skippedSteps} steps skipped`
  const ending = `${skipped}${stopped === undefined ? '' : `; ended by ${stopped === 'callback' ? 'a callback' : stopped}`}`
  if (!best) return ending
  const { label = '', metric, value, step, checkpoint } = best
  return `${ending}\nbest: ${`${label} ${metric}`.trim()} ${fixed(value)} at step ${step}, checkpoint ${checkpoint}`
}

class ProgressBar implements Printer {
  private readonly bar = new SingleBar({
    format: '{bar} {percentage}%  step {step}  {rate} samples/s  '
      + 'loss {loss}  AUC {auc}  staleness {staleness}  ETA {remaining}',
    barsize: 24, hideCursor: true, stream: process.stdout,
  })
  private total: number | null = null
  private auc = 'n/a'
  private active = false

  print(event: RunEvent): void {
    if (event.event === 'start') this.total = event.totalSamples
    if (event.event === 'progress' && this.total !== null) return this.update(event, this.total)
    this.close()
    if (event.event === 'eval') this.auc = Object.values(event.auc).map(fixed).join(' ') || 'n/a'
    printLine(event)
  }

  close(): void {
    if (this.active) this.bar.stop()
    this.active = false
  }

  private update(event: Extract<RunEvent, { event: 'progress' }>, total: number): void {
    const seconds = Math.max(0, total - event.samples) / Math.max(1, event.samplesPerSecond)
    const shown = {
      step: event.step, rate: event.samplesPerSecond, loss: fixed(event.loss), auc: this.auc,
      staleness: event.staleness,
      remaining: durationText(seconds),
    }
    if (!this.active) this.bar.start(total, event.samples, shown)
    else this.bar.update(Math.min(event.samples, total), shown)
    this.active = true
  }
}

function durationText(seconds: number): string {
  const whole = Math.round(seconds)
  return whole < 60 ? `${whole}s` : `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, '0')}s`
}
