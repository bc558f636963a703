// Kinds of values that several sections have.
import { z } from 'zod'

export const text = () => z.string().min(1)
export const integer = (least: number, most?: number) =>
  (most === undefined ? z.int().min(least) : z.int().min(least).max(most))
export const fraction = () => z.number().min(0).max(1)

/**
 * A number that the core holds as float32: 0, or so far from where that becomes 0 or infinite that sums and ratios
 * don't get there either.
 */
export const leastFloat = 1e-30
const mostFloat = 1e30
const fitsFloat = (value: number) => value === 0 || (Math.abs(value) >= leastFloat && Math.abs(value) <= mostFloat)
export const float = () => z.number().refine(fitsFloat, {
  abort: true,
  error: ({ input }) =>
    `expected 0 or a number of a size from ${leastFloat} to ${mostFloat} (it is held as float32), got ${input}`,
})
export const aboveZero = () => float().gt(0)
export const atLeastZero = () => float().min(0)
/** Below 1 as a float32 too. */
export const belowOne = () => float().min(0).max(0.9999999)

/** The discriminator of a union: the variant whose type is `orDefault` is also taken when no type is written. */
export const type = <const T extends string>(name: T) => z.literal(name).describe('Which variant')
export const typeOrDefault = <const T extends string>(name: T) =>
  z.literal(name).optional().default(name).describe('Which variant')
