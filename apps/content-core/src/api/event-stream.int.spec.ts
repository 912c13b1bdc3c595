import { GraphQLInt, GraphQLString } from 'graphql';
import { createClient, type Client } from 'graphql-sse';
import { apiError } from '@atomo-cc/kernel';
import { eventually } from '@atomo-cc/testing';
import { anApi, callers, revoked, SHOP_TENANTS, unanswered, type Json, type TestApi } from '../testing/index.js';
import { eventStreamIn } from './event-stream.js';
import type { ApiContext } from './part.js';
import { MAX_SUBSCRIPTIONS } from './subscribers.js';

const [OURS] = SHOP_TENANTS;
const TOKEN = { authorization: `Bearer ${OURS}` };

let followers = 0;

/** Numbers up to `count`, then silence until it is left. */
function ticks(count: number): AsyncIterableIterator<number> {
  followers += 1;
  let n = 0;
  let leave: () => void = () => undefined;
  const left = new Promise<void>((resolve) => (leave = resolve));
  let isOver = false;
  return {
    next: async () => {
      await new Promise((resolve) => setImmediate(resolve));
      if (n < count) return { value: (n += 1), done: false };
      await left;
      return { value: undefined, done: true };
    },
    return: async () => {
      if (!isOver) followers -= 1;
      isOver = true;
      leave();
      return { value: undefined, done: true };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

const PART = {
  query: {
    hello: { type: GraphQLString, resolve: () => 'hello you' },
    tenant: {
      type: GraphQLString,
      resolve: (_: unknown, _args: unknown, { principal }: ApiContext) => principal.tenantId,
    },
  },
  mutation: { change: { type: GraphQLString, resolve: () => 'changed' } },
  subscription: {
    ticks: {
      type: GraphQLInt,
      args: { count: { type: GraphQLInt } },
      subscribe: (_: unknown, { count }: { count?: number }) => ticks(count ?? 1),
      resolve: (n: unknown) => n as number,
    },
    three: {
      type: GraphQLInt,
      subscribe: async function* () {
        yield* [1, 2, 3];
      },
      resolve: (n: unknown) => n as number,
    },
    refusing: { type: GraphQLInt, subscribe: () => Promise.reject(apiError('NOT_FOUND', 'There is no such job.')) },
    breaking: {
      type: GraphQLInt,
      subscribe: async function* () {
        yield 1;
        throw new Error('select secret');
      },
      resolve: (n: unknown) => n as number,
    },
  },
} as never;

let api: TestApi;
const clients: Client[] = [];

beforeEach(async () => {
  followers = 0;
  api = await anApi([PART]);
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.dispose();
  await api.close();
});

function client(headers: Record<string, string> = TOKEN): Client {
  const made = createClient({ url: api.url, headers, retryAttempts: 0 });
  clients.push(made);
  return made;
}

async function all(iterator: AsyncIterableIterator<unknown>): Promise<Json[]> {
  const seen: Json[] = [];
  for await (const result of iterator) seen.push(result);
  return seen;
}

/** Below the client library: the answer, and what has come of it. */
async function raw(
  query: string,
  init: { method?: string; body?: string; search?: string; headers?: Record<string, string> } = {},
) {
  const leaving = new AbortController();
  const response = await fetch(`${api.url}${init.search ?? ''}`, {
    method: 'POST',
    ...(init.method === 'GET' ? {} : { body: JSON.stringify({ query }) }),
    ...init,
    signal: leaving.signal,
    headers: { accept: 'text/event-stream', 'content-type': 'application/json', ...TOKEN, ...init.headers },
  });
  const came = { text: '', isOver: false };
  const reading = (async () => {
    for await (const chunk of response.body!) came.text += Buffer.from(chunk).toString();
  })();
  reading.catch(() => undefined).finally(() => (came.isOver = true));
  return { response, came, reading, leave: () => leaving.abort() };
}

test('brings what a subscription brings, in order, and ends with it', async () => {
  const seen = await all(client().iterate({ query: 'subscription { n: three }' }));
  expect(seen).toEqual([1, 2, 3].map((n) => ({ data: { n } })));
});

test('serves queries and mutations too, with the caller’s rights and operationName', async () => {
  expect(await all(client().iterate({ query: '{ tenant }' }))).toEqual([{ data: { tenant: OURS } }]);
  const query = 'query a { hello } mutation b { change }';
  expect(await all(client().iterate({ query, operationName: 'b' }))).toEqual([{ data: { change: 'changed' } }]);
});

test('by GET as well, but no mutation', async () => {
  const asked = (query: string) => raw('', { method: 'GET', search: `?query=${encodeURIComponent(query)}` });
  const { came, reading } = await asked('subscription { three }');
  await reading;
  expect(came.text.match(/event: next/g)).toHaveLength(3);
  expect((await asked('mutation { change }')).response.status).toBe(405);
});

test.each([
  ['no token', {}],
  ['a wrong one', { authorization: 'Bearer x' }],
])('is refused with %s: 401', async (_name, headers) => {
  const response = await fetch(api.url, {
    method: 'POST',
    headers: { accept: 'text/event-stream', 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query: 'subscription { ticks }' }),
  });
  expect(response.status).toBe(401);
  expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'UNAUTHENTICATED' } }] });
  expect(followers).toBe(0);
});

