// What is wrong with a config, in the words of the person who wrote it. Turns zod's issues into problems with a path,
// what was expected, what came and what was probably meant, and all problems into one PersiaError.
import { inspect } from 'node:util'
import type { z } from 'zod'
import { PersiaError, type ErrorCode, type ErrorDetails } from '../errors.js'
import { byteSizePattern, nearestByteSize } from './byte-size.js'
import {
  allPaths, chosenVariants, nodesAt, takesMap, takesScalar, typeText, variantName, variantsOf, type Node,
} from './key-tree.js'
import { pathText, valueAt, type Path } from './path.js'
import { closestWord, sameWord } from './suggest.js'
import type { Place, Written } from './written.js'

export interface Problem {
  code: ErrorCode
  path: Path
  message: string
  /** The nearest thing that would be right. */
  suggestion?: string
}

type Issue = z.core.$ZodIssue

export function invalid(path: Path, message: string, suggestion?: string): Problem {
  return { code: 'PERSIA_CONFIG_INVALID', path, message, ...(suggestion !== undefined && { suggestion }) }
}

/** A name that is not among those it can be; the nearest one is suggested. */
export function unknownName(path: Path, what: string, name: string, known: readonly string[]): Problem {
  const suggestion = closestWord(name, known)
  const rest = suggestion === undefined ? `it can be: ${listed(known)}` : `did you mean ${suggestion}?`
  return invalid(path, `${inspect(name)} is not ${what}; ${rest}`, suggestion)
}

/** The problems behind zod's issues about `config`; paths of the issues start at `base`. */
export function schemaProblems(issues: readonly Issue[], config: unknown, base: Path = []): Problem[] {
  return issues.flatMap((issue) => {
    const path = [...base, ...(issue.path as Path)]
    switch (issue.code) {
      case 'unrecognized_keys': return issue.keys.map((key) => unknownKey(path, key, config))
      case 'invalid_union': {
        const meant = issue.errors.filter((branch) => !branch.some(isWrongKind))
        return meant.length === 1 ? schemaProblems(meant[0]!, config, path) : [wrongValue(path, config)]
      }
      case 'invalid_key': return [invalid(path, 'a name must not be empty')]
      case 'custom': return [invalid(path, issue.message)]
      default: return [wrongValue(path, config)]
    }
  })
}

/** Without the complaint that a key is missing when it is there misspelt. */
export function withoutEchoes(problems: Problem[], config: unknown): Problem[] {
  const meant = new Set(problems.map(({ suggestion }) => suggestion))
  return problems.filter(({ path }) => valueAt(config, path) !== undefined || !meant.has(pathText(path)))
}

/** Whether a branch of a union can't be meant: the value itself is of another kind. */
const isWrongKind = ({ path, code }: Issue) =>
  path.length === 0 && (code === 'invalid_type' || code === 'invalid_value')

function wrongValue(path: Path, config: unknown): Problem {
  const value = valueAt(config, path)
  const nodes = nodesAt(path, config)
  const expected = [...new Set(nodes.map(typeText))].join(' or ')
  if (value === undefined) return invalid(path, `is missing; expected ${expected}`)
  const { hint, suggestion } = hintFor(nodes.flatMap(variantsOf), value)
  return invalid(path, `expected ${expected}, got ${shown(value)}${hint}`, suggestion)
}

interface Hint {
  /** The end of the message, or nothing. */
  hint: string
  suggestion?: string
}

const write = (text: string): Hint => ({ hint: `; write ${text}`, suggestion: text })

/** What was probably meant by a value of the wrong kind. */
function hintFor(variants: Node[], value: unknown): Hint {
  if (Array.isArray(value) && value.every((name) => typeof name === 'string') && variants.some(takesNames)) {
    return write(`{ ${value.map((name) => `${name}: {}`).join(', ')} }`)
  }
  if (typeof value === 'object') return { hint: '' }
  if (typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER && Number.isFinite(value)) {
    return { hint: '; integers go up to 2^53 - 1' }
  }
  for (const variant of variants) {
    if (variant.maxLength === 1 && value === '\\t') return write('"\\t" in double quotes')
    const first = Object.entries(variant.properties ?? {})[0]
    if (first && takesScalar(first[1], value)) return write(`{ ${first[0]}: ${String(value)} }`)
    if (variant.items && takesScalar(variant.items, value)) return write(`[${String(value)}]`)
    const anyText = variant.type === 'string' && !variant.enum && !variant.pattern
    if (anyText && typeof value !== 'string') return write(`"${String(value)}"`)
  }
  return typeof value === 'string' ? hintForText(variants, value) : { hint: '' }
}

const takesNames = (node: Node) => takesMap(node.additionalProperties)

