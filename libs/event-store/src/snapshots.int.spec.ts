import { tenantId, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { Tx } from '@atomo-cc/platform/postgres';
import { EVENT_PAGE } from './read.js';
import { eventStoreMigrations } from './schema.js';
import {
  isSnapshotDue,
  keepSnapshots,
  lastSteps,
  SNAPSHOT_EVERY,
  stateAt,
  type EventOpener,
  type StateFold,
  type StateSealer,
  type StateToKeep,
} from './snapshots.js';

const TENANT = tenantId('00000000-0000-7000-8000-00000000000a');
const OTHER = tenantId('00000000-0000-7000-8000-00000000000b');
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const START = Date.parse('2026-01-01T00:00:00Z');

type Sum = { readonly total: number; readonly last: string };
const fold: StateFold<Sum> = {
  shape: 2,
  evolve: (state, { data }) => ({ total: (state?.total ?? 0) + (data['n'] as number), last: data['name'] as string }),
};

/** A generator of numbers from 0 to below 1 that gives the same ones for the same seed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Logged {
  readonly version: number;
  readonly at: number;
  readonly n: number;
  readonly name: string;
}

/** For a busy machine. */
jest.setTimeout(60_000);

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());

beforeEach(() => database.asOwner('truncate event_log, event_streams, stream_snapshots'));

/** Events at times of our choice, which an append does not let one choose. */
async function log(stream: string, events: readonly Logged[], tenant: TenantId = TENANT): Promise<void> {
  await database.asOwner(
    `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at)
     select nextval('event_log_position'), $1, $2, e.version, 'Thing.changed', 1, jsonb_build_object('n', e.n, 'name', e.name),
            '{}', to_timestamp(e.at / 1000.0)
     from jsonb_to_recordset($3::jsonb) as e (version int, at float8, n int, name text) order by e.version`,
    [tenant, stream, JSON.stringify(events)],
  );
}

/** Events whose clock is set back now and then. */
function aLog(random: () => number, length: number): Logged[] {
  let at = START;
  return Array.from({ length }, (_, i) => {
    at += random() < 0.1 ? -Math.floor(random() * 5_000) : Math.floor(random() * 300);
    return { version: i + 1, at, n: Math.floor(random() * 1000), name: `n${i}` };
  });
}

/** What `stateAt` must come to, computed in the plainest way. */
function foldTo(events: readonly Logged[]): { version: number; state: Sum } | null {
  const last = events.at(-1);
  if (!last) return null;
  return { version: last.version, state: { total: events.reduce((sum, { n }) => sum + n, 0), last: last.name } };
}

const read = (stream: string, at: { version: number } | { time: Date }, codec?: EventOpener & Partial<StateSealer>) =>
  database.app.transaction(TENANT, (tx) => stateAt(tx, TENANT, stream, at, fold, codec));
const keep = (states: readonly StateToKeep[], codec?: StateSealer) =>
  database.app.transaction(TENANT, (tx) => keepSnapshots(tx, TENANT, states, codec));
const snapshotOf = (stream: string, events: readonly Logged[], version: number): StateToKeep => ({
  stream,
  version,
  shape: fold.shape,
  state: foldTo(events.slice(0, version))!.state,
});

test(`at every version and time the state is the fold of the log, with snapshots, some and none (seed ${SEED})`, async () => {
  const random = seeded(SEED);
  const events = aLog(random, 2 * SNAPSHOT_EVERY + 55);
  await log('Thing-1', events);
  await log('Thing-2', aLog(random, 10));
  await log('Thing-1', aLog(random, 10), OTHER);
  const check = async () => {
    for (let i = 0; i < 40; i += 1) {
      const version = 1 + Math.floor(random() * events.length);
      expect(await read('Thing-1', { version })).toMatchObject(foldTo(events.slice(0, version))!);
      const time = events[Math.floor(random() * events.length)]!.at + Math.floor(random() * 3) - 1;
      const later = events.findIndex(({ at }) => at > time);
      const expected = foldTo(later === -1 ? events : events.slice(0, later));
      const found = await read('Thing-1', { time: new Date(time) });
      expect(found && { version: found.version, state: found.state }).toEqual(expected);
    }
  };
  await check();
  await keep([100, 200, 150].map((version) => snapshotOf('Thing-1', events, version)));
  await keep([100, 120].map((version) => snapshotOf('Thing-1', events, version)));
  expect(await database.asOwner('select count(*)::int as kept from stream_snapshots')).toEqual([{ kept: 4 }]);
  await check();
  await database.asOwner('truncate stream_snapshots');
  await check();
});

