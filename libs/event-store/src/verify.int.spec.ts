import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { NewEvent } from '@atomo-cc/events';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { append, chainHash } from './append.js';
import { CheckpointWriter, checkpointKey, compareWithCheckpoint, readCheckpoint } from './log-checkpoint.js';
import { eventStoreMigrations } from './schema.js';
import { type LogFault, type StreamHead, verifyLog } from './verify.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const C = '00000000-0000-7000-8000-00000000000c' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const KEY = checkpointKey('a secret of the tests');

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());

beforeEach(() => database.asOwner('truncate event_log, event_streams'));

const event = (n: unknown): NewEvent => ({ type: 'Thing.changed', schemaVersion: 1, data: { n, name: 'Ada' } });

/** Appends as many events to a stream in one transaction; answers the stream. */
async function aStream(events: number, tenant = A, stream = `Thing-${uuidv7()}`): Promise<string> {
  const added = Array.from({ length: events }, (_, n) => event(n));
  await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [{ stream, expected: 'any', events: added, metadata: METADATA }]),
  );
  return stream;
}

async function verify(tenant?: TenantId) {
  const faults: LogFault[] = [];
  const heads: StreamHead[] = [];
  const totals = await verifyLog(database.system, {
    tenant,
    onFault: (fault) => faults.push(fault),
    onSound: (head) => void heads.push(head),
  });
  return { faults, heads, totals };
}

async function aCheckpoint(tenant?: TenantId): Promise<string[]> {
  const writer = new CheckpointWriter(KEY, { tenant: tenant ?? null, at: new Date() });
  const { heads } = await verify(tenant);
  return [writer.begin(), ...heads.map((head) => writer.head(head)), writer.end()].map((line) => line.trimEnd());
}

async function* each(lines: readonly string[]): AsyncGenerator<string> {
  yield* lines;
}

async function compare(checkpoint: readonly string[], tenant?: TenantId) {
  const faults: LogFault[] = [];
  const totals = await compareWithCheckpoint(database.system, readCheckpoint(each(checkpoint), KEY), {
    tenant,
    onFault: (fault) => faults.push(fault),
  });
  return { faults, totals };
}

const positionOf = async (stream: string, version: number) => {
  const [row] = await database.asOwner<{ position: string }>(
    'select position from event_log where stream = $1 and stream_version = $2',
    [stream, version],
  );
  return BigInt(row!.position);
};

/** Expects exactly one fault, in this stream, while the streams around it are sound. */
async function expectOneFault(fault: LogFault): Promise<void> {
  const { faults, totals } = await verify();
  expect(faults).toEqual([fault]);
  expect(totals.broken).toBe(1);
}

describe('a sound log', () => {
  it('is sound for all tenants and for each, however many pages it has', async () => {
    const long = await aStream(1_700);
    await Promise.all(Array.from({ length: 40 }, (_, n) => aStream(n % 4, n % 2 ? A : B, `Thing-${n}`)));
    await database.asOwner(
      `insert into event_streams (tenant_id, stream, version) select $1, 'Empty-' || n, 0 from generate_series(1, 1100) n`,
      [C],
    );
    const { totals, faults, heads } = await verify();
    expect(faults).toEqual([]);
    expect(totals).toEqual({ streams: 1_141, events: 1_760, unchained: 0, broken: 0 });
    expect(heads.find(({ stream }) => stream === long)).toMatchObject({ version: 1_700 });
    expect((await verify(A)).totals).toMatchObject({ streams: 21, events: 1_740, broken: 0 });
    expect((await verify(C)).totals).toMatchObject({ streams: 1_100, events: 0, broken: 0 });
  });

  it('may hold whatever JSON can hold', async () => {
    const values = [
      0.1 + 0.2,
      1e21,
      1e-7,
      5e-324,
      Number.MAX_VALUE,
      -0,
      Number.MAX_SAFE_INTEGER,
      2 ** 60,
      123456789.12345678,
    ];
    const data = { values, text: 'é "q" \\ 👩‍🚀', digits: '1234567890123456789', none: null, deep: [{ b: 1, a: [] }] };
    await database.app.transaction(A, (tx) =>
      append(tx, A, [
        { stream: 'Thing-1', expected: 'any', events: [{ ...event(1), data }, event(2)], metadata: METADATA },
      ]),
    );
    expect((await verify()).faults).toEqual([]);
  });

  it('may begin with events from before the chain, which are counted', async () => {
    const stream = await aStream(2);
    await database.asOwner(`update event_log set hash = null`);
    await database.asOwner(`update event_streams set hash = ''`);
    expect((await verify()).totals).toEqual({ streams: 1, events: 2, unchained: 2, broken: 0 });
    await aStream(2, A, stream);
    expect((await verify()).totals).toEqual({ streams: 1, events: 4, unchained: 2, broken: 0 });
    await database.asOwner('update event_log set hash = null where stream_version = 4');
    await expectOneFault({
      code: 'LOG_LINK_MISSING',
      tenant: A,
      stream,
      version: 4,
      position: await positionOf(stream, 4),
    });
  });
});