function hintForText(variants: Node[], text: string): Hint {
  const takes = (type: string) => variants.some((variant) => variant.type === type)
  const number = text.replace(/[_,' ]/g, '')
  if ((takes('integer') || takes('number')) && number !== '' && Number.isFinite(Number(number))) return write(number)
  if (takes('boolean') && /^(yes|on|true)$/i.test(text)) return write('true')
  if (takes('boolean') && /^(no|off|false)$/i.test(text)) return write('false')
  const size = variants.some(({ pattern }) => pattern === byteSizePattern.source) ? nearestByteSize(text) : undefined
  if (size !== undefined) return write(size)
  const words = variants.flatMap((variant) => variant.enum ?? variant.const ?? []).map(String)
  const near = closestWord(text, words)
  return near === undefined ? { hint: '' } : { hint: `; did you mean ${near}?`, suggestion: near }
}

// ---- unknown keys

function unknownKey(at: Path, key: string, config: unknown): Problem {
  const nodes = nodesAt(at, config)
  const chosen = nodes.flatMap((node) => chosenVariants(node, valueAt(config, at)))
  const known = [...new Set(chosen.flatMap(({ properties }) => Object.keys(properties ?? {})))]
  const problem = (message: string, suggestion?: string): Problem => {
    const words = { code: 'PERSIA_CONFIG_UNKNOWN_KEY', path: [...at, key], message: `unknown key${message}` } as const
    return suggestion === undefined ? words : { ...words, suggestion }
  }

  const owners = nodes.flatMap(variantsOf).filter(({ properties }) => properties && Object.hasOwn(properties, key))
  if (owners.length > 0) {
    const type = chosen.map(variantName).join(' | ')
    const types = owners.map(variantName).join(' | ')
    return problem(` with type ${type}, it belongs to type ${types}; ${type} has: ${listed(known)}`)
  }
  const near = closestWord(key, known)
  if (near !== undefined) return problem(`; did you mean ${pathText([...at, near])}?`, pathText([...at, near]))
  const elsewhere = allPaths().filter((other) => sameWord(key, [other.at(-1)!])).map((other) => other.join('.'))
  if (elsewhere.length > 0) return problem(`; it exists as ${listed([...new Set(elsewhere)])}`, elsewhere[0])
  return problem(`; known here: ${listed(known)}`)
}

// ---- the error

const mostLines = 25

/** Sorts by place in the file; what has none comes last. */
const inFile = ({ line, column = 0 }: { line?: number; column?: number }) =>
  line === undefined ? Number.MAX_SAFE_INTEGER : line * 1e6 + Math.min(column, 1e6 - 1)

/** One error for all problems, in the order of the file. */
export function configError(problems: Problem[], written: Written): PersiaError {
  const placed = problems.map((problem) => ({ problem, place: placeOf(problem, written) }))
  placed.sort((a, b) => inFile(a.place) - inFile(b.place))
  const lines = placed.slice(0, mostLines).map(({ problem, place }) =>
    `${place.prefix}${pathText(problem.path) || 'config'}: ${problem.message}${setHint(problem, written)}`)
  if (placed.length > mostLines) lines.push(`… and ${placed.length - mostLines} more`)
  const head = placed.length > 1 ? [`${placed.length} problems in the config:`] : []
  const { problem, place } = placed[0]!
  const details: ErrorDetails = { path: pathText(problem.path), count: placed.length }
  if (problem.suggestion !== undefined) details['suggestion'] = problem.suggestion
  if (written.file !== undefined) details['file'] = written.file
  if (place.line !== undefined) Object.assign(details, { line: place.line, column: place.column })
  return new PersiaError(problem.code, [...head, ...lines].join('\n'), details)
}

/** Where a problem shows: its own place, or that of the nearest map around it when something is missing. */
function placeOf(
  { code, path }: Problem, { places, file }: Written,
): { prefix: string; line?: number; column?: number } {
  for (let length = path.length; length > 0; length--) {
    const place: Place | undefined = places.get(pathText(path.slice(0, length)))
    const at = code === 'PERSIA_CONFIG_UNKNOWN_KEY' || length < path.length ? place?.key : place?.value
    if (at) return { prefix: `${file}:${at.line}:${at.column}: `, ...at }
    if (place) return { prefix: `${place.source}: ` }
  }
  return { prefix: file === undefined ? '' : `${file}: ` }
}

/** For a key that a `--set …type=` left behind: how to replace it together with its neighbours. */
function setHint({ code, path }: Problem, { places, value }: Written): string {
  const around = path.slice(0, -1)
  const type = [...around, 'type']
  const isSet = (at: Path) => places.get(pathText(at))?.source === '--set'
  if (code !== 'PERSIA_CONFIG_UNKNOWN_KEY' || !isSet(type) || isSet(path)) return ''
  return `; --set '${pathText(around)}={type: ${String(valueAt(value, type))}}' replaces the whole map`
}

function shown(value: unknown): string {
  return inspect(value, { depth: 1, breakLength: Infinity, compact: true, maxStringLength: 80, maxArrayLength: 6 })
}

function listed(words: readonly string[]): string {
  return words.length <= 16 ? words.join(', ') : `${words.slice(0, 16).join(', ')}, …`
}
