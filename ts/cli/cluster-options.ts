// Options of the commands that take part in a cluster.
import type { Argv } from 'yargs'
import { parseAddress, type Address } from '../control/address.js'
import { readCredentials, type Credentials } from '../control/auth.js'
import { PersiaError } from '../errors.js'
import { onlyOnce } from './options.js'

export interface CoordinatorArguments {
  coordinator: string
  'token-file': string | undefined
  'tls-ca': string | undefined
  'tls-cert': string | undefined
  'tls-key': string | undefined
}

/** The variable that holds the token where no option names another place. */
const tokenVariable = 'PERSIA_CLUSTER_TOKEN'

export function coordinatorOptions<T>(yargs: Argv<T>) {
  const file = (name: string, describe: string) =>
    ({ type: 'string', requiresArg: true, coerce: onlyOnce(name), describe } as const)
  return yargs
    .option('coordinator', {
      type: 'string', demandOption: true, requiresArg: true, coerce: onlyOnce('coordinator'),
      describe: 'HOST:PORT of the coordinator',
    })
    .option('token-file',
      file('token-file', `File with the token of the cluster [default: environment variable ${tokenVariable}]`))
    .option('tls-ca', file('tls-ca', 'TLS: certificate of the authority (PEM)'))
    .option('tls-cert', file('tls-cert', 'TLS: certificate of this host (PEM)'))
    .option('tls-key', file('tls-key', 'TLS: its key (PEM)'))
}

export const coordinatorAddress = ({ coordinator }: CoordinatorArguments): Address =>
  parseAddress(coordinator, '--coordinator')

/** What to show the coordinator. PERSIA_USAGE when TLS is given by half. */
export function credentialsOf(args: CoordinatorArguments): Credentials {
  const { 'token-file': tokenFile, 'tls-ca': ca, 'tls-cert': cert, 'tls-key': key } = args
  const given = [ca, cert, key].filter((file) => file !== undefined).length
  if (given !== 0 && given !== 3) {
    throw new PersiaError('PERSIA_USAGE', '--tls-ca, --tls-cert and --tls-key belong together: give all or none')
  }
  return readCredentials({
    ...(tokenFile !== undefined ? { tokenFile } : process.env[tokenVariable] ? { tokenEnv: tokenVariable } : {}),
    ...(ca !== undefined && cert !== undefined && key !== undefined && { tls: { ca, cert, key } }),
  })
}
