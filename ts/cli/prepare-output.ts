// What `persia data prepare` and `synth` have in common: they show shards in the making, and complete ones.
import { resolve } from 'node:path'
import { SingleBar } from 'cli-progress'
import { byteText } from '../config/byte-size.js'
import type { PrepareProgress } from '../data/prepare.js'
import type { PrepareResult } from '../train/prepare.js'
import { cardText } from './card-text.js'

export function reportPrepared({ out, card, resumedParts }: PrepareResult, json: boolean, seconds: number): void {
  const rows = { train: card.train.rows, test: card.test?.rows ?? 0 }
  const { badRows, firstBad } = card
  if (json) {
    const done = { event: 'done', out: resolve(out), rows, badRows, firstBad, resumedParts, seconds }
    process.stdout.write(`${JSON.stringify({ event: 'card', ...card })}\n${JSON.stringify(done)}\n`)
    return
  }
  if (badRows > 0) process.stderr.write(`${badRows} bad rows skipped, first: ${firstBad.join('; ')}\n`)
  const note = resumedParts === 'all' ? '; it was complete already'
    : resumedParts > 0 ? `; ${resumedParts} parts were there already` : ''
  process.stdout.write(`${cardText(card)}\ndone: ${rows.train} training and ${rows.test} test rows in ${out}${note}\n`)
}

/** A bar on a terminal, a JSON line a second with --json, nothing elsewhere. */
export class PrepareMeter {
  private readonly started = performance.now()
  private readonly bar = process.stdout.isTTY
    ? new SingleBar({
      format: '{bar} {percentage}%  {rows} rows  {rate} rows/s  {read} read', barsize: 24, hideCursor: true,
      stream: process.stdout,
    })
    : undefined
  private last = 0
  private active = false

  constructor(private readonly json: boolean) {}

  get seconds(): number {
    return Math.round(performance.now() - this.started) / 1000
  }

  show(progress: PrepareProgress): void {
    const rowsPerSecond = Math.round(progress.rows / Math.max(this.seconds, 1e-3))
    if (this.json) {
      if (this.seconds - this.last < 1) return
      this.last = this.seconds
      process.stdout.write(`${JSON.stringify({ event: 'progress', ...progress, rowsPerSecond })}\n`)
    } else if (this.bar && progress.totalBytes !== null) {
      const shown = { rows: progress.rows, rate: rowsPerSecond, read: byteText(progress.bytes) }
      if (this.active) this.bar.update(progress.bytes, shown)
      else this.bar.start(progress.totalBytes, progress.bytes, shown)
      this.active = true
    }
  }

  end(): void {
    if (this.active) this.bar?.stop()
    this.active = false
  }
}
