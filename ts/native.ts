// Finds and loads the native addon: a prebuilt binary or a local build, by node-gyp-build. When neither loads, the
// error says what was tried and what to do.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PersiaError, fromNative } from './errors.js'
import type { NativeAddon } from './native-types.js'

const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)))

/** Where the loaded addon came from, for `persia doctor`. */
export interface LoadedAddon { addon: NativeAddon; path: string }

let loaded: LoadedAddon | undefined

export function loadAddon(): LoadedAddon {
  if (loaded) return loaded
  const require = createRequire(import.meta.url)
  const gyp = require('node-gyp-build') as ((dir: string) => NativeAddon) & { path(dir: string): string }
  let path: string | undefined
  try {
    // UCX, which the addon may load later, would try hooks on the heap of this process: cpp/net/ucx_library.cc.
    process.env['UCX_MEM_EVENTS'] = 'n'
    path = gyp.path(packageRoot)
    loaded = { addon: require(path) as NativeAddon, path }
    return loaded
  } catch (cause) {
    throw notFound(path, cause as Error)
  }
}

function notFound(path: string | undefined, cause: Error): PersiaError {
  const platform = `${process.platform}-${process.arch}`
  const tried = path ? [path] : [join(packageRoot, 'prebuilds', platform), join(packageRoot, 'build', 'Release')]
  const reason = path ? `It was found but does not load: ${cause.message}.` : 'No binary for this platform was found.'
  const remedy = existsSync(join(packageRoot, 'ci', 'setup'))
    ? 'Run `npm run setup` and `npm run build` in the repository.'
    : `Install a release with a prebuilt binary for ${platform} (there is one for Linux x64 with glibc 2.34 or newer), `
      + 'or build from the repository.'
  return new PersiaError('PERSIA_ADDON_NOT_FOUND',
    `Persia's native addon cannot be loaded on ${platform}, Node ${process.version}. ${reason} `
    + `Tried: ${tried.join(', ')}. ${remedy}`,
    { tried, platform }, { cause })
}

/** The addon; loads it at the first call. */
export function native(): NativeAddon {
  return loadAddon().addon
}

/** Calls into the addon; its errors come out as PersiaError. */
export function calling<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromNative(error)
  }
}

/** As calling, for what the addon promises. */
export async function settling<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw fromNative(error)
  }
}
