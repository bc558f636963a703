// PersiaError: the one error class of the package. Every failure that a user can cause or must handle carries a code of
// the catalogue (cpp/base/error_codes.def), a message that says what was expected, where, what came and what to do, and
// fields.
import { errorCodes, type ErrorCode } from './generated/error-codes.js'

export { errorCodes, type ErrorCode }

/** Fields of an error for programs: `file`, `line`, `column`, `path`, `key`, … */
export type ErrorDetails = Record<string, string | number | boolean | string[]>

export class PersiaError extends Error {
  override readonly name = 'PersiaError'
  readonly code: ErrorCode
  readonly details: ErrorDetails

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    this.details = details
  }

  /** Whether the same call may succeed when it is tried again. */
  get retryable(): boolean {
    return errorCodes[this.code].retryable
  }

  /** What the command line ends with: 1 failure, 2 bad usage, config or data. */
  get exitCode(): 1 | 2 {
    return errorCodes[this.code].exitCode
  }
}

/**
 * Gives an error of the native addon, which has a `code` and `details`, the package's class; others pass as they are.
 */
export function fromNative(error: unknown): unknown {
  if (error instanceof PersiaError || !(error instanceof Error)) return error
  const { code, details } = error as { code?: unknown; details?: ErrorDetails }
  if (typeof code !== 'string' || !(code in errorCodes)) return error
  return new PersiaError(code as ErrorCode, error.message, details ?? {}, { cause: error })
}