test.each([
  ['VALIDATION_ERROR', 'subscription {'],
  ['VALIDATION_ERROR', 'subscription { nothing }'],
  ['VALIDATION_ERROR', 'subscription a { ticks } subscription b { ticks }'],
  ['VALIDATION_ERROR', 'subscription ($no: Boolean = false) { three @include(if: $no) }'],
  ['VALIDATION_ERROR', 'subscription { ...F } fragment F on Subscription { ... @skip(if: true) { three } }'],
  ['NOT_FOUND', 'subscription { refusing }'],
  ['INTERNAL_ERROR', 'subscription { breaking }'],
  ['QUERY_TOO_COMPLEX', `{ hello } #${'x'.repeat(100_000)}`],
])('what fails is told in the stream, with its code (case %#, %s) and without a word of ours', async (code, query) => {
  const { response, came, reading } = await raw(query);
  await reading;
  expect(response.status).toBe(200);
  expect(came.text).toContain(`"code":"${code}"`);
  expect(came.text).toMatch(/event: complete\ndata:\s*\n\n$/);
  expect(came.text).not.toContain('secret');
});

test('a body that is no operation is a 400 in JSON', async () => {
  const { response, came, reading } = await raw('', { body: '{"query":1}' });
  await reading;
  expect(response.status).toBe(400);
  expect(JSON.parse(came.text)).toMatchObject({ errors: [{ extensions: { code: 'VALIDATION_ERROR' } }] });
});

test('one who names it behind JSON gets subscriptions by it, and JSON for the rest', async () => {
  const headers = { accept: 'application/graphql-response+json, application/json, text/event-stream' };
  const query = await raw('{ hello }', { headers });
  await query.reading;
  expect(JSON.parse(query.came.text)).toEqual({ data: { hello: 'hello you' } });
  const subscription = await raw('subscription { three }', { headers });
  await subscription.reading;
  expect(subscription.came.text).toContain('data: {"data":{"three":3}}');
});

test.each([
  [undefined, 'no'],
  ['*/*', 'no'],
  ['application/json', 'no'],
  ['text/event-streams', 'no'],
  ['text/event-stream;q=0', 'no'],
  ['text/event-stream', 'wanted'],
  ['TEXT/Event-Stream ; q=0.9', 'wanted'],
  ['text/event-stream;q=0.9, application/json;q=0.5', 'wanted'],
  ['text/event-stream, application/json', 'wanted'],
  ['application/json, text/event-stream', 'possible'],
  ['application/json;q=0.5, text/event-stream', 'wanted'],
  ['text/event-stream;q=x, application/json', 'no'],
])('Accept: %s asks for it: %s', (accept, expected) => {
  expect(eventStreamIn(accept)).toBe(expected);
});

test.each([
  ['the client goes', (leave: () => void) => leave()],
  ['the server closes', undefined],
])('it is left when %s', async (_name, go) => {
  const stream = await raw('subscription { ticks }');
  await eventually('a first tick', () => stream.came.text.includes('"ticks":1'));
  expect(followers).toBe(1);
  if (go) go(stream.leave);
  else await api.close();
  await eventually('no follower', () => followers === 0);
  await eventually('the end', () => stream.came.isOver);
  // A client that takes it for a broken connection comes again, to another instance.
  expect(stream.came.text).not.toContain('complete');
  if (!go) api = await anApi([PART]);
});

test.each([
  ['is revoked', () => revoked.add(OURS)],
  ['has another role', () => (callers.role = 'Viewer')],
])('one that is open ends within 5 s when the caller %s, and says why', async (_name, change) => {
  const { came, reading } = await raw('subscription { ticks }');
  await eventually('a first tick', () => came.text.includes('"ticks":1'));
  const began = Date.now();
  try {
    change();
    await reading;
    expect(Date.now() - began).toBeLessThan(5_000);
    expect(came.text).toContain('"code":"UNAUTHENTICATED"');
    expect(followers).toBe(0);
  } finally {
    revoked.clear();
    callers.role = 'Admin';
  }
});

test('one that is open goes on while nobody can tell of its session', async () => {
  const { came, leave } = await raw('subscription { ticks(count: 1000000) }');
  await eventually('a first tick', () => came.text.includes('"ticks":1'));
  const asked = jest.spyOn(unanswered, 'has');
  unanswered.add(OURS);
  try {
    await eventually('two looks', () => asked.mock.calls.length >= 2);
    expect(came.isOver).toBe(false);
    expect(followers).toBe(1);
  } finally {
    unanswered.clear();
    leave();
  }
  await eventually('no follower', () => followers === 0);
});

test(`a user follows ${MAX_SUBSCRIPTIONS} at most, and may follow again when one is left`, async () => {
  const query = 'subscription { ticks }';
  const open = await Promise.all(Array.from({ length: MAX_SUBSCRIPTIONS }, () => raw(query)));
  await eventually('all ticks', () => open.every(({ came }) => came.text.includes('"ticks":1')));
  const one = await raw(query);
  await one.reading;
  expect(one.came.text).toContain('"code":"RATE_LIMITED"');
  expect(one.came.text).toContain('"limit":"MAX_SUBSCRIPTIONS"');
  open[0]!.leave();
  await eventually('one has left', () => followers === MAX_SUBSCRIPTIONS - 1);
  const again = await raw(query);
  await eventually('a tick', () => again.came.text.includes('"ticks":1'));
  for (const { leave } of [...open, again]) leave();
  await eventually('no follower', () => followers === 0);
});
