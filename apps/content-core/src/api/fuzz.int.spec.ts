import { mkdtempSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  buildClientSchema,
  getIntrospectionQuery,
  getNamedType,
  isEnumType,
  isInputObjectType,
  isLeafType,
  isListType,
  isNonNullType,
  isObjectType,
  type GraphQLInputType,
  type GraphQLObjectType,
  type GraphQLSchema,
  type IntrospectionQuery,
} from 'graphql';
import { WebSocket } from 'ws';
import { API_ERRORS } from '@atomo-cc/kernel';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { aContentCore, type Json, type RunningContentCore } from '../testing/index.js';

/** Give the seed of a failed run to see it again. */
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** Requests of each kind. `FUZZ_RUNS=5000` for a long look. */
const RUNS = Number(process.env['FUZZ_RUNS'] ?? 150);
/** Of CI's time, however busy its machine is, this much for each kind of request; a long look takes what it takes. */
const SHARE =
  process.env['FUZZ_RUNS'] === undefined ? { interruptAfterTimeLimit: 4_000, markInterruptAsFailure: false } : {};
/** One request may take this long on a busy machine; what is unbounded takes minutes. */
const PATIENCE_MS = 10_000;

jest.setTimeout(90_000 + RUNS * 400);

/** Words of ours that no answer may have: of statements, tables, places in the code, and what the runtime says of a fault. */
const SECRETS =
  /model_|history_|link_|event_log|event_streams|tenant_id|pg_|node_modules|\.[jt]s:\d|at or near|violates|invalid input syntax|QueryFailed|Cannot read prop|is not a function|is not iterable|call stack/;

let database: TestDatabase;
let core: RunningContentCore;
let token: string;
let schema: GraphQLSchema;

beforeAll(async () => {
  process.stdout.write(`fuzzing the API, seed ${SEED}, ${RUNS} runs of each kind\n`);
  database = await aDatabase([]);
  const manifest = join(mkdtempSync(join(tmpdir(), 'fuzz-')), 'documents.json');
  writeFileSync(manifest, JSON.stringify({ known: '{ me { role } }' }));
  core = await aContentCore(database, { TRUSTED_DOCUMENTS: manifest });
  token = await core.logIn();
  const { body } = await post(JSON.stringify({ query: getIntrospectionQuery() }));
  schema = buildClientSchema((JSON.parse(body) as { data: IntrospectionQuery }).data);
});

afterAll(async () => {
  await core?.stop();
  await database?.drop();
});

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly ms: number;
  readonly asked: string;
}

async function post(body: string | Uint8Array, headers: Record<string, string> = {}): Promise<Answer> {
  return send('/graphql', { method: 'POST', body, headers: { 'content-type': 'application/json', ...headers } });
}

async function send(
  path: string,
  init: { method: string; body?: string | Uint8Array; headers?: object },
): Promise<Answer> {
  const from = performance.now();
  const response = await fetch(core.url + path, {
    ...init,
    headers: { authorization: `Bearer ${token}`, ...init.headers },
    signal: AbortSignal.timeout(3 * PATIENCE_MS),
  } as RequestInit);
  const asked = `${init.method} ${path} ${String(init.body ?? '')}`;
  return { status: response.status, body: await response.text(), ms: performance.now() - from, asked };
}

/** What must hold of every answer, whatever was asked. */
function requireSound({ status, body, ms, asked }: Answer): void {
  expect(body).not.toMatch(SECRETS);
  // Told with what was asked, so that a failure says what it is about.
  if (status >= 500 || body.includes('INTERNAL_ERROR'))
    throw new Error(
      `${status} ${body.slice(0, 500)} for ${asked.slice(0, 2_000)} and this log: ${core.output().slice(0, 3_000)}`,
    );
  expect(ms).toBeLessThan(PATIENCE_MS);
  for (const { extensions } of errorsIn(body)) expect(Object.keys(API_ERRORS)).toContain(extensions?.['code']);
}

function errorsIn(body: string): { extensions?: Record<string, unknown> }[] {
  try {
    const parsed = JSON.parse(body) as Json;
    return Array.isArray(parsed?.errors) ? parsed.errors : [];
  } catch {
    return [];
  }
}

