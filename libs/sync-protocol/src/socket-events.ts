import type { SyncErrorBody } from './errors.js';
import type { SyncPath } from './paths.js';
import { IsContent, IsSyncPath } from './payload.js';

/** What a client sends, in protocol 1. */
export const CLIENT_EVENTS = {
  created: 'created-file',
  modified: 'modified-file',
  deleted: 'deleted-file',
  renamed: 'renamed-file',
} as const;

/** What the gateway sends to the other clients of the store, in protocol 1. */
export const SERVER_EVENTS = {
  created: 'file-created',
  modified: 'file-modified',
  deleted: 'file-deleted',
  renamed: 'file-renamed',
} as const;

/** `created-file`: makes an empty file; one that is there already is left as it is. */
export class CreatedFile {
  @IsSyncPath() path!: SyncPath;
}

/** `modified-file`: writes the whole content, and makes the file when there is none. */
export class ModifiedFile {
  @IsSyncPath() path!: SyncPath;
  @IsContent() content!: string;
}

/** `deleted-file`: deletes the file; a missing one is no fault. */
export class DeletedFile {
  @IsSyncPath() path!: SyncPath;
}

/** `renamed-file`: moves the file; a missing source makes an empty file at the target, if that is free. */
export class RenamedFile {
  @IsSyncPath() oldPath!: SyncPath;
  @IsSyncPath() newPath!: SyncPath;
}

/**
 * The ack of each client event. `hash` comes with created-file and modified-file. `seq` is the position of this change in
 * the store's log; where nothing changed, the position at which that held. A client that applies broadcasts and its own
 * acked changes in the order of `seq` ends with what the server has.
 */
export type Ack =
  | { readonly success: true; readonly seq: number; readonly hash?: string }
  | { readonly success: false; readonly error: SyncErrorBody };

interface FileState {
  readonly content: string;
  /** `sha256:` and 64 hex digits, of the content as it is carried (for binary files: of the base64 text). */
  readonly hash: string;
  /** Bytes of the content in UTF-8. */
  readonly size: number;
  readonly isBinary: boolean;
  readonly extension: string | null;
  readonly seq: number;
}

/** `file-created`; times are ISO 8601. */
export type FileCreated = FileState & { readonly path: string; readonly createdAt: string };
/** `file-modified`. */
export type FileModified = FileState & { readonly path: string; readonly updatedAt: string };
/** `file-renamed`. */
export type FileRenamed = FileState & {
  readonly oldPath: string;
  readonly newPath: string;
  readonly updatedAt: string;
};
/** `file-deleted`. */
export interface FileDeleted {
  readonly path: string;
  readonly deletedAt: string;
  readonly seq: number;
}

/** A broadcast: its event and what goes with it. */
export type Broadcast =
  | { readonly event: typeof SERVER_EVENTS.created; readonly payload: FileCreated }
  | { readonly event: typeof SERVER_EVENTS.modified; readonly payload: FileModified }
  | { readonly event: typeof SERVER_EVENTS.renamed; readonly payload: FileRenamed }
  | { readonly event: typeof SERVER_EVENTS.deleted; readonly payload: FileDeleted };
