import { getEventListeners } from 'node:events';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { NewEvent, RecordedEvent } from '@atomo-cc/events';
import { openAppDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import { openRedis, type Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, aSeed, eventually, seeded, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { Fence } from './fence.js';
import { eventStoreMigrations } from './schema.js';
import {
  announceAppended,
  AppendHints,
  appendedChannel,
  subscribe,
  SUBSCRIPTION_POLL_MS,
  type SubscribeOptions,
} from './subscription.js';

const METADATA = { actor: 'system:torture', correlationId: 'c', causationId: 'd' };
const WRITERS = 4;
const ROUNDS = 40;

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

/** One of several processes: with a pool, a fence and a Redis connection of its own. */
interface Instance {
  readonly database: AppDatabase;
  readonly fence: Fence;
  readonly redis: Redis;
  readonly hints: AppendHints;
}

let database: TestDatabase;
let redis: Redis;
let instances: Instance[];

async function anInstance(): Promise<Instance> {
  const own = await aRedis();
  const opened = await openAppDatabase({ url: database.url, service: 'instance', poolSize: 4 });
  return { database: opened, fence: new Fence(), redis: own, hints: new AppendHints(own) };
}

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: WRITERS + 2 });
  redis = await aRedis('command');
  instances = [await anInstance(), await anInstance()];
});

afterEach(() => jest.restoreAllMocks());

afterAll(async () => {
  for (const instance of instances ?? []) {
    instance.redis.disconnect();
    await instance.database.close();
  }
  redis?.disconnect();
  await database?.drop();
});

const aTenant = () => uuidv7() as TenantId;
const event = (type = 'Thing.changed'): NewEvent => ({ type, schemaVersion: 1, data: {} });

async function appendTo(tenant: TenantId, stream: string, events: readonly NewEvent[] = [event()]) {
  const result = await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [{ stream, expected: 'any', events, metadata: METADATA }]),
  );
  if (!result.ok) throw new Error('conflict');
  return result.events.map(({ position }) => position);
}

/** Appends and stays open until it is told to roll back. */
async function anOpenAppend(tenant: TenantId) {
  const appended = Promise.withResolvers<void>();
  const told = Promise.withResolvers<void>();
  const over = database.app
    .transaction(tenant, async (tx) => {
      await append(tx, tenant, [{ stream: 'Thing-open', expected: 'any', events: [event()], metadata: METADATA }]);
      appended.resolve();
      await told.promise;
      throw new Error('rolled back');
    })
    .catch((error: unknown) => expect(error).toMatchObject({ message: 'rolled back' }));
  await appended.promise;
  return { rollBack: () => (told.resolve(), over) };
}

const positionsOf = (events: readonly RecordedEvent[]) => events.map(({ position }) => position);

/** Subscribes on an instance, and takes pages into `seen` until it is stopped. */
function follow(instance: Instance, tenant: TenantId, more: Partial<SubscribeOptions> = {}) {
  const aborter = new AbortController();
  const { database: own, fence, hints } = instance;
  const pages = subscribe({ database: own, fence, hints, tenant, after: 0n, signal: aborter.signal, ...more });
  const seen: RecordedEvent[] = [];
  const over = (async () => {
    for await (const page of pages) {
      expect(page.length).toBeGreaterThan(0);
      seen.push(...page);
    }
  })();
  return { seen, after: more.after ?? 0n, signal: aborter.signal, stop: () => (aborter.abort(), over) };
}

/** How many connections listen for the tenant's hints. */
async function listeners(tenant: TenantId): Promise<number> {
  const [, count] = (await redis.pubsub('NUMSUB', appendedChannel(tenant))) as [string, number];
  return count;
}

const listenedTo = (tenant: TenantId, count: number) =>
  eventually(`${count} connections listen`, async () => (await listeners(tenant)) === count);

