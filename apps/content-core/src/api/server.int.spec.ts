import { once } from 'node:events';
import { connect } from 'node:net';
import {
  GraphQLBoolean,
  GraphQLError,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  type GraphQLInputFieldConfigMap,
} from 'graphql';
import { serverAudits } from 'graphql-http';
import { createClient, type Client } from 'graphql-ws';
import { WebSocket } from 'ws';
import { apiError, CodedError } from '@atomo-cc/kernel';
import { eventually } from '@atomo-cc/testing';
import { anApi, callers, revoked, SHOP_TENANTS, unanswered, type Json, type TestApi } from '../testing/index.js';
import type { ApiContext } from './part.js';
import { DateScalar, DateTimeScalar } from './scalars.js';

const [OURS] = SHOP_TENANTS;
const TOKEN = { authorization: `Bearer ${OURS}` };

/** An input type that holds itself, as the conditions of models do. */
const Condition: GraphQLInputObjectType = new GraphQLInputObjectType({
  name: 'Condition',
  fields: (): GraphQLInputFieldConfigMap => ({
    and: { type: new GraphQLList(new GraphQLNonNull(Condition)) },
    n: { type: GraphQLInt, defaultValue: 7 },
    day: { type: DateScalar },
  }),
});
const Thing: GraphQLObjectType = new GraphQLObjectType({
  name: 'Thing',
  fields: () => ({ name: { type: GraphQLString }, inner: { type: Thing, resolve: () => ({ name: 'inner' }) } }),
});

let followers = 0;

