import { CodedError } from '@atomo-cc/kernel';

/** What a client of the gateway can meet. Everything but SYNC_OFFLINE needs a person. */
export const SYNC_CLIENT_ERRORS = {
  SYNC_OFFLINE: 'The gateway does not answer at the moment. The client tries again by itself; nothing is lost.',
} as const;

/** A code of a client. */
export type SyncClientErrorCode = keyof typeof SYNC_CLIENT_ERRORS;

/** Makes an error of the client; the message says to its user what is wrong and what to do. */
export function clientError(code: SyncClientErrorCode, message: string, cause?: unknown): CodedError {
  return new CodedError(code, message, undefined, cause === undefined ? undefined : { cause });
}