describe('one event that the owner changed is named', () => {
  it.each([
    ['data', `data = '{"n": 2, "name": "Adb"}'`],
    ['data by less than JavaScript can tell', `data = '{"n": 2.00000000000000000001, "name": "Ada"}'`],
    [
      'data to a number that is none to JavaScript',
      `data = ('{"n": 1' || repeat('0', 400) || ', "name": "Ada"}')::jsonb`,
    ],
    ['data to null', `data = 'null'`],
    ['metadata', `metadata = metadata || '{"actor": "user:2"}'`],
    ['type', `type = 'Thing.chbnged'`],
    ['schema version', `schema_version = 2`],
    ['time', `recorded_at = recorded_at + interval '1 millisecond'`],
    ['time by a microsecond', `recorded_at = recorded_at + interval '1 microsecond'`],
    ['time to infinity', `recorded_at = 'infinity'`],
    ['time to one that is none to JavaScript', `recorded_at = '294000-01-01'`],
    ['link', `hash = set_byte(hash, 0, get_byte(hash, 0) # 1)`],
  ])('%s', async (_what, change) => {
    await aStream(3, B);
    const stream = await aStream(5);
    await aStream(3, C);
    await database.asOwner(`update event_log set ${change} where stream = $1 and stream_version = 3`, [stream]);
    await expectOneFault({
      code: 'LOG_EVENT_CHANGED',
      tenant: A,
      stream,
      version: 3,
      position: await positionOf(stream, 3),
    });
  });

  it('by its first broken link only, one for each stream', async () => {
    const streams = await Promise.all([aStream(4), aStream(4, B)]);
    await database.asOwner(`update event_log set type = 'x' where stream_version in (2, 3)`);
    const { faults, totals } = await verify();
    expect(faults.map(({ tenant, stream, version }) => ({ tenant, stream, version }))).toEqual([
      { tenant: A, stream: streams[0], version: 2 },
      { tenant: B, stream: streams[1], version: 2 },
    ]);
    expect(totals).toMatchObject({ streams: 2, events: 4, broken: 2 });
    expect((await verify(B)).faults).toHaveLength(1);
    expect((await verify(C)).faults).toEqual([]);
  });

  it('also far behind the first page of a long stream', async () => {
    const stream = await aStream(1_200);
    await database.asOwner(`update event_log set data = '{}' where stream_version = 1001`);
    const position = await positionOf(stream, 1_001);
    await expectOneFault({ code: 'LOG_EVENT_CHANGED', tenant: A, stream, version: 1_001, position });
  });
});

