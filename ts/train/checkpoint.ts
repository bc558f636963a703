// Checkpoints on disk: a folder a step, under the folder of the run.
//
//   checkpoints/
//     96/manifest.json   step, position, config, statistics, list of files; its first line is the checksum of the rest
//        pipeline.bin dense.bin embedding-0.bin …   cpp/checkpoint/snapshot.h, cpp/trainer/trainer_snapshot.cc
//     latest             the name of the newest checkpoint
//
// A checkpoint is written to a temporary folder, every file and the folder synced, then renamed: it is there as a whole
// or not at all. Nothing in it depends on the machine, the time or where it lies, so equal runs leave equal bytes.
import { access, readFile, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { diffFingerprint, modelFingerprint, parseConfig, type Config } from '../config/index.js'
import type { Statistics } from '../data/statistics.js'
import { hex, lockFolder, makeFolder, onDisk, openSealedJson, sealedJson, syncDirectory, writeSynced } from '../disk.js'
import { PersiaError } from '../errors.js'
import type { EarlyStoppingState } from './early-stopping.js'
import { native } from '../native.js'
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
  /** Only of a run with early stopping. */
  earlyStopping?: EarlyStoppingState
  /** The run's config without what says nothing about the model: `checkpoint`, `evaluate`, `metrics`, `threads`. */
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
  await onDisk(directory, () => checkReplaceable(directory))
  const temporary = join(dirname(directory), `.tmp-${basename(directory)}`)
  await onDisk(temporary, async () => {
    await rm(temporary, { recursive: true, force: true })
    await makeFolder(temporary)
  })
  const files = await saveFiles(temporary)
  await onDisk(directory, async () => {
    await writeSynced(join(temporary, 'manifest.json'), manifestText(content, files))
    await syncDirectory(temporary)
    await replaceDirectory(directory, temporary)
  })
}

/** Only nothing, an empty folder or an older checkpoint makes room for a new one. */
async function checkReplaceable(directory: string): Promise<void> {
  const entries = await entriesOf(directory)
  if (entries.length === 0 || entries.includes('manifest.json')) return
  throw new PersiaError('PERSIA_USAGE',
    `${directory} is not a checkpoint and not empty, so it is not replaced by one. `
    + `Save to a folder of its own, such as ${join(directory, 'model')}`,
    { directory })
}

/** Names `name` as the newest checkpoint of a run. */
export async function markLatest(run: string, name: string): Promise<void> {
  await onDisk(run, async () => {
    await writeSynced(join(run, '.tmp-latest'), `${name}\n`)
    await rename(join(run, '.tmp-latest'), join(run, 'latest'))
    await syncDirectory(run)
  })
}

function manifestText({ config, ...content }: CheckpointContent, files: NativeSnapshotFile[]): string {
  const { checkpoint: _checkpoint, evaluate: _evaluate, metrics: _metrics, threads: _threads, ...modelConfig } = config
  const manifest: Manifest = {
    format,
    ...content,
    config: modelConfig,
    files: files.map(({ name, bytes, checksum }) => ({ name, bytes, checksum: hex(checksum) })),
  }
  return sealedJson(manifest)
}

/**
 * An existing checkpoint of the same step steps aside until the new one has its name; recover() undoes a crash between.
 */
async function replaceDirectory(directory: string, temporary: string): Promise<void> {
  const aside = join(dirname(directory), `.old-${basename(directory)}`)
  await rm(aside, { recursive: true, force: true })
  const replacing = await exists(directory)
  if (replacing) await rename(directory, aside)
  await rename(temporary, directory)
  await syncDirectory(dirname(directory))
  if (replacing) await rm(aside, { recursive: true, force: true })
}

