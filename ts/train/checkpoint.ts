// Checkpoints on disk: a folder a step, under the folder of the run.
//
//   checkpoints/
//     96/manifest.json   step, position, config, statistics, list of files; its first line is the checksum of the rest
//        pipeline.bin dense.bin embedding-0.bin …   cpp/checkpoint/snapshot.h, cpp/trainer/trainer_snapshot.cc
//     latest             the name of the newest checkpoint
//
// A checkpoint is written to a temporary folder, every file and the folder synced, then renamed: it is there as a whole or
// not at all. Nothing in it depends on the machine, the time or where it lies, so equal runs leave equal bytes.
import { constants } from 'node:fs'
import { access, mkdir, open, readFile, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { diffFingerprint, modelFingerprint, parseConfig, type Config } from '../config/index.js'
import type { Statistics } from '../data/statistics.js'
import { PersiaError } from '../errors.js'
import { native, settling } from '../native.js'
import type { NativeSnapshotFile } from '../native-types.js'

const format = 1

/** Where the training data stands. */
export interface Position {
  /** Passes over the data that are complete. */
  epoch: number
  /** Steps of the pass under way. */
  epochStep: number
}

export interface Manifest {
  format: number
  step: number
  samples: number
  position: Position
  finished: boolean
  /** The run's config without what says nothing about the model: `checkpoint`, `metrics`. */
  config: unknown
  statistics: Statistics
  files: { name: string; bytes: number; checksum: string }[]
}

export interface CheckpointContent extends Omit<Manifest, 'format' | 'files' | 'config'> {
  config: Config
}

/** Writes `directory`; `saveFiles` writes and syncs the native files into the folder it is given. */
export async function writeCheckpoint(directory: string, content: CheckpointContent,
  saveFiles: (target: string) => Promise<NativeSnapshotFile[]>): Promise<void> {
  const parent = dirname(directory)
  const name = basename(directory)
  const temporary = join(parent, `.tmp-${name}`)
  await mkdir(parent, { recursive: true })
  await rm(temporary, { recursive: true, force: true })
  await mkdir(temporary)
  const files = await saveFiles(temporary)
  await writeSynced(join(temporary, 'manifest.json'), manifestText(content, files))
  await syncDirectory(temporary)
  await replaceDirectory(directory, temporary)
  await writeSynced(join(parent, '.tmp-latest'), `${name}\n`)
  await rename(join(parent, '.tmp-latest'), join(parent, 'latest'))
  await syncDirectory(parent)
}

function manifestText({ config, ...content }: CheckpointContent, files: NativeSnapshotFile[]): string {
  const { checkpoint: _checkpoint, metrics: _metrics, ...modelConfig } = config
  const manifest: Manifest = {
    format,
    ...content,
    config: modelConfig,
    files: files.map(({ name, bytes, checksum }) => ({ name, bytes, checksum: hex(checksum) })),
  }
  const body = `${JSON.stringify(manifest, null, 2).slice(1)}\n`
  return firstLine(body) + body
}

const hex = (checksum: bigint) => checksum.toString(16).padStart(16, '0')
const firstLine = (body: string) => `{"checksum":"${hex(native().checksum(Buffer.from(body)))}",`

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'w')
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/** An existing checkpoint of the same step steps aside until the new one has its name; recover() undoes a crash between. */
async function replaceDirectory(directory: string, temporary: string): Promise<void> {
  const aside = join(dirname(directory), `.old-${basename(directory)}`)
  await rm(aside, { recursive: true, force: true })
  const replacing = await exists(directory)
  if (replacing) await rename(directory, aside)
  await rename(temporary, directory)
  await syncDirectory(dirname(directory))
  if (replacing) await rm(aside, { recursive: true, force: true })
}

async function recover(run: string): Promise<void> {
  for (const entry of await entriesOf(run)) {
    const name = /^\.old-(\d+)$/.exec(entry)?.[1]
    if (name && !(await exists(join(run, name)))) await rename(join(run, entry), join(run, name))
  }
}

