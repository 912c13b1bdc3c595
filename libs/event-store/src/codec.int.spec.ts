import { createCipheriv } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import { EventCatalogue, type NewEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append, type StreamAppend } from './append.js';
import { EventCodec, fieldNames } from './codec.js';
import { readStream } from './read.js';
import { eventStoreMigrations } from './schema.js';
import { destroySubjectKey, SubjectKeys } from './subject-keys.js';
import { verifyLog } from './verify.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const SECRET = 'the encryption key of these tests';
const CATALOGUE = new EventCatalogue({
  '*.created': { version: 1, upcasters: {} },
  'Parcel.sent': { version: 2, upcasters: { 1: ({ who, ...rest }) => ({ ...rest, sender: who }) } },
});

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let database: TestDatabase;
const keys = new SubjectKeys(SECRET);
const codec = new EventCodec(keys, CATALOGUE);

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());

const newStream = () => `Contact-${uuidv7()}`;
const created = (data: NewEvent['data'], subject: string, fields: readonly string[]): NewEvent => ({
  type: 'Contact.created',
  schemaVersion: 1,
  data,
  personal: { subject, fields },
});
const entry = (stream: string, ...events: NewEvent[]): StreamAppend => ({
  stream,
  expected: 'any',
  events,
  metadata: METADATA,
});

async function write(appends: readonly StreamAppend[], tenant = A, by = codec): Promise<void> {
  await database.app.transaction(tenant, async (tx) => append(tx, tenant, await by.encode(tx, tenant, appends)));
}

const read = (stream: string, tenant = A, by = codec) =>
  database.app.transaction(tenant, async (tx) => {
    return by.decode(tx, await readStream(tx, tenant, stream, { limit: 100 }));
  });
const dataOf = async (stream: string, tenant = A, by = codec) =>
  (await read(stream, tenant, by)).map(({ data }) => data);
const stored = async (stream: string) =>
  (await database.asOwner<{ row: string }>('select e::text as row from event_log e where stream = $1', [stream]))
    .map(({ row }) => row)
    .join('\n');
const keyRows = (subject: string) =>
  database.asOwner<{ generation: number; wrapped: Buffer | null; wrapped_by: string; destroyed_at: Date | null }>(
    'select * from subject_keys where subject = $1 order by generation',
    [subject],
  );
const erase = (subject: string, tenant = A) =>
  database.system.transaction((tx) => destroySubjectKey(tx, tenant, subject));

/** A transaction that counts its statements. */
function counting(tx: Tx): { tx: Tx; statements: () => number } {
  let count = 0;
  const counted = Object.create(tx) as Tx;
  counted.query = (...args) => ((count += 1), tx.query(...args)) as never;
  counted.prepared = (...args) => ((count += 1), tx.prepared(...args)) as never;
  counted.execute = (...args) => ((count += 1), tx.execute(...args));
  return { tx: counted, statements: () => count };
}