describe('what the owner removed is named', () => {
  it('an event in the middle', async () => {
    const stream = await aStream(1_200);
    for (const [version, where] of [
      [1_000, 'stream_version = 1000'],
      [500, 'stream_version between 500 and 503'],
      [1, 'stream_version = 1'],
    ] as const) {
      const position = version === 1 ? null : await positionOf(stream, version - 1);
      await database.asOwner(`delete from event_log where ${where}`);
      await expectOneFault({ code: 'LOG_EVENT_MISSING', tenant: A, stream, version, position });
    }
  });

  it('an event in the middle, also when the later ones are moved up', async () => {
    const stream = await aStream(4);
    await database.asOwner('delete from event_log where stream_version = 2');
    await database.asOwner('update event_log set stream_version = 2 where stream_version = 3');
    await database.asOwner('update event_log set stream_version = 3 where stream_version = 4');
    await database.asOwner('update event_streams set version = 3');
    const position = await positionOf(stream, 2);
    await expectOneFault({ code: 'LOG_EVENT_CHANGED', tenant: A, stream, version: 2, position });
  });

  it('the last events', async () => {
    const stream = await aStream(5);
    await database.asOwner('delete from event_log where stream_version >= 4');
    const position = await positionOf(stream, 3);
    await expectOneFault({ code: 'LOG_HEAD_MISMATCH', tenant: A, stream, version: 4, position });
    await database.asOwner('update event_streams set version = 3');
    await expectOneFault({ code: 'LOG_HEAD_MISMATCH', tenant: A, stream, version: 3, position });
    await database.asOwner('delete from event_log');
    await expectOneFault({ code: 'LOG_HEAD_MISMATCH', tenant: A, stream, version: 1, position: null });
  });

  it("a stream's row", async () => {
    await Promise.all([aStream(1, A, 'Thing-0'), aStream(2, A, 'Thing-1'), aStream(1, A, 'Thing-2')]);
    await database.asOwner(`delete from event_streams where stream = 'Thing-1'`);
    const position = await positionOf('Thing-1', 1);
    const fault = { code: 'LOG_STREAM_ROW_MISSING', tenant: A, stream: 'Thing-1', version: 1 } as const;
    const { faults } = await verify();
    expect(faults).toEqual([{ ...fault, position }]);
    await database.asOwner('delete from event_streams');
    expect((await verify()).faults.map(({ stream }) => stream)).toEqual(['Thing-0', 'Thing-1', 'Thing-2']);
    expect((await verify(B)).faults).toEqual([]);
  });

  it('the rows of more streams than one page has', async () => {
    const streams = Array.from({ length: 1_300 }, (_, n) => `Thing-${n}`);
    await database.app.transaction(A, (tx) =>
      append(
        tx,
        A,
        streams.map((stream) => ({ stream, expected: 'any' as const, events: [event(1)], metadata: METADATA })),
      ),
    );
    await database.asOwner(`delete from event_streams where stream like '%7'`);
    const { faults, totals } = await verify();
    expect(faults.map(({ stream }) => stream).sort()).toEqual(streams.filter((stream) => stream.endsWith('7')).sort());
    expect(totals.streams).toBe(1_300);
  });
});

