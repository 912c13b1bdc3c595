import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import { openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { openRedis, type Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, type TestDatabase } from '@atomo-cc/testing';
import { type Access, openAccess } from './access.js';
import { addressBlock, LOGIN_LIMITS, REFRESH_LIMIT } from './brakes.js';
import type { Person } from './principal.js';
import { accessEntities, accessMigrations } from './schema.js';
import { newRefreshToken, writeRefreshToken } from './tokens.js';
import { ensureFirstAdmin } from './users.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };
const WRONG = { ...ADMIN, password: 'wrong' };
const LIMITED = { code: 'RATE_LIMITED', details: { retryAfterSeconds: expect.any(Number) } };
const UNAUTHENTICATED = { code: 'UNAUTHENTICATED' };

// Some hash a hundred passwords, at up to 100 ms each on a busy machine.
jest.setTimeout(60_000);

let database: TestDatabase;
let system: SystemDatabase;
let redis: Redis;
const opened: Access[] = [];

function aProcess(store: Redis | undefined = redis): Access {
  const access = openAccess(system, {
    secret: 'a secret of this test',
    ...(store && { redis: store }),
    onError: (error) => {
      throw error;
    },
  });
  opened.push(access);
  return access;
}

/** Answers how many there were of each code. */
async function outcomes(tries: readonly Promise<unknown>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const outcome of await Promise.allSettled(tries)) {
    const code = outcome.status === 'fulfilled' ? 'OK' : String((outcome.reason as { code?: string }).code);
    counts[code] = (counts[code] ?? 0) + 1;
  }
  return counts;
}

const times = (count: number) => Array.from({ length: count }, (_, n) => n);
const events = () =>
  database.asOwner<{ stream: string; type: string; data: Record<string, unknown>; actor: string; address: string }>(
    `select stream, type, data, metadata ->> 'actor' as actor, metadata ->> 'address' as address
     from event_log where type <> 'access.loggedIn' order by position`,
  );

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  redis = await aRedis('command');
});

beforeEach(async () => {
  await redis.flushdb();
  await database.asOwner('truncate users, sessions, event_log, event_streams, audit_log');
  await ensureFirstAdmin(system, ADMIN);
});

afterEach(async () => {
  for (const access of opened.splice(0)) await access.close();
});

afterAll(async () => {
  redis?.disconnect();
  await system?.close();
  await database?.drop();
});

