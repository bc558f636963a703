// Where each effective value comes from, for `persia config explain`.
import { isMap, pathText, type Path } from './path.js'
import type { Resolution } from './resolution.js'
import type { Config } from './resolved.js'
import type { Written } from './written.js'

export interface Leaf {
  path: Path
  value: unknown
}

/** The values of a config with their paths; a list of anything but maps is one value. */
export function leavesOf(value: unknown, path: Path = []): Leaf[] {
  if (isMap(value)) return Object.entries(value).flatMap(([key, below]) => leavesOf(below, [...path, key]))
  if (Array.isArray(value) && value.some(isMap)) {
    return value.flatMap((below, index) => leavesOf(below, [...path, index]))
  }
  return [{ path, value }]
}

/** By the text of each leaf's path: `default`, `file:line`, `--set` or `derived (why)`. */
export function explainSources(config: Config, written: Written, { origins }: Resolution): Map<string, string> {
  return new Map(leavesOf(config).map(({ path }) => {
    const text = pathText(path)
    const origin = origins.get(text)
    if (origin && 'derived' in origin) return [text, `derived (${origin.derived})`]
    return [text, written.places.get(origin ? pathText(origin.from) : text)?.source ?? 'default']
  }))
}
