import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, eventStoreMigrations, readEvents, SubjectKeys } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import {
  openAppDatabase,
  openSystemDatabase,
  type AppDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { openAccess, type Access } from './access.js';
import type { By } from './access-log.js';
import { Accounts } from './accounts.js';
import { accessEntities, accessMigrations } from './schema.js';

const OTHER = '00000000-0000-7000-8000-0000000000bb' as TenantId;
const BY: By = { actor: 'user:1', address: '192.0.2.7', requestId: 'r1', reason: 'joined the team' };
const PASSWORD = 'a long passphrase';

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let codec: EventCodec;
let accounts: Accounts;
let access: Access;

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  [app, system] = await Promise.all([openAppDatabase(options), openSystemDatabase(options)]);
  await database.asOwner(`insert into tenants (id, name, slug, plan) values ($1, 'Other', 'other', 'team')`, [OTHER]);
  codec = new EventCodec(new SubjectKeys('a key of this test, long enough for it'), ATOMO_EVENTS);
  accounts = new Accounts(app, codec, ['Manager', 'Viewer']);
  access = openAccess(system, { secret: 'a secret of this test' });
});
afterAll(async () => {
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});

let made = 0;
const aUser = (role: string, tenant: TenantId = DEFAULT_TENANT_ID) =>
  accounts.create(tenant, { email: `U${(made += 1)}@Example.com`, role, password: PASSWORD }, BY);
const isAlive = (token: string) =>
  access.sessions.verifyAccessToken(token, 0).then(
    ({ role }) => role,
    () => null,
  );
const eventsOf = (id: string) =>
  app.transaction(DEFAULT_TENANT_ID, async (tx) => {
    const settled = 10n ** 15n;
    const events = await readEvents(tx, DEFAULT_TENANT_ID, { stream: `user-${id}`, after: 0n, settled, limit: 100 });
    return { stored: events, read: await codec.decode(tx, events) };
  });

test('a user is made with an event that says who, from where and why, and whose address is sealed', async () => {
  const user = await aUser('Manager');
  expect(user).toMatchObject({ role: 'Manager', email: `u${made}@example.com`, name: `u${made}`, disabledAt: null });
  const { stored, read } = await eventsOf(user.id);
  expect(read).toMatchObject([
    {
      type: 'access.userCreated',
      data: { email: user.email, name: user.name, role: 'Manager' },
      metadata: { actor: 'user:1', address: '192.0.2.7', correlationId: 'r1', reason: 'joined the team' },
    },
  ]);
  expect(JSON.stringify(stored[0]!.data)).not.toContain(user.email);
  expect(JSON.stringify(read[0]!.data)).not.toContain(PASSWORD);
  const grant = await access.logins.login({ email: user.email, password: PASSWORD });
  expect(await isAlive(grant.accessToken)).toBe('Manager');
});

test('a changed role holds for a token that is out, with an event of what became different', async () => {
  const user = await aUser('Manager');
  const { accessToken } = await access.logins.login({ email: user.email, password: PASSWORD });
  await accounts.update(DEFAULT_TENANT_ID, user.id, { role: 'Viewer', name: user.name }, BY);
  expect(await isAlive(accessToken)).toBe('Viewer');
  await accounts.update(DEFAULT_TENANT_ID, user.id, { role: 'Viewer' }, BY);
  const { read } = await eventsOf(user.id);
  expect(read.map(({ type, data }) => ({ type, data })).slice(2)).toEqual([
    { type: 'access.userChanged', data: { role: 'Viewer' } },
  ]);
});

test.each([
  ['disabled', { disabled: true }],
  ['given another password', { password: 'another long passphrase' }],
])('all sessions of who is %s end, and stay ended', async (_what, change) => {
  const user = await aUser('Viewer');
  const { accessToken, refreshToken } = await access.logins.login({ email: user.email, password: PASSWORD });
  await accounts.update(DEFAULT_TENANT_ID, user.id, change, BY);
  expect(await isAlive(accessToken)).toBeNull();
  await expect(access.logins.login({ email: user.email, password: PASSWORD })).rejects.toMatchObject({
    code: 'UNAUTHENTICATED',
  });
  await accounts.update(DEFAULT_TENANT_ID, user.id, { disabled: false }, BY);
  expect(await isAlive(accessToken)).toBeNull();
  await expect(access.sessions.refresh(refreshToken)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
});

test('a removed user is gone with their sessions', async () => {
  const user = await aUser('Viewer');
  const { accessToken } = await access.logins.login({ email: user.email, password: PASSWORD });
  await accounts.delete(DEFAULT_TENANT_ID, user.id, BY);
  expect(await isAlive(accessToken)).toBeNull();
  expect(await database.asOwner('select 1 from sessions where user_id = $1', [user.id])).toEqual([]);
  await expect(accounts.delete(DEFAULT_TENANT_ID, user.id, BY)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('however many Admins lose their role at once, one keeps it', async () => {
  const tenant = OTHER;
  const admins = await Promise.all([1, 2, 3].map(() => aUser('Admin', tenant)));
  const ways = [{ role: 'Viewer' }, { disabled: true }, null];
  const outcomes = await Promise.allSettled(
    admins.map(({ id }, n) => (ways[n] ? accounts.update(tenant, id, ways[n], BY) : accounts.delete(tenant, id, BY))),
  );
  const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
  expect(refused).toEqual([expect.objectContaining({ code: 'CONFLICT' })]);
  const left = await database.asOwner(
    `select 1 from users where tenant_id = $1 and role = 'Admin' and disabled_at is null`,
    [tenant],
  );
  expect(left).toHaveLength(1);
});

test('users of another tenant are not there', async () => {
  const user = await aUser('Viewer');
  await expect(accounts.update(OTHER, user.id, { role: 'Admin' }, BY)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  await expect(accounts.delete(OTHER, user.id, BY)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  expect((await accounts.list(OTHER, { limit: 100 })).map(({ id }) => id)).not.toContain(user.id);
  await expect(
    accounts.create(OTHER, { email: user.email, role: 'Viewer', password: PASSWORD }, BY),
  ).rejects.toMatchObject({ code: 'CONFLICT' });
});

test.each([
  [{ role: 'admin' }, 'There is no role "admin". There are Admin, Manager, Viewer.'],
  [{ email: 'ada' }, 'The e-mail address is not one, such as ada@example.com.'],
  [{ password: 'short' }, 'The password has fewer than 8 or more than 1024 characters.'],
  [{ name: ' \u0000' }, 'The name has 1 to 200 characters, and no control characters.'],
])('%j is refused', async (wrong, message) => {
  const right = { email: 'new@example.com', role: 'Viewer', password: PASSWORD };
  await expect(accounts.create(DEFAULT_TENANT_ID, { ...right, ...wrong }, BY)).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    message,
  });
});
