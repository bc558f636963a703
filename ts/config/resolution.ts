// What comes up while a config is resolved.
import { pathText, type Path } from './path.js'
import { invalid, type Problem } from './problems.js'

/** Where a resolved value comes from when that is not its own path: another path, or a reason. */
export type Origin = { from: Path } | { derived: string }

/** Collects what is wrong, and where resolved values come from (by the text of their path). */
export class Resolution {
  readonly problems: Problem[] = []
  readonly origins = new Map<string, Origin>()

  refuse(path: Path, message: string): void {
    this.problems.push(invalid(path, message))
  }

  note(path: Path, origin: Origin): void {
    this.origins.set(pathText(path), origin)
  }
}
