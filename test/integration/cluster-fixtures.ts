// Clusters as processes: started by the command line, watched through its output.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Trainer, hashIds } from 'persia'
import type { Test } from 'tap'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..')
export const main = join(root, 'dist', 'cli', 'main.js')
export const adult = join(root, 'examples', 'adult-income', 'persia.yml')

/** Options that make the reference model small enough for a test; steps of 1024 samples whatever `nnWorkers`. */
export function small(run: string, more: Record<string, unknown> = {}): string[] {
  const settings = {
    'model.hidden': [64, 32], 'model.optimizer.lr': 0.003, 'checkpoint.dir': run, threads: 2, epochs: 2,
    'cluster.nnWorkers': 2, batchSize: 512, ...more,
  }
  return ['--config', adult, ...Object.entries(settings).flatMap(([key, value]) => ['--set', `${key}=${JSON.stringify(value)}`])]
}

export const twoOfEach = { 'cluster.parameterServers': 2, 'cluster.embeddingWorkers': 2 }

export type Event = Record<string, unknown> & { event: string }

export interface Outcome { status: number | null; stdout: string; stderr: string; events: Event[] }

export const eventsOf = (stdout: string) =>
  stdout.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Event)

export function persia(args: string[], env: NodeJS.ProcessEnv = {}): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', env: { ...process.env, ...env } })
  return { status, stdout, stderr, events: eventsOf(stdout) }
}

/** A command under way. */
export class Running {
  readonly exited: Promise<Outcome>
  stdout = ''
  stderr = ''
  private readonly child: ChildProcess

  constructor(t: Test, args: string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
    this.child.stdout!.on('data', (data: Buffer) => { this.stdout += data.toString() })
    this.child.stderr!.on('data', (data: Buffer) => { this.stderr += data.toString() })
    this.exited = new Promise((resolve) => {
      this.child.on('close', (status) =>
        resolve({ status, stdout: this.stdout, stderr: this.stderr, events: eventsOf(this.stdout) }))
    })
    t.teardown(() => { this.child.kill('SIGKILL') })
  }

  get pid(): number {
    return this.child.pid!
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Waits until its output has what is looked for; fails when it ends without. */
  async until(pattern: RegExp, stream: 'stdout' | 'stderr' = 'stderr'): Promise<RegExpExecArray> {
    let ended = false
    void this.exited.then(() => { ended = true })
    for (;;) {
      const match = pattern.exec(this[stream])
      if (match) return match
      if (ended) throw new Error(`ended without ${pattern}:\n${this.stderr}`)
      await sleep(20)
    }
  }

  /** The processes of its roles, by name, as they joined. */
  pids(): Map<string, number> {
    const joined = this.stderr.matchAll(/coordinator +\| ([a-z-]+ \d+) joined: process (\d+)/g)
    return new Map([...joined].map(([, name, pid]) => [name!, Number(pid)]))
  }
}

export const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Whether a process is there and no zombie. */
export function isAlive(pid: number): boolean {
  if (!existsSync(`/proc/${pid}/stat`)) return false
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

/** Those that are still there after so many seconds, by name. */
export async function leftAfter(pids: Map<string, number>, seconds: number): Promise<string[]> {
  const left = () => [...pids].filter(([, pid]) => isAlive(pid)).map(([name]) => name)
  for (let waited = 0; waited < seconds * 20 && left().length > 0; waited++) await sleep(50)
  return left()
}

/** The values of a snapshot file: the payloads of its blocks, one after another (cpp/checkpoint/snapshot.h). */
export function payloadOf(file: string): Buffer {
  const bytes = readFileSync(file)
  const payloads: Buffer[] = []
  for (let at = 24; ;) {
    const length = bytes.readUInt32LE(at)
    if (length === 0) return Buffer.concat(payloads)
    payloads.push(bytes.subarray(at + 8, at + 8 + length))
    at += 8 + length + 8
  }
}

/**
 * Two checkpoints of the same training have the same weights, rows and states of their optimizers, to 1e-5. `csv` is its
 * data: every id in it must have a row.
 */
export async function checkSameWeights(t: Test, one: string, other: string, csv: string): Promise<void> {
  checkSame(t, tensorsOf(one), tensorsOf(other))
  checkSame(t, await rowsOf(t, one, csv), await rowsOf(t, other, csv))
}

function checkSame(t: Test, ours: Map<string, Float32Array>, theirs: Map<string, Float32Array>): void {
  t.same([...ours.keys()], [...theirs.keys()])
  for (const [name, values] of ours) {
    const there = theirs.get(name)!
    t.ok(values.length > 0 && values.length === there.length, `${name}: as many`)
    t.ok(values.every((value, i) => Math.abs(value - there[i]!) < 1e-5), `${name}: the same`)
  }
}

/** The dense network and the state of its optimizer, by name (cpp/trainer/snapshot_files.cc: WriteDense). */
function tensorsOf(directory: string): Map<string, Float32Array> {
  const bytes = payloadOf(join(directory, 'dense.bin'))
  const tensors = new Map<string, Float32Array>()
  let at = 4
  for (let left = bytes.readUInt32LE(0); left > 0; left--) {
    const nameEnd = at + 4 + bytes.readUInt32LE(at)
    const name = bytes.toString('utf8', at + 4, nameEnd)
    at = nameEnd
    const sides = Array.from({ length: bytes.readUInt32LE(at) }, (_, i) => Number(bytes.readBigUInt64LE(at + 4 + 8 * i)))
    at += 4 + 8 * sides.length
    const count = sides.reduce((product, side) => product * side, 1)
    tensors.set(name, Float32Array.from({ length: count }, (_, i) => bytes.readFloatLE(at + 4 * i)))
    at += 4 * count
  }
  return tensors
}

/** The rows of every id in the data, with the state of the optimizer, by feature. */
async function rowsOf(t: Test, directory: string, csv: string): Promise<Map<string, Float32Array>> {
  const { trainer } = await Trainer.load(directory)
  const [header, ...lines] = csv.trim().split('\n')
  const columns = header!.split(',')
  const table = lines.map((line) => line.split(','))
  const all = new Map<string, Float32Array>()
  for (const feature of Object.keys(trainer.config.features.columns)) {
    const at = columns.indexOf(feature)
    const texts = [...new Set(table.map((fields) => fields[at]!))].filter((text) => text !== '' && text !== '?').sort()
    const { rows, found } = await trainer.table.get(feature, hashIds(texts), { state: true })
    t.ok(found.every(Boolean), `every ${feature} has a row`)
    all.set(feature, rows)
  }
  await trainer.close()
  return all
}
