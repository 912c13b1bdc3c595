import { hash } from '@node-rs/argon2';
import { hashSync } from 'bcryptjs';
import { decodeProtectedHeader } from 'jose';
import { DEFAULT_TENANT_ID, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import {
  type AppDatabase,
  openAppDatabase,
  openSystemDatabase,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { hashPassword, PASSWORD_HASHING } from './passwords.js';
import { type Person, requirePerson } from './principal.js';
import { accessEntities, accessMigrations } from './schema.js';
import { openAccess } from './access.js';
import { ensureFirstAdmin, findUser, User } from './users.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };
const OTHER_TENANT = '00000000-0000-7000-8000-00000000000b' as TenantId;
const DAY = 24 * 60 * 60 * 1000;
const SECRET = 'a secret of this test';
const UNAUTHENTICATED = { code: 'UNAUTHENTICATED' };

let database: TestDatabase;
let app: AppDatabase;
let system: SystemDatabase;
let now: number;
const clock = { now: () => now };

/** A process of its own: what one remembers, another does not know. */
function aProcess(secret = SECRET, acceptedSecrets: readonly string[] = []) {
  const { sessions, logins, callers } = openAccess(system, { secret, acceptedSecrets, clock });
  return {
    login: logins.login.bind(logins),
    changePassword: logins.changePassword.bind(logins),
    authenticate: callers.authenticate.bind(callers),
    refresh: sessions.refresh.bind(sessions),
    logout: sessions.logout.bind(sessions),
    logoutEverywhere: sessions.logoutEverywhere.bind(sessions),
    list: sessions.list.bind(sessions),
    revoke: sessions.revoke.bind(sessions),
    verifyAccessToken: async (token: string, believedMs?: number) =>
      (await sessions.verifyAccessToken(token, believedMs)) as Person,
  };
}

/** What the log says happened to the only user, oldest first. */
async function events() {
  return database.asOwner<{ type: string; data: Record<string, unknown>; actor: string; address: string | null }>(
    `select type, data, metadata ->> 'actor' as actor, metadata ->> 'address' as address from event_log order by position`,
  );
}

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  app = await openAppDatabase(options);
  system = await openSystemDatabase(options);
});

