import type { QueryRunner } from 'typeorm';
import type { TenantId } from '@atomo-cc/kernel';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { fateOf, openAppDatabase, type AppDatabase } from './database.js';
import { sqlState } from './errors.js';
import { runAll, tenantTable } from './migrate.js';
import { MAX_PREPARED_READS } from './tenant-read.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;

class Things1700000009000 {
  name = 'Things1700000009000';
  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      'create table things (id int, tenant_id uuid not null)',
      ...tenantTable('things', { app: 'select', system: 'select' }),
    ]);
  }
  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table things');
  }
}

let database: TestDatabase;
/** With one connection, so that each read meets what those before it have left there. */
let app: AppDatabase;

beforeEach(async () => {
  database = await aDatabase([Things1700000009000]);
  app = await openAppDatabase({ url: database.url, service: 'reads', poolSize: 1 });
  await database.asOwner('insert into things (id, tenant_id) values (1, $1), (2, $1), (3, $2)', [A, B]);
});

afterEach(async () => {
  await app?.close();
  await database?.drop();
});

const READ = 'select id from things order by id';
const ids = (tenant: TenantId = A) => app.read<{ id: unknown }>(tenant, READ).then((rows) => rows.map(({ id }) => id));
const keptStatements = async () => {
  const [row] = await app.read<{ kept: number }>(A, 'select count(*)::int as kept from pg_prepared_statements');
  return row!.kept;
};

test('sees the rows of its tenant alone, also on a connection that another one has used', async () => {
  expect(await ids(A)).toEqual([1, 2]);
  expect(await ids(B)).toEqual([3]);
  expect(await ids('nobody' as TenantId)).toEqual([]);
  expect(await ids(A)).toEqual([1, 2]);
});

test('leaves no tenant on the connection', async () => {
  await ids(A);
  const [row] = await app.read('' as TenantId, `select current_setting('app.tenant_id', true) as tenant`);
  expect(row).toEqual({ tenant: '' });
});

test('takes parameters of all kinds, and answers several rows at once beside other reads', async () => {
  const several = await Promise.all([
    app.read(A, 'select id from things where id = any($1::int[]) and $2', [[2, 3], true]),
    ids(B),
    app.transaction(B, (tx) => tx.query(READ)),
  ]);
  expect(several).toEqual([[{ id: 2 }], [3], [{ id: 3 }]]);
});

test('is planned once for each connection', async () => {
  await ids();
  const before = await keptStatements();
  for (let n = 0; n < 10; n += 1) await ids();
  expect(await keptStatements()).toBe(before);
});

test('outlives a change of the type that it answers', async () => {
  expect(await ids()).toEqual([1, 2]);
  await database.asOwner(`alter table things alter id type text using 'n' || id`);
  expect(await ids()).toEqual(['n1', 'n2']);
});

test('reads the table that has its name, after a switch by rename', async () => {
  expect(await ids()).toEqual([1, 2]);
  await database.asOwner('create table things_next (like things)');
  for (const statement of tenantTable('things_next', { app: 'select', system: 'select' })) {
    await database.asOwner(statement);
  }
  await database.asOwner('insert into things_next (id, tenant_id) values (7, $1)', [A]);
  await database.asOwner('alter table things rename to things_before');
  await database.asOwner('alter table things_next rename to things');
  expect(await ids()).toEqual([7]);
});

test('goes on after one that failed, which leaves no statement behind', async () => {
  const before = await keptStatements();
  for (let n = 1; n <= 5; n += 1) {
    const failed = await app.read(A, `select 1 / (id - ${n % 2 ? 1 : 2}) from things`).catch((error: unknown) => error);
    expect([sqlState(failed), fateOf(failed)]).toEqual(['22012', null]);
    const refused = await app.read(A, `select no_such from things`).catch((error: unknown) => error);
    expect(sqlState(refused)).toBe('42703');
  }
  expect(await ids()).toEqual([1, 2]);
  expect(await keptStatements()).toBe(before + 1);
});

test(`keeps the ${MAX_PREPARED_READS} texts that were used last`, async () => {
  await ids();
  for (let n = 0; n < MAX_PREPARED_READS + 20; n += 1) {
    await app.read(A, `select ${n} as n`);
    if (n % 50 === 0) await ids();
  }
  // And the one that sets the tenant.
  expect(await keptStatements()).toBe(MAX_PREPARED_READS + 1);
  const [row] = await app.read(A, 'select count(*)::int as kept from pg_prepared_statements where statement = $1', [
    READ,
  ]);
  expect(row).toEqual({ kept: 1 });
});

test('a read whose connection is ended is known to have done nothing, and the next one prepares anew', async () => {
  expect(await ids()).toEqual([1, 2]);
  const reading = app.read(A, 'select pg_sleep(60)').catch((error: unknown) => error);
  await eventually('the connection is ended', async () => {
    const ended = await database.asOwner(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'reads%' and query like '%pg_sleep%'`,
    );
    return ended.length === 1;
  });
  expect(fateOf(await reading)).toBe('undone');
  expect(await ids()).toEqual([1, 2]);
});
