// `evaluate`: evaluation during training.
import { z } from 'zod'
import { atLeastZero, integer, text } from './kinds.js'

const earlyStopping = z.strictObject({
  metric: text().default('auc').describe('`auc`, `gauc`, `logloss`, `mse`, or the name of a metric of your own'),
  label: text().optional().describe('Whose metric. Without it: the first label that has it'),
  mode: z.enum(['max', 'min']).optional()
    .describe('Whether more or less is better. Without it: max for auc and gauc, min for logloss and mse'),
  patience: integer(1).default(3)
    .describe('Evaluations in a row without a better value after which training ends'),
  minChange: atLeastZero().default(0).describe('A value is better if it differs from the best one by more than this'),
})

export const evaluate = z.strictObject({
  everySteps: integer(0).default(0)
    .describe('Steps between two evaluations on the test data while training; 0: only after each epoch'),
  groupBy: text().optional()
    .describe("An id column. AUC is then also taken over the samples of each of its ids and averaged, weighted by "
      + 'samples (GAUC); needs a bce task'),
  earlyStopping: earlyStopping.optional()
    .describe('Ends training when evaluations stop getting better, and keeps the checkpoint of the best one'),
}).prefault({}).describe('Evaluation during training')