beforeEach(async () => {
  now = Date.now();
  await database.asOwner('truncate users, sessions, event_log, event_streams, audit_log');
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

describe('a secret that signs', () => {
  test('is replaced without logging anybody out, and its tokens end with its name', async () => {
    const before = await aProcess('the old secret').login(ADMIN);
    const rotated = aProcess('the new secret', ['the old secret']);
    const { userId } = await rotated.verifyAccessToken(before.accessToken);
    const after = await rotated.refresh(before.refreshToken);
    const [kidBefore, kidAfter] = [before, after].map(({ accessToken }) => decodeProtectedHeader(accessToken).kid);
    expect(kidAfter).not.toBe(kidBefore);
    // As a node that is deployed later, and one that has forgotten the old secret.
    const waiting = aProcess('the old secret', ['the new secret']);
    expect(await waiting.verifyAccessToken(after.accessToken)).toMatchObject({ userId });
    const done = aProcess('the new secret');
    expect(await done.verifyAccessToken(after.accessToken)).toMatchObject({ userId });
    await expect(done.verifyAccessToken(before.accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
  });
});

describe('a password', () => {
  test.each([
    ['of bcrypt', () => hashSync(ADMIN.password, 4)],
    ['with fewer passes', () => hash(ADMIN.password, { ...PASSWORD_HASHING, timeCost: 1 })],
  ])('%s lets its owner in, and is hashed anew at that', async (_what, make) => {
    await database.asOwner('update users set password_hash = $1', [await make()]);
    await expect(aProcess().login({ ...ADMIN, password: 'wrong' })).rejects.toMatchObject(UNAUTHENTICATED);
    await aProcess().login(ADMIN);
    const [row] = await database.asOwner<{ password_hash: string }>('select password_hash from users');
    expect(row!.password_hash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    await aProcess().login(ADMIN);
    expect(await database.asOwner('select password_hash from users')).toEqual([row]);
  });

  test('that is changed ends the other sessions, and the old one lets nobody in', async () => {
    const sessions = aProcess();
    const [mine, theirs] = [await sessions.login(ADMIN), await sessions.login(ADMIN)];
    const me = await sessions.verifyAccessToken(mine.accessToken);
    await sessions.verifyAccessToken(theirs.accessToken);
    const change = { currentPassword: ADMIN.password, newPassword: 'another passphrase' };
    await sessions.changePassword(me, change, { address: '192.0.2.1' });
    await expect(sessions.verifyAccessToken(theirs.accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await expect(sessions.refresh(theirs.refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
    await sessions.verifyAccessToken(mine.accessToken);
    await expect(sessions.login(ADMIN)).rejects.toMatchObject(UNAUTHENTICATED);
    await sessions.login({ ...ADMIN, password: change.newPassword });
    expect((await events()).slice(2, 4)).toEqual([
      { type: 'access.passwordChanged', data: {}, actor: me.actor, address: '192.0.2.1' },
      {
        type: 'access.sessionsRevoked',
        data: { sessions: [expect.any(String)], reason: 'passwordChanged' },
        actor: me.actor,
        address: '192.0.2.1',
      },
    ]);
  });

  test.each([
    ['currentPassword', { currentPassword: 'wrong', newPassword: 'another passphrase' }],
    ['newPassword', { currentPassword: ADMIN.password, newPassword: 'short' }],
    ['newPassword', { currentPassword: ADMIN.password, newPassword: ADMIN.password }],
  ])('is not changed with a wrong %s (%#)', async (field, change) => {
    const sessions = aProcess();
    const me = await sessions.verifyAccessToken((await sessions.login(ADMIN)).accessToken);
    await expect(sessions.changePassword(me, change)).rejects.toMatchObject({
      code: 'VALIDATION_ERROR',
      details: { field },
    });
    await sessions.login(ADMIN);
  });

  test('that two change at once becomes the one, and the other is told that theirs is wrong', async () => {
    const { logins, sessions } = openAccess(system, { secret: SECRET, clock });
    const me = await Promise.all([1, 2].map(async () => (await logins.login(ADMIN)).accessToken)).then((tokens) =>
      Promise.all(tokens.map(async (token) => requirePerson(await sessions.verifyAccessToken(token)))),
    );
    const wanted = ['the passphrase of one', 'the passphrase of the other'];
    const changes = await Promise.allSettled(
      wanted.map((newPassword, n) => logins.changePassword(me[n]!, { currentPassword: ADMIN.password, newPassword })),
    );
    const wins = changes.findIndex(({ status }) => status === 'fulfilled');
    expect(changes[1 - wins]).toMatchObject({
      reason: { code: 'VALIDATION_ERROR', details: { field: 'currentPassword' } },
    });
    await logins.login({ ...ADMIN, password: wanted[wins]! });
    await expect(logins.login({ ...ADMIN, password: wanted[1 - wins]! })).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('that was changed while a login with the old one was under way lets that in no more', async () => {
    const { sessions } = openAccess(system, { secret: SECRET, clock });
    const [user] = await database.asOwner<{ id: UserId; tenant_id: TenantId }>('select id, tenant_id from users');
    const checked = { id: user!.id, tenantId: user!.tenant_id, passwordHash: 'as it was' } as User;
    expect(await sessions.open(checked)).toBeUndefined();
    expect(await database.asOwner('select id from sessions')).toEqual([]);
  });
});

describe('the sessions of a person', () => {
  test('are listed to them, newest first, and each can be ended', async () => {
    const sessions = aProcess();
    const old = await sessions.login(ADMIN, { address: '192.0.2.1', userAgent: 'Firefox' });
    now += 1_000;
    const mine = await sessions.login(ADMIN);
    const me = await sessions.verifyAccessToken(mine.accessToken);
    const listed = await sessions.list(me);
    expect(listed).toEqual([
      expect.objectContaining({ id: me.sessionId, isCurrent: true, address: null }),
      expect.objectContaining({ isCurrent: false, address: '192.0.2.1', userAgent: 'Firefox' }),
    ]);
    expect(JSON.stringify(listed)).not.toMatch(/hash/i);
    const { id } = listed[1]!;
    await sessions.verifyAccessToken(old.accessToken);
    expect(await sessions.revoke(me, id)).toBe(true);
    expect(await sessions.revoke(me, id)).toBe(false);
    expect(await sessions.revoke(me, 'no id')).toBe(false);
    await expect(sessions.verifyAccessToken(old.accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
    expect(await sessions.list(me)).toHaveLength(1);
  });

  test('are nobody else’s to see or end', async () => {
    const sessions = aProcess();
    await database.asOwner(
      `insert into users (id, tenant_id, email, name, password_hash, role)
       select $1, tenant_id, 'eve@example.com', 'Eve', password_hash, 'Admin' from users`,
      [uuidv7()],
    );
    const mine = await sessions.verifyAccessToken((await sessions.login(ADMIN)).accessToken);
    const eves = await sessions.login({ ...ADMIN, email: 'eve@example.com' });
    const eve = await sessions.verifyAccessToken(eves.accessToken);
    expect(await sessions.revoke(eve, mine.sessionId)).toBe(false);
    expect((await sessions.list(eve)).map(({ id }) => id)).toEqual([eve.sessionId]);
    expect(await sessions.logoutEverywhere(eve)).toBe(1);
    expect(await sessions.list(mine)).toHaveLength(1);
  });

  test('all end at once when they log out everywhere', async () => {
    const sessions = aProcess();
    const grants = [await sessions.login(ADMIN), await sessions.login(ADMIN), await sessions.login(ADMIN)];
    const [me] = await Promise.all(grants.map(({ accessToken }) => sessions.verifyAccessToken(accessToken)));
    expect(await sessions.logoutEverywhere(me!)).toBe(3);
    for (const { accessToken, refreshToken } of grants) {
      await expect(sessions.verifyAccessToken(accessToken)).rejects.toMatchObject(UNAUTHENTICATED);
      await expect(sessions.refresh(refreshToken)).rejects.toMatchObject(UNAUTHENTICATED);
    }
    expect(await sessions.logoutEverywhere(me!)).toBe(0);
  });
});

describe('the log', () => {
  test('tells of logins, logouts and a refresh token that came twice: who, from where, in which request', async () => {
    const sessions = aProcess();
    const from = { address: '192.0.2.7', requestId: uuidv7() };
    const first = await sessions.login(ADMIN, from);
    const me = await sessions.verifyAccessToken(first.accessToken);
    await sessions.refresh(first.refreshToken);
    await sessions.refresh(first.refreshToken, { address: '198.51.100.9' }).catch(() => undefined);
    const second = await sessions.verifyAccessToken((await sessions.login(ADMIN)).accessToken);
    await sessions.logout(second, from);
    await sessions.logout(second, from);
    expect(await events()).toEqual([
      { type: 'access.loggedIn', data: { session: me.sessionId }, actor: `user:${me.userId}`, address: from.address },
      { type: 'access.refreshReused', data: { session: me.sessionId }, actor: 'nobody', address: '198.51.100.9' },
      { type: 'access.loggedIn', data: { session: second.sessionId }, actor: me.actor, address: null },
      { type: 'access.loggedOut', data: { session: second.sessionId }, actor: me.actor, address: from.address },
    ]);
    const audited = await database.asOwner('select stream, action from audit_log order by position limit 1');
    expect(audited).toEqual([{ stream: `user-${me.userId}`, action: 'access.loggedIn' }]);
    const [{ correlation }] = (await database.asOwner(
      `select metadata ->> 'correlationId' as correlation from event_log order by position limit 1`,
    )) as [{ correlation: string }];
    expect(correlation).toBe(from.requestId);
  });

  test('cannot be changed by who looks up credentials', async () => {
    await aProcess().login(ADMIN);
    for (const sql of ['update event_log set type = $$x$$', 'delete from event_log', 'delete from event_streams']) {
      await expect(system.transaction((tx) => tx.query(sql))).rejects.toThrow(/permission denied/);
    }
  });

  test('is told of after the commit', async () => {
    const told: TenantId[] = [];
    const { logins } = openAccess(system, { secret: SECRET, onAppended: (tenant) => void told.push(tenant) });
    await logins.login(ADMIN);
    expect(told).toEqual([DEFAULT_TENANT_ID]);
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
        tenants: (await tx.query<{ slug: string }>('select slug from tenants order by id')).map((row) => row.slug),
        users: (await tx.repository(User).find()).map((user) => user.email),
        stranger: (await findUser(tx, stranger))?.email,
      }));
    // The default tenant is the operator's: its Admins manage the others, of which the row in the list is all that is seen.
    expect(await seen(DEFAULT_TENANT_ID)).toEqual({
      tenants: ['default', 'b'],
      users: [ADMIN.email],
      stranger: undefined,
    });
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
    ['read the secrets of sessions', 'select refresh_hash from sessions'],
    ['lengthen a session', 'update sessions set expires_at = now()'],
    ['move a user to another tenant', 'update users set tenant_id = tenant_id'],
    ['change whose address it is', `update users set email = 'eve@example.com'`],
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