describe('the brake on wrong passwords', () => {
  test('lets 10 of 10,000 be tried, in two processes at once, and the log has a handful of events', async () => {
    const [one, two] = [aProcess(), aProcess()];
    setFlagsFromString('--expose-gc');
    const heldBytes = () => {
      (runInNewContext('gc') as () => void)();
      return process.memoryUsage().heapUsed;
    };
    const before = heldBytes();
    const began = performance.now();
    let counts: Record<string, number> = {};
    for (const round of times(10)) {
      const tries = times(1_000).map((n) =>
        ((n + round) % 2 ? one : two).logins.login(WRONG, { address: '192.0.2.1' }),
      );
      for (const [code, count] of Object.entries(await outcomes(tries)))
        counts = { ...counts, [code]: (counts[code] ?? 0) + count };
    }
    expect(counts).toEqual({ UNAUTHENTICATED: LOGIN_LIMITS.pair.tries, RATE_LIMITED: 9_990 });
    // At 25 ms a hash on a core, 10,000 of them would take minutes.
    expect(performance.now() - began).toBeLessThan(30_000);
    expect(heldBytes() - before).toBeLessThan(100 * 1024 * 1024);
    await Promise.all([one.close(), two.close()]);
    const told = await events();
    expect(told.length).toBeLessThanOrEqual(8);
    const count = (reason: string) =>
      told
        .filter(({ data }) => data['reason'] === reason)
        .reduce((sum, { data }) => sum + (data['count'] as number), 0);
    expect([count('wrong'), count('limited')]).toEqual([10, 9_990]);
    expect(told[0]).toMatchObject({ type: 'access.loginRefused', actor: 'nobody', address: '192.0.2.1' });
    expect(told.every(({ stream }) => stream.startsWith('user-'))).toBe(true);
  });

  test('answers for an account that does not exist as for one that does', async () => {
    const { logins } = aProcess();
    const answers = async (email: string, address: string) => {
      const all: unknown[][] = [];
      for (const _ of times(12)) {
        const error: unknown = await logins
          .login({ ...WRONG, email }, { address })
          .catch((refusal: unknown) => refusal);
        const { code, message, details } = error as { code: string; message: string; details?: object };
        all.push([code, message.replace(/\d+/, 'n'), Object.keys(details ?? {})]);
      }
      return all;
    };
    const [known, unknown] = await Promise.all([
      answers(ADMIN.email, '192.0.2.1'),
      answers('nobody@example.com', '192.0.2.2'),
    ]);
    expect(unknown).toEqual(known);
    expect(known.map(([code]) => code)).toEqual([
      ...times(10).map(() => 'UNAUTHENTICATED'),
      'RATE_LIMITED',
      'RATE_LIMITED',
    ]);
  });

  test('a wrong login takes as long for an account that does not exist', async () => {
    const { logins } = aProcess();
    const time = async (email: string) => {
      const began = performance.now();
      await logins.login({ ...WRONG, email }, { address: '192.0.2.1' }).catch(() => undefined);
      return performance.now() - began;
    };
    expect(Math.min(await time(ADMIN.email), await time('nobody@example.com'))).toBeGreaterThanOrEqual(250);
  });

  test('a right password after nine wrong ones is let in, and buys no further tries', async () => {
    const { logins } = aProcess();
    const from = { address: '192.0.2.1' };
    expect(await outcomes(times(9).map(() => logins.login(WRONG, from)))).toEqual({ UNAUTHENTICATED: 9 });
    await logins.login(ADMIN, from);
    await logins.login(ADMIN, from);
    expect(await outcomes(times(3).map(() => logins.login(WRONG, from)))).toEqual({
      UNAUTHENTICATED: 1,
      RATE_LIMITED: 2,
    });
    await expect(logins.login(ADMIN, from)).rejects.toMatchObject(LIMITED);
    await logins.login(ADMIN, { address: '192.0.2.2' });
  });

  test('many addresses cannot keep the owner out of a place where they have been', async () => {
    const { logins } = aProcess();
    await logins.login(ADMIN, { address: '2001:db8:1:2::7' });
    const { tries } = LOGIN_LIMITS.account;
    for (const round of times(2)) {
      await outcomes(times(tries / 2).map((n) => logins.login(WRONG, { address: `198.51.100.${round * 25 + n}` })));
    }
    await expect(logins.login(ADMIN, { address: '203.0.113.1' })).rejects.toMatchObject(LIMITED);
    await expect(logins.login(ADMIN)).rejects.toMatchObject(LIMITED);
    await logins.login(ADMIN, { address: '2001:db8:1:2::8' });
    // The attacker's own place is no usual one, whatever account there is.
    await expect(logins.login({ ...WRONG, email: 'eve@example.com' })).rejects.toMatchObject(UNAUTHENTICATED);
  });

  test('one address cannot go through a list of accounts', async () => {
    const { logins } = aProcess();
    const { tries } = LOGIN_LIMITS.address;
    const counts: Record<string, number> = {};
    for (const round of times(5)) {
      const some = times(25).map((n) =>
        logins.login({ ...WRONG, email: `u${round}-${n}@example.com` }, { address: '192.0.2.1' }),
      );
      for (const [code, count] of Object.entries(await outcomes(some))) counts[code] = (counts[code] ?? 0) + count;
    }
    expect(counts).toEqual({ UNAUTHENTICATED: tries, RATE_LIMITED: 25 });
    await logins.login(ADMIN, { address: '192.0.2.2' });
  });

  test('holds in this process while Redis is away', async () => {
    const away = openRedis('redis://127.0.0.1:1', 'command', () => undefined);
    try {
      const { logins } = aProcess(away);
      const counts = await outcomes(times(200).map(() => logins.login(WRONG, { address: '192.0.2.1' })));
      expect(counts).toEqual({ UNAUTHENTICATED: 10, RATE_LIMITED: 190 });
      await logins.login(ADMIN, { address: '192.0.2.2' });
    } finally {
      away.disconnect();
    }
  });

  test('Redis holds no e-mail and no network address', async () => {
    await outcomes([aProcess().logins.login(WRONG, { address: '192.0.2.1' })]);
    const keys = await redis.keys('*');
    expect(keys).toHaveLength(3);
    expect(keys.join()).not.toMatch(/ada|192/);
    for (const key of keys) expect(await redis.ttl(key)).toBeGreaterThan(0);
  });

  test('holds for the current password when another one is chosen', async () => {
    const { logins, sessions } = aProcess();
    const { accessToken } = await logins.login(ADMIN);
    const me = (await sessions.verifyAccessToken(accessToken)) as Person;
    const guess = () => logins.changePassword(me, { currentPassword: 'wrong', newPassword: 'another passphrase' });
    expect(await outcomes(times(20).map(guess))).toEqual({ VALIDATION_ERROR: 10, RATE_LIMITED: 10 });
  });

  test('no more passwords are checked at a time than the process can do in about a second', async () => {
    const { logins } = aProcess();
    const tries = times(90).map((n) =>
      logins.login({ ...WRONG, email: `u${n}@example.com` }, { address: `10.0.0.${n}` }),
    );
    const counts = await outcomes(tries);
    expect(counts['UNAUTHENTICATED']).toBeGreaterThanOrEqual(64);
    expect(counts['RATE_LIMITED']).toBeGreaterThan(0);
  });
});

