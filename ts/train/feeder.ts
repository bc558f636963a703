// How a pass over a dataset is fed to the native pipeline, and how its counters are read.
import { calling, settling } from '../native.js'
import type { NativeBatch, NativeProgress, NativeTrainer } from '../native-types.js'
import type { ProgressReport } from './reports.js'
import type { FitOptions } from './trainer.js'

/**
 * Hands batches over one by one; waiting for `push` is the back-pressure. Rests at the steps of `options.checkpoint` and stops
 * on `options.signal`. A pipeline in deterministic mode comes to rest only after the batches that it looks ahead to, so while
 * a rest or a stop is under way batches are still handed in.
 */
export class Feeder {
  /** The pipeline rests because of the signal; nothing more is to be pushed. */
  stopped = false
  private step: number
  /** Steps at which the pipeline has still to rest, the one under way included. */
  private restSteps: number[] = []
  private resting: Promise<void> | undefined
  private stopping: Promise<void> | undefined
  private ending: Promise<void> | undefined
  private readonly aborted: Promise<void>

  constructor(private readonly trainer: NativeTrainer, private readonly options: FitOptions) {
    this.step = calling(() => trainer.progress()).steps
    const { signal } = options
    this.aborted = new Promise((resolve) => {
      if (signal?.aborted) resolve()
      signal?.addEventListener('abort', () => resolve(), { once: true })
    })
  }

  async push(batch: NativeBatch): Promise<void> {
    this.scheduleRest(++this.step)
    const pushed = quiet(settling(this.trainer.push(batch)))
    await Promise.race([pushed, this.aborted])
    if (this.options.signal?.aborted) await Promise.race([pushed, this.stop()])
  }

  private scheduleRest(step: number): void {
    const { checkpoint } = this.options
    if (!checkpoint || checkpoint.everySteps === 0 || step % checkpoint.everySteps !== 0 || this.stopping) return
    this.restSteps.push(step)
    this.resting ??= quiet(this.rest(checkpoint.save))
  }

  /** Saves at each scheduled step; between two of them the pipeline goes on by itself. */
  private async rest(save: () => Promise<unknown>): Promise<void> {
    try {
      for (let [step] = this.restSteps; step !== undefined; [step] = this.restSteps) {
        await settling(this.trainer.pause(step))
        await save()
        this.restSteps.shift()
      }
    } finally {
      this.trainer.resume()
    }
    this.resting = undefined
  }

  /** Brings the pipeline to rest for good, after the save under way. */
  private stop(): Promise<void> {
    this.restSteps.splice(1)
    this.stopping ??= quiet((async () => {
      await this.resting
      await settling(this.trainer.pause())
      this.stopped = true
    })())
    return this.stopping
  }

  /** Waits until everything that was handed in is applied, or the pipeline rests because of the signal. */
  end(): Promise<void> {
    this.ending ??= quiet(this.finish())
    return this.ending
  }

  /** As `end`, for at most so many seconds; whether it has ended. */
  async endedWithin(seconds: number): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined
    const waited = new Promise<boolean>((resolve) => { timer = setTimeout(resolve, seconds * 1000, false) })
    try {
      return await Promise.race([this.end().then(() => true), waited])
    } finally {
      clearTimeout(timer)
    }
  }

  private async finish(): Promise<void> {
    if (this.stopped) return
    const drained = quiet(settling(this.trainer.drain()))
    await (this.stopping ?? this.resting)
    if (!this.stopped) await drained
  }
}

/** A promise that is awaited later: its failure is not "unhandled" in between. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

/** Turns the pipeline's totals into reports on what happened since the last one. */
export class Meter {
  private last: NativeProgress
  private since = performance.now()
  private loss = Number.NaN

  constructor(private readonly trainer: NativeTrainer, readonly everySeconds: number) {
    this.last = calling(() => trainer.progress())
  }

  due(): boolean {
    return performance.now() - this.since >= this.everySeconds * 1000 && this.hasNews()
  }

  hasNews(): boolean {
    return calling(() => this.trainer.progress()).steps > this.last.steps
  }

  report(): ProgressReport {
    const now = calling(() => this.trainer.progress())
    const seconds = (performance.now() - this.since) / 1000
    const lossSteps = now.lossSteps - this.last.lossSteps
    if (lossSteps > 0) this.loss = (now.lossSum - this.last.lossSum) / lossSteps
    const report: ProgressReport = {
      step: now.steps,
      samples: now.samples,
      loss: this.loss,
      samplesPerSecond: Math.round((now.samples - this.last.samples) / Math.max(seconds, 1e-9)),
      staleness: now.staleness,
    }
    this.last = now
    this.since = performance.now()
    return report
  }
}
