// Callbacks: functions of the user's that a run calls at its turns. They run one after another, and training goes on
// only when an asynchronous one is done. The first that throws ends the run: it is named in the error, and the model is
// saved as it was.
import { PersiaError } from '../errors.js'
import type { EpochReport, EvalReport, ProgressReport, SavedReport, StartReport } from './reports.js'
import type { Trainer } from './trainer.js'

/** What a callback can do to its run. */
export interface RunControl {
  readonly trainer: Trainer
  /** Ends training after this step, as if it were complete: the last event is `done`. */
  stop(): void
}

/**
 * Each is optional and may be asynchronous. While `onStart`, `onEval`, `onEpoch` and `onCheckpoint` run, training is at
 * rest: predictions and rows are those of the step in the report.
 */
export interface Callbacks {
  /** Before the first step, with a model that is new or comes from a checkpoint. */
  onStart?(report: StartReport, run: RunControl): unknown
  /** After every step; after the last of them when several were applied since the last call. */
  onStep?(report: ProgressReport, run: RunControl): unknown
  onEval?(report: EvalReport, run: RunControl): unknown
  /** After every complete pass over the data and its evaluation. */
  onEpoch?(report: EpochReport, run: RunControl): unknown
  /** After a checkpoint was written whole. */
  onCheckpoint?(report: SavedReport, run: RunControl): unknown
}

export const callbackNames = ['onStart', 'onStep', 'onEval', 'onEpoch', 'onCheckpoint'] as const satisfies
  readonly (keyof Callbacks)[]

export class CallbackRunner {
  /** Of the first callback that threw; afterwards none is called. */
  failure: PersiaError | undefined
  private last: Promise<void> = Promise.resolve()

  constructor(private readonly callbacks: Callbacks[], private readonly run: RunControl) {}

  has(name: keyof Callbacks): boolean {
    return this.callbacks.some((callbacks) => callbacks[name] !== undefined)
  }

  /** Calls all of that name, after those that are running. Never throws: it sets `failure` and stops the run. */
  call<Name extends keyof Callbacks>(name: Name, report: Parameters<NonNullable<Callbacks[Name]>>[0]): Promise<void> {
    this.last = this.last.then(async () => {
      for (const [index, callbacks] of this.callbacks.entries()) {
        if (this.failure) return
        try {
          await (callbacks[name] as ((report: unknown, run: RunControl) => unknown) | undefined)
            ?.call(callbacks, report, this.run)
        } catch (error) {
          this.fail(callbackError(this.nameOf(name, index), report.step, error))
        }
      }
    })
    return this.last
  }

  fail(failure: PersiaError): void {
    this.failure ??= failure
    this.run.stop()
  }

  private nameOf(name: keyof Callbacks, index: number): string {
    return this.callbacks.length === 1 ? name : `callbacks[${index}].${name}`
  }
}

function callbackError(callback: string, step: number, cause: unknown): PersiaError {
  const what = cause instanceof Error ? cause.message : String(cause)
  return new PersiaError('PERSIA_CALLBACK_FAILED', `callback ${callback} failed after step ${step}: ${what}`,
    { callback, step }, { cause })
}
