// Options that take a number.
import { PersiaError } from '../errors.js'

/** The settings of an option `name` whose number `accepts` says yes to; `takes` says in words which these are. */
export function numberOption(name: string, takes: string, accepts: (value: number) => boolean) {
  const coerce = (value: number | number[]): number => {
    if (typeof value === 'number' && accepts(value)) return value
    const given = Array.isArray(value) ? `${value.length} of them` : Number.isNaN(value) ? 'no number' : value
    throw new PersiaError('PERSIA_USAGE', `--${name} takes ${takes}, got ${given}`)
  }
  return { type: 'number', requiresArg: true, coerce } as const
}

export function integerOption(name: string, least: number, most = Number.MAX_SAFE_INTEGER) {
  const range = `from ${least} up to ${most === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : most}`
  return numberOption(name, `an integer ${range}`,
    (value) => Number.isSafeInteger(value) && value >= least && value <= most)
}
