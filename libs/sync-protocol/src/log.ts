import { IsBoolean, IsIn, IsInt, IsOptional, IsUUID, Max, MaxLength, Min } from 'class-validator';
import type { Digest } from './digest.js';
import type { ContentHash } from './hashes.js';
import { PAGE_LIMIT } from './limits.js';
import type { SyncPath } from './paths.js';
import { IsIntText, IsStorableText, IsSyncPath } from './payload.js';

/** Where a client stands in a store's log. A new epoch voids all cursors of the old one. */
export class Cursor {
  @IsUUID() epoch!: string;
  /** The position up to which everything was applied. */
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) seq!: number;
}

/** One change of the log. A file's revision is the `seq` of its last change. */
export interface Change {
  readonly seq: number;
  readonly op: 'put' | 'delete' | 'rename';
  /** Stays the same over renames. */
  readonly fileId: string;
  readonly path: SyncPath;
  /** Of a rename. */
  readonly oldPath?: SyncPath;
  /** Null after a deletion. */
  readonly hash: ContentHash | null;
  /** Bytes after the change; 0 after a deletion. */
  readonly size: number;
  /** What the file had before; null when it was made. */
  readonly oldHash: ContentHash | null;
  /** The bytes in base64, when they are few and of a put; leaving them out is always allowed. */
  readonly inline?: string;
  /** Who did it: the key, and the device as it named itself. */
  readonly keyId: string;
  readonly device: string | null;
  /** The operation that did it, so that its sender knows its own change. */
  readonly opId?: string;
  /** ISO 8601. */
  readonly at: string;
}

/**
 * A piece of the log without a gap: all changes of (from, through] that this client may see. A client that stands at `from`
 * applies it and then stands at `through`; one that stands behind `from` pulls first; one at or past `through` drops it.
 * Numbers may be missing inside (a key that sees some folders only), so completeness is never a question of counting.
 */
export interface Changes {
  readonly epoch: string;
  readonly from: number;
  readonly through: number;
  /** The log goes on: pull from `through`. */
  readonly more: boolean;
  readonly changes: readonly Change[];
}

/** `pull`: the changes after a cursor. Answers Changes; RESYNC_REQUIRED when the cursor is of another epoch or too old. */
export class Pull {
  @IsUUID() epoch!: string;
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) from!: number;
  @IsOptional() @IsInt() @Min(1) @Max(PAGE_LIMIT) limit?: number;
}

/** `snapshot`: a page of the live files, in order of their code points. */
export class SnapshotQuery {
  /** Only files below this folder. */
  @IsOptional() @IsSyncPath() prefix?: SyncPath;
  /** `next` of the page before. */
  @IsOptional() @IsStorableText() @MaxLength(2_000) after?: string;
  @IsOptional() @IsInt() @Min(1) @Max(PAGE_LIMIT) limit?: number;
  /** Whether the bytes of small files come with it. */
  @IsOptional() @IsBoolean() inline?: boolean;
}

/** A live file. */
export interface FileState {
  readonly fileId: string;
  readonly path: SyncPath;
  readonly hash: ContentHash;
  readonly size: number;
  /** The position of its last change. */
  readonly seq: number;
  /** When that was, ISO 8601. */
  readonly at: string;
  readonly inline?: string;
}

/**
 * A page of a snapshot. Pages are read one after the other while the store moves on. Whoever takes `epoch` and `head` of
 * the **first** page as the cursor and then pulls from it ends with what the store has: what changed between two pages is
 * in the log after that head.
 */
export interface Snapshot {
  readonly epoch: string;
  readonly head: number;
  readonly files: readonly FileState[];
  /** Send it as `after` for the next page; null: this was the last. */
  readonly next: string | null;
}

/** `digest`: what the store, or a folder of it, comes to. */
export class DigestQuery {
  @IsOptional() @IsSyncPath() prefix?: SyncPath;
}

/** A digest and the number of files in it. */
export interface DigestCount {
  readonly digest: Digest;
  readonly count: number;
}

/**
 * The digest of the live files below the prefix, as far as the key sees them, at the position `seq`. Where it differs from
 * one's own at the same position, ask for the folders that differ, and compare the files of the last one by its snapshot.
 */
export interface DigestAnswer extends DigestCount {
  readonly epoch: string;
  readonly seq: number;
  /** The files right below the prefix. */
  readonly files: DigestCount;
  /** The folders right below it by name, with all that is in them; null when they are too many. */
  readonly folders: Readonly<Record<string, DigestCount>> | null;
}

/** A version in a file's history, newest first. `hash` is what it became, `oldHash` what it was. */
export type Version = Omit<Change, 'inline'>;

/** A deleted file whose bytes can be restored until `expiresAt`. */
export interface TrashedFile {
  readonly fileId: string;
  readonly path: SyncPath;
  readonly hash: ContentHash;
  readonly size: number;
  readonly seq: number;
  readonly deletedAt: string;
  readonly expiresAt: string;
}

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
export class SnapshotParameters {
  @IsOptional() @IsSyncPath() prefix?: SyncPath;
  @IsOptional() @IsStorableText() @MaxLength(2_000) after?: string;
  @IsOptional() @IsIntText() limit?: string;
  @IsOptional() @IsIn(['true', 'false']) inline?: 'true' | 'false';
}
