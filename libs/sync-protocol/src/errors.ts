import { CodedError } from '@atomo-cc/kernel';

/** The six codes of protocol 1; every fault a client of it can meet has one of them, in REST bodies and in acks alike. */
export const SYNC_PROTOCOL_ERRORS = {
  UNAUTHORIZED: 'No API key came with the request, or it is unknown or revoked. Send a valid key in X-API-Key.',
  FORBIDDEN: 'The key is valid but may not do this. Use a key with the permission that the message names.',
  NOT_FOUND: 'No such file, store or key. Check the path or the id.',
  VALIDATION_ERROR: 'The input breaks a rule that the message names. Correct it and send it again.',
  CONFLICT: 'The file has changed meanwhile, or another one is in the way. Look at what is there, then decide.',
  INTERNAL_ERROR: 'A fault on our side, or the gateway is overloaded or stopping. Try again, then report it.',
} as const;

/** What protocol 2 answers besides the six. Clients of protocol 1 get the nearest of the six instead. */
export const SYNC_PROTOCOL_2_ERRORS = {
  PATH_INVALID: 'No client may store such a path; details.reason says why. Rename the file.',
  PATH_NOT_PORTABLE: 'Not every device can store such a name; details.reason says why. Rename the file.',
  PATH_COLLISION:
    'Many devices would take the path and details.existingPath for one file: they differ in case only. Rename one of them.',
  PAYLOAD_TOO_LARGE: 'More than `ready.limits` allows at once. Send less, or larger files as parts.',
  HASH_MISMATCH:
    'The bytes that came are not those of the hash that was named. Read the file again, then send it again.',
  BLOB_MISSING: 'The store does not have the bytes of details.missing. Upload them, then send the operation again.',
  QUOTA_EXCEEDED: 'The store has no room for it. Delete files, or ask the operator for a larger quota.',
  RATE_LIMITED: 'Too much at once with this key. Wait for details.retryAfterMs, then go on.',
  RESYNC_REQUIRED: 'The cursor is of another epoch, or older than the log. Read a snapshot and go on from its head.',
  PRECONDITION_FAILED:
    'The file is not what If-Match or If-None-Match asks for; details.current tells what it is. Merge, then ask anew.',
  OP_ID_REUSED: 'Another operation was sent under this opId. Make a new id for each operation.',
  KEY_REVOKED: 'The key was revoked. Ask for another.',
  KEY_EXPIRED: 'The time of the key is over. Ask for another.',
  UNSUPPORTED_PROTOCOL: 'The gateway speaks protocols 1 and 2. Update the client.',
} as const;

/** What `connect_error.message` says when a socket is refused. Anything else there is an INTERNAL_ERROR: try again. */
export const HANDSHAKE_ERRORS = {
  UNAUTHORIZED: 'The handshake carries no API key. Send it as auth.apiKey, or as query.apiKey in protocol 1.',
  INVALID_KEY: 'The API key is unknown, revoked or expired. Do not try again with the same key.',
  VALIDATION_ERROR: 'The handshake of protocol 2 breaks a rule; connect_error.data says which.',
  UNSUPPORTED_PROTOCOL: 'The gateway speaks protocols 1 and 2. Update the client.',
  RATE_LIMITED: 'Too many connections or wrong keys. Wait, with a growing pause, then try again.',
} as const;

/** A code of protocol 1. */
export type SyncErrorCode = keyof typeof SYNC_PROTOCOL_ERRORS;
/** A code of protocol 2: those of protocol 1 and its own. */
export type Sync2ErrorCode = SyncErrorCode | keyof typeof SYNC_PROTOCOL_2_ERRORS;

/** The HTTP status of each code. A body over its route's limit answers 413 in both protocols, a condition in headers 412. */
export const SYNC_ERROR_STATUS: Readonly<Record<Sync2ErrorCode, number>> = {
  UNAUTHORIZED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  VALIDATION_ERROR: 400,
  CONFLICT: 409,
  INTERNAL_ERROR: 500,
  PATH_INVALID: 400,
  PATH_NOT_PORTABLE: 400,
  PATH_COLLISION: 409,
  PAYLOAD_TOO_LARGE: 413,
  HASH_MISMATCH: 422,
  BLOB_MISSING: 422,
  QUOTA_EXCEEDED: 507,
  RATE_LIMITED: 429,
  RESYNC_REQUIRED: 410,
  PRECONDITION_FAILED: 412,
  OP_ID_REUSED: 409,
  KEY_REVOKED: 401,
  KEY_EXPIRED: 401,
  UNSUPPORTED_PROTOCOL: 400,
};

/** What protocol 1 says instead of a code that it does not know. */
const NEAREST_OF_PROTOCOL_1: Readonly<Record<keyof typeof SYNC_PROTOCOL_2_ERRORS, SyncErrorCode>> = {
  PATH_INVALID: 'VALIDATION_ERROR',
  PATH_NOT_PORTABLE: 'VALIDATION_ERROR',
  PATH_COLLISION: 'CONFLICT',
  PAYLOAD_TOO_LARGE: 'VALIDATION_ERROR',
  HASH_MISMATCH: 'VALIDATION_ERROR',
  BLOB_MISSING: 'VALIDATION_ERROR',
  QUOTA_EXCEEDED: 'FORBIDDEN',
  RATE_LIMITED: 'INTERNAL_ERROR',
  RESYNC_REQUIRED: 'VALIDATION_ERROR',
  PRECONDITION_FAILED: 'CONFLICT',
  OP_ID_REUSED: 'CONFLICT',
  KEY_REVOKED: 'UNAUTHORIZED',
  KEY_EXPIRED: 'UNAUTHORIZED',
  UNSUPPORTED_PROTOCOL: 'VALIDATION_ERROR',
};

/** Codes after which the very same request may succeed later. All others need another request, or another key. */
const RETRYABLE: ReadonlySet<string> = new Set<Sync2ErrorCode>(['INTERNAL_ERROR', 'RATE_LIMITED', 'BLOB_MISSING']);

/** Makes an error that leaves the gateway under `code`; `message` must be fit for the client's user. */
export function syncError(
  code: Sync2ErrorCode,
  message: string,
  details?: Readonly<Record<string, unknown>>,
): CodedError {
  return new CodedError(code, message, details);
}

/** True for a code that protocol 1 or 2 knows. */
export function isSyncErrorCode(code: string): code is Sync2ErrorCode {
  return Object.hasOwn(SYNC_ERROR_STATUS, code);
}

/** The code under which a client of protocol 1 meets a fault. */
export function protocol1Code(code: Sync2ErrorCode): SyncErrorCode {
  return Object.hasOwn(SYNC_PROTOCOL_ERRORS, code)
    ? (code as SyncErrorCode)
    : NEAREST_OF_PROTOCOL_1[code as keyof typeof SYNC_PROTOCOL_2_ERRORS];
}

/** Whether the very same request may succeed later. */
export function isRetryable(code: Sync2ErrorCode): boolean {
  return RETRYABLE.has(code);
}
