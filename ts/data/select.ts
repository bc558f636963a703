// What is read of a relation: finds the wanted columns, checks their types, brings them into the kinds that the batcher
// takes, with a query or as the columns of an Arrow file.
//
// Texts stay texts: numbers in them are read natively, with the same rules for every format. Ids are hashed over
// their text, so an integer column of a Parquet file gives the same ids as the same values in a CSV file.
import { closestWord } from '../config/suggest.js'
import { PersiaError } from '../errors.js'
import type { NativeArrowColumn, NativeArrowLayout } from './native-arrow.js'
import type { Relation, RelationColumn } from './relation.js'
import type { DenseColumn, IdColumn, LabelColumn, RowSplit } from './source.js'

export interface WantedColumns {
  ids: IdColumn[]
  dense: DenseColumn[]
  labels: LabelColumn[]
  split?: RowSplit | undefined
}

/**
 * The query from `item`. Columns of its result: ids, dense, labels, then that of the split, if it has one. Of a text
 * file, all columns before the last wanted one follow: DuckDB counts a column that is not valid UTF-8 among all of the
 * file's and looks for its name among those that are read, and fails where it finds none.
 */
export function selectColumns(relation: Relation, wanted: WantedColumns, item: string): string {
  const { ids, dense, labels, split } = castColumns(relation, wanted)
  const taken = [...ids, ...dense, ...labels, ...split]
  const expressions = taken.map(({ column: { reference, type }, as }) =>
    (type === as ? reference : `cast(${reference} as ${as})`))
  return `select ${[...expressions, ...columnsBefore(relation, taken)].join(', ')} from ${item}`
}

/** Of a text file: the columns before the last of these that are none of them. */
function columnsBefore({ columns, text }: Relation, taken: CastColumn[]): string[] {
  if (!text) return []
  const isTaken = new Set(taken.map(({ column }) => column))
  const last = Math.max(...taken.map(({ column }) => columns.indexOf(column)))
  return columns.slice(0, last).filter((column) => !isTaken.has(column)).map(({ reference }) => reference)
}

/** The same of an Arrow file. */
export function arrowLayout(relation: Relation, wanted: WantedColumns): NativeArrowLayout {
  const { ids, dense, labels, split } = castColumns(relation, wanted)
  const place = ({ column, as }: CastColumn): NativeArrowColumn => {
    const kind = as.startsWith('VARCHAR') ? 'text' : as === 'DOUBLE' ? 'number' : 'integer'
    return { column: relation.columns.indexOf(column), kind }
  }
  const [splitBy] = split.map(place)
  return {
    ids: ids.map(place), dense: dense.map(place), labels: labels.map(place), ...(splitBy && { split: splitBy }),
  }
}

/** A column, and the type that its values are handed on as. */
interface CastColumn { column: RelationColumn; as: string }

function castColumns(relation: Relation, { ids, dense, labels, split }: WantedColumns) {
  return {
    ids: ids.map((id) => idColumn(relation, id)),
    dense: dense.map(({ column }) => numberColumn(relation, column)),
    labels: labels.map(({ column, positive }) =>
      (positive === undefined ? numberColumn(relation, column) : textColumn(relation, column))),
    split: splitColumn(relation, split),
  }
}

// Those that fit into 64 bits with a sign.
const smallIntegers = /^(TINYINT|SMALLINT|INTEGER|BIGINT|UTINYINT|USMALLINT|UINTEGER)$/
const numbers = /^(U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|FLOAT|DOUBLE|DECIMAL\(.*\)|BOOLEAN)$/
const textLike = /^(VARCHAR|ENUM\(.*\)|DATE|TIME\b.*|TIMESTAMP.*|UUID)$/
const list = /^(.*)\[\d*\]$/

function splitColumn(relation: Relation, split: RowSplit | undefined): CastColumn[] {
  if (!split || split.by === 'share') return []
  const isNumber = split.by === 'time' && typeof split.from === 'number'
  return [isNumber ? numberColumn(relation, split.column) : textColumn(relation, split.column)]
}

function idColumn(relation: Relation, { name, column: from = name, encoding, slice }: IdColumn): CastColumn {
  const column = findColumn(relation, from)
  const element = list.exec(column.type)?.[1]
  const type = element ?? column.type
  if (!numbers.test(type) && !textLike.test(type)) {
    throw mistyped(relation, column, 'texts or integers, or lists of these')
  }
  const kind = encoding === 'hash' || slice ? 'VARCHAR' : integerKind(type)
  return { column, as: element === undefined ? kind : `${kind}[]` }
}

const integerKind = (type: string) => (smallIntegers.test(type) ? 'BIGINT' : type === 'UBIGINT' ? type : 'VARCHAR')

function numberColumn(relation: Relation, name: string): CastColumn {
  const column = findColumn(relation, name)
  if (numbers.test(column.type)) return { column, as: 'DOUBLE' }
  if (column.type === 'VARCHAR' || column.type.startsWith('ENUM(')) return { column, as: 'VARCHAR' }
  throw mistyped(relation, column, 'numbers')
}

function textColumn(relation: Relation, name: string): CastColumn {
  const column = findColumn(relation, name)
  if (numbers.test(column.type) || textLike.test(column.type)) return { column, as: 'VARCHAR' }
  throw mistyped(relation, column, 'texts')
}

export function findColumn(relation: Relation, name: string): RelationColumn {
  const column = relation.columns.find((candidate) => candidate.name === name)
  if (column) return column
  const known = relation.columns.map((candidate) => candidate.name)
  const near = closestWord(name, known)
  const hint = near === undefined ? `It has: ${known.slice(0, 50).join(', ')}.` : `Did you mean ${near}?`
  throw new PersiaError('PERSIA_DATA_MISSING_COLUMN', `${relation.name} has no column ${name}. ${hint}`,
    { file: relation.name, column: name, columns: known })
}

function mistyped(relation: Relation, column: RelationColumn, expected: string): PersiaError {
  return new PersiaError('PERSIA_DATA_UNREADABLE',
    `${relation.name}, column ${column.name} has the type ${column.type}, expected ${expected}. `
    + (typeof relation.reads === 'function' ? 'Convert it in a query (`sql` instead of `path`).'
      : 'Convert it where the file is written.'), { file: relation.name, column: column.name })
}
