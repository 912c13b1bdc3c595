import type { MigrationInterface, QueryRunner } from 'typeorm';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { type StoreView, syncError } from '@atomo-cc/sync-protocol';

/**
 * The table of stores.
 * - `head_seq` is the position of the last change. It is moved under the row's lock, inside the transaction that writes
 *   the change, and the lock is held until commit: so changes become visible in the order of their numbers, and a reader
 *   that asks for "all after n" misses none. A sequence of Postgres would not promise that.
 * - `epoch` names this run of numbers; a restore from a backup renews it, and cursors of the old one are void.
 * - `floor_seq` is the position up to which the log was forgotten.
 * - `file_count` and `total_bytes` count live files; they are kept by whoever moves `head_seq`.
 */
export class Stores1700000300001 implements MigrationInterface {
  name = 'Stores1700000300001';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table stores (
         tenant_id uuid not null,
         id uuid not null,
         name text not null,
         epoch uuid not null default gen_random_uuid(),
         head_seq bigint not null default 0,
         floor_seq bigint not null default 0,
         file_count bigint not null default 0,
         total_bytes bigint not null default 0,
         created_at timestamptz not null default now(),
         updated_at timestamptz not null default now(),
         primary key (tenant_id, id)
       )`,
      ...tenantTable('stores', { app: 'select, insert, update, delete', system: '' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table stores');
  }
}

interface StoreRow {
  id: string;
  name: string;
  file_count: string;
  total_bytes: string;
  created_at: Date;
  updated_at: Date;
}

const COLUMNS = 'id, name, file_count, total_bytes, created_at, updated_at';

function viewOf(row: StoreRow): StoreView {
  return {
    id: row.id,
    name: row.name,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    fileCount: Number(row.file_count),
    totalSize: Number(row.total_bytes),
  };
}

/**
 * Makes an empty store of the tenant; without a quota of its own it has the gateway's.
 * @throws CodedError NOT_FOUND when there is no such tenant, or it is being deleted
 */
export async function createStore(
  tx: Tx,
  tenant: TenantId,
  name: string,
  quotaBytes: number | null,
): Promise<StoreView> {
  const kept = await tx.query('select 1 from tenants where id = $1 and deleting_at is null', [tenant]);
  if (kept.length === 0) throw syncError('NOT_FOUND', `There is no tenant ${tenant}.`);
  const [row] = await tx.query<StoreRow>(
    `insert into stores (tenant_id, id, name, quota_bytes) values ($1, $2, $3, $4) returning ${COLUMNS}`,
    [tenant, uuidv7(), name, quotaBytes],
  );
  return viewOf(row!);
}

/** All stores of the tenant, by name. */
export async function listStores(tx: Tx): Promise<StoreView[]> {
  return (await tx.query<StoreRow>(`select ${COLUMNS} from stores order by name, id`)).map(viewOf);
}

/**
 * One store.
 * @throws CodedError NOT_FOUND
 */
export async function getStore(tx: Tx, storeId: string): Promise<StoreView> {
  const [row] = await tx.query<StoreRow>(`select ${COLUMNS} from stores where id = $1`, [storeId]);
  if (!row) throw noStore(storeId);
  return viewOf(row);
}

/**
 * Deletes a store with its files and its log.
 * @throws CodedError NOT_FOUND
 */
export async function deleteStore(tx: Tx, storeId: string): Promise<void> {
  if ((await tx.execute('delete from stores where id = $1', [storeId])) === 0) throw noStore(storeId);
}

/** What every question about a store that is gone is answered. */
export function noStore(storeId: string) {
  return syncError('NOT_FOUND', `There is no store ${storeId}.`);
}
