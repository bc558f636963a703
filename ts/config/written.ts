// A config as it was written: the values, and where each of them stands. Reads YAML; a TypeScript object has values
// only.
import { readFileSync } from 'node:fs'
import {
  Document, LineCounter, isAlias, isMap, isScalar, isSeq, parseDocument, type Node, type Pair, type YAMLError,
} from 'yaml'
import { PersiaError } from '../errors.js'
import { pathText, type Path } from './path.js'

/** Where a value was written. Lines and columns count from 1 and exist for values from a file. */
export interface Place {
  /** `config.yml:12`, or `--set`. */
  source: string
  key?: Position
  value?: Position
}

export interface Position {
  line: number
  column: number
}

export interface Written {
  value: unknown
  /** By the text of the path, for every key and list entry that was written. */
  places: Map<string, Place>
  file?: string
}

const yamlOptions = { merge: true, uniqueKeys: true, stringKeys: true, prettyErrors: false } as const

export function readConfigFile(file: string): Written {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message
    const message = `The config ${file} cannot be read: ${why}.`
    throw new PersiaError('PERSIA_CONFIG_UNREADABLE', message, { file }, { cause: error })
  }
  return readConfigText(text, file)
}

export function readConfigText(text: string, file: string): Written {
  const lines = new LineCounter()
  const document = parseDocument(text, { ...yamlOptions, lineCounter: lines })
  const fault = document.errors[0] ?? document.warnings[0]
  if (fault) throw unreadable(file, position(lines, fault.pos[0]), reasonOf(fault))
  let value: unknown
  try {
    value = document.toJS() ?? {}
  } catch (error) {
    throw unreadable(file, { line: 1, column: 1 }, (error as Error).message)
  }
  const places = new Map<string, Place>()
  notePlaces({ document, lines, file, places, open: [] }, document.contents, [])
  return { value, places, file }
}

/** The value of `--set key=value`: a YAML scalar or flow collection. Throws the parser's reason as an Error. */
export function readYamlValue(text: string): unknown {
  const document = parseDocument(text, yamlOptions)
  const fault = document.errors[0] ?? document.warnings[0]
  if (fault) throw new Error(fault.message)
  return document.toJS()
}

function reasonOf({ code, message }: YAMLError): string {
  if (code === 'MULTIPLE_DOCS') return 'more than one document (---) in the file'
  const hint = /block scalar/i.test(message) ? ' (a text that begins with > or | needs quotes)' : ''
  return message + hint
}

function position(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset)
  return { line, column: col }
}

function unreadable(file: string, { line, column }: Position, reason: string): PersiaError {
  const message = `${file}:${line}:${column}: not valid YAML: ${reason}`
  return new PersiaError('PERSIA_CONFIG_UNREADABLE', message, { file, line, column })
}

interface Walk {
  document: Document
  lines: LineCounter
  file: string
  places: Map<string, Place>
  /** The maps and lists on the way down. */
  open: unknown[]
}

/** Notes the place of everything below `node`; what an alias or a merge brings in, where it is written. */
function notePlaces(walk: Walk, node: unknown, path: Path): void {
  const target = isAlias(node) ? node.resolve(walk.document) : node
  if (walk.open.includes(target)) {
    const at = position(walk.lines, (node as Node).range?.[0] ?? 0)
    throw unreadable(walk.file, at, 'an alias inside the value that it names')
  }
  if (isSeq(target) || isMap(target)) walk = { ...walk, open: [...walk.open, target] }
  if (isSeq(target)) {
    target.items.forEach((item, index) => notePlace(walk, item as Node, item as Node, [...path, index]))
  } else if (isMap(target)) {
    const merged = target.items.filter(isMerge)
    for (const { value } of merged) for (const from of mergeSources(walk, value)) notePlaces(walk, from, path)
    for (const pair of target.items) {
      if (!isMerge(pair)) notePlace(walk, pair.key as Node, pair.value as Node | null, [...path, keyText(pair)])
    }
  }
}

function notePlace(walk: Walk, key: Node, value: Node | null, path: Path): void {
  const keyAt = position(walk.lines, key.range?.[0] ?? 0)
  const valueAt = value?.range ? position(walk.lines, value.range[0]) : keyAt
  walk.places.set(pathText(path), { source: `${walk.file}:${keyAt.line}`, key: keyAt, value: valueAt })
  notePlaces(walk, value, path)
}

const keyText = ({ key }: Pair) => String(isScalar(key) ? key.value : key)
const isMerge = (pair: Pair) => keyText(pair) === '<<'

/** The maps of `<<`, those first that others override. */
function mergeSources({ document }: Walk, value: unknown): unknown[] {
  const target = isAlias(value) ? value.resolve(document) : value
  return isSeq(target) ? [...target.items].reverse() : [target]
}
