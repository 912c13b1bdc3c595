import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { accessEntities, createTenant, findTenant } from '@atomo-cc/access';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import { localHashEmbedder, SemanticStore } from '@atomo-cc/memory';
import { openBlobStore, type BlobStore } from '@atomo-cc/platform/blobs';
import { openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues } from '@atomo-cc/platform/queues';
import { HISTORICAL_SYNC_QUEUE } from '@atomo-cc/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { createModelTables } from '../models/index.js';
import { SHOP } from '../testing/index.js';
import { removeTenant, type TenantPlaces } from './removal.js';

const BY = { actor: 'operator:test' };
/** Tables that hold nothing of any tenant. A new one is to be looked at: has it really nothing, or does it lack tenant_id? */
const OF_NOBODY = ['leases', 'migrations', 'projection_checkpoints'];

let database: TestDatabase;
let system: SystemDatabase;
let redis: Redis;
let queues: JobQueues;
let blobs: BlobStore;
let memory: SemanticStore;
let folder: string;
let places: TenantPlaces;

beforeAll(async () => {
  database = await aDatabase(contentCoreMigrations);
  await createModelTables(database.url, SHOP);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  redis = await aRedis('command');
  queues = new JobQueues(redis);
  blobs = await openBlobStore('', database.app);
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'atomo-removal-'));
  memory = new SemanticStore({ uri: folder });
  places = { databaseUrl: database.url, system, queues, blobs, memory };
});
afterAll(async () => {
  await Promise.all([queues?.close(), memory?.close(), system?.close()]);
  redis?.disconnect();
  await database?.drop();
  fs.rmSync(folder, { recursive: true });
});

const tables = async () =>
  (
    await database.asOwner<{ name: string }>(
      `select table_name as name from information_schema.columns
       where table_schema = 'public' and column_name = 'tenant_id' order by 1`,
    )
  ).map(({ name }) => name);

/** Puts a row into every table there is but those of uploads, whatever its columns want, so that no table has to be known here. */
async function fillEveryTable(tenant: TenantId): Promise<void> {
  const columns = await database.asOwner<{ table: string; name: string; type: string; array: boolean }>(
    `select c.relname as "table", quote_ident(a.attname) as name, coalesce(e.typname, t.typname) as type, e.typname is not null as array
     from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_type t on t.oid = a.atttypid
     left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
     where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
       and a.attgenerated = '' and a.attidentity = '' and c.relname = any($1) and c.relname not in ('tenants', 'blobs', 'blob_pieces')
     order by 1, a.attnum`,
    [await tables()],
  );
  const seed = tenant.slice(-2);
  const values: Readonly<Record<string, string>> = {
    uuid: 'gen_random_uuid()',
    text: `'x${seed}' || md5(random()::text)`,
    jsonb: `'{}'`,
    bytea: `'x'`,
    timestamptz: 'now()',
    date: 'now()',
    bool: 'true',
    tsvector: `''`,
  };
  const valueOf = ({ name, type, array }: (typeof columns)[number]) =>
    name === 'tenant_id' ? `'${tenant}'` : array ? `'{}'` : (values[type] ?? '(random() * 100000)::int');
  // The checks and references of columns are not what is tested here.
  const statements = [...Map.groupBy(columns, ({ table }) => table)].map(
    ([table, own]) =>
      `insert into ${table} (${own.map(({ name }) => name).join(', ')}) values (${own.map(valueOf).join(', ')})`,
  );
  const checks = await database.asOwner<{ sql: string }>(
    `select format('alter table %s drop constraint %I', conrelid::regclass, conname) as sql from pg_constraint
     where contype = 'c' and connamespace = 'public'::regnamespace`,
  );
  for (const { sql } of checks) await database.asOwner(sql);
  await database.asOwner(`set session_replication_role = replica`);
  for (const statement of statements) await database.asOwner(statement);
  await database.asOwner(`set session_replication_role = origin`);
}

async function counts(tenant: TenantId): Promise<Record<string, number>> {
  const all: Record<string, number> = {};
  for (const table of await tables()) {
    const [row] = await database.asOwner<{ n: number }>(
      `select count(*)::int as n from ${table} where tenant_id = $1`,
      [tenant],
    );
    all[table] = row!.n;
  }
  return all;
}

async function aTenant(slug: string) {
  const tenant = await createTenant(system, { name: slug, slug }, BY);
  await fillEveryTable(tenant.id);
  await memory.write(tenant.id, localHashEmbedder, [
    {
      id: `${slug}1`,
      subject: 's',
      text: 't',
      author: 'a',
      sentAt: new Date(),
      vector: (await localHashEmbedder.embed(['t']))[0]!,
    },
  ]);
  await queues.add(HISTORICAL_SYNC_QUEUE.name, `${slug}-job`, { jobId: tenant.id, tenantId: tenant.id }, 60_000);
  await blobs.put(
    tenant.id,
    'upload',
    (async function* () {
      yield Buffer.from('content');
    })(),
  );
  return tenant;
}

test('every table but those of nobody says whose each row is', async () => {
  const all = await database.asOwner<{ name: string }>(
    `select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'`,
  );
  const covered = await tables();
  expect(
    all
      .map(({ name }) => name)
      .filter((name) => !covered.includes(name))
      .toSorted(),
  ).toEqual(OF_NOBODY);
});

test('a deletion takes all of one tenant and nothing of another, and an interrupted one goes on', async () => {
  const gone = await aTenant('gone');
  const stays = await aTenant('stays');
  const before = await counts(stays.id);
  const empty = Object.entries(await counts(gone.id)).filter(([, n]) => n === 0);
  expect(empty).toEqual([]);

  const broken = {
    remove: () => Promise.reject(new Error('the process was killed')),
  } as unknown as SemanticStore;
  await expect(removeTenant({ ...places, memory: broken }, 'gone', BY, undefined, 0)).rejects.toThrow('killed');
  // The one row by which it is found again.
  expect(await findTenant(system, 'gone')).toMatchObject({ deletingAt: expect.any(Date) });
  await removeTenant(places, 'gone', BY, undefined, 0);

  const left = Object.entries(await counts(gone.id)).filter(([, n]) => n > 0);
  expect(left).toEqual([]);
  expect(fs.existsSync(path.join(folder, gone.id))).toBe(false);
  expect(await counts(stays.id)).toEqual(before);
  expect(fs.existsSync(path.join(folder, stays.id))).toBe(true);
  expect(await queues.depths()).toMatchObject([{ delayed: 1 }]);
  await expect(findTenant(system, 'gone')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  const told = await database.asOwner(
    `select type, data, metadata ->> 'actor' as actor from event_log where tenant_id = $1 and stream = $2`,
    [DEFAULT_TENANT_ID, `tenant-${gone.id}`],
  );
  expect(told).toEqual([{ type: 'access.tenantDeleted', data: { slug: 'gone' }, actor: 'operator:test' }]);
});

test('afterwards nobody has a right to the log that they did not have before', async () => {
  const rights = await database.asOwner<{ can: boolean }>(
    `select has_table_privilege('atomo_system', 'event_log', 'delete') or has_table_privilege('atomo_app', 'event_log', 'delete') as can`,
  );
  expect(rights).toEqual([{ can: false }]);
});

test('the default tenant is not deleted', async () => {
  await expect(removeTenant(places, 'default', BY, undefined, 0)).rejects.toMatchObject({ code: 'CONFLICT' });
});