/** Draws values within one run: the same seed draws the same. */
interface Draw {
  /** From 0 to `max`. */
  below(max: number): number;
  one<Value>(values: readonly Value[]): Value;
  chance(share: number): boolean;
}

function drawFrom(gen: fc.GeneratorValue): Draw {
  const below = (max: number) => gen(fc.integer, { min: 0, max });
  return { below, one: (values) => values[below(values.length - 1)]!, chance: (share) => below(999) < share * 1_000 };
}

const TEXTS = [
  '',
  'Ada',
  "'; drop table contacts; --",
  "' or '1'='1",
  '") or 1=1 --',
  '%_\\',
  '$1',
  '\u0000',
  'a\u0000b',
  '\ud800',
  '\udfff\ud800',
  '\u202e\u2028',
  '😀'.repeat(50),
  'x'.repeat(20_000),
  '{"a":1}',
  '2026-02-30',
  '9999-12-31T23:59:59.999+23:59',
  '0000-00-00',
  'NaN',
  'Infinity',
  '1e400',
  '-1',
  '00000000-0000-7000-8000-00000000000a',
  '__proto__',
  'constructor',
  Buffer.from('["Contact","name asc",null]').toString('base64url'),
  Buffer.from('["Contact","\\"id\\" asc","x"]').toString('base64url'),
];
const NUMBERS = [0, -0, 1, -1, 0.5, 100, 101, 2 ** 31 - 1, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, 1e308, -1e308, 5e-324];

/** A value that need fit nothing. */
function anything(draw: Draw, depth = 0): Json {
  switch (draw.below(depth > 3 ? 4 : 7)) {
    case 0:
      return draw.one(TEXTS);
    case 1:
      return draw.one(NUMBERS);
    case 2:
      return draw.one([true, false, null]);
    case 3:
      return draw.one(['equals', 'ASC', 'Lead']);
    case 4:
      return Array.from({ length: draw.one([0, 1, 3, 2_000]) }, (_, n) => (n > 3 ? n : anything(draw, depth + 1)));
    case 5: {
      let deep: Json = anything(draw, 4);
      const key = draw.one(['and', 'not', 'or', 'is', 'a']);
      const count = draw.one([2, 12, 70, 300]);
      for (let n = 0; n < count; n += 1) deep = key === 'not' || key === 'is' ? { [key]: deep } : { [key]: [deep] };
      return deep;
    }
    default:
      return Object.fromEntries(
        ['and', 'id', 'name', '__proto__', draw.one(TEXTS)]
          .slice(draw.below(4))
          .map((key) => [key, anything(draw, depth + 1)]),
      );
  }
}

/** A value of a type, or now and then one that is not. */
function valueOf(draw: Draw, type: GraphQLInputType, depth = 0): Json {
  if (draw.chance(0.04)) return anything(draw);
  if (isNonNullType(type)) return valueOf(draw, type.ofType, depth);
  if (draw.chance(0.08)) return null;
  if (isListType(type)) {
    const count = depth > 3 ? 0 : draw.one([0, 1, 1, 2, 3, draw.chance(0.1) ? 1_500 : 2]);
    const first = Array.from({ length: Math.min(count, 3) }, () => valueOf(draw, type.ofType, depth + 1));
    return [...first, ...Array.from({ length: count - first.length }, () => first[0])];
  }
  if (isInputObjectType(type)) {
    const fields = Object.values(type.getFields());
    const isOpen = depth < 5;
    return Object.fromEntries(
      fields
        .filter((field) => (isNonNullType(field.type) ? draw.chance(0.97) : isOpen && draw.chance(1.6 / fields.length)))
        .map((field) => [field.name, valueOf(draw, field.type, depth + 1)]),
    );
  }
  if (isEnumType(type)) return draw.one(type.getValues()).name;
  switch (type.name) {
    case 'Int':
      return draw.chance(0.5) ? draw.below(20) : draw.one(NUMBERS);
    case 'Float':
      return draw.one(NUMBERS);
    case 'Boolean':
      return draw.chance(0.5);
    case 'Date':
      return draw.one(['2026-11-21', '0001-01-01', '9999-12-31', draw.one(TEXTS)]);
    case 'DateTime':
      return draw.one(['2026-11-21T07:25:18Z', '0001-01-01T00:00:00Z', '2999-01-01T00:00:00Z', draw.one(TEXTS)]);
    case 'ID':
      return draw.one(['00000000-0000-7000-8000-00000000000a', draw.one(TEXTS)]);
    case 'JSON':
      return anything(draw);
    default:
      return draw.one(TEXTS);
  }
}

