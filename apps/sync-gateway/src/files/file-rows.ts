import type { MigrationInterface, QueryRunner } from 'typeorm';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import {
  type ContentHash,
  digestTerm,
  EMPTY_HASH,
  type FileList,
  type FileView,
  isSet,
  LIST_DEFAULT,
  type ListQuery,
  pathKey,
  type SyncPath,
  syncError,
} from '@atomo-cc/sync-protocol';
import { bytesOf, type Carriage, hashOfBytes } from '../contents/index.js';
import type { StoreKey } from '../credentials/index.js';
import { asSigned, kindOf } from '../log/index.js';
import type { FileNow } from './workspace.js';

/**
 * The tables of files.
 * - `store_files` holds one row for each path key of a store: a live file, or the tombstone of a deleted one (`expires_at`
 *   is set), whose content is gone and which keeps telling clients of the deletion for 30 days.
 * - `store_changes` is the log: what happened, in the order of `seq`, with the hashes before and after.
 */
export class StoreFiles1700000300002 implements MigrationInterface {
  name = 'StoreFiles1700000300002';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table store_files (
         tenant_id uuid not null,
         store_id uuid not null,
         id uuid not null,
         path text not null,
         path_key text not null,
         content text not null,
         hash text not null,
         size bigint not null,
         is_binary boolean not null,
         extension text,
         seq bigint not null,
         created_at timestamptz not null default clock_timestamp(),
         updated_at timestamptz not null default clock_timestamp(),
         expires_at timestamptz,
         primary key (tenant_id, store_id, path_key),
         foreign key (tenant_id, store_id) references stores on delete cascade
       )`,
      // Lists are in the order of code points, which no locale and no upgrade of a library changes.
      `create index store_files_path on store_files (tenant_id, store_id, path collate "C")`,
      `create index store_files_tombstones on store_files (tenant_id, store_id, expires_at) where expires_at is not null`,
      `create table store_changes (
         tenant_id uuid not null,
         store_id uuid not null,
         seq bigint not null,
         op text not null check (op in ('create', 'modify', 'delete', 'rename')),
         file_id uuid not null,
         path text not null,
         old_path text,
         hash text,
         old_hash text,
         size bigint not null,
         actor uuid not null,
         at timestamptz not null,
         primary key (tenant_id, store_id, seq),
         foreign key (tenant_id, store_id) references stores on delete cascade
       )`,
      ...tenantTable('store_files', { app: 'select, insert, update, delete', system: '' }),
      // The log is written once: nobody who serves requests may change it.
      ...tenantTable('store_changes', { app: 'select, insert', system: '' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop table store_changes', 'drop table store_files']);
  }
}

/**
 * Bytes move to `store_blobs`; files and the log name them by hash, and the log says how protocol 1 carries them, which key and
 * which device did what, and by which operation. `store_ops` holds the answers to operations that were carried out.
 * - A tombstone's `content_hash` is that of the last bytes, which wait in the trash; null where the file was moved away.
 * - `digest` is the file's term (`digestTerm`), as a signed number; the store's is the exclusive or of those of live files.
 * - What was logged before has no bytes: cursors start after it.
 */
export class FileContents1700000300004 implements MigrationInterface {
  name = 'FileContents1700000300004';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `alter table stores
         add digest bigint not null default 0,
         add bytes bigint not null default 0,
         add quota_bytes bigint check (quota_bytes > 0)`,
      `alter table store_files
         add content_hash text, add byte_size bigint not null default 0, add carried text, add digest bigint not null default 0,
         alter column hash drop not null`,
      `alter table store_changes
         add path_key text, add content_hash text, add old_content_hash text, add byte_size bigint not null default 0,
         add carried text, add device text, add op_id uuid, drop hash, drop old_hash, drop size`,
      `create table store_ops (
         tenant_id uuid not null,
         store_id uuid not null,
         op_id uuid not null,
         fingerprint text not null,
         answer jsonb not null,
         at timestamptz not null default now(),
         primary key (tenant_id, store_id, op_id),
         foreign key (tenant_id, store_id) references stores on delete cascade
       )`,
      ...tenantTable('store_ops', { app: 'select, insert', system: 'select, delete' }),
    ]);
    await moveContents(runner);
    await runAll(runner, [
      'alter table store_files drop column content',
      'create index store_changes_file on store_changes (tenant_id, store_id, file_id, seq)',
      'create index store_changes_at on store_changes (at)',
      'create index store_ops_at on store_ops (at)',
      // Retention is a background part; it forgets what is old enough.
      'grant select, update (floor_seq), delete on stores to atomo_system',
      'grant select, delete on store_changes to atomo_system',
      'grant select, delete on store_files to atomo_system',
    ]);
  }

  async down(): Promise<void> {
    throw new Error('The bytes of files do not move back into their rows: restore the backup.');
  }
}

/** Rows at a time. */
const MOVED_AT_ONCE = 200;

async function moveContents(runner: QueryRunner): Promise<void> {
  const tables = ['stores', 'store_files', 'store_changes', 'store_blobs'];
  // The owner is bound by row-level security too, and has no tenant here.
  for (const table of tables) await runner.query(`alter table ${table} no force row level security`);
  for (;;) {
    const rows = (await runner.query(
      `select tenant_id, store_id, path, path_key, content from store_files
       where expires_at is null and content_hash is null limit ${MOVED_AT_ONCE}`,
    )) as { tenant_id: string; store_id: string; path: SyncPath; path_key: string; content: string }[];
    if (rows.length === 0) break;
    for (const { tenant_id: tenant, store_id: store, path, path_key: key, content } of rows) {
      const { bytes, as } = bytesOf(path, content);
      const hash = hashOfBytes(bytes);
      await runner.query(
        `insert into store_blobs (tenant_id, store_id, hash, size, bytes) values ($1, $2, $3, $4, $5) on conflict do nothing`,
        [tenant, store, hash, bytes.length, bytes],
      );
      await runner.query(
        `update store_files set content_hash = $4, byte_size = $5, carried = $6, digest = $7
         where tenant_id = $1 and store_id = $2 and path_key = $3`,
        [tenant, store, key, hash, bytes.length, as, asSigned(digestTerm(path, hash))],
      );
    }
  }
  await runAll(runner, [
    `update store_changes c set path_key = lower(path)`,
    `update stores s set floor_seq = head_seq,
       digest = coalesce((select bit_xor(digest) from store_files f where f.store_id = s.id and f.expires_at is null), 0),
       bytes = coalesce((select sum(byte_size) from store_files f where f.store_id = s.id and f.expires_at is null), 0)`,
    'alter table store_changes alter column path_key set not null',
  ]);
  for (const table of tables) await runner.query(`alter table ${table} force row level security`);
}

/** A file as protocol 1 shows it, as the queries below select it. */
interface FileRow {
  path: string;
  hash: string | null;
  size: string;
  carried: Carriage | null;
  extension: string | null;
  seq: string;
  created_at: Date;
  updated_at: Date;
  expires_at: Date | null;
}

const FILE_COLUMNS = 'path, hash, size, carried, extension, seq, created_at, updated_at, expires_at';
/** Protocol 1 cannot carry what is longer than its content may be: it does not see such a file. */
const IN_PROTOCOL_1 = '(hash is not null or expires_at is not null)';

function viewOf(row: FileRow): FileView {
  const isDead = row.expires_at !== null;
  return {
    path: row.path,
    // A tombstone shows the hash of nothing, as protocol 1 always has.
    hash: isDead ? EMPTY_HASH : row.hash!,
    size: isDead ? 0 : Number(row.size),
    isBinary: kindOf(row.path as SyncPath, row.carried).isBinary,
    extension: row.extension,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    seq: Number(row.seq),
    ...(isDead && { expiresAt: row.expires_at!.toISOString() }),
  };
}

/** A live file as protocol 1 shows it. */
export function viewOfFile(file: FileNow): FileView {
  const { extension, isBinary } = kindOf(file.path, file.carried?.as ?? null);
  return {
    path: file.path,
    hash: file.carried?.hash ?? file.hash!,
    size: file.carried?.size ?? file.size,
    isBinary,
    extension,
    createdAt: file.createdAt.toISOString(),
    updatedAt: file.updatedAt.toISOString(),
    seq: file.seq,
  };
}

/**
 * One live file, without its bytes, for those who fetch them by `contentHash`.
 * @throws CodedError NOT_FOUND
 */
export async function readFile(
  tx: Tx,
  storeId: string,
  path: SyncPath,
): Promise<{ view: FileView; contentHash: ContentHash; as: Carriage }> {
  const [row] = await tx.prepared<FileRow & { content_hash: ContentHash }>(
    `select ${FILE_COLUMNS}, content_hash from store_files
     where store_id = $1 and path_key = $2 and path = $3 and expires_at is null and hash is not null`,
    [storeId, pathKey(path), path],
  );
  if (!row) throw syncError('NOT_FOUND', `There is no file ${path}.`);
  return { view: viewOf(row), contentHash: row.content_hash, as: row.carried! };
}

/**
 * A page of the store's files. Page and total are of one moment. Between two pages, though, an offset counts what is there
 * at that time: a file that vanishes from the list moves those behind it one place up, and one of them is never shown.
 * With `include_deleted` a deleted or renamed file leaves its tombstone in its place, so that clients which ask for it, as
 * those of protocol 1 do, skip nothing.
 */
export async function listFiles(
  tx: Tx,
  { storeId, prefixes }: Pick<StoreKey, 'storeId' | 'prefixes'>,
  query: ListQuery,
): Promise<FileList> {
  const limit = Number(query.limit ?? LIST_DEFAULT);
  const offset = Number(query.offset ?? 0);
  const extensions = (query.extension ?? '')
    .split(',')
    .map((extension) => extension.trim().toLowerCase())
    .filter((extension) => extension !== '');
  const [{ total, files } = { total: 0, files: [] }] = await tx.query<{ total: number; files: JsonRow[] }>(
    `with matching as not materialized (
       select * from store_files f
       where store_id = $1 and ${IN_PROTOCOL_1}
         and (expires_at is null or ($2 and expires_at > now()))
         and ($10::text[] is null or exists (select 1 from unnest($10::text[]) as p (folder) where starts_with(path_key, folder)))
         and ($3::text is null or starts_with(path, $3))
         and ($4::text is null or strpos(path, $4) > 0)
         and ($5::text[] is null or extension = any($5))
         and ($6::boolean is null or (is_binary or carried is not distinct from 'base64') = $6)
         and ($7::text is null or case when carried = 'text' and not is_binary and expires_at is null then ${TEXT} ilike $7 end)
     ), page as (
       select ${FILE_COLUMNS} from matching order by path collate "C" limit $8 offset $9
     )
     select (select count(*) from matching)::int as total,
            (select coalesce(json_agg(page order by path collate "C"), '[]') from page) as files`,
    [
      storeId,
      isSet(query.include_deleted),
      query.path?.normalize('NFC') || null,
      query.path_contains?.normalize('NFC') || null,
      extensions.length > 0 ? extensions : null,
      query.is_binary === undefined ? null : isSet(query.is_binary),
      query.content_contains ? `%${query.content_contains.replaceAll(/[\\%_]/g, '\\$&')}%` : null,
      limit,
      offset,
      prefixes.length > 0 ? prefixes.map((folder) => `${pathKey(folder)}/`) : null,
    ],
  );
  return { files: files.map(viewOfJson), total, limit, offset };
}

/** The text of a file `f`, whether it is one part or several. */
const TEXT = `(
  select convert_from(coalesce(b.bytes, (
    select string_agg(p.bytes, ''::bytea order by n.place)
    from unnest(b.parts) with ordinality as n (hash, place)
    join store_blobs p on p.store_id = f.store_id and p.hash = n.hash)), 'UTF8')
  from store_blobs b where b.store_id = f.store_id and b.hash = f.content_hash)`;

type JsonRow = { [Column in keyof FileRow]: FileRow[Column] extends Date | null ? string | null : FileRow[Column] };

function viewOfJson(row: JsonRow): FileView {
  const date = (value: unknown) => new Date(value as string);
  return viewOf({
    ...row,
    created_at: date(row.created_at),
    updated_at: date(row.updated_at),
    expires_at: row.expires_at === null ? null : date(row.expires_at),
  });
}
