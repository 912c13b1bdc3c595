import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { NewEvent, RecordedEvent } from '@atomo-cc/events';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { Fence } from './fence.js';
import { allEvents, readEvents, readStream, streamEvents } from './read.js';
import { eventStoreMigrations } from './schema.js';

const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());
afterEach(() => jest.restoreAllMocks());

const aTenant = () => uuidv7() as TenantId;
const numbered = (from: number, to: number, type = 'Thing.changed'): NewEvent[] =>
  Array.from({ length: to - from + 1 }, (_, n) => ({ type, schemaVersion: 1, data: { n: from + n } }));
const numbersOf = (events: readonly RecordedEvent[]) => events.map(({ data }) => data['n']);
const range = (from: number, to: number) =>
  Array.from({ length: Math.abs(to - from) + 1 }, (_, n) => (to < from ? from - n : from + n));

async function appendTo(tenant: TenantId, stream: string, events: readonly NewEvent[]): Promise<RecordedEvent[]> {
  const result = await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [{ stream, expected: 'any', events, metadata: METADATA }]),
  );
  return result.ok ? [...result.events] : [];
}

/** Appends and stays open until it is told how to end. */
async function anOpenAppend(tenant: TenantId, stream: string) {
  const appended = Promise.withResolvers<RecordedEvent>();
  const told = Promise.withResolvers<'commit' | 'rollback'>();
  const over = database.app
    .transaction(tenant, async (tx) => {
      const result = await append(tx, tenant, [
        { stream, expected: 'any', events: numbered(0, 0), metadata: METADATA },
      ]);
      if (result.ok) appended.resolve(result.events[0]!);
      if ((await told.promise) === 'rollback') throw new Error('rolled back');
    })
    .catch((error: unknown) => expect(error).toMatchObject({ message: 'rolled back' }));
  const event = await appended.promise;
  return { event, end: (how: 'commit' | 'rollback') => (told.resolve(how), over) };
}

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('readStream', () => {
  it('pages a stream forward and backward, from any version, itself included', async () => {
    const tenant = aTenant();
    await appendTo(tenant, 'Thing-1', numbered(1, 10));
    await appendTo(tenant, 'Thing-10', numbered(100, 101));
    const read = async (page: Parameters<typeof readStream>[3]) =>
      numbersOf(await database.app.transaction(tenant, (tx) => readStream(tx, tenant, 'Thing-1', page)));
    expect(await read({ limit: 100 })).toEqual(range(1, 10));
    expect(await read({ limit: 3 })).toEqual([1, 2, 3]);
    expect(await read({ from: 4, limit: 3 })).toEqual([4, 5, 6]);
    expect(await read({ from: 9, limit: 3 })).toEqual([9, 10]);
    expect(await read({ from: 11, limit: 3 })).toEqual([]);
    expect(await read({ direction: 'backward', limit: 3 })).toEqual([10, 9, 8]);
    expect(await read({ direction: 'backward', from: 7, limit: 3 })).toEqual([7, 6, 5]);
    expect(await read({ direction: 'backward', from: 2, limit: 3 })).toEqual([2, 1]);
    expect(await read({ direction: 'backward', from: 0, limit: 3 })).toEqual([]);
    expect(await read({ direction: 'backward', from: 2 ** 40, limit: 1 })).toEqual([10]);
  });

  it('gives nothing for a stream that is unknown or of another tenant', async () => {
    const [tenant, other] = [aTenant(), aTenant()];
    await appendTo(tenant, 'Thing-1', numbered(1, 1));
    const read = (asked: TenantId, stream: string) =>
      database.app.transaction(other, (tx) => readStream(tx, asked, stream, { limit: 9 }));
    expect(await read(other, 'Thing-1')).toEqual([]);
    expect(await read(tenant, 'Thing-1')).toEqual([]);
  });
});