/** As it is written in a document. */
function literal(value: Json, type: GraphQLInputType): string {
  const named = isNonNullType(type) ? type.ofType : type;
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) {
    const of = isListType(named) ? named.ofType : named;
    return `[${value.map((each) => literal(each, of)).join(', ')}]`;
  }
  if (typeof value === 'object') {
    const fields = isInputObjectType(named) ? named.getFields() : {};
    const inner = Object.entries(value).map(([key, each]) => `${key}: ${literal(each, fields[key]?.type ?? named)}`);
    return `{${inner.join(', ')}}`;
  }
  return isEnumType(named) && /^\w+$/.test(String(value)) ? String(value) : JSON.stringify(value);
}

/** Commands that would end the run itself, or that others have tests for. */
const ASKED =
  /^(create|update|delete|restore|purge)?(contact|compan|deal|note)|^(me|events|auditLog|projections|memorySearch|graphNode|historicalSyncJob)/i;

interface Operation {
  query: string;
  variables: Record<string, Json>;
  kind: 'query' | 'mutation' | 'subscription';
}

/** An operation that mostly fits the schema. */
function anOperation(draw: Draw, kinds: readonly Operation['kind'][]): Operation {
  const kind = draw.one(kinds);
  const root = {
    query: schema.getQueryType,
    mutation: schema.getMutationType,
    subscription: schema.getSubscriptionType,
  }[kind].call(schema)!;
  const variables: Record<string, Json> = {};
  const declared: string[] = [];
  const fragments: string[] = [];
  let budget = draw.one([5, 20, 60]);

  const directive = () => {
    if (!draw.chance(0.06)) return '';
    const condition = draw.chance(0.3) ? '$flag' : draw.one(['true', 'false', '1', 'null']);
    return ` @${draw.one(['skip', 'include', 'include', 'nothing', 'deprecated'])}(if: ${condition})`;
  };
  const argumentsOf = (args: readonly { name: string; type: GraphQLInputType }[]): string => {
    const given = args.filter(({ type }) => (isNonNullType(type) ? draw.chance(0.97) : draw.chance(0.25)));
    if (given.length === 0) return '';
    return `(${given
      .map(({ name, type }) => {
        const value = valueOf(draw, type);
        if (draw.chance(0.5)) return `${name}: ${literal(value, type)}`;
        const variable = `v${declared.length}`;
        declared.push(`$${variable}: ${String(type)}`);
        variables[variable] = value;
        return `${name}: $${variable}`;
      })
      .join(', ')})`;
  };
  const selection = (type: GraphQLObjectType, depth: number): string => {
    const all = Object.values(type.getFields()).filter(({ name }) => depth > 0 || ASKED.test(name));
    const count = kind === 'subscription' && depth === 0 ? 1 : 1 + draw.below(3);
    const parts: string[] = [];
    for (let n = 0; n < count; n += 1) {
      budget -= 1;
      const field = draw.one(all);
      const below = getNamedType(field.type);
      const isLeaf = isLeafType(below);
      if (!isLeaf && (depth > 9 || budget < 0) && depth > 0) {
        parts.push('__typename');
        continue;
      }
      const alias = draw.chance(0.15) ? `a${draw.below(99)}: ` : '';
      const inner = isObjectType(below) ? ` ${selection(below, depth + 1)}` : '';
      parts.push(`${alias}${field.name}${argumentsOf(field.args)}${directive()}${inner}`);
    }
    const text = parts.join(' ');
    if (draw.chance(0.05)) return `{ ... on ${type.name} { ${text} } }`;
    if (!draw.chance(0.05)) return `{ ${text} }`;
    const name = `F${fragments.length}`;
    const again = draw.chance(0.1) ? ` ...${name}` : '';
    fragments.push(`fragment ${name} on ${draw.chance(0.05) ? 'Nothing' : type.name} { ${text}${again} }`);
    return `{ ...${name} }`;
  };

  const body = selection(root, 0);
  if (`${body}${fragments.join()}`.includes('$flag')) declared.push('$flag: Boolean! = true');
  const head = declared.length > 0 ? ` run(${declared.join(', ')})` : ' run';
  return { kind, query: `${kind}${head} ${body} ${fragments.join(' ')}`, variables };
}

