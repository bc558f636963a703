// What the columns of a source mean, in the words of the native decoder.
import type { NativeDecoderOptions, NativeShare } from './native-batcher.js'
import type { WantedColumns } from './select.js'

export function decoderOptions({ ids, labels, split }: WantedColumns, dense: NativeDecoderOptions['dense'],
  missing: string[], seed: number): NativeDecoderOptions {
  return {
    ids: ids.map(({ name, encoding, separator, slice }) =>
      ({ name, encoding, separator: separator ?? '', ...(slice && { slice }) })),
    dense,
    labels: labels.map(({ column, positive, loss }) =>
      ({ name: column, ...(positive === undefined ? {} : { positive }), probability: loss === 'bce' })),
    missing,
    ...(split?.by === 'hash' && { split: { name: split.column, by: split.by, testShare: split.test, seed } }),
    ...(split?.by === 'time' && { split: { name: split.column, by: split.by, from: split.from } }),
  }
}

export function shareOptions({ split }: WantedColumns, seed: number, stream: number): { share?: NativeShare } {
  return split?.by === 'share' ? { share: { testShare: split.test, seed, stream } } : {}
}
