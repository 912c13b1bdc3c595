import { append, destroySubjectKey, EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import type { TenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { eventsApi } from './events-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'c' };
const LIST = `query ($after: String, $first: Int, $types: [String!], $stream: String) {
  events(after: $after, first: $first, types: $types, stream: $stream) {
    nodes { position stream streamVersion type data metadata recordedAt } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor }
  }
}`;

const codec = new EventCodec(new SubjectKeys('the encryption key of this test'), ATOMO_EVENTS);

let database: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  api = await anApi([eventsApi(database.app, codec)]);
  for (let n = 1; n <= 7; n += 1) {
    await happen(OURS, `Item-${n % 2 ? 'odd' : 'even'}`, n % 3 ? 'Item.updated' : 'Item.created', { n });
    await happen(THEIRS, `Item-${n % 2 ? 'odd' : 'even'}`, 'Item.created', { theirs: n });
  }
});

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

const happen = (tenant: TenantId, stream: string, type: string, data: object) =>
  database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [
      { stream, expected: 'any', events: [{ type, schemaVersion: 1, data: { ...data } }], metadata: METADATA },
    ]),
  );
const list = async (variables: object = {}, tenant = OURS) => (await api.data(LIST, { ...variables }, tenant)).events;
const numbers = (page: { nodes: { data: { n?: number; theirs?: number } }[] }) =>
  page.nodes.map(({ data }) => data.n ?? `theirs ${data.theirs}`);

test('what happened comes in its order, of this tenant only', async () => {
  const page = await list();
  expect(numbers(page)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  const positions = page.nodes.map((node: { position: string }) => BigInt(node.position));
  expect(positions).toEqual(positions.toSorted((a: bigint, b: bigint) => Number(a - b)));
  expect(page.nodes[3]).toEqual({
    position: expect.stringMatching(/^\d+$/),
    stream: 'Item-even',
    streamVersion: 2,
    type: 'Item.updated',
    data: { n: 4 },
    metadata: METADATA,
    recordedAt: expect.stringMatching(/^\d{4}-.*Z$/),
  });
  expect(numbers(await list({}, THEIRS))).toEqual([1, 2, 3, 4, 5, 6, 7].map((n) => `theirs ${n}`));
});

test.each([
  [{ types: ['Item.created'] }, [3, 6]],
  [{ types: ['Item.created', 'Item.updated'] }, [1, 2, 3, 4, 5, 6, 7]],
  [{ types: ['Brand.created'] }, []],
  [{ types: [] }, []],
  [{ stream: 'Item-even' }, [2, 4, 6]],
  [{ stream: 'Item-even', types: ['Item.created'] }, [6]],
  [{ stream: "Item-even' or true --" }, []],
])('%j lists %j', async (filter, expected) => expect(numbers(await list(filter))).toEqual(expected));

test.each([1, 2, 3, 7, 100])('pages of %p together are the list', async (first) => {
  const seen: unknown[] = [];
  for (let after: string | null = null; ;) {
    const page: Json = await list({ first, after });
    seen.push(...numbers(page));
    expect(page.pageInfo.hasPreviousPage).toBe(after !== null);
    if (!page.pageInfo.hasNextPage) break;
    expect(page.nodes).toHaveLength(first);
    expect(page.edges.at(-1).cursor).toBe(page.pageInfo.endCursor);
    after = page.pageInfo.endCursor;
  }
  expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test('a cursor of another tenant shows nothing of that tenant', async () => {
  const theirs = await list({ first: 1 }, THEIRS);
  expect(numbers(await list({ after: theirs.pageInfo.endCursor })).every((n) => typeof n === 'number')).toBe(true);
});

const cursor = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url');
test.each([
  ['words', 'page two'],
  ['a cursor of another list', cursor('historicalSyncJobs', 'x')],
  ['no position', cursor('events')],
  ['a word for a position', cursor('events', 'x')],
  ['a negative position', cursor('events', '-1')],
  ['a position beyond all', cursor('events', '99999999999999999999')],
  ['a list for a position', cursor('events', [1])],
  ['two positions', cursor('events', '1', '2')],
])('%s is no cursor', async (_name, after) => {
  const { errors } = await api.ask(LIST, { after });
  expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
});

test.each([0, 101])('first: %p is refused', async (first) => {
  expect((await api.ask(LIST, { first })).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
});

test.each([
  [{ stream: 'a\0' }],
  [{ stream: '' }],
  [{ types: ['\ud800'] }],
  [{ types: ['a\0'] }],
  [{ types: Array.from({ length: 1_001 }, (_, n) => `Item.${n}`) }],
])('%j names nothing that could be in the log', async (variables) => {
  expect((await api.ask(LIST, variables)).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
});

test('what is not settled yet is not listed, nor is what comes behind it, until it is', async () => {
  let commit = () => {};
  const held = new Promise<void>((resolve) => (commit = resolve));
  let appended = () => {};
  const isAppended = new Promise<void>((resolve) => (appended = resolve));
  const slow = database.app.transaction(OURS, async (tx) => {
    await append(tx, OURS, [
      {
        stream: 'Item-slow',
        expected: 'any',
        events: [{ type: 'Item.updated', schemaVersion: 1, data: { n: 8 } }],
        metadata: METADATA,
      },
    ]);
    appended();
    await held;
  });
  await isAppended;
  await happen(OURS, 'Item-fast', 'Item.updated', { n: 9 });
  expect(numbers(await list())).toEqual([1, 2, 3, 4, 5, 6, 7]);
  commit();
  await slow;
  expect(numbers(await list())).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('personal fields are opened for who may read, and null once their subject is erased', async () => {
  const stream = 'Item-personal';
  const event = {
    type: 'Item.created',
    schemaVersion: 1,
    data: { title: 'Lamp', contactMail: 'ada@example.com' },
    personal: { subject: stream, fields: ['contactMail'] },
  };
  await database.app.transaction(OURS, async (tx) => {
    const appends = [{ stream, expected: 'none' as const, events: [event], metadata: METADATA }];
    await append(tx, OURS, await codec.encode(tx, OURS, appends));
  });
  expect((await list({ stream })).nodes).toMatchObject([{ data: event.data }]);
  await database.system.transaction((tx) => destroySubjectKey(tx, OURS, stream));
  expect((await list({ stream })).nodes[0].data).toEqual({ title: 'Lamp', contactMail: null });
});
