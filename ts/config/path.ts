// Paths into a config: `model.tasks.0.weight` as text, ['model', 'tasks', 0, 'weight'] inside. A part that holds a dot
// or a quote stands in double quotes, as in `features.columns."site.id".dim`.

export type Path = readonly (string | number)[]

const plainPart = /^[^."=\s]+$/

export function pathText(path: Path): string {
  return path.map((part) => (plainPart.test(String(part)) ? part : JSON.stringify(part))).join('.')
}

export function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The value at `path`; undefined where there is none. */
export function valueAt(root: unknown, path: Path): unknown {
  let value = root
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined
    value = (value as Record<string | number, unknown>)[part]
  }
  return value
}

/** `root` with `value` at `path`; undefined takes the key away. Copies the containers on the way, changes none. */
export function withValueAt(root: unknown, path: Path, value: unknown): unknown {
  const [part, ...rest] = path
  if (part === undefined) return value
  const copy: Record<string | number, unknown> = Array.isArray(root) ? ([...root] as never) : { ...(root as object) }
  const next = withValueAt(copy[part], rest, value)
  if (next === undefined) delete copy[part]
  else copy[part] = next
  return copy
}
