import type { PathKey } from '@atomo-cc/sync-protocol';
import { hashOf } from '../content.js';
import { digestOfFiles } from '../engine.js';
import { keyOf } from '../plan.js';
import type {
  Change,
  ChangePage,
  Cursor,
  PushFault,
  PushOp,
  PushResult,
  RemoteFile,
  Resync,
  StoreDigest,
} from '../ports.js';

/** An operation whose bytes, if it has any, are known to be what its hash says; without `baseHash` it does not ask what is there. */
export interface StoreOp extends Omit<PushOp, 'op' | 'baseHash'> {
  readonly op: PushOp['op'] | 'delete-folder' | 'rename-folder';
  readonly baseHash?: string | null;
}

/** What a store makes of an operation: what changes, numbered from the next position on, or why nothing does. */
export type Verdict =
  { readonly fault: PushFault } | { readonly changes: readonly Change[]; readonly fileId?: string | undefined };

/** How a store decides. It knows its live files and its tombstones; a refused operation leaves it as it was. */
export interface StoreRules {
  decide(op: StoreOp, head: number): Verdict;
  /** The same knowledge; what either learns from now on the other does not. */
  copy(): StoreRules;
}

/** A store of protocol 2 in memory: a log under one lock, operations that take effect once, and files folded from the log. */
export class ModelStore {
  epoch = 'epoch-1';
  seq = 0;
  floor = 0;
  files = new Map<PathKey, RemoteFile>();
  log: Change[] = [];
  /** Every content that was ever committed: what history keeps. */
  blobs = new Map<string, Uint8Array>();
  /** What was uploaded for a put that may never come. */
  readonly uploads = new Map<string, Uint8Array>();
  readonly #answers = new Map<string, PushResult>();
  readonly #saved: {
    seq: number;
    files: Map<PathKey, RemoteFile>;
    blobs: Map<string, Uint8Array>;
    rules: StoreRules;
  }[] = [];
  /** Answers this to every operation that would change something, when it is set. */
  refusal: PushFault | undefined;

  constructor(
    /** Called after each operation that changed something with a page that would be sent to clients. */
    readonly onChange: (page: ChangePage) => void,
    public rules: StoreRules = new PlainRules(),
  ) {}

  pull({ epoch, seq }: Cursor, limit: number): ChangePage | Resync {
    if (epoch !== this.epoch || seq > this.seq) return { resync: 'EPOCH' };
    if (seq < this.floor) return { resync: 'FLOOR' };
    const all = this.log.filter((change) => change.seq > seq);
    const changes = all.slice(0, limit);
    const more = all.length > limit;
    return { epoch, from: seq, through: more ? changes.at(-1)!.seq : this.seq, more, changes };
  }

  snapshot(): Cursor & { readonly files: readonly RemoteFile[] } {
    return { epoch: this.epoch, seq: this.seq, files: [...this.files.values()] };
  }

  digest(): StoreDigest {
    return { epoch: this.epoch, seq: this.seq, digest: digestOfFiles(this.files.values()) };
  }

  /** What can be read by its hash. */
  content(hash: string): Uint8Array | undefined {
    return this.blobs.get(hash) ?? this.uploads.get(hash);
  }

  push(op: StoreOp): PushResult {
    const known = this.#answers.get(op.opId);
    if (known) return known;
    const result = this.#carryOut(op);
    this.#answers.set(op.opId, result);
    return result;
  }

  /** The log forgets what is older than now. */
  prune(): void {
    this.floor = this.seq;
    this.log = [];
  }

  /**
   * The time of everything that is kept for a time is over: the log, answers to operations, and the contents that no file has,
   * which are answered.
   */
  expire(): Uint8Array[] {
    this.prune();
    this.#answers.clear();
    this.uploads.clear();
    const live = new Set([...this.files.values()].map(({ hash }) => hash));
    const over = [...this.blobs].filter(([hash]) => !live.has(hash));
    for (const [hash] of over) this.blobs.delete(hash);
    return over.map(([, content]) => content);
  }

  /** What `restore` can go back to. */
  backUp(): void {
    const { seq } = this;
    this.#saved.push({ seq, files: new Map(this.files), blobs: new Map(this.blobs), rules: this.rules.copy() });
  }

  /** The database is lost and comes back from the last backup, or as it was: either way under a new epoch. */
  restart(fromBackup: boolean): void {
    const saved = fromBackup ? this.#saved.at(-1) : undefined;
    if (saved) {
      this.files = new Map(saved.files);
      this.blobs = new Map(saved.blobs);
      this.seq = saved.seq;
      this.rules = saved.rules.copy();
      this.#answers.clear();
    }
    this.epoch = `epoch-${Number(this.epoch.slice(6)) + 1}`;
    this.log = [];
    this.floor = this.seq;
  }

  #carryOut(op: StoreOp): PushResult {
    const { opId } = op;
    if (this.refusal) return { opId, success: false, error: this.refusal };
    const bytes = op.op === 'put' ? (op.content ?? this.content(op.hash!)) : undefined;
    if (op.op === 'put') {
      if (!bytes) return { opId, success: false, error: { code: 'BLOB_MISSING', message: 'BLOB_MISSING' } };
      if (hashOf(bytes) !== op.hash)
        return { opId, success: false, error: { code: 'HASH_MISMATCH', message: 'HASH_MISMATCH' } };
    }
    const verdict = this.rules.decide(op, this.seq);
    if ('fault' in verdict) return { opId, success: false, error: verdict.fault };
    const { changes, fileId } = verdict;
    if (bytes && changes.length > 0) this.blobs.set(op.hash!, bytes);
    for (const change of changes) {
      this.#fold(change);
      this.seq = change.seq;
      const isShort = change.op === 'put' && bytes !== undefined && bytes.length < 64;
      this.log.push(isShort ? { ...change, content: bytes } : change);
    }
    if (changes.length > 0) {
      // Pages overlap more or less, as those of a server do that sends what it has.
      const page = this.log.slice(-changes.length - (this.seq % 5));
      const from = page[0]!.seq - 1;
      this.onChange({ epoch: this.epoch, from, through: this.seq, more: false, changes: page });
    }
    return { opId, success: true, seq: this.seq, ...(fileId && { fileId }) };
  }

  #fold(change: Change): void {
    if (change.op === 'delete') this.files.delete(keyOf(change.path));
    else {
      if (change.op === 'rename') this.files.delete(keyOf(change.oldPath));
      const { path, fileId, hash, size, seq } = change;
      this.files.set(keyOf(path), { path, fileId, hash, size, seq });
    }
  }
}