describe('the prefix of streams', () => {
  it('is taken literally', async () => {
    const tenant = aTenant();
    const streams = ['Thing-1', 'Thing-2', 'Thingy-1', 'thing-1', '100%-1', '100x-1', 'a_b', 'axb', 'a\\b', 'é-1'];
    for (const [n, stream] of streams.entries()) await appendTo(tenant, stream, numbered(n, n));
    const read = async (streamPrefix: string) => {
      const events = await database.app.transaction(tenant, (tx) =>
        readEvents(tx, tenant, { after: 0n, settled: 1n << 62n, streamPrefix, limit: 99 }),
      );
      return events.map(({ stream }) => stream);
    };
    expect(await read('Thing-')).toEqual(['Thing-1', 'Thing-2']);
    expect(await read('100%')).toEqual(['100%-1']);
    expect(await read('a_')).toEqual(['a_b']);
    expect(await read('a\\')).toEqual(['a\\b']);
    expect(await read('é')).toEqual(['é-1']);
    expect(await read('')).toEqual(streams);
    expect(await read('%')).toEqual([]);
  });
});

describe('streamEvents', () => {
  it('goes over 5,000 events both ways in small pages, each in a transaction of its own', async () => {
    const tenant = aTenant();
    for (let n = 0; n < 5_000; n += 1_000) await appendTo(tenant, 'Thing-1', numbered(n + 1, n + 1_000));
    const way = async (direction: 'forward' | 'backward', from?: number) =>
      numbersOf(
        await collect(
          streamEvents(database.app, tenant, 'Thing-1', { direction, pageSize: 100, ...(from ? { from } : {}) }),
        ),
      );
    const transactions = jest.spyOn(database.app, 'transaction');
    expect(await way('forward')).toEqual(range(1, 5_000));
    expect(transactions).toHaveBeenCalledTimes(51);
    expect(await way('forward', 4_999)).toEqual([4_999, 5_000]);
    expect(await way('backward')).toEqual(range(5_000, 1));
    expect(await way('backward', 301)).toEqual(range(301, 1));
    expect(numbersOf(await collect(streamEvents(database.system, tenant, 'Thing-1')))).toEqual(range(1, 5_000));
  });

  it('sees each event once while others append to the stream', async () => {
    const tenant = aTenant();
    await appendTo(tenant, 'Thing-1', numbered(1, 40));
    let head = 40;
    const versions = async (direction: 'forward' | 'backward') => {
      const seen: number[] = [];
      for await (const { streamVersion } of streamEvents(database.app, tenant, 'Thing-1', {
        direction,
        pageSize: 10,
      })) {
        if (seen.push(streamVersion) % 10 === 5 && seen.length < 40) {
          await appendTo(tenant, 'Thing-1', numbered(0, 2));
          head += 3;
        }
      }
      return seen;
    };
    expect(await versions('forward')).toEqual(range(1, 52));
    expect(head).toBe(52);
    expect(await versions('backward')).toEqual(range(52, 1));
    expect(head).toBe(64);
  });

  it('reads no page before it is asked for', async () => {
    const tenant = aTenant();
    await appendTo(tenant, 'Thing-1', numbered(1, 40));
    const transactions = jest.spyOn(database.app, 'transaction');
    const events = streamEvents(database.app, tenant, 'Thing-1', { pageSize: 10 });
    expect(transactions).toHaveBeenCalledTimes(0);
    for (let n = 0; n < 10; n += 1) await events.next();
    expect(transactions).toHaveBeenCalledTimes(1);
    await events.next();
    expect(transactions).toHaveBeenCalledTimes(2);
    await events.return();
    expect(transactions).toHaveBeenCalledTimes(2);
  });

  it('refuses a page of nothing', async () => {
    for (const pageSize of [0, -1, 1.5, NaN])
      await expect(collect(streamEvents(database.app, aTenant(), 'Thing-1', { pageSize }))).rejects.toThrow(RangeError);
  });
});

