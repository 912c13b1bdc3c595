import { accessEntities, Accounts, type Access, accessMigrations, openAccess, setSuspended } from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import {
  openAppDatabase,
  openSystemDatabase,
  type AppDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { Subscribers } from '../api/index.js';
import { auditApi, eventsApi } from '../events/index.js';
import { anApi, callers, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { usersApi } from './users-api.js';

const PASSWORD = 'a long passphrase';
const FIELDS = 'id email name role disabledAt';

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let access: Access;
let api: TestApi;
const announced: string[] = [];

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  [app, system] = await Promise.all([openAppDatabase(options), openSystemDatabase(options)]);
  for (const [n, tenant] of SHOP_TENANTS.entries()) {
    await database.asOwner(`insert into tenants (id, name, slug, plan) values ($1, $2, $2, 'team')`, [
      tenant,
      `shop${n}`,
    ]);
  }
  const codec = new EventCodec(new SubjectKeys('a key of this test, long enough for it'), ATOMO_EVENTS);
  const accounts = new Accounts(app, codec, ['Manager', 'Viewer']);
  access = openAccess(system, { secret: 'a secret of this test' });
  api = await anApi([
    usersApi(accounts, (tenant) => void announced.push(tenant)),
    auditApi(app, codec),
    eventsApi(app, codec),
  ]);
});
afterAll(async () => {
  await api?.close();
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});
afterEach(() => {
  callers.role = 'Admin';
});

const create = (email: string, role = 'Manager') =>
  api.data(
    `mutation ($input: CreateUserInput!) { createUser(input: $input, reason: "joined the team") { ${FIELDS} } }`,
    { input: { email, role, password: PASSWORD } },
  );
const update = (id: string, input: object) =>
  api.ask(`mutation ($id: ID!, $input: UpdateUserInput!) { updateUser(id: $id, input: $input) { ${FIELDS} } }`, {
    id,
    input,
  });

test('an Admin makes, lists, changes and removes users, and the audit log says who, from where and why', async () => {
  const { createUser: user } = await create('Ada@Example.com');
  expect(user).toEqual({ id: user.id, email: 'ada@example.com', name: 'ada', role: 'Manager', disabledAt: null });
  await create('bob@example.com');
  const first = await api.data(`{ users(first: 1) { nodes { email } pageInfo { hasNextPage endCursor } } }`);
  expect(first.users).toMatchObject({ nodes: [{ email: 'ada@example.com' }], pageInfo: { hasNextPage: true } });
  const after = first.users.pageInfo.endCursor;
  const second = await api.data(`query ($after: String) { users(after: $after) { nodes { email } } }`, { after });
  expect(second.users.nodes).toEqual([{ email: 'bob@example.com' }]);

  expect(await update(user.id, { role: 'Viewer', name: 'Ada L.' })).toMatchObject({
    data: { updateUser: { role: 'Viewer', name: 'Ada L.' } },
  });
  await api.data(`mutation { resetPassword(id: "${user.id}", password: "another passphrase") { id } }`);
  await api.data(`mutation { deleteUser(id: "${user.id}", reason: "left") { id } }`);
  const { auditLog } = await api.data(
    `{ auditLog(stream: "user-${user.id}") { nodes { action actor address reason fields changes { field after } } } }`,
  );
  const said = { actor: expect.stringMatching(/^user:/), address: '127.0.0.1' };
  expect(auditLog.nodes).toMatchObject([
    { ...said, action: 'access.userDeleted', reason: 'left' },
    { ...said, action: 'access.passwordReset', reason: null },
    { ...said, action: 'access.userChanged', fields: ['name', 'role'] },
    { ...said, action: 'access.userCreated', fields: ['email', 'name', 'role'], reason: 'joined the team' },
  ]);
  expect(auditLog.nodes[3].changes).toContainEqual({ field: 'email', after: 'ada@example.com' });
  expect(new Set(announced)).toEqual(new Set([SHOP_TENANTS[0]]));
});

