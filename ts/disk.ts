// Files that are complete or absent, and checksummed JSON: what checkpoints and prepared data are made of.
import { constants } from 'node:fs'
import { mkdir, open, readFile, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PersiaError } from './errors.js'
import { native } from './native.js'

/** JSON whose first line holds the checksum of the rest; the same value gives the same text. */
export function sealedJson(value: object): string {
  const body = `${JSON.stringify(value, null, 2).slice(1)}\n`
  return firstLine(body) + body
}

/** What sealedJson made `text` of; undefined when it is damaged. */
export function openSealedJson(text: string): unknown {
  const end = text.indexOf('\n')
  const body = text.slice(end)
  return end >= 0 && text.slice(0, end) === firstLine(body) ? JSON.parse(text) : undefined
}

export const hex = (checksum: bigint) => checksum.toString(16).padStart(16, '0')
const firstLine = (body: string) => `{"checksum":"${hex(native().checksum(Buffer.from(body)))}",`

export async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'w')
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** The file appears, or is replaced, as a whole. */
export async function writeWhole(path: string, text: string): Promise<void> {
  await writeSynced(`${path}.tmp`, text)
  await rename(`${path}.tmp`, path)
  await syncDirectory(dirname(path))
}

export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** A folder, and those above it. Node's own `recursive` never ends where folders can't be made at all, as in /proc. */
export async function makeFolder(path: string): Promise<void> {
  try {
    await makeOne(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || dirname(path) === path) throw error
    await makeFolder(dirname(path))
    await makeOne(path)
  }
}

async function makeOne(path: string): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST' && (await stat(path)).isDirectory()
    if (!isThere) throw error
  }
}

/** Errors of the file system as PERSIA_IO, with the path. */
export async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (error instanceof PersiaError || code === undefined) throw error
    throw new PersiaError('PERSIA_IO', `cannot write ${path}: ${message}`, { file: path }, { cause: error })
  }
}

const lockPollMs = 20
const mostLockAttempts = 50

/**
 * Keeps other processes out of a folder, which is made if need be, until the returned function is called.
 * PERSIA_USAGE names the process that has it and says what to do (`remedy`), PERSIA_IO why it can't be written.
 */
export async function lockFolder(folder: string, remedy: string): Promise<() => Promise<void>> {
  const path = join(folder, '.lock')
  await onDisk(folder, async () => {
    for (let attempt = 0; !(await takesLock(folder, path, remedy, attempt)); attempt++) await sleep(lockPollMs)
  })
  return async () => {
    await rm(path, { force: true })
    await rmdir(folder).catch(() => {})  // only if nothing was written to it
  }
}

/** Whether the lock is this process's now; false where another one came first, which tells its number in a moment. */
async function takesLock(folder: string, path: string, remedy: string, attempt: number): Promise<boolean> {
  await makeFolder(folder)
  const text = await readFile(path, 'utf8').catch(() => undefined)
  const [owner, started] = text?.split(' ') ?? []
  if (owner && started && started === await startOf(owner)) {
    throw new PersiaError('PERSIA_USAGE', `${folder} is in use by process ${owner}. Wait for it, or ${remedy}`,
      { owner })
  }
  if (text === '' && attempt === 0) return false  // being written, unless its process is gone
  if (text !== undefined) await rm(path, { force: true })  // of a process that is gone
  try {
    await writeFile(path, `${process.pid} ${await startOf(process.pid)}`, { flag: 'wx' })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST' && attempt < mostLockAttempts) return false
    throw error
  }
}

/** When a process was started, in clock ticks: with its number it names a process, also where numbers come again. */
async function startOf(pid: number | string): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}