const exists = (path: string) => access(path).then(() => true, () => false)

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** The checkpoints of a run, newest step first. */
async function stepsOf(run: string): Promise<string[]> {
  return (await entriesOf(run)).filter((name) => /^\d+$/.test(name)).sort((a, b) => Number(b) - Number(a))
}

/** The folder of the newest checkpoint of a run, if there is one. */
export async function newestCheckpoint(run: string): Promise<string | undefined> {
  await recover(run)
  const steps = await stepsOf(run)
  const latest = await readFile(join(run, 'latest'), 'utf8').then((text) => text.trim(), () => undefined)
  const newest = latest && steps.includes(latest) ? latest : steps[0]
  return newest === undefined ? undefined : join(run, newest)
}

/** Leaves the `keep` checkpoints that were written last; 0 keeps all. */
export async function pruneCheckpoints(run: string, keep: number): Promise<void> {
  if (keep === 0) return
  const written = await Promise.all((await stepsOf(run)).map(async (name) => {
    const { mtimeMs } = await stat(join(run, name, 'manifest.json')).catch(() => ({ mtimeMs: 0 }))
    return { name, mtimeMs }
  }))
  written.sort((a, b) => b.mtimeMs - a.mtimeMs)
  for (const { name } of written.slice(keep)) await rm(join(run, name), { recursive: true, force: true })
}

/**
 * Reads and checks the manifest, and compares it with `config` if given. The files themselves are checked when they are
 * restored, or by verifyCheckpoint.
 */
export async function readCheckpoint(directory: string, config?: Config): Promise<{ manifest: Manifest; files: NativeSnapshotFile[] }> {
  try {
    const manifest = await readManifest(directory)
    if (config) checkMatches(directory, manifest, config)
    const files = manifest.files.map(({ name, bytes, checksum }) => ({ name, bytes, checksum: BigInt(`0x${checksum}`) }))
    await settling(native().verifySnapshot(directory, files))
    return { manifest, files }
  } catch (error) {
    throw await withAlternative(error, directory)
  }
}

async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, 'manifest.json')
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw new PersiaError('PERSIA_IO', `cannot read ${path}: ${error.message}`, { file: path })
    throw new PersiaError('PERSIA_CHECKPOINT_NOT_FOUND', `there is no checkpoint in ${directory}: ${path} is missing`, { file: path })
  })
  const end = text.indexOf('\n')
  const body = text.slice(end)
  if (end < 0 || text.slice(0, end) !== firstLine(body)) {
    throw new PersiaError('PERSIA_CHECKPOINT_DAMAGED', `${path} is damaged: its checksum is wrong`, { file: path })
  }
  const manifest = JSON.parse(text) as Manifest
  if (manifest.format === format) return manifest
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH', `${path} has format ${manifest.format}, this release reads ${format}`, { file: path })
}

function checkMatches(directory: string, manifest: Manifest, config: Config): void {
  const differences = diffFingerprint(modelFingerprint(parseConfig(manifest.config)), modelFingerprint(config))
  if (differences.length === 0) return
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH',
    `${directory} is the checkpoint of another model:\n  ${differences.join('\n  ')}\n`
    + 'Train into another folder (checkpoint.dir), or start anew with checkpoint.resume=never.',
    { directory, differences })
}

/** A damaged checkpoint's error, with the newest good one of the same run named. */
async function withAlternative(error: unknown, directory: string): Promise<unknown> {
  if (!(error instanceof PersiaError) || error.code !== 'PERSIA_CHECKPOINT_DAMAGED') return error
  const run = dirname(directory)
  for (const name of await stepsOf(run)) {
    const other = join(run, name)
    if (name !== basename(directory) && (await isGood(other))) {
      return new PersiaError(error.code, `${error.message}. The last good checkpoint is ${other}`,
        { ...error.details, lastGood: other }, { cause: error })
    }
  }
  return new PersiaError(error.code, `${error.message}. There is no other good checkpoint in ${run}`, error.details, { cause: error })
}

async function isGood(directory: string): Promise<boolean> {
  try {
    const { files } = await readManifest(directory)
    await native().verifySnapshot(directory, files.map(({ name, bytes, checksum }) => ({ name, bytes, checksum: BigInt(`0x${checksum}`) })))
    return true
  } catch {
    return false
  }
}
