import { createHash, randomBytes } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import { tenantId, uuidv7, type TenantId, withChecksum } from '@atomo-cc/kernel';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { type By, recordAccess } from './access-log.js';
import { ofOpenTenant } from './tenants.js';

/** Random bytes of a key: 152 bits cannot be guessed, so one SHA-256 is the right way to store it (slow hashes are for passwords). */
const SECRET_BYTES = 19;
/** `last_used_at` is true to this many seconds, so that a busy key does not rewrite its row with every request. */
const LAST_USED_SECONDS = 60;

/** A key as its owner sees it; the key itself is known only to whoever it was issued to. */
export interface ApiKey {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly storeId: string;
  readonly name: string;
  /** The beginning of the key, to tell keys apart by. */
  readonly prefix: string;
  readonly permissions: readonly ApiKeyPermission[];
  /** The folders of the store that the key sees and writes; empty: all of it. Who uses the key applies them. */
  readonly prefixes: readonly string[];
  /** From then on the key opens nothing; null: never. */
  readonly expiresAt: Date | null;
  readonly createdAt: Date;
  readonly lastUsedAt: Date | null;
}

/** What a key is issued for. */
export interface ApiKeyRequest {
  readonly tenantId: TenantId;
  readonly storeId: string;
  readonly name: string;
  readonly permissions: readonly ApiKeyPermission[];
  /** What the key begins with. */
  readonly prefix: string;
  readonly prefixes?: readonly string[];
  readonly expiresAt?: Date | null;
}

/** What a key may do with its store. */
export type ApiKeyPermission = 'read' | 'write';