describe('what is stored', () => {
  it('has nothing personal in it, and is read again as it was decided', async () => {
    const stream = newStream();
    const data = { name: 'Ada Lovelace', email: 'ada@example.com', stage: 'Lead', phone: null };
    await write([entry(stream, created(data, stream, ['name', 'email', 'phone']))]);
    const row = await stored(stream);
    expect(row).not.toMatch(/Ada|Lovelace|ada@|example/);
    const [event] = await database.app.transaction(A, (tx) => readStream(tx, A, stream, { limit: 1 }));
    expect(event!.data).toEqual({
      stage: 'Lead',
      $sealed: {
        subject: stream,
        key: 1,
        fields: ['name', 'email', 'phone'],
        box: expect.stringMatching(/^[A-Za-z0-9+/]+=*$/),
      },
    });
    expect(fieldNames(event!.data).toSorted()).toEqual(['email', 'name', 'phone', 'stage']);
    expect(await dataOf(stream)).toEqual([data]);
  });

  it('holds for any values, and the chain holds over it', async () => {
    // In the clear stand only values that Postgres' jsonb takes; what is sealed may hold any text, NUL and halves included.
    const plain = fc.dictionary(
      fc.stringMatching(/^p[a-z]{0,8}$/),
      fc.oneof(fc.integer(), fc.boolean(), fc.constant(null)),
    );
    const personal = fc.dictionary(
      fc.oneof(fc.stringMatching(/^s[a-z]{0,8}$/), fc.constant('__proto__')),
      fc.jsonValue(),
      {
        minKeys: 1,
      },
    );
    const marked = fc.uuid();
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(plain, personal, marked), { minLength: 1, maxLength: 8 }), async (drawn) => {
        const stream = newStream();
        const events = drawn.map(([open, closed, mark]) => {
          const data = JSON.parse(JSON.stringify({ ...open, ...closed, sMark: mark })) as NewEvent['data'];
          return created(data, stream, [...Object.keys(closed), 'sMark']);
        });
        await write([entry(stream, ...events)]);
        expect(JSON.stringify(await dataOf(stream), sorted)).toBe(
          JSON.stringify(
            events.map(({ data }) => data),
            sorted,
          ),
        );
        const row = await stored(stream);
        for (const [, , mark] of drawn) expect(row).not.toContain(mark);
      }),
      { numRuns: 40 },
    );
    const faults: unknown[] = [];
    await verifyLog(database.system, { onFault: (fault) => faults.push(fault) });
    expect(faults).toEqual([]);
  });

  it('is the event itself where nothing is personal, without a statement', async () => {
    await database.app.transaction(A, async (inner) => {
      const { tx, statements } = counting(inner);
      const appends = [entry(newStream(), { type: 'Contact.created', schemaVersion: 1, data: { stage: 'Lead' } })];
      expect(await codec.encode(tx, A, appends)).toBe(appends);
      expect(await codec.decode(tx, [])).toEqual([]);
      expect(statements()).toBe(0);
    });
  });

  it('takes one statement for the keys of 256 subjects, to write as to read', async () => {
    const streams = Array.from({ length: 256 }, newStream);
    await database.app.transaction(A, async (inner) => {
      const { tx, statements } = counting(inner);
      const appends = streams.map((stream) => entry(stream, created({ name: stream, stage: 'x' }, stream, ['name'])));
      const encoded = await codec.encode(
        tx,
        A,
        appends.map((each) => ({ ...each, expected: 'none' as const })),
      );
      expect(statements()).toBe(1);
      const result = await append(inner, A, encoded);
      const events = await codec.decode(tx, result.ok ? result.events : []);
      expect(statements()).toBe(2);
      expect(events.map(({ data }) => data)).toEqual(streams.map((name) => ({ name, stage: 'x' })));
      await codec.encode(tx, A, appends);
      expect(statements()).toBe(3);
    });
  });

  it('is sealed under the key that is there, also where a stream is begun whose subject has one', async () => {
    const [known, erased, fresh] = [newStream(), newStream(), newStream()];
    const find = (subject: string) => database.app.transaction(A, (tx) => keys.current(tx, A, [subject]));
    const before = (await find(known)).get(known)!;
    await find(erased);
    await erase(erased);
    const begin = [known, erased, fresh].map((stream) => ({
      ...entry(stream, created({ name: stream }, stream, ['name'])),
      expected: 0,
    }));
    await write(begin);
    for (const stream of [known, erased, fresh]) expect(await dataOf(stream)).toEqual([{ name: stream }]);
    expect((await find(known)).get(known)!.key.equals(before.key)).toBe(true);
    expect([await keyRows(known), await keyRows(erased), await keyRows(fresh)].map((rows) => rows.length)).toEqual([
      1, 2, 1,
    ]);
  });

  it('may not have a field of the store', async () => {
    const event = { type: 'Contact.created', schemaVersion: 1, data: { $sealed: {} } };
    await expect(write([entry(newStream(), event)])).rejects.toThrow(TypeError);
  });

  it('no two boxes of the same values are alike', async () => {
    const stream = newStream();
    await write([entry(stream, ...[1, 2].map(() => created({ name: 'Ada' }, stream, ['name'])))]);
    const events = await database.app.transaction(A, (tx) => readStream(tx, A, stream, { limit: 2 }));
    const [one, two] = events.map(({ data }) => (data['$sealed'] as { box: string }).box);
    expect(one).not.toBe(two);
  });
});

