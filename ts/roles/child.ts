// A role as a process of the launcher's: its output line by line, its last lines, how it ended. It is in a session of
// its own, so that Ctrl-C reaches the launcher alone; it ends with the pipe to its standard input, so that it never
// outlives the launcher, whatever becomes of that.
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { memberName, type Role } from '../control/roles.js'

export interface Exit {
  code: number | null
  signal: NodeJS.Signals | null
}

const main = fileURLToPath(new URL('../cli/main.js', import.meta.url))
const keptLines = 10

export class RoleChild {
  readonly name: string
  readonly exited: Promise<Exit>
  private readonly process: ChildProcess
  private readonly lines: string[] = []

  constructor(readonly place: { role: Role; rank: number }, args: string[], environment: NodeJS.ProcessEnv,
    private readonly onLine: (line: string) => void) {
    this.name = memberName(place)
    this.process = spawn(process.execPath, [main, place.role, '--rank', String(place.rank), '--launched', ...args],
      { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: { ...process.env, ...environment } })
    this.process.stdin?.on('error', () => {})  // of a child that is gone
    const read = [this.readLines(this.process.stdout!), this.readLines(this.process.stderr!)]
    this.exited = new Promise((resolve) => {
      this.process.on('error', (error) => {
        this.take(error.message)
        resolve({ code: 1, signal: null })
      })
      this.process.on('exit', (code, signal) => { void Promise.all(read).then(() => resolve({ code, signal })) })
    })
  }

  get pid(): number | undefined {
    return this.process.pid
  }

  get isRunning(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null
  }

  /** What it wrote last. */
  lastLines(): string[] {
    return [...this.lines]
  }

  kill(): void {
    if (this.isRunning) this.process.kill('SIGKILL')
  }

  private async readLines(stream: Readable): Promise<void> {
    for await (const line of createInterface({ input: stream })) this.take(line)
  }

  private take(line: string): void {
    this.lines.push(line)
    if (this.lines.length > keptLines) this.lines.shift()
    this.onLine(line)
  }
}