/** The document with some of it taken out, doubled, or replaced. */
function broken(draw: Draw, text: string): string {
  const at = draw.below(text.length);
  const to = Math.min(text.length, at + draw.below(30));
  switch (draw.below(3)) {
    case 0:
      return text.slice(0, at) + text.slice(to);
    case 1:
      return text.slice(0, to) + text.slice(at);
    default:
      return (
        text.slice(0, at) +
        draw.one(['{', '}', '$', '...', '@', '"', '"""', '\u0000', '\ud800', '#', '\ufeff', '1e999']) +
        text.slice(to)
      );
  }
}

/** Documents that would cost without a bound, each in a size that is far beyond it. */
const MONSTERS: readonly ((n: number) => string)[] = [
  (n) => `{ ${'contacts { nodes { company { '.repeat(n)}id`,
  (n) => `{ me: contacts { nodes ${'{ company '.repeat(n)}{ id }${'}'.repeat(n)} } }`,
  (n) => `{ ${Array.from({ length: n }, (_, at) => `a${at}: contacts(first: 100) { nodes { id } }`).join(' ')} }`,
  (n) => `{ contacts { nodes { ${'id '.repeat(n)} } } }`,
  (n) => `{ contacts { nodes { ${Array.from({ length: n }, (_, at) => `a${at}: name`).join(' ')} } } }`,
  (n) =>
    `{ contacts { ...F0 } } ${Array.from({ length: n }, (_, at) => `fragment F${at} on ContactConnection { ...F${at + 1} ...F${at + 1} }`).join(' ')} fragment F${n} on ContactConnection { totalCount }`,
  (n) =>
    `{ ...F0 } ${Array.from({ length: n }, (_, at) => `fragment F${at} on Query { ...F${(at + 1) % n} __typename }`).join(' ')}`,
  (n) => `{ contacts(where: ${'{not: '.repeat(n)}{}${'}'.repeat(n)}) { totalCount } }`,
  (n) => `{ contacts(where: {and: [${'{name: {equals: "a"}}, '.repeat(n)}]}) { totalCount } }`,
  (n) => `{ contacts(where: {id: {in: [${'"00000000-0000-7000-8000-00000000000a", '.repeat(n)}]}}) { totalCount } }`,
  (n) => `{ contacts(where: ${'['.repeat(n)}${']'.repeat(n)}) { totalCount } }`,
  (n) => `query (${Array.from({ length: n }, (_, at) => `$v${at}: Int`).join(' ')}) { __typename }`,
  (n) => `query ($v: ${'['.repeat(n)}Int${']'.repeat(n)}) { contacts(first: $v) { totalCount } }`,
  (n) => `{ __typename ${'@include(if: true) '.repeat(n)} }`,
  (n) =>
    `{ __schema { types { ${Array.from({ length: Math.min(n, 100) }, (_, at) => `a${at}: fields { type { b: fields { type { name } } } }`).join(' ')} } } }`,
  (n) => `{ __schema { types { ${'fields { type { '.repeat(n)} name ${'} }'.repeat(n)} } } }`,
  (n) => 'query q { __typename } '.repeat(n),
  (n) => `{ contacts(after: "${'a'.repeat(n)}") { totalCount } }`,
  (n) => `# ${'x'.repeat(n)}\n{ __typename }`,
];

async function isAlive(): Promise<void> {
  expect(core.isAlive()).toBe(true);
  expect((await send('/health/live', { method: 'GET' })).status).toBe(200);
}

afterEach(async () => {
  await isAlive();
  // An error is logged by what is our fault alone.
  expect(core.output()).toBe('');
});

/** Runs the property on as many draws as are asked for, from the printed seed. */
const fuzz = (property: (draw: Draw) => Promise<void>, runs = RUNS) =>
  fc.assert(
    fc.asyncProperty(fc.gen(), (gen) => property(drawFrom(gen))),
    { seed: SEED, numRuns: runs, endOnFailure: true, ...SHARE },
  );

