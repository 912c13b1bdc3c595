import {
  type Access,
  accessEntities,
  accessMigrations,
  openAccess,
  orderTenant,
  outcomeOf,
  type Person,
  SCOPES,
  TenantOrders,
} from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId, type UserId } from '@atomo-cc/kernel';
import {
  type AppDatabase,
  openAppDatabase,
  openSystemDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aConnection, aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { Subscribers } from '../api/index.js';
import { anApi, aPrincipal, callers, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { tenantsApi } from './tenants-api.js';

const [OTHER] = SHOP_TENANTS;
const PASSWORD = 'a long passphrase of the first Admin';
const FIELDS = 'id name slug plan isSuspended createdAt';
const CREATE = `mutation ($input: CreateTenantInput!) { createTenant(input: $input, reason: "signed up") { ${FIELDS} } }`;
/** Every field there is, with arguments that would do. */
const ALL_FIELDS = {
  tenants: '{ tenants { nodes { id } } }',
  tenant: `{ tenant(id: "${OTHER}") { id } }`,
  createTenant: `mutation { createTenant(input: { name: "Eve", admin: { email: "eve@example.com", password: "a long one" } }) { id } }`,
  suspendTenant: `mutation { suspendTenant(id: "${OTHER}") { id } }`,
  resumeTenant: `mutation { resumeTenant(id: "${OTHER}") { id } }`,
  setTenantPlan: `mutation { setTenantPlan(id: "${OTHER}", plan: "team") { id } }`,
  setTenantLimit: `mutation { setTenantLimit(id: "${OTHER}", quota: "users", limit: "9") { id } }`,
};
const FIELD_NAMES = Object.keys(ALL_FIELDS) as (keyof typeof ALL_FIELDS)[];
const MUTATIONS = FIELD_NAMES.filter((name) => ALL_FIELDS[name].startsWith('mutation'));
const ADMIN = aPrincipal(DEFAULT_TENANT_ID) as Person;

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let dying: SystemDatabase;
let access: Access;
let api: TestApi;
let codec: EventCodec;
let orders: TenantOrders;
let onOrdered: () => void;
const [denied, faults, announced]: [string[], unknown[], string[]] = [[], [], []];

const ordersOf = (of: SystemDatabase) =>
  new TenantOrders({
    system: of,
    codec,
    onAppended: (tenant) => void announced.push(tenant),
    onError: (error) => void faults.push(error),
  });

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  [app, system] = await Promise.all([openAppDatabase(options), openSystemDatabase(options)]);
  dying = await openSystemDatabase({ ...options, service: 'dying', poolSize: 1 });
  await database.asOwner(`insert into tenants (id, name, slug) values ($1, 'Other', 'other')`, [OTHER]);
  await database.asOwner(
    `insert into users (id, tenant_id, email, name, password_hash, role) values ($1, $1, 'root@example.com', 'Root', 'x', 'Admin')`,
    [DEFAULT_TENANT_ID],
  );
  codec = new EventCodec(new SubjectKeys('a key of this test, long enough for it'), ATOMO_EVENTS);
  access = openAccess(system, { secret: 'a secret of this test' });
  orders = ordersOf(system);
  api = await anApi([tenantsApi(app, () => onOrdered())], undefined, {
    onDenied: ({ tenantId }, field) => void denied.push(`${tenantId} ${field}`),
  });
});
afterAll(async () => {
  await api?.close();
  await Promise.all([app?.close(), system?.close(), dying?.close()]);
  await database?.drop();
});
beforeEach(() => {
  onOrdered = () => void orders.look();
});
afterEach(() => {
  callers.role = 'Admin';
  callers.machine = null;
  expect(faults).toEqual([]);
});

const ask = (query: string, variables = {}) => api.ask(query, variables, DEFAULT_TENANT_ID);
const data = (query: string, variables = {}) => api.data(query, variables, DEFAULT_TENANT_ID);
const inputOf = (slug: string) => ({
  name: `The ${slug}`,
  slug,
  plan: 'solo',
  admin: { email: `Admin@${slug}.example.com`, password: PASSWORD },
});
const make = async (slug: string) => (await data(CREATE, { input: inputOf(slug) })).createTenant;
const eventsOf = (tenant: string) =>
  database.asOwner<{ type: string; metadata: Record<string, unknown> }>(
    `select type, metadata from event_log where tenant_id = $1 order by position`,
    [tenant],
  );
const openOrders = async () =>
  (await database.asOwner<{ n: number }>('select count(*)::int as n from tenant_orders where settled_at is null'))[0]!
    .n;

