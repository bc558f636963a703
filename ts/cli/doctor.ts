// `persia doctor`: what is installed, what was found and what is missing, for people and for bug reports.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { freemem, totalmem } from 'node:os'
import type { CommandModule } from 'yargs'
import { PersiaError } from '../errors.js'
import { loadAddon, native } from '../native.js'

interface Check { name: string; ok: boolean; found: string }

export const doctorCommand: CommandModule<object, { json: boolean }> = {
  command: 'doctor',
  describe: 'Check the installation',
  builder: (yargs) => yargs.option('json', { type: 'boolean', default: false, describe: 'One JSON object a line' }),
  async handler({ json }) {
    const checks = [package_(), node(), addon(), ...cuda(), ...transports(), await duckdb(), memory()]
    for (const check of checks) {
      process.stdout.write(json ? `${JSON.stringify({ event: 'check', ...check })}\n`
        : `${check.ok ? 'ok  ' : 'FAIL'}  ${check.name.padEnd(8)}  ${check.found}\n`)
    }
    if (checks.some(({ ok }) => !ok)) process.exitCode = 1
  },
}

function package_(): Check {
  const { version } = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  ) as { version: string }
  return { name: 'persia', ok: true, found: version }
}

function node(): Check {
  return { name: 'node', ok: true, found: `${process.version} on ${process.platform}-${process.arch}` }
}

function addon(): Check {
  try {
    const { addon: loaded, path } = loadAddon()
    const { cores, avx2, avx512bf16, amx } = loaded.machine()
    const bf16 = amx ? 'bf16 by AMX' : avx512bf16 ? 'bf16 by AVX-512' : 'no bf16'
    const cpu = `${cores} cores, ${avx2 ? 'AVX2' : 'no AVX2: slow'}, ${bf16}`
    return { name: 'addon', ok: true, found: `${path}; ${cpu}` }
  } catch (error) {
    if (!(error instanceof PersiaError)) throw error
    return { name: 'addon', ok: false, found: error.message }
  }
}

/** What GPUs there are; a machine without one is no failure. Nothing when the addon itself does not load. */
function cuda(): Check[] {
  let found
  try {
    const { path, devices, error } = native().cuda()
    const list = devices.map(({ name, capability, memoryBytes }) =>
      `${name} (${gib(memoryBytes)} GiB, compute capability ${capability})`)
    found = error ? `none: ${error}` : `${list.join(', ')}; ${path}`
  } catch (cause) {
    if (cause instanceof PersiaError) return []
    throw cause
  }
  return [{ name: 'cuda', ok: true, found }]
}

/**
 * What carries data between the processes of a cluster, and what `cluster.transport: auto` takes. One process needs none
 * of it, so nothing here is a failure.
 */
function transports(): Check[] {
  let lines: string[]
  try {
    lines = native().describeTransports().split('\n')
  } catch (cause) {
    if (cause instanceof PersiaError) return []
    throw cause
  }
  const found = new Map(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 2)]))
  const checks = [...found].map(([name, text]) => ({ name, ok: true, found: text }))
  return [...checks, { name: 'cluster', ok: true, found: choiceText(found) }]
}

/** By the rule of cpp/net/transport_choice.h, as far as one side can tell. */
function choiceText(found: Map<string, string>): string {
  const works = (name: string) => found.get(name)?.startsWith('works') ?? false
  const oneHost = works('shm') ? 'shm, since memory can be shared' : 'tcp, since shared memory does not work'
  const hosts = works('rdma') ? 'rdma where the other side has a device too, else tcp' : 'tcp, since there is no rdma here'
  return `transport auto takes ${oneHost}, between processes of this host; to other hosts ${hosts}`
}

async function duckdb(): Promise<Check> {
  try {
    createRequire(import.meta.url).resolve('@duckdb/node-api')
    const { version } = await import('@duckdb/node-api')
    return { name: 'duckdb', ok: true, found: version() }
  } catch (error) {
    return { name: 'duckdb', ok: false, found: (error as Error).message }
  }
}

function memory(): Check {
  return { name: 'memory', ok: true, found: `${gib(freemem())} GiB free of ${gib(totalmem())} GiB` }
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1)
}
