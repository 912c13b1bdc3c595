import { createHash } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { apiError, CodedError, uuidv7, type TenantId } from '@atomo-cc/kernel';
import { runAll, tenantTable, type AppDatabase, type Migration } from '../postgres/index.js';
import { BLOB_ERRORS } from './errors.js';
import { PostgresPieces } from './postgres-pieces.js';

/** A stored blob. */
export interface Blob {
  readonly id: string;
  readonly name: string;
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
}

/** Where the bytes of a blob are; bucket and key are those of S3. */
export interface PlacedBlob {
  readonly id: string;
  readonly storage: 'postgres' | 's3';
  readonly bucket: string | null;
  readonly key: string | null;
}

/** Something that keeps bytes. Facts, tenancy and completeness of a blob are its row's, which `BlobStore` looks after. */
export interface BlobBytes {
  /** Where it would put a new blob's bytes. */
  place(tenant: TenantId, id: string): Omit<PlacedBlob, 'id'>;
  /** Writes a stream in bounded memory. What it leaves when it fails `remove` takes away, or it has done so itself. */
  write(tenant: TenantId, blob: PlacedBlob, source: AsyncIterable<Uint8Array>): Promise<void>;
  /** @throws CodedError NOT_FOUND when bytes before `size` are gone */
  read(tenant: TenantId, blob: PlacedBlob, from: number, size: number): AsyncGenerator<Buffer>;
  /** Removes the bytes; those that are not there are removed. */
  remove(blob: PlacedBlob): Promise<void>;
}

/** Bytes on another server than the database. */
export interface RemoteBytes extends BlobBytes {
  /** Answers whether the storage does. */
  ping(): Promise<void>;
  /** Closes all connections. */
  close(): void;
}

class Blobs1700000003000 implements MigrationInterface {
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

/** A row says where its bytes are, so that BLOBS_URL may change and old uploads stay readable. */
class BlobPlaces1700000003001 implements MigrationInterface {
  name = 'BlobPlaces1700000003001';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `alter table blobs
         add storage text not null default 'postgres',
         add bucket text,
         add key text,
         add constraint blobs_place check (
           case storage when 'postgres' then bucket is null and key is null
                        when 's3' then bucket is not null and key is not null
                        else false end)`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['alter table blobs drop storage, drop bucket, drop key']);
  }
}

/** The tables of blobs: what is uploaded is in reach of every service, never on one machine's disk. */
export const blobMigrations: readonly Migration[] = [Blobs1700000003000, BlobPlaces1700000003001];

/** Blobs: their rows in Postgres, their bytes there or on S3-compatible storage. */
export class BlobStore {
  private readonly pieces: BlobBytes;

  /** @param remote takes the bytes of new blobs; without it they go to Postgres */
  constructor(
    private readonly database: AppDatabase,
    private readonly remote?: RemoteBytes,
  ) {
    this.pieces = new PostgresPieces(database);
  }

  /**
   * Stores a stream. A stream that fails leaves nothing behind, and its own error is thrown.
   * @throws CodedError VALIDATION_ERROR when it is longer than the storage takes; BLOBS_UNAVAILABLE, BLOBS_NOT_PERMITTED
   */
  async put(tenant: TenantId, name: string, source: AsyncIterable<Uint8Array>): Promise<Blob> {
    const id = uuidv7();
    const bytes = this.remote ?? this.pieces;
    const blob = { id, ...bytes.place(tenant, id) };
    // The row comes first: whatever is written from here on can be found and removed.
    await this.database.transaction(tenant, (tx) =>
      tx.execute('insert into blobs (id, tenant_id, name, storage, bucket, key) values ($1, $2, $3, $4, $5, $6)', [
        id,
        tenant,
        name,
        blob.storage,
        blob.bucket,
        blob.key,
      ]),
    );
    const hash = createHash('sha256');
    let size = 0;
    let fault: { readonly error: unknown } | undefined;
    async function* measured() {
      try {
        for await (const chunk of source) {
          hash.update(chunk);
          size += chunk.length;
          yield chunk;
        }
      } catch (error) {
        fault = { error };
        throw error;
      }
    }
    try {
      await bytes.write(tenant, blob, measured());
      const sha256 = hash.digest('hex');
      await this.database.transaction(tenant, (tx) =>
        tx.execute('update blobs set size = $2, sha256 = $3 where id = $1', [id, size, sha256]),
      );
      return { id, name, size, sha256 };
    } catch (error) {
      await this.delete(tenant, id).catch(() => undefined);
      throw fault ? fault.error : error;
    }
  }

