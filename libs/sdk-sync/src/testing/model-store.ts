import { pathKey, syncPath, type PathKey } from '@atomo-cc/sync-protocol';
import { hashOf } from '../content.js';
import { digestOfFiles } from '../engine.js';
import type {
  Change,
  ChangePage,
  Cursor,
  PushFault,
  PushOp,
  PushResult,
  RemoteFile,
  Resync,
  Snapshot,
} from '../ports.js';

const keyOf = (path: string) => pathKey(syncPath(path));

/** The rules of protocol 2 in memory: a log under one lock, preconditions, operations that take effect once. */
export class ModelStore {
  epoch = 'epoch-1';
  seq = 0;
  floor = 0;
  files = new Map<PathKey, RemoteFile>();
  log: Change[] = [];
  /** Every content that was ever committed: what history keeps. */
  blobs = new Map<string, Uint8Array>();
  readonly #answers = new Map<string, PushResult>();
  readonly #saved: { seq: number; files: Map<PathKey, RemoteFile>; blobs: Map<string, Uint8Array> }[] = [];
  #fileIds = 0;
  /** Answers this to every operation that would change something, when it is set. */
  refusal: PushFault | undefined;

  constructor(
    /** Called after each change with the page that would be sent to clients. */
    readonly onChange: (page: ChangePage) => void,
  ) {}

  pull({ epoch, seq }: Cursor, limit: number): ChangePage | Resync {
    if (epoch !== this.epoch || seq > this.seq) return { resync: 'EPOCH' };
    if (seq < this.floor) return { resync: 'FLOOR' };
    const all = this.log.filter((change) => change.seq > seq);
    const changes = all.slice(0, limit);
    const more = all.length > limit;
    return { epoch, from: seq, through: more ? changes.at(-1)!.seq : this.seq, more, changes };
  }

  snapshot(): Snapshot {
    return { epoch: this.epoch, seq: this.seq, files: [...this.files.values()] };
  }

  digest() {
    return { epoch: this.epoch, seq: this.seq, digest: digestOfFiles(this.files.values()) };
  }

  push(op: PushOp): PushResult {
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

  /** What `restore` can go back to. */
  backUp(): void {
    this.#saved.push({ seq: this.seq, files: new Map(this.files), blobs: new Map(this.blobs) });
  }

  /** The database is lost and comes back from the last backup, or as it was: either way under a new epoch. */
  restart(fromBackup: boolean): void {
    const saved = fromBackup ? this.#saved.at(-1) : undefined;
    if (saved) {
      this.files = new Map(saved.files);
      this.blobs = new Map(saved.blobs);
      this.seq = saved.seq;
      this.#answers.clear();
    }
    this.epoch = `epoch-${Number(this.epoch.slice(6)) + 1}`;
    this.log = [];
    this.floor = this.seq;
  }

  #carryOut(op: PushOp): PushResult {
    const fault = (code: string, message = code): PushResult => {
      const error: PushFault = { code, message };
      return { opId: op.opId, success: false, error };
    };
    if (this.refusal) return { opId: op.opId, success: false, error: this.refusal };
    const key = keyOf(op.path);
    const there = this.files.get(key);
    if (op.op === 'put') {
      const bytes = op.content ?? this.blobs.get(op.hash!);
      if (!bytes) return fault('BLOB_MISSING');
      if (hashOf(bytes) !== op.hash) return fault('HASH_MISMATCH');
      if (there && there.path !== op.path) return fault('PATH_COLLISION');
      if (there?.hash === op.hash) return this.#done(op, there.fileId);
      if ((there?.hash ?? null) !== op.baseHash) return fault('CONFLICT');
      this.blobs.set(op.hash, bytes);
      const fileId = there?.fileId ?? `file-${(this.#fileIds += 1)}`;
      const file = { path: there?.path ?? op.path, fileId, hash: op.hash, size: bytes.length, seq: this.seq + 1 };
      this.files.set(key, file);
      return this.#changed(op, { op: 'put', ...file, ...(bytes.length < 64 && { content: bytes }) }, fileId);
    }
    if (op.op === 'delete') {
      if (!there) return this.#done(op);
      if (there.hash !== op.baseHash) return fault('CONFLICT');
      this.files.delete(key);
      return this.#changed(op, { op: 'delete', path: there.path, seq: this.seq + 1 });
    }
    if (!there) return fault('NOT_FOUND');
    if (there.hash !== op.baseHash) return fault('CONFLICT');
    const toKey = keyOf(op.newPath!);
    if (toKey !== key && this.files.has(toKey)) return fault('CONFLICT');
    this.files.delete(key);
    const file = { ...there, path: op.newPath!, seq: this.seq + 1 };
    this.files.set(toKey, file);
    return this.#changed(op, { op: 'rename', oldPath: there.path, ...file }, there.fileId);
  }

  #changed(op: PushOp, change: Change, fileId?: string): PushResult {
    this.seq += 1;
    this.log.push(change);
    // Pages overlap, as those of a server do that sends what it has.
    const changes = this.log.slice(-2);
    const from = changes[0]!.seq - 1;
    this.onChange({ epoch: this.epoch, from, through: this.seq, more: false, changes });
    return this.#done(op, fileId);
  }

  #done({ opId }: PushOp, fileId?: string): PushResult {
    return { opId, success: true, seq: this.seq, ...(fileId && { fileId }) };
  }
}