/** The table of keys by which programs reach a store. A revoked key keeps its row: the change log names it as the actor. */
export class ApiKeys1700000200001 implements MigrationInterface {
  name = 'ApiKeys1700000200001';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table api_keys (
         id uuid primary key,
         tenant_id uuid not null,
         store_id uuid not null,
         name text not null,
         key_hash text not null unique check (key_hash ~ '^[0-9a-f]{64}$'),
         key_prefix text not null,
         permissions text[] not null check (cardinality(permissions) > 0 and permissions <@ array['read', 'write']),
         created_at timestamptz not null default now(),
         last_used_at timestamptz,
         revoked_at timestamptz
       )`,
      `create index api_keys_store on api_keys (tenant_id, store_id)`,
      ...tenantTable('api_keys', { app: 'select, insert, update, delete', system: 'select, update' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table api_keys');
  }
}

/** Folders a key is confined to, and the time when it ends by itself. */
export class ApiKeyScopes1700000200002 implements MigrationInterface {
  name = 'ApiKeyScopes1700000200002';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`alter table api_keys add prefixes text[] not null default '{}', add expires_at timestamptz`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('alter table api_keys drop prefixes, drop expires_at');
  }
}

/** What makes a key open something. Every question whether a key still holds goes by this. */
const HOLDS = `revoked_at is null and (expires_at is null or expires_at > now()) and ${ofOpenTenant('api_keys')}`;

interface KeyRow {
  id: string;
  tenant_id: string;
  store_id: string;
  name: string;
  key_prefix: string;
  permissions: ApiKeyPermission[];
  prefixes: string[];
  expires_at: Date | null;
  created_at: Date;
  last_used_at: Date | null;
}

const COLUMNS =
  'id, tenant_id, store_id, name, key_prefix, permissions, prefixes, expires_at, created_at, last_used_at';

function keyOf(row: KeyRow): ApiKey {
  return {
    id: row.id,
    tenantId: tenantId(row.tenant_id),
    storeId: row.store_id,
    name: row.name,
    prefix: row.key_prefix,
    permissions: row.permissions,
    prefixes: row.prefixes,
    expiresAt: row.expires_at,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at,
  };
}

/** The form in which a key is stored and looked up: SHA-256 in hex. */
export function hashApiKey(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

/**
 * Makes a key of `prefix`, 26 random characters of base64url and a checksum of six over all of it, and stores its hash. The log is
 * told, here and below.
 * @returns the row and the key; the key can never be read again
 */
export async function issueApiKey(tx: Tx, wanted: ApiKeyRequest, by: By): Promise<{ row: ApiKey; key: string }> {
  const key = withChecksum(`${wanted.prefix}${randomBytes(SECRET_BYTES).toString('base64url')}`);
  const [row] = await tx.query<KeyRow>(
    `insert into api_keys
       (id, tenant_id, store_id, name, key_hash, key_prefix, permissions, prefixes, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning ${COLUMNS}`,
    [
      uuidv7(),
      wanted.tenantId,
      wanted.storeId,
      wanted.name,
      hashApiKey(key),
      wanted.prefix,
      wanted.permissions,
      wanted.prefixes ?? [],
      wanted.expiresAt ?? null,
    ],
  );
  const issued = keyOf(row!);
  const { storeId: store, name, permissions, prefixes, expiresAt } = issued;
  const event = accessEvent('keyIssued', {
    store,
    name,
    permissions,
    prefixes,
    expiresAt: expiresAt?.toISOString() ?? null,
  });
  await recordAccess(tx, issued.tenantId, accessStream('key', issued.id), event, by);
  return { row: issued, key };
}

/**
 * Issues a key that may do what another may, and lets the old one end after an overlap in which both open the store.
 * @param overlapSeconds from 0 on; an old key that ends sooner by itself does so
 * @returns null when the store has no such key, or it no longer holds
 */
export async function rotateApiKey(
  tx: Tx,
  storeId: string,
  keyId: string,
  overlapSeconds: number,
  by: By,
): Promise<{ row: ApiKey; key: string } | null> {
  const [old] = await tx.query<KeyRow>(
    `select ${COLUMNS} from api_keys where id = $1 and store_id = $2 and ${HOLDS} for update`,
    [keyId, storeId],
  );
  if (!old) return null;
  await tx.execute(
    `update api_keys set expires_at = least(expires_at, now() + $2 * interval '1 second') where id = $1`,
    [keyId, overlapSeconds],
  );
  const { tenantId: tenant, ...wanted } = keyOf(old);
  const heir = await issueApiKey(tx, { ...wanted, tenantId: tenant, prefix: old.key_prefix }, by);
  const event = accessEvent('keyRotated', { store: storeId, heir: heir.row.id, overlapSeconds });
  await recordAccess(tx, tenant, accessStream('key', keyId), event, by);
  return heir;
}

/** The store's keys that are not revoked, expired ones too, oldest first. */
export async function listApiKeys(tx: Tx, storeId: string): Promise<ApiKey[]> {
  const rows = await tx.query<KeyRow>(
    `select ${COLUMNS} from api_keys where store_id = $1 and revoked_at is null order by created_at, id`,
    [storeId],
  );
  return rows.map(keyOf);
}

/** What keys are called, by id, those that ended too: for the log of what they did. */
export async function nameApiKeys(
  tx: Tx,
  ids: readonly string[],
): Promise<Map<string, { name: string; prefix: string }>> {
  const rows = await tx.query<{ id: string; name: string; key_prefix: string }>(
    'select id, name, key_prefix from api_keys where id = any($1::uuid[])',
    [[...new Set(ids)]],
  );
  return new Map(rows.map((row) => [row.id, { name: row.name, prefix: row.key_prefix }]));
}

/** Revokes a key. False: the store has no such key, or it was revoked before. */
export async function revokeApiKey(tx: Tx, storeId: string, keyId: string, by: By): Promise<boolean> {
  const [revoked] = await tx.query<{ tenant_id: TenantId }>(
    `update api_keys set revoked_at = now() where id = $1 and store_id = $2 and revoked_at is null returning tenant_id`,
    [keyId, storeId],
  );
  if (!revoked) return false;
  await recordRevoked(tx, revoked.tenant_id, storeId, keyId, 'revoked', by);
  return true;
}

/** Deletes all keys of a store, revoked ones too; for the deletion of the store itself. Answers their ids. */
export async function deleteStoreApiKeys(tx: Tx, storeId: string, by: By): Promise<string[]> {
  const rows = await tx.query<{ id: string; tenant_id: TenantId; revoked_at: Date | null }>(
    'delete from api_keys where store_id = $1 returning id, tenant_id, revoked_at',
    [storeId],
  );
  for (const { id, tenant_id: tenant, revoked_at: revokedAt } of rows) {
    if (revokedAt === null) await recordRevoked(tx, tenant, storeId, id, 'storeDeleted', by);
  }
  return rows.map((row) => row.id);
}

function recordRevoked(tx: Tx, tenant: TenantId, store: string, key: string, reason: string, by: By): Promise<void> {
  return recordAccess(tx, tenant, accessStream('key', key), accessEvent('keyRevoked', { store, reason }), by);
}

/**
 * The key with this hash, whatever its tenant: who asks does not know the tenant yet, so `tx` is one of the system role.
 * Null when it is unknown, revoked or expired, or its tenant is suspended.
 */
export async function findApiKeyByHash(tx: Tx, hash: string): Promise<ApiKey | null> {
  const [row] = await tx.query<KeyRow>(`select ${COLUMNS} from api_keys where key_hash = $1 and ${HOLDS}`, [hash]);
  if (!row) return null;
  if (row.last_used_at === null || Date.now() - row.last_used_at.getTime() > LAST_USED_SECONDS * 1000) {
    await tx.execute('update api_keys set last_used_at = now() where id = $1', [row.id]);
  }
  return keyOf(row);
}

/** Those of `ids` that still hold (not revoked, not expired, of no suspended tenant), whatever their tenant; `tx` is one of the system role. */
export async function activeApiKeys(tx: Tx, ids: readonly string[]): Promise<Set<string>> {
  const rows = await tx.query<{ id: string }>(`select id from api_keys where id = any($1::uuid[]) and ${HOLDS}`, [ids]);
  return new Set(rows.map((row) => row.id));
}
