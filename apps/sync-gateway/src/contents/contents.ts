import { createHash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { AppDatabase, runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import {
  contentHashOf,
  type ContentHash,
  EMPTY_HASH,
  FILE_LIMIT_BYTES,
  PART_LIMIT_BYTES,
  pathKey,
  type PutOp,
  syncError,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';
import { bytesOf, CARRIED_LIMIT_BYTES, type Carried, carriedOf, carriedString, hashOfBytes } from './carried.js';

/**
 * The bytes of files by their hash, once for each store.
 * - A row holds the bytes themselves, up to the size of a part, or names the parts of a larger file in order.
 * - `offered_by` are the keys that sent these bytes. A key that does not see the whole store may name bytes that it sent or
 *   that are in its folders; otherwise who knows a hash could fetch, or prove the presence of, what is none of its business.
 * - `touched_at` keeps what was uploaded and waits for its file from being swept away.
 */
export class StoreBlobs1700000300003 implements MigrationInterface {
  name = 'StoreBlobs1700000300003';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table store_blobs (
         tenant_id uuid not null,
         store_id uuid not null,
         hash text not null check (hash ~ '^sha256:[0-9a-f]{64}$'),
         size bigint not null,
         bytes bytea,
         parts text[],
         offered_by uuid[] not null default '{}',
         touched_at timestamptz not null default now(),
         primary key (tenant_id, store_id, hash),
         foreign key (tenant_id, store_id) references stores on delete cascade,
         check (num_nonnulls(bytes, parts) = 1)
       )`,
      // Much of it is compressed already; Postgres would try in vain, and a piece of a compressed value costs the whole.
      `alter table store_blobs alter column bytes set storage external`,
      ...tenantTable('store_blobs', { app: 'select, insert, update', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table store_blobs');
  }
}

/** What a change is going to write: known and checked before the store is locked. */
export interface FileContent {
  readonly hash: ContentHash;
  /** Bytes. */
  readonly size: number;
  /** How protocol 1 shows it; null when it cannot. */
  readonly carried: Carried | null;
  /** The bytes, when they are small enough to be of use later. */
  readonly bytes: Buffer | null;
  /** What must be stored with the change; null when it is there already. */
  readonly store: { readonly bytes: Buffer } | { readonly parts: readonly ContentHash[] } | null;
}

/** Bytes that a change keeps in memory for those who hear of it. */
const KEPT_BYTES = PART_LIMIT_BYTES;

/** Reads and writes the bytes of files. */
@Injectable()
export class Contents {
  constructor(private readonly database: AppDatabase) {}

  /**
   * Stores one part.
   * @param quota bytes that a store may hold which has no quota of its own; left out, the change itself will ask
   * @throws CodedError HASH_MISMATCH, PAYLOAD_TOO_LARGE, QUOTA_EXCEEDED
   */
  async upload(key: StoreKey, hash: ContentHash, bytes: Uint8Array, quota?: number): Promise<void> {
    if (bytes.length > PART_LIMIT_BYTES) {
      throw syncError('PAYLOAD_TOO_LARGE', `A part has at most ${PART_LIMIT_BYTES} bytes.`);
    }
    if (hashOfBytes(bytes) !== hash) throw syncError('HASH_MISMATCH', 'The bytes do not have the hash that was named.');
    await this.database.transaction(key.tenantId, async (tx) => {
      const [store] = await tx.prepared<{ room: boolean }>(
        'select bytes + $2 <= coalesce(quota_bytes, $3::bigint, bytes + $2) as room from stores where id = $1',
        [key.storeId, bytes.length, quota ?? null],
      );
      if (!store?.room) throw syncError('QUOTA_EXCEEDED', 'The store is full.');
      tx.send(
        `insert into store_blobs as b (tenant_id, store_id, hash, size, bytes, offered_by)
         values ($1, $2, $3, $4, $5, case when $7 then '{}'::uuid[] else array[$6::uuid] end)
         on conflict (tenant_id, store_id, hash) do update
           set touched_at = now(),
               offered_by = case when $7 or b.offered_by @> array[$6::uuid] then b.offered_by else b.offered_by || $6::uuid end`,
        [key.tenantId, key.storeId, hash, bytes.length, asBuffer(bytes), key.id, seesAll(key)],
      );
    });
  }

  /** Those of the hashes whose bytes this key has to send. What is there stays there long enough to be used. */
  async missing(key: StoreKey, hashes: readonly ContentHash[]): Promise<ContentHash[]> {
    const wanted = [...new Set(hashes)].filter((hash) => hash !== EMPTY_HASH);
    if (wanted.length === 0) return [];
    const found = await this.database.transaction(key.tenantId, (tx) =>
      tx.query<{ hash: ContentHash }>(
        `update store_blobs b set touched_at = now()
         where store_id = $1 and hash = any($2) and ${allowed('$3', '$4', '$5')} returning hash`,
        [key.storeId, wanted, ...allowance(key)],
      ),
    );
    const there = new Set(found.map(({ hash }) => hash));
    return wanted.filter((hash) => !there.has(hash));
  }

  /**
   * Prepares a content of protocol 1, which may be longer than a part: what is beyond one is stored here, ahead of the change.
   */
  async ofContent(key: StoreKey, path: SyncPath, content: string): Promise<FileContent> {
    const { bytes, as } = bytesOf(path, content);
    const hash = hashOfBytes(bytes);
    const carried = as === 'text' ? { as, hash, size: bytes.length } : carriedString(content, as);
    if (bytes.length <= PART_LIMIT_BYTES) return { hash, size: bytes.length, carried, bytes, store: { bytes } };
    const parts: ContentHash[] = [];
    for (let from = 0; from < bytes.length; from += PART_LIMIT_BYTES) {
      const part = bytes.subarray(from, from + PART_LIMIT_BYTES);
      parts.push(hashOfBytes(part));
      await this.upload(key, parts.at(-1)!, part);
    }
    return { hash, size: bytes.length, carried, bytes: null, store: { parts } };
  }

  /**
   * Prepares what a put of protocol 2 names, in bounded memory.
   * @throws CodedError HASH_MISMATCH, BLOB_MISSING
   */
  async ofPut(key: StoreKey, op: PutOp): Promise<FileContent> {
    if (op.inline != null || op.hash === EMPTY_HASH) {
      const bytes = Buffer.from(op.inline ?? '', 'base64');
      if (hashOfBytes(bytes) !== op.hash || bytes.length !== op.size) throw mismatch();
      return { hash: op.hash, size: op.size, carried: carriedOf(op.path, bytes, op.hash), bytes, store: { bytes } };
    }
    const [single] = op.parts ?? [op.hash];
    const isWhole = (op.parts?.length ?? 1) === 1 && single === op.hash;
    const names = isWhole ? [op.hash] : op.parts!;
    return this.database.transaction(key.tenantId, async (tx) => {
      const blobs = await this.find(tx, key, names);
      const missing = names.filter((hash) => !blobs.has(hash));
      if (missing.length > 0) {
        throw syncError('BLOB_MISSING', 'Bytes of the file were not uploaded yet.', { missing: [...new Set(missing)] });
      }
      const size = names.reduce((sum, hash) => sum + blobs.get(hash)!.size, 0);
      if (size !== op.size || size > FILE_LIMIT_BYTES) throw mismatch();
      // A part of a part would make files of any depth.
      if (!isWhole && names.some((hash) => blobs.get(hash)!.parts !== null)) throw mismatch();
      const hash = createHash('sha256');
      const held: Buffer[] = [];
      for await (const bytes of this.pieces(tx, key.storeId, isWhole ? (blobs.get(op.hash)!.parts ?? names) : names)) {
        hash.update(bytes);
        if (size <= CARRIED_LIMIT_BYTES) held.push(bytes);
      }
      if (contentHashOf(hash.digest()) !== op.hash) throw mismatch();
      const whole = size <= CARRIED_LIMIT_BYTES ? Buffer.concat(held) : null;
      return {
        hash: op.hash,
        size,
        carried: whole && carriedOf(op.path, whole, op.hash),
        bytes: whole && whole.length <= KEPT_BYTES ? whole : null,
        store: isWhole ? null : { parts: names },
      };
    });
  }

  /**
   * The bytes of one file; for what protocol 1 can carry.
   * @throws CodedError NOT_FOUND
   */
  async whole(tx: Tx, storeId: string, hash: ContentHash): Promise<Buffer> {
    if (hash === EMPTY_HASH) return Buffer.alloc(0);
    const [blob] = await tx.prepared<{ bytes: Buffer | null; parts: ContentHash[] | null }>(
      'select bytes, parts from store_blobs where store_id = $1 and hash = $2',
      [storeId, hash],
    );
    if (!blob) throw gone();
    if (blob.bytes) return blob.bytes;
    const held: Buffer[] = [];
    for await (const bytes of this.pieces(tx, storeId, blob.parts!)) held.push(bytes);
    return Buffer.concat(held);
  }

  /**
   * The size of what the key may read under this hash.
   * @throws CodedError NOT_FOUND: unknown, or none of the key's business
   */
  async sizeOf(key: StoreKey, hash: ContentHash): Promise<number> {
    if (hash === EMPTY_HASH) return 0;
    const found = await this.database.transaction(key.tenantId, (tx) => this.find(tx, key, [hash]));
    const blob = found.get(hash);
    if (!blob) throw gone();
    return blob.size;
  }

  /**
   * Bytes [from, from + length) of what `sizeOf` found, part by part.
   * @throws CodedError NOT_FOUND
   */
  async *read(key: StoreKey, hash: ContentHash, from: number, length: number): AsyncGenerator<Buffer> {
    let start = from;
    let left = length;
    const slice = async (name: ContentHash, at: number, count: number) =>
      this.database.transaction(key.tenantId, async (tx) => {
        const [row] = await tx.prepared<{ bytes: Buffer | null }>(
          'select substring(bytes from $3 + 1 for $4) as bytes from store_blobs where store_id = $1 and hash = $2',
          [key.storeId, name, at, count],
        );
        if (!row?.bytes) throw gone();
        return row.bytes;
      });
    for (const part of await this.partsOf(key, hash)) {
      if (left <= 0) return;
      if (start >= part.size) {
        start -= part.size;
        continue;
      }
      const bytes = await slice(part.hash, start, Math.min(left, part.size - start));
      yield bytes;
      left -= bytes.length;
      start = 0;
    }
  }

  private async partsOf(key: StoreKey, hash: ContentHash): Promise<{ hash: ContentHash; size: number }[]> {
    return this.database.transaction(key.tenantId, async (tx) => {
      const rows = await tx.query<{ hash: ContentHash; size: string }>(
        `select coalesce(p.hash, b.hash) as hash, coalesce(part.size, b.size) as size
         from store_blobs b
         left join unnest(b.parts) with ordinality as p (hash, place) on true
         left join store_blobs part on part.store_id = $1 and part.hash = p.hash
         where b.store_id = $1 and b.hash = $2
         order by p.place`,
        [key.storeId, hash],
      );
      return rows.map((row) => ({ hash: row.hash, size: Number(row.size) }));
    });
  }

  private async find(tx: Tx, key: StoreKey, hashes: readonly ContentHash[]) {
    const rows = await tx.query<{ hash: ContentHash; size: string; parts: ContentHash[] | null }>(
      `select hash, size, parts from store_blobs b
       where store_id = $1 and hash = any($2) and ${allowed('$3', '$4', '$5')}`,
      [key.storeId, hashes, ...allowance(key)],
    );
    return new Map(rows.map(({ hash, size, parts }) => [hash, { size: Number(size), parts }]));
  }

  private async *pieces(tx: Tx, storeId: string, hashes: readonly ContentHash[]): AsyncGenerator<Buffer> {
    for (const hash of hashes) {
      const [row] = await tx.prepared<{ bytes: Buffer | null }>(
        'select bytes from store_blobs where store_id = $1 and hash = $2',
        [storeId, hash],
      );
      if (!row?.bytes) throw gone();
      yield row.bytes;
    }
  }
}

/** Whether the key sees every file of its store. */
export function seesAll(key: StoreKey): boolean {
  return key.prefixes.length === 0 && key.permissions.includes('read');
}

/** The condition under which bytes `b` are the key's business; the parameters are those of `allowance`. */
function allowed(all: string, keyId: string, folders: string): string {
  return `(${all}::boolean or b.offered_by @> array[${keyId}::uuid] or exists (
     select 1 from store_changes c
     where c.store_id = $1 and b.hash in (c.content_hash, c.old_content_hash)
       and exists (select 1 from unnest(${folders}::text[]) as f (folder) where starts_with(c.path_key, f.folder))))`;
}

function allowance(key: StoreKey): [boolean, string, string[]] {
  const folders = key.permissions.includes('read') ? key.prefixes.map((folder) => folderKey(folder)) : [];
  return [seesAll(key), key.id, folders];
}

function folderKey(folder: SyncPath): string {
  return `${pathKey(folder)}/`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function mismatch() {
  return syncError('HASH_MISMATCH', 'The bytes do not have the hash or the size that was named.');
}

function gone() {
  return syncError('NOT_FOUND', 'The store has no such bytes.');
}
