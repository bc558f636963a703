// Errors over gRPC: a PersiaError travels as a status whose metadata carries its code of the catalogue and its details.
import * as grpc from '@grpc/grpc-js'
import { errorCodes, PersiaError, type ErrorCode, type ErrorDetails } from '../errors.js'

const codeKey = 'persia-code', detailsKey = 'persia-details-bin'

const statusOf: Partial<Record<ErrorCode, grpc.status>> = {
  PERSIA_CLUSTER_REFUSED: grpc.status.FAILED_PRECONDITION,
  PERSIA_CLUSTER_TIMEOUT: grpc.status.DEADLINE_EXCEEDED,
  PERSIA_ABORTED: grpc.status.ABORTED,
}

export function toStatus(error: unknown): { code: grpc.status; details: string; metadata: grpc.Metadata } {
  const known = error instanceof PersiaError ? error
    : new PersiaError('PERSIA_INTERNAL', error instanceof Error ? error.message : String(error))
  const metadata = new grpc.Metadata()
  metadata.set(codeKey, known.code)
  metadata.set(detailsKey, Buffer.from(JSON.stringify(known.details)))
  return { code: statusOf[known.code] ?? grpc.status.INTERNAL, details: known.message, metadata }
}

/** What went wrong in the transport, without grpc-js's own notes. */
export const plainDetails = ({ details }: grpc.ServiceError) => details.replace(/\.? *Resolution note:\s*$/, '')

/** The error that a peer sent; undefined when the transport failed instead. */
export function fromStatus(error: grpc.ServiceError): PersiaError | undefined {
  const [code] = error.metadata?.get(codeKey) ?? []
  if (typeof code !== 'string' || !(code in errorCodes)) return undefined
  const [details] = error.metadata.get(detailsKey)
  return new PersiaError(code as ErrorCode, error.details,
    details === undefined ? {} : JSON.parse(details.toString()) as ErrorDetails, { cause: error })
}
