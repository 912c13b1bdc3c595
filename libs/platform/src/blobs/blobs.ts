import { createHash } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { apiError, uuidv7, type TenantId } from '@atomo-cc/kernel';
import { runAll, tenantTable, type AppDatabase } from '../postgres/index.js';

/**
 * The size of one stored piece. Postgres keeps each in its out-of-line storage; 256 KiB keeps a piece's row cheap to read
 * while a gigabyte stays at 4,096 rows.
 */
const PIECE_BYTES = 256 * 1024;
/** Pieces written per transaction, so that an upload of any size holds at most 4 MiB in memory and no long transaction. */
const PIECES_PER_WRITE = 16;

/** A stored blob. */
export interface Blob {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** The tables of blobs: what is uploaded is in reach of every service, never on one machine's disk. */
export class Blobs1700000003000 implements MigrationInterface {
  name = 'Blobs1700000003000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table blobs (
         id uuid primary key,
         tenant_id uuid not null,
         name text not null,
         size bigint,
         sha256 text,
         created_at timestamptz not null default now()
       )`,
      // Mail archives are compressed mostly; trying again costs time and saves nothing.
      `create table blob_pieces (
         tenant_id uuid not null,
         blob_id uuid not null references blobs (id) on delete cascade,
         n int not null,
         bytes bytea not null,
         primary key (blob_id, n)
       )`,
      `alter table blob_pieces alter column bytes set storage external`,
      ...tenantTable('blobs', { app: 'select, insert, update, delete', system: 'select, delete' }),
      ...tenantTable('blob_pieces', { app: 'select, insert, delete', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop table blob_pieces', 'drop table blobs']);
  }
}

/** Blobs kept in Postgres. */
export class BlobStore {
  constructor(private readonly database: AppDatabase) {}

  /** Stores a stream of any size. A stream that fails leaves nothing behind. */
  async put(tenant: TenantId, name: string, source: AsyncIterable<Uint8Array>): Promise<Blob> {
    const id = uuidv7();
    await this.database.transaction(tenant, (tx) =>
      tx.execute('insert into blobs (id, tenant_id, name) values ($1, $2, $3)', [id, tenant, name]),
    );
    try {
      const hash = createHash('sha256');
      let size = 0;
      let n = 0;
      let pieces: Buffer[] = [];
      const flush = async () => {
        const first = n - pieces.length;
        const batch = pieces;
        pieces = [];
        await this.database.transaction(tenant, (tx) =>
          tx.execute(
            `insert into blob_pieces (tenant_id, blob_id, n, bytes)
             select $1, $2, $3 + ord - 1, bytes from unnest($4::bytea[]) with ordinality as p (bytes, ord)`,
            [tenant, id, first, batch],
          ),
        );
      };
      for await (const piece of cut(source)) {
        hash.update(piece);
        size += piece.length;
        n += 1;
        pieces.push(piece);
        if (pieces.length === PIECES_PER_WRITE) await flush();
      }
      if (pieces.length > 0) await flush();
      const sha256 = hash.digest('hex');
      await this.database.transaction(tenant, (tx) =>
        tx.execute('update blobs set size = $2, sha256 = $3 where id = $1', [id, size, sha256]),
      );
      return { id, name, size, sha256 };
    } catch (error) {
      await this.delete(tenant, id).catch(() => undefined);
      throw error;
    }
  }

  /** A wholly stored blob's facts. @throws CodedError NOT_FOUND */
  async find(tenant: TenantId, id: string): Promise<Blob> {
    const [row] = await this.database.transaction(tenant, (tx) =>
      tx.query<{ id: string; name: string; size: string; sha256: string }>(
        'select id, name, size, sha256 from blobs where id = $1 and size is not null',
        [id],
      ),
    );
    if (!row) throw apiError('NOT_FOUND', 'There is no such upload.');
    return { ...row, size: Number(row.size) };
  }

  /**
   * Reads a blob from byte `from` on, a few pieces at a time.
   * @throws CodedError NOT_FOUND, also when the blob is removed while it is read: the end of the stream is the blob's end
   */
  async *read(tenant: TenantId, id: string, from = 0): AsyncGenerator<Buffer> {
    const { size } = await this.find(tenant, id);
    const end = Math.ceil(size / PIECE_BYTES);
    let n = Math.floor(from / PIECE_BYTES);
    let skip = from % PIECE_BYTES;
    while (n < end) {
      const rows = await this.database.transaction(tenant, (tx) =>
        tx.query<{ bytes: Buffer }>(
          'select bytes from blob_pieces where blob_id = $1 and n >= $2 order by n limit $3',
          [id, n, PIECES_PER_WRITE],
        ),
      );
      for (const { bytes } of rows) {
        if (skip < bytes.length) yield skip > 0 ? bytes.subarray(skip) : bytes;
        skip = 0;
      }
      if (rows.length === 0) throw apiError('NOT_FOUND', 'The upload was removed while it was read.');
      n += rows.length;
    }
  }

  /** Removes a blob and its bytes. */
  async delete(tenant: TenantId, id: string): Promise<void> {
    await this.database.transaction(tenant, (tx) => tx.execute('delete from blobs where id = $1', [id]));
  }
}

/** Cuts a stream into pieces of exactly PIECE_BYTES (the last may be shorter), so that an offset names its piece. */
async function* cut(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let held: Uint8Array[] = [];
  let length = 0;
  for await (let chunk of source) {
    while (length + chunk.length >= PIECE_BYTES) {
      const taken = PIECE_BYTES - length;
      yield Buffer.concat([...held, chunk.subarray(0, taken)]);
      chunk = chunk.subarray(taken);
      held = [];
      length = 0;
    }
    if (chunk.length > 0) {
      held.push(chunk);
      length += chunk.length;
    }
  }
  if (length > 0) yield Buffer.concat(held);
}
