import { append, eventStoreMigrations } from '@atomo-cc/event-store';
import type { TenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { auditApi } from './audit-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;
const ARGUMENTS = `$first: Int, $after: String, $actor: String, $actions: [String!], $stream: String, $fields: [String!], $from: DateTime, $to: DateTime`;
const listing = (node: string) => `query (${ARGUMENTS}) {
  auditLog(first: $first, after: $after, actor: $actor, actions: $actions, stream: $stream, fields: $fields, from: $from, to: $to) {
    nodes { ${node} } edges { cursor } pageInfo { hasNextPage hasPreviousPage endCursor }
  }
}`;
const LIST = listing('at actor action stream streamVersion fields address requestId');
const CHANGES = listing('streamVersion changes { field before after }');

let database: TestDatabase;
let api: TestApi;
const times: string[] = [];

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  api = await anApi([auditApi(database.app)]);
  for (let n = 1; n <= 6; n += 1) {
    times.push(await happen(OURS, n % 2 ? 'user:odd' : 'user:even', n, n === 6 ? 'Item.purged' : 'Item.updated'));
    await happen(THEIRS, 'user:odd', n, 'Item.updated');
  }
});
afterAll(async () => {
  await api?.close();
  await database?.drop();
});

async function happen(tenant: TenantId, actor: string, n: number, type: string): Promise<string> {
  const data = n % 3 ? { price: n } : { price: n, title: `t${n}` };
  const metadata = { actor, correlationId: `request ${n}`, causationId: 'c', ...(n === 1 && { address: '10.0.0.9' }) };
  const result = await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [{ stream: 'Item-1', expected: 'any', events: [{ type, schemaVersion: 1, data }], metadata }]),
  );
  // The next event has another time.
  await database.asOwner('select pg_sleep(0.002)');
  return result.ok ? result.events[0]!.recordedAt.toISOString() : '';
}
const list = async (variables: object = {}, query = LIST) => (await api.data(query, { ...variables })).auditLog;
const versions = (page: Json) => page.nodes.map((node: { streamVersion: number }) => node.streamVersion);

test('entries come newest first, whole, of this tenant alone', async () => {
  const page = await list();
  expect(versions(page)).toEqual([6, 5, 4, 3, 2, 1]);
  expect(page.nodes[5]).toEqual({
    at: times[0],
    actor: 'user:odd',
    action: 'Item.updated',
    stream: 'Item-1',
    streamVersion: 1,
    fields: ['price'],
    address: '10.0.0.9',
    requestId: 'request 1',
  });
  expect(page.nodes[0]).toMatchObject({ address: null, fields: ['price', 'title'] });
});

test.each([
  [{ actor: 'user:even' }, [6, 4, 2]],
  [{ actions: ['Item.purged'] }, [6]],
  [{ actions: [] }, []],
  [{ stream: 'Item-1', fields: ['title'] }, [6, 3]],
  [{ stream: 'Item-2' }, []],
  [{ fields: ['title'], actor: 'user:odd' }, [3]],
])('%j lists %j', async (filter, expected) => expect(versions(await list(filter))).toEqual(expected));

test('from is part of the time asked for, and to is not', async () => {
  expect(versions(await list({ from: times[1], to: times[4] }))).toEqual([4, 3, 2]);
  expect(versions(await list({ from: times[5] }))).toEqual([6]);
  expect(versions(await list({ to: times[1], actor: 'user:odd' }))).toEqual([1]);
});

test.each([1, 2, 5, 100])('pages of %p together are the list', async (first) => {
  const seen: unknown[] = [];
  for (let after: string | null = null; ;) {
    const page: Json = await list({ first, after });
    seen.push(...versions(page));
    expect(page.pageInfo.hasPreviousPage).toBe(after !== null);
    if (!page.pageInfo.hasNextPage) break;
    after = page.pageInfo.endCursor;
  }
  expect(seen).toEqual([6, 5, 4, 3, 2, 1]);
});

test('changes hold the values before and after, and the events are read only when they are asked for', async () => {
  expect((await list({ first: 1 }, CHANGES)).nodes).toEqual([
    {
      streamVersion: 6,
      changes: [
        { field: 'price', before: 5, after: 6 },
        { field: 'title', before: 't3', after: 't6' },
      ],
    },
  ]);
  const decoder = { decode: jest.fn(async (_tx: unknown, events: readonly never[]) => events) };
  const watched = await anApi([auditApi(database.app, decoder)]);
  await watched.data(LIST);
  expect(decoder.decode).toHaveBeenCalledTimes(0);
  await watched.data(CHANGES);
  expect(decoder.decode).toHaveBeenCalledTimes(1);
  await watched.close();
});

test.each([
  [{ first: 0 }, /first is 0/],
  [{ after: 'page two' }, /no cursor of ours/],
  [{ actor: '' }, /^actor: /],
  [{ stream: 'a\0b' }, /^stream: /],
  [{ actions: ['x'.repeat(301)] }, /^actions: /],
  [{ fields: Array.from({ length: 51 }, (_, n) => `f${n}`) }, /^fields lists more than 50/],
  [{ from: '2026-01-02T00:00:00Z', to: '2026-01-01T00:00:00Z' }, /from is not before to/],
])('%j is refused in a sentence', async (variables, sentence) => {
  const { errors } = await api.ask(LIST, variables);
  expect(errors).toMatchObject([
    { message: expect.stringMatching(sentence), extensions: { code: 'VALIDATION_ERROR' } },
  ]);
});