test.each([
  ['users', '{ users { nodes { id } } }'],
  [
    'createUser',
    'mutation { createUser(input: {email: "e@example.com", role: "Admin", password: "a long one"}) { id } }',
  ],
  ['updateUser', 'mutation { updateUser(id: "x", input: {role: "Admin"}) { id } }'],
  ['deleteUser', 'mutation { deleteUser(id: "x") { id } }'],
  ['resetPassword', 'mutation { resetPassword(id: "x", password: "a long one") { id } }'],
])('%s is forbidden to a Manager', async (_field, query) => {
  callers.role = 'Manager';
  expect(await api.ask(query)).toMatchObject({ errors: [{ extensions: { code: 'FORBIDDEN' } }] });
});

test('users of another tenant are neither seen nor changed', async () => {
  const { createUser: user } = await create('carol@example.com');
  const other = await api.data(`{ users { nodes { email } } }`, {}, SHOP_TENANTS[1]);
  expect(other.users.nodes).toEqual([]);
  for (const mutation of [
    `deleteUser(id: "${user.id}")`,
    `updateUser(id: "${user.id}", input: {role: "Admin"})`,
    `resetPassword(id: "${user.id}", password: "a long passphrase")`,
  ]) {
    const answer = await api.ask(`mutation { ${mutation} { id } }`, {}, SHOP_TENANTS[1]);
    expect(answer.errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);
  }
});

test('the last Admin of a tenant is not removed, and an unknown role is told with those there are', async () => {
  const { createUser: admin } = await create('root@example.com', 'Admin');
  expect(await update(admin.id, { role: 'Viewer' })).toMatchObject({ errors: [{ extensions: { code: 'CONFLICT' } }] });
  expect(await update(admin.id, { disabled: true })).toMatchObject({ errors: [{ extensions: { code: 'CONFLICT' } }] });
  expect(await update(admin.id, { role: 'Root' })).toMatchObject({
    errors: [{ extensions: { code: 'VALIDATION_ERROR' }, message: expect.stringContaining('Admin, Manager, Viewer') }],
  });
});

test.each([
  ['is disabled', { disabled: true }],
  ['gets another role', { role: 'Viewer' }],
])('what is open of a user who %s is cut within 5 s', async (_what, input) => {
  const { createUser: user } = await create(`d${Object.keys(input)[0]}@example.com`);
  const { accessToken } = await access.logins.login({ email: user.email, password: PASSWORD });
  const authorization = `Bearer ${accessToken}`;
  const subscribers = new Subscribers((header, believedMs) => access.callers.authenticate(header, believedMs));
  try {
    // Read now, and believed for as long as it may be: another instance could have made the change.
    const { role } = await access.callers.authenticate(authorization);
    let isCut = false;
    subscribers.watch({ authorization, role, end: () => (isCut = true) });
    await update(user.id, input);
    await eventually('what was open is cut', () => isCut, 5_000);
  } finally {
    subscribers.close();
  }
});

test('what a suspended tenant has open is cut within 5 s, nobody logs in, and after it is resumed all hold again', async () => {
  const by = { actor: 'operator:test' };
  const { createUser: user } = await create('shut@example.com');
  const grant = await access.logins.login({ email: user.email, password: PASSWORD });
  const authorization = `Bearer ${grant.accessToken}`;
  const subscribers = new Subscribers((header, believedMs) => access.callers.authenticate(header, believedMs));
  try {
    const { role } = await access.callers.authenticate(authorization);
    let isCut = false;
    subscribers.watch({ authorization, role, end: () => (isCut = true) });
    await setSuspended(system, 'shop0', true, by);
    await eventually('what was open is cut', () => isCut, 5_000);
    const refused = { code: 'UNAUTHENTICATED' };
    await expect(access.callers.authenticate(authorization, 0)).rejects.toMatchObject(refused);
    await expect(access.sessions.refresh(grant.refreshToken)).rejects.toMatchObject(refused);
    await expect(access.logins.login({ email: user.email, password: PASSWORD })).rejects.toMatchObject(refused);
    await setSuspended(system, 'shop0', false, by);
    expect(await access.callers.authenticate(authorization, 0)).toMatchObject({ role: 'Manager' });
    await access.sessions.refresh(grant.refreshToken);
  } finally {
    subscribers.close();
  }
});