test('an Admin of the default tenant makes a tenant with its first Admin, who logs in', async () => {
  const tenant = await make('acme');
  expect(tenant).toMatchObject({ name: 'The acme', slug: 'acme', plan: 'solo', isSuspended: false });
  const { accessToken } = await access.logins.login({ email: 'admin@acme.example.com', password: PASSWORD });
  expect(await access.callers.authenticate(`Bearer ${accessToken}`)).toMatchObject({
    tenantId: tenant.id,
    role: 'Admin',
  });
  const by = { actor: `user:${DEFAULT_TENANT_ID}`, address: '127.0.0.1', reason: 'signed up' };
  expect((await eventsOf(tenant.id)).slice(0, 2)).toMatchObject([
    { type: 'access.tenantCreated', metadata: by },
    { type: 'access.userCreated', metadata: by },
  ]);
  expect(announced).toContain(tenant.id);
  expect((await data(`{ tenant(id: "${tenant.id}") { ${FIELDS} } }`)).tenant).toEqual(tenant);
});

test('the list is paged, the oldest first', async () => {
  await make('paged');
  const slugs: string[] = [];
  for (let after: string | null = null, more = true; more;) {
    const page = await data(
      'query ($after: String) { tenants(first: 1, after: $after) { nodes { slug } pageInfo { hasNextPage endCursor } } }',
      { after },
    );
    slugs.push(...page.tenants.nodes.map(({ slug }: { slug: string }) => slug));
    [after, more] = [page.tenants.pageInfo.endCursor, page.tenants.pageInfo.hasNextPage];
  }
  const all = await database.asOwner<{ slug: string }>('select slug from tenants order by id');
  expect(slugs).toEqual(all.map(({ slug }) => slug));
});

test('plan and limit hold at once, with who and why in the log of the tenant', async () => {
  const { id } = await make('limited');
  expect(await data(`mutation { setTenantPlan(id: "${id}", plan: "team", reason: "paid") { plan } }`)).toEqual({
    setTenantPlan: { plan: 'team' },
  });
  const limit = (value: string) =>
    data(`mutation { setTenantLimit(id: "${id}", quota: "users", limit: "${value}") { id } }`);
  const limits = () => database.asOwner('select quota, amount from tenant_limits where tenant_id = $1', [id]);
  await limit('40');
  expect(await limits()).toEqual([{ quota: 'users', amount: '40' }]);
  await limit('none');
  expect(await limits()).toEqual([{ quota: 'users', amount: null }]);
  await limit('plan');
  expect(await limits()).toEqual([]);
  const told = await eventsOf(id);
  expect(told.find(({ type }) => type === 'access.tenantChanged')).toMatchObject({
    metadata: { actor: `user:${DEFAULT_TENANT_ID}`, reason: 'paid' },
  });
  expect(told.filter(({ type }) => type === 'access.tenantLimitChanged')).toHaveLength(3);
});

