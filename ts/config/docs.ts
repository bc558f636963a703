// The generated part of docs/config.md: a table of every key for each section.
import { rootNode, typeText, variantName, variantsOf, type Node } from './key-tree.js'

interface Row {
  key: string
  takes: string
  default: string
  meaning: string
}

const begin = '<!-- generated from ts/config/schema.ts by scripts/generate-config-docs.mjs: do not edit -->'
const end = '<!-- end of the generated part -->'

/** `text`, the content of docs/config.md, with its generated part made anew. */
export function withGeneratedPart(text: string): string {
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`docs/config.md needs the lines\n${begin}\n${end}`)
  return `${text.slice(0, from + begin.length)}\n\n${generatedPart()}\n${text.slice(to)}`
}

function generatedPart(): string {
  const sections = Object.entries(rootNode.properties ?? {})
  const single = sections.filter(([, node]) => !node.properties).flatMap(([key, node]) => rowsOf(node, key))
  const tables = sections.filter(([, node]) => node.properties)
    .map(([key, node]) => `### ${key}\n\n${node.description}.\n\n${table(rowsOf(node, key).slice(1))}`)
  return [`### The run\n\n${table(single)}`, ...tables].join('\n')
}

/** The row of a key and the rows of all keys below it. */
function rowsOf(node: Node, key: string): Row[] {
  const row = { key, takes: takesText(node), default: defaultText(node), meaning: node.description ?? '' }
  if (node.oneOf) return [row, ...variantRows(node.oneOf, key)]
  const below = variantsOf(node).flatMap((variant) => [
    ...Object.entries(variant.properties ?? {}).flatMap(([name, child]) => rowsOf(child, `${key}.${name}`)),
    ...(variant.additionalProperties ? rowsOf(variant.additionalProperties, `${key}.<name>`) : []),
    ...(variant.items ? entryRows(variant.items, `${key}.<n>`) : []),
  ])
  return [row, ...below].filter(({ meaning }) => meaning !== '')
}

const entryRows = (items: Node, key: string) => rowsOf(items, key).filter((row) => row.key !== key)

/** A union by `type`: each key once, with the variants that have it and its default in each. */
function variantRows(variants: Node[], key: string): Row[] {
  const names = [...new Set(variants.flatMap((variant) => Object.keys(variant.properties ?? {})))]
  return names.map((name) => {
    const owners = variants.filter((variant) => variant.properties?.[name])
    const children = owners.map((owner) => owner.properties![name]!)
    if (name === 'type') return typeRow(children, `${key}.type`)
    const only = owners.length < variants.length ? ` (${owners.map(variantName).join(', ')})` : ''
    return {
      key: `${key}.${name}`,
      takes: unique(children.map(takesText)).join(' or '),
      default: variantDefaults(owners, children),
      meaning: `${unique(children.map((child) => child.description ?? '')).join('; ')}${only}`,
    }
  })
}

function typeRow(children: Node[], key: string): Row {
  const preset = children.find((child) => child.default !== undefined)
  const takes = children.map((child) => child.const).join(' | ')
  return { key, takes, default: defaultText(preset ?? {}), meaning: children[0]?.description ?? '' }
}

function variantDefaults(owners: Node[], children: Node[]): string {
  const defaults = unique(children.map(defaultText))
  if (defaults.length === 1) return defaults[0]!
  return defaults.map((value) => {
    const having = owners.filter((_, index) => defaultText(children[index]!) === value)
    return `${having.map(variantName).join(', ')}: ${value}`
  }).join('; ')
}

function takesText(node: Node): string {
  if (node.properties || node.oneOf) return 'a map'
  if (node.anyOf) return unique(node.anyOf.filter(({ type }) => type !== 'null').map(takesText)).join(' or ')
  if (node.items) return `a list, each entry ${takesText(node.items)}`
  return typeText(node)
}

function defaultText(node: Node): string {
  if (node.default === undefined || (node.properties ?? node.oneOf)) return ''
  return `\`${typeof node.default === 'string' ? node.default : JSON.stringify(node.default)}\``
}

function table(rows: Row[]): string {
  const cell = (text: string) => text.replaceAll('|', '\\|')
  const line = (cells: string[]) => `| ${cells.map(cell).join(' | ')} |`
  const body = rows.map((row) => line([`\`${row.key}\``, row.takes, row.default, row.meaning]))
  return [line(['key', 'takes', 'default', 'meaning']), '|---|---|---|---|', ...body, ''].join('\n')
}

function unique<T>(values: T[]): T[] {
  return [...new Set(values)]
}