  /** A wholly stored blob's facts. @throws CodedError NOT_FOUND */
  async find(tenant: TenantId, id: string): Promise<Blob> {
    const { name, size, sha256 } = await this.whole(tenant, id);
    return { id, name, size, sha256 };
  }

  /**
   * Reads a blob from byte `from` on, a few pieces at a time.
   * @throws CodedError NOT_FOUND, also when the blob is removed while it is read: the end of the stream is the blob's end;
   *   BLOBS_UNAVAILABLE, BLOBS_NOT_PERMITTED, BLOBS_NOT_CONFIGURED
   */
  async *read(tenant: TenantId, id: string, from = 0): AsyncGenerator<Buffer> {
    const blob = await this.whole(tenant, id);
    yield* this.bytesOf(blob).read(tenant, blob, from, blob.size);
  }

  /** Removes a blob and its bytes. When the storage fails the blob stays, to be removed again. */
  async delete(tenant: TenantId, id: string): Promise<void> {
    const [blob] = await this.database.transaction(tenant, (tx) =>
      tx.query<PlacedBlob>('select id, storage, bucket, key from blobs where id = $1', [id]),
    );
    if (!blob) return;
    await this.bytesOf(blob).remove(blob);
    await this.database.transaction(tenant, (tx) => tx.execute('delete from blobs where id = $1', [id]));
  }

  /** Removes all blobs of a tenant with their bytes, wherever they are; one after the other, so it may be called again. */
  async deleteAll(tenant: TenantId): Promise<number> {
    const blobs = await this.database.transaction(tenant, (tx) => tx.query<{ id: string }>('select id from blobs'));
    for (const { id } of blobs) await this.delete(tenant, id);
    return blobs.length;
  }

  /** Answers whether the storage of new blobs does; for health checks. */
  async ping(): Promise<void> {
    await (this.remote ?? this.database).ping();
  }

  /** Closes the connections to S3; those of the database are their opener's. */
  close(): void {
    this.remote?.close();
  }

  private async whole(tenant: TenantId, id: string): Promise<Blob & PlacedBlob> {
    const [row] = await this.database.transaction(tenant, (tx) =>
      tx.query<PlacedBlob & { name: string; size: string; sha256: string }>(
        'select id, name, size, sha256, storage, bucket, key from blobs where id = $1 and size is not null',
        [id],
      ),
    );
    if (!row) throw apiError('NOT_FOUND', 'There is no such upload.');
    return { ...row, size: Number(row.size) };
  }

  private bytesOf({ storage }: PlacedBlob): BlobBytes {
    const bytes = storage === 'postgres' ? this.pieces : this.remote;
    if (!bytes) throw new CodedError('BLOBS_NOT_CONFIGURED', BLOB_ERRORS.BLOBS_NOT_CONFIGURED);
    return bytes;
  }
}

/**
 * The blobs of a service. The storage need not answer yet: `ping` says whether it does.
 * @param url BLOBS_URL; empty keeps new blobs in Postgres
 * @throws CodedError CONFIG_INVALID when nothing says which region of AWS
 */
export async function openBlobStore(url: string, database: AppDatabase): Promise<BlobStore> {
  if (url === '') return new BlobStore(database);
  // Services that keep blobs in Postgres do without the 20 MiB of memory that the SDK takes.
  const { openS3Objects } = await import('./s3-objects.js');
  return new BlobStore(database, await openS3Objects(url));
}
