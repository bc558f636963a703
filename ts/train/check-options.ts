// What programs without types get wrong in the options of a run, said before anything is trained: else it would show
// after an epoch, or a misspelt callback never.
import { closestWord } from '../config/suggest.js'
import { PersiaError } from '../errors.js'
import { callbackNames } from './callbacks.js'
import type { RunOptions } from './run-events.js'

/** PERSIA_USAGE names the option. */
export function checkRunOptions({ datasets, callbacks = [], metrics = {} }: RunOptions): void {
  if (datasets !== undefined) {
    if (typeof datasets.train !== 'function') throw wrong('datasets.train', 'a function of the epoch', datasets.train)
    if (datasets.test !== undefined && typeof datasets.test !== 'function') {
      throw wrong('datasets.test', 'a function', datasets.test)
    }
  }
  for (const [index, one] of [callbacks].flat().entries()) {
    checkCallbacks(one, Array.isArray(callbacks) ? `callbacks[${index}]` : 'callbacks')
  }
  for (const [name, metric] of Object.entries(metrics)) {
    if (typeof metric === 'function' || typeof (metric as { start?: unknown } | null)?.start === 'function') continue
    throw wrong(`metrics.${name}`, 'a function, or { start }', metric)
  }
}

function checkCallbacks(callbacks: unknown, at: string): void {
  if (typeof callbacks !== 'object' || callbacks === null) throw wrong(at, 'an object of callbacks', callbacks)
  for (const name of callbackNames) {
    const callback = (callbacks as Record<string, unknown>)[name]
    if (callback !== undefined && typeof callback !== 'function') throw wrong(`${at}.${name}`, 'a function', callback)
  }
  // Other keys may be those of an object that is more than callbacks, but these look like one.
  const unknown = Object.keys(callbacks).find((key) => /^on[A-Z]/.test(key) && !callbackNames.some((name) => name === key))
  if (unknown === undefined) return
  const near = closestWord(unknown, callbackNames)
  throw usage(`${at}.${unknown}`, `there is no such callback; ${near ? `did you mean ${near}?` : `there are `
    + `${callbackNames.join(', ')}`}`)
}

const wrong = (option: string, expected: string, got: unknown) =>
  usage(option, `expected ${expected}, got ${got === null ? 'null' : typeof got}`)

const usage = (option: string, message: string) =>
  new PersiaError('PERSIA_USAGE', `${option}: ${message}`, { option })
