// Makes the generated part of docs/config.md anew from the schema. Run it after `npm run build:ts`; a test checks the
// result.
import { readFileSync, writeFileSync } from 'node:fs'
import { withGeneratedPart } from '../dist/config/docs.js'

const file = new URL('../docs/config.md', import.meta.url)
writeFileSync(file, withGeneratedPart(readFileSync(file, 'utf8')))
