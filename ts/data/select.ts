// The query for a relation: finds the wanted columns, checks their types, brings them into the kinds that the batcher
// takes.
//
// Texts stay texts: numbers in them are read natively, with the same rules for every format. Ids are hashed over
// their text, so an integer column of a Parquet file gives the same ids as the same values in a CSV file.
import { closestWord } from '../config/suggest.js'
import { PersiaError } from '../errors.js'
import type { Relation, RelationColumn } from './relation.js'
import type { DenseColumn, IdColumn, LabelColumn, RowSplit } from './source.js'

export interface WantedColumns {
  ids: IdColumn[]
  dense: DenseColumn[]
  labels: LabelColumn[]
  split?: RowSplit | undefined
}

/** The columns of the result: ids, dense, labels, then that of the split, if it has one. */
export function selectColumns(relation: Relation, wanted: WantedColumns, reject: boolean): string {
  const expressions = [
    ...wanted.ids.map((id) => idExpression(relation, id)),
    ...wanted.dense.map(({ column }) => numberExpression(relation, column)),
    ...wanted.labels.map(({ column, positive }) =>
      positive === undefined ? numberExpression(relation, column) : textExpression(relation, column)),
    ...splitExpression(relation, wanted.split),
  ]
  return `select ${expressions.join(', ')} from ${relation.from(reject)}`
}

// Those that fit into 64 bits with a sign.
const smallIntegers = /^(TINYINT|SMALLINT|INTEGER|BIGINT|UTINYINT|USMALLINT|UINTEGER)$/
const numbers = /^(U?(TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|FLOAT|DOUBLE|DECIMAL\(.*\)|BOOLEAN)$/
const textLike = /^(VARCHAR|ENUM\(.*\)|DATE|TIME\b.*|TIMESTAMP.*|UUID)$/
const list = /^(.*)\[\d*\]$/

function splitExpression(relation: Relation, split: RowSplit | undefined): string[] {
  if (!split || split.by === 'share') return []
  const isNumber = split.by === 'time' && typeof split.from === 'number'
  return [isNumber ? numberExpression(relation, split.column) : textExpression(relation, split.column)]
}

function idExpression(relation: Relation, { name, column: from = name, encoding, slice }: IdColumn): string {
  const column = findColumn(relation, from)
  const element = list.exec(column.type)?.[1]
  const type = element ?? column.type
  if (!numbers.test(type) && !textLike.test(type)) {
    throw mistyped(relation, column, 'texts or integers, or lists of these')
  }
  const kind = encoding === 'hash' || slice ? 'VARCHAR' : integerKind(type)
  return cast(column, element === undefined ? kind : `${kind}[]`)
}

const integerKind = (type: string) => (smallIntegers.test(type) ? 'BIGINT' : type === 'UBIGINT' ? type : 'VARCHAR')

function numberExpression(relation: Relation, name: string): string {
  const column = findColumn(relation, name)
  if (numbers.test(column.type)) return cast(column, 'DOUBLE')
  if (column.type === 'VARCHAR' || column.type.startsWith('ENUM(')) return cast(column, 'VARCHAR')
  throw mistyped(relation, column, 'numbers')
}

function textExpression(relation: Relation, name: string): string {
  const column = findColumn(relation, name)
  if (numbers.test(column.type) || textLike.test(column.type)) return cast(column, 'VARCHAR')
  throw mistyped(relation, column, 'texts')
}

const cast = (column: RelationColumn, type: string) =>
  column.type === type ? column.reference : `cast(${column.reference} as ${type})`

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
    + 'Convert it in a query (`sql` instead of `path`).', { file: relation.name, column: column.name })
}