describe('tenants', () => {
  it('have keys of their own for subjects of the same name, and one cannot open what is the other’s', async () => {
    const stream = newStream();
    await write([entry(stream, created({ name: 'ours' }, stream, ['name']))], A);
    await write([entry(stream, created({ name: 'theirs' }, stream, ['name']))], B);
    expect([await dataOf(stream, A), await dataOf(stream, B)]).toEqual([[{ name: 'ours' }], [{ name: 'theirs' }]]);
    const theirs = await database.app.transaction(B, (tx) => readStream(tx, B, stream, { limit: 1 }));
    await expect(database.app.transaction(A, (tx) => codec.decode(tx, theirs))).rejects.toMatchObject({
      code: 'SEALED_DATA_BROKEN',
    });
    const ours = await database.app.transaction(A, (tx) => readStream(tx, A, stream, { limit: 1 }));
    const both = await database.system.transaction(async (inner) => {
      const { tx, statements } = counting(inner);
      const events = await codec.decode(tx, [...ours, ...theirs]);
      expect(statements()).toBe(1);
      return events;
    });
    expect(both.map(({ data }) => data)).toEqual([{ name: 'ours' }, { name: 'theirs' }]);
    await erase(stream, B);
    expect([await dataOf(stream, A), await dataOf(stream, B)]).toEqual([[{ name: 'ours' }], [{ name: null }]]);
  });
});

