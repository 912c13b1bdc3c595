/**
 * A failure with a stable code that callers may branch on. The message is for the person who can mend it: it says what is
 * wrong and what to do, and never carries a secret, a stack, SQL or a table's name.
 */
export class CodedError extends Error {
  constructor(
    readonly code: string,
    message: string,
    /** Machine-readable facts that may leave the server, such as the faulty field or the current version. */
    readonly details?: Readonly<Record<string, unknown>>,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'CodedError';
  }
}

/** True for a CodedError, also one made by another copy of this package. */
export function isCodedError(error: unknown): error is CodedError {
  return error instanceof Error && error.name === 'CodedError' && typeof (error as CodedError).code === 'string';
}

/** The codes that GraphQL and REST answer with; each is listed in docs/errors.md. */
export const API_ERRORS = {
  UNAUTHENTICATED: 'No valid access token came with the request. Log in, or refresh the token.',
  FORBIDDEN: 'The token is valid, but its role may not do this. Ask an administrator.',
  NOT_FOUND: 'No such thing, or none that this caller may see. Check the id.',
  VALIDATION_ERROR: 'The input breaks a rule that the message names. Correct it and send it again.',
  CONFLICT: 'The thing has changed meanwhile or already exists. Read it again, then decide.',
  RATE_LIMITED: 'Too many requests. Wait for the time the answer names.',
  QUERY_TOO_COMPLEX: 'The query asks for more than one request may. Ask for less, or for smaller pages.',
  INTERNAL_ERROR: 'A fault on our side; the log has it under the request id. Try again, then report it.',
} as const;

/** A code of the API. */
export type ApiErrorCode = keyof typeof API_ERRORS;

/** Makes the error that the API answers with under `code`. */
export function apiError(code: ApiErrorCode, message: string, details?: Readonly<Record<string, unknown>>): CodedError {
  return new CodedError(code, message, details);
}
