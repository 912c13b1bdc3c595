import { eventStoreMigrations } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import {
  type AppDatabase,
  openAppDatabase,
  openSystemDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { openAccess } from './access.js';
import type { NewApiToken } from './api-tokens.js';
import { type Person, requirePerson, requireScope } from './principal.js';
import { accessEntities, accessMigrations } from './schema.js';
import { setSuspended } from './tenants.js';
import { ensureFirstAdmin } from './users.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };
const ROLES = ['Viewer'];
const EXPORT: NewApiToken = { name: 'nightly export', role: 'Viewer', scopes: ['read'], expiresAt: null };
const UNAUTHENTICATED = { code: 'UNAUTHENTICATED' };
const OTHER_TENANT = '00000000-0000-7000-8000-00000000000b' as TenantId;

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let me: Person;
let now: number;
const clock = { now: () => now };

/** A process of its own: what one remembers, another does not know. */
const aProcess = () => openAccess(system, { secret: 'a secret of this test', clock });
const make = (wanted: Partial<NewApiToken> = {}) => aProcess().tokens.create(app, me, { ...EXPORT, ...wanted }, ROLES);

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  app = await openAppDatabase(options);
  system = await openSystemDatabase(options);
  await ensureFirstAdmin(system, ADMIN);
  await database.asOwner(`insert into tenants (id, name, slug, plan) values ($1, 'B', 'b', 'team')`, [OTHER_TENANT]);
});

beforeEach(async () => {
  now = Date.now();
  await database.asOwner('truncate api_tokens, event_log, event_streams, audit_log');
  const { logins, sessions } = aProcess();
  const { accessToken } = await logins.login(ADMIN);
  me = (await sessions.verifyAccessToken(accessToken)) as Person;
});

afterAll(async () => {
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});

test('a token acts as its role in its tenant, narrowed to its scopes, under a name of its own', async () => {
  const { token, apiToken } = await make();
  expect(token).toMatch(/^atomo_[\w-]{32}$/);
  expect(apiToken).toEqual({
    id: expect.any(String),
    name: 'nightly export',
    prefix: token.slice(0, 12),
    role: 'Viewer',
    scopes: ['read'],
    createdAt: expect.any(Date),
    expiresAt: null,
    lastUsedAt: null,
  });
  const principal = await aProcess().callers.authenticate(`Bearer ${token}`);
  expect(principal).toEqual({
    tenantId: DEFAULT_TENANT_ID,
    role: 'Viewer',
    scopes: ['read'],
    tokenId: apiToken.id,
    actor: `token:${apiToken.id}`,
  });
  requireScope(principal, 'read');
  expect(() => requireScope(principal, 'write')).toThrow(expect.objectContaining({ code: 'FORBIDDEN' }));
  expect(() => requirePerson(principal)).toThrow(expect.objectContaining({ code: 'FORBIDDEN' }));
});

test('the database holds no token, and the application’s role sees no hash', async () => {
  const { token } = await make();
  expect(JSON.stringify(await database.asOwner('select * from api_tokens'))).not.toContain(token.slice(12));
  expect(JSON.stringify(await database.asOwner('select * from event_log'))).not.toContain(token.slice(6, 12));
  const read = app.transaction(DEFAULT_TENANT_ID, (tx) => tx.query('select token_hash from api_tokens'));
  await expect(read).rejects.toThrow(/permission denied/);
});

test('a revoked token stops within 5 s where it is remembered, and at once where it is not', async () => {
  const { token, apiToken } = await make();
  const [here, there] = [aProcess(), aProcess()];
  await there.callers.authenticate(`Bearer ${token}`);
  expect(await here.tokens.revoke(app, me, apiToken.id)).toBe(true);
  expect(await here.tokens.revoke(app, me, apiToken.id)).toBe(false);
  await expect(here.callers.authenticate(`Bearer ${token}`)).rejects.toMatchObject(UNAUTHENTICATED);
  now += 5_000;
  await expect(there.callers.authenticate(`Bearer ${token}`)).rejects.toMatchObject(UNAUTHENTICATED);
  expect(await here.tokens.list(app, me)).toEqual([]);
});

test('a token of a suspended tenant stops within 5 s, and works again when that is over', async () => {
  const { token } = await make();
  const there = aProcess();
  await there.callers.authenticate(`Bearer ${token}`);
  await setSuspended(system, 'default', true, { actor: 'operator:test' });
  now += 5_000;
  await expect(there.callers.authenticate(`Bearer ${token}`)).rejects.toMatchObject(UNAUTHENTICATED);
  await setSuspended(system, 'default', false, { actor: 'operator:test' });
  now += 5_000;
  await there.callers.authenticate(`Bearer ${token}`);
});

