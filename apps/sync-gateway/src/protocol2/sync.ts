import { Injectable } from '@nestjs/common';
import type { Origin } from '@atomo-cc/access';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  ACK_WINDOW,
  type Changes,
  type Conflicts,
  type ContentHash,
  type DigestAnswer,
  Download,
  FILE_LIMIT_BYTES,
  INLINE_LIMIT_BYTES,
  type Limits,
  type OpResult,
  OPS,
  PAGE_DEFAULT,
  PAGE_LIMIT,
  parseOp,
  parsePayload,
  PART_LIMIT_BYTES,
  PATH_LIMIT,
  PROTOCOL_2,
  PUSH_LIMIT,
  PUSH_LIMIT_BYTES,
  Push,
  type PushOp,
  type Ready,
  type RestoreBody,
  type SnapshotLine,
  type SnapshotQuery,
  syncError,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import { Bounds } from '../bounds/index.js';
import { Contents } from '../contents/index.js';
import { Denials, KeyRing, requirePath, requirePermission, type StoreKey } from '../credentials/index.js';
import { errorBody } from '../faults/index.js';
import { expectedBase, FileWrites, type Intent } from '../files/index.js';
import { conflicts, digest, pull, readSummary, restorable, snapshot, type SnapshotPage } from '../log/index.js';

/** Operations of one push whose bytes are made ready at the same time. */
const PREPARED_AT_ONCE = 8;

/** What protocol 2 does, whichever way it is asked: by a socket's event or by a REST route. */
@Injectable()
export class Sync {
  constructor(
    private readonly database: AppDatabase,
    private readonly contents: Contents,
    private readonly writes: FileWrites,
    private readonly bounds: Bounds,
    private readonly denials: Denials,
    private readonly keys: KeyRing,
  ) {}

  /** What a client is told first. Keys that may not read learn nothing of what the store holds. */
  async ready(key: StoreKey): Promise<Ready> {
    const summary = await this.database.transaction(key.tenantId, (tx) => readSummary(tx, key));
    const canRead = key.permissions.includes('read');
    const told = <Value>(value: Value) => (canRead ? value : null);
    const limits: Limits = {
      inlineBytes: INLINE_LIMIT_BYTES,
      partBytes: PART_LIMIT_BYTES,
      fileBytes: FILE_LIMIT_BYTES,
      pathChars: PATH_LIMIT,
      pushOps: PUSH_LIMIT,
      pushBytes: PUSH_LIMIT_BYTES,
      pageItems: PAGE_LIMIT,
      ackWindow: ACK_WINDOW,
      opsPerSecond: this.bounds.opsPerSecond,
      quotaBytes: summary.quotaBytes ?? this.bounds.quotaBytes,
    };
    return {
      protocol: PROTOCOL_2,
      storeId: key.storeId,
      epoch: summary.epoch,
      head: told(summary.head),
      floor: told(summary.floor),
      serverTime: new Date().toISOString(),
      key: {
        id: key.id,
        permissions: key.permissions,
        prefixes: key.prefixes,
        expiresAt: key.expiresAt === null ? null : new Date(key.expiresAt).toISOString(),
      },
      limits,
      usedBytes: told(summary.usedBytes),
      digest: told(summary.digest),
      count: told(summary.count),
    };
  }

  /**
   * Carries out operations in their order, each alone: a refusal is a result.
   * @throws CodedError FORBIDDEN, VALIDATION_ERROR, PAYLOAD_TOO_LARGE, RATE_LIMITED for the push as a whole
   */
  async push(key: StoreKey, caller: Caller, payload: unknown): Promise<{ results: OpResult[] }> {
    requirePermission(key, 'write');
    const { ops } = parsePayload(Push, payload);
    if (ops.length > PUSH_LIMIT) {
      throw syncError('PAYLOAD_TOO_LARGE', `A push has at most ${PUSH_LIMIT} operations.`);
    }
    const bytes = ops.reduce<number>((sum, op) => sum + inlineSize(op), 0);
    if (bytes > PUSH_LIMIT_BYTES) {
      throw syncError('PAYLOAD_TOO_LARGE', `The contents of a push have at most ${PUSH_LIMIT_BYTES} bytes.`);
    }
    this.bounds.take(key.id, Math.max(1, ops.length), bytes);
    const prepared: Promise<Prepared>[] = [];
    const results: Promise<OpResult>[] = [];
    for (const [place, op] of ops.entries()) {
      // Bytes are made ready side by side; the writes enter the store's lane in the order of the operations.
      if (place >= PREPARED_AT_ONCE) await prepared[place - PREPARED_AT_ONCE];
      prepared.push(this.prepare(key, op));
    }
    for (const [place, op] of ops.entries()) {
      const ready = await prepared[place]!;
      results.push(
        'error' in ready
          ? Promise.resolve(this.refused(key, caller, op, ready.error))
          : this.carryOut(key, caller, ready),
      );
    }
    return { results: await Promise.all(results) };
  }

