// Parts of compressed text, which is read from front to back, a part after the other.
import { createReadStream } from 'node:fs'
import { createGunzip } from 'node:zlib'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import {
  defaultPartBytes, openPart, partNumber, resultOf, textFormat,
  type FilePiece, type PartContext, type PartResult, type Piece,
} from './prepare-part.js'
import type { Relation } from './relation.js'

// Part n of a compressed file ends with the last line that ends within its first (n + 1) · partBytes bytes of text.
export async function* makeFromStream(
  piece: FilePiece, context: PartContext,
): AsyncGenerator<PartResult, void, undefined> {
  const { partBytes = defaultPartBytes } = context.options
  const { relation } = piece
  const made = madeParts(piece, context)
  const begin = made.at(-1)?.end ?? 0
  const stream = new (native().TextStream)(textFormat(piece, context.options), begin,
    made.length === 0 && relation.text!.header ? 1 : 0)
  let part = made.length
  let writer = openPart(piece, piece.name + partNumber(part), context)
  let linesBefore = 0, fileBytes = 0
  const close = async (): Promise<PartResult> => {
    const native_ = await settling(() => writer.finish())
    const result = resultOf(piece, {
      ...native_, lines: stream.lines - linesBefore, begin: 0, end: stream.position,
      bad: native_.bad.map((bad) => ({ ...bad, line: bad.line - linesBefore })),
    })
    await context.keep(piece.name + partNumber(part), result)
    linesBefore = stream.lines
    part += 1
    return result
  }
  let position = 0
  for await (const { bytes, read } of decompressed(relation)) {
    for (let from = Math.max(0, begin - position); from < bytes.length;) {
      const end = Math.min(bytes.length, (part + 1) * partBytes - position)
      if (end > from) await settling(() => writer.pushText(stream, bytes.subarray(from, end)))
      from = Math.max(from, end)
      if (position + from < (part + 1) * partBytes) continue
      const result = await close()
      context.onProgress(result.rows, 0)
      yield result
      writer = openPart(piece, piece.name + partNumber(part), context)
    }
    position += bytes.length
    context.onProgress(0, read - fileBytes)
    fileBytes = read
  }
  await settling(() => writer.pushText(stream, null))
  const result = await close()
  context.onProgress(result.rows, 0)
  yield result
}

/** The text of a gzip file, in pieces, and how much of the file was read for it. */
async function* decompressed({ path, name }: Relation): AsyncGenerator<{ bytes: Buffer; read: number }> {
  const file = createReadStream(path!, { highWaterMark: 1 << 18 })
  const text = file.pipe(createGunzip({ chunkSize: 1 << 20 }))
  file.on('error', (error) => text.destroy(error))
  try {
    for await (const bytes of text) yield { bytes: bytes as Buffer, read: file.bytesRead }
  } catch (error) {
    if (error instanceof PersiaError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    const why = code === 'Z_BUF_ERROR' ? 'the file is cut off' : `the file is damaged: ${message}`
    throw new PersiaError('PERSIA_DATA_UNREADABLE', `${name} cannot be read: ${why}`, { file: name }, { cause: error })
  } finally {
    file.destroy()
    text.destroy()
  }
}

/** The parts of a piece that are made already, from the first on without a gap. */
function madeParts({ name }: Piece, { done }: PartContext): PartResult[] {
  const parts: PartResult[] = []
  for (let part; (part = done.get(name + partNumber(parts.length)));) parts.push(part)
  return parts
}
