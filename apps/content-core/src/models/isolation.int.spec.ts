import type { TenantId } from '@atomo-cc/kernel';
import { aConnection } from '@atomo-cc/testing';
import { SHOP, SHOP_TENANTS } from '../testing/index.js';
import { aSystem, type TestSystem } from './testing/system.js';

/** For a busy machine. */
jest.setTimeout(60_000);

const [OURS, THEIRS] = SHOP_TENANTS;
/** What stands in every record of the other tenant, and is nowhere to be seen. */
const CANARY = 'canary-of-the-others';
/** Logs in, and has no rights but those of the application's role. */
const LOGIN = `probe_${process.pid}_${Date.now()}`;

let system: TestSystem;
let client: Awaited<ReturnType<typeof aConnection>>;
let tables: string[];
const notices: string[] = [];

const inTransaction = async (tenant: TenantId | null, sql: string, parameters: unknown[] = []) => {
  await client.query('begin');
  try {
    if (tenant) await client.query(`select set_config('app.tenant_id', $1, true)`, [tenant]);
    const answers = [await (parameters.length > 0 ? client.query(sql, parameters) : client.query(sql))].flat();
    return answers.flatMap(({ rows }) => rows as Record<string, unknown>[]);
  } finally {
    await client.query('rollback');
  }
};
/** The SQLSTATE with which a statement is refused; null when it is not. */
const refusal = (tenant: TenantId | null, sql: string) =>
  inTransaction(tenant, sql).then(
    () => null,
    (error: { code?: string }) => error.code ?? 'no code',
  );
/** The ways that show a role what is its own. */
const SHOWING = ['a view', 'a copy', 'a function of its own', 'a cursor', 'a join by hand', 'a lock'];
const DENIED = ['42P16', '42501', '0A000', '42883', '42P01', '42704', '3F000'];

beforeAll(async () => {
  system = await aSystem(SHOP);
  const { database, api } = system;
  for (const tenant of [OURS, THEIRS]) {
    const title = tenant === THEIRS ? CANARY : 'ours';
    await database.asOwner('insert into tenants (id, name, slug) values ($1::uuid, $2, $1::text)', [tenant, title]);
    await database.asOwner(
      `insert into users (id, tenant_id, email, name, password_hash, role, created_at) values (gen_random_uuid(), $1, $2 || '@example.com', $2, $2, 'Admin', now())`,
      [tenant, title],
    );
    const brand = await api.data(`mutation { createBrand(input: { name: "${title}" }) { id } }`, {}, tenant);
    const input = `{ title: "${title}", order: "${title}", brandId: "${brand.createBrand.id}" }`;
    const item = await api.data(
      `mutation { createItem(input: ${input}, idempotencyKey: "${title}") { id updatedAt } }`,
      {},
      tenant,
    );
    // An answer as of a time waits until the history has it.
    await api.data(`{ item(id: "${item.createItem.id}", asOf: "${item.createItem.updatedAt}") { id } }`, {}, tenant);
  }
  await database.asOwner('analyze');
  await database.asOwner(`create role ${LOGIN} login password 'probe' nosuperuser nobypassrls in role atomo_app`);
  const url = new URL(database.url);
  [url.username, url.password] = [LOGIN, 'probe'];
  client = await aConnection({ ...database, url: url.href });
  client.on('notice', ({ message }) => void notices.push(String(message)));
  client.on('notification', ({ payload }) => void notices.push(String(payload)));
  const found = await database.asOwner<{ name: string }>(
    `select c.oid::regclass::text as name from pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relnamespace = 'public'::regnamespace order by 1`,
  );
  tables = found.map(({ name }) => name);
});

afterAll(async () => {
  await client?.end();
  await system?.database.asOwner(`drop role if exists ${LOGIN}`);
  await system?.stop();
});

test('the canaries are there, in rows, histories, log and keys', async () => {
  const full: string[] = [];
  for (const table of tables) {
    const rows = await system.database.asOwner<{ row: string }>(`select to_jsonb(t)::text as row from ${table} t`);
    if (rows.some(({ row }) => row.includes(CANARY) || row.includes(THEIRS))) full.push(table);
  }
  expect(full).toEqual(
    expect.arrayContaining([
      'model_item',
      'history_item',
      'event_log',
      'audit_log',
      'users',
      'tenants',
      'command_answers',
    ]),
  );
});

