import { eventStoreMigrations } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { aConnection, aDatabase, aSeed, eventually, seeded, type TestDatabase } from '@atomo-cc/testing';
import { setLimit } from './limits.js';
import {
  consume,
  releaseExpired,
  reserve,
  type Reservation,
  settle,
  type Wanted,
  windowOf,
  withRoom,
} from './quota-ledger.js';
import { standingsOf } from './quotas.js';
import { accessEntities, accessMigrations } from './schema.js';
import { createTenant, setPlan, setSuspended } from './tenants.js';

const BY = { actor: 'operator:ada' };
const QUOTA = 'importedRecords';
jest.setTimeout(60_000);

let database: TestDatabase;
let system: SystemDatabase;
beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
});
afterAll(async () => {
  await system?.close();
  await database?.drop();
});

let made = 0;
async function aTenant(limit: number | 'none'): Promise<TenantId> {
  const { id } = await createTenant(system, { name: `tenant ${(made += 1)}` }, BY);
  await setLimit(system, id, `${QUOTA}=${limit}`, BY);
  return id;
}
const ask = (tenant: TenantId, amount: number, more: Partial<Wanted> = {}, now?: Date) =>
  reserve(database.app, tenant, { quota: QUOTA, key: uuidv7(), amount, ttlMs: 60_000, ...more }, now);
async function reserved(...args: Parameters<typeof ask>): Promise<Reservation> {
  const answer = await ask(...args);
  if ('refusal' in answer) throw new Error(JSON.stringify(answer.refusal));
  return answer.reservation;
}
const use = (reservation: Reservation, amount: number, key = uuidv7(), tenant = reservation.tenant) =>
  database.app.transaction(tenant, (tx) => consume(tx, reservation, amount, key));
async function standing(tenant: TenantId, now?: Date) {
  const { standings } = await database.app.transaction(tenant, (tx) => standingsOf(tx, tenant, now));
  const { used, reserved: held } = standings.find(({ quota }) => quota === QUOTA)!;
  return { used, reserved: held };
}
/** Those that nobody has locked: who changes many in any order may meet who releases many. */
const expire = (tenant: TenantId) =>
  database.asOwner(
    `update quota_reservations set expires_at = now() - interval '1 s'
     where id in (select id from quota_reservations where tenant_id = $1 order by id for update skip locked)`,
    [tenant],
  );
const releaseAll = () => system.transaction(releaseExpired);

test('what is reserved is set aside, what is consumed is used, and the rest is free again', async () => {
  const tenant = await aTenant(100);
  const reservation = await reserved(tenant, 60);
  expect(reservation.left).toBe(60);
  expect(await use(reservation, 25)).toBe(true);
  expect(await standing(tenant)).toEqual({ used: 25, reserved: 35 });
  await settle(database.app, reservation);
  await settle(database.app, reservation);
  expect(await standing(tenant)).toEqual({ used: 25, reserved: 0 });
});

test('what is beyond the limit is refused, with what is left and when it renews; less is given to who can use less', async () => {
  const tenant = await aTenant(100);
  const now = new Date('2026-12-31T23:59:59Z');
  await reserved(tenant, 70, {}, now);
  expect(await ask(tenant, 31, {}, now)).toEqual({
    refusal: { quota: QUOTA, limit: 100, used: 0, reserved: 70, left: 30, renewsAt: new Date('2027-01-01T00:00:00Z') },
  });
  expect(await reserved(tenant, 31, { least: 1 }, now)).toMatchObject({ left: 30 });
  expect(await ask(tenant, 5, { least: 1 }, now)).toMatchObject({ refusal: { left: 0 } });
  expect(await reserved(tenant, 100, {}, new Date('2027-01-01T00:00:00Z'))).toMatchObject({ left: 100 });
  expect(await standing(tenant, now)).toEqual({ used: 0, reserved: 100 });
});

test('under one key there is one reservation, which is filled up', async () => {
  const tenant = await aTenant(100);
  const first = await reserved(tenant, 40, { key: 'job' });
  expect(await reserved(tenant, 40, { key: 'job' })).toEqual(first);
  await use(first, 30);
  expect(await reserved(tenant, 50, { key: 'job' })).toEqual({ ...first, left: 50 });
  expect(await standing(tenant)).toEqual({ used: 30, reserved: 50 });
  expect(await reserved(tenant, 90, { key: 'job', least: 1 })).toEqual({ ...first, left: 70 });
  const together = await Promise.all(Array.from({ length: 8 }, () => ask(tenant, 1, { key: 'full' })));
  expect(together.every((answer) => 'refusal' in answer)).toBe(true);
  const other = await aTenant(100);
  const same = await Promise.all(Array.from({ length: 8 }, () => reserved(other, 40, { key: 'new' })));
  expect(new Set(same.map(({ id }) => id)).size).toBe(1);
  expect(await standing(other)).toEqual({ used: 0, reserved: 40 });
});

