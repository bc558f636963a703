// A reporter for `node --test` that counts tests as people name them: one line for each top-level test, and what failed in
// it. (tap turns every assertion into a test of its own, which drowns them.) The last line is the tally that ci/test reads.
import { inspect } from 'node:util'

export default async function * report(events) {
  const tally = { passed: 0, failed: 0, skipped: 0 }
  for await (const { type, data } of events) {
    if (type === 'test:stderr' || type === 'test:stdout') yield data.message
    if (type !== 'test:pass' && type !== 'test:fail') continue
    const outcome = outcomeOf(type, data)
    if (data.nesting === 0 || outcome === 'skipped') tally[outcome]++
    if (data.nesting === 0 || outcome !== 'passed') yield line(outcome, data)
  }
  yield `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped\n`
}

function outcomeOf(type, { skip, todo }) {
  if (skip !== undefined || todo !== undefined) return 'skipped'
  return type === 'test:pass' ? 'passed' : 'failed'
}

function line(outcome, { name, nesting, details, skip, todo, file }) {
  const head = `${'  '.repeat(nesting)}${{ passed: 'ok     ', failed: 'FAILED ', skipped: 'skipped' }[outcome]} ${name}`
  if (outcome === 'passed') return `${head} (${Math.round(details.duration_ms)} ms)\n`
  if (outcome === 'skipped') return `${head}: ${skip || todo}\n`
  // Failed assertions carry the diagnosis; the tests around them only say that something inside failed.
  return `${head}\n${details.error.failureType === 'subtestsFailed' ? '' : `${inspect(details.error.cause ?? details.error)}\n`}` +
    (nesting === 0 && file ? `  in ${file}\n` : '')
}