describe('allEvents', () => {
  it('sees each of 5,000 events once, in order, in small pages, while writers append and roll back', async () => {
    const tenant = aTenant();
    for (let n = 0; n < 10; n += 1) await appendTo(tenant, `Thing-${n}`, numbered(1, 500));
    let isOver = false;
    const write = async (writer: number) => {
      for (let n = 0; !isOver; n += 1) {
        const open = await anOpenAppend(tenant, `Thing-${writer}`);
        await open.end(n % 4 === 3 ? 'rollback' : 'commit');
      }
    };
    const writers = [1, 2, 3].map(write);
    try {
      for (const [after, pageSize] of [[0n, 64] as const, [0n, 500] as const]) {
        const seen = await collect(allEvents(database.app, tenant, new Fence(), { after, pageSize }));
        const last = seen.at(-1)!.position;
        const committed = await database.asOwner<{ position: string }>(
          'select position from event_log where tenant_id = $1 and position <= $2 order by position',
          [tenant, String(last)],
        );
        expect(seen.length).toBeGreaterThanOrEqual(5_000);
        expect(seen.map(({ position }) => position)).toEqual(committed.map(({ position }) => BigInt(position)));
      }
    } finally {
      isOver = true;
      await Promise.all(writers);
    }
  });

  it('takes all that is committed when it begins, and waits for what is open before it', async () => {
    const tenant = aTenant();
    for (const how of ['commit', 'rollback'] as const) {
      const [before] = await appendTo(tenant, 'Thing-0', numbered(1, 1));
      const fence = new Fence();
      await database.app.transaction(tenant, (tx) => fence.advance(tx));
      const open = await anOpenAppend(tenant, 'Thing-1');
      const [behind] = await appendTo(tenant, 'Thing-2', numbered(2, 2));
      const looks = jest.spyOn(fence, 'advance');
      let isOver = false;
      const seen = collect(allEvents(database.app, tenant, fence, { after: before!.position - 1n })).finally(
        () => (isOver = true),
      );
      await eventually('the iterator looks again', () => looks.mock.calls.length > 3);
      expect(isOver).toBe(false);
      await appendTo(tenant, 'Thing-3', numbered(3, 3));
      await open.end(how);
      const expected = [before, ...(how === 'commit' ? [open.event] : []), behind].map((event) => event!.position);
      expect((await seen).map(({ position }) => position)).toEqual(expected);
    }
  });

  it('can be called off while it waits', async () => {
    const tenant = aTenant();
    const open = await anOpenAppend(aTenant(), 'Thing-1');
    await appendTo(tenant, 'Thing-2', numbered(2, 2));
    const fence = new Fence();
    const looks = jest.spyOn(fence, 'advance');
    const aborter = new AbortController();
    const seen = collect(allEvents(database.app, tenant, fence, { after: 0n, signal: aborter.signal }));
    const ended = seen.catch((error: unknown) => error);
    await eventually('the iterator waits', () => looks.mock.calls.length > 1);
    aborter.abort();
    expect(await ended).toMatchObject({ name: 'AbortError' });
    await open.end('commit');
  });

  it('filters by type and by prefix, also where matches are rare, and sees one tenant alone', async () => {
    const tenant = aTenant();
    await appendTo(aTenant(), 'Thing-1', numbered(1, 3));
    await appendTo(tenant, 'Thing-1', [...numbered(1, 30), ...numbered(31, 31, 'Thing.rare')]);
    await appendTo(tenant, 'Other-1', [...numbered(40, 60), ...numbered(61, 61, 'Thing.rare')]);
    const read = async (selection: object, database_: Parameters<typeof allEvents>[0] = database.app) =>
      numbersOf(await collect(allEvents(database_, tenant, new Fence(), { after: 0n, pageSize: 4, ...selection })));
    expect(await read({ types: ['Thing.rare'] })).toEqual([31, 61]);
    expect(await read({ streamPrefix: 'Other-' })).toEqual(range(40, 61));
    expect(await read({ streamPrefix: 'Other-', types: ['Thing.rare'] })).toEqual([61]);
    expect(await read({ streamPrefix: 'Nobody-' })).toEqual([]);
    expect(await read({}, database.system)).toEqual([...range(1, 31), ...range(40, 61)]);
    expect(await collect(allEvents(database.app, aTenant(), new Fence(), { after: 0n }))).toEqual([]);
  });
});
