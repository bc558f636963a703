// Who is let in: the shared token, sent with every call, and TLS with certificates on both sides.
import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import * as grpc from '@grpc/grpc-js'
import type { Config } from '../config/index.js'
import { PersiaError } from '../errors.js'

export type AuthOptions = NonNullable<Config['cluster']['auth']>

export interface Credentials {
  token: string | undefined
  tls: { ca: Buffer; cert: Buffer; key: Buffer } | undefined
}

const leastTokenLength = 16

/** Reads what `cluster.auth` names. PERSIA_CONFIG_INVALID when it is not there. */
export function readCredentials(auth: Partial<AuthOptions> | undefined): Credentials {
  return { token: readToken(auth ?? {}), tls: auth?.tls && readTls(auth.tls) }
}

function readTls(files: NonNullable<AuthOptions['tls']>): Credentials['tls'] {
  const tls = { ca: read(files.ca), cert: read(files.cert), key: read(files.key) }
  try {
    createSecureContext(tls)
    return tls
  } catch (error) {
    throw new PersiaError('PERSIA_CONFIG_INVALID',
      `cluster.auth.tls: ${files.ca}, ${files.cert} and ${files.key} are no certificate of an authority, a certificate and `
      + `its key (PEM): ${(error as Error).message}`, { path: 'cluster.auth.tls' })
  }
}

function readToken({ tokenFile, tokenEnv }: Partial<AuthOptions>): string | undefined {
  if (tokenFile === undefined && tokenEnv === undefined) return undefined
  const from = tokenFile ?? `the environment variable ${tokenEnv}`
  const token = (tokenFile === undefined ? process.env[tokenEnv!] ?? '' : read(tokenFile).toString('utf8')).trim()
  if (token.length >= leastTokenLength) return token
  throw new PersiaError('PERSIA_CONFIG_INVALID',
    `${from} has ${token.length === 0 ? 'no token' : `a token of ${token.length} characters`}; expected at least `
    + `${leastTokenLength}, such as what \`openssl rand -hex 32\` prints`, { path: 'cluster.auth' })
}

function read(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    throw new PersiaError('PERSIA_CONFIG_INVALID', `cluster.auth: cannot read ${file}: ${(error as Error).message}`,
      { path: 'cluster.auth', file })
  }
}

// ---- on the wire

const key = 'authorization'

export function tokenMetadata({ token }: Credentials): grpc.Metadata {
  const metadata = new grpc.Metadata()
  if (token !== undefined) metadata.set(key, `Bearer ${token}`)
  return metadata
}

/** Whether a call has shown the token. Takes the same time for every wrong one: the hashes are compared, whole. */
export function showsToken(metadata: grpc.Metadata, { token }: Credentials): boolean {
  if (token === undefined) return true
  const [shown = ''] = metadata.get(key)
  return timingSafeEqual(digest(shown.toString()), digest(`Bearer ${token}`))
}

const digest = (text: string) => createHash('sha256').update(text).digest()

export function serverCredentials({ tls }: Credentials): grpc.ServerCredentials {
  if (!tls) return grpc.ServerCredentials.createInsecure()
  return grpc.ServerCredentials.createSsl(tls.ca, [{ private_key: tls.key, cert_chain: tls.cert }], true)
}