describe('subscribe, while several write and roll back', () => {
  /** Appends to one or two streams, with pauses before the position is drawn and before the end; some roll back. */
  async function write(tenant: TenantId, random: () => number, announce: (drawn: number) => void): Promise<void> {
    for (let round = 0; round < ROUNDS; round += 1) {
      const streams = new Set([random(), random()].map((drawn) => `Thing-${Math.floor(drawn * 5)}`));
      const [before, after, fate] = [random() * 0.006, random() * 0.012, random()];
      const events = Array.from({ length: 1 + Math.floor(random() * 3) }, () => event());
      const committed = await database.app
        .transaction(tenant, async (tx) => {
          await tx.query('select pg_sleep($1)', [before]);
          await append(
            tx,
            tenant,
            [...streams].map((stream) => ({ stream, expected: 'any' as const, events, metadata: METADATA })),
          );
          await tx.query('select pg_sleep($1)', [after]);
          if (fate < 0.2) throw new Error('rolled back');
          return true;
        })
        .catch((error: unknown) => {
          if ((error as Error).message !== 'rolled back') throw error;
        });
      if (committed) announce(random());
    }
  }

  it.each([
    ['with every hint', { hinted: 1, isCut: false }],
    ['with most hints lost', { hinted: 0.2, isCut: false }],
    ['with Redis connections that break', { hinted: 1, isCut: true }],
    ['without any hint', { hinted: 0, isCut: false }],
  ])('nothing is lost, doubled or out of order: %s', async (name, { hinted, isCut }) => {
    const seed = aSeed(`subscriptions ${name}`);
    const tenant = aTenant();
    const others = isCut ? [await anInstance(), await anInstance()] : instances;
    // Asked for before they subscribe: from then on they take no other command. They come back by themselves.
    const ids = isCut ? await Promise.all(others.map(({ redis: own }) => own.client('ID'))) : [];
    let cuts: Promise<unknown[]> | undefined;
    const [one, two] = others as [Instance, Instance];
    const few = { pageSize: 7 };
    const readers = [follow(one, tenant), follow(two, tenant, few), follow(two, tenant, few)];

    let announced = 0;
    const announce = (drawn: number) => {
      announced += 1;
      if (drawn < hinted) announceAppended(redis, tenant);
      if (announced === 30) cuts = Promise.all(ids.map((id) => redis.call('CLIENT', 'KILL', 'ID', String(id))));
    };
    const writing = Promise.all(
      // A writer of another tenant holds up the mark and gives none of the tenant's hints.
      [...Array<TenantId>(WRITERS - 1).fill(tenant), aTenant()].map((own, writer) =>
        write(own, seeded(seed + writer), own === tenant ? announce : () => undefined),
      ),
    );
    await eventually('events were seen while more are written', () => readers[1]!.seen.length > 20);
    readers.push(follow(one, tenant, few), follow(two, tenant, { after: readers[1]!.seen.at(-1)!.position }));
    await writing;
    expect(await cuts).toEqual(ids.map(() => 1));
    readers.push(follow(one, tenant), follow(two, tenant, { after: readers[1]!.seen.at(-1)!.position }));
    const [last] = await appendTo(tenant, 'Thing-last');

    const committed = await database.asOwner<{ position: string }>(
      'select position from event_log where tenant_id = $1 order by position',
      [tenant],
    );
    expect(committed.length).toBeGreaterThan(150);
    for (const reader of readers) {
      await eventually('the last event is seen', () => reader.seen.at(-1)?.position === last);
      await reader.stop();
      expect(positionsOf(reader.seen)).toEqual(
        committed.map(({ position }) => BigInt(position)).filter((position) => position > reader.after),
      );
      expect(getEventListeners(reader.signal, 'abort')).toEqual([]);
    }
    if (isCut) {
      for (const { redis: own, database: pool } of others) {
        own.disconnect();
        await pool.close();
      }
    }
    await listenedTo(tenant, 0);
  });

  it('the poll serves while Redis cannot be reached', async () => {
    const tenant = aTenant();
    const away = openRedis('redis://127.0.0.1:1', 'blocking', () => undefined);
    const { database: own, fence } = instances[0]!;
    const reader = follow(instances[0]!, tenant, { hints: new AppendHints(away), database: own, fence });
    try {
      announceAppended(away, tenant);
      const positions = [...(await appendTo(tenant, 'Thing-1')), ...(await appendTo(tenant, 'Thing-1'))];
      await eventually('both are seen', () => reader.seen.length === 2);
      await reader.stop();
      expect(positionsOf(reader.seen)).toEqual(positions);
    } finally {
      away.disconnect();
    }
  });
});