describe('what the owner put in is named', () => {
  const put = (stream: string, version: number, more = '') =>
    database.asOwner(
      `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at, hash)
       select nextval('event_log_position'), tenant_id, stream, $2, type, schema_version, data, metadata, recorded_at, hash
       from event_log where stream = $1 and stream_version = 1 ${more}`,
      [stream, version],
    );

  it.each([0, -3, 4, 2_000_000_000])('an event at version %i of a stream of three', async (version) => {
    const stream = await aStream(3);
    await put(stream, version);
    const position = version === 2_000_000_000 ? await positionOf(stream, 3) : await positionOf(stream, version);
    if (version < 1) await expectOneFault({ code: 'LOG_EVENT_UNEXPECTED', tenant: A, stream, version, position });
    else if (version === 4)
      await expectOneFault({ code: 'LOG_EVENT_UNEXPECTED', tenant: A, stream, version, position });
    else await expectOneFault({ code: 'LOG_EVENT_MISSING', tenant: A, stream, version: 4, position });
  });

  it('a forged event with a link that fits, by the one behind it', async () => {
    const stream = await aStream(3);
    const [first] = await database.asOwner<{ hash: Buffer; recorded_at: Date }>(
      'select hash, recorded_at from event_log where stream_version = 1',
    );
    const forged = { ...event('forged'), tenant: A, stream, streamVersion: 2, metadata: METADATA };
    const hash = chainHash(first!.hash, { ...forged, recordedAt: first!.recorded_at });
    await database.asOwner('update event_log set data = $1, recorded_at = $2, hash = $3 where stream_version = 2', [
      forged.data,
      first!.recorded_at,
      hash,
    ]);
    const position = await positionOf(stream, 3);
    await expectOneFault({ code: 'LOG_EVENT_CHANGED', tenant: A, stream, version: 3, position });
  });

  it('an event in a stream of its own', async () => {
    const stream = await aStream(3);
    await database.asOwner(`update event_log set stream = 'Thing-forged' where stream = $1 and stream_version = 3`, [
      stream,
    ]);
    expect((await verify()).faults.map((fault) => [fault.code, fault.stream])).toEqual(
      expect.arrayContaining([
        ['LOG_HEAD_MISMATCH', stream],
        ['LOG_STREAM_ROW_MISSING', 'Thing-forged'],
      ]),
    );
  });

  it('positions in another order', async () => {
    const stream = await aStream(3);
    const position = await positionOf(stream, 1);
    await database.asOwner('update event_log set position = -position where stream_version = 1');
    await database.asOwner('update event_log set position = $1 where stream_version = 2', [String(position)]);
    await database.asOwner('update event_log set position = $1 where stream_version = 1', [String(position + 1n)]);
    await expectOneFault({ code: 'LOG_POSITION_DISORDER', tenant: A, stream, version: 2, position });
  });
});

it('appends that go on meanwhile give no false alarm', async () => {
  const streams = Array.from({ length: 30 }, (_, n) => `Busy-${n}`);
  await Promise.all(streams.map((stream) => aStream(20, A, stream)));
  let isOver = false;
  let appended = 0;
  const writers = [1, 2, 3, 4].map(async (writer) => {
    for (let round = 0; !isOver; round += 1) {
      await aStream(3, A, streams[(round * 7 + writer) % streams.length]);
      await aStream(1, A, `New-${writer}-${round}`);
      appended += 4;
    }
  });
  let before = 0;
  for (let look = 0; look < 12; look += 1) {
    const { faults, totals } = await verify();
    expect(faults).toEqual([]);
    expect(totals.events).toBeGreaterThanOrEqual(before);
    before = totals.events;
  }
  isOver = true;
  await Promise.all(writers);
  expect(appended).toBeGreaterThan(12);
  expect((await verify()).totals).toMatchObject({ events: 600 + appended, broken: 0 });
});

