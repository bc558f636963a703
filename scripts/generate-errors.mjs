// Turns the one catalogue of error codes, cpp/base/error_codes.def, into ts/generated/error-codes.ts (build output, not
// committed) and docs/errors.md. Run by `npm run build:ts`.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'

const root = new URL('..', import.meta.url)
const source = readFileSync(new URL('cpp/base/error_codes.def', root), 'utf8')
const entry = /^PERSIA_ERROR\((\w+), "(\w+)", (true|false), (\d), ("(?:[^"\\]|\\.)*")\)$/gm
const codes = [...source.matchAll(entry)].map(([, , code, retryable, exitCode, meaning]) => ({ code, retryable, exitCode, meaning }))
const declared = source.split('\n').filter((line) => line.startsWith('PERSIA_ERROR(')).length
if (codes.length !== declared) {
  throw new Error(`cpp/base/error_codes.def has ${declared} entries, ${codes.length} of them readable: one entry a line, please`)
}

mkdirSync(new URL('ts/generated/', root), { recursive: true })
writeFileSync(new URL('ts/generated/error-codes.ts', root), `// Generated from cpp/base/error_codes.def by scripts/generate-errors.mjs. Do not edit.
export const errorCodes = {
${codes.map(({ code, retryable, exitCode, meaning }) =>
  `  ${code}: { retryable: ${retryable}, exitCode: ${exitCode}, meaning: ${meaning} },`).join('\n')}
} as const

export type ErrorCode = keyof typeof errorCodes
`)
writeFileSync(new URL('docs/errors.md', root), `# Errors

Every error is a \`PersiaError\` with a \`code\`, a message that says what was expected, where, what came and what to do, and \`details\`
for programs. The command line prints code and message to standard error and ends with the exit code: 1 failure, 2 bad usage,
config or data (nothing was changed).

| code | exit code | meaning |
|---|---|---|
${codes.map(({ code, exitCode, meaning }) => `| \`${code}\` | ${exitCode} | ${JSON.parse(meaning).replaceAll('|', '\\|')} |`).join('\n')}

<!-- Generated from cpp/base/error_codes.def by scripts/generate-errors.mjs. -->
`)