describe('the keys', () => {
  it('are made once, and kept wrapped', async () => {
    const stream = newStream();
    for (const name of ['Ada', 'Bob']) await write([entry(stream, created({ name }, stream, ['name']))]);
    expect(await keyRows(stream)).toMatchObject([{ generation: 1, wrapped_by: keys.ring.id, destroyed_at: null }]);
    const [row] = await keyRows(stream);
    const key = await database.app.transaction(A, (tx) => keys.current(tx, A, [stream]));
    expect(row!.wrapped!.includes(key.get(stream)!.key.export())).toBe(false);
    expect(await dataOf(stream)).toEqual([{ name: 'Ada' }, { name: 'Bob' }]);
  });

  it('of a subject are one, however many processes meet it first', async () => {
    const stream = newStream();
    const release = Promise.withResolvers<void>();
    const made = Promise.withResolvers<void>();
    const first = database.app.transaction(A, async (tx) => {
      await keys.current(tx, A, [stream]);
      made.resolve();
      await release.promise;
    });
    await made.promise;
    const other = new EventCodec(new SubjectKeys(SECRET), CATALOGUE);
    const second = write([entry(stream, created({ name: 'Ada' }, stream, ['name']))], A, other);
    await eventually('the second waits for the first', async () => {
      const waiting = await database.asOwner(
        `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
      return waiting.length > 0;
    });
    release.resolve();
    await Promise.all([first, second]);
    expect(await keyRows(stream)).toHaveLength(1);
    expect(await dataOf(stream)).toEqual([{ name: 'Ada' }]);
  });

  it('are made by the second when the first rolls back', async () => {
    const stream = newStream();
    await expect(
      database.app.transaction(A, async (tx) => {
        await keys.current(tx, A, [stream]);
        throw new Error('rolled back');
      }),
    ).rejects.toThrow('rolled back');
    expect(await keyRows(stream)).toEqual([]);
    await write([entry(stream, created({ name: 'Ada' }, stream, ['name']))]);
    expect(await dataOf(stream)).toEqual([{ name: 'Ada' }]);
  });

  it('of many subjects are found and made side by side, in whatever order they are named', async () => {
    const streams = Array.from({ length: 60 }, newStream);
    const batch = (order: readonly string[]) =>
      write(order.map((stream) => entry(stream, created({ name: 'x' }, stream, ['name']))));
    const half = streams.slice(0, 30);
    await batch(half);
    await erase(half[0]!);
    const find = (order: readonly string[]) => database.app.transaction(A, (tx) => keys.current(tx, A, order));
    const [one, two] = await Promise.all([find(streams), find(streams.toReversed())]);
    const shown = (found: typeof one) =>
      Object.fromEntries([...found].map(([subject, { key }]) => [subject, key.export().toString('hex')]));
    expect(shown(one)).toEqual(shown(two));
    expect(one.size).toBe(60);
    expect(one.get(half[0]!)!.generation).toBe(2);
  });

  it('wrapped under another encryption key are refused with the id of the one that is needed', async () => {
    const stream = newStream();
    await write([entry(stream, created({ name: 'Ada' }, stream, ['name']))]);
    const other = new SubjectKeys('another encryption key');
    const stranger = new EventCodec(other, CATALOGUE);
    const refusal = {
      code: 'ENCRYPTION_KEY_WRONG',
      message: expect.stringContaining(keys.ring.id),
      details: { needed: keys.ring.id, inUse: other.ring.id },
    };
    expect(other.ring.id).not.toBe(keys.ring.id);
    await expect(dataOf(stream, A, stranger)).rejects.toMatchObject(refusal);
    const again = entry(stream, created({ name: 'Bob' }, stream, ['name']));
    await expect(write([again], A, stranger)).rejects.toMatchObject(refusal);
    await expect(database.system.transaction((tx) => other.check(tx))).rejects.toMatchObject({ code: refusal.code });
    await database.system.transaction((tx) => keys.check(tx));
  });

  it('that were moved to another subject, or changed, are refused', async () => {
    const [one, two] = [newStream(), newStream()];
    for (const stream of [one, two]) await write([entry(stream, created({ name: stream }, stream, ['name']))]);
    const [from] = await keyRows(one);
    await database.asOwner('update subject_keys set wrapped = $1 where subject = $2', [from!.wrapped, two]);
    await expect(dataOf(two)).rejects.toMatchObject({
      code: 'SEALED_DATA_BROKEN',
      details: { what: `key 1 of ${two}` },
    });
    expect(await dataOf(one)).toEqual([{ name: one }]);
  });

  it('can be destroyed by the system role alone', async () => {
    const stream = newStream();
    await write([entry(stream, created({ name: 'Ada' }, stream, ['name']))]);
    await expect(database.app.transaction(A, (tx) => destroySubjectKey(tx, A, stream))).rejects.toThrow(/permission/);
  });
});

describe('a destroyed key', () => {
  it('leaves the fields null and all else as it was, at once, also where the key was used before', async () => {
    const stream = newStream();
    const data = { name: 'Ada', email: 'a@b.c', stage: 'Lead' };
    await write([entry(stream, created(data, stream, ['name', 'email']))]);
    expect(await dataOf(stream)).toEqual([data]);
    expect(await erase(stream)).toBe(1);
    expect(await dataOf(stream)).toEqual([{ name: null, email: null, stage: 'Lead' }]);
    expect(await keyRows(stream)).toMatchObject([{ wrapped: null, destroyed_at: expect.any(Date) }]);
    expect(await erase(stream)).toBe(0);
    expect(await erase(newStream())).toBe(0);
  });

  it('is followed by the next one, which opens nothing of before', async () => {
    const stream = newStream();
    await write([entry(stream, created({ name: 'Ada' }, stream, ['name']))]);
    await erase(stream);
    await write([entry(stream, created({ name: 'Bob' }, stream, ['name']))]);
    expect((await keyRows(stream)).map(({ generation }) => generation)).toEqual([1, 2]);
    expect(await dataOf(stream)).toEqual([{ name: null }, { name: 'Bob' }]);
    await erase(stream);
    await write([entry(stream, created({ name: 'Cleo' }, stream, ['name']))]);
    expect(await dataOf(stream)).toEqual([{ name: null }, { name: null }, { name: 'Cleo' }]);
  });
});

describe('a box', () => {
  type Sealed = { subject: string; key: number; fields: string[]; box: string };
  const changed: [string, (sealed: Sealed, other: Sealed) => unknown][] = [
    ['with a bit of it flipped', (s) => ({ ...s, box: flipped(s.box, 20) })],
    ['with another nonce', (s) => ({ ...s, box: flipped(s.box, 3) })],
    ['with another tag', (s) => ({ ...s, box: flipped(s.box, -1) })],
    ['of another form', (s) => ({ ...s, box: flipped(s.box, 0) })],
    ['that was cut', (s) => ({ ...s, box: s.box.slice(0, 16) })],
    ['with a shorter tag', (s) => ({ ...s, box: Buffer.from(s.box, 'base64').subarray(0, -12).toString('base64') })],
    ['that is empty', (s) => ({ ...s, box: '' })],
    ['of another stream', (_s, other) => other],
    ['with a key that never was', (s) => ({ ...s, key: 9 })],
    ['with a key that is no number of Postgres', (s) => ({ ...s, key: 2 ** 40 })],
    ['without its subject', ({ subject: _subject, ...s }) => s],
    ['that is null', () => null],
  ];
  const flipped = (box: string, at: number) => {
    const bytes = Buffer.from(box, 'base64');
    const index = at < 0 ? bytes.length + at : at;
    bytes[index] = bytes[index]! ^ 1;
    return bytes.toString('base64');
  };

  it.each(changed)('%s is refused with its position', async (_name, change) => {
    const [stream, another] = [newStream(), newStream()];
    for (const name of [stream, another]) await write([entry(name, created({ name: 'Ada' }, name, ['name']))]);
    const [[event], [other]] = await database.app.transaction(A, async (tx) => [
      await readStream(tx, A, stream, { limit: 1 }),
      await readStream(tx, A, another, { limit: 1 }),
    ]);
    const $sealed = change(event!.data['$sealed'] as Sealed, other!.data['$sealed'] as Sealed);
    const tampered = { ...event!, data: { $sealed } };
    await expect(database.app.transaction(A, (tx) => codec.decode(tx, [tampered]))).rejects.toMatchObject({
      code: 'SEALED_DATA_BROKEN',
      details: { position: String(event!.position) },
    });
  });

  it('opens under its own type only', async () => {
    const stream = newStream();
    await write([entry(stream, created({ name: 'Ada' }, stream, ['name']))]);
    const [event] = await database.app.transaction(A, (tx) => readStream(tx, A, stream, { limit: 1 }));
    const moved = { ...event!, type: 'Person.created' };
    await expect(database.app.transaction(A, (tx) => codec.decode(tx, [moved]))).rejects.toMatchObject({
      code: 'SEALED_DATA_BROKEN',
    });
  });
});

describe('older shapes', () => {
  it('are opened first, then read as those of today', async () => {
    const stream = newStream();
    const sent = (schemaVersion: number, data: NewEvent['data'], fields: string[]): NewEvent => ({
      type: 'Parcel.sent',
      schemaVersion,
      data,
      personal: { subject: stream, fields },
    });
    await write([entry(stream, sent(1, { who: 'Ada', to: 'Rome' }, ['who']), sent(2, { sender: 'Bob' }, ['sender']))]);
    expect(await read(stream)).toMatchObject([
      { schemaVersion: 2, data: { sender: 'Ada', to: 'Rome' } },
      { schemaVersion: 2, data: { sender: 'Bob' } },
    ]);
    await erase(stream);
    expect(await dataOf(stream)).toEqual([{ sender: null, to: 'Rome' }, { sender: null }]);
  });

  it('that nobody knows are refused', async () => {
    const [newer, unknown] = [newStream(), newStream()];
    await write([entry(newer, { type: 'Parcel.sent', schemaVersion: 3, data: {} })]);
    await write([entry(unknown, { type: 'Parcel.lost', schemaVersion: 1, data: {} })]);
    await expect(read(newer)).rejects.toMatchObject({ code: 'EVENT_VERSION_UNKNOWN' });
    await expect(read(unknown)).rejects.toMatchObject({ code: 'EVENT_TYPE_UNKNOWN' });
  });
});

describe('the state of a record', () => {
  it('is sealed as its events are, and opens in its own stream only', async () => {
    const [stream, other] = [newStream(), newStream()];
    const values = { name: 'Ada', stage: 'Lead', email: null };
    const personal = { subject: stream, fields: ['name', 'email'] };
    await database.app.transaction(A, async (tx) => {
      const state = await codec.sealState(tx, A, stream, values, personal);
      expect(JSON.stringify(state)).not.toContain('Ada');
      expect(await codec.openState(tx, A, stream, state)).toEqual(values);
      await expect(codec.openState(tx, A, other, state)).rejects.toMatchObject({ code: 'SEALED_DATA_BROKEN' });
      expect(await codec.sealState(tx, A, other, values, { subject: other, fields: [] })).toBe(values);
    });
    const state = await database.app.transaction(A, (tx) => codec.sealState(tx, A, stream, values, personal));
    await erase(stream);
    expect(await database.app.transaction(A, (tx) => codec.openState(tx, A, stream, state))).toEqual({
      name: null,
      stage: 'Lead',
      email: null,
    });
    expect(await keyRows(other)).toEqual([]);
  });
});

describe('a box of the first form', () => {
  // Never edited: events like this one are in logs, and have to open for ever.
  const golden = JSON.parse(
    fs.readFileSync(path.join(import.meta.dirname, 'golden/sealed-event.1.json'), 'utf8'),
  ) as Golden;
  interface Golden {
    encryptionKey: string;
    dataKey: string;
    nonce: string;
    wrapped: string;
    wrappedBy: string;
    event: { tenant: TenantId; stream: string; type: string; schemaVersion: number };
    data: NewEvent['data'];
    stored: { stage: string; $sealed: Sealed };
  }
  interface Sealed {
    subject: string;
    key: number;
    fields: string[];
    box: string;
  }

  it('opens', async () => {
    const { event, stored: data, wrapped, wrappedBy, encryptionKey } = golden;
    await database.asOwner(
      `insert into subject_keys (tenant_id, subject, generation, wrapped, wrapped_by) values ($1, $2, $3, $4, $5)`,
      [event.tenant, data.$sealed.subject, data.$sealed.key, Buffer.from(wrapped, 'base64'), wrappedBy],
    );
    const recorded = { ...event, data, position: 1n, streamVersion: 1, metadata: METADATA, recordedAt: new Date(0) };
    const its = new EventCodec(new SubjectKeys(encryptionKey), CATALOGUE);
    const [decoded] = await database.system.transaction((tx) => its.decode(tx, [recorded]));
    expect(decoded!.data).toEqual(golden.data);
  });

  it('is what AES-256-GCM makes of its parts', () => {
    const { subject, key, fields, box } = golden.stored.$sealed;
    const { tenant, stream, type } = golden.event;
    const nonce = Buffer.from(golden.nonce, 'base64');
    const cipher = createCipheriv('aes-256-gcm', Buffer.from(golden.dataKey, 'base64'), nonce);
    cipher.setAAD(Buffer.from(JSON.stringify(['atomo sealed fields', tenant, stream, type, subject, key])));
    const content = JSON.stringify(Object.fromEntries(fields.map((name) => [name, golden.data[name]])));
    const made = [Buffer.of(1), nonce, cipher.update(content, 'utf8'), cipher.final(), cipher.getAuthTag()];
    expect(Buffer.concat(made).toString('base64')).toBe(box);
  });
});

/** JSON with the names of objects in order: jsonb keeps none. */
function sorted(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}