  /** @throws CodedError FORBIDDEN, RESYNC_REQUIRED */
  async pull(key: StoreKey, cursor: { epoch: string; from: number }, limit = PAGE_DEFAULT): Promise<Changes> {
    this.admitReader(key);
    return this.database.transaction(key.tenantId, (tx) => pull(tx, key, cursor, limit));
  }

  /**
   * The lines of a snapshot, page by page: the next page is read when it is asked for, and none for a key that ended meanwhile.
   * @throws CodedError FORBIDDEN, RATE_LIMITED, NOT_FOUND, before the first page; later on anything else, after which the rest
   *   may be asked for anew
   */
  async *snapshot(key: StoreKey, { prefix, after, inline }: SnapshotQuery): AsyncGenerator<string, undefined> {
    this.admitReader(key);
    const leave = this.bounds.enterSnapshot(key.id);
    try {
      let first: SnapshotPage | null = null;
      for (let last = after ?? undefined; ;) {
        const wanted = { prefix: prefix ?? undefined, after: last, inline: inline === 'true' };
        const page = await this.database.transaction(key.tenantId, (tx) => snapshot(tx, key, wanted));
        const lines: SnapshotLine[] = [...page.files];
        if (!first) lines.unshift({ epoch: page.epoch, head: page.head });
        else if (page.epoch !== first.epoch) throw syncError('RESYNC_REQUIRED', 'The store was set back meanwhile.');
        if (!page.more) lines.push({ end: true });
        yield lines.map((line) => `${JSON.stringify(line)}\n`).join('');
        if (!page.more) return;
        first ??= page;
        last = page.files.at(-1)!.path;
        if (!(await this.keys.current(key.hash))) throw syncError('KEY_REVOKED', 'The API key was revoked.');
      }
    } finally {
      leave();
    }
  }

  /** @throws CodedError FORBIDDEN */
  async digest(key: StoreKey, prefix: SyncPath | undefined): Promise<DigestAnswer> {
    this.admitReader(key);
    return this.database.transaction(key.tenantId, (tx) => digest(tx, key, prefix));
  }

  /** @throws CodedError FORBIDDEN */
  async conflicts(key: StoreKey, limit: number, before: number | null): Promise<Conflicts> {
    this.admitReader(key);
    return this.database.transaction(key.tenantId, (tx) => conflicts(tx, key, limit, before));
  }

  /** @throws CodedError FORBIDDEN */
  async missing(key: StoreKey, hashes: readonly ContentHash[]): Promise<{ missing: ContentHash[] }> {
    requirePermission(key, 'write');
    this.bounds.take(key.id, 1);
    return { missing: await this.contents.missing(key, hashes) };
  }

  /** @throws CodedError FORBIDDEN, HASH_MISMATCH, PAYLOAD_TOO_LARGE, QUOTA_EXCEEDED */
  async upload(key: StoreKey, hash: ContentHash, bytes: Uint8Array): Promise<void> {
    requirePermission(key, 'write');
    this.bounds.take(key.id, 1, bytes.length);
    await this.contents.upload(key, hash, bytes, this.bounds.quotaBytes);
  }

  /** @throws CodedError FORBIDDEN, NOT_FOUND */
  async download(key: StoreKey, payload: unknown): Promise<{ bytes: Buffer; size: number }> {
    const { hash, from, length } = parsePayload(Download, payload);
    const size = await this.sizeOf(key, hash);
    const pieces: Buffer[] = [];
    for await (const piece of this.contents.read(key, hash, from ?? 0, length ?? PART_LIMIT_BYTES)) pieces.push(piece);
    return { bytes: Buffer.concat(pieces), size };
  }