describe('the last steps', () => {
  /** What was read, and how many statements that took. */
  async function steps(stream: string, below: number | null, atLeast: number) {
    const asked = [jest.spyOn(Tx.prototype, 'query'), jest.spyOn(Tx.prototype, 'prepared')];
    const found = await database.app.transaction(TENANT, (tx) =>
      lastSteps(tx, TENANT, stream, { below, atLeast }, fold),
    );
    const statements = asked.flatMap(({ mock }) => mock.calls).length;
    jest.restoreAllMocks();
    return { ...found, statements };
  }

  /** Holds the steps to the fold of the log. */
  function expectSteps({ steps: found }: Awaited<ReturnType<typeof steps>>, events: readonly Logged[], last: number) {
    expect(found.map(({ event }) => event.streamVersion)).toEqual(found.map((_, i) => last - i));
    for (const { event, before, after } of found) {
      expect(after).toEqual(foldTo(events.slice(0, event.streamVersion))!.state);
      expect(before).toEqual(foldTo(events.slice(0, event.streamVersion - 1))?.state ?? null);
    }
  }

  test(`are the fold of the log wherever they begin, in one statement, with snapshots and without (seed ${SEED})`, async () => {
    const random = seeded(SEED);
    const events = aLog(random, 2 * SNAPSHOT_EVERY + 55);
    await log('Thing-1', events);
    await log('Thing-2', aLog(random, 10));
    await log('Thing-1', aLog(random, 300), OTHER);
    const check = async () => {
      for (let i = 0; i < 40; i += 1) {
        const below = random() < 0.2 ? null : 1 + Math.floor(random() * (events.length + 20));
        const atLeast = 1 + Math.floor(random() * 101);
        const last = Math.min((below ?? Infinity) - 1, events.length);
        const found = await steps('Thing-1', below, atLeast);
        expectSteps(found, events, last);
        expect(found.steps.length).toBeGreaterThanOrEqual(Math.min(atLeast, last));
        expect(found).toMatchObject({ statements: 1, newestType: last === 0 ? null : 'Thing.changed' });
      }
    };
    await check();
    await keep([100, 200, 150].map((version) => snapshotOf('Thing-1', events, version)));
    await check();
    // Down to the snapshot, and no further.
    expect((await steps('Thing-1', 180, 10)).steps.at(-1)!.event.streamVersion).toBe(151);
    expect((await steps('Thing-1', 180, 29)).steps.at(-1)!.event.streamVersion).toBe(151);
    expect((await steps('Thing-1', 180, 30)).steps.at(-1)!.event.streamVersion).toBe(101);
  });

  test('of a stream that was long without a snapshot take more statements, and are the same', async () => {
    const events = aLog(seeded(4), EVENT_PAGE + 30);
    await log('Thing-1', events);
    const found = await steps('Thing-1', null, 10);
    expect(found.steps).toHaveLength(EVENT_PAGE + 10);
    expect(found.statements).toBeGreaterThan(1);
    expectSteps(found, events, events.length);
    await keep([{ ...snapshotOf('Thing-1', events, 20), shape: 1 }, snapshotOf('Thing-1', events, 19)]);
    expectSteps(await steps('Thing-1', null, 10), events, events.length);
  });

  test('read no events below the snapshot, however many there are', async () => {
    const events = aLog(seeded(5), 2_000);
    await log('Thing-1', events);
    await keep([snapshotOf('Thing-1', events, 1_900)]);
    await database.asOwner('analyze event_log, stream_snapshots');
    const prepared = jest.spyOn(Tx.prototype, 'prepared');
    await steps('Thing-1', null, 10);
    const [sql, values] = prepared.mock.calls[0] as [string, (string | number)[]];
    const plan = await database.app.transaction(TENANT, async (tx) => {
      await tx.query('set local plan_cache_mode = force_generic_plan');
      await tx.query(`prepare steps (uuid, text, bigint, bigint, int) as ${sql}`);
      const given = values.map((value) => (typeof value === 'string' ? `'${value}'` : value)).join(', ');
      const lines = await tx.query<{ 'QUERY PLAN': string }>(`explain (analyze) execute steps (${given})`);
      await tx.query('deallocate steps');
      return lines.map((line) => line['QUERY PLAN']).join('\n');
    });
    // Under row-level security a bound that is not leakproof is no bound of the index, and what it excludes is read.
    expect(plan).not.toMatch(/Rows Removed by Filter: \d{3}/);
    expect(plan).toContain('Index Cond');
  });

  test('of no stream are none', async () => {
    expect(await steps('Thing-9', null, 10)).toMatchObject({ steps: [], newestType: null });
  });
});

