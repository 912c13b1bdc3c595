import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import {
  type ContentHash,
  type CurrentState,
  digestTerm,
  FOLDER_LIMIT,
  isBelow,
  type PathKey,
  pathKey,
  type SyncPath,
  syncError,
} from '@atomo-cc/sync-protocol';
import type { Carried, FileContent } from '../contents/index.js';
import type { Logged } from '../log/index.js';
import { type Expectation, isMet } from './preconditions.js';

/** What a client wants changed. */
export type Intent =
  | {
      readonly kind: 'put';
      readonly path: SyncPath;
      readonly content: FileContent;
      /** What happens when the file is there: it is overwritten, left as it is, or the change is refused. */
      readonly existing: 'overwrite' | 'keep' | 'refuse';
      readonly expected?: readonly Expectation[];
    }
  | { readonly kind: 'delete'; readonly path: SyncPath; readonly expected?: readonly Expectation[] }
  /** All files below the folder; null: all files. */
  | { readonly kind: 'delete-folder'; readonly folder: SyncPath | null }
  | {
      readonly kind: 'rename';
      readonly from: SyncPath;
      readonly to: SyncPath;
      readonly expected?: readonly Expectation[];
      /** What protocol 1 makes of a missing source: an empty file at the target, where that destroys nothing. */
      readonly instead?: FileContent;
    }
  | { readonly kind: 'rename-folder'; readonly from: SyncPath; readonly to: SyncPath };

/** One path of a store: a live file, or the tombstone of one that was deleted or moved away. */
export interface FileNow {
  readonly id: string;
  readonly path: SyncPath;
  readonly key: PathKey;
  readonly isLive: boolean;
  /** Of a tombstone: of the last bytes, which wait in the trash; null where the file was moved away. */
  readonly hash: ContentHash | null;
  readonly size: number;
  /** How protocol 1 shows it; null when it cannot. */
  readonly carried: Carried | null;
  readonly seq: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** Who changes something. */
export interface Author {
  readonly keyId: string;
  readonly device: string | null;
  readonly opId: string | null;
  /** Whether refusals may tell what is there. */
  readonly canRead: boolean;
}

/** What became of an intent that was not refused. */
export interface Outcome {
  /** The position of the last change; of none, where the store stood. */
  readonly seq: number;
  /** In the order of `seq`; empty: everything was as it was wanted. */
  readonly changes: readonly Logged[];
  /** The file as it is now; null where there is none. */
  readonly file: FileNow | null;
  /** The bytes that a put without precondition replaced. */
  readonly overwrote?: { readonly hash: ContentHash; readonly seq: number };
}

/**
 * A store whose lock a transaction holds, as far as the intents at hand touch it. Decisions are made here, in memory and one
 * after the other; what they come to is written in a few statements at the end. A refused intent has changed nothing.
 */
export class Workspace {
  /** Every change, in the order of `seq`. */
  readonly changes: Logged[] = [];
  /** The paths that look otherwise now. */
  readonly dirty = new Set<PathKey>();
  /** What must be stored besides, by hash. */
  readonly contents = new Map<ContentHash, NonNullable<FileContent['store']> & { readonly size: number }>();
  /** How many files and bytes more there are, and what the digest changed by. */
  grown = { files: 0, carriedBytes: 0, bytes: 0, digest: 0n };

  /**
   * @param files every path that the intents name, live or dead; for folders all that lie below
   * @param at the time of all changes
   */
  constructor(
    readonly tenantId: TenantId,
    readonly storeId: string,
    /** The position of the last change. */
    public head: number,
    readonly at: Date,
    /** Bytes that may be added. */
    private readonly room: number,
    readonly files: Map<PathKey, FileNow>,
  ) {}

  /** @throws CodedError CONFLICT, PRECONDITION_FAILED, PATH_COLLISION, NOT_FOUND, QUOTA_EXCEEDED, PAYLOAD_TOO_LARGE; nothing is changed then */
  decide(author: Author, intent: Intent): Outcome {
    switch (intent.kind) {
      case 'put':
        return this.put(author, intent);
      case 'delete':
        return this.delete(author, intent);
      case 'delete-folder':
        return this.deleteFolder(author, intent.folder);
      case 'rename':
        return this.rename(author, intent);
      case 'rename-folder':
        return this.renameFolder(author, intent.from, intent.to);
    }
  }

