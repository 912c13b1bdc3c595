import { CodedError } from '@atomo-cc/kernel';

/** What a client of the gateway can meet. Everything but SYNC_OFFLINE needs a person; after SYNC_DISK_FULL it tries again too. */
export const SYNC_CLIENT_ERRORS = {
  SYNC_OFFLINE: 'The gateway does not answer at the moment. The client tries again by itself; nothing is lost.',
  SYNC_KEY_REFUSED: 'The gateway does not take the API key: it is unknown, expired, revoked or lacks a permission.',
  SYNC_NOT_A_GATEWAY: 'What answers at the URL is no sync gateway, or one without protocol 2. Check the URL.',
  SYNC_OTHER_STORE: 'The folder belongs to another store than the key. Choose another folder or the right key.',
  SYNC_FOLDER_BUSY: 'Another client syncs this folder. Stop that one first.',
  SYNC_DISK_FULL: 'The disk of the folder is full. Free some space; a client that watches goes on by itself.',
  SYNC_FOLDER_UNUSABLE: 'The folder cannot be read or written, or is a place that must not be synced.',
} as const;

/** A code of a client. */
export type SyncClientErrorCode = keyof typeof SYNC_CLIENT_ERRORS;

/** Makes an error of the client; the message says to its user what is wrong and what to do. */
export function clientError(code: SyncClientErrorCode, message: string, cause?: unknown): CodedError {
  return new CodedError(code, message, undefined, cause === undefined ? undefined : { cause });
}