test('all of the schema that introspection tells is documented', () => {
  const silent = Object.values(schema.getTypeMap())
    .filter(({ name }) => !name.startsWith('__'))
    .flatMap((type) => [
      ...(type.description ? [] : [type.name]),
      ...(isObjectType(type) || isInputObjectType(type) ? Object.values(type.getFields()) : [])
        .filter(({ description }) => !description)
        .map(({ name }) => `${type.name}.${name}`),
    ]);
  expect(silent).toEqual([]);
});

test('documents and variables, sound and broken, over HTTP', async () => {
  expect.hasAssertions();
  await fuzz(async (draw) => {
    const { query, variables } = anOperation(draw, ['query', 'query', 'mutation']);
    const text = draw.chance(0.15) ? broken(draw, query) : query;
    const sent = draw.chance(0.05) ? anything(draw) : variables;
    if (draw.chance(0.1) && text.length < 3_000) {
      const search = new URLSearchParams({
        query: text.toWellFormed(),
        variables: JSON.stringify(sent).slice(0, 5_000),
      });
      requireSound(
        await send(`/graphql?${search.toString()}`, { method: 'GET', headers: { accept: 'application/json' } }),
      );
      return;
    }
    const extra = draw.chance(0.1)
      ? { operationName: draw.one(['run', 'x', '', null, 1]), extensions: anything(draw) }
      : {};
    const accept = draw.chance(0.1) ? { accept: 'text/event-stream' } : {};
    requireSound(await post(JSON.stringify({ query: text, variables: sent, ...extra }), accept));
  });
});

test('documents that would cost without a bound are refused by the name of a limit, or answered in time', async () => {
  for (const monster of MONSTERS) {
    for (const n of [45, 900, 4_000]) {
      const answer = await post(JSON.stringify({ query: monster(n) }));
      requireSound(answer);
      const complex = errorsIn(answer.body).filter(({ extensions }) => extensions?.['code'] === 'QUERY_TOO_COMPLEX');
      for (const { extensions } of complex) expect(extensions).toMatchObject({ limit: expect.stringMatching(/^MAX_/) });
    }
  }
});

test('bodies that are no operation', async () => {
  expect.hasAssertions();
  await fuzz(async (draw) => {
    const types = [
      'application/json',
      'application/json; charset=utf-16',
      'text/plain',
      'application/graphql',
      'multipart/form-data',
      'application/x-www-form-urlencoded',
      'x',
      '',
    ];
    const json = JSON.stringify(
      draw.chance(0.5) ? anything(draw) : { query: anything(draw), variables: anything(draw) },
    );
    const bodies: readonly (() => string | Uint8Array)[] = [
      () => json,
      () => broken(draw, json),
      () => JSON.stringify({ documentId: draw.chance(0.3) ? 'known' : anything(draw), variables: anything(draw) }),
      () =>
        JSON.stringify({
          extensions: { persistedQuery: draw.chance(0.5) ? { sha256Hash: anything(draw) } : anything(draw) },
        }),
      () => JSON.stringify(Array.from({ length: draw.one([1, 3, 500]) }, () => ({ query: '{ __typename }' }))),
      () => '['.repeat(draw.one([10, 5_000, 400_000])),
      () => `{"query":"{__typename}","variables":{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}}`,
      () => `{"query":"{__typename}","variables":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`,
      () => JSON.stringify({ query: 'x'.repeat(draw.one([99_999, 1_100_000])) }),
      () => Uint8Array.from({ length: 200 }, () => draw.below(255)),
      () => '{"query":"{__typename}","query":"{","__proto__":{"variables":1},"constructor":{"prototype":{}}}',
    ];
    const type = draw.chance(0.5) ? 'application/json' : draw.one(types);
    const encoding = draw.chance(0.05) ? { 'content-encoding': draw.one(['gzip', 'x']) } : {};
    const accept = draw.chance(0.2)
      ? { accept: draw.one(['text/html', 'image/png', 'text/event-stream', ';;q=,', '*/*;q=x']) }
      : {};
    const answer = await post(draw.one(bodies)(), { 'content-type': type, ...encoding, ...accept });
    requireSound(answer);
  });
});

