// One data source, resolved: files with their format, or an SQL query. Settings of text files are refused where there
// is no text file to apply them to, rather than ignored.
import { pathText, type Path } from './path.js'
import type { Resolution } from './resolution.js'
import type { FilledConfig } from './schema.js'

export type DataFormat = 'csv' | 'tsv' | 'parquet' | 'arrow'

export interface FileSource {
  path: string[]
  format: DataFormat
  /** csv and tsv only, always there for them. */
  delimiter?: string
  header?: boolean
  /** csv and tsv without a header line: the names of all columns. */
  columns?: string[]
}

export interface SqlSource {
  sql: string
}

export interface PreparedSource {
  prepared: string
}

export interface SynthSource {
  synth: NonNullable<WrittenSource['synth']>
}

export type Source = FileSource | SqlSource | PreparedSource | SynthSource

type WrittenSource = NonNullable<FilledConfig['data']['train']>

const kinds = ['path', 'sql', 'prepared', 'synth'] as const
const textSettings = ['delimiter', 'header', 'columns'] as const
const ending = /\.(?:(csv|tsv)(?:\.(?:gz|zst))?|(parquet)|(arrows?|feather|ipc))$/i

export function resolveSource(written: WrittenSource, path: Path, resolution: Resolution): Source {
  const { path: files, sql, prepared, synth } = written
  const given = kinds.filter((kind) => written[kind] !== undefined)
  if (given.length > 1) resolution.refuse(path, `has ${given.join(' and ')}; keep one of them`)
  if (given.length === 0) resolution.refuse(path, `has none of ${kinds.join(', ')}; one of them is needed`)
  if (files === undefined) {
    const why = sql === undefined ? 'is for files of text' : 'is for files; a query brings its own'
    refuseSettings(written, ['format', ...textSettings], path, why, resolution)
    if (synth) return { synth }
    return prepared === undefined ? { sql: sql ?? '' } : { prepared }
  }
  const paths = typeof files === 'string' ? [files] : files
  return resolveFiles(written, paths, written.format ?? formatOf(paths, path, resolution), path, resolution)
}

function resolveFiles(written: WrittenSource, paths: string[], format: DataFormat, path: Path,
  resolution: Resolution): FileSource {
  if (format === 'parquet' || format === 'arrow') {
    refuseSettings(written, textSettings, path, `is for csv and tsv; ${format} files bring their own`, resolution)
    return { path: paths, format }
  }
  const { columns, delimiter = format === 'csv' ? ',' : '\t', header = columns === undefined } = written
  if (written.delimiter === undefined) resolution.note([...path, 'delimiter'], { derived: `format: ${format}` })
  if (written.header === undefined && columns) {
    resolution.note([...path, 'header'], { derived: pathText([...path, 'columns']) })
  }
  if (/["\r\n]/.test(delimiter)) {
    resolution.refuse([...path, 'delimiter'], 'a quote or a line end cannot separate fields')
  }
  if (header && columns) {
    resolution.refuse([...path, 'header'],
      'columns names the columns of files without a header line; keep header: true or columns')
  }
  if (!header && !columns) {
    resolution.refuse([...path, 'columns'], 'is missing; header: false needs the names of the columns')
  }
  const twice = columns?.find((name, index) => columns.indexOf(name) < index)
  if (twice !== undefined) resolution.refuse([...path, 'columns'], `names the column ${twice} twice`)
  return { path: paths, format, delimiter, header, ...(columns && { columns }) }
}

/** The format that a file's ending says. */
export function formatByEnding(file: string): DataFormat | undefined {
  const match = ending.exec(file)
  return match?.[3] ? 'arrow' : (match?.[1] ?? match?.[2])?.toLowerCase() as DataFormat | undefined
}

/** The format by the file endings; csv to go on with when they don't say, which is refused. */
function formatOf(paths: string[], path: Path, resolution: Resolution): DataFormat {
  const formats = paths.map(formatByEnding)
  const unclear = formats.indexOf(undefined)
  const distinct = [...new Set(formats)]
  resolution.note([...path, 'format'], { derived: 'file ending' })
  if (unclear >= 0) {
    resolution.refuse([...path, 'format'], `is missing, and the ending of ${paths[unclear]} does not say it; `
      + 'expected csv | tsv | parquet | arrow')
  } else if (distinct.length > 1) {
    resolution.refuse([...path, 'path'], `mixes ${distinct.join(' and ')} files; a source has one format`)
  }
  return distinct[0] ?? 'csv'
}

function refuseSettings(written: WrittenSource, keys: readonly (keyof WrittenSource)[], path: Path, why: string,
  resolution: Resolution): void {
  for (const key of keys) if (written[key] !== undefined) resolution.refuse([...path, key], why)
}