interface Known {
  readonly path: string;
  readonly fileId: string;
  readonly hash: string;
  readonly size: number;
  readonly isLive: boolean;
}

/** The rules of protocol 2, written down a second time and as plainly as can be. */
export class PlainRules implements StoreRules {
  #files = new Map<PathKey, Known>();
  #fileIds = 0;

  copy(): PlainRules {
    const copy = new PlainRules();
    copy.#files = new Map(this.#files);
    copy.#fileIds = this.#fileIds;
    return copy;
  }

  decide(op: StoreOp, head: number): Verdict {
    if (op.op === 'delete-folder' || op.op === 'rename-folder') return this.#folder(op, head);
    const key = keyOf(op.path);
    const was = this.#files.get(key);
    const there = was?.isLive ? was : undefined;
    const isOther = op.baseHash !== undefined && (there?.hash ?? null) !== op.baseHash;
    if (op.op === 'put') {
      if (there && there.path !== op.path) return fault('PATH_COLLISION');
      if (there && there.hash === op.hash) return { changes: [], fileId: there.fileId };
      if (isOther) return fault('CONFLICT');
      const fileId = was?.fileId ?? this.#newId();
      const file = { path: op.path, fileId, hash: op.hash!, size: op.size! };
      this.#files.set(key, { ...file, isLive: true });
      return { changes: [{ op: 'put', ...file, seq: head + 1 }], fileId };
    }
    if (op.op === 'delete') {
      if (!there || there.path !== op.path) return { changes: [] };
      return isOther ? fault('CONFLICT') : { changes: [this.#bury(key, there, head + 1)] };
    }
    const toKey = keyOf(op.newPath!);
    const source = there && there.path === op.path ? there : undefined;
    const target = this.#files.get(toKey);
    if (target?.isLive && target !== source) return fault(target.path === op.newPath ? 'CONFLICT' : 'PATH_COLLISION');
    if (!source) return fault('NOT_FOUND');
    if (isOther) return fault('CONFLICT');
    if (op.path === op.newPath) return { changes: [], fileId: source.fileId };
    return { changes: [this.#move(source, op.newPath!, head + 1)], fileId: source.fileId };
  }

  #folder({ op, path, newPath }: StoreOp, head: number): Verdict {
    const isBelow = (other: string, folder: string) => keyOf(other).startsWith(`${keyOf(folder)}/`);
    const found = [...this.#files].filter(([, file]) => file.isLive && isBelow(file.path, path));
    found.sort(([, a], [, b]) => (a.path < b.path ? -1 : 1));
    if (op === 'delete-folder') return { changes: found.map(([key, file], n) => this.#bury(key, file, head + 1 + n)) };
    if (isBelow(newPath!, path)) return fault('VALIDATION_ERROR');
    if (found.length === 0) return fault('NOT_FOUND');
    if (path === newPath) return { changes: [] };
    const leaving = new Set(found.map(([key]) => key));
    const moves = found.map(([, file]) => ({ file, to: `${newPath}${file.path.slice(path.length)}` }));
    for (const { to } of moves) {
      const there = this.#files.get(keyOf(to));
      if (there?.isLive && !leaving.has(keyOf(there.path)))
        return fault(there.path === to ? 'CONFLICT' : 'PATH_COLLISION');
    }
    return { changes: moves.map(({ file, to }, n) => this.#move(file, to, head + 1 + n)) };
  }

  #bury(key: PathKey, file: Known, seq: number): Change {
    this.#files.set(key, { ...file, isLive: false });
    return { op: 'delete', path: file.path, seq };
  }

  #move(file: Known, to: string, seq: number): Change {
    const key = keyOf(file.path);
    const toKey = keyOf(to);
    if (key !== toKey) this.#files.set(key, { ...file, fileId: this.#newId(), isLive: false });
    const moved = { ...file, path: to };
    this.#files.set(toKey, moved);
    const { isLive: _, ...told } = moved;
    return { op: 'rename', oldPath: file.path, ...told, seq };
  }

  #newId(): string {
    return `file-${(this.#fileIds += 1)}`;
  }
}

function fault(code: string): Verdict {
  return { fault: { code, message: code } };
}
