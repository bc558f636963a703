// Options that optimizers of rows and of the dense network have alike.
import { z } from 'zod'
import { aboveZero, atLeastZero, belowOne } from './kinds.js'

export const lr = (value: number) => atLeastZero().default(value).describe('Learning rate')
export const momentum = () => belowOne().default(0).describe('Momentum')
const weightDecay = (value: number, how: string) => atLeastZero().default(value).describe(`Weight decay, ${how}`)
export const l2 = () => weightDecay(0, 'added to the gradient (L2)')
export const eps = (value: number) => aboveZero().default(value).describe('Added to the denominator')
export const betas = () => z.tuple([belowOne(), belowOne()]).default([0.9, 0.999])
  .describe('Decay rates of the first and second moment')
export const decoupled = () => weightDecay(0.01, 'decoupled from the gradient')
