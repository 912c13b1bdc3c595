import { eventStoreMigrations } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import { openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import type { Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, type TestDatabase } from '@atomo-cc/testing';
import { setLimit } from './limits.js';
import { RequestRates } from './request-rates.js';
import { accessEntities, accessMigrations } from './schema.js';
import { createTenant, setPlan } from './tenants.js';

const BY = { actor: 'operator:ada' };
let database: TestDatabase;
let system: SystemDatabase;
let redis: Redis;
let now = Date.now();
const clock = { now: () => now };
beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
});
beforeEach(async () => {
  redis = await aRedis('command');
});
afterEach(() => {
  jest.restoreAllMocks();
  redis.disconnect();
});
afterAll(async () => {
  await system?.close();
  await database?.drop();
});

let made = 0;
async function aTenant(limit: number): Promise<TenantId> {
  const { id } = await createTenant(system, { name: `tenant ${(made += 1)}` }, BY);
  await setLimit(system, id, `requestsPerMinute=${limit}`, BY);
  return id;
}
/** What becomes of a request: its error, or that it is let through. */
const ask = async (rates: RequestRates, tenant: TenantId) => {
  try {
    await rates.take(tenant);
    return 'in' as const;
  } catch (error) {
    return error as { code: string; details: { retryAfterSeconds: number } };
  }
};
const askAll = async (processes: readonly RequestRates[], tenant: TenantId, times: number) => {
  const answers = await Promise.all(
    Array.from({ length: times }, (_, n) => ask(processes[n % processes.length]!, tenant)),
  );
  return answers.filter((answer) => answer === 'in').length;
};
const aProcess = (own: Redis | undefined = redis) => new RequestRates(system, { clock, ...(own && { redis: own }) });

test.each([1, 7, 60, 301])('of many at once over three processes %i come through, and no more', async (limit) => {
  const tenant = await aTenant(limit);
  const processes = [aProcess(), aProcess(), aProcess()];
  // Each process is asked for more than all there is: it needs whatever it has taken.
  expect(await askAll(processes, tenant, 3 * (limit + 1))).toBe(limit);
  for (const each of processes) {
    expect(await ask(each, tenant)).toMatchObject({
      code: 'RATE_LIMITED',
      details: { quota: 'requestsPerMinute', limit, retryAfterSeconds: expect.any(Number) },
    });
  }
  const { details } = (await ask(processes[0]!, tenant)) as { details: { retryAfterSeconds: number } };
  expect(details.retryAfterSeconds).toBeGreaterThan(50);
  expect(details.retryAfterSeconds).toBeLessThanOrEqual(60);
  // One tenant's use is nothing to another.
  expect(await ask(processes[0]!, await aTenant(1))).toBe('in');
});

test('19 of 20 requests cost no round trip, nor do those that are refused', async () => {
  const tenant = await aTenant(400);
  const rates = aProcess();
  const sent = jest.spyOn(redis, 'sendCommand');
  for (let n = 0; n < 400; n += 1) expect(await ask(rates, tenant)).toBe('in');
  const trips = sent.mock.calls.length;
  expect(trips).toBeLessThanOrEqual(21);
  expect(await ask(rates, tenant)).toMatchObject({ code: 'RATE_LIMITED' });
  const known = sent.mock.calls.length;
  for (let n = 0; n < 100; n += 1)
    expect(() => rates.take(tenant)).toThrow(expect.objectContaining({ code: 'RATE_LIMITED' }));
  expect(sent.mock.calls.length).toBe(known);
});

test('another plan or limit holds within 5 s, and what was used stays used', async () => {
  const tenant = await aTenant(10);
  const rates = aProcess();
  expect(await askAll([rates], tenant, 20)).toBe(10);
  await setLimit(system, tenant, 'requestsPerMinute=25', BY);
  now += 5_000;
  const more = await askAll([rates], tenant, 40);
  // The request that was refused was counted as well.
  expect(more).toBeGreaterThanOrEqual(10);
  expect(more).toBeLessThanOrEqual(15);
  await setLimit(system, tenant, 'requestsPerMinute=plan', BY);
  await setPlan(system, tenant, 'enterprise', BY);
  now += 5_000;
  expect(await askAll([rates], tenant, 1_000)).toBe(1_000);
  await setLimit(system, tenant, 'requestsPerMinute=1', BY);
  now += 5_000;
  expect(await askAll([rates], tenant, 10)).toBe(0);
});

test('after a minute all of it is there again', async () => {
  const tenant = await aTenant(10);
  const rates = aProcess();
  expect(await askAll([rates], tenant, 20)).toBe(10);
  now += 60_001;
  await redis.flushdb(); // Redis has a clock of its own, which the test does not wait for.
  expect(await askAll([rates], tenant, 20)).toBe(10);
});

test('while Redis is away each process counts for itself, and nobody waits', async () => {
  const tenant = await aTenant(50);
  const dead = await aRedis('command');
  dead.disconnect();
  expect(await askAll([aProcess(dead), aProcess(dead)], tenant, 300)).toBe(100);

  const other = await aTenant(50);
  const silent = await aRedis('command');
  jest.spyOn(silent, 'sendCommand').mockImplementation(() => new Promise(() => undefined));
  const began = performance.now();
  const rates = aProcess(silent);
  expect(await askAll([rates], other, 300)).toBe(50);
  // Each of the 25 leases would wait for a quarter of a second.
  expect(performance.now() - began).toBeLessThan(4_000);
  silent.disconnect();
  expect(await askAll([aProcess(undefined)], tenant, 60)).toBe(50);
});

test('a process that was busy for longer than it waits for Redis still counts together with the others', async () => {
  const tenant = await aTenant(2);
  const busy = aProcess();
  expect(await ask(busy, tenant)).toBe('in');
  const asked = ask(busy, tenant);
  const until = performance.now() + 400;
  while (performance.now() < until);
  expect(await asked).toBe('in');
  expect(await ask(busy, tenant)).toMatchObject({ code: 'RATE_LIMITED' });
});

test('a database that is away changes nothing: what was known goes on to hold', async () => {
  const tenant = await aTenant(10);
  const rates = aProcess();
  expect(await ask(rates, tenant)).toBe('in');
  jest.spyOn(system, 'transaction').mockRejectedValue(new Error('away'));
  now += 5_000;
  expect(await askAll([rates], tenant, 20)).toBe(9);
  expect(await ask(aProcess(), tenant)).toBe('in');
});

test('the default tenant, and one that is not there, have no limit', async () => {
  const rates = aProcess();
  expect(await askAll([rates], DEFAULT_TENANT_ID, 2_000)).toBe(2_000);
  expect(rates.take(DEFAULT_TENANT_ID)).toBeUndefined();
});
