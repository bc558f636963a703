// The config that everything runs with: what resolve.ts makes of what the schema has filled in.
import type { EarlyStopping, NegativeSampling } from './evaluation.js'
import type { FilledConfig } from './schema.js'
import type { Source } from './source.js'
import type { Split } from './split.js'

export interface LabelColumn {
  column: string
  /** The text that means 1. Without it the column holds numbers. */
  positive?: string
}

export interface DenseColumn {
  column: string
  transform: 'none' | 'log1p' | 'standardize'
  /** A raw value that stands for a missing one, or `auto`: 0 after the transform. */
  missing: number | 'auto'
}

export interface FeatureColumn {
  /** Where it is read from, if that is not the column of its name. */
  column?: string
  /** The bytes of a text that count: from, to. */
  slice?: [number, number]
  dim: number
  pooling: 'sum' | 'mean' | 'sqrt' | 'max' | 'last' | 'none'
  encoding: 'hash' | 'integer'
  separator?: string
  sequenceLength?: number
  mask?: boolean
  hashStack?: { rounds: number; buckets: number }
  frozen?: boolean
}

export interface Task {
  label: string
  loss: 'bce' | 'mse'
  weight: number
  positiveWeight: number
}

/** Plain JSON, nothing left to derive. */
export interface Config extends Omit<FilledConfig, 'data' | 'features' | 'model' | 'evaluate'> {
  data: Omit<FilledConfig['data'], 'train' | 'test' | 'split' | 'labels' | 'dense' | 'negativeSampling'> & {
    train?: Source
    /** With a split, the same as `train`. */
    test?: Source
    split?: Split
    labels: LabelColumn[]
    dense: DenseColumn[]
    negativeSampling?: NegativeSampling
  }
  features: Omit<FilledConfig['features'], 'columns' | 'groups'> & {
    /** In the order of the embedding matrix: the order of its keys. */
    columns: Record<string, FeatureColumn>
    /** Every feature is in exactly one; the place of a group is its number. */
    groups: string[][]
  }
  model: Omit<FilledConfig['model'], 'tasks'> & {
    /** Task i predicts label i. */
    tasks: Task[]
  }
  evaluate: Omit<FilledConfig['evaluate'], 'earlyStopping'> & { earlyStopping?: EarlyStopping }
}
