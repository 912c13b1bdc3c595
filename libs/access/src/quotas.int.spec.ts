import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, eventStoreMigrations, readEvents, SubjectKeys } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import {
  openAppDatabase,
  openSystemDatabase,
  type AppDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { Accounts } from './accounts.js';
import { ApiTokens } from './api-tokens.js';
import type { Person } from './principal.js';
import { type QuotaName, QUOTA_NAMES, QUOTAS } from './plans.js';
import { setLimit } from './limits.js';
import { standingsOf } from './quotas.js';
import { accessEntities, accessMigrations } from './schema.js';
import { createTenant, setPlan } from './tenants.js';

const BY = { actor: 'operator:ada', reason: 'asked for more' };
let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let accounts: Accounts;
let tokens: ApiTokens;

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  [app, system] = await Promise.all([openAppDatabase(options), openSystemDatabase(options)]);
  const codec = new EventCodec(new SubjectKeys('a key of this test, long enough for it'), ATOMO_EVENTS);
  accounts = new Accounts(app, codec, ['Viewer']);
  tokens = new ApiTokens(system, {});
});
afterAll(async () => {
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});

let made = 0;
const aTenant = async (plan = 'free') => {
  const name = `tenant ${(made += 1)}`;
  return (await createTenant(system, { name, plan }, BY)).id;
};
const aUser = (tenant: TenantId) =>
  accounts.create(
    tenant,
    { email: `u${(made += 1)}@example.com`, role: 'Viewer', password: 'a long passphrase' },
    { actor: 'user:1' },
  );
const aToken = (tenantId: TenantId) => {
  const userId = uuidv7() as UserId;
  const person: Person = { tenantId, userId, sessionId: uuidv7(), role: 'Admin', actor: 'user:1', scopes: ['read'] };
  return tokens.create(app, person, { name: 'a', role: 'Viewer', scopes: ['read'], expiresAt: null }, ['Viewer']);
};
const standing = async (tenant: TenantId, wanted: QuotaName, asSystem = false) => {
  const ask = (tx: Parameters<typeof standingsOf>[0]) => standingsOf(tx, tenant);
  const { standings } = asSystem ? await system.transaction(ask) : await app.transaction(tenant, ask);
  return standings.find(({ quota }) => quota === wanted);
};
const eventsOf = (tenant: TenantId) =>
  app.transaction(tenant, async (tx) => {
    const page = { stream: `tenant-${tenant}`, after: 0n, settled: 10n ** 15n, limit: 100 };
    const events = await readEvents(tx, tenant, page);
    return events.map(({ type, data, metadata }) => ({ type, data, actor: metadata.actor, reason: metadata.reason }));
  });

test('of many at once no more get in than the plan allows, and who is refused learns what there is', async () => {
  const tenant = await aTenant();
  const results = await Promise.allSettled(Array.from({ length: 6 }, () => aUser(tenant)));
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(QUOTAS.users.limits.free);
  const refused = results.filter((result) => result.status === 'rejected');
  for (const { reason } of refused)
    expect(reason).toMatchObject({ code: 'CONFLICT', details: { quota: 'users', limit: 3, used: 3 } });
  expect(await standing(tenant, 'users')).toEqual({
    quota: 'users',
    limit: 3,
    isOwn: false,
    used: 3,
    reserved: 0,
    renewsAt: null,
  });
  expect(await standing(tenant, 'users', true)).toMatchObject({ used: 3 });
});

test('tokens that were revoked make room; those of others take none', async () => {
  const [tenant, other] = [await aTenant(), await aTenant()];
  await aToken(other);
  const results = await Promise.allSettled(Array.from({ length: 4 }, () => aToken(tenant)));
  const made = results.filter((result) => result.status === 'fulfilled');
  expect(made).toHaveLength(QUOTAS.apiTokens.limits.free);
  await expect(aToken(tenant)).rejects.toMatchObject({ code: 'CONFLICT', details: { quota: 'apiTokens' } });
  const { apiToken } = made[0]!.value;
  await tokens.revoke(app, { tenantId: tenant, role: 'Admin', actor: 'user:1', scopes: ['write'] }, apiToken.id);
  await aToken(tenant);
});

test('another plan holds for the next that comes, and a smaller one takes nothing away', async () => {
  const tenant = await aTenant();
  for (let n = 0; n < 3; n += 1) await aUser(tenant);
  await expect(aUser(tenant)).rejects.toMatchObject({ code: 'CONFLICT' });
  await setPlan(system, tenant, 'solo', BY);
  await aUser(tenant);
  await setPlan(system, tenant, 'free', BY);
  expect(await standing(tenant, 'users')).toMatchObject({ limit: 3, used: 4 });
  await expect(aUser(tenant)).rejects.toMatchObject({ details: { limit: 3, used: 4 } });
});

test('an operator sets limits for one tenant, with an event each that says who and why', async () => {
  const tenant = await aTenant();
  await setLimit(system, tenant, 'users=1', BY);
  await setLimit(system, tenant, 'users=1', BY);
  await aUser(tenant);
  await expect(aUser(tenant)).rejects.toMatchObject({ details: { limit: 1 } });
  expect(await standing(tenant, 'users')).toMatchObject({ limit: 1, isOwn: true });
  await setLimit(system, tenant, 'users=none', BY);
  await aUser(tenant);
  expect(await standing(tenant, 'users')).toMatchObject({ limit: null, isOwn: true });
  await setLimit(system, tenant, 'users=plan', BY);
  expect(await standing(tenant, 'users')).toMatchObject({ limit: 3, isOwn: false });
  const changes = (await eventsOf(tenant)).filter(({ type }) => type === 'access.tenantLimitChanged');
  const who = { type: 'access.tenantLimitChanged', actor: 'operator:ada', reason: 'asked for more' };
  expect(changes).toEqual([
    { ...who, data: { quota: 'users', limit: 1, isOwn: true } },
    { ...who, data: { quota: 'users', limit: null, isOwn: true } },
    { ...who, data: { quota: 'users', limit: 3, isOwn: false } },
  ]);
});

test.each([
  'users',
  'users=',
  'users=-1',
  'users=1.5',
  'users=1e3',
  'users=4=5',
  'USERS=4',
  'toString=4',
  '=4',
  'users=99999999999999999',
])('%s is refused, and changes nothing', async (setting) => {
  const tenant = await aTenant();
  await expect(setLimit(system, tenant, setting, BY)).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
  expect(await standing(tenant, 'users')).toMatchObject({ isOwn: false });
});

test('the default tenant has no limits, and requests can set none', async () => {
  for (const quota of QUOTA_NAMES) expect(await standing(DEFAULT_TENANT_ID, quota)).toMatchObject({ limit: null });
  const insert = `insert into tenant_limits (tenant_id, quota, amount) values ($1, 'users', 9)`;
  await expect(app.transaction(DEFAULT_TENANT_ID, (tx) => tx.query(insert, [DEFAULT_TENANT_ID]))).rejects.toThrow(
    /permission denied/,
  );
  await expect(setLimit(system, 'nobody', 'users=4', BY)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  const [tenant, other] = [await aTenant(), await aTenant()];
  await expect(app.transaction(other, (tx) => standingsOf(tx, tenant))).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
