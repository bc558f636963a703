// The data card for people: a line a column.
import type { PreparedCard } from '../data/prepare.js'
import { aligned } from './columns.js'

const percent = (share: number | null) => (share === null ? 'n/a' : `${(100 * share).toFixed(1)} %`)
const count = (value: number) => value.toLocaleString('en-US')
const number = (value: number | null) => (value === null ? 'n/a' : String(Number(value.toPrecision(4))))

export function cardText({ train, test }: PreparedCard): string {
  const labels = Object.entries(train.labels).map(([name, { rate }]) => {
    const testRate = test?.labels[name]?.rate
    const inTest = testRate === undefined ? '' : `, in the test data ${number(testRate)}`
    return `label ${name}: mean ${number(rate)}${inTest}`
  })
  const ids = Object.entries(train.ids)
    .map(([name, { distinct, ids: all, missing }]) => [name, count(distinct), count(all), percent(missing)])
  const dense = Object.entries(train.dense).map(([name, { least, most, mean, stddev, missing }]) =>
    [name, number(least), number(most), number(mean), number(stddev), percent(missing)])
  return [
    `training rows: ${count(train.rows)}${test ? `, test rows: ${count(test.rows)}` : ''}`, ...labels,
    ...aligned([['ids', 'distinct ~', 'ids in all', 'missing'], ...ids]),
    ...(dense.length > 0 ? aligned([['dense', 'least', 'most', 'mean', 'stddev', 'missing'], ...dense]) : []),
  ].join('\n')
}