test('what is open of a suspended tenant is cut within 5 s, nobody logs in, and after it is resumed they do', async () => {
  const { id } = await make('shut');
  const login = { email: 'admin@shut.example.com', password: PASSWORD };
  const authorization = `Bearer ${(await access.logins.login(login)).accessToken}`;
  const subscribers = new Subscribers((header, believedMs) => access.callers.authenticate(header, believedMs));
  try {
    const { role } = await access.callers.authenticate(authorization);
    let isCut = false;
    subscribers.watch({ authorization, role, end: () => (isCut = true) });
    expect(await data(`mutation { suspendTenant(id: "${id}") { isSuspended } }`)).toEqual({
      suspendTenant: { isSuspended: true },
    });
    await eventually('what was open is cut', () => isCut, 5_000);
    await expect(access.logins.login(login)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(await data(`mutation { resumeTenant(id: "${id}") { isSuspended } }`)).toEqual({
      resumeTenant: { isSuspended: false },
    });
    await access.logins.login(login);
  } finally {
    subscribers.close();
  }
});

describe('to all others every field is refused, and the denial is told', () => {
  const stateNow = async () => [await database.asOwner('select * from tenants order by id'), await openOrders()];
  const refusalOf = async (name: keyof typeof ALL_FIELDS, tenant: TenantId) => {
    const before = await stateNow();
    denied.length = 0;
    const { errors } = await api.ask(ALL_FIELDS[name], {}, tenant);
    expect(await stateNow()).toEqual(before);
    return { codes: errors?.map(({ extensions }) => extensions?.['code']), denied: [...denied] };
  };
  test.each(FIELD_NAMES)('%s, to an Admin of another tenant', async (name) => {
    expect(await refusalOf(name, OTHER)).toEqual({ codes: ['FORBIDDEN'], denied: [`${OTHER} ${name}`] });
  });
  test.each(FIELD_NAMES)('%s, to a Viewer of the default tenant', async (name) => {
    callers.role = 'Viewer';
    const told = { codes: ['FORBIDDEN'], denied: [`${DEFAULT_TENANT_ID} ${name}`] };
    expect(await refusalOf(name, DEFAULT_TENANT_ID)).toEqual(told);
  });
  test.each(MUTATIONS)('%s, to a token that reads, and to one that writes', async (name) => {
    callers.machine = ['read'];
    const beyondScope = { codes: ['FORBIDDEN'], denied: [`${DEFAULT_TENANT_ID} mutation`] };
    expect(await refusalOf(name, DEFAULT_TENANT_ID)).toEqual(beyondScope);
    callers.machine = SCOPES;
    const noPerson = { codes: ['FORBIDDEN'], denied: [`${DEFAULT_TENANT_ID} ${name}`] };
    expect(await refusalOf(name, DEFAULT_TENANT_ID)).toEqual(noPerson);
  });
});

test.each([
  ['a slug that is none', { slug: 'Not One' }, 'VALIDATION_ERROR'],
  ['a name of spaces', { name: '  ' }, 'VALIDATION_ERROR'],
  ['a name with a NUL', { name: 'a\0b' }, 'VALIDATION_ERROR'],
  ['an unknown plan', { plan: 'gold' }, 'VALIDATION_ERROR'],
  ['a short password', { admin: { email: 'a@b.example.com', password: 'short' } }, 'VALIDATION_ERROR'],
  ['no address', { admin: { email: 'nobody', password: PASSWORD } }, 'VALIDATION_ERROR'],
  ['a slug that is taken', { slug: 'other' }, 'CONFLICT'],
  ['an address that is taken', { admin: { email: 'root@example.com', password: PASSWORD } }, 'CONFLICT'],
])('no tenant is made of %s, nor a user', async (_what, wrong, code) => {
  const counts = () =>
    database.asOwner('select (select count(*) from tenants) as tenants, (select count(*) from users) as users');
  const before = await counts();
  const { errors } = await ask(CREATE, { input: { ...inputOf('wrong'), ...wrong } });
  expect(errors).toMatchObject([{ extensions: { code } }]);
  expect(await counts()).toEqual(before);
});

test.each([
  ['suspendTenant(id: "no id")', 'NOT_FOUND'],
  ['suspendTenant(id: "00000000-0000-7000-8000-0000000000ff")', 'NOT_FOUND'],
  [`suspendTenant(id: "${DEFAULT_TENANT_ID}")`, 'CONFLICT'],
  [`suspendTenant(id: "${OTHER}", reason: "")`, 'VALIDATION_ERROR'],
  [`setTenantPlan(id: "${OTHER}", plan: "gold")`, 'VALIDATION_ERROR'],
  [`setTenantLimit(id: "${OTHER}", quota: "wishes", limit: "3")`, 'VALIDATION_ERROR'],
  [`setTenantLimit(id: "${OTHER}", quota: "users", limit: "-1")`, 'VALIDATION_ERROR'],
])('%s is refused with %s', async (mutation, code) => {
  expect((await ask(`mutation { ${mutation} { id } }`)).errors).toMatchObject([{ extensions: { code } }]);
});

test('several instances carry orders out, each once; whoever waits too long is told that it will be', async () => {
  const { id } = await make('once');
  const others = [ordersOf(system), ordersOf(system)];
  onOrdered = () => undefined;
  const plans = ['team', 'free', 'team', 'free', 'team', 'free'];
  const numbers: string[] = [];
  for (const plan of plans)
    numbers.push(await orderTenant(app, ADMIN, { action: 'plan', tenant: id, plan }, { actor: ADMIN.actor }));
  await expect(outcomeOf(app, DEFAULT_TENANT_ID, numbers[0]!, 0)).rejects.toMatchObject({ code: 'RATE_LIMITED' });
  await Promise.all(others.map((each) => each.look()));
  for (const number of numbers) expect(await outcomeOf(app, DEFAULT_TENANT_ID, number, 0)).toBe(id);
  expect(await openOrders()).toBe(0);
  const changes = (await eventsOf(id)).length;
  await others[0]!.look();
  expect(await eventsOf(id)).toHaveLength(changes);
});

test("an order that is under way is nobody else's, and when its instance dies in the middle another carries it out", async () => {
  onOrdered = () => undefined;
  const asked = data(CREATE, { input: inputOf('survivor') });
  await eventually('the order is written', async () => (await openOrders()) === 1);
  const locker = await aConnection(database);
  try {
    await locker.query('begin; lock table tenant_limits in access exclusive mode');
    const attempt = ordersOf(dying)
      .look()
      .catch((error: unknown) => error);
    const inTheMiddle = `from pg_stat_activity where application_name like 'dying%' and wait_event_type = 'Lock'`;
    await eventually('it waits', async () => (await database.asOwner(`select 1 ${inTheMiddle}`)).length > 0);
    await orders.look();
    expect(await openOrders()).toBe(1);
    await database.asOwner(`select pg_terminate_backend(pid) ${inTheMiddle}`);
    expect(await attempt).toBeInstanceOf(Error);
  } finally {
    await locker.end();
  }
  expect(await openOrders()).toBe(1);
  expect(await database.asOwner(`select 1 from tenants where slug = 'survivor'`)).toEqual([]);
  orders.rounds.start();
  expect((await asked).createTenant).toMatchObject({ slug: 'survivor' });
  onOrdered = () => orders.rounds.wake();
  await make('woken');
  await orders.rounds.stop();
  orders = ordersOf(system);
});

test('the order of who has lost the role meanwhile is refused', async () => {
  onOrdered = () => undefined;
  const asked = ask(`mutation { suspendTenant(id: "${OTHER}") { id } }`);
  await eventually('the order is written', async () => (await openOrders()) === 1);
  await database.asOwner(`update users set role = 'Viewer' where id = $1`, [DEFAULT_TENANT_ID]);
  await orders.look();
  expect((await asked).errors).toMatchObject([{ extensions: { code: 'FORBIDDEN' } }]);
  await database.asOwner(`update users set role = 'Admin' where id = $1`, [DEFAULT_TENANT_ID]);
  expect(await database.asOwner('select suspended_at from tenants where id = $1', [OTHER])).toEqual([
    { suspended_at: null },
  ]);
});

test('no password is written down, and nothing of the order is left but how it ended', async () => {
  onOrdered = () => undefined;
  const asked = ask(CREATE, { input: inputOf('secretive') });
  await eventually('the order is written', async () => (await openOrders()) === 1);
  const kept = async (table: string) =>
    JSON.stringify(await database.asOwner(`select to_jsonb(t)::text as row from ${table} t`));
  expect(await kept('tenant_orders')).toContain('$argon2id$');
  expect(await kept('tenant_orders')).not.toContain(PASSWORD);
  await orders.look();
  const places = [JSON.stringify(await asked), JSON.stringify(api.logged)];
  for (const table of ['tenant_orders', 'event_log', 'audit_log']) places.push(await kept(table));
  for (const place of places) {
    for (const secret of [PASSWORD, '$argon2id$', 'admin@secretive']) expect(place).not.toContain(secret);
  }
});

describe('the role that serves requests', () => {
  const as = (tenant: TenantId, sql: string) => app.transaction(tenant, (tx) => tx.query(sql));
  const insert = (tenant: TenantId) =>
    `insert into tenant_orders (id, tenant_id, requested_by, work) values (gen_random_uuid(), '${tenant}', '${ADMIN.userId}', '{}')`;
  test.each([
    ['reads what is ordered', DEFAULT_TENANT_ID, 'select work from tenant_orders'],
    ['says that an order is over', DEFAULT_TENANT_ID, 'update tenant_orders set settled_at = now()'],
    ['removes an order', DEFAULT_TENANT_ID, 'delete from tenant_orders'],
    ['changes a tenant', DEFAULT_TENANT_ID, `update tenants set plan = 'free'`],
    ['makes a tenant', DEFAULT_TENANT_ID, `insert into tenants (id, name, slug) values (gen_random_uuid(), 'x', 'x')`],
    ['orders as the default tenant from another', OTHER, insert(DEFAULT_TENANT_ID)],
    ['orders as another tenant', OTHER, insert(OTHER)],
  ])('never %s', async (_what, tenant, sql) => {
    await expect(as(tenant, sql)).rejects.toMatchObject({ code: expect.stringMatching(/^(42501|23514)$/) });
  });

  test('sees other tenants for the default tenant alone', async () => {
    expect(await as(OTHER, 'select slug from tenants')).toEqual([{ slug: 'other' }]);
    expect((await as(DEFAULT_TENANT_ID, 'select slug from tenants')).length).toBeGreaterThan(1);
    expect(await as('' as TenantId, 'select slug from tenants')).toEqual([]);
  });
});

test('an order by a user of another tenant is refused, whoever wrote it', async () => {
  const [stranger] = await database.asOwner<{ id: UserId }>(
    `insert into users (id, tenant_id, email, name, password_hash, role)
     values (gen_random_uuid(), $1, 'stranger@example.com', 'S', 'x', 'Admin') returning id`,
    [OTHER],
  );
  const work = { action: 'suspend', tenant: OTHER } as const;
  const number = await orderTenant(app, { ...ADMIN, userId: stranger!.id }, work, { actor: 'user:x' });
  await orders.look();
  await expect(outcomeOf(app, DEFAULT_TENANT_ID, number, 0)).rejects.toMatchObject({ code: 'FORBIDDEN' });
});
