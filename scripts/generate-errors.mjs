// Turns the one catalogue of error codes, cpp/base/error_codes.def, into ts/generated/error-codes.ts.
// Run by `npm run build:ts`; the result is build output and not committed.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'

const root = new URL('..', import.meta.url)
const source = readFileSync(new URL('cpp/base/error_codes.def', root), 'utf8')
const entry = /^PERSIA_ERROR\((\w+), "(\w+)", (true|false), (\d), ("(?:[^"\\]|\\.)*")\)$/gm
const codes = [...source.matchAll(entry)].map(([, , code, retryable, exitCode, meaning]) =>
  `  ${code}: { retryable: ${retryable}, exitCode: ${exitCode}, meaning: ${meaning} },`)
const declared = source.split('\n').filter((line) => line.startsWith('PERSIA_ERROR(')).length
if (codes.length !== declared) {
  throw new Error(`cpp/base/error_codes.def has ${declared} entries, ${codes.length} of them readable: one entry a line, please`)
}

const text = `// Generated from cpp/base/error_codes.def by scripts/generate-errors.mjs. Do not edit.
export const errorCodes = {
${codes.join('\n')}
} as const

export type ErrorCode = keyof typeof errorCodes
`
mkdirSync(new URL('ts/generated/', root), { recursive: true })
writeFileSync(new URL('ts/generated/error-codes.ts', root), text)
