// The counters of the embedding tables under the names of the config: by row class (dim and optimizer), by feature
// group, and all together.
import type { Config } from '../config/index.js'
import type { NativeCounters, TableCounters } from '../native-types.js'
import { nativeFeatures, rowClasses } from './native-config.js'

/** Of one feature group. */
export interface GroupCounters extends TableCounters {
  features: string[]
}

/** Of the table of one row class. `lanes` and `bytes` of a group are its share by rows. */
export interface RowClassCounters extends TableCounters {
  dim: number
  /** The groups with features of this row class; `features` are those. */
  groups: GroupCounters[]
  /**
   * By feature of this row class: an estimate of the distinct ids seen in training, before a checkpoint that was loaded
   * too.
   */
  distinct: Record<string, number>
}

/** Of all tables together, for reports. */
export interface TableReport extends TableCounters {
  groups: GroupCounters[]
  distinct: Record<string, number>
}

export function rowClassCounters({ tables, distinct }: NativeCounters, config: Config): RowClassCounters[] {
  const { features } = config
  const columns = nativeFeatures(config).map((feature, index) => ({ ...feature, distinct: distinct[index]! }))
  return rowClasses(columns).map((members, rowClass) => {
    const { groups, ...counters } = tables[rowClass]!
    const { dim } = members[0]!
    const ofGroups = features.groups.flatMap((names, group) => {
      const here = members.flatMap(({ name }) => (names.includes(name) ? [name] : []))
      return here.length > 0 ? [{ features: here, ...groups[group]! }] : []
    })
    // What is counted are rows; those of a hash stack are buckets, not ids.
    const distinctOf = Object.fromEntries(
      members.flatMap(({ name, distinct, hashRounds }) => (hashRounds > 0 ? [] : [[name, distinct]])))
    return { dim, ...counters, groups: ofGroups, distinct: distinctOf }
  })
}

/** Sums over the row classes; a group that has features of several dims comes once. */
export function tableReport(classes: RowClassCounters[], { features }: Config): TableReport {
  const groups = features.groups.map((names) => {
    const parts = classes.flatMap((one) => one.groups).filter((group) => names.includes(group.features[0]!))
    return { features: names, ...sum(parts) }
  })
  const distinct = Object.assign({}, ...classes.map((one) => one.distinct)) as Record<string, number>
  return { ...sum(classes), groups, distinct }
}

const none: TableCounters = {
  rows: 0, bytes: 0, lanes: 0, hits: 0, misses: 0, inserts: 0, evictions: 0, expired: 0, refused: 0, missedUpdates: 0,
  nonFiniteSkipped: 0,
}

function sum(parts: TableCounters[]): TableCounters {
  const total = { ...none }
  for (const key of Object.keys(none) as (keyof TableCounters)[]) {
    for (const part of parts) total[key] += part[key]
  }
  return total
}
