// Log lines of long-running commands, on standard error, with the time in front.
import type { Printer } from './printer.js'

export function timedLog(printer: Printer): (line: string) => void {
  return (line) => printer.log(`${new Date().toISOString().slice(11, 23)} ${line}`)
}
