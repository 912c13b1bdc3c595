import { eventStoreMigrations, ProjectionRunner, type Projection } from '@atomo-cc/event-store';
import { startTracing, type ReadableSpan, type Tracing } from '@atomo-cc/platform/telemetry';
import { Leases1700000001000 } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { anApi, SHOP, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

const [OURS] = SHOP_TENANTS;
const TOKEN = { authorization: `Bearer ${OURS}` };
const CREATE = 'mutation CreateItem($input: CreateItemInput!) { createItem(input: $input) { id } }';
const PROJECTION: Projection = {
  name: 'noting',
  version: 1,
  mode: 'async',
  tables: [],
  eventTypes: 'all',
  apply: () => Promise.resolve(),
};

/** Of this many spans each test has its own trace, so that it looks at no other's. */
let traces = 0;
const aTrace = () => (traces += 1).toString(16).padStart(32, '0');

let database: TestDatabase;
let api: TestApi;
let runner: ProjectionRunner;
let tracing: Tracing;
let spans: ReadableSpan[] = [];

beforeAll(async () => {
  tracing = startTracing({
    service: 'test',
    ratio: 0,
    exporter: {
      export: (ended, done) => {
        spans.push(...ended);
        done({ code: 0 as never });
      },
      shutdown: () => Promise.resolve(),
    },
  });
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(database.url, SHOP);
  api = await anApi([modelsApi(SHOP, database.app)]);
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [PROJECTION],
    pollMs: 20,
  });
  await runner.start();
});

afterAll(async () => {
  await runner?.stop();
  await api?.close();
  await tracing?.stop();
  await database?.drop();
});

afterEach(() => {
  spans = [];
});

const mutate = async (trace: string, input: object, query = CREATE) => {
  const response = await fetch(api.url, {
    method: 'POST',
    headers: { ...TOKEN, 'content-type': 'application/json', traceparent: `00-${trace}-b7ad6b7169203331-01` },
    body: JSON.stringify({ query, variables: { input } }),
  });
  return (await response.json()) as { data?: Record<string, { id: string }>; errors?: unknown[] };
};
const metadataOf = async (id: string) =>
  (
    await database.asOwner<{ metadata: Record<string, string> }>('select metadata from event_log where stream = $1', [
      `Item-${id}`,
    ])
  )[0]!.metadata;

/** The trace as `name < parent's name`, the parent outside being `caller`; waits until it has so many spans. */
async function treeOf(trace: string, size: number): Promise<string[]> {
  const own = () => spans.filter((span) => span.spanContext().traceId === trace);
  await eventually(`${size} spans are there`, () => own().length >= size).catch(() => undefined);
  const names = new Map(own().map((span) => [span.spanContext().spanId, span.name]));
  return own()
    .map(({ name, parentSpanContext }) => `${name} < ${names.get(parentSpanContext?.spanId ?? '') ?? 'caller'}`)
    .toSorted();
}

const WHOLE = [
  'POST /graphql < caller',
  'append < create Item',
  'create Item < mutation CreateItem',
  'decide < create Item',
  'mutation CreateItem < POST /graphql',
  'project noting < append',
];

it('a mutation is one trace, from the request to the projection', async () => {
  const trace = aTrace();
  const answer = await mutate(trace, { title: 'Lamp' });
  expect(await treeOf(trace, 6)).toEqual(WHOLE);
  const append = spans.find(({ name }) => name === 'append')!.spanContext();
  expect(await metadataOf(answer.data!['createItem']!.id)).toMatchObject({
    traceparent: `00-${trace}-${append.spanId}-01`,
    address: '127.0.0.1',
  });
});

it('nothing that someone wrote, and nobody, is in a span', async () => {
  const trace = aTrace();
  const answer = await mutate(trace, { title: 'Secret Ada', contactMail: 'ada@example.com', order: 'secret' });
  await mutate(trace, { title: 'Secret Ada', contactMail: 'secret' });
  await mutate(trace, { title: 'Secret Ada' }, 'mutation { secret }');
  await treeOf(trace, 11);
  const told = JSON.stringify(
    spans.map(({ name, attributes, status, events, links }) => [name, attributes, status, events, links]),
  );
  expect(told).not.toMatch(/ada|secret|127\.0\.0\.1|b7ad6b7169203331/i);
  expect(told).not.toContain(answer.data!['createItem']!.id);
  expect(told).toContain('VALIDATION_ERROR');
});

it('commands of one transaction each have their own decide and append; those without a trace have none', async () => {
  const traced = Array.from({ length: 5 }, aTrace);
  await Promise.all([
    ...traced.map((trace) => mutate(trace, { title: 'Lamp' })),
    ...Array.from({ length: 5 }, () => api.data(CREATE, { input: { title: 'Untraced' } })),
  ]);
  for (const trace of traced) expect(await treeOf(trace, 6)).toEqual(WHOLE);
  expect(new Set(spans.map((span) => span.spanContext().traceId))).toEqual(new Set(traced));
});

it('a request that its caller does not record leaves no trace, neither here nor in the event', async () => {
  const response = await fetch(api.url, {
    method: 'POST',
    headers: {
      ...TOKEN,
      'content-type': 'application/json',
      traceparent: `00-${aTrace()}-b7ad6b7169203331-00`,
    },
    body: JSON.stringify({ query: CREATE, variables: { input: { title: 'Lamp' } } }),
  });
  const { data } = (await response.json()) as { data: { createItem: { id: string } } };
  expect(await metadataOf(data.createItem.id)).not.toHaveProperty('traceparent');
  expect(spans).toEqual([]);
});

it('a refused command says why in its decide, and appends nothing', async () => {
  const trace = aTrace();
  await mutate(trace, { title: 'Lamp', brandId: OURS });
  expect(await treeOf(trace, 4)).toEqual(WHOLE.filter((each) => !/append/.test(each)));
  expect(
    spans.filter(({ status }) => Number(status.code) === 2).map(({ name, status }) => [name, status.message]),
  ).toEqual([
    ['decide', 'VALIDATION_ERROR'],
    ['create Item', 'VALIDATION_ERROR'],
    ['mutation CreateItem', 'VALIDATION_ERROR'],
  ]);
});

it('a traceparent comes over a socket by the extensions of an operation', async () => {
  const trace = aTrace();
  const client = createClient({
    url: api.url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { ...TOKEN, traceparent: `00-${aTrace()}-b7ad6b7169203331-01` },
  });
  const made = await new Promise<{ createItem: { id: string } }>((resolve, reject) => {
    client.subscribe<{ createItem: { id: string } }>(
      {
        query: CREATE,
        variables: { input: { title: 'Lamp' } },
        extensions: { traceparent: `00-${trace}-b7ad6b7169203331-01` },
      },
      { next: ({ data }) => resolve(data!), error: reject, complete: () => undefined },
    );
  });
  await client.dispose();
  expect(await treeOf(trace, 5)).toEqual([
    'append < create Item',
    'create Item < mutation CreateItem',
    'decide < create Item',
    'mutation CreateItem < caller',
    'project noting < append',
  ]);
  expect(await metadataOf(made.createItem.id)).toMatchObject({ address: '127.0.0.1' });
});