test('a token runs out to the moment, also where it is remembered', async () => {
  const { token } = await make({ expiresAt: new Date(now + 2_000) });
  const { callers } = aProcess();
  now += 1_999;
  await callers.authenticate(`Bearer ${token}`);
  now += 1;
  await expect(callers.authenticate(`Bearer ${token}`)).rejects.toMatchObject(UNAUTHENTICATED);
});

test('its last use is known to the minute', async () => {
  const { token } = await make();
  const { tokens } = aProcess();
  await tokens.verify(token);
  const [used] = await tokens.list(app, me);
  expect(used!.lastUsedAt!.getTime()).toBe(now);
  now += 30_000;
  await tokens.verify(token);
  expect((await tokens.list(app, me))[0]).toEqual(used);
  now += 31_000;
  await tokens.verify(token);
  expect((await tokens.list(app, me))[0]!.lastUsedAt!.getTime()).toBe(now);
});

test.each([
  'atomo_',
  `atomo_${'a'.repeat(32)}`,
  `atomo_${'a'.repeat(33)}`,
  `ATOMO_${'a'.repeat(32)}`,
  "atomo_'or true",
])('what is no token of ours is refused as an access token is: %s', async (token) => {
  const { callers } = aProcess();
  const refusal = await callers.authenticate(`Bearer ${token}`).catch((error: unknown) => error);
  expect(refusal).toMatchObject(UNAUTHENTICATED);
  expect(refusal).toEqual(await callers.authenticate('Bearer x').catch((error: unknown) => error));
});

test.each([
  ['name', { name: ' ' }],
  ['name', { name: 'x'.repeat(201) }],
  ['name', { name: 'a\u0000b' }],
  ['role', { role: 'Emperor' }],
  ['scopes', { scopes: [] }],
  ['scopes', { scopes: ['read', 'everything'] }],
  ['expiresAt', { expiresAt: new Date(0) }],
  ['expiresAt', { expiresAt: new Date(Number.NaN) }],
])('a token with a wrong %s is not made (%#)', async (field, wanted) => {
  await expect(make(wanted)).rejects.toMatchObject({ code: 'VALIDATION_ERROR', details: { field } });
  expect(await database.asOwner('select id from api_tokens')).toEqual([]);
});

test('another tenant sees and revokes none of them', async () => {
  const { apiToken, token } = await make();
  const { tokens } = aProcess();
  const stranger = { ...me, tenantId: OTHER_TENANT };
  expect(await tokens.list(app, stranger)).toEqual([]);
  expect(await tokens.revoke(app, stranger, apiToken.id)).toBe(false);
  expect(await tokens.revoke(app, me, "' or true")).toBe(false);
  await tokens.verify(token);
});

test('the log tells who made and revoked it', async () => {
  const from = { address: '192.0.2.1', requestId: 'r' };
  const { tokens } = aProcess();
  const { apiToken } = await tokens.create(app, me, EXPORT, ROLES, { ...from, reason: 'a nightly export' });
  await tokens.revoke(app, me, apiToken.id, { ...from, reason: ' it leaked ' });
  await expect(tokens.create(app, me, EXPORT, ROLES, { reason: ' ' })).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    details: { field: 'reason' },
  });
  const told = await database.asOwner(
    `select stream, type, metadata ->> 'actor' as actor, metadata ->> 'address' as address,
            metadata ->> 'reason' as reason, data
     from event_log where stream like 'token-%' order by position`,
  );
  const [stream, actor, address] = [`token-${apiToken.id}`, me.actor, '192.0.2.1'];
  const data = { name: 'nightly export', role: 'Viewer', scopes: ['read'], expiresAt: null };
  expect(told).toEqual([
    { stream, type: 'access.tokenCreated', actor, address, reason: 'a nightly export', data },
    { stream, type: 'access.tokenRevoked', actor, address, reason: 'it leaked', data: { reason: 'revoked' } },
  ]);
});

test('a tenant has no more than 500 that hold', async () => {
  await database.asOwner(
    `insert into api_tokens (id, tenant_id, name, token_hash, prefix, role, scopes, revoked_at)
     select gen_random_uuid(), $1, 'x', lpad(to_hex(n), 64, '0'), 'x', 'Viewer', '{read}', case when n > 500 then now() end
     from generate_series(1, 510) n`,
    [DEFAULT_TENANT_ID],
  );
  await expect(make()).rejects.toMatchObject({ code: 'CONFLICT' });
  await database.asOwner(`update api_tokens set revoked_at = now() where token_hash like '%1'`);
  await make();
});