  /**
   * The size of what may be read under the hash.
   * @throws CodedError FORBIDDEN, NOT_FOUND
   */
  async sizeOf(key: StoreKey, hash: ContentHash): Promise<number> {
    this.admitReader(key);
    return this.contents.sizeOf(key, hash);
  }

  /** Bytes of what `sizeOf` found. */
  read(key: StoreKey, hash: ContentHash, from: number, length: number): AsyncGenerator<Buffer> {
    return this.contents.read(key, hash, from, length);
  }

  /**
   * Brings a version back, as an operation like any other.
   * @throws CodedError FORBIDDEN, NOT_FOUND, PATH_COLLISION
   */
  async restore(key: StoreKey, caller: Caller, fileId: string, body: RestoreBody): Promise<OpResult> {
    requirePermission(key, 'write');
    this.admitReader(key);
    const found = await this.database.transaction(key.tenantId, (tx) =>
      restorable(tx, key, fileId, body.hash ?? undefined),
    );
    const { hash, size } = found;
    const op = { op: 'put', opId: body.opId, path: body.path ?? found.path, hash, size };
    const ready = await this.prepare(key, op);
    if ('error' in ready) throw ready.error;
    return this.carryOut(key, caller, ready);
  }

  private admitReader(key: StoreKey): void {
    requirePermission(key, 'read');
    this.bounds.take(key.id, 1);
  }

  private async prepare(key: StoreKey, payload: unknown): Promise<Prepared> {
    try {
      const op = parseOp(payload);
      for (const path of pathsOf(op)) requirePath(key, path);
      return { op, intent: await this.intentOf(key, op) };
    } catch (error) {
      return { error };
    }
  }

  private async intentOf(key: StoreKey, op: PushOp): Promise<Intent> {
    switch (op.op) {
      case 'put': {
        const content = await this.contents.ofPut(key, op);
        return { kind: 'put', path: op.path, content, existing: 'overwrite', expected: expectedBase(op.baseHash) };
      }
      case 'delete':
        return { kind: 'delete', path: op.path, expected: expectedBase(op.baseHash) };
      case 'rename':
        return { kind: 'rename', from: op.path, to: op.newPath, expected: expectedBase(op.baseHash) };
      case 'delete-folder':
        return { kind: 'delete-folder', folder: op.path };
      case 'rename-folder':
        return { kind: 'rename-folder', from: op.path, to: op.newPath };
    }
  }

  private async carryOut(key: StoreKey, caller: Caller, { op, intent }: Operation): Promise<OpResult> {
    try {
      const { inline: _bytes, ...says } = op as PushOp & { inline?: string };
      const { answer } = await this.writes.write({ key, intent, device: caller.device, op: { id: op.opId, says } });
      return answer!;
    } catch (error) {
      return this.refused(key, caller, op, error);
    }
  }

  /** A refusal is an answer of its own, which no filter meets: what the log must know of it is told here. */
  private refused(key: StoreKey, { from }: Caller, op: unknown, error: unknown): OpResult {
    const { opId, op: said } = Object(op) as { opId?: unknown; op?: unknown };
    const body = errorBody(error);
    // What was sent is anything at all, of which not everything can be told as a text.
    const kind = OPS.find((each) => each === said) ?? 'unknown';
    this.denials.ofKey(key, `push ${kind}`, body.code, from);
    return { opId: typeof opId === 'string' ? opId : '', success: false, error: body };
  }
}

/** Who sends operations: the device, as it names itself, and where they come from. */
export interface Caller {
  readonly device: string | null;
  readonly from: Origin;
}

interface Operation {
  readonly op: PushOp;
  readonly intent: Intent;
}
type Prepared = Operation | { readonly error: unknown };

/** What an operation touches: of folders, what lies below them. */
function pathsOf(op: PushOp): SyncPath[] {
  const below = (folder: SyncPath) => `${folder}/…` as SyncPath;
  switch (op.op) {
    case 'rename':
      return [op.path, op.newPath];
    case 'delete-folder':
      return [below(op.path)];
    case 'rename-folder':
      return [below(op.path), below(op.newPath)];
    default:
      return [op.path];
  }
}

/** About the bytes that an operation carries, before it is looked at closely. */
function inlineSize(op: unknown): number {
  const inline = typeof op === 'object' && op !== null ? (op as { inline?: unknown }).inline : undefined;
  return typeof inline === 'string' ? Math.floor((inline.length * 3) / 4) : 0;
}
