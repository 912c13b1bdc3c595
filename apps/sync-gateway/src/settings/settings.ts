import { createHash } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import {
  fileKind,
  isBelow,
  pathKey,
  type SettingList,
  type SettingView,
  type SettingWithContent,
  syncError,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';

/** What the settings of one store may come to: a vault with a hundred plugins has some tens of megabytes. */
const SETTINGS_LIMIT_BYTES = 256 * 1024 * 1024;
/** How long a deleted setting keeps its content. */
const TOMBSTONE_DAYS = 30;

/**
 * The table of settings: what the plugin of protocol 1 pushes and pulls by hand of its own folder. They are no files of the
 * store: no log, no history, no broadcast.
 */
export class StoreSettings1700000300006 implements MigrationInterface {
  name = 'StoreSettings1700000300006';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table store_settings (
         tenant_id uuid not null,
         store_id uuid not null,
         path_key text not null,
         path text not null,
         content text not null,
         hash text not null,
         size bigint not null,
         created_at timestamptz not null default now(),
         updated_at timestamptz not null default now(),
         expires_at timestamptz,
         primary key (tenant_id, store_id, path_key),
         foreign key (tenant_id, store_id) references stores on delete cascade
       )`,
      ...tenantTable('store_settings', { app: 'select, insert, update', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table store_settings');
  }
}

interface Row {
  path: SyncPath;
  content?: string;
  hash: string;
  size: string;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = 'path, hash, size, created_at, updated_at';
type Scope = Pick<StoreKey, 'tenantId' | 'storeId' | 'prefixes'>;

function viewOf(row: Row): SettingView {
  return {
    path: row.path,
    hash: row.hash,
    size: Number(row.size),
    ...kindOf(row.path),
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
  };
}

function kindOf(path: SyncPath): { isBinary: boolean; extension: string | null } {
  const { isBinary, extension } = fileKind(path);
  return { isBinary, extension };
}

/** All settings, without their contents. A key of single folders sees those in its folders. */
export async function listSettings(tx: Tx, { storeId, prefixes }: Scope): Promise<SettingList> {
  const rows = await tx.query<Row>(
    `select ${COLUMNS} from store_settings where store_id = $1 and expires_at is null order by path collate "C"`,
    [storeId],
  );
  const settings = rows
    .filter(({ path }) => prefixes.length === 0 || prefixes.some((folder) => isBelow(folder, path)))
    .map(viewOf);
  return { settings, total: settings.length };
}

/**
 * One setting.
 * @throws CodedError NOT_FOUND
 */
export async function readSetting(tx: Tx, { storeId }: Scope, path: SyncPath): Promise<SettingWithContent> {
  const [row] = await tx.query<Row & { content: string }>(
    `select ${COLUMNS}, content from store_settings where store_id = $1 and path_key = $2 and expires_at is null`,
    [storeId, pathKey(path)],
  );
  if (!row) throw syncError('NOT_FOUND', 'There is no such setting.');
  return { ...viewOf(row), content: row.content };
}

/**
 * Writes a setting, whatever was there.
 * @throws CodedError QUOTA_EXCEEDED, NOT_FOUND (the store is gone)
 */
export async function writeSetting(tx: Tx, scope: Scope, path: SyncPath, content: string): Promise<SettingView> {
  const hash = `sha256:${createHash('sha256').update(content).digest('hex')}`;
  const size = Buffer.byteLength(content);
  const [row] = await tx.query<Row>(
    `insert into store_settings (tenant_id, store_id, path_key, path, content, hash, size)
     select $1, s.id, $3, $4, $5, $6, $7 from stores s
     where s.id = $2 and $7::bigint + coalesce((
       select sum(size) from store_settings where store_id = $2 and path_key <> $3
     ), 0) <= ${SETTINGS_LIMIT_BYTES}
     on conflict (tenant_id, store_id, path_key) do update
       set path = excluded.path, content = excluded.content, hash = excluded.hash, size = excluded.size,
           updated_at = now(), expires_at = null
     returning ${COLUMNS}`,
    [scope.tenantId, scope.storeId, pathKey(path), path, content, hash, size],
  );
  if (!row) throw syncError('QUOTA_EXCEEDED', 'The settings of the store are full.');
  return viewOf(row);
}

/** Deletes one setting, or all that the key covers; answers how many there were. */
export async function deleteSettings(tx: Tx, { storeId, prefixes }: Scope, path: SyncPath | null): Promise<number> {
  return tx.execute(
    `update store_settings set expires_at = now() + interval '${TOMBSTONE_DAYS} days', updated_at = now()
     where store_id = $1 and expires_at is null and ($2::text is null or path_key = $2)
       and ($3::text[] is null or exists (select 1 from unnest($3::text[]) as p (folder) where starts_with(path_key, folder)))`,
    [
      storeId,
      path === null ? null : pathKey(path),
      prefixes.length === 0 ? null : prefixes.map((folder) => `${pathKey(folder)}/`),
    ],
  );
}
