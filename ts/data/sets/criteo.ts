// Criteo's display advertising data: Kaggle's train.txt, or the days of the 1 TB click logs. Tab-separated, no header:
// label, 13 counts, 26 tokens; empty where missing.
import { names, type DataSetConfig, type Folder } from './folder.js'

export const criteoColumns = {
  labels: ['label'],
  dense: names('I', 13),
  features: { columns: Object.fromEntries(names('C', 26).map((name) => [name, {}])) },
}

export async function criteo(folder: Folder): Promise<DataSetConfig> {
  const train = folder.need('criteo', 'train.txt', 'train.txt.gz', 'train.tsv', 'train.tsv.gz', 'day_0', 'day_0.gz',
    /^first_.*\.tsv/)
  const test = folder.find(/^valid\.(txt|tsv)(\.gz)?$/)
  const days = /day_0(\.gz)?$/.exec(train)
  const { labels, dense, features } = criteoColumns
  const columns = [...labels, ...dense, ...Object.keys(features.columns)]
  const file = (path: string) => ({ path, format: 'tsv' as const, columns })
  return {
    data: {
      train: file(days ? train.replace(/day_0(\.gz)?$/, 'day_*$1') : train),
      ...(test === undefined ? { split: { by: 'share' as const, test: 0.2 } } : { test: file(test) }),
      labels,
      dense,
      transform: 'log1p',
    },
    features,
  }
}
