// `data`: where the samples come from.
import { z } from 'zod'
import { integer, text } from './kinds.js'

const synth = z.strictObject({
  like: z.enum(['criteo', 'avazu', 'taobao', 'criteo-syn'])
    .describe('The data set whose fields, cardinalities, skew and click rate it has; `criteo-syn`: that of Criteo with '
      + '`ids` as many as you like'),
  rows: integer(1).describe('Rows of a pass'),
  firstRow: integer(0).default(0).describe('Number of the first row: training and test data are other rows'),
  ids: integer(0).default(0).describe('Distinct ids in all features together; 0: as many as the data set has'),
  seed: integer(0).default(0).describe('Of the rows and of the hidden model that decides the labels'),
})

const source = z.strictObject({
  path: z.union([text(), z.array(text()).min(1)]).optional()
    .describe("File, glob, or list of these; relative to the config file's folder. One of `path`, `sql`, `prepared` "
      + 'and `synth`'),
  sql: text().optional().describe('A DuckDB query whose result is the data'),
  prepared: text().optional()
    .describe('Folder that `persia data prepare` has written: `train` or `test` in its output'),
  synth: synth.optional().describe('Synthetic data, made while training'),
  format: z.enum(['csv', 'tsv', 'parquet', 'arrow']).optional()
    .describe('Format of the files. Without it: by the file ending, also before `.gz` and `.zst`'),
  delimiter: z.string().length(1).optional()
    .describe('csv and tsv: the character between fields. Without it: `,` for csv, a tab for tsv'),
  header: z.boolean().optional()
    .describe('csv and tsv: whether the first line names the columns. Without it: true, or false where `columns` is '
      + 'given'),
  columns: z.array(text()).min(1).optional()
    .describe('csv and tsv: the names of the columns of files without a header line'),
})

const label = z.union([
  text(),
  z.strictObject({
    column: text().describe('Column of the label'),
    positive: z.string().optional()
      .describe('The text that means 1; all other texts mean 0. Without it the column holds numbers'),
  }),
])

const transform = z.enum(['none', 'log1p', 'standardize'])

const dense = z.union([
  text(),
  z.strictObject({
    column: text().describe('A numeric column'),
    transform: transform.optional().describe('As `data.transform`, for this column'),
    missing: z.union([z.number(), z.literal('auto')]).default('auto')
      .describe('What stands for a missing value: a raw number, transformed like any other; `auto`: 0 after the '
        + 'transform (with standardize that is the mean)'),
  }),
])

const negativeSampling = z.strictObject({
  keep: z.number().gt(0).max(1)
    .describe('Share of the negatives (label below 0.5) that a pass over the training data keeps; another choice in '
      + 'each epoch'),
  label: text().optional().describe('The label whose negatives are meant. Without it: the label of the only bce task'),
})

const split = z.strictObject({
  by: z.enum(['share', 'hash', 'time']).default('share')
    .describe('What decides which rows are test data; `share`: a draw for each row, `hash`: one for each value of '
      + '`column`, `time`: whether `column` is `from` or later'),
  test: z.number().gt(0).lt(1).optional().describe('share and hash: the part of the rows, or of the values'),
  column: text().optional().describe('hash and time: the column, which need not be one of the model'),
  from: z.union([z.number(), text()]).optional()
    .describe('time: the first value of the test data. A number compares with numbers, a text with texts, byte by '
      + 'byte'),
})

const shuffle = z.strictObject({
  buffer: integer(0, 2 ** 24).default(65536)
    .describe('Rows that are shuffled with each other, a run of so many at a time; 0: rows keep their order'),
  files: z.boolean().default(true).describe('Whether files, or shards of prepared data, come in another order'),
})

export const data = z.strictObject({
  train: source.optional().describe('What the model is trained on'),
  test: source.optional().describe('What the model is evaluated on'),
  split: split.optional()
    .describe('Divides `data.train` into training and test data, in place of `data.test`; the draws depend on `seed`'),
  shuffle: shuffle.optional()
    .describe('The order of the training data is drawn anew in each epoch, from `seed`. Without it rows come in the '
      + 'order of the data'),
  labels: z.array(label).min(1).describe('Label columns, one per task: the name, or a map'),
  dense: z.array(dense).default([])
    .describe('Numeric columns that go to the dense network as they are: the name, or a map'),
  transform: transform.default('none')
    .describe('Of all dense columns: `log1p` is sign(x) · log(1 + |x|), `standardize` is (x - mean) / standard '
      + 'deviation of the training data'),
  missing: z.array(z.string()).default(['']).describe('Texts that mean "no value", in every column'),
  onBadRow: z.enum(['fail', 'skip']).default('fail')
    .describe('A row that cannot be read: stop and name it, or leave it out and count it'),
  negativeSampling: negativeSampling.optional()
    .describe('Training on all positives and a share of the negatives. Predictions for the label are corrected for it, '
      + 'in evaluation too'),
})
