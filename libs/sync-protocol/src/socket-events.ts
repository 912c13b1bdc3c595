import { RefusedAck } from './refusals.js';
import { PATH, type SyncPath } from './paths.js';
import { IsContent, IsSyncPath } from './payload.js';
import { carriedHash } from './rest.js';
import { either, fixed, flag, instant, nullable, object, type Of, optional, text, whole } from './shape.js';

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
export const Ack = either(
  object('Acked', { success: fixed(true), seq: whole(), hash: optional(carriedHash()) }),
  RefusedAck,
);
/** The ack of each client event. */
export type Ack = Of<typeof Ack>;

const state = {
  content: text('Of binary files base64.'),
  hash: carriedHash(),
  size: whole('Bytes of the content in UTF-8.'),
  isBinary: flag(),
  extension: nullable(text()),
  seq: whole('The position of the change.'),
};

/** `file-created`. */
export const FileCreated = object('FileCreated', { ...state, path: PATH, createdAt: instant() });
/** `file-modified`. */
export const FileModified = object('FileModified', { ...state, path: PATH, updatedAt: instant() });
/** `file-renamed`. */
export const FileRenamed = object('FileRenamed', {
  ...state,
  oldPath: PATH,
  newPath: PATH,
  updatedAt: instant(),
});
/** `file-deleted`. */
export const FileDeleted = object('FileDeleted', { path: PATH, deletedAt: instant(), seq: whole() });

/** A broadcast: its event and what goes with it. */
export type Broadcast =
  | { readonly event: typeof SERVER_EVENTS.created; readonly payload: Of<typeof FileCreated> }
  | { readonly event: typeof SERVER_EVENTS.modified; readonly payload: Of<typeof FileModified> }
  | { readonly event: typeof SERVER_EVENTS.renamed; readonly payload: Of<typeof FileRenamed> }
  | { readonly event: typeof SERVER_EVENTS.deleted; readonly payload: Of<typeof FileDeleted> };
