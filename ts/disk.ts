// Files that are complete or absent, and checksummed JSON: what checkpoints and prepared data are made of.
import { constants } from 'node:fs'
import { mkdir, open, rename, rm, rmdir, stat, type FileHandle } from 'node:fs/promises'
import { hostname } from 'node:os'
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
const lockOwnerPolls = 50

/**
 * Keeps other processes out of a folder, which is made if need be, until the returned function is called. The lock is the
 * system's, on an open file: it ends with its process, and holds between containers and, on shared file systems, hosts.
 * PERSIA_USAGE names the process that has it and says what to do (`remedy`), PERSIA_IO why it can't be written.
 */
export async function lockFolder(folder: string, remedy: string): Promise<() => Promise<void>> {
  const path = join(folder, '.lock')
  const file = await onDisk(folder, async () => {
    for (;;) {
      const taken = await takeLock(folder, path, remedy)
      if (taken) return taken
    }
  })
  return async () => {
    await rm(path, { force: true })
    await rmdir(folder).catch(() => {})  // only if nothing was written to it
    await file.close()
  }
}

/** The file that this process has locked now; undefined where its last owner took it away meanwhile. */
async function takeLock(folder: string, path: string, remedy: string): Promise<FileHandle | undefined> {
  await makeFolder(folder)
  let file
  try {
    file = await open(path, 'a+')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined  // with its folder
    throw error
  }
  try {
    if (!native().tryLock(file.fd)) throw await inUse(folder, file, remedy)
    if ((await file.stat()).ino === (await stat(path).catch(() => undefined))?.ino) {
      await file.truncate()
      await file.writeFile(`${process.pid} ${hostname()}`)
      return file
    }
  } catch (error) {
    await file.close()
    throw error
  }
  await file.close()
  return undefined
}

async function inUse(folder: string, file: FileHandle, remedy: string): Promise<PersiaError> {
  let text = ''
  for (let poll = 0; text === '' && poll < lockOwnerPolls; poll++) {  // it writes its number right after it has the lock
    if (poll > 0) await sleep(lockPollMs)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(300), 0, 300, 0)
    text = buffer.toString('utf8', 0, bytesRead)
  }
  const [owner = '', host = ''] = text.split(' ')
  const where = host === '' || host === hostname() ? '' : ` on ${host}`
  return new PersiaError('PERSIA_USAGE', `${folder} is in use by ${owner ? `process ${owner}` : 'another process'}${where}. `
    + `Wait for it, or ${remedy}`, { owner })
}
