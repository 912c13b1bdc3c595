import { IsIn, IsInt, IsOptional, IsUUID, Max, MaxLength, Min } from 'class-validator';
import { DIGEST } from './digest.js';
import { type ContentHash, HASH } from './hashes.js';
import { PAGE_DEFAULT, PAGE_LIMIT } from './limits.js';
import { PATH, type SyncPath } from './paths.js';
import { IsIntText, IsStorableText, IsSyncPath } from './payload.js';
import {
  about,
  base64,
  either,
  fixed,
  flag,
  instant,
  listOf,
  mapOf,
  named,
  nullable,
  object,
  type Of,
  oneOf,
  optional,
  text,
  uuid,
  whole,
} from './shape.js';

/** Where a client stands in a store's log. A new epoch voids all cursors of the old one. */
export class Cursor {
  @IsUUID() epoch!: string;
  /** The position up to which everything was applied. */
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) seq!: number;
}

/** A change as the history shows it: without bytes. */
const change = {
  seq: whole('Its position.'),
  op: oneOf(['put', 'delete', 'rename']),
  fileId: uuid('Stays the same over renames.'),
  path: PATH,
  oldPath: optional(about(PATH, 'Of a rename.')),
  hash: about(nullable(HASH), 'Null after a deletion.'),
  size: whole('Bytes after the change; 0 after a deletion.'),
  oldHash: about(nullable(HASH), 'What the file had before; null when it was made.'),
  keyId: uuid('The key that did it.'),
  device: nullable(text('The device that did it, as it named itself; null in protocol 1.')),
  opId: optional(uuid('The operation that did it, so that its sender knows its own change.')),
  at: instant(),
};

/** One change of the log. A file's revision is the `seq` of its last change. */
export const Change = object('Change', {
  ...change,
  inline: optional(base64('The bytes, when they are few and of a put; leaving them out is always allowed.')),
});
/** One change of the log. */
export type Change = Of<typeof Change>;

/**
 * A piece of the log without a gap: all changes of (from, through] that this client may see. A client that stands at `from`
 * applies it and then stands at `through`; one that stands behind `from` pulls first; one at or past `through` drops it.
 * Numbers may be missing inside (a key that sees some folders only), so completeness is never a question of counting.
 */
export const Changes = object('Changes', {
  epoch: uuid(),
  from: whole(),
  through: whole(),
  more: flag('The log goes on: pull from `through`.'),
  changes: listOf(Change),
});
/** A piece of the log without a gap. */
export type Changes = Of<typeof Changes>;

/** `pull`: the changes after a cursor. Answers Changes; RESYNC_REQUIRED when the cursor is of another epoch or too old. */
export class Pull {
  @IsUUID() epoch!: string;
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) from!: number;
  @IsOptional() @IsInt() @Min(1) @Max(PAGE_LIMIT) limit?: number;
}

/** A live file. */
export const FileState = object('FileState', {
  fileId: uuid(),
  path: PATH,
  hash: HASH,
  size: whole('Bytes.'),
  seq: whole('The position of its last change.'),
  at: instant('When that was.'),
  inline: optional(base64()),
});
/** A live file. */
export type FileState = Of<typeof FileState>;

/** The first line of a snapshot: where the store stood when its reading began. */
export const SnapshotHead = object('SnapshotHead', { epoch: uuid(), head: whole() });
/** The last line of a snapshot. Without it the stream was cut: ask for the rest with the last path as `after`. */
export const SnapshotEnd = object('SnapshotEnd', { end: fixed(true) });
/**
 * One line of a snapshot: its head, then the live files in the order of their paths' code points, then its end. The store moves
 * on while it is read: whoever takes `epoch` and `head` as the cursor (of the first stream, where it was cut) and pulls from there
 * ends with what the store has.
 */
export const SnapshotLine = named('SnapshotLine', either(SnapshotHead, FileState, SnapshotEnd));
/** One line of a snapshot. */
export type SnapshotLine = Of<typeof SnapshotLine>;

/** `digest`: what the store, or a folder of it, comes to. */
export class DigestQuery {
  @IsOptional() @IsSyncPath() prefix?: SyncPath;
}

/** A digest and the number of files in it. */
export const DigestCount = object('DigestCount', { digest: DIGEST, count: whole('Files.') });
/** A digest and the number of files in it. */
export type DigestCount = Of<typeof DigestCount>;

/**
 * The digest of the live files below the prefix, as far as the key sees them, at the position `seq`. Where it differs from
 * one's own at the same position, ask for the folders that differ, and compare the files of the last one by its snapshot.
 */
