import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GraphQLInt, GraphQLString } from 'graphql';
import { createClient as createStreamClient } from 'graphql-sse';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { anApi, callers, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { TrustedDocuments, type Trust } from './trusted-documents.js';

const TOKEN = { authorization: `Bearer ${SHOP_TENANTS[0]}` };
const HELLO = 'query Hello($name: String) { hello(name: $name) }';
const TICKS = 'subscription Ticks { ticks }';
const CHANGE = 'mutation Change { change }';
const MANY = `query Many { ${Array.from({ length: 60 }, (_, at) => `a${at}: hello`).join(' ')} }`;
const UNFITTING = 'query Unfitting { gone }';
const idOf = (text: string) => createHash('sha256').update(text).digest('hex');

const PART = {
  query: {
    hello: {
      type: GraphQLString,
      args: { name: { type: GraphQLString } },
      resolve: (_: unknown, { name }: { name?: string }) => `hello ${name ?? 'you'}`,
    },
  },
  mutation: { change: { type: GraphQLString, resolve: () => 'changed' } },
  subscription: {
    ticks: {
      type: GraphQLInt,
      subscribe: async function* () {
        yield* [1, 2, 3];
      },
      resolve: (n: unknown) => n as number,
    },
  },
} as never;

const folder = mkdtempSync(join(tmpdir(), 'trusted-documents-'));
const file = join(folder, 'documents.json');
const denied: string[] = [];
let api: TestApi;

beforeAll(() => {
  const documents = Object.fromEntries([HELLO, TICKS, CHANGE, UNFITTING].map((text) => [idOf(text), text]));
  writeFileSync(file, JSON.stringify(documents));
});
afterEach(async () => {
  callers.role = 'Admin';
  denied.splice(0);
  await api.close();
});
afterAll(() => rmSync(folder, { recursive: true }));

async function serving(trust: Trust | null, role = 'Viewer'): Promise<void> {
  api = await anApi([() => PART], undefined, {
    ...(trust && { trusted: TrustedDocuments.read(file, trust) }),
    onDenied: ({ actor }, operation) => void denied.push(`${actor.slice(0, 5)} ${operation}`),
  });
  callers.role = role;
}

interface Told {
  readonly status?: number;
  readonly data?: Json;
  readonly errors?: readonly { message: string; extensions?: Record<string, Json> }[];
}
type Asked = Readonly<Record<string, unknown>>;

async function byPost(asked: Asked, accept = 'application/graphql-response+json'): Promise<Told> {
  const response = await fetch(api.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept, ...TOKEN },
    body: JSON.stringify(asked),
  });
  return { status: response.status, ...((await response.json()) as Told) };
}
async function byGet(asked: Asked): Promise<Told> {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(asked))
    search.set(name, typeof value === 'string' ? value : JSON.stringify(value));
  const response = await fetch(`${api.url}?${search}`, { headers: { accept: 'application/json', ...TOKEN } });
  return { status: response.status, ...((await response.json()) as Told) };
}
async function bySocket(asked: Asked): Promise<Told[]> {
  const client = createClient({
    url: api.url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: TOKEN,
    retryAttempts: 0,
  });
  try {
    return await collected((sink) => client.subscribe({ query: '', ...asked }, sink));
  } finally {
    await client.dispose();
  }
}
async function byStream(asked: Asked): Promise<Told[]> {
  const client = createStreamClient({ url: api.url, headers: TOKEN, retryAttempts: 0 });
  try {
    return await collected((sink) => client.subscribe(asked as { query: string }, sink));
  } finally {
    client.dispose();
  }
}
interface Sink {
  next(result: unknown): void;
  error(error: unknown): void;
  complete(): void;
}
/** All that is told until it is over; a refusal of the whole is the last of it. */
function collected(subscribe: (sink: Sink) => unknown): Promise<Told[]> {
  const told: Told[] = [];
  return new Promise((resolve, reject) => {
    subscribe({
      next: (result) => void told.push(result as Told),
      error: (error) =>
        Array.isArray(error) ? resolve([...told, { errors: error as Told['errors'] & {} }]) : reject(error as Error),
      complete: () => resolve(told),
    });
  });
}

const TRANSPORTS: [string, (asked: Asked) => Promise<Told | Told[]>][] = [
  ['POST', (asked) => byPost(asked)],
  // Most clients say it so, and are answered without the handler that judges all else.
  ['POST of one who takes JSON', (asked) => byPost(asked, 'application/json')],
  ['GET', byGet],
  ['graphql-ws', bySocket],
  ['server-sent events', byStream],
];
const lastOf = (told: Told | Told[]) => (Array.isArray(told) ? told.at(-1)! : told);
const codesOf = (told: Told | Told[]) => lastOf(told).errors?.map(({ extensions }) => extensions?.['code']);

