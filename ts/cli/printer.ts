// How the events of a run reach people and programs: JSON lines with --json, a progress bar on a terminal, plain lines
// elsewhere. Standard output carries results, standard error logs.
import type { RunEvent } from '../train/run-events.js'
import { eventText } from './event-text.js'
import { pipelineText } from './pipeline-text.js'
import { ProgressBar } from './progress-bar.js'
import { tableText } from './table-text.js'

export interface Printer {
  print(event: RunEvent): void
  /** A line on standard error. */
  log(line: string): void
  /** Leaves the terminal clean; may be called again. */
  close(): void
}

export function makePrinter(json: boolean): Printer {
  if (json) return { print: printJson, log, close() {} }
  return process.stdout.isTTY ? new ProgressBar(linePrinter) : linePrinter
}

const linePrinter: Printer = { print: printLine, log, close() {} }

/** For a process whose events are shown by another one. */
export const silentPrinter: Printer = { print() {}, log, close() {} }

function log(line: string): void {
  process.stderr.write(`${line}\n`)
}

const forPeople = new Set<RunEvent['event']>(['start', 'warning'])

function printJson(event: RunEvent): void {
  if (forPeople.has(event.event)) process.stderr.write(`${eventText(event)}\n`)
  else process.stdout.write(`${JSON.stringify(event)}\n`)
}

function printLine(event: RunEvent): void {
  (event.event === 'warning' ? process.stderr : process.stdout).write(`${eventText(event)}\n`)
  if (event.event !== 'done') return
  process.stderr.write(`${tableText(event.table)}\n`)
  if (event.pipeline.length === 0) return  // nothing was left to train
  process.stderr.write(`${pipelineText(event)}\n`)
}
