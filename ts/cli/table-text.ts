// What happened in the embedding table, for people: a line of totals and a line a feature group.
import { byteText } from '../config/byte-size.js'
import type { TableCounters } from '../native-types.js'
import { aligned } from './columns.js'
import type { GroupCounters, TableReport } from '../train/table-counters.js'

const mostGroups = 20
const count = (value: number) => value.toLocaleString('en-US')
const share = (part: number, whole: number) => (whole === 0 ? 'n/a' : `${(100 * part / whole).toFixed(1)} %`)

export function tableText(report: TableReport): string {
  const { rows, bytes, lanes, expired, missedUpdates, nonFiniteSkipped } = report
  const unusual = { expired, 'updates without a row': missedUpdates, 'NaN or infinite gradients': nonFiniteSkipped }
  const notes = Object.entries(unusual).filter(([, value]) => value > 0)
    .map(([name, value]) => `, ${count(value)} ${name}`)
  const head = `table: ${count(rows)} rows in ${byteText(bytes)}, index ${share(rows, lanes)} full${notes.join('')}`
  const largest = [...report.groups].sort((a, b) => b.rows - a.rows)
  const lines = largest.slice(0, mostGroups).map((group) => groupCells(group, report.distinct))
  if (largest.length > 1) lines.push(['all', '', ...counterCells(report)])
  const more = largest.length > mostGroups ? [`… and ${largest.length - mostGroups} more feature groups`] : []
  const titles = ['feature group', 'ids ~', 'rows', 'hits', 'inserted', 'evicted', 'refused']
  return [head, ...aligned([titles, ...lines]), ...more].join('\n')
}

function groupCells(group: GroupCounters, distinct: Record<string, number>): string[] {
  const ids = group.features.map((name) => count(Math.round(distinct[name] ?? 0))).join(' + ')
  return [group.features.join(' + '), ids, ...counterCells(group)]
}

const counterCells = ({ rows, hits, misses, inserts, evictions, refused }: TableCounters) =>
  [count(rows), share(hits, hits + misses), count(inserts), count(evictions), count(refused)]
