// What is said about a command line that can't be understood. yargs finds that something is wrong with it; this says
// what was meant.
import { closestWord, sameWord } from '../config/suggest.js'

/** Names that are there: all commands, and the options of the one that was given. */
export interface Known { commands: readonly string[]; options: readonly string[] }

/**
 * yargs' message about `words`, or a better one. An option that does not exist comes before those that are missing: it
 * is likely one of them, misspelt.
 */
export function usageText(message: string, words: readonly string[], known: Known): string {
  const ofOptions = /^(Unknown|Missing required) argument/.test(message)
  const text = unknownCommand(words, known) ?? (ofOptions ? unknownOption(words, known) : undefined) ?? message
  return `${text}${/[.?!]$/.test(text) ? '' : '.'} See persia --help, or persia <command> --help.`
}

function unknownCommand([first]: readonly string[], { commands }: Known): string | undefined {
  if (first === undefined || first.startsWith('-') || commands.includes(first)) return undefined
  return `Unknown command ${first}${meant('', first, commands)}`
}

function unknownOption(words: readonly string[], { options }: Known): string | undefined {
  const names = words.filter((word) => word.startsWith('--')).map((word) => word.slice(2).split('=')[0]!)
  const unknown = names.find((name) => name !== '' && !isOption(name, options))
  return unknown === undefined ? undefined : `Unknown option --${unknown}${meant('--', unknown, options)}`
}

const isOption = (name: string, options: readonly string[]) =>
  [name, name.replace(/^no-/, '')].some((spelling) => sameWord(spelling, options) !== undefined)

function meant(prefix: string, word: string, known: readonly string[]): string {
  const closest = closestWord(word, known)
  return closest === undefined ? '' : `; did you mean ${prefix}${closest}?`
}
