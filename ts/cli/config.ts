// `persia config validate|schema|explain`.
import type { CommandModule } from 'yargs'
import { configJsonSchema, leavesOf, type Leaf } from '../config/index.js'
import { pathText } from '../config/path.js'
import { commonOptions, loadConfig, type CommonArguments } from './options.js'

const validate: CommandModule<object, CommonArguments> = {
  command: 'validate',
  describe: 'Check a config; names all that is wrong and ends with 2 when it is not valid',
  builder: commonOptions,
  handler(args) {
    loadConfig(args)
    console.log(args.json ? JSON.stringify({ event: 'config', valid: true }) : 'ok')
  },
}

const schema: CommandModule = {
  command: 'schema',
  describe: 'Print the JSON Schema of the config, for editors',
  handler: () => console.log(JSON.stringify(configJsonSchema, null, 2)),
}

const explain: CommandModule<object, CommonArguments> = {
  command: 'explain',
  describe: 'Print every effective value and where it comes from',
  builder: commonOptions,
  handler(args) {
    const { config, sources } = loadConfig(args)
    const rows = leavesOf(config).map((leaf) => ({ ...leaf, source: sources.get(pathText(leaf.path)) ?? 'default' }))
    console.log(rows.map(args.json ? jsonLine : textLine(rows)).join('\n'))
  },
}

export const configCommand: CommandModule = {
  command: 'config',
  describe: 'Check a config, explain it, or print its JSON Schema',
  builder: (yargs) => yargs.command(validate).command(schema).command(explain)
    .demandCommand(1, 'Expected one of: persia config validate, schema, explain'),
  handler: () => {},
}

type Row = Leaf & { source: string }

const jsonLine = ({ path, value, source }: Row) =>
  JSON.stringify({ event: 'config', path: pathText(path), value, source })

/** Aligned columns; a value longer than its column pushes its own line only. */
function textLine(rows: Row[]): (row: Row) => string {
  const pathWidth = Math.max(...rows.map(({ path }) => pathText(path).length))
  const valueWidth = Math.min(40, Math.max(...rows.map(({ value }) => valueText(value).length)))
  return ({ path, value, source }) =>
    `${pathText(path).padEnd(pathWidth)}  ${valueText(value).padEnd(valueWidth)}  ${source}`
}

const valueText = (value: unknown) => (typeof value === 'string' && value !== '' ? value : JSON.stringify(value))