async function* ticks(count: number): AsyncGenerator<number> {
  followers += 1;
  try {
    for (let n = 1; n <= count; n += 1) {
      yield n;
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    followers -= 1;
  }
}

const fails = (error: unknown) => ({
  type: GraphQLString,
  resolve: async () => {
    throw error;
  },
});
const PART = {
  query: {
    hello: {
      type: GraphQLString,
      args: { name: { type: GraphQLString } },
      resolve: (_: unknown, { name }: { name?: string }) => `hello ${name ?? 'you'}`,
    },
    echo: {
      type: GraphQLString,
      args: {
        where: { type: Condition },
        n: { type: GraphQLInt },
        flag: { type: GraphQLBoolean },
        at: { type: DateTimeScalar },
      },
      resolve: (_: unknown, args: object) => JSON.stringify(args),
    },
    tenant: {
      type: GraphQLString,
      resolve: (_: unknown, _args: unknown, { principal }: ApiContext) => principal.tenantId,
    },
    thing: { type: Thing, resolve: () => ({ name: 'outer' }) },
    coded: fails(apiError('CONFLICT', 'Read it again.', { currentVersion: 3 })),
    foreign: fails(new CodedError('MEMORY_STORE_FAILED', 'check s3://secret')),
    broken: fails(Object.assign(new Error('relation "safe" does not exist'), { query: 'select secret from safe' })),
    notEvenAnError: fails('select secret'),
    thrown: {
      type: GraphQLString,
      resolve: () => {
        throw new Error('select secret');
      },
    },
    graphqlError: fails(new GraphQLError('said on purpose')),
    nullable: { type: new GraphQLNonNull(GraphQLString), resolve: () => null },
  },
  mutation: { change: { type: GraphQLString, resolve: () => 'changed' } },
  subscription: {
    ticks: {
      type: GraphQLInt,
      args: { count: { type: GraphQLInt } },
      subscribe: (_: unknown, { count }: { count?: number }) => ticks(count ?? 1e9),
      resolve: (n: unknown) => n as number,
    },
    refusing: { type: GraphQLInt, subscribe: () => Promise.reject(apiError('NOT_FOUND', 'There is no such job.')) },
    leaking: { type: GraphQLInt, subscribe: () => Promise.reject(new Error('select secret')) },
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

beforeEach(async () => {
  api = await anApi([PART]);
});

afterEach(() => api.close());

const post = (body: unknown, headers: Record<string, string> = TOKEN) =>
  fetch(api.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
const codeOf = async (query: string, variables?: Record<string, unknown>) => {
  const { errors } = await api.ask(query, variables);
  return errors?.map(({ extensions }) => extensions?.['code']);
};

describe('GraphQL over HTTP', () => {
  /** The whole audit of the reference implementation; the specification's own words are the names. */
  const audits = serverAudits({
    url: () => api.url,
    fetchFn: (url: string, init: RequestInit = {}) =>
      fetch(url, { ...init, headers: { ...(init.headers as object), ...TOKEN } }),
  });

  test.each(audits.map((audit) => [`${audit.id} ${audit.name}`, audit] as const))('%s', async (_name, audit) => {
    const result = await audit.fn();
    expect({ ...result, response: undefined }).toMatchObject({ status: 'ok' });
  });

  test.each<[string, string, Record<string, string>]>([
    ['POST', '', {}],
    ['POST', '', { authorization: 'Bearer wrong' }],
    ['POST', '', { authorization: 'Basic YTpi' }],
    ['GET', '?query={hello}', { accept: 'application/json' }],
    ['GET', '?query={hello}', {}],
  ])('%s %s without a valid token (%j) is 401 with a code', async (method, search, headers) => {
    const response = await fetch(`${api.url}${search}`, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(method === 'POST' ? { body: '{"query":"{hello}"}' } : {}),
    });
    expect(response.status).toBe(401);
    const body = (await response.json()) as { data?: unknown };
    expect(body).toMatchObject({ errors: [{ extensions: { code: 'UNAUTHENTICATED' } }] });
    expect(body.data).toBeUndefined();
  });

  test('a fault of the authentication itself is no 401, and tells nothing', async () => {
    const response = await post({ query: '{hello}' }, { authorization: 'Bearer broken' });
    expect(response.status).toBe(500);
    const text = await response.text();
    expect(JSON.parse(text)).toMatchObject({ errors: [{ extensions: { code: 'INTERNAL_ERROR' } }] });
    expect(text).not.toContain('secret');
  });

  test('a mutation by GET is refused', async () => {
    const response = await fetch(`${api.url}?query=${encodeURIComponent('mutation { change }')}`, {
      headers: { accept: 'application/json', ...TOKEN },
    });
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe('POST');
    expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'VALIDATION_ERROR' } }] });
  });

  test.each([
    ['application/graphql-response+json', 400],
    ['application/json', 200],
  ])('variables that are wrong leave no data: to who accepts %s that is a %i', async (accept, status) => {
    const response = await post(
      { query: 'query($n: Int) { echo(n: $n) }', variables: { n: 'x' } },
      { ...TOKEN, accept },
    );
    expect(response.status).toBe(status);
    const body = (await response.json()) as object;
    expect(body).toMatchObject({ errors: [{ extensions: { code: 'VALIDATION_ERROR' } }] });
    expect(body).not.toHaveProperty('data');
    const failed = await post({ query: '{ coded }' }, { ...TOKEN, accept });
    expect(failed.status).toBe(200);
  });

  test('a subscription by POST is refused', async () => {
    const response = await post({ query: 'subscription { ticks }' });
    expect(await response.json()).toEqual({
      errors: [expect.objectContaining({ message: 'Subscriptions are not supported' })],
    });
    expect(followers).toBe(0);
  });

  test.each([
    ['no JSON', '{'],
    ['a key that no object may have', '{"query":"{hello}","variables":{"__proto__":{}}}'],
    ['null', 'null'],
    ['a list', '[{"query":"{hello}"}]'],
    ['a text', '"x"'],
    ['no query', '{}'],
    ['a query that is no text', '{"query":{}}'],
    ['variables that are no object', '{"query":"{hello}","variables":"x"}'],
    ['nothing', ''],
  ])('a body of %s is a 400 with errors', async (_name, body) => {
    const response = await post(body);
    expect(response.status).toBe(400);
    expect(JSON.stringify(await response.json())).not.toContain('node_modules');
  });
});

