import { CodedError } from '@atomo-cc/kernel';

/** The six codes of protocol 1; every fault a client can meet has one of them, in REST bodies and in acks alike. */
export const SYNC_PROTOCOL_ERRORS = {
  UNAUTHORIZED: 'No API key came with the request, or it is unknown or revoked. Send a valid key in X-API-Key.',
  FORBIDDEN: 'The key is valid but may not do this. Use a key with the permission that the message names.',
  NOT_FOUND: 'No such file, store or key. Check the path or the id.',
  VALIDATION_ERROR: 'The input breaks a rule that the message names. Correct it and send it again.',
  CONFLICT: 'Another file is in the way; the message names it. Choose another path, or move that file first.',
  INTERNAL_ERROR: 'A fault on our side, or the gateway is overloaded or stopping. Try again, then report it.',
} as const;

/** What `connect_error.message` says when a socket is refused. Anything else there is an INTERNAL_ERROR: try again. */
export const HANDSHAKE_ERRORS = {
  UNAUTHORIZED: 'The handshake carries no API key. Send it as query.apiKey or auth.apiKey.',
  INVALID_KEY: 'The API key is unknown or revoked. Do not try again with the same key.',
} as const;

/** A code of protocol 1. */
export type SyncErrorCode = keyof typeof SYNC_PROTOCOL_ERRORS;

/** The HTTP status of each code. A body over the limit answers 413 instead, with the code VALIDATION_ERROR. */
export const SYNC_ERROR_STATUS: Readonly<Record<SyncErrorCode, number>> = {
  UNAUTHORIZED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  VALIDATION_ERROR: 400,
  CONFLICT: 409,
  INTERNAL_ERROR: 500,
};

/** What is wrong, as it stands in `error` of a REST body or of an ack. */
export interface SyncErrorBody {
  readonly code: SyncErrorCode;
  readonly message: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Makes an error that leaves the gateway under `code`; `message` must be fit for the client's user. */
export function syncError(
  code: SyncErrorCode,
  message: string,
  details?: Readonly<Record<string, unknown>>,
): CodedError {
  return new CodedError(code, message, details);
}

/** True for a code that protocol 1 knows. */
export function isSyncErrorCode(code: string): code is SyncErrorCode {
  return Object.hasOwn(SYNC_PROTOCOL_ERRORS, code);
}
