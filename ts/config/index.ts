// The config: read, checked, resolved. The schema (schema.ts) is the one source of options; the rest of this folder
// turns it into values (resolve.ts), messages (problems.ts), sources (explain.ts) and a table for people (docs.ts).
import path from 'node:path'
import { explainSources } from './explain.js'
import { nodesAt, variantsOf } from './key-tree.js'
import { valueAt, withValueAt, type Path } from './path.js'
import { configError, schemaProblems, withoutEchoes, type Problem } from './problems.js'
import { resolveConfig } from './resolve.js'
import { Resolution } from './resolution.js'
import type { Config } from './resolved.js'
import { configSchema, type ConfigInput, type FilledConfig } from './schema.js'
import { applySettings } from './set.js'
import { readConfigFile, type Written } from './written.js'

export { configJsonSchema, type ConfigInput } from './schema.js'
export type { Config, DenseColumn, FeatureColumn, LabelColumn, Task } from './resolved.js'
export { formatByEnding } from './source.js'
export type { DataFormat, FileSource, PreparedSource, Source, SqlSource, SynthSource } from './source.js'
export type { Split } from './split.js'
export { leavesOf, type Leaf } from './explain.js'
export { diffFingerprint, modelFingerprint, type ModelFingerprint } from './fingerprint.js'

export interface ParseOptions {
  /** `key.path=value` settings over the config, as of `--set`. */
  set?: readonly string[]
  /** The file that the config came from, named in messages. */
  file?: string
}

export interface LoadedConfig {
  config: Config
  file: string
  /** The absolute folder of the file: relative data paths start here. */
  baseDir: string
  /** For the path of every leaf of `config`: `default`, `file:line`, `--set` or `derived (why)`. */
  sources: ReadonlyMap<string, string>
}

/** Checks a config and fills in everything that it leaves out. PERSIA_CONFIG_* names all that is wrong. */
export function parseConfig(input: ConfigInput, options?: ParseOptions): Config
export function parseConfig(input: unknown, options?: ParseOptions): Config
export function parseConfig(input: unknown, { set = [], file }: ParseOptions = {}): Config {
  const written: Written = { value: input, places: new Map(), ...(file !== undefined && { file }) }
  return check(applySettings(written, set)).config
}

/** Reads, checks and resolves a YAML file. PERSIA_CONFIG_UNREADABLE when there is none or it is not YAML. */
export function loadConfigFile(file: string, { set = [] }: Pick<ParseOptions, 'set'> = {}): LoadedConfig {
  const written = applySettings(readConfigFile(file), set)
  const { config, resolution } = check(written)
  const sources = explainSources(config, written, resolution)
  return { config, file, baseDir: path.dirname(path.resolve(file)), sources }
}

function check(written: Written): { config: Config; resolution: Resolution } {
  const { filled, problems } = readWhatIsRight(written.value)
  const resolution = new Resolution()
  if (filled) {
    const config = resolveConfig(filled, resolution)
    const { problems: more } = resolution
    problems.push(...more.filter(({ path: at }) => !problems.some((problem) => touch(problem.path, at))))
    if (problems.length === 0) return { config, resolution }
  }
  throw configError(problems, written)
}

const mostRounds = 5

/**
 * All that the schema finds wrong, and the config filled in from the rest, so that the checks behind the schema can
 * speak too. What is wrong is left out; where that leaves a gap that has no default, the map around it goes too.
 */
function readWhatIsRight(value: unknown): { filled?: FilledConfig; problems: Problem[] } {
  const problems: Problem[] = []
  for (let rest = value, round = 0; round < mostRounds; round++) {
    const parsed = configSchema.safeParse(rest)
    if (parsed.success) return { filled: parsed.data, problems }
    const wrong = schemaProblems(parsed.error.issues, rest)
    if (round === 0) problems.push(...withoutEchoes(wrong, value))
    rest = wrong.reduce((left, problem) => without(left, problem.path), rest)
  }
  return { problems }
}

/** `config` without the key at `at`, or without what is around it when there is no such key or it is a list entry. */
function without(config: unknown, at: Path): unknown {
  if (at.length === 0) return config
  if (valueAt(config, at) === undefined || typeof at.at(-1) === 'number') return without(config, at.slice(0, -1))
  const mayBeNull = nodesAt(at, config).flatMap(variantsOf).some(({ type }) => type === 'null')
  return withValueAt(config, at, mayBeNull ? null : undefined)
}

/** Whether one path leads through the other. */
const touch = (a: Path, b: Path) => a.slice(0, b.length).every((part, index) => part === b[index])
