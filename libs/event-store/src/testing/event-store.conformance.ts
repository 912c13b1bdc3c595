import assert from 'node:assert/strict';
import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { NewEvent, RecordedEvent } from '@atomo-cc/events';
import type { ExpectedVersion, StreamAppend } from '../append.js';
import type { EventSelection } from '../read.js';
import type { EventStore } from './event-store.js';

/** An append that was made and waits, with its positions drawn, to be committed or rolled back. */
export interface OpenAppend {
  commit(): Promise<void>;
  rollBack(): Promise<void>;
}

/** What a suite needs besides the store. */
export interface ConformanceOptions {
  /** For stores whose appends take time: leaves one open, made in a store that the others share. */
  readonly openAppend?: (tenant: TenantId, appends: readonly StreamAppend[]) => Promise<OpenAppend>;
  /** Where the tests are registered; the globals of jest and vitest unless given. */
  readonly runner?: TestRunner;
}

/** What registers tests. */
export interface TestRunner {
  describe(name: string, body: () => void): void;
  it(name: string, body: () => Promise<void>): void;
}

/** Callers at once in the tests of races: more than a pool's connections, so that they also wait for each other there. */
const CALLERS = 12;
/** A following reader gives up after this: far more than appends take on a busy machine. */
const LIMIT_MS = 20_000;

const METADATA = { actor: 'user:conformance', correlationId: 'c', causationId: 'd' };
const event = (type = 'Thing.changed', data: NewEvent['data'] = {}): NewEvent => ({ type, schemaVersion: 1, data });
const to = (stream: string, expected: ExpectedVersion, ...events: readonly NewEvent[]): StreamAppend => ({
  stream,
  expected,
  events: events.length > 0 ? events : [event()],
  metadata: METADATA,
});
const aTenant = () => uuidv7() as TenantId;
const versionsOf = (events: readonly RecordedEvent[]) => events.map(({ streamVersion }) => streamVersion);
const positionsOf = (events: readonly RecordedEvent[]) => events.map(({ position }) => position);
const namesOf = (events: readonly RecordedEvent[]) =>
  events.map(({ stream, streamVersion }) => `${stream} ${streamVersion}`);
const ascending = (positions: readonly bigint[]) => positions.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));

/**
 * Registers the tests that every event store passes. Each uses tenants of its own, so `makeStore` may answer one store
 * again and again.
 */