describe('what the log is told of refusals', () => {
  test('the first at once, the rest as one, and an account that is not there without its address', async () => {
    const { logins, refusals } = aProcess();
    const guess = (address: string) => logins.login({ ...WRONG, email: 'Nobody@example.com' }, { address });
    await guess('192.0.2.1').catch(() => undefined);
    await refusals.flush();
    await outcomes([guess('192.0.2.1'), guess('192.0.2.2'), guess('192.0.2.2')]);
    await refusals.flush();
    const stream = `tenant-${DEFAULT_TENANT_ID}`;
    const type = 'access.loginRefused';
    expect(await events()).toEqual([
      { stream, type, actor: 'nobody', address: '192.0.2.1', data: { reason: 'wrong', count: 1, addresses: 1 } },
      { stream, type, actor: 'nobody', address: expect.any(String), data: { reason: 'wrong', count: 3, addresses: 2 } },
    ]);
    expect(JSON.stringify(await database.asOwner('select * from event_log'))).not.toMatch(/nobody@/i);
  });

  test('of forbidden requests by whom and what for', async () => {
    const { logins, sessions, refusals } = aProcess();
    const me = await sessions.verifyAccessToken((await logins.login(ADMIN)).accessToken);
    for (const _ of times(3)) refusals.denied(me, 'mutation deleteContact', { address: '192.0.2.1', requestId: 'r' });
    await refusals.flush();
    const [stream, type, actor] = [me.actor.replace(':', '-'), 'access.denied', me.actor];
    const told = await events();
    expect(told.every((event) => event.stream === stream && event.type === type && event.actor === actor)).toBe(true);
    expect(told.reduce((sum, { data }) => sum + (data['count'] as number), 0)).toBe(3);
    expect(told[0]!.data).toMatchObject({ operation: 'mutation deleteContact', addresses: 1 });
  });

  test('of 256 accounts each, and of those beyond as one', async () => {
    const { refusals } = aProcess();
    for (const n of times(600)) refusals.loginRefused(`u${n}@example.com`, 'limited', { address: `a${n}` });
    await refusals.flush();
    const told = await events();
    expect(told.length).toBeLessThanOrEqual(258);
    expect(told.reduce((sum, { data }) => sum + (data['count'] as number), 0)).toBe(600);
    expect(told.at(-1)!.data).toMatchObject({ reason: 'others' });
  });

  test('a right password of somebody who is shut out is told as that, and answered as a wrong one', async () => {
    const { logins, refusals } = aProcess();
    await database.asOwner('update users set disabled_at = now()');
    const began = performance.now();
    const shut: unknown = await logins.login(ADMIN).catch((error: unknown) => error);
    expect(performance.now() - began).toBeGreaterThanOrEqual(250);
    expect(shut).toEqual(await logins.login(WRONG).catch((error: unknown) => error));
    await refusals.flush();
    expect((await events()).map(({ data }) => data['reason'])).toEqual(['shut', 'wrong']);
  });

  test('nothing is told of a tenant that is being deleted: its log would begin anew', async () => {
    const { logins, sessions, refusals } = aProcess();
    const { accessToken } = await logins.login(ADMIN);
    const me = await sessions.verifyAccessToken(accessToken);
    const [deleted, gone] = ['c', 'd'].map((end) => `00000000-0000-7000-8000-00000000000${end}` as TenantId);
    await database.asOwner(
      `insert into tenants (id, name, slug, suspended_at, deleting_at) values ($1, 'C', 'c', now(), now())`,
      [deleted],
    );
    await database.asOwner(
      `insert into users (id, tenant_id, email, name, password_hash, role)
       values (gen_random_uuid(), $1, 'gone@example.com', 'Gone', '!', 'Admin')`,
      [deleted],
    );
    for (const tenantId of [deleted!, gone!]) refusals.denied({ ...me, tenantId }, 'look', {});
    refusals.loginRefused('gone@example.com', 'limited', {});
    await refusals.flush();
    expect(await events()).toMatchObject([{ stream: `tenant-${DEFAULT_TENANT_ID}` }]);
    const tenants = await database.asOwner('select distinct tenant_id from event_log');
    expect(tenants).toEqual([{ tenant_id: DEFAULT_TENANT_ID }]);
  });

  test('is kept until the database takes it', async () => {
    const errors: unknown[] = [];
    const { refusals } = openAccess(system, { secret: 'x', onError: (error) => void errors.push(error) });
    await database.asOwner('alter table event_streams rename to gone');
    refusals.loginRefused('nobody@example.com', 'wrong', { address: '192.0.2.1' });
    await refusals.flush();
    expect(errors.length).toBeGreaterThan(0);
    await database.asOwner('alter table gone rename to event_streams');
    await refusals.close();
    expect(await events()).toMatchObject([{ data: { count: 1, addresses: 1 } }]);
  });
});