  private put(author: Author, intent: Intent & { kind: 'put' }): Outcome {
    const { path, content, existing, expected = [] } = intent;
    const key = pathKey(path);
    const was = this.files.get(key);
    const live = was?.isLive ? was : null;
    if (live && live.path !== path) throw collision(author, path, live.path);
    if (live && existing === 'keep') return this.unchanged(live);
    if (live && existing === 'refuse') throw occupied(author, path);
    // Protocol 1 has a change for every write; an operation that finds what it wants has none.
    if (live && live.hash === content.hash && author.opId !== null) return this.unchanged(live);
    this.require(author, expected, was);
    const more = content.size - (live?.size ?? 0);
    if (more > 0 && this.grown.bytes + more > this.room) {
      throw syncError('QUOTA_EXCEEDED', 'The store is full.', { bytesOver: this.grown.bytes + more - this.room });
    }
    if (content.store) this.contents.set(content.hash, { ...content.store, size: content.size });
    const file: FileNow = {
      id: was?.id ?? uuidv7(),
      path,
      key,
      isLive: true,
      hash: content.hash,
      size: content.size,
      carried: content.carried,
      seq: this.head + 1,
      createdAt: live?.createdAt ?? this.at,
      updatedAt: this.at,
    };
    const change = this.log(author, live ? 'modify' : 'create', file, live, { bytes: content.bytes });
    this.replace(live, file);
    const overwrote = expected.length === 0 && live ? { overwrote: { hash: live.hash!, seq: live.seq } } : {};
    return { seq: file.seq, changes: [change], file, ...overwrote };
  }

  private delete(author: Author, { path, expected = [] }: Intent & { kind: 'delete' }): Outcome {
    const was = this.files.get(pathKey(path));
    const live = was?.isLive && was.path === path ? was : null;
    if (!live) return this.unchanged(null);
    this.require(author, expected, live);
    return { seq: this.head + 1, changes: [this.bury(author, live)], file: null };
  }

  private deleteFolder(author: Author, folder: SyncPath | null): Outcome {
    const doomed = this.below(folder);
    const changes = doomed.map((file) => this.bury(author, file));
    return { seq: this.head, changes, file: null };
  }

  private rename(author: Author, { from, to, expected = [], instead }: Intent & { kind: 'rename' }): Outcome {
    const fromKey = pathKey(from);
    const was = this.files.get(fromKey);
    const source = was?.isLive && was.path === from ? was : null;
    const target = this.files.get(pathKey(to));
    if (target?.isLive && target !== source)
      throw target.path === to ? occupied(author, to) : collision(author, to, target.path);
    if (!source) {
      if (instead) {
        this.require(author, expected, was?.isLive ? undefined : was);
        return this.put(author, { kind: 'put', path: to, content: instead, existing: 'keep' });
      }
      throw syncError(
        'NOT_FOUND',
        `There is no file ${from}.`,
        author.canRead && was ? { current: currentOf(was) } : {},
      );
    }
    this.require(author, expected, source);
    if (from === to) return this.unchanged(source);
    const change = this.move(author, source, to);
    return { seq: this.head, changes: [change], file: this.files.get(pathKey(to))! };
  }

  private renameFolder(author: Author, from: SyncPath, to: SyncPath): Outcome {
    if (isBelow(from, to))
      throw syncError('VALIDATION_ERROR', 'A folder cannot move into itself.', { field: 'newPath' });
    const moving = this.below(from);
    if (moving.length === 0) throw syncError('NOT_FOUND', `There is no file below ${from}.`);
    if (from === to) return this.unchanged(null);
    const moves = moving.map((file) => ({ file, path: `${to}${file.path.slice(from.length)}` as SyncPath }));
    const leaving = new Set(moving.map((file) => file.key));
    for (const { path } of moves) {
      const there = this.files.get(pathKey(path));
      if (!there?.isLive || leaving.has(there.key)) continue;
      throw there.path === path ? occupied(author, path) : collision(author, path, there.path);
    }
    const changes = moves.map(({ file, path }) => this.move(author, file, path));
    return { seq: this.head, changes, file: null };
  }

