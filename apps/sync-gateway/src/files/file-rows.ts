import type { MigrationInterface, QueryRunner } from 'typeorm';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import {
  type FileList,
  type FileView,
  type FileWithContent,
  isSet,
  LIST_DEFAULT,
  type ListQuery,
  type SyncPath,
  syncError,
} from '@atomo-cc/sync-protocol';

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

/** A file without its content, as the queries below select it. */
export interface FileRow {
  path: string;
  hash: string;
  size: string;
  is_binary: boolean;
  extension: string | null;
  seq: string;
  created_at: Date;
  updated_at: Date;
  expires_at: Date | null;
}

/** The columns of a FileRow. */
export const FILE_COLUMNS = 'path, hash, size, is_binary, extension, seq, created_at, updated_at, expires_at';

/** A row as clients see it. */
export function viewOf(row: FileRow): FileView {
  return {
    path: row.path,
    hash: row.hash,
    size: Number(row.size),
    isBinary: row.is_binary,
    extension: row.extension,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    seq: Number(row.seq),
    ...(row.expires_at && { expiresAt: row.expires_at.toISOString() }),
  };
}

/**
 * One live file.
 * @throws CodedError NOT_FOUND
 */
export async function readFile(tx: Tx, storeId: string, path: SyncPath): Promise<FileWithContent> {
  const [row] = await tx.query<FileRow & { content: string }>(
    `select ${FILE_COLUMNS}, content from store_files where store_id = $1 and path = $2 and expires_at is null`,
    [storeId, path],
  );
  if (!row) throw syncError('NOT_FOUND', `There is no file ${path}.`);
  return { ...viewOf(row), content: row.content };
}

/**
 * A page of the store's files. Page and total are of one moment. Between two pages, though, an offset counts what is there
 * at that time: a file that vanishes from the list moves those behind it one place up, and one of them is never shown.
 * With `include_deleted` a deleted or renamed file leaves its tombstone in its place, so that clients which ask for it, as
 * those of protocol 1 do, skip nothing.
 */
export async function listFiles(tx: Tx, storeId: string, query: ListQuery): Promise<FileList> {
  const limit = Number(query.limit ?? LIST_DEFAULT);
  const offset = Number(query.offset ?? 0);
  const extensions = (query.extension ?? '')
    .split(',')
    .map((extension) => extension.trim().toLowerCase())
    .filter((extension) => extension !== '');
  const [{ total, files } = { total: 0, files: [] }] = await tx.query<{ total: number; files: JsonRow[] }>(
    `with matching as not materialized (
       select * from store_files
       where store_id = $1
         and (expires_at is null or ($2 and expires_at > now()))
         and ($3::text is null or starts_with(path, $3))
         and ($4::text is null or strpos(path, $4) > 0)
         and ($5::text[] is null or extension = any($5))
         and ($6::boolean is null or is_binary = $6)
         and ($7::text is null or (not is_binary and content ilike $7))
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
    ],
  );
  return { files: files.map(viewOfJson), total, limit, offset };
}

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