describe('a checkpoint', () => {
  it('knows its streams again, also after they have grown', async () => {
    await Promise.all(Array.from({ length: 20 }, (_, n) => aStream(1 + (n % 3), n % 2 ? A : B, `Thing-${n}`)));
    const checkpoint = await aCheckpoint();
    await aStream(4, A, 'Thing-1');
    await aStream(4, A, 'Thing-new');
    expect(await compare(checkpoint)).toEqual({ faults: [], totals: { streams: 20, broken: 0 } });
    expect((await compare(checkpoint, A)).totals.streams).toBe(10);
    expect(await compare(await aCheckpoint(B))).toMatchObject({ faults: [], totals: { streams: 10 } });
  });

  it('keeps names with line ends of any kind on one line', async () => {
    await aStream(1, A, 'a\u2028b\u2029c\r\nd');
    const checkpoint = await aCheckpoint();
    expect(checkpoint.join('')).not.toMatch(/[\u2028\u2029\r\n]/);
    expect(await compare(checkpoint)).toEqual({ faults: [], totals: { streams: 1, broken: 0 } });
  });

  it('names what a verification alone cannot see', async () => {
    const [gone, shorter, rewritten, unlinked] = [
      await aStream(3),
      await aStream(3),
      await aStream(1),
      await aStream(2),
    ];
    await aStream(3, B);
    const checkpoint = await aCheckpoint();
    await database.asOwner('delete from event_log where stream = $1', [gone]);
    await database.asOwner('delete from event_streams where stream = $1', [gone]);
    await database.asOwner('delete from event_log where stream = $1 and stream_version = 3', [shorter]);
    await database.asOwner(
      `update event_streams set version = 2, hash = (select hash from event_log where stream = $1 and stream_version = 2)
       where stream = $1`,
      [shorter],
    );
    await database.asOwner('delete from event_log where stream = $1', [rewritten]);
    await database.asOwner('delete from event_streams where stream = $1', [rewritten]);
    await aStream(2, A, rewritten);
    await database.asOwner('update event_log set hash = null where stream = $1', [unlinked]);
    await database.asOwner(`update event_streams set hash = '' where stream = $1`, [unlinked]);
    expect((await verify()).faults).toEqual([]);
    const { faults, totals } = await compare(checkpoint);
    expect(totals).toEqual({ streams: 5, broken: 4 });
    const found = (stream: string) => faults.find((fault) => fault.stream === stream);
    expect(found(gone)).toEqual({ code: 'LOG_STREAM_GONE', tenant: A, stream: gone, version: 3, position: null });
    expect(found(shorter)).toEqual({
      code: 'LOG_STREAM_SHORTER',
      tenant: A,
      stream: shorter,
      version: 3,
      position: await positionOf(shorter, 2),
    });
    expect(found(rewritten)).toMatchObject({ code: 'LOG_HISTORY_REWRITTEN', version: 1 });
    expect(found(unlinked)).toMatchObject({ code: 'LOG_HISTORY_REWRITTEN', version: 2 });
  });

  it.each([
    ['a changed head', (lines: string[]) => lines.with(1, lines[1]!.replace('"version":1', '"version":2'))],
    ['a removed head', (lines: string[]) => lines.toSpliced(1, 1)],
    ['another scope', (lines: string[]) => lines.with(0, lines[0]!.replace('null', `"${A}"`))],
    ['no end', (lines: string[]) => lines.slice(0, -1)],
    ['more behind its end', (lines: string[]) => [...lines, lines[1]!]],
    ['another number of streams', (lines: string[]) => lines.with(3, lines[3]!.replace(':2,', ':3,'))],
    ['no seal', (lines: string[]) => lines.with(3, '{"streams":2,"seal":""}')],
    ['another version', (lines: string[]) => lines.with(0, lines[0]!.replace('"version":1', '"version":2'))],
    ['something else in it', () => ['{}']],
    ['no JSON in it', () => ['Dear Sir or Madam']],
    ['nothing in it', () => []],
  ])('with %s is refused', async (_what, change) => {
    await Promise.all([aStream(1), aStream(1)]);
    const checkpoint = await aCheckpoint();
    const changed = change(checkpoint);
    expect(changed).not.toEqual(checkpoint);
    await expect(compare(changed)).rejects.toMatchObject({ code: 'LOG_CHECKPOINT_INVALID' });
  });

  it('signed with another secret is refused', async () => {
    await aStream(1);
    const reading = readCheckpoint(each(await aCheckpoint()), checkpointKey('another secret'));
    const drain = async () => {
      for await (const _ of reading);
    };
    await expect(drain()).rejects.toMatchObject({ code: 'LOG_CHECKPOINT_INVALID' });
  });
});