/** Clears up after a process that was killed while it wrote. */
async function recover(run: string): Promise<void> {
  for (const entry of await entriesOf(run)) {
    const name = /^\.old-(\d+)$/.exec(entry)?.[1]
    if (name && !(await exists(join(run, name)))) await rename(join(run, entry), join(run, name))
    else if (/^\.(old|tmp)-(\d+|latest)$/.test(entry)) await rm(join(run, entry), { recursive: true, force: true })
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
  const steps = await stepsOf(run)
  const latest = await readFile(join(run, 'latest'), 'utf8').then((text) => text.trim(), () => undefined)
  const newest = latest && steps.includes(latest) ? latest : steps[0]
  return newest === undefined ? undefined : join(run, newest)
}

/**
 * Leaves the newest checkpoint, `newest`, and those written last before it, `keep` in all, and the one named `best`
 * beside them; 0 keeps everything.
 */
export async function pruneCheckpoints(run: string, keep: number, newest: string, best?: string): Promise<void> {
  if (keep === 0) return
  const names = (await stepsOf(run)).filter((name) => name !== newest && name !== best)
  const others = await Promise.all(names.map(async (name) => {
    const { mtimeMs } = await stat(join(run, name, 'manifest.json')).catch(() => ({ mtimeMs: 0 }))
    return { name, mtimeMs }
  }))
  others.sort((a, b) => b.mtimeMs - a.mtimeMs)
  for (const { name } of others.slice(keep - 1)) await rm(join(run, name), { recursive: true, force: true })
}

/**
 * Keeps other runs out of a run's folder, which is made if need be, until the returned function is called.
 * PERSIA_USAGE names the process that has it, PERSIA_IO why the folder can't be written.
 */
export async function lockRun(run: string): Promise<() => Promise<void>> {
  const unlock = await lockFolder(run, 'set another checkpoint.dir')
  await onDisk(run, () => recover(run))
  return unlock
}

/**
 * Calls `read` with the manifest, checked and compared with `config` if given, and the files that it lists. When the
 * checkpoint turns out to be damaged, here or in `read`, the error names the last good one of its run.
 */
export async function readingCheckpoint<T>(directory: string, config: Config | undefined,
  read: (manifest: Manifest, files: NativeSnapshotFile[]) => Promise<T>): Promise<T> {
  try {
    const manifest = await readManifest(directory)
    if (config) checkMatches(directory, manifest, config)
    return await read(manifest, filesOf(manifest))
  } catch (error) {
    throw await withAlternative(error, directory)
  }
}

const filesOf = ({ files }: Manifest): NativeSnapshotFile[] =>
  files.map(({ name, bytes, checksum }) => ({ name, bytes, checksum: BigInt(`0x${checksum}`) }))

async function readManifest(directory: string): Promise<Manifest> {
  const path = join(directory, 'manifest.json')
  const text = await readFile(path, 'utf8').catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') {
      throw new PersiaError('PERSIA_IO', `cannot read ${path}: ${error.message}`, { file: path })
    }
    const code = (await exists(directory)) ? 'PERSIA_CHECKPOINT_DAMAGED' : 'PERSIA_CHECKPOINT_NOT_FOUND'
    throw new PersiaError(code, `there is no checkpoint in ${directory}: ${path} is missing`, { file: path })
  })
  const manifest = openSealedJson(text) as Manifest | undefined
  if (!manifest) {
    throw new PersiaError('PERSIA_CHECKPOINT_DAMAGED', `${path} is damaged: its checksum is wrong`, { file: path })
  }
  if (manifest.format === format) return manifest
  throw new PersiaError('PERSIA_CHECKPOINT_MISMATCH',
    `${path} has format ${manifest.format}, this release reads ${format}`, { file: path })
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
  const message = `${error.message}. There is no other good checkpoint in ${run}`
  return new PersiaError(error.code, message, error.details, { cause: error })
}

async function isGood(directory: string): Promise<boolean> {
  try {
    await native().verifySnapshot(directory, filesOf(await readManifest(directory)))
    return true
  } catch {
    return false
  }
}
