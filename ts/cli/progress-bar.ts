// The progress of a run on a terminal: a bar that stays below the lines about everything else.
import { SingleBar } from 'cli-progress'
import type { RunEvent } from '../train/run-events.js'
import { fixed } from './event-text.js'
import type { Printer } from './printer.js'

export class ProgressBar implements Printer {
  private readonly bar = new SingleBar({
    format: '{bar} {percentage}%  step {step}  {rate} samples/s  '
      + 'loss {loss}  AUC {auc}  staleness {staleness}  ETA {remaining}',
    barsize: 24, hideCursor: true, stream: process.stdout,
  })
  private total: number | null = null
  private auc = 'n/a'
  private active = false

  /** `lines` prints what is no progress. */
  constructor(private readonly lines: Printer) {}

  print(event: RunEvent): void {
    if (event.event === 'start') this.total = event.totalSamples
    if (event.event === 'progress' && this.total !== null) return this.update(event, this.total)
    this.close()
    if (event.event === 'eval') this.auc = Object.values(event.auc).map(fixed).join(' ') || 'n/a'
    this.lines.print(event)
  }

  /** The line takes the place of the bar, which is drawn anew below it with the next progress. */
  log(line: string): void {
    if (this.active && process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    this.lines.log(line)
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