describe('the brake on wrong refresh tokens', () => {
  const wrong = () => writeRefreshToken(newRefreshToken());

  const away = openRedis('redis://127.0.0.1:1', 'command', () => undefined);
  afterAll(() => away.disconnect());

  test.each(['by all processes together', 'by each process while Redis is away'])(
    'holds one address back after 1,000, and tells the log: counted %s',
    async (counted) => {
      const isShared = counted === 'by all processes together';
      const one = aProcess(isShared ? redis : away);
      const two = isShared ? aProcess() : one;
      const office = { address: '192.0.2.1' };
      const { refreshToken } = await one.logins.login(ADMIN, office);
      const tries = times(REFRESH_LIMIT.tries).map((n) => (n % 2 ? one : two).sessions.refresh(wrong(), office));
      expect(await outcomes(tries)).toEqual({ UNAUTHENTICATED: REFRESH_LIMIT.tries });
      for (const { sessions } of [one, two]) {
        await expect(sessions.refresh(wrong(), office)).rejects.toMatchObject(LIMITED);
      }
      // What cannot be a token costs nothing, elsewhere nobody has to wait, and what was held back is good afterwards.
      await expect(one.sessions.refresh('no token', office)).rejects.toMatchObject(UNAUTHENTICATED);
      const { sessions } = one;
      expect(await sessions.refresh(refreshToken, { address: '192.0.2.2' })).toMatchObject({
        user: { email: ADMIN.email },
      });
      await Promise.all([one.refusals.flush(), two.refusals.flush()]);
      const told = (await events()).filter(({ type }) => type === 'access.denied');
      expect(told.every(({ data }) => data['operation'] === 'POST /auth/refresh')).toBe(true);
      expect(told.reduce((sum, { data }) => sum + (data['count'] as number), 0)).toBe(2);
    },
  );

  test('never counts right ones', async () => {
    const { logins, sessions } = aProcess();
    const office = { address: '192.0.2.1' };
    let { refreshToken } = await logins.login(ADMIN, office);
    const counted = await redis.keys('atomo:login:*');
    for (const _ of times(20)) ({ refreshToken } = await sessions.refresh(refreshToken, office));
    expect(await redis.keys('atomo:login:*')).toEqual(counted);
  });
});

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
  ['2001:0db8:0001:0002::9', '2001:db8:1:2'],
  ['2001:db8::9', '2001:db8:0:0'],
  ['::1', '0:0:0:0'],
  ['fe80::1%eth0', 'fe80:0:0:0'],
  [undefined, 'unknown'],
])('%s counts as %s', (address, block) => {
  expect(addressBlock(address)).toBe(block);
});