export const DigestAnswer = object('DigestAnswer', {
  ...DigestCount.fields,
  epoch: uuid(),
  seq: whole(),
  files: about(DigestCount, 'The files right below the prefix.'),
  folders: nullable(
    mapOf(DigestCount, 'The folders right below it by name, with all that is in them; null when they are too many.'),
  ),
});
/** What a folder comes to. */
export type DigestAnswer = Of<typeof DigestAnswer>;

/** A version in a file's history, newest first. `hash` is what it became, `oldHash` what it was. */
export const Version = object('Version', change);
/** A version in a file's history. */
export type Version = Of<typeof Version>;

/** A page of a file's history, newest first. */
export const Versions = object('Versions', {
  versions: listOf(Version),
  next: nullable(whole('Send it as `before` for the next page; null: this was the last.')),
});
/** A page of a file's history. */
export type Versions = Of<typeof Versions>;

/** A deleted file whose bytes can be restored until `expiresAt`. */
export const TrashedFile = object('TrashedFile', {
  fileId: uuid(),
  path: PATH,
  hash: HASH,
  size: whole('Bytes.'),
  seq: whole(),
  deletedAt: instant(),
  expiresAt: instant(),
});
/** A deleted file that can be restored. */
export type TrashedFile = Of<typeof TrashedFile>;

/** A page of the trash, newest first. */
export const Trash = object('Trash', {
  files: listOf(TrashedFile),
  next: nullable(whole('Send it as `before` for the next page; null: this was the last.')),
});
/** A page of the trash. */
export type Trash = Of<typeof Trash>;

/**
 * A conflict that nobody has settled yet: a live file that holds what one device wrote while another one's version won. Settled
 * when it is deleted, or renamed.
 */
export const Conflict = object('Conflict', {
  fileId: uuid(),
  path: about(PATH, 'The copy.'),
  of: about(PATH, 'The file of which it is a copy, as the name of the copy tells.'),
  device: text('Whose version it is, as that device calls itself.'),
  hash: HASH,
  size: whole('Bytes.'),
  seq: whole(),
  at: instant('When it was made, or last changed.'),
});
/** A conflict that waits to be settled. */
export type Conflict = Of<typeof Conflict>;

/** A page of the conflicts, newest first. */
export const Conflicts = object('Conflicts', {
  conflicts: listOf(Conflict),
  next: nullable(whole('Send it as `before` for the next page; null: this was the last.')),
});
/** A page of the conflicts. */
export type Conflicts = Of<typeof Conflicts>;

/** The body of `POST files/:fileId/restore`: brings back bytes of the file's history, as a change like any other. */
export class RestoreBody {
  @IsUUID() opId!: string;
  /** Which version: any `hash` or `oldHash` of the file's history; left out, the last one before its deletion. */
  @IsOptional() @IsStorableText() hash?: ContentHash;
  /** Where to; left out, where the file is or last was. */
  @IsOptional() @IsSyncPath() path?: SyncPath;
}

/** The query of `GET changes` (long poll); query strings, so numbers are still text. */
export class ChangesQuery {
  @IsUUID() epoch!: string;
  @IsIntText() from!: string;
  @IsOptional() @IsIntText() limit?: string;
  /** Seconds to wait for a change when there is none, at most POLL_LIMIT_SECONDS. */
  @IsOptional() @IsIntText() wait?: string;
}

/** The query of `GET snapshot`. */
export class SnapshotQuery {
  /** Only files below this folder. */
  @IsOptional() @IsSyncPath() prefix?: SyncPath;
  /** Only files whose path comes after this one: to go on where a stream was cut. */
  @IsOptional() @IsStorableText() @MaxLength(2_000) after?: string;
  /** Whether the bytes of small files come with it, while there is room. */
  @IsOptional() @IsIn(['true', 'false']) inline?: 'true' | 'false';
}

/** The query of `GET files/:fileId/versions`, `GET trash` and `GET conflicts`: newest first, `before` is `next` of the page before. */
export class PageQuery {
  @IsOptional() @IsIntText() limit?: string;
  @IsOptional() @IsIntText() before?: string;
}

/** How many items a page has: as many as asked for, within 1 and PAGE_LIMIT; PAGE_DEFAULT when nothing is. */
export function pageSize(limit: string | null | undefined): number {
  return Math.min(Math.max(Number(limit ?? PAGE_DEFAULT), 1), PAGE_LIMIT);
}