test('methods, paths and heads that are none', () =>
  fuzz(
    async (draw) => {
      const method = draw.one(['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'HEAD', 'TRACE', 'PATCH', 'get', 'XX']);
      const path = draw.one([
        '/graphql',
        '/graphql?query=%',
        '/graphql?query=%00',
        '/graphql?variables=[',
        '/graphql/%2e%2e',
        '//',
        '/%zz',
        '/graphql?query={__typename}&variables={"a":',
        '/meta/schema',
        '/health/live/x',
        '*',
      ]);
      const heads = [
        'content-length: -1',
        'content-length: 99999999999',
        'transfer-encoding: chunked, x',
        'authorization: Bearer',
        'authorization: Bearer \u0001',
        'host:',
        'x: y'.repeat(50),
        `cookie: ${'a'.repeat(9_000)}`,
        'expect: 100-continue',
        'upgrade: websocket',
        'connection: upgrade',
      ];
      const given = heads.filter(() => draw.chance(0.2));
      const { port, hostname } = new URL(core.url);
      const socket = connect(Number(port), hostname);
      socket.setTimeout(PATIENCE_MS);
      let answer = '';
      socket
        .on('data', (bytes) => (answer += String(bytes)))
        .on('error', () => undefined)
        .on('timeout', () => socket.destroy());
      const closed = once(socket, 'close');
      socket.write(
        `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n${given.map((head) => `${head}\r\n`).join('')}\r\n`,
      );
      socket.end();
      await closed;
      expect(answer).not.toMatch(SECRETS);
      expect(answer).not.toMatch(/^HTTP\/1\.1 5\d\d/);
    },
    Math.ceil(RUNS / 3),
  ));

test('operations and messages, sound and broken, over sockets', () =>
  fuzz(
    async (draw) => {
      const socket = new WebSocket(core.url.replace('http', 'ws') + '/graphql', 'graphql-transport-ws');
      const received: string[] = [];
      let code: number | undefined;
      socket.on('message', (data) => received.push(String(data))).on('error', () => undefined);
      socket.on('close', (closedWith) => (code = closedWith));
      await once(socket, 'open');
      if (draw.chance(0.95)) {
        socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } }));
        await eventually('an acknowledgement', () => received.length > 0 || code !== undefined);
      }
      for (let n = 0; n < 3 && code === undefined; n += 1) {
        const { query, variables, kind } = anOperation(draw, ['query', 'subscription', 'subscription']);
        const payload = { query: draw.chance(0.15) ? broken(draw, query) : query, variables };
        const message = JSON.stringify({ id: String(n), type: 'subscribe', payload });
        const isSound = draw.chance(0.85);
        const from = performance.now();
        const before = received.length;
        socket.send(
          isSound
            ? message
            : draw.one([broken(draw, message), JSON.stringify(anything(draw)), Buffer.from([0, 255, 1])]),
        );
        // A subscription to what changes may rightly say nothing: the answer to a ping behind it says that it was taken.
        socket.send('{"type":"ping"}');
        await eventually('an answer', () => received.length > before || code !== undefined, PATIENCE_MS);
        if (isSound && kind === 'query')
          await eventually(
            'its end',
            () =>
              code !== undefined ||
              received.some(
                (text) =>
                  new RegExp(`"id":"${n}","type":"(error|complete)"|"type":"(error|complete)","id":"${n}"`).test(
                    text,
                  ) || text.includes(`"id":"${n}"`),
              ),
            PATIENCE_MS,
          );
        expect(performance.now() - from).toBeLessThan(PATIENCE_MS);
      }
      socket.close();
      await eventually('a close', () => code !== undefined, PATIENCE_MS);
      // Those of the protocol are for bytes that are no text and for messages that are too long, or say that they are.
      expect([1000, 1002, 1003, 1005, 1006, 1007, 1009].includes(code!) || (code! >= 4400 && code! < 4500)).toBe(true);
      for (const text of received) {
        expect(text).not.toMatch(SECRETS);
        expect(text).not.toContain('INTERNAL_ERROR');
      }
    },
    Math.ceil(RUNS / 2),
  ));
