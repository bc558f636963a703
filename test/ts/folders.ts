// Folders of tests: temporary ones, and what is in one.
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

/** An empty folder that is gone after the test. */
export function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'persia-test-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** A hash of each file below a folder, by its path in there. */
export function contents(directory: string, below = ''): Record<string, string> {
  return Object.fromEntries(readdirSync(join(directory, below)).sort().flatMap((name) => {
    const path = join(below, name)
    if (statSync(join(directory, path)).isDirectory()) return Object.entries(contents(directory, path))
    return [[path, createHash('sha256').update(readFileSync(join(directory, path))).digest('hex')]]
  }))
}