describe('a subscription', () => {
  it('is woken by a hint, long before the poll', async () => {
    const tenant = aTenant();
    const reader = follow(instances[1]!, tenant);
    await listenedTo(tenant, 1);
    const begun = performance.now();
    for (let n = 1; n <= 8; n += 1) {
      await appendTo(tenant, 'Thing-1');
      announceAppended(redis, tenant);
      await eventually('it is seen', () => reader.seen.length === n);
    }
    await reader.stop();
    // By the poll alone each event but the first would take a whole poll.
    expect(performance.now() - begun).toBeLessThan(4 * SUBSCRIPTION_POLL_MS);
  });

  it('sees what an append of another tenant held up soon after it ended without a hint', async () => {
    const tenant = aTenant();
    const fence = new Fence();
    const looks = jest.spyOn(fence, 'advance');
    const reader = follow(instances[0]!, tenant, { fence });
    await listenedTo(tenant, 1);
    let waited = 0;
    for (let n = 1; n <= 5; n += 1) {
      const open = await anOpenAppend(aTenant());
      await appendTo(tenant, 'Thing-1');
      announceAppended(redis, tenant);
      const before = looks.mock.calls.length;
      await eventually('it looks again and again', () => looks.mock.calls.length >= before + 3);
      expect(reader.seen).toHaveLength(n - 1);
      const begun = performance.now();
      await open.rollBack();
      await eventually('it is seen', () => reader.seen.length === n);
      waited += performance.now() - begun;
    }
    await reader.stop();
    expect(waited).toBeLessThan(2.5 * SUBSCRIPTION_POLL_MS);
  });

  it('reads a page only when it is asked for', async () => {
    const tenant = aTenant();
    const positions = await appendTo(
      tenant,
      'Thing-1',
      Array.from({ length: 30 }, () => event()),
    );
    const { database: own, fence, hints } = instances[0]!;
    const transactions = jest.spyOn(own, 'transaction');
    const pages = subscribe({ database: own, fence, hints, tenant, after: 0n, pageSize: 10 });
    expect(transactions).toHaveBeenCalledTimes(0);
    expect(positionsOf((await pages.next()).value!)).toEqual(positions.slice(0, 10));
    for (let n = 0; n < 5; n += 1) announceAppended(redis, tenant);
    await listenedTo(tenant, 1);
    expect(transactions).toHaveBeenCalledTimes(1);
    expect(positionsOf((await pages.next()).value!)).toEqual(positions.slice(10, 20));
    expect(transactions).toHaveBeenCalledTimes(2);
    await pages.return();
    await listenedTo(tenant, 0);
  });

  it('gives what is selected alone, of its tenant alone', async () => {
    const tenant = aTenant();
    const reader = follow(instances[0]!, tenant, { types: ['Thing.rare'], streamPrefix: 'Thing-', pageSize: 2 });
    const system = follow(instances[0]!, tenant, { database: database.system, streamPrefix: 'Other-' });
    await appendTo(aTenant(), 'Thing-1', [event('Thing.rare')]);
    const [other] = await appendTo(tenant, 'Other-1', [event('Thing.rare')]);
    const [, rare, , another] = await appendTo(tenant, 'Thing-1', [
      event(),
      event('Thing.rare'),
      event(),
      event('Thing.rare'),
    ]);
    await eventually('both are seen', () => reader.seen.length >= 2 && system.seen.length >= 1);
    await Promise.all([reader.stop(), system.stop()]);
    expect(positionsOf(reader.seen)).toEqual([rare, another]);
    expect(positionsOf(system.seen)).toEqual([other]);
  });

  it('ends at once by its signal or by return while it waits, and leaves nothing behind', async () => {
    const tenant = aTenant();
    const { database: own, fence, hints } = instances[0]!;
    const aborter = new AbortController();
    const options = { database: own, fence, hints, tenant, after: 0n };
    const aborted = subscribe({ ...options, signal: aborter.signal });
    const returned = subscribe(options);
    const looks = jest.spyOn(fence, 'advance');
    const nexts = [aborted.next(), returned.next()];
    await eventually('both have looked', () => looks.mock.calls.length >= 2);
    await listenedTo(tenant, 1);
    expect(getEventListeners(aborter.signal, 'abort')).toHaveLength(1);

    aborter.abort();
    expect(await nexts[0]).toEqual({ done: true, value: undefined });
    expect(getEventListeners(aborter.signal, 'abort')).toEqual([]);
    // The other one still listens over the same connection.
    await appendTo(tenant, 'Thing-1');
    announceAppended(redis, tenant);
    expect((await nexts[1])?.value).toHaveLength(1);
    expect(await listeners(tenant)).toBe(1);

    const waiting = returned.next();
    expect(await returned.return()).toEqual({ done: true, value: undefined });
    expect(await waiting).toEqual({ done: true, value: undefined });
    await listenedTo(tenant, 0);
    expect(await aborted.next()).toEqual({ done: true, value: undefined });

    const begun = performance.now();
    for (let n = 0; n < 4; n += 1) {
      const left = new AbortController();
      const before = looks.mock.calls.length;
      const next = subscribe({ ...options, after: 1n << 62n, signal: left.signal }).next();
      await eventually('it has looked', () => looks.mock.calls.length > before);
      left.abort();
      expect(await next).toEqual({ done: true, value: undefined });
    }
    expect(performance.now() - begun).toBeLessThan(2 * SUBSCRIPTION_POLL_MS);
  });

  it('reads nothing when it was called off before it began', async () => {
    const { database: own, fence, hints } = instances[0]!;
    const transactions = jest.spyOn(own, 'transaction');
    const tenant = aTenant();
    const pages = subscribe({ database: own, fence, hints, tenant, after: 0n, signal: AbortSignal.abort() });
    expect(await pages.next()).toEqual({ done: true, value: undefined });
    expect(transactions).not.toHaveBeenCalled();
    await listenedTo(tenant, 0);
  });

  it('tells of a database that fails, leaves nothing behind, and goes on from its place when it is begun again', async () => {
    const tenant = aTenant();
    const positions = await appendTo(tenant, 'Thing-1', [event(), event()]);
    const { hints } = instances[0]!;
    const failing = await openAppDatabase({ url: database.url, service: 'failing', poolSize: 1 });
    const pages = subscribe({ database: failing, fence: new Fence(), hints, tenant, after: 0n, pageSize: 1 });
    expect(positionsOf((await pages.next()).value!)).toEqual(positions.slice(0, 1));
    await failing.close();
    await expect(pages.next()).rejects.toThrow(/connection|connected/i);
    await listenedTo(tenant, 0);
    const again = subscribe({ ...instances[0]!, tenant, after: positions[0]! });
    expect(positionsOf((await again.next()).value!)).toEqual(positions.slice(1));
    await again.return();
  });

  it('refuses a page of nothing', () => {
    const { database: own, fence } = instances[0]!;
    expect(() => subscribe({ database: own, fence, tenant: aTenant(), after: 0n, pageSize: 0 })).toThrow(RangeError);
  });
});