test.each([
  ['no tenant set', null],
  ['its own tenant set', OURS],
])('with %s no table shows anything of another tenant', async (_how, tenant) => {
  let isOurs = false;
  for (const table of tables) {
    // Column by column, because some columns are closed to the role altogether.
    const columns = await system.database.asOwner<{ name: string }>(
      `select attname as name from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped
         and has_column_privilege('atomo_app', attrelid, attnum, 'select')`,
      [table],
    );
    if (columns.length === 0) {
      expect(await refusal(tenant, `select * from ${table}`)).toBe('42501');
      continue;
    }
    const names = columns.map(({ name }) => `"${name}"`).join(', ');
    const said = JSON.stringify(await inTransaction(tenant, `select ${names} from ${table}`));
    expect([table, said.includes(CANARY), said.includes(THEIRS)]).toEqual([table, false, false]);
    isOurs ||= said.includes('ours');
    // What a row or a lock would tell by its error or its number.
    expect(
      await inTransaction(tenant, `select count(*)::int as n from ${table} t where t::text like '%${CANARY}%'`).catch(
        () => [{ n: 0 }],
      ),
    ).toEqual([{ n: 0 }]);
  }
  expect(isOurs).toBe(tenant !== null);
});

test('every table that the role may read or write has row-level security, forced, by tenant; or holds nothing of tenants', async () => {
  const open = await system.database.asOwner<{ name: string; columns: string }>(`
    select c.relname as name,
      (select string_agg(attname, ' ' order by attnum) from pg_attribute where attrelid = c.oid and attnum > 0) as columns
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and (has_table_privilege('atomo_app', c.oid, 'select, insert, update, delete, truncate, references, trigger')
        or has_any_column_privilege('atomo_app', c.oid, 'select, insert, update'))
      and not (c.relrowsecurity and c.relforcerowsecurity)`);
  for (const { name, columns } of open) expect([name, columns]).toEqual([name, expect.not.stringContaining('tenant')]);
  const policies = await system.database.asOwner<{ name: string }>(
    `select tablename as name, qual from pg_policies where 'atomo_app' = any(roles) and qual not like '%app.tenant_id%'`,
  );
  // Builds that make the rows of all tenants are nobody's secret.
  expect(policies).toEqual([{ name: 'projection_builds', qual: '(tenant_id IS NULL)' }]);
});

test('no view, function or owner lends the role more than it has', async () => {
  const lent = await system.database.asOwner(`
    select p.proname as name from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prosecdef
    union all select c.relname from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('v', 'm')
      and not coalesce('security_invoker=true' = any(c.reloptions), false) and has_table_privilege('atomo_app', c.oid, 'select')
    union all select c.relname from pg_class c where pg_has_role('${LOGIN}', c.relowner, 'member')`);
  expect(lent).toEqual([]);
});

