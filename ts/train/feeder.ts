// How a pass over a dataset is fed to the native pipeline, and how its counters are read.
import { PersiaError } from '../errors.js'
import { calling, settling } from '../native.js'
import type { NativeBatch, NativeProgress, NativeTrainer } from '../native-types.js'
import type { ProgressReport } from './reports.js'
import type { FitOptions } from './trainer.js'

/**
 * Hands batches over one by one; waiting for `push` is the back-pressure. Rests at the steps of `options.checkpoint`
 * and `options.evaluate` and stops on `options.signal`, during a rest at its very step. A pipeline in deterministic
 * mode comes to rest only after the batches that it looks ahead to, so while a rest or a stop is under way batches are
 * still handed in.
 */
export class Feeder {
  /** The pipeline rests because of the signal; nothing more is to be pushed. */
  stopped = false
  private step: number
  private readonly rests = new Set<Promise<void>>()
  /** What is done in rests that were reached. */
  private readonly working = new Set<Promise<void>>()
  private halt: () => void = () => {}
  /** Resolves when the pipeline rests for good. */
  private readonly halted = new Promise<void>((resolve) => { this.halt = resolve })
  private failure: unknown
  private stopping: Promise<void> | undefined
  private ending: Promise<void> | undefined
  /** Ends the waiting of the push under way. */
  private wake: () => void = () => {}
  private readonly onAbort = () => this.wake()

  /** `atRest` is called at each rest, before what is done there. */
  constructor(private readonly trainer: NativeTrainer, private readonly options: FitOptions,
    private readonly atRest: () => Promise<void>) {
    this.step = calling(() => trainer.progress()).steps
    options.signal?.addEventListener('abort', this.onAbort)
  }

  async push(batch: NativeBatch): Promise<void> {
    if (this.failure !== undefined) throw this.failure
    this.scheduleRest(++this.step)
    const pushed = quiet(settling(() => this.trainer.push(batch)))
    await this.orAborted(pushed)
    if (this.options.signal?.aborted) await Promise.race([pushed, this.stop()])
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

  private orAborted(pushed: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.wake = resolve
      pushed.then(resolve, reject)
      if (this.options.signal?.aborted) resolve()
    })
  }

  /** Rests after `step` if there is something to do then. */
  private scheduleRest(step: number): void {
    const { evaluate, checkpoint } = this.options
    const isDue = (work?: { everySteps: number }) => work && work.everySteps > 0 && step % work.everySteps === 0
    if (this.stopping) return
    const saves = isDue(checkpoint) || checkpoint?.when?.()
    const work = [...(isDue(evaluate) ? [evaluate!.run] : []), ...(saves ? [checkpoint!.save] : [])]
    if (work.length === 0) return
    const rest = quiet(this.rest(step, work))
    this.rests.add(rest)
    rest.then(() => this.rests.delete(rest), (error: unknown) => { this.failure ??= error })
  }

  private async rest(step: number, work: (() => Promise<unknown>)[]): Promise<void> {
    try {
      await settling(() => this.trainer.pause(step))
    } catch (error) {
      if (error instanceof PersiaError && error.code === 'PERSIA_ABORTED') return  // no such step
      throw error
    }
    if (this.stopped) return  // whoever stopped at this very step has the model now
    const worked = quiet(this.work(work))
    this.working.add(worked)
    await worked
    this.working.delete(worked)
  }

  private async work(work: (() => Promise<unknown>)[]): Promise<void> {
    try {
      for (const one of [this.atRest, ...work]) await one()
      if (this.options.signal?.aborted) await this.stop()
    } finally {
      this.trainer.resume()
    }
  }

  /** Brings the pipeline to rest for good; at once while it rests. */
  private stop(): Promise<void> {
    this.stopping ??= quiet(settling(() => this.trainer.pause()).then(() => {
      this.stopped = true
      this.halt()
    }))
    return this.stopping
  }

  private async finish(): Promise<void> {
    try {
      if (!this.stopped) {
        const drained = quiet(settling(() => this.trainer.drain(false)))
        await Promise.race([Promise.all(this.rests).then(() => drained), this.halted])
      }
      await this.stopping
      await Promise.all(this.working)
    } finally {
      this.options.signal?.removeEventListener('abort', this.onAbort)
    }
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
