// The schema as a tree of keys, read from its JSON Schema: which keys exist where, and what a value must be, in words.
// Messages, suggestions, `--set` and docs/config.md all ask here, so that none of them repeats an option.
import { configJsonSchema } from './schema.js'
import { isMap, type Path } from './path.js'

/** The part of JSON Schema that our zod schema makes use of. */
export interface Node {
  type?: string
  /** What a value is, in words, where the type does not say it. */
  title?: string
  description?: string
  default?: unknown
  const?: unknown
  enum?: unknown[]
  minimum?: number
  maximum?: number
  exclusiveMinimum?: number
  exclusiveMaximum?: number
  minLength?: number
  maxLength?: number
  pattern?: string
  minItems?: number
  items?: Node | false
  prefixItems?: Node[]
  properties?: Record<string, Node>
  additionalProperties?: Node | false
  anyOf?: Node[]
  oneOf?: Node[]
}

export const rootNode = configJsonSchema as Node

/** The alternatives of a union, or the node itself. */
export function variantsOf(node: Node): Node[] {
  const alternatives = node.anyOf ?? node.oneOf
  return alternatives ? alternatives.flatMap(variantsOf) : [node]
}

/** The name of a variant that is chosen by `type`. */
export function variantName(node: Node): string | undefined {
  const name = node.properties?.['type']?.const
  return typeof name === 'string' ? name : undefined
}

function childOf(node: Node, part: string | number): Node | undefined {
  if (node.properties && Object.hasOwn(node.properties, part)) return node.properties[part]
  if (node.additionalProperties) return node.additionalProperties
  if (!Number.isInteger(Number(part))) return undefined
  return node.prefixItems?.[Number(part)] ?? (node.items || undefined)
}

/** Of the variants of a union those that `value` chooses by its `type`; all when it does not choose. */
export function chosenVariants(node: Node, value: unknown): Node[] {
  const variants = variantsOf(node)
  const written = isMap(value) ? value['type'] : undefined
  const chosen = variants.filter(({ properties }) => properties?.['type']
    && (written === undefined ? properties['type'].default !== undefined : properties['type'].const === written))
  return chosen.length > 0 ? chosen : variants
}

/**
 * The nodes that describe `path` in `config`; several where a union leaves it open, none where the path does not exist.
 */
export function nodesAt(path: Path, config: unknown): Node[] {
  let nodes = chosenVariants(rootNode, config)
  let value = config
  path.forEach((part, index) => {
    value = isMap(value) || Array.isArray(value) ? (value as Record<string | number, unknown>)[part] : undefined
    const children = nodes.flatMap((node) => childOf(node, part) ?? [])
    nodes = index + 1 === path.length ? children : children.flatMap((child) => chosenVariants(child, value))
  })
  return nodes
}

/** Every path of the schema, with `<name>` for the names of a map and `<n>` for the entries of a list. */
export function allPaths(node: Node = rootNode, path: string[] = []): string[][] {
  const children = (variant: Node): [string, Node][] => [
    ...Object.entries(variant.properties ?? {}),
    ...(variant.additionalProperties ? [['<name>', variant.additionalProperties] as [string, Node]] : []),
    ...(variant.items ? [['<n>', variant.items] as [string, Node]] : []),
  ]
  return variantsOf(node).flatMap(children)
    .flatMap(([key, child]) => [[...path, key], ...allPaths(child, [...path, key])])
}

/** What a node takes, in words: `an integer from 0 to 1024`, `sync | hybrid | async`. */
export function typeText(node: Node): string {
  if (node.title) return node.title
  if (node.oneOf) return `a map with type: ${node.oneOf.map(variantName).join(' | ')}`
  if (node.anyOf) return node.anyOf.map(typeText).join(' or ')
  if (node.const !== undefined) return String(node.const)
  if (node.enum) return node.enum.join(' | ')
  switch (node.type) {
    case 'integer': return `an integer${rangeText(node)}`
    case 'number': return `a number${rangeText(node)}`
    case 'boolean': return 'true | false'
    case 'string': return node.maxLength === 1 ? 'a single character' : node.minLength ? 'a non-empty text' : 'a text'
    case 'array': return listText(node)
    case 'object': return mapText(node)
    default: return 'nothing'
  }
}

function rangeText({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: Node): string {
  const bounds = []
  const bounded = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER
  if (minimum !== undefined && bounded) return ` from ${minimum} to ${maximum}`
  if (minimum !== undefined) bounds.push(`>= ${minimum}`)
  if (exclusiveMinimum !== undefined) bounds.push(`> ${exclusiveMinimum}`)
  if (bounded) bounds.push(`<= ${maximum}`)
  if (exclusiveMaximum !== undefined) bounds.push(`< ${exclusiveMaximum}`)
  return bounds.length > 0 ? ` ${bounds.join(' and ')}` : ''
}

function mapText({ properties, additionalProperties }: Node): string {
  if (properties) return `a map with the keys ${Object.keys(properties).join(', ')}`
  const values = takesMap(additionalProperties) ? 'settings' : typeText(additionalProperties || {})
  return `a map from column names to ${values}`
}

/** Whether a node takes a map, among others. */
export function takesMap(node: Node | false | undefined): boolean {
  return node !== undefined && node !== false && variantsOf(node).some(({ type }) => type === 'object')
}

function listText({ prefixItems, items, minItems }: Node): string {
  if (prefixItems) return `a list of ${prefixItems.length}: ${prefixItems.map(typeText).join(', ')}`
  return `a ${minItems ? 'non-empty ' : ''}list, each entry ${items ? typeText(items) : 'anything'}`
}

/** Whether a scalar is of the kind that a node takes; ranges are not looked at. */
export function takesScalar(node: Node, value: unknown): boolean {
  return variantsOf(node).some((variant) => {
    if (variant.const !== undefined) return variant.const === value
    if (variant.enum) return variant.enum.includes(value)
    if (variant.type === 'integer') return Number.isInteger(value)
    return variant.type === typeof value
  })
}