export function eventStoreConformance(
  name: string,
  makeStore: () => EventStore | Promise<EventStore>,
  options: ConformanceOptions = {},
): void {
  const { runner = globalThis as unknown as TestRunner, openAppend } = options;
  const test = (title: string, body: (store: EventStore, tenant: TenantId) => Promise<void>) =>
    runner.it(title, async () => body(await makeStore(), aTenant()));

  runner.describe(`${name} is an event store`, () => {
    test('answers an append with the events as they are read back', async (store, tenant) => {
      const data = { text: 'Ådå 𝄞 "\\', none: null, no: false, zero: 0, deep: [{ a: 1.5 }, []], '': '' };
      const before = Date.now() - 60_000;
      const result = await store.append(tenant, [to('Thing-1', 'none', event('Thing.created', data), event())]);
      assert.ok(result.ok);
      const [first, second] = result.events;
      assert.deepEqual(
        { ...first, position: null, recordedAt: null },
        {
          position: null,
          recordedAt: null,
          tenant,
          stream: 'Thing-1',
          streamVersion: 1,
          type: 'Thing.created',
          schemaVersion: 1,
          data,
          metadata: METADATA,
        },
      );
      assert.ok(first!.recordedAt.getTime() > before, 'it has the time of the append');
      assert.ok(first!.position > 0n && second!.position > first!.position, 'positions count from 1 and grow');
      assert.deepEqual(await store.readStream(tenant, 'Thing-1', { limit: 10 }), result.events);
      assert.deepEqual((await store.readAll(tenant, { after: 0n, limit: 10 })).events, result.events);
    });

    test('has nothing under the name of a stream that is unknown', async (store, tenant) => {
      assert.deepEqual(await store.readStream(tenant, 'Thing-no', { limit: 10 }), []);
      assert.deepEqual(await store.readStream(tenant, 'Thing-no', { limit: 10, direction: 'backward' }), []);
      assert.deepEqual((await store.readAll(tenant, { after: 0n, limit: 10, stream: 'Thing-no' })).events, []);
      const refused = await store.append(tenant, [to('Thing-no', 3)]);
      assert.deepEqual(refused, { ok: false, stream: 'Thing-no', currentVersion: 0 });
    });

    const expectations: [expected: ExpectedVersion, isMet: boolean][] = [
      ['any', true],
      [2, true],
      ['none', false],
      [0, false],
      [1, false],
      [3, false],
    ];
    for (const [expected, isMet] of expectations) {
      test(`${isMet ? 'appends to' : 'refuses'} a stream at version 2 where ${expected} is expected`, async (store, tenant) => {
        await store.append(tenant, [to('Thing-1', 'none', event(), event())]);
        const result = await store.append(tenant, [to('Thing-1', expected)]);
        if (isMet) assert.deepEqual(result.ok && versionsOf(result.events), [3]);
        else assert.deepEqual(result, { ok: false, stream: 'Thing-1', currentVersion: 2 });
        const stored = await store.readStream(tenant, 'Thing-1', { limit: 10 });
        assert.deepEqual(versionsOf(stored), isMet ? [1, 2, 3] : [1, 2]);
      });
    }

    for (const expected of ['any', 'none', 0] as const) {
      test(`begins a stream where ${expected} is expected`, async (store, tenant) => {
        const result = await store.append(tenant, [to('Thing-1', expected)]);
        assert.deepEqual(result.ok && versionsOf(result.events), [1]);
      });
    }

    test('appends to many streams, all or nothing', async (store, tenant) => {
      await store.append(tenant, [to('Thing-b', 'none')]);
      const refused = await store.append(tenant, [to('Thing-c', 'none'), to('Thing-b', 5), to('Thing-a', 'any')]);
      assert.deepEqual(refused, { ok: false, stream: 'Thing-b', currentVersion: 1 });
      assert.deepEqual(namesOf((await store.readAll(tenant, { after: 0n, limit: 10 })).events), ['Thing-b 1']);
      const result = await store.append(tenant, [to('Thing-c', 'none'), to('Thing-b', 1), to('Thing-a', 'none')]);
      assert.deepEqual(result.ok && namesOf(result.events), ['Thing-c 1', 'Thing-b 2', 'Thing-a 1']);
      const { events } = await store.readAll(tenant, { after: 0n, limit: 10 });
      assert.deepEqual(namesOf(events), ['Thing-b 1', 'Thing-c 1', 'Thing-b 2', 'Thing-a 1']);
    });

    test('takes a stream several times in one append, each entry after those before it', async (store, tenant) => {
      const result = await store.append(tenant, [to('Thing-1', 'none'), to('Thing-2', 'any'), to('Thing-1', 1)]);
      assert.deepEqual(result.ok && namesOf(result.events), ['Thing-1 1', 'Thing-2 1', 'Thing-1 2']);
      const refused = await store.append(tenant, [to('Thing-1', 2), to('Thing-1', 2)]);
      assert.deepEqual(refused, { ok: false, stream: 'Thing-1', currentVersion: 3 });
      assert.deepEqual(versionsOf(await store.readStream(tenant, 'Thing-1', { limit: 10 })), [1, 2]);
    });

    test('reads a stream both ways, from any version, a page at a time', async (store, tenant) => {
      await store.append(tenant, [
        to('Thing-1', 'none', ...Array.from({ length: 5 }, () => event())),
        to('Thing-10', 'any'),
      ]);
      const read = async (page: { from?: number; direction?: 'forward' | 'backward'; limit: number }) =>
        versionsOf(await store.readStream(tenant, 'Thing-1', page));
      assert.deepEqual(await read({ limit: 10 }), [1, 2, 3, 4, 5]);
      assert.deepEqual(await read({ limit: 2 }), [1, 2]);
      assert.deepEqual(await read({ from: 3, limit: 2 }), [3, 4]);
      assert.deepEqual(await read({ from: 6, limit: 2 }), []);
      assert.deepEqual(await read({ direction: 'backward', limit: 2 }), [5, 4]);
      assert.deepEqual(await read({ direction: 'backward', from: 2, limit: 10 }), [2, 1]);
      assert.deepEqual(await read({ direction: 'backward', from: 9, limit: 1 }), [5]);
      assert.deepEqual(await read({ direction: 'backward', from: 0, limit: 1 }), []);
    });

    test('reads the log in its order, by type, by stream and by how streams begin', async (store, tenant) => {
      const result = await store.append(tenant, [
        to('Thing_a-1', 'none', event('Thing.created'), event('Thing.changed')),
        to('ThingXa-1', 'none', event('Thing.created')),
        to('Thing_a-2', 'none', event('Thing.created'), event('Thing.gone')),
      ]);
      assert.ok(result.ok);
      const all = positionsOf(result.events);
      const read = async (selection: EventSelection & { after?: bigint; limit?: number }) => {
        const page = await store.readAll(tenant, { after: 0n, limit: 10, ...selection });
        return positionsOf(page.events).map((position) => all.indexOf(position));
      };
      assert.deepEqual(ascending(all), all);
      assert.deepEqual(await read({}), [0, 1, 2, 3, 4]);
      assert.deepEqual(await read({ after: all[1]!, limit: 2 }), [2, 3]);
      assert.deepEqual(await read({ after: all[4]! }), []);
      assert.deepEqual(await read({ types: ['Thing.created'] }), [0, 2, 3]);
      assert.deepEqual(await read({ types: ['Thing.changed', 'Thing.gone'] }), [1, 4]);
      assert.deepEqual(await read({ types: [] }), []);
      assert.deepEqual(await read({ types: null, stream: null, streamPrefix: null }), [0, 1, 2, 3, 4]);
      assert.deepEqual(await read({ stream: 'Thing_a-1' }), [0, 1]);
      assert.deepEqual(await read({ streamPrefix: 'Thing_a-' }), [0, 1, 3, 4]);
      assert.deepEqual(await read({ streamPrefix: 'Thing%' }), []);
      assert.deepEqual(await read({ streamPrefix: '_a-' }), []);
      assert.deepEqual(await read({ streamPrefix: 'Thing_a-', types: ['Thing.created'], after: all[0]! }), [3]);
      const { settled } = await store.readAll(tenant, { after: 0n, limit: 1 });
      assert.ok(settled >= all[4]!, 'when nothing is under way, all that was acknowledged is settled');
    });

    test('keeps tenants apart, also where their streams and keys have one name', async (store, ours) => {
      const theirs = aTenant();
      await store.append(ours, [to('Thing-1', 'none')], [anAnswer('key')]);
      const result = await store.append(theirs, [to('Thing-1', 'none'), to('Thing-1', 1)], [anAnswer('key')]);
      assert.deepEqual(result.ok && versionsOf(result.events), [1, 2]);
      for (const [tenant, count] of [
        [ours, 1],
        [theirs, 2],
      ] as const) {
        assert.equal((await store.readStream(tenant, 'Thing-1', { limit: 10 })).length, count);
        const { events } = await store.readAll(tenant, { after: 0n, limit: 10 });
        assert.deepEqual(
          events.map((one) => one.tenant),
          Array.from({ length: count }, () => tenant),
        );
      }
      assert.deepEqual((await store.readAll(aTenant(), { after: 0n, limit: 10 })).events, []);
      assert.equal((await store.findAnswers(aTenant(), ['key'])).size, 0);
    });

    test('lets one of many win that expect the same version, and tells the others where the stream is', async (store, tenant) => {
      for (let version = 0; version < 4; version += 1) {
        const results = await Promise.all(
          Array.from({ length: CALLERS }, () => store.append(tenant, [to('Thing-1', version), to('Thing-2', 'any')])),
        );
        assert.equal(results.filter(({ ok }) => ok).length, 1);
        for (const result of results) assert.equal(result.ok ? version + 1 : result.currentVersion, version + 1);
      }
      assert.deepEqual(versionsOf(await store.readStream(tenant, 'Thing-2', { limit: 100 })), [1, 2, 3, 4]);
    });

    test('loses nothing of appends to the same streams at the same time, and keeps the order of each', async (store, tenant) => {
      const results = await Promise.all(
        Array.from({ length: CALLERS }, (_, n) =>
          store.append(tenant, [to(`Thing-${n % 2}`, 'any'), to(`Thing-${(n + 1) % 2}`, 'any')]),
        ),
      );
      assert.ok(results.every(({ ok }) => ok));
      for (const stream of ['Thing-0', 'Thing-1']) {
        const events = await store.readStream(tenant, stream, { limit: 100 });
        assert.deepEqual(
          versionsOf(events),
          Array.from({ length: CALLERS }, (_, n) => n + 1),
        );
        assert.deepEqual(ascending(positionsOf(events)), positionsOf(events));
      }
    });

    test('gives a reader that follows the mark each event once and in order, while others append', async (store, tenant) => {
      let isOver = false;
      const appended: bigint[] = [];
      const writing = Promise.all(
        Array.from({ length: CALLERS }, async (_, n) => {
          for (let round = 0; round < 5; round += 1) {
            const result = await store.append(n % 4 === 3 ? aTenant() : tenant, [
              to(`Thing-${n}`, 'any', event(), event()),
            ]);
            assert.ok(result.ok);
            if (n % 4 !== 3) appended.push(...positionsOf(result.events));
          }
        }),
      ).finally(() => (isOver = true));
      const seen: bigint[] = [];
      const until = Date.now() + LIMIT_MS;
      for (let after = 0n; Date.now() < until;) {
        const isLast = isOver;
        const { events, settled } = await store.readAll(tenant, { after, limit: 3 });
        assert.ok(
          events.every(({ position }) => position > after && position <= settled),
          'a page lies behind its begin and below its mark',
        );
        seen.push(...positionsOf(events));
        after = events.length === 3 ? events[2]!.position : settled > after ? settled : after;
        if (isLast && seen.length >= appended.length && events.length === 0) break;
      }
      await writing;
      assert.deepEqual(seen, ascending(appended));
    });

    test('keeps the answers of an append that took effect, and of no other', async (store, tenant) => {
      const answer = anAnswer('key-1');
      await store.append(tenant, [to('Thing-1', 'none')], [answer]);
      assert.deepEqual([...(await store.findAnswers(tenant, ['key-1', 'key-2']))], [['key-1', answer]]);
      await store.append(tenant, [to('Thing-1', 'none')], [anAnswer('key-2')]);
      assert.equal((await store.findAnswers(tenant, ['key-2'])).size, 0);
      assert.equal((await store.findAnswers(tenant, [])).size, 0);
    });

    test('does nothing when a key is taken already', async (store, tenant) => {
      const answer = anAnswer('key');
      await store.append(tenant, [to('Thing-1', 'none')], [answer]);
      await assert.rejects(store.append(tenant, [to('Thing-2', 'none')], [anAnswer('other'), anAnswer('key')]));
      assert.deepEqual(await store.readStream(tenant, 'Thing-2', { limit: 10 }), []);
      assert.deepEqual([...(await store.findAnswers(tenant, ['key', 'other']))], [['key', answer]]);
    });

    test('lets one of many take effect that use one key at the same time', async (store, tenant) => {
      const results = await Promise.allSettled(
        Array.from({ length: CALLERS }, (_, n) => store.append(tenant, [to(`Thing-${n}`, 'none')], [anAnswer('key')])),
      );
      assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1);
      assert.equal((await store.readAll(tenant, { after: 0n, limit: 100 })).events.length, 1);
    });

    test('is not changed by what callers do to what they gave and got', async (store, tenant) => {
      const data = { name: 'Ada' };
      const result = await store.append(tenant, [to('Thing-1', 'none', event('Thing.created', data))]);
      assert.ok(result.ok);
      data.name = 'changed';
      for (const got of [result.events, await store.readStream(tenant, 'Thing-1', { limit: 1 })]) {
        Object.assign(got[0]!.data, { name: 'changed' });
      }
      assert.deepEqual((await store.readStream(tenant, 'Thing-1', { limit: 1 }))[0]!.data, { name: 'Ada' });
      assert.deepEqual((await store.readAll(tenant, { after: 0n, limit: 1 })).events[0]!.data, { name: 'Ada' });
    });

    test('subscribes to what is there and then to what comes, without a gap and none twice', async (store, tenant) => {
      const append = async (count: number) => {
        for (let n = 0; n < count; n += 1) {
          await Promise.all([
            store.append(tenant, [to(`Thing-${n % 3}`, 'any')]),
            store.append(aTenant(), [to('Thing-0', 'any')]),
          ]);
        }
      };
      await append(7);
      const [first] = (await store.readAll(tenant, { after: 0n, limit: 1 })).events;
      const all = follow(store, tenant, 20);
      const later = follow(store, tenant, 19, { after: first!.position, pageSize: 2 });
      await Promise.all([append(6), append(4)]);
      // Those that follow have caught up by now or not; in either case these come after what is there.
      await append(3);
      const { events } = await store.readAll(tenant, { after: 0n, limit: 100 });
      assert.equal(events.length, 20);
      assert.deepEqual(positionsOf(await all), positionsOf(events));
      assert.deepEqual(positionsOf(await later), positionsOf(events.slice(1)));
    });

    test('subscribes by type and by how streams begin', async (store, tenant) => {
      const select = { types: ['Thing.created'], streamPrefix: 'Thing_' };
      const seen = follow(store, tenant, 2, select);
      for (const stream of ['Thing_1', 'ThingX1', 'Thing_2']) {
        await store.append(tenant, [to(stream, 'none', event('Thing.created'), event('Thing.changed'))]);
      }
      assert.deepEqual(namesOf(await seen), ['Thing_1 1', 'Thing_2 1']);
    });

    test('ends a subscription by its signal, also while it waits, and before it begins', async (store, tenant) => {
      await store.append(tenant, [to('Thing-1', 'none')]);
      const aborter = new AbortController();
      const pages: number[] = [];
      for await (const page of store.subscribe(tenant, { after: 0n, signal: aborter.signal })) {
        pages.push(page.length);
        if (pages.length > 1) break;
        setTimeout(() => aborter.abort(), 50);
      }
      assert.deepEqual(pages, [1]);
      for await (const page of store.subscribe(tenant, { after: 0n, signal: AbortSignal.abort() })) {
        assert.fail(`it gave a page of ${page.length}`);
      }
    });

    if (!openAppend) return;

    for (const end of ['commit', 'rollBack'] as const) {
      test(`shows nothing behind an append that is open until its ${end}`, async (store, tenant) => {
        const open = await openAppend(tenant, [to('Thing-open', 'any')]);
        const result = await store.append(tenant, [to('Thing-later', 'any')]);
        assert.ok(result.ok);
        const [later] = positionsOf(result.events);
        for (let look = 0; look < 3; look += 1) {
          const { events, settled } = await store.readAll(tenant, { after: 0n, limit: 10 });
          assert.deepEqual(events, []);
          assert.ok(settled < later!, 'the mark stays below the open append');
        }
        assert.equal((await store.readStream(tenant, 'Thing-later', { limit: 10 })).length, 1);
        const seen = follow(store, tenant, end === 'commit' ? 2 : 1);
        await open[end]();
        const names = end === 'commit' ? ['Thing-open 1', 'Thing-later 1'] : ['Thing-later 1'];
        assert.deepEqual(namesOf(await seen), names);
        assert.deepEqual(namesOf((await store.readAll(tenant, { after: 0n, limit: 10 })).events), names);
      });
    }
  });
}

function anAnswer(key: string) {
  return { key, fingerprint: 'f', recordId: uuidv7(), version: 1 };
}

/** Subscribes, and ends with the first `count` events; with fewer if no more come. */
async function follow(
  store: EventStore,
  tenant: TenantId,
  count: number,
  options: EventSelection & { after?: bigint; pageSize?: number } = {},
): Promise<RecordedEvent[]> {
  const seen: RecordedEvent[] = [];
  const { pageSize = 500 } = options;
  const signal = AbortSignal.timeout(LIMIT_MS);
  for await (const page of store.subscribe(tenant, { after: 0n, ...options, signal })) {
    assert.ok(page.length > 0 && page.length <= pageSize, `a page of ${page.length}`);
    seen.push(...page);
    if (seen.length >= count) return seen;
  }
  return seen;
}