test('a snapshot is what the state goes on from, unless its shape is another', async () => {
  const events = aLog(seeded(1), 120);
  await log('Thing-1', events);
  const wrong = { total: 1_000_000, last: 'wrong' };
  await keep([{ ...snapshotOf('Thing-1', events, 100), shape: 1, state: wrong }]);
  expect(await read('Thing-1', { version: 110 })).toMatchObject(foldTo(events.slice(0, 110))!);
  await database.asOwner('truncate stream_snapshots');
  await keep([{ ...snapshotOf('Thing-1', events, 100), state: wrong }]);
  expect((await read('Thing-1', { version: 110 }))!.state.total).toBeGreaterThan(1_000_000);
  expect(await read('Thing-1', { version: 99 })).toMatchObject(foldTo(events.slice(0, 99))!);
});

test('there is no state of what never was', async () => {
  await log('Thing-1', aLog(seeded(2), 3));
  expect(await read('Thing-1', { version: 4 })).toBeNull();
  expect(await read('Thing-1', { version: 0 })).toBeNull();
  expect(await read('Thing-1', { time: new Date(START - 10_000) })).toBeNull();
  expect(await read('Thing-9', { version: 1 })).toBeNull();
  expect(await read('Thing-9', { time: new Date() })).toBeNull();
});

test('a snapshot of what has no events is not kept, and one of another tenant is not seen', async () => {
  await keep([{ stream: 'Thing-9', version: 100, shape: fold.shape, state: { total: 1, last: 'x' } }]);
  expect(await database.asOwner('select * from stream_snapshots')).toEqual([]);
  const events = aLog(seeded(3), 100);
  await log('Thing-1', events);
  await keep([snapshotOf('Thing-1', events, 100)]);
  const theirs = await database.app.transaction(OTHER, (tx) => stateAt(tx, TENANT, 'Thing-1', { version: 100 }, fold));
  expect(theirs).toBeNull();
});

test('personal values are kept sealed, and gone once they cannot be opened', async () => {
  const events = aLog(seeded(4), 105);
  await log('Thing-1', events);
  let isErased = false;
  const codec: EventOpener & StateSealer = {
    decode: async (_tx, given) => given as RecordedEvent[],
    sealState: async (_tx, tenant, stream, values, { subject, fields }) => {
      expect([tenant, stream, subject, fields]).toEqual([TENANT, 'Thing-1', 'Thing-1', ['last']]);
      const { last, ...plain } = values;
      return { ...plain, $sealed: Buffer.from(JSON.stringify(last)).toString('base64') };
    },
    openState: async (_tx, _tenant, _stream, { $sealed, ...plain }) => {
      const last: unknown = isErased ? null : JSON.parse(Buffer.from($sealed as string, 'base64').toString());
      return { ...plain, last };
    },
  };
  await keep([{ ...snapshotOf('Thing-1', events, 100), personal: { subject: 'Thing-1', fields: ['last'] } }], codec);
  const [row] = await database.asOwner<{ state: unknown }>('select state from stream_snapshots');
  expect(JSON.stringify(row!.state)).not.toContain('n99');
  expect(await read('Thing-1', { version: 100 }, codec)).toMatchObject(foldTo(events.slice(0, 100))!);
  isErased = true;
  expect((await read('Thing-1', { version: 100 }, codec))!.state).toEqual({
    total: foldTo(events.slice(0, 100))!.state.total,
    last: null,
  });
});

test.each([
  [0, 1, false],
  [98, 99, false],
  [99, 100, true],
  [100, 101, false],
  [50, 250, true],
  [0, 100, true],
])('from version %i to %i a snapshot is due: %s', (before, after, due) => {
  expect(isSnapshotDue(before, after)).toBe(due);
});
