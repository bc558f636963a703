// Finds compressed files that are cut off or damaged. DuckDB takes the end of the bytes for the end of the data, so a
// file that was copied half-way would silently train on half of its rows.
//
// .gz is decompressed a second time, beside the reading, for its checksum and length; .zst has a chain of block headers
// that is followed without decompressing. A file is checked once in a process, unless it changes.
import { createReadStream } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { PersiaError } from '../errors.js'

// What was found, by path, size and time of change.
const checked = new Map<string, string | undefined>()

/** What is wrong with a compressed file; undefined if nothing is, or if it isn't compressed. Rejects when aborted. */
export async function damageOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  const check = path.endsWith('.gz') ? gzipDamage : path.endsWith('.zst') ? zstdDamage : undefined
  if (!check) return undefined
  const { size, mtimeMs } = await stat(path)
  const key = `${path}\0${size}\0${mtimeMs}`
  if (!checked.has(key)) checked.set(key, await check(path, signal))
  return checked.get(key)
}

/** PERSIA_DATA_UNREADABLE when a check has found something. */
export async function throwIfDamaged(name: string, damage: Promise<string | undefined>): Promise<void> {
  const found = await damage
  if (found === undefined) return
  throw new PersiaError('PERSIA_DATA_UNREADABLE', `${name} cannot be read: ${found}`, { file: name })
}

async function gzipDamage(path: string, signal: AbortSignal): Promise<string | undefined> {
  const bytes = createReadStream(path, { highWaterMark: 1 << 18 })
  const gunzip = createGunzip({ chunkSize: 1 << 20 })
  const discard = new Writable({ write: (_bytes, _encoding, done) => done() })
  try {
    await pipeline(bytes, gunzip, discard, { signal })
    return undefined
  } catch (error) {
    signal.throwIfAborted()
    const { code, message } = error as NodeJS.ErrnoException
    return code === 'Z_BUF_ERROR' ? 'the file is cut off' : `the file is damaged: ${message}`
  }
}

// RFC 8878, section 3.1: frames of a header, blocks and an optional checksum; between them skippable frames.
async function zstdDamage(path: string, signal: AbortSignal): Promise<string | undefined> {
  const file = await open(path)
  try {
    const bytes = new Bytes(file)
    while (!(await bytes.atEnd())) {
      signal.throwIfAborted()
      const magic = (await bytes.take(4)).readUInt32LE()
      if (magic === 0xfd2fb528) await skipFrame(bytes)
      else if (magic >>> 4 === 0x184d2a5) bytes.skip((await bytes.take(4)).readUInt32LE())
      else return 'the file is damaged: not in zstd format'
    }
    return (await bytes.overrun()) ? 'the file is cut off' : undefined
  } catch (error) {
    if (error instanceof CutOff) return 'the file is cut off'
    throw error
  } finally {
    await file.close()
  }
}

async function skipFrame(bytes: Bytes): Promise<void> {
  const descriptor = (await bytes.take(1)).readUInt8()
  const singleSegment = (descriptor >> 5) & 1
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number
  const contentSizeBytes = [singleSegment, 2, 4, 8][descriptor >> 6] as number
  bytes.skip((singleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes)
  for (let last = false; !last;) {
    const header = (await bytes.take(3)).readUIntLE(0, 3)
    const isRunLength = ((header >> 1) & 3) === 1
    bytes.skip(isRunLength ? 1 : header >> 3)
    last = (header & 1) === 1
  }
  bytes.skip((descriptor >> 2) & 1 ? 4 : 0)
}

class CutOff extends Error {}

/** Sequential reading with skips, through a window. */
class Bytes {
  private position = 0
  private window = Buffer.alloc(0)
  private windowStart = 0

  constructor(private readonly file: FileHandle) {}

  skip(count: number): void {
    this.position += count
  }

  async take(count: number): Promise<Buffer> {
    if (!(await this.has(count))) throw new CutOff()
    const start = this.position - this.windowStart
    this.position += count
    return this.window.subarray(start, start + count)
  }

  async atEnd(): Promise<boolean> {
    return !(await this.has(1))
  }

  /** Whether a skip led beyond the end of the file. */
  async overrun(): Promise<boolean> {
    return this.position > (await this.file.stat()).size
  }

  private async has(count: number): Promise<boolean> {
    if (this.position >= this.windowStart && this.position + count <= this.windowStart + this.window.length) return true
    const buffer = Buffer.alloc(1 << 16)
    const { bytesRead } = await this.file.read(buffer, 0, buffer.length, this.position)
    this.window = buffer.subarray(0, bytesRead)
    this.windowStart = this.position
    return bytesRead >= count
  }
}
