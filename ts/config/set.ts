// `--set key.path=value`: one value of the config, over what the file says. The value is a YAML scalar or flow
// collection, so `8`, `true`, `[64, 32]` and `{type: adam}` mean what they mean in the file.
import { PersiaError } from '../errors.js'
import { nodesAt, variantsOf } from './key-tree.js'
import { isMap, pathText, valueAt, withValueAt, type Path } from './path.js'
import { readYamlValue, type Place, type Written } from './written.js'

const assignment = /^((?:"[^"]+"|[^."=\s]+)(?:\.(?:"[^"]+"|[^."=\s]+))*)=(.*)$/s
const part = /"([^"]+)"|([^."=]+)/g

/** `written` with all of `settings`, later ones over earlier ones. PERSIA_USAGE for one that is malformed. */
export function applySettings(written: Written, settings: readonly string[]): Written {
  return settings.reduce(applySetting, written)
}

function applySetting(written: Written, setting: string): Written {
  const match = assignment.exec(setting)
  if (!match) throw usage(setting, 'expected key.path=value, as in --set model.optimizer.lr=0.01')
  const names = [...match[1]!.matchAll(part)].map(([, quoted, plain]) => quoted ?? plain!)
  if (names.includes('__proto__')) throw usage(setting, 'there is no such key')
  const value = readValue(setting, match[2]!)
  const path = resolvePath(written.value, names, setting)
  const root = withValueAt(written.value ?? {}, path, value)
  return { ...written, value: root, places: placesAfter(written.places, path, value) }
}

function readValue(setting: string, text: string): unknown {
  if (/^\s*[|>]/.test(text)) {
    throw usage(setting, `a text that begins with > or | needs double quotes inside: '"${text}"'`)
  }
  try {
    // Undefined would mean "take the key away"; an empty value is YAML's null.
    return readYamlValue(text) ?? null
  } catch (error) {
    throw usage(setting, `the value is not valid YAML (${(error as Error).message}); put text in quotes`)
  }
}

/** The names with list indexes as numbers. Refuses a path that leads through a scalar or past the end of a list. */
function resolvePath(root: unknown, names: string[], setting: string): Path {
  const path: (string | number)[] = []
  for (const name of names) {
    const container = valueAt(root, path) ?? undefined
    if (Array.isArray(container)) {
      const index = /^\d+$/.test(name) ? Number(name) : -1
      if (index < 0 || index > container.length) {
        throw usage(setting, `${pathText(path) || 'the config'} is a list of ${container.length}; `
          + `expected an index from 0 to ${container.length} in place of ${name}`)
      }
      path.push(index)
    } else if (container === undefined || isMap(container)) {
      if (container === undefined && isList(path, root)) {
        throw usage(setting, `${pathText(path)} has no entries yet; set the whole list: --set '${pathText(path)}=[…]'`)
      }
      path.push(name)
    } else {
      throw usage(setting, `${pathText(path) || 'the config'} is ${JSON.stringify(container)}, which has no keys; `
        + `set it as a whole: --set '${pathText(path)}={…}'`)
    }
  }
  return path
}

function isList(path: Path, root: unknown): boolean {
  return nodesAt(path, root).flatMap(variantsOf).some((node) => node.type === 'array')
}

function placesAfter(places: Map<string, Place>, path: Path, value: unknown): Map<string, Place> {
  const text = pathText(path)
  const after = new Map([...places].filter(([key]) => !key.startsWith(`${text}.`)))
  const note = (at: Path, below: unknown) => {
    after.set(pathText(at), { source: '--set' })
    if (Array.isArray(below)) below.forEach((item, index) => note([...at, index], item))
    else if (isMap(below)) for (const [key, item] of Object.entries(below)) note([...at, key], item)
  }
  note(path, value)
  // A list of which one entry was set comes from both.
  const list = pathText(path.slice(0, -1))
  const place = places.get(list)
  if (typeof path.at(-1) === 'number' && place && place.source !== '--set') {
    after.set(list, { ...place, source: `${place.source}, --set` })
  }
  return after
}

function usage(setting: string, reason: string): PersiaError {
  return new PersiaError('PERSIA_USAGE', `--set ${setting}: ${reason}.`, { setting })
}
