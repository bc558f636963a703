// What somebody meant: the known word nearest to a misspelt one. Case, `_` and `-` don't count, so batch_size finds
// batchSize.
import { distance } from 'fastest-levenshtein'

const plain = (word: string) => word.toLowerCase().replace(/[_\-\s]/g, '')

/** The word of `known` that is the same but for case and separators. */
export function sameWord(word: string, known: readonly string[]): string | undefined {
  return known.find((candidate) => plain(candidate) === plain(word))
}

/** The word of `known` nearest to `word` by edit distance, or one that begins like it; undefined when none is near. */
export function closestWord(word: string, known: readonly string[]): string | undefined {
  const wanted = plain(word)
  const most = wanted.length < 2 ? 0 : wanted.length <= 3 ? 1 : wanted.length <= 6 ? 2 : 3
  let best: string | undefined
  let bestDistance = most + 1
  for (const candidate of known) {
    const edits = distance(wanted, plain(candidate))
    if (edits < bestDistance) [best, bestDistance] = [candidate, edits]
  }
  return best ?? known.find((candidate) => sharesBeginning(wanted, plain(candidate)))
}

function sharesBeginning(a: string, b: string): boolean {
  return Math.min(a.length, b.length) >= 3 && (a.startsWith(b) || b.startsWith(a))
}
