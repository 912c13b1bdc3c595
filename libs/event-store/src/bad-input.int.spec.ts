import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { NewEvent } from '@atomo-cc/events';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { append, type APPEND_ERRORS } from './append.js';
import { readStream } from './read.js';
import { eventStoreMigrations } from './schema.js';
import { verifyLog } from './verify.js';

const METADATA = { actor: 'user:bad-input', correlationId: 'c', causationId: 'd' };
/** Found as a key of its own by who parses, and lost by who assigns. */
const PROTO = JSON.parse('{"__proto__": {"a": 1}}') as NewEvent['data'];

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());

const event = (data: NewEvent['data']): NewEvent => ({ type: 'Thing.changed', schemaVersion: 1, data });
const appendIn = (tenant: TenantId, stream: string, ...events: readonly NewEvent[]) =>
  database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [
      { stream: `${stream}-before`, expected: 'any', events: [event({})], metadata: METADATA },
      { stream, expected: 'none', events, metadata: METADATA },
    ]),
  );
const read = (tenant: TenantId, stream: string) =>
  database.app.transaction(tenant, (tx) => readStream(tx, tenant, stream, { limit: 10 }));

async function faults(tenant: TenantId) {
  const found: unknown[] = [];
  const totals = await verifyLog(database.system, { tenant, onFault: (fault) => void found.push(fault) });
  return { found, totals };
}

// Whichever it is for a value: never half, never other than it was said, and never a chain that no longer proves anything.
test.each<[name: string, data: NewEvent['data'], refused: keyof typeof APPEND_ERRORS | null]>([
  ['text of more than 1 MB', { text: 'x'.repeat(1_200_000) }, 'EVENT_TOO_LARGE'],
  ['text of 1 MB in which every letter takes three bytes', { text: '漢'.repeat(1_000_000) }, 'EVENT_TOO_LARGE'],
  ['a NUL', { text: 'a\0b' }, 'EVENT_NOT_STORABLE'],
  ['a NUL in a name', { 'a\0b': 1 }, 'EVENT_NOT_STORABLE'],
  ['half a surrogate pair', { text: 'a\uD800b' }, 'EVENT_NOT_STORABLE'],
  ['half a surrogate pair in a name', { '\uDC00': 1 }, 'EVENT_NOT_STORABLE'],
  [
    'numbers at their limits',
    { n: [Number.MAX_VALUE, Number.MIN_VALUE, -0, 1e21, 1e-7, 0.1 + 0.2, 2 ** 53 + 2] },
    null,
  ],
  ['no number', { n: NaN }, 'EVENT_NOT_STORABLE'],
  ['no end', { n: Infinity }, 'EVENT_NOT_STORABLE'],
  ['a bigint', { n: 1n }, 'EVENT_NOT_STORABLE'],
  ['nothing', { n: undefined, kept: 1 }, null],
  ['a moment', { at: new Date('2026-02-28T12:00:00.120Z') }, null],
  ['names that sort otherwise in UTF-8 than in UTF-16', { '\u{10000}': 1, '\uFFFF': 2, b: 3, a: 4, '': 5 }, null],
  ['the name __proto__', PROTO, null],
  ['deep nesting', { deep: JSON.parse('['.repeat(500) + ']'.repeat(500)) as unknown }, null],
])('%s is stored as it was said, or refused whole; the log stays sound', async (name, data, refused) => {
  const tenant = uuidv7() as TenantId;
  await appendIn(tenant, 'Thing-neighbour', event({ n: 1 }));
  const [odd, beside] = await Promise.allSettled([
    appendIn(tenant, 'Thing-odd', event({ n: 1 }), event(data)),
    appendIn(tenant, 'Thing-beside', event({ n: 1 })),
  ]);
  expect(beside).toMatchObject({ status: 'fulfilled', value: { ok: true } });
  const stored = await read(tenant, 'Thing-odd');
  // Which of the two is told in the table: a refusal that became a change, or the other way round, is one to decide on.
  expect(odd).toMatchObject(
    refused ? { status: 'rejected', reason: { name: 'CodedError', code: refused } } : { status: 'fulfilled' },
  );
  if (odd.status === 'fulfilled') {
    expect(stored).toHaveLength(2);
    expect(stored[1]!.data).toEqual(JSON.parse(JSON.stringify(data)));
    expect(Object.keys(stored[1]!.data).toSorted()).toEqual(
      Object.keys(JSON.parse(JSON.stringify(data)) as object).toSorted(),
    );
  } else {
    expect(stored).toEqual([]);
    expect(await read(tenant, 'Thing-odd-before')).toEqual([]);
    // The stream is not spoilt: the next append is its first.
    expect(await appendIn(tenant, 'Thing-odd', event({ n: 1 }))).toMatchObject({ ok: true });
  }
  const { found, totals } = await faults(tenant);
  expect({ name, found }).toEqual({ name, found: [] });
  expect(totals.events).toBe(odd.status === 'fulfilled' ? 7 : 6);
});
