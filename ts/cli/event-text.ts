// The events of a run as lines for people.
import type { RunEvent } from '../train/run-events.js'

export function eventText(event: RunEvent): string {
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

export const fixed = (value: number | null) => (value === null ? 'n/a' : value.toFixed(4))

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
  const end = stopped === undefined ? '' : `; ended by ${stopped === 'callback' ? 'a callback' : stopped}`
  const ending = skipped + end
  if (!best) return ending
  const { label = '', metric, value, step, checkpoint } = best
  return `${ending}\nbest: ${`${label} ${metric}`.trim()} ${fixed(value)} at step ${step}, checkpoint ${checkpoint}`
}