test('the reservation of a new key is locked before the balance, so that nobody who settles it can wait for who waits', async () => {
  const tenant = await aTenant(100);
  const { start } = windowOf(new Date());
  await reserved(tenant, 10);
  const [settler, another] = await Promise.all([aConnection(database), aConnection(database)]);
  try {
    await settler.query('begin');
    await settler.query('select 1 from quota_balances where tenant_id = $1 for update', [tenant]);
    const key = uuidv7();
    const waiting = ask(tenant, 20, { key });
    await eventually('it waits for the balance', async () => {
      const locks = await database.asOwner(
        `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return locks.length > 0;
    });
    await another.query(`set lock_timeout = '100ms'`);
    const sameKey = another.query(
      `insert into quota_reservations (id, tenant_id, quota, window_start, key, amount, ttl_ms, expires_at)
       values ($1, $2, $3, $4, $5, 0, 1, now())`,
      [uuidv7(), tenant, QUOTA, start, key],
    );
    await expect(sameKey).rejects.toMatchObject({ code: '55P03' });
    await settler.query('commit');
    expect(await waiting).toMatchObject({ reservation: { left: 20 } });
  } finally {
    await Promise.all([settler.end(), another.end()]);
  }
  expect(await standing(tenant)).toEqual({ used: 0, reserved: 30 });
});

test('a piece of work that is repeated counts once, and one that is rolled back not at all', async () => {
  const tenant = await aTenant(100);
  const reservation = await reserved(tenant, 50);
  const failed = database.app.transaction(tenant, async (tx) => {
    await consume(tx, reservation, 10, 'page 1');
    throw new Error('no');
  });
  await expect(failed).rejects.toThrow('no');
  expect(await Promise.all([1, 2, 3].map(() => use(reservation, 10, 'page 1')))).toEqual(
    expect.arrayContaining([true, false, false]),
  );
  await settle(database.app, reservation);
  expect(await use(await reserved(tenant, 50), 10, 'page 1')).toBe(false);
  expect((await standing(tenant)).used).toBe(10);
});

test('a reservation that expired or is another tenant’s counts nothing, and the work is rolled back with it', async () => {
  const [tenant, other] = [await aTenant(100), await aTenant(100)];
  const reservation = await reserved(tenant, 50);
  const lost = { code: 'QUOTA_RESERVATION_LOST' };
  await expect(use({ ...reservation, tenant: other }, 1)).rejects.toMatchObject(lost);
  await expect(use(reservation, 51)).rejects.toMatchObject(lost);
  await settle(database.app, { ...reservation, tenant: other });
  expect(await standing(tenant)).toEqual({ used: 0, reserved: 50 });
  await use(reservation, 20, 'a');
  await expire(tenant);
  // Nobody has needed it yet: who was only slow goes on.
  await use(reservation, 5, 'b');
  await expire(tenant);
  expect(await releaseAll()).toBe(1);
  await expect(use(reservation, 1)).rejects.toMatchObject(lost);
  expect(await standing(tenant)).toEqual({ used: 25, reserved: 0 });
  const [{ count }] = (await database.asOwner(
    'select count(*)::int as count from quota_receipts where tenant_id = $1',
    [tenant],
  )) as [{ count: number }];
  expect(count).toBe(2);
});

test('who finds the quota reserved takes what expired, without waiting for the reaper', async () => {
  const tenant = await aTenant(100);
  await use(await reserved(tenant, 80), 30);
  expect(await ask(tenant, 50)).toHaveProperty('refusal');
  await expire(tenant);
  expect(await reserved(tenant, 50)).toMatchObject({ left: 50 });
  expect(await standing(tenant)).toEqual({ used: 30, reserved: 50 });
});

test('a larger limit or plan holds at once, and a smaller one lets nothing new begin', async () => {
  const tenant = await aTenant(10);
  const reservation = await reserved(tenant, 10);
  await setLimit(system, tenant, `${QUOTA}=4`, BY);
  expect(await ask(tenant, 1, { least: 1 })).toMatchObject({ refusal: { limit: 4, left: 0 } });
  await use(reservation, 10);
  await setLimit(system, tenant, `${QUOTA}=plan`, BY);
  await setPlan(system, tenant, 'enterprise', BY);
  expect(await reserved(tenant, 10_000_000)).toMatchObject({ left: 10_000_000 });
});

test('work that waits learns where something is left', async () => {
  const [full, open, shut, boundless] = [await aTenant(5), await aTenant(6), await aTenant(6), await aTenant('none')];
  for (const tenant of [full, open, boundless]) await reserved(tenant, 5);
  await setSuspended(system, shut, true, BY);
  const asked = [full, open, shut, boundless, DEFAULT_TENANT_ID, uuidv7()].map((tenant) => ({ tenant, quota: QUOTA }));
  const free = async (now?: Date) =>
    (await system.transaction((tx) => withRoom(tx, asked, now))).map(({ tenant }) => tenant);
  expect((await free()).toSorted()).toEqual([open, boundless, DEFAULT_TENANT_ID].toSorted());
  expect(await free(windowOf(new Date()).end)).toContain(full);
  expect(await system.transaction((tx) => withRoom(tx, [{ tenant: open, quota: 'moonlight' }]))).toEqual([
    // Nothing limits it; what waits for it must not wait for ever.
    { tenant: open, quota: 'moonlight' },
  ]);
});

test.each<[string, Partial<Wanted>]>([
  ['a negative amount', { amount: -1 }],
  ['nothing', { amount: 0 }],
  ['half a record', { amount: 1.5 }],
  ['no number', { amount: NaN }],
  ['more than a number holds', { amount: 2 ** 53 }],
  ['an unknown quota', { quota: 'moonlight' as never }],
  ['a quota that is counted', { quota: 'users' as never }],
  ['a name that every object has', { quota: 'toString' as never }],
  ['no key', { key: '' }],
  ['a key without end', { key: 'k'.repeat(201) }],
  ['a least beyond the amount', { amount: 1, least: 2 }],
  ['no time', { ttlMs: 0 }],
])('%s is refused', async (_what, wrong) => {
  const tenant = await aTenant(100);
  await expect(ask(tenant, 1, wrong)).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
  const reservation = await reserved(tenant, 10);
  await expect(use(reservation, -1)).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
  await expect(use(reservation, 1, '')).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
  expect(await standing(tenant)).toEqual({ used: 0, reserved: 10 });
});

test('a tenant that is not there has no quota', async () => {
  await expect(ask(uuidv7() as TenantId, 1)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

test('never above the limit and nothing lost, whoever reserves at once and whichever backends are killed', async () => {
  const seed = aSeed('quota ledger');
  const random = seeded(seed);
  const limit = 400;
  const tenant = await aTenant(limit);
  const below = (bound: number) => Math.floor(random() * bound);
  let isOver = false;

  /** Looks at everything in one snapshot, all the time. */
  const faults: unknown[] = [];
  let looks = 0;
  const watcher = (async () => {
    while (!isOver) {
      const [row] = await database.asOwner<Record<string, string>>(
        `select b.used + b.reserved as taken, b.reserved, b.used + coalesce(r.consumed, 0) as used,
           coalesce(r.amount, 0) as held, (select coalesce(sum(amount), 0) from quota_receipts where tenant_id = $1) as receipts
         from quota_balances b, (select sum(amount) as amount, sum(consumed) as consumed from quota_reservations where tenant_id = $1) r
         where b.tenant_id = $1`,
        [tenant],
      );
      if (!row) continue;
      looks += 1;
      if (Number(row['taken']) > limit || row['reserved'] !== row['held'] || row['used'] !== row['receipts'])
        faults.push(row);
    }
  })();

  const worker = async (name: number) => {
    for (let step = 0; step < 40; step += 1) {
      try {
        const key = `worker ${random() < 0.7 ? name : below(3)}`;
        const answer = await ask(tenant, 1 + below(40), { key, least: 1 });
        if ('refusal' in answer) continue;
        const { reservation } = answer;
        for (let page = below(4); page > 0; page -= 1) {
          const piece = `${step} ${name} ${page}`;
          const amount = 1 + below(4);
          await use(reservation, amount, piece);
          if (random() < 0.3) await use(reservation, amount, piece);
        }
        // A quarter dies without a word, and another one is only slow.
        if (random() < 0.5) await settle(database.app, reservation);
      } catch {
        // Killed, or its reservation was taken away: what it did holds wholly or not at all, which the watcher sees.
      }
    }
  };
  const killer = (async () => {
    while (!isOver) {
      await database.asOwner(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'test atomo_app' and state <> 'idle' limit 1`,
      );
      if (random() < 0.5) await expire(tenant);
      if (random() < 0.5) await releaseAll().catch(() => undefined);
    }
  })();
  await Promise.all(Array.from({ length: 8 }, (_, name) => worker(name)));
  isOver = true;
  await Promise.all([watcher, killer]);
  expect({ seed, faults, looked: looks > 10 }).toEqual({ seed, faults: [], looked: true });

  await expire(tenant);
  while ((await releaseAll()) > 0);
  const { used, reserved: left } = await standing(tenant);
  const [{ sum }] = (await database.asOwner(
    'select coalesce(sum(amount), 0)::int as sum from quota_receipts where tenant_id = $1',
    [tenant],
  )) as [{ sum: number }];
  expect({ seed, used, left }).toEqual({ seed, used: sum, left: 0 });
  expect(used).toBeGreaterThan(0);
});