  private below(folder: SyncPath | null): FileNow[] {
    const found = [...this.files.values()].filter(
      (file) => file.isLive && (folder === null || isBelow(folder, file.path)),
    );
    if (folder !== null && found.length > FOLDER_LIMIT) {
      throw syncError('PAYLOAD_TOO_LARGE', `One operation moves or deletes at most ${FOLDER_LIMIT} files.`);
    }
    return found.toSorted((a, b) => (a.path < b.path ? -1 : 1));
  }

  /** Leaves a tombstone that keeps the bytes within reach. */
  private bury(author: Author, live: FileNow): Logged {
    const dead: FileNow = { ...live, isLive: false, seq: this.head + 1, updatedAt: this.at };
    const change = this.log(author, 'delete', dead, live);
    this.replace(live, dead);
    return change;
  }

  /** Moves the file's identity, and leaves a tombstone at the old path, or an offline client would bring that back. */
  private move(author: Author, source: FileNow, to: SyncPath): Logged {
    const key = pathKey(to);
    const moved: FileNow = { ...source, path: to, key, seq: this.head + 1, updatedAt: this.at };
    const change = this.log(author, 'rename', moved, source);
    this.replace(source, moved);
    // A rename that changes the case or the Unicode form alone has one key: there is nothing to leave behind.
    if (key !== source.key) {
      this.files.set(source.key, {
        ...source,
        id: uuidv7(),
        isLive: false,
        hash: null,
        size: 0,
        carried: null,
        seq: moved.seq,
        updatedAt: this.at,
      });
      this.dirty.add(source.key);
    }
    return change;
  }

  private log(
    author: Author,
    op: Logged['op'],
    file: FileNow,
    was: FileNow | null,
    more: { bytes?: Buffer | null } = {},
  ): Logged {
    this.head = file.seq;
    const change: Logged = {
      seq: file.seq,
      op,
      fileId: file.id,
      path: file.path,
      oldPath: op === 'rename' ? was!.path : null,
      hash: op === 'delete' ? null : file.hash,
      size: op === 'delete' ? 0 : file.size,
      oldHash: was?.hash ?? null,
      as: op === 'delete' ? (was?.carried?.as ?? null) : (file.carried?.as ?? null),
      keyId: author.keyId,
      device: author.device,
      opId: author.opId,
      at: this.at,
      ...more,
    };
    this.changes.push(change);
    return change;
  }

  private replace(was: FileNow | null, now: FileNow): void {
    this.files.set(now.key, now);
    this.dirty.add(now.key);
    for (const [file, sign] of [
      [was, -1],
      [now, 1],
    ] as const) {
      if (!file?.isLive) continue;
      this.grown.files += sign;
      this.grown.bytes += sign * file.size;
      this.grown.carriedBytes += sign * (file.carried?.size ?? file.size);
      this.grown.digest ^= digestTerm(file.path, file.hash!);
    }
  }

  private unchanged(file: FileNow | null): Outcome {
    return { seq: this.head, changes: [], file };
  }

  /** An operation meets CONFLICT; a request whose headers ask for a condition is told that this was not met. */
  private require(author: Author, expected: readonly Expectation[], was: FileNow | undefined): void {
    if (isMet(expected, was?.isLive ? was.hash : null)) return;
    throw syncError(
      author.opId === null ? 'PRECONDITION_FAILED' : 'CONFLICT',
      'The file has changed meanwhile.',
      author.canRead ? { current: was ? currentOf(was) : null } : {},
    );
  }
}

function currentOf(file: FileNow): CurrentState {
  const { path, id: fileId, hash, size, seq } = file;
  return { path, fileId, hash, size: file.isLive ? size : 0, seq, deleted: !file.isLive };
}

function occupied(author: Author, path: SyncPath) {
  return syncError('CONFLICT', `File already exists: ${path}`, author.canRead ? { existingPath: path } : {});
}

function collision(author: Author, path: SyncPath, existingPath: SyncPath) {
  const beside = author.canRead ? existingPath : 'a file that is there';
  return syncError(
    'PATH_COLLISION',
    `${path} cannot stand beside ${beside}: many devices would take them for one file. Rename one of them.`,
    author.canRead ? { existingPath } : {},
  );
}
