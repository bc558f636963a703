// The data card: what is in prepared data, column by column. Counted natively part by part, put together here.
import { native } from '../native.js'
import type { NativeCard } from './native-data.js'
import type { PreparedColumns } from './prepared-manifest.js'
import type { Statistics } from './statistics.js'

export interface DataCard {
  rows: number
  /** Rows of 0.5 or more, and the mean. */
  labels: Record<string, { positive: number; rate: number | null }>
  /** `distinct` is estimated (HyperLogLog, 1.6 % standard error); `missing` is the share of rows without an id. */
  ids: Record<string, { distinct: number; ids: number; missing: number | null }>
  /** Of the values before transforms that are there; `missing` is the share of rows without one. */
  dense: Record<string, {
    least: number | null; most: number | null; mean: number | null; stddev: number | null; missing: number | null
  }>
}

/** Counts of some rows, as plain JSON: `registers` in base64. */
export interface PartCard {
  ids: { registers: string; ids: number; missing: number }[]
  dense: NativeCard['dense']
  labels: NativeCard['labels']
}

export function partCard({ ids, ...rest }: NativeCard): PartCard {
  return {
    ids: ids.map(({ registers, ...counts }) => ({ registers: Buffer.from(registers).toString('base64'), ...counts })),
    ...rest,
  }
}

/** The counts of several parts together; the order counts for the last bits of means. */
export function mergeCards(cards: readonly PartCard[], columns: PreparedColumns, rows: number):
{ card: DataCard; statistics: Statistics } {
  const share = (part: number) => (rows === 0 ? null : part / rows)
  const named = <T>(names: readonly string[], make: (index: number) => T) =>
    Object.fromEntries(names.map((name, index) => [name, make(index)]))
  const dense = columns.dense.map((_, index) => mergeDense(cards.map((card) => card.dense[index]!)))
  const labels = named(columns.labels.map(({ column }) => column), (index) => {
    const parts = cards.map((card) => card.labels[index]!)
    return { positive: sum(parts.map(({ positive }) => positive)), rate: share(sum(parts.map((part) => part.sum))) }
  })
  const ids = named(columns.ids.map(({ name }) => name), (index) => {
    const parts = cards.map((card) => card.ids[index]!)
    return {
      distinct: Math.round(distinctOf(parts.map(({ registers }) => registers))),
      ids: sum(parts.map((part) => part.ids)),
      missing: share(sum(parts.map(({ missing }) => missing))),
    }
  })
  const card: DataCard = {
    rows, labels, ids,
    dense: named(columns.dense, (index) => {
      const { count, mean, m2, least, most } = dense[index]!
      const missing = share(rows - count)
      if (count === 0) return { least: null, most: null, mean: null, stddev: null, missing }
      return { least, most, mean, stddev: Math.sqrt(m2 / count), missing }
    }),
  }
  const statistics = named(columns.dense, (index) => {
    const { count, mean, m2 } = dense[index]!
    return { mean, stddev: count === 0 ? 0 : Math.sqrt(m2 / count) }
  })
  return { card, statistics }
}

const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)

type Dense = NativeCard['dense'][number]

// Chan, Golub and LeVeque (1979): moments of two sets together.
function mergeDense(parts: Dense[]): Dense {
  return parts.reduce((a, b) => {
    if (a.count === 0) return b
    if (b.count === 0) return a
    const count = a.count + b.count
    const delta = b.mean - a.mean
    return {
      count,
      mean: a.mean + delta * b.count / count,
      m2: a.m2 + b.m2 + delta * delta * a.count * b.count / count,
      least: Math.min(a.least, b.least),
      most: Math.max(a.most, b.most),
    }
  }, { count: 0, mean: 0, m2: 0, least: 0, most: 0 })
}

function distinctOf(sketches: string[]): number {
  const merged = new Uint8Array(Buffer.from(sketches[0] ?? '', 'base64'))
  if (merged.length === 0) return 0
  for (const sketch of sketches.slice(1)) {
    Buffer.from(sketch, 'base64').forEach((rank, i) => { if (rank > merged[i]!) merged[i] = rank })
  }
  return native().distinct(merged)
}
