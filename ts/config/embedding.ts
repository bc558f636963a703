// What the options of `embedding` need of other sections.
import { pathText, type Path } from './path.js'
import { unknownName } from './problems.js'
import type { Resolution } from './resolution.js'
import type { FilledConfig } from './schema.js'

export function checkEmbedding(
  { embedding, features, deterministic }: FilledConfig, groups: string[][], resolution: Resolution,
): void {
  for (const [key, what] of [['groupCapacity', 'capacity'], ['groupOptimizer', 'optimizer']] as const) {
    checkGroupNames(Object.keys(embedding[key]), ['embedding', key], what, features, groups, resolution)
  }
  if (deterministic && embedding.timeToLiveSeconds > 0) {
    resolution.refuse(['embedding', 'timeToLiveSeconds'],
      'rows that age by the clock make no two runs alike; leave it out, or set deterministic: false')
  }
}

/** Settings of groups, each named by one of its features. */
function checkGroupNames(names: string[], at: Path, what: string, { columns }: FilledConfig['features'],
  groups: string[][], resolution: Resolution): void {
  const namedBy = new Map<string[], string>()
  for (const name of names) {
    const path = [...at, name]
    const group = groups.find((members) => members.includes(name))
    const other = group && namedBy.get(group)
    if (!group) {
      resolution.problems.push(unknownName(path, 'a column of features.columns', name, Object.keys(columns)))
    } else if (other !== undefined) {
      const first = pathText([...at, other])
      resolution.refuse(path, `${name} is in one group with ${other}, which has its ${what} already (${first})`)
    } else {
      namedBy.set(group, name)
    }
  }
}