describe('GraphiQL', () => {
  test('is what a browser gets, without a token, and loads nothing from elsewhere', async () => {
    const response = await fetch(api.url, { headers: { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' } });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^text\/html/);
    const page = await response.text();
    const markup = page
      .replaceAll(/<script\b[^>]*>[\s\S]*?<\/script>/g, (script) => script.slice(0, script.indexOf('>') + 1))
      .replaceAll(/<style\b[^>]*>[\s\S]*?<\/style>/g, '');
    const loaded = [...markup.matchAll(/<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)/g)].map(
      ([, address]) => address!,
    );
    expect(loaded.filter((address) => !address.startsWith('data:'))).toEqual([]);
    expect([...page.matchAll(/(?:import\s*\(?|from)\s*["'](https?:[^"']+)/g)].map(([, address]) => address)).toEqual(
      [],
    );
    expect([...page.matchAll(/url\(["']?(https?:[^"')]+)/g)].map(([, address]) => address)).toEqual([]);
  });

  test('its page may run its own scripts and nothing else, and be framed by nobody', async () => {
    const response = await fetch(api.url, { headers: { accept: 'text/html' } });
    const policy = response.headers.get('content-security-policy')!;
    expect(policy).toMatch(/default-src 'none'; script-src ('sha256-[^']+' ?)+;/);
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/script-src [^;]*unsafe/);
  });

  test('where the schema is closed there is none, no introspection, and no name is suggested', async () => {
    const closed = await anApi([PART], undefined, { introspection: false });
    try {
      const page = await fetch(closed.url, { headers: { accept: 'text/html' } });
      expect(page.status).toBe(401);
      for (const query of ['{ __schema { types { name } } }', '{ __type(name: "Query") { name } }'])
        expect((await closed.ask(query)).errors?.[0]).toMatchObject({
          message: expect.stringMatching(/^GraphQL introspection has been disabled/),
          extensions: { code: 'VALIDATION_ERROR' },
        });
      const { errors } = await closed.ask('{ hallo }');
      expect(errors?.[0]?.message).toBe('Cannot query field "hallo" on type "Query".');
      expect((await api.ask('{ hallo }')).errors?.[0]?.message).toContain('"hello"');
      expect(await closed.data('{ hello __typename }')).toEqual({ hello: 'hello you', __typename: 'Query' });
    } finally {
      await closed.close();
    }
  });

  test('is not what a program gets', async () => {
    const response = await fetch(`${api.url}?query={hello}`, { headers: { accept: 'application/json', ...TOKEN } });
    expect(await response.json()).toEqual({ data: { hello: 'hello you' } });
  });
});

describe('documents', () => {
  test('operationName selects', async () => {
    const query = 'query a { hello } query b { hello(name: "b") }';
    expect(await (await post({ query, operationName: 'b' })).json()).toEqual({ data: { hello: 'hello b' } });
    expect(await (await post({ query, operationName: 'a' })).json()).toEqual({ data: { hello: 'hello you' } });
    for (const operationName of [undefined, null, 'c', '', 'constructor']) {
      const { data, errors } = (await (await post({ query, operationName })).json()) as {
        data?: unknown;
        errors?: unknown[];
      };
      expect(data ?? null).toBeNull();
      expect(errors).toHaveLength(1);
    }
  });

  test('aliases and fragments, with the compiled document answered anew for other variables', async () => {
    const query = `query ($no: Boolean!, $name: String = "who") { a: hello b: hello(name: $name) thing { ...t inner { ...t } more: name @include(if: $no) } }
      fragment t on Thing { name kind: __typename }`;
    const thing = { name: 'outer', kind: 'Thing', inner: { name: 'inner', kind: 'Thing' } };
    expect(await api.data(query, { no: false })).toEqual({ a: 'hello you', b: 'hello who', thing });
    expect(await api.data(query, { no: true, name: 'me' })).toEqual({
      a: 'hello you',
      b: 'hello me',
      thing: { ...thing, more: 'outer' },
    });
    expect(await api.data(query, { no: false, name: null })).toEqual({ a: 'hello you', b: 'hello you', thing });
  });

  test('variables are coerced: defaults, lists of one, days, moments', async () => {
    const query = 'query ($where: Condition, $n: Int = 5, $at: DateTime) { echo(where: $where, n: $n, at: $at) }';
    const echo = async (variables: Record<string, unknown>) => JSON.parse((await api.data(query, variables)).echo);
    expect(await echo({})).toEqual({ n: 5 });
    expect(await echo({ n: null })).toEqual({ n: null });
    expect(await echo({ where: { and: { and: [{ n: 1 }, {}] } } })).toEqual({
      n: 5,
      where: { n: 7, and: [{ n: 7, and: [{ n: 1 }, { n: 7 }] }] },
    });
    expect(await echo({ at: '2026-11-21T02:00:00+02:00' })).toEqual({ n: 5, at: '2026-11-21T00:00:00.000Z' });
    expect(await echo({ where: { day: '2026-02-28' } })).toEqual({ n: 5, where: { n: 7, day: '2026-02-28' } });
    const inside = 'query ($n: Int!, $c: Condition!) { echo(where: { and: [{ n: $n }, $c] }) }';
    expect(JSON.parse((await api.data(inside, { n: 2, c: { n: 3 } })).echo)).toEqual({
      where: { n: 7, and: [{ n: 2 }, { n: 3 }] },
    });
  });

  test.each([
    [{ n: 'one' }],
    [{ n: 1.5 }],
    [{ n: 2 ** 31 }],
    [{ where: { unknown: 1 } }],
    [{ where: { and: [null] } }],
    [{ where: { and: [{ and: [{ n: 'x' }] }] } }],
    [{ where: { day: '2026-02-30' } }],
    [{ where: 'x' }],
    [{ at: 'now' }],
  ])('variables %j are refused with a code', async (variables) => {
    expect(
      await codeOf(
        'query ($where: Condition, $n: Int, $at: DateTime) { echo(where: $where, n: $n, at: $at) }',
        variables,
      ),
    ).toEqual(['VALIDATION_ERROR']);
  });

  test('an input type that holds itself does not block the process', async () => {
    const from = performance.now();
    await api.data('query ($where: Condition) { echo(where: $where) }', { where: { n: 1 } });
    expect(performance.now() - from).toBeLessThan(2_000);
  });

  test.each([
    '{',
    '{ nothing }',
    'query ($x: Nothing) { hello }',
    'query { hello(name: 1) }',
    '{ hello { name } }',
    '',
  ])('the document %j is refused with a code', async (query) => {
    const { status, errors } = await api.ask(query);
    expect([200, 400]).toContain(status);
    expect(errors?.length).toBeGreaterThan(0);
    if (query !== '') for (const error of errors!) expect(error.extensions).toMatchObject({ code: 'VALIDATION_ERROR' });
  });

  test('a document of more than 100,000 characters is refused', async () => {
    expect(await codeOf(`{ hello } #${'x'.repeat(100_000)}`)).toEqual(['QUERY_TOO_COMPLEX']);
  });

  test('kept documents are bounded: of eleven hundred different ones a thousand stay', async () => {
    const cached = new Set<string>();
    const set = Map.prototype.set;
    const remove = Map.prototype.delete;
    let most = 0;
    const isOurs = (key: unknown): key is string => typeof key === 'string' && key.startsWith('{ hello(name: "n');
    jest.spyOn(Map.prototype, 'set').mockImplementation(function (this: Map<unknown, unknown>, key, value) {
      if (isOurs(key)) most = Math.max(most, cached.add(key).size);
      return set.call(this, key, value) as never;
    });
    jest.spyOn(Map.prototype, 'delete').mockImplementation(function (this: Map<unknown, unknown>, key) {
      if (isOurs(key)) cached.delete(key);
      return remove.call(this, key);
    });
    try {
      for (let n = 0; n < 1_100; n += 20)
        await Promise.all(Array.from({ length: 20 }, (_, at) => api.data(`{ hello(name: "n${n + at}") }`)));
    } finally {
      jest.restoreAllMocks();
    }
    expect(most).toBe(1_000);
  });
});

describe('errors', () => {
  test('a coded one leaves with its code, details and place', async () => {
    const { data, errors } = await api.ask('{ hello coded }');
    expect(data).toEqual({ hello: 'hello you', coded: null });
    expect(errors).toEqual([
      { message: 'Read it again.', path: ['coded'], extensions: { code: 'CONFLICT', currentVersion: 3 } },
    ]);
    expect(api.logged).toEqual([]);
  });

  test.each(['broken', 'notEvenAnError', 'thrown', 'foreign', 'nullable'])(
    'an unexpected one (%s) is hidden and logged',
    async (field) => {
      const response = await post({ query: `{ ${field} }` });
      const { errors } = (await response.json()) as { errors: object[] };
      expect(errors).toMatchObject([{ path: [field], extensions: { code: 'INTERNAL_ERROR' } }]);
      for (const word of ['secret', 'safe', 'select', 'stack', 'node_modules', 'non-nullable'])
        expect(JSON.stringify(errors)).not.toContain(word);
      expect(api.logged).toEqual([{ err: expect.anything(), requestId: expect.anything() }]);
    },
  );

  test('what a resolver says to the caller on purpose is said', async () => {
    expect((await api.ask('{ graphqlError }')).errors).toMatchObject([
      { message: 'said on purpose', extensions: { code: 'VALIDATION_ERROR' } },
    ]);
  });
});

describe('subscriptions', () => {
  const wsUrl = () => api.url.replace('http', 'ws');
  const clients: Client[] = [];
  const client = (connectionParams: Record<string, unknown> = TOKEN) => {
    const made = createClient({
      url: wsUrl(),
      webSocketImpl: WebSocket,
      connectionParams,
      retryAttempts: 0,
      lazyCloseTimeout: 0,
      onNonLazyError: () => undefined,
    });
    clients.push(made);
    return made;
  };
  /** A socket that has said who it is, below the client library. */
  async function rawSocket(
    init: unknown = { type: 'connection_init', payload: TOKEN },
  ): Promise<{ socket: WebSocket; messages: Json[]; closed: Promise<number> }> {
    const socket = new WebSocket(wsUrl(), 'graphql-transport-ws');
    const messages: Json[] = [];
    socket.on('message', (data) => messages.push(JSON.parse(String(data))));
    socket.on('error', () => undefined);
    const closed = once(socket, 'close').then(([code]) => code as number);
    await once(socket, 'open');
    if (init) {
      socket.send(JSON.stringify(init));
      await eventually('an acknowledgement', () => messages.some(({ type }) => type === 'connection_ack'));
    }
    return { socket, messages, closed };
  }
  const isWell = async () => expect(await api.data('{ hello }')).toEqual({ hello: 'hello you' });

  beforeEach(() => {
    jest.spyOn(console, 'error').mockImplementation(() => undefined);
    followers = 0;
  });

  afterEach(async () => {
    await Promise.all(clients.splice(0).map((made) => made.dispose()));
    jest.restoreAllMocks();
  });

  test('bring what they are asked for, and end', async () => {
    const seen: unknown[] = [];
    for await (const result of client().iterate({
      query: 'subscription ($count: Int) { n: ticks(count: $count) }',
      variables: { count: 3 },
    }))
      seen.push(result);
    expect(seen).toEqual([1, 2, 3].map((n) => ({ data: { n } })));
    expect(followers).toBe(0);
  });

  test('serve queries too, with the caller’s rights, operationName and coerced variables', async () => {
    const made = client();
    const one = async (payload: { query: string; variables?: Record<string, unknown>; operationName?: string }) =>
      (await made.iterate(payload).next()).value;
    expect(await one({ query: '{ tenant }' })).toEqual({ data: { tenant: OURS } });
    expect(await one({ query: 'query a { hello } query b { hello(name: "b") }', operationName: 'b' })).toEqual({
      data: { hello: 'hello b' },
    });
    expect(await one({ query: 'query ($where: Condition) { echo(where: $where) }', variables: { where: {} } })).toEqual(
      { data: { echo: '{"where":{"n":7}}' } },
    );
  });

  test.each([
    ['no token', {}],
    ['a wrong one', { authorization: 'Bearer x' }],
    ['no text', { authorization: 1 }],
    ['a fault', { authorization: 'Bearer broken' }],
  ])('are refused with %s', async (_name, parameters) => {
    const refused = client(parameters).iterate({ query: 'subscription { ticks }' }).next();
    await expect(refused).rejects.toMatchObject({ code: 4403 });
    expect(followers).toBe(0);
    await isWell();
  });

  test('whose token is revoked while the socket is open begin nothing new', async () => {
    const socket = client({ authorization: `Bearer ${OURS}` });
    // A subscription that goes on keeps the socket open.
    const ticks = socket.iterate({ query: 'subscription { ticks }' });
    await ticks.next();
    revoked.add(OURS);
    try {
      const refused: Json = await socket
        .iterate({ query: '{ hello }' })
        .next()
        .catch((reason: unknown) => reason);
      // The look at what is open may come before, and shuts the whole socket.
      expect([4403, 'UNAUTHENTICATED']).toContain(refused.code ?? refused[0]?.extensions.code);
    } finally {
      revoked.clear();
      await ticks.return?.();
    }
  });

  test.each([
    ['is revoked', () => revoked.add(OURS)],
    ['has another role', () => (callers.role = 'Viewer')],
  ])('that are open end within 5 s when the caller %s', async (_name, change) => {
    const { socket, messages, closed } = await rawSocket();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
    await eventually('a first tick', () => messages.some(({ type }) => type === 'next'));
    const began = Date.now();
    try {
      change();
      expect(await closed).toBe(4403);
      expect(Date.now() - began).toBeLessThan(5_000);
      await eventually('no follower', () => followers === 0);
    } finally {
      revoked.clear();
      callers.role = 'Admin';
    }
  });

  test('that are open end at once for one who does not answer when its session has ended', async () => {
    const { socket, messages } = await rawSocket();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
    await eventually('a first tick', () => messages.some(({ type }) => type === 'next'));
    socket.pause();
    revoked.add(OURS);
    try {
      await eventually('no follower', () => followers === 0, 5_000);
    } finally {
      revoked.clear();
      socket.terminate();
    }
  });

  test('that are open go on while nobody can tell of their session', async () => {
    const { socket, messages } = await rawSocket();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
    await eventually('a first tick', () => messages.some(({ type }) => type === 'next'));
    const asked = jest.spyOn(unanswered, 'has');
    unanswered.add(OURS);
    try {
      await eventually('two looks', () => asked.mock.calls.length >= 2);
      messages.length = 0;
      await eventually('another tick', () => messages.some(({ type }) => type === 'next'));
      expect(socket.readyState).toBe(WebSocket.OPEN);
    } finally {
      unanswered.clear();
      socket.terminate();
    }
    await eventually('no follower', () => followers === 0);
  });

  test('asked for before the socket has said who it is are cut', async () => {
    const { socket, closed } = await rawSocket(null);
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
    expect(await closed).toBe(4401);
    expect(followers).toBe(0);
  });

  test.each([
    ['NOT_FOUND', 'subscription { refusing }'],
    ['INTERNAL_ERROR', 'subscription { leaking }'],
    ['INTERNAL_ERROR', 'subscription { breaking }'],
    ['VALIDATION_ERROR', 'subscription {'],
    ['VALIDATION_ERROR', 'subscription { nothing }'],
    ['VALIDATION_ERROR', 'query ($n: Int) { echo(n: $n) }'],
    ['VALIDATION_ERROR', 'subscription { ticks @skip(if: true) }'],
    ['QUERY_TOO_COMPLEX', `{ hello } #${'x'.repeat(100_000)}`],
  ])('one that fails (case %#, %s) does so with its code and without a word of ours', async (code, query) => {
    const { socket, messages } = await rawSocket();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables: { n: 'x' } } }));
    const answer = await eventually('an answer with errors', () =>
      messages.find(({ type, payload }) => type === 'error' || payload?.errors),
    );
    expect(JSON.stringify(answer)).toContain(`"code":"${code}"`);
    expect(JSON.stringify(answer)).not.toContain('secret');
    socket.close();
    await isWell();
  });

  test('end when the subscriber leaves, whether it says so or not', async () => {
    for (const leave of ['complete', 'close', 'terminate'] as const) {
      const { socket, messages } = await rawSocket();
      socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
      await eventually('a first tick', () => messages.some(({ type }) => type === 'next'));
      expect(followers).toBe(1);
      if (leave === 'complete') socket.send(JSON.stringify({ id: '1', type: 'complete' }));
      else socket[leave]();
      await eventually(`no follower after ${leave}`, () => followers === 0);
      socket.terminate();
    }
  });

  test('are closed when the server closes, and the server then ends', async () => {
    const { socket, messages, closed } = await rawSocket();
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { ticks }' } }));
    await eventually('a first tick', () => messages.some(({ type }) => type === 'next'));
    await api.close();
    expect(await closed).toBe(1001);
    await eventually('no follower', () => followers === 0);
    api = await anApi([PART]);
  });

  test.each([
    ['no JSON', '{'],
    ['an unknown type', '{"type":"nonsense"}'],
    ['no object', '[]'],
    ['a subscription without a query', '{"id":"1","type":"subscribe","payload":{}}'],
    ['a query that is no text', '{"id":"1","type":"subscribe","payload":{"query":1}}'],
    ['a second hello', '{"type":"connection_init"}'],
  ])('a message of %s closes that socket only', async (_name, message) => {
    const { socket, closed } = await rawSocket();
    socket.send(message);
    expect(await closed).toBeGreaterThanOrEqual(4400);
    await isWell();
  });

  test('a message of more than a megabyte closes that socket only', async () => {
    const { socket, closed } = await rawSocket();
    socket.send(`{"id":"1","type":"subscribe","payload":{"query":"{ hello } #${'x'.repeat(2 ** 20)}"}}`);
    expect([1006, 1009]).toContain(await closed);
    await isWell();
  });

  test('a frame that breaks the protocol closes that socket only', async () => {
    const { socket, closed } = await rawSocket();
    // Reserved bits and opcode set, and no mask, which a client's frame must have.
    (socket as unknown as { _socket: import('node:net').Socket })._socket.write(
      Buffer.from([0xff, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    );
    expect(await closed).not.toBe(1000);
    await isWell();
  });

  test.each(['/', '/graphql/more', '/socket.io', '//', '/%zz', 'http://[', '*', '/graphqlx?x=/graphql'])(
    'an upgrade at %s is refused and hurts nobody',
    async (path) => {
      const { port, hostname } = new URL(api.url);
      const socket = connect(Number(port), hostname);
      let answer = '';
      socket.on('data', (bytes) => (answer += String(bytes)));
      socket.on('error', () => undefined);
      const closed = once(socket, 'close');
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
      );
      await closed;
      expect(answer).not.toContain('101');
      await isWell();
    },
  );

  test('an upgrade at the right path without the right headers is refused and hurts nobody', async () => {
    const { port, hostname } = new URL(api.url);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined);
    const closed = once(socket, 'close');
    socket.write('GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    let answer = '';
    socket.on('data', (bytes) => (answer += String(bytes)));
    await closed;
    expect(answer).not.toContain('101');
    await isWell();
  });
});
