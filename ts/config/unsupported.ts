// What the schema knows and this version cannot do yet: a line each, taken away when the feature comes.
import type { Problem } from './problems.js'
import type { Path } from './path.js'
import type { Config } from './resolve.js'

type Value = string | number

interface Limit {
  path: Path
  read: (config: Config) => Value | undefined
  refuses: (value: Value) => boolean
  /** What is refused, for the documentation. */
  refused: string
  instead: string
}

const allBut = (value: Value) => ({ refuses: (written: Value) => written !== value, refused: `anything but ${value}` })

export const limits: readonly Limit[] = [
  { path: ['metrics', 'port'], read: ({ metrics }) => metrics.port, ...allBut(0), instead: '0: no endpoint' },
]

export function unsupportedProblems(config: Config): Problem[] {
  return limits.flatMap(({ path, read, refuses, instead }) => {
    const value = read(config)
    if (value === undefined || !refuses(value)) return []
    const message = `${value} is not supported by this version; use ${instead}`
    return [{ code: 'PERSIA_CONFIG_UNSUPPORTED' as const, path, message }]
  })
}