describe.each(TRANSPORTS)('by %s', (name, ask) => {
  test('a document is named by its id, with variables', async () => {
    await serving('only');
    const variables = { name: 'ada' };
    const apollos = { persistedQuery: { version: 1, sha256Hash: idOf(HELLO) } };
    for (const named of [
      { documentId: idOf(HELLO) },
      { documentId: `sha256:${idOf(HELLO)}`, operationName: 'Hello' },
      { extensions: apollos },
      // Who goes over to ids step by step may send the trusted text itself meanwhile.
      { query: HELLO, extensions: apollos },
      { query: HELLO },
    ])
      expect(lastOf(await ask({ ...named, variables })).data).toEqual({ hello: 'hello ada' });
    expect(denied).toEqual([]);
  });

  test('others are refused and told of where only trusted ones are carried out, but not of Admin', async () => {
    await serving('only');
    const refused = await ask({ query: '{ hello }' });
    expect(codesOf(refused)).toEqual(['FORBIDDEN']);
    expect(lastOf(refused).errors![0]!.message).toMatch(/documentId/);
    expect(denied).toEqual(['user: operation']);
    // Introspection is a document too.
    expect(codesOf(await ask({ query: '{ __schema { queryType { name } } }' }))).toEqual(['FORBIDDEN']);
    callers.role = 'Admin';
    expect(lastOf(await ask({ query: '{ hello }' })).data).toEqual({ hello: 'hello you' });
  });

  test('others are carried out where they are allowed', async () => {
    await serving('allow');
    expect(lastOf(await ask({ query: '{ hello }' })).data).toEqual({ hello: 'hello you' });
    expect(lastOf(await ask({ documentId: idOf(HELLO) })).data).toEqual({ hello: 'hello you' });
  });

  test('an unknown one is told by a code, and registered by nobody', async () => {
    await serving('allow');
    const extensions = { persistedQuery: { version: 1, sha256Hash: idOf('{ hello }') } };
    expect(codesOf(await ask({ documentId: 'nothing' }))).toEqual(['NOT_FOUND']);
    const missed = async () => lastOf(await ask({ extensions })).errors?.[0]?.message;
    expect(await missed()).toBe('PersistedQueryNotFound');
    expect(lastOf(await ask({ query: '{ hello }', extensions })).data).toEqual({ hello: 'hello you' });
    expect(await missed()).toBe('PersistedQueryNotFound');
  });

  test('where there are none, an id is refused and what comes beside a document is passed over', async () => {
    await serving(null);
    const documentId = idOf(HELLO);
    // A malformed request gets no stream: there is no operation to tell of.
    if (name !== 'server-sent events') expect(codesOf(await ask({ documentId }))).toEqual(['VALIDATION_ERROR']);
    expect(lastOf(await ask({ documentId, query: '{ hello }' })).data).toEqual({ hello: 'hello you' });
  });

  test('one that does not fit what the role has is refused when it is asked for', async () => {
    await serving('only');
    expect(codesOf(await ask({ documentId: idOf(UNFITTING) }))).toEqual(['VALIDATION_ERROR']);
  });
});

test.each([
  ['graphql-ws', bySocket],
  ['server-sent events', byStream],
])('a subscription is named by its id over %s', async (_name, ask) => {
  await serving('only');
  const told = await ask({ documentId: idOf(TICKS) });
  expect(told.map(({ data }) => data.ticks)).toEqual([1, 2, 3]);
  expect(codesOf(await ask({ query: 'subscription { ticks }' }))).toEqual(['FORBIDDEN']);
});

test('a mutation that is named is refused by GET as one that is written', async () => {
  await serving('only');
  expect(await byGet({ documentId: idOf(CHANGE) })).toMatchObject({ status: 405 });
  expect(await byPost({ documentId: idOf(CHANGE) })).toMatchObject({ status: 200, data: { change: 'changed' } });
});

test('a client that names event streams behind JSON gets JSON', async () => {
  await serving('only');
  const accept = 'application/json, text/event-stream';
  expect(await byPost({ documentId: idOf(HELLO) }, accept)).toMatchObject({ data: { hello: 'hello you' } });
  expect(codesOf(await byPost({ query: '{ hello }' }, accept))).toEqual(['FORBIDDEN']);
  expect(denied).toEqual(['user: operation']);
});

test('limits hold as ever, and ids that are none are told', async () => {
  await serving('allow');
  expect(codesOf(await byPost({ query: MANY }))).toEqual(['QUERY_TOO_COMPLEX']);
  for (const documentId of [5, {}, [], true, false])
    expect(await byPost({ documentId })).toMatchObject({
      status: 400,
      errors: [{ extensions: { code: 'VALIDATION_ERROR' } }],
    });
  for (const documentId of ['', '__proto__', 'toString', '\u0000', '../../etc/passwd'])
    expect(await byPost({ documentId })).toMatchObject({
      status: 400,
      errors: [{ extensions: { code: 'NOT_FOUND' } }],
    });
  for (const extensions of [{ persistedQuery: null }, { persistedQuery: [] }, { persistedQuery: { sha256Hash: null } }])
    expect(codesOf(await byPost({ extensions }))).toEqual(['VALIDATION_ERROR']);
  expect(await byPost({ documentId: idOf(HELLO), variables: 'x' })).toMatchObject({ status: 400 });
});