describe.each([
  ['no tenant set', null],
  ['its own tenant set', OURS],
])('with %s', (_how, tenant) => {
  test.each([
    ['another role', 'set role atomo_system'],
    [
      'the owner',
      `do $$ begin execute 'set role ' || (select quote_ident(tableowner) from pg_tables where tablename = 'model_item'); end $$`,
    ],
    [
      'another session',
      `do $$ begin execute 'set session authorization ' || (select quote_ident(tableowner) from pg_tables where tablename = 'model_item'); end $$`,
    ],
    ['row security off', 'set local row_security = off; select * from model_item'],
    ['a table without row security', 'alter table model_item disable row level security'],
    ['a table that is no more forced', 'alter table model_item no force row level security'],
    ['a policy of its own', 'create policy mine on model_item using (true)'],
    ['no policy', 'drop policy tenant on model_item'],
    ['a function in public', `create function public.mine() returns int language sql security definer as 'select 1'`],
    [
      'a trigger',
      `create trigger mine before insert on model_item execute function suppress_redundant_updates_trigger()`,
    ],
    ['a rule', 'create rule mine as on insert to model_item do also select 1'],
    [
      'a table that refers',
      'create temp table mine (tenant_id uuid, id uuid, foreign key (tenant_id, id) references model_item)',
    ],
    ['an heir', 'create temp table mine () inherits (model_item)'],
    ['a program', `copy model_item to program 'cat'`],
    ['a file of the server', `select pg_read_file('postgresql.conf')`],
    ['an object of the server', `select lo_import('/etc/passwd')`],
    ['another database', 'create extension dblink'],
    ['the statistics themselves', 'select * from pg_statistic'],
    ['passwords', 'select * from pg_authid'],
    ['the log changed', `update event_log set data = '{}'`],
    ['the log emptied', 'truncate event_log'],
    ['replication', `select * from pg_create_logical_replication_slot('mine', 'test_decoding')`],
  ])('%s is refused', async (_what, sql) => {
    expect(DENIED).toContain(await refusal(tenant, sql));
  });

  test.each([
    ['a view', 'create temp view mine as select * from model_item; select * from mine'],
    ['a copy', 'create temp table mine as select * from model_item; select * from mine'],
    [
      'a function of its own',
      `create function pg_temp.mine() returns setof model_item language sql security definer as 'select * from model_item'; select * from pg_temp.mine()`,
    ],
    ['a cursor', 'declare mine cursor for select * from model_item; fetch all from mine'],
    [
      'the planner’s statistics',
      `select most_common_vals::text, histogram_bounds::text from pg_stats where schemaname = 'public'`,
    ],
    ['extended statistics', 'select * from pg_stats_ext'],
    ['what others are doing', 'select query from pg_stat_activity'],
    [
      'comments and names',
      `select description from pg_description union all select relname from pg_class where relnamespace = 'public'::regnamespace`,
    ],
    ['a join by hand', 'select h.* from history_item h full join model_item m on true'],
    ['a lock', 'select * from model_item for key share'],
    ['what a change would return', 'update model_item set version = version returning *'],
    ['what a deletion would return', 'delete from model_item returning *'],
  ])('%s shows nothing of another tenant', async (what, sql) => {
    const seen = await inTransaction(tenant, sql).catch((error: Error) => [{ message: error.message }]);
    const said = JSON.stringify(seen);
    expect(said).not.toContain(CANARY);
    expect(said).not.toContain(THEIRS);
    // It is no proof where it shows nothing at all.
    if (SHOWING.includes(what)) expect(said.includes('"title":"ours"')).toBe(tenant !== null);
  });

  test('a function that tells what it is given is given no row of another tenant', async () => {
    const leak = `create function pg_temp.leak(text) returns boolean language plpgsql cost 0.0000001 as $$ begin raise notice '%', $1; return true; end $$`;
    await inTransaction(
      tenant,
      `${leak}; select 1 from model_item where pg_temp.leak(title); select 1 from event_log where pg_temp.leak(data::text)`,
    );
    expect(notices.join()).not.toContain(CANARY);
    expect(notices.some((notice) => notice.includes('ours'))).toBe(tenant !== null);
    notices.length = 0;
  });

  test.each(['insert', 'update'])('a row cannot be put into another tenant by %s', async (verb) => {
    const sql =
      verb === 'insert'
        ? `insert into model_item (tenant_id, id, version, created_at, updated_at, title) values ('${THEIRS}', gen_random_uuid(), 1, now(), now(), 'x')`
        : `update model_item set tenant_id = '${THEIRS}'`;
    const code = await refusal(tenant, sql);
    // Without a tenant an update finds no row to change.
    if (verb === 'update' && tenant === null) expect(code).toBeNull();
    else expect(code).toBe('42501');
  });
});

test.each(['', ' ', '*', `' or true --`, '%', 'null', OURS.slice(0, 35), `${OURS},${THEIRS}`])(
  'a tenant called %j sees nothing',
  async (name) => {
    const rows = await inTransaction(name as TenantId, 'select * from model_item').catch(() => []);
    expect(rows).toEqual([]);
  },
);

test('a statement that was prepared, and a setting, for one tenant do not outlive its transaction', async () => {
  await inTransaction(OURS, 'prepare mine as select * from model_item; execute mine');
  const open = await inTransaction(null, 'execute mine').catch(() => []);
  expect(open).toEqual([]);
  expect(await inTransaction(null, `select nullif(current_setting('app.tenant_id', true), '') as tenant`)).toEqual([
    { tenant: null },
  ]);
});
