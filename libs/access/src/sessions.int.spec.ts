import { DEFAULT_TENANT_ID, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import {
  type AppDatabase,
  openAppDatabase,
  openSystemDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { hashPassword } from './passwords.js';
import { accessEntities, accessMigrations } from './schema.js';
import { Sessions } from './sessions.js';
import { ensureFirstAdmin, findUser, User } from './users.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };
const OTHER_TENANT = '00000000-0000-7000-8000-00000000000b' as TenantId;
const DAY = 24 * 60 * 60 * 1000;
const UNAUTHENTICATED = { code: 'UNAUTHENTICATED' };

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let now: number;
const clock = { now: () => now };

/** A process of its own: what one remembers, another does not know. */
const aProcess = (secret = 'a secret of this test') => new Sessions(system, { secret, clock });

beforeAll(async () => {
  database = await aDatabase(accessMigrations);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  app = await openAppDatabase(options);
  system = await openSystemDatabase(options);
});

beforeEach(async () => {
  now = Date.now();
  await database.asOwner('truncate users, sessions');
  await ensureFirstAdmin(system, ADMIN);
});

afterAll(async () => {
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});

describe('login', () => {
  test('the first administrator gets tokens that name him', async () => {
    const sessions = aProcess();
    const grant = await sessions.login({ ...ADMIN, email: ' Ada@Example.com ' });
    expect(grant).toMatchObject({ expiresIn: 900, user: { email: ADMIN.email, role: 'Admin' } });
    expect(await sessions.authenticate(`Bearer ${grant.accessToken}`)).toMatchObject({
      userId: grant.user.id,
      tenantId: DEFAULT_TENANT_ID,
      role: 'Admin',
    });
  });

  test('an unknown user, a wrong password and a disabled user are told apart by nothing', async () => {
    const refusal = (login: { email: string; password: string }) =>
      aProcess()
        .login(login)
        .catch((error: unknown) => error);
    const wrong = await refusal({ ...ADMIN, password: 'wrong' });
    const unknown = await refusal({ ...ADMIN, email: 'bob@example.com' });
    await database.asOwner('update users set disabled_at = now()');
    const disabled = await refusal(ADMIN);
    expect(wrong).toMatchObject(UNAUTHENTICATED);
    expect(unknown).toEqual(wrong);
    expect(disabled).toEqual(wrong);
  });

  test('the database holds no password and no token as it was', async () => {
    const grant = await aProcess().login(ADMIN, { address: '192.0.2.1', userAgent: 'x'.repeat(5_000) });
    await aProcess().refresh(grant.refreshToken);
    const stored = JSON.stringify(await database.asOwner('select * from users, sessions'));
    for (const secret of [ADMIN.password, grant.accessToken, ...grant.refreshToken.split('.')]) {
      expect(stored).not.toContain(secret);
    }
    expect(stored.length).toBeLessThan(2_000);
  });

  test('sessions that ended by time are forgotten at the next login', async () => {
    await aProcess().login(ADMIN);
    now += 31 * DAY;
    await aProcess().login(ADMIN);
    expect(await database.asOwner('select id from sessions')).toHaveLength(1);
  });
});

describe('refresh', () => {
  test('each token can be used once, and the session goes on with the next', async () => {
    const sessions = aProcess();
    const first = await sessions.login(ADMIN);
    const second = await sessions.refresh(first.refreshToken);
    const third = await sessions.refresh(second.refreshToken);
    expect(new Set([first, second, third].map((grant) => grant.refreshToken)).size).toBe(3);
    const principals = await Promise.all([first, third].map((grant) => sessions.verifyAccessToken(grant.accessToken)));
    expect(principals[0]).toEqual(principals[1]);
  });

  test.each([1, 2])('a token that was replaced %i times ends the session for both who have it', async (times) => {
    const sessions = aProcess();
    const first = await sessions.login(ADMIN);
    let newest = first;
    for (let time = 0; time < times; time += 1) newest = await sessions.refresh(newest.refreshToken);
    await sessions.verifyAccessToken(newest.accessToken);
    await expect(sessions.refresh(first.refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await expect(sessions.refresh(newest.refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await expect(sessions.verifyAccessToken(newest.accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('of two uses at the same moment one succeeds, and the session ends', async () => {
    const { refreshToken } = await aProcess().login(ADMIN);
    const outcomes = await Promise.allSettled([aProcess().refresh(refreshToken), aProcess().refresh(refreshToken)]);
    expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await database.asOwner('select id from sessions where revoked_at is null')).toEqual([]);
  });

  test('a made-up token ends nobody else’s session', async () => {
    const sessions = aProcess();
    const { refreshToken, accessToken } = await sessions.login(ADMIN);
    const [, secret] = refreshToken.split('.');
    for (const forged of ['', 'x', `${'A'.repeat(32)}.${secret}`]) {
      await expect(sessions.refresh(forged)).rejects.toMatchObject(UNAUTHENTICATED);
    }
    await aProcess().verifyAccessToken(accessToken);
    await sessions.refresh(refreshToken);
  });

  test('an unused session ends after 30 days, a used one goes on', async () => {
    const unused = await aProcess().login(ADMIN);
    const used = await aProcess().login(ADMIN);
    now += 20 * DAY;
    const next = await aProcess().refresh(used.refreshToken);
    now += 20 * DAY;
    await expect(aProcess().refresh(unused.refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await aProcess().refresh(next.refreshToken);
  });

  test('a disabled user gets no new tokens', async () => {
    const { refreshToken } = await aProcess().login(ADMIN);
    await database.asOwner('update users set disabled_at = now()');
    await expect(aProcess().refresh(refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });
});

describe('a session that has ended', () => {
  test('is over at once where it was logged out, and within 5 s elsewhere', async () => {
    const here = aProcess();
    const there = aProcess();
    const { accessToken, refreshToken } = await here.login(ADMIN);
    const principal = await here.verifyAccessToken(accessToken);
    await there.verifyAccessToken(accessToken);
    await here.logout(principal);
    await expect(here.verifyAccessToken(accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
    now += 4_999;
    await there.verifyAccessToken(accessToken);
    now += 1;
    await expect(there.verifyAccessToken(accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await expect(here.refresh(refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('is over elsewhere as soon as the caller wants it known', async () => {
    const [here, there] = [aProcess(), aProcess()];
    const { accessToken } = await here.login(ADMIN);
    await there.verifyAccessToken(accessToken);
    await here.logout(await here.verifyAccessToken(accessToken));
    now += 1_000;
    await there.authenticate(`Bearer ${accessToken}`, 1_001);
    await expect(there.authenticate(`Bearer ${accessToken}`, 1_000)).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('is no other session', async () => {
    const sessions = aProcess();
    const [one, two] = [await sessions.login(ADMIN), await sessions.login(ADMIN)];
    await sessions.logout(await sessions.verifyAccessToken(one.accessToken));
    const left = await sessions.verifyAccessToken(two.accessToken);
    expect(left.userId).toBe(two.user.id);
  });

  test('does not come back through a look-up that was under way', async () => {
    const sessions = aProcess();
    const { accessToken } = await sessions.login(ADMIN);
    const principal = await sessions.verifyAccessToken(accessToken);
    now += 5_000;
    // Both begin now: the look-up reads the row before or after the logout commits, and must not be remembered if before.
    await Promise.allSettled([sessions.verifyAccessToken(accessToken), sessions.logout(principal)]);
    await expect(sessions.verifyAccessToken(accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });
});

describe('an access token', () => {
  test('follows the user’s role and leave within 5 s', async () => {
    const sessions = aProcess();
    const { accessToken } = await sessions.login(ADMIN);
    expect(await sessions.verifyAccessToken(accessToken)).toMatchObject({ role: 'Admin' });
    await database.asOwner(`update users set role = 'Viewer'`);
    now += 5_000;
    expect(await sessions.verifyAccessToken(accessToken)).toMatchObject({ role: 'Viewer' });
    await database.asOwner('update users set disabled_at = now()');
    now += 5_000;
    await expect(sessions.verifyAccessToken(accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('of another installation, or no bearer token at all, is refused', async () => {
    const { accessToken, refreshToken } = await aProcess().login(ADMIN);
    const foreign = aProcess('another secret');
    await expect(foreign.authenticate(`Bearer ${accessToken}`)).rejects.toMatchObject(UNAUTHENTICATED);
    for (const header of [
      undefined,
      '',
      'Bearer',
      'Bearer ',
      accessToken,
      `Basic ${accessToken}`,
      `Bearer ${refreshToken}`,
    ]) {
      await expect(aProcess().authenticate(header)).rejects.toMatchObject(UNAUTHENTICATED);
    }
  });
});

describe('the first administrator', () => {
  test('is made once, also when several processes boot at once, and never changed', async () => {
    await database.asOwner('truncate users, sessions');
    const made = await Promise.all([1, 2, 3].map(() => ensureFirstAdmin(system, ADMIN)));
    expect(made.filter(Boolean)).toHaveLength(1);
    expect(await ensureFirstAdmin(system, { email: 'eve@example.com', password: 'another passphrase' })).toBe(false);
    expect(await database.asOwner('select email from users')).toEqual([{ email: ADMIN.email }]);
  });

  test('needs an address and a password that are fit for it', async () => {
    for (const admin of [
      { ...ADMIN, email: 'ada' },
      { ...ADMIN, password: 'short' },
    ]) {
      await expect(ensureFirstAdmin(system, admin)).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
    }
  });
});

describe('row-level security', () => {
  const stranger = uuidv7() as UserId;

  beforeEach(async () => {
    await database.asOwner(`insert into tenants (id, name, slug) values ($1, 'B', 'b') on conflict do nothing`, [
      OTHER_TENANT,
    ]);
    await database.asOwner(
      `insert into users (id, tenant_id, email, name, password_hash, role) values ($1, $2, 'bob@example.com', 'Bob', $3, 'Sales')`,
      [stranger, OTHER_TENANT, await hashPassword('another passphrase')],
    );
  });

  test('a request sees its own tenant and the users of that', async () => {
    const seen = (tenant: TenantId) =>
      app.transaction(tenant, async (tx) => ({
        tenants: (await tx.query<{ slug: string }>('select slug from tenants')).map((row) => row.slug),
        users: (await tx.repository(User).find()).map((user) => user.email),
        stranger: (await findUser(tx, stranger))?.email,
      }));
    expect(await seen(DEFAULT_TENANT_ID)).toEqual({ tenants: ['default'], users: [ADMIN.email], stranger: undefined });
    expect(await seen(OTHER_TENANT)).toEqual({
      tenants: ['b'],
      users: ['bob@example.com'],
      stranger: 'bob@example.com',
    });
  });

  test('without a tenant nothing is seen', async () => {
    const seen = await app.transaction('' as TenantId, (tx) =>
      tx.query('select id from users union all select id from tenants'),
    );
    expect(seen).toEqual([]);
  });

  test.each([
    ['read the hashes of passwords', 'select password_hash from users'],
    ['read sessions', 'select id from sessions'],
    ['change a role', `update users set role = 'Admin'`],
    ['make a user', `insert into users (id, tenant_id) values (gen_random_uuid(), '${DEFAULT_TENANT_ID}')`],
  ])('a request may not %s', async (_what, sql) => {
    await expect(app.transaction(DEFAULT_TENANT_ID, (tx) => tx.query(sql))).rejects.toThrow(/permission denied/);
  });

  test('a session cannot belong to a user of another tenant', async () => {
    const insert = database.asOwner(
      `insert into sessions (id, tenant_id, user_id, family_hash, refresh_hash, expires_at) values ($1, $2, $3, 'f', 'r', now())`,
      [uuidv7(), DEFAULT_TENANT_ID, stranger],
    );
    await expect(insert).rejects.toThrow(/foreign key/);
  });
});
