// `features`: the id columns.
import { z } from 'zod'
import { integer, text } from './kinds.js'

const dim = integer(1, 65536)
const pooling = z.enum(['sum', 'mean', 'sqrt', 'max', 'last', 'none'])
const encoding = z.enum(['hash', 'integer'])

export const features = z.strictObject({
  defaults: z.strictObject({
    dim: dim.default(8).describe('Floats in an embedding row'),
    pooling: pooling.default('sum')
      .describe('How the rows of several ids become one vector; `sqrt`: the sum divided by the square root of their '
        + 'number; `max`: float by float the largest; `last`: that of the last id; `none`: not at all, `sequenceLength` vectors lie side by side'),
    encoding: encoding.default('hash')
      .describe('How a value becomes an id; `hash`: XXH64 of its text, `integer`: the value is the id'),
    separator: text().optional()
      .describe('Text that splits a value into several ids. Without it a value is one id'),
  }).prefault({}).describe('What holds for every feature that does not say otherwise'),
  columns: z.record(text(), z.strictObject({
    dim: dim.optional().describe('As `features.defaults.dim`, for this feature'),
    pooling: pooling.optional().describe('As `features.defaults.pooling`, for this feature'),
    encoding: encoding.optional().describe('As `features.defaults.encoding`, for this feature'),
    separator: text().optional().describe('As `features.defaults.separator`, for this feature'),
    sequenceLength: integer(1, 65536).optional()
      .describe('How many ids of a sample count, the last ones; places that a sample does not fill are masked (pooling '
        + 'none: zeros). Without it all count'),
    mask: z.boolean().optional()
      .describe('pooling none: whether the network also gets a 0 or 1 for each of the `sequenceLength` places, 1 where '
        + 'an id fills it; they count as dense columns of the model'),
    hashStack: z.strictObject({
      rounds: integer(1, 16).default(2).describe('Rows that an id is the sum of'),
      buckets: integer(1).describe('Rows of a round'),
    }).optional().describe('Instead of a row for each id, rounds × buckets rows in all: ids share rows, but hardly any '
      + 'two share all of theirs'),
    frozen: z.boolean().optional().describe('Whether its rows keep their values: new ids get rows, none is trained'),
    column: text().optional().describe('Column that the feature is read from. Without it the one of its name'),
    slice: z.tuple([integer(0), integer(1)]).optional()
      .describe('Of a text only the bytes from the first number up to before the second count: `[6, 8]` of `14102107` '
        + 'is `07`'),
  }).nullable()).refine((columns) => Object.keys(columns).length > 0, 'at least one id column is needed')
    .describe('The id columns, by name'),
  groups: z.array(z.array(text()).min(1)).default([])
    .describe('Features that share one index space: the same id is the same row (of equal dim). Others have one of '
      + 'their own'),
  prefixBits: integer(1, 32).default(8)
    .describe('Bits of a sign that tell the feature groups apart; n bits are enough for 2^n - 1 groups'),
})
