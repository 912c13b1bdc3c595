import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createClient as createStreamClient } from 'graphql-sse';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import {
  announceAppended,
  AppendHints,
  appendedChannel,
  eventStoreMigrations,
  Fence,
  ProjectionRunner,
} from '@atomo-cc/event-store';
import type { TenantId } from '@atomo-cc/kernel';
import { Leases1700000001000, openAppDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import type { Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, aSeed, eventually, seeded, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { CHANGES_PAGE } from './changes.js';
import { historyProjection } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;

/** For a busy machine. */
jest.setTimeout(60_000);

/** One of several processes. */
interface Instance {
  readonly database: AppDatabase;
  readonly redis: Redis;
  readonly api: TestApi;
}

let database: TestDatabase;
let redis: Redis;
let writer: Instance;
let reader: Instance;
/** Whether those who append tell it. */
let isAnnounced = true;
/** What a client of either transport is here. */
interface Client {
  dispose(): void | Promise<void>;
  /** Leaves without a word. */
  terminate(): void;
}
type Transport = 'sockets' | 'event streams';
const clients: Client[] = [];

async function anInstance(stalledMs?: number): Promise<Instance> {
  const own = await openAppDatabase({ url: database.url, service: 'instance', poolSize: 4 });
  const hinted = await aRedis();
  const changes = { fence: new Fence(), hints: new AppendHints(hinted), ...(stalledMs && { stalledMs }) };
  const onAppended = (tenant: TenantId) => isAnnounced && announceAppended(redis, tenant);
  return { database: own, redis: hinted, api: await anApi([modelsApi(SHOP, own, { onAppended, changes })]) };
}

async function end(instance: Instance | undefined): Promise<void> {
  await instance?.api.close();
  instance?.redis.disconnect();
  await instance?.database.close();
}

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(database.url, SHOP);
  redis = await aRedis('command');
  writer = await anInstance();
  reader = await anInstance();
});

afterEach(async () => {
  isAnnounced = true;
  await Promise.all(clients.splice(0).map((client) => client.dispose()));
  await eventually('nobody listens any more', async () => (await listeners()) === 0);
  await database.asOwner(
    'truncate event_log, event_streams, stream_snapshots, command_answers, model_item, model_brand, history_item, history_brand',
  );
});

afterAll(async () => {
  await end(writer);
  await end(reader);
  redis?.disconnect();
  await database?.drop();
});

async function listeners(): Promise<number> {
  const [, count] = (await redis.pubsub('NUMSUB', appendedChannel(OURS))) as [string, number];
  return count;
}

const FIELDS =
  'position type id version changedFields item { id version title order inStock brand { name parent { name } } }';
const CHANGED = `subscription ($where: ItemWhere, $after: String) { itemChanged(where: $where, after: $after) { ${FIELDS} } }`;

/** Subscribes; `seen` grows by itself until it is left. */
function follow(variables: object, { api } = reader, tenant = OURS, transport: Transport = 'sockets') {
  const authorization = `Bearer ${tenant}`;
  const operation = { query: CHANGED, variables: { after: '0', ...variables } };
  const seen: Json[] = [];
  const pagesOf = (iterate: (asked: typeof operation) => AsyncIterableIterator<unknown>) =>
    iterate(operation) as AsyncIterableIterator<{ data?: { itemChanged: Json } | null; errors?: readonly unknown[] }>;
  if (transport === 'event streams') {
    const made = createStreamClient({ url: api.url, headers: { authorization }, retryAttempts: 0 });
    const client: Client = { dispose: () => made.dispose(), terminate: () => made.dispose() };
    clients.push(client);
    return { client, seen, pages: pagesOf((asked) => made.iterate(asked)) };
  }
  const client = createClient({
    url: api.url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { authorization },
    retryAttempts: 0,
    onNonLazyError: () => undefined,
  });
  clients.push(client);
  return { client, seen, pages: pagesOf((asked) => client.iterate(asked)) };
}

/** Takes `count` payloads, as far as they come before it ends. */
async function take({ seen, pages }: ReturnType<typeof follow>, count: number): Promise<Json[]> {
  const taken: Json[] = [];
  while (taken.length < count) {
    const { value, done } = await pages.next();
    if (done) break;
    if (value.errors) throw new Error(JSON.stringify(value.errors));
    taken.push(value.data!.itemChanged);
  }
  seen.push(...taken);
  return taken;
}

const create = async (input: object, tenant = OURS): Promise<string> =>
  (
    await writer.api.data(
      'mutation ($input: CreateItemInput!) { createItem(input: $input) { id } }',
      { input: { title: 'Lamp', ...input } },
      tenant,
    )
  ).createItem.id;
const update = (id: string, input: object) =>
  writer.api.data('mutation ($id: ID!, $input: UpdateItemInput!) { updateItem(id: $id, input: $input) { id } }', {
    id,
    input,
  });
const createBrand = async (input: object): Promise<string> =>
  (await writer.api.data('mutation ($input: CreateBrandInput!) { createBrand(input: $input) { id } }', { input }))
    .createBrand.id;
const logged = () =>
  database.asOwner<{ position: string; id: string; version: number }>(
    `select position, substr(stream, 6) as id, stream_version as version from event_log
     where tenant_id = $1 and type like 'Item.%' order by position`,
    [OURS],
  );

/** Creates and changes items, several at a time; tells when all is written. */
function writeAtRandom(random: () => number, rounds: number) {
  const progress = { isOver: false };
  const work = async () => {
    const ids: string[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const drawn = random();
      if (ids.length < 3 || drawn < 0.2) ids.push(await create({ inStock: random() < 0.5 }));
      else {
        const id = ids[Math.floor(random() * ids.length)]!;
        await update(id, drawn < 0.6 ? { inStock: random() < 0.5 } : { title: `title ${round}` });
      }
    }
  };
  const over = Promise.all([work(), work(), work(), create({}, THEIRS)]).then(() => (progress.isOver = true));
  return Object.assign(progress, { over });
}

/** Follows with reconnects at random points, some of them rough, up to what is titled 'the end'; each time behind the last position. */
async function followRoughly(random: () => number, variables: object): Promise<Json[]> {
  const seen: Json[] = [];
  const isEnd = () => seen.at(-1)?.item?.title === 'the end';
  while (!isEnd()) {
    const after = seen.at(-1)?.position ?? '0';
    const transport = random() < 0.5 ? 'sockets' : 'event streams';
    const following = follow({ ...variables, after }, random() < 0.5 ? reader : writer, OURS, transport);
    const count = 1 + Math.floor(random() * 25);
    for (let n = 0; n < count && !isEnd(); n += 1) seen.push(...(await take(following, 1)));
    if (random() < 0.5) following.client.terminate();
    else await following.pages.return?.();
    await following.client.dispose();
  }
  return seen;
}

test('every change comes exactly once, in the order of the log, through reconnects of either transport and from another instance', async () => {
  const random = seeded(aSeed('changes through reconnects'));
  const writing = writeAtRandom(random, 60);
  const ended = writing.over.then(() => create({ title: 'the end' }));
  const seen = await followRoughly(random, {});
  await ended;
  expect(seen.map(({ position, id, version }) => ({ position, id, version }))).toEqual(await logged());
  for (const { id, version, item } of seen) {
    expect(item.id).toBe(id);
    expect(item.version).toBeGreaterThanOrEqual(version);
  }
});

test.each([
  ['with a history that keeps up', true],
  ['without a history', false],
])('who keeps what matches has in the end what a list answers: %s', async (name, hasHistory) => {
  const random = seeded(aSeed(`matching changes ${name}`));
  const runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [historyProjection(SHOP)],
    pollMs: 15,
    onError: (error) => expect(error).toBeUndefined(),
  });
  if (hasHistory) await runner.start();
  try {
    const where = { and: [{ not: { inStock: { equals: false } } }, { title: { not: 'gone' } }] };
    const writing = writeAtRandom(random, 40);
    const ended = writing.over.then(() => create({ title: 'the end' }));
    const seen = await followRoughly(random, { where });
    await ended;
    const kept = new Map<string, number>();
    for (const { id, item } of seen) {
      if (item) kept.set(id, item.version);
      else kept.delete(id);
    }
    const positions = seen.map(({ position }) => BigInt(position));
    expect(positions).toEqual([...new Set(positions)].toSorted((a, b) => (a < b ? -1 : 1)));
    const { items } = await writer.api.data(
      'query ($where: ItemWhere) { items(where: $where, first: 100) { nodes { id } totalCount } }',
      { where },
    );
    expect(items.totalCount).toBe(kept.size);
    expect([...kept.keys()].toSorted()).toEqual(items.nodes.map(({ id }: Json) => id).toSorted());
  } finally {
    await runner.stop();
  }
});

test('a change that takes a record out of the condition is told without it; other records are not told of', async () => {
  const runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [historyProjection(SHOP)],
    pollMs: 15,
    onError: (error) => expect(error).toBeUndefined(),
  });
  await runner.start();
  const inHistory = (count: number) =>
    eventually('the history holds it', async () => {
      const [row] = await database.asOwner<{ count: number }>('select count(*)::int as count from history_item');
      return row!.count === count;
    });
  try {
    const following = follow({ where: { order: { equals: 'ours' } } });
    const id = await create({ order: 'ours', inStock: true });
    const other = await create({ order: 'other' });
    await inHistory(2);
    expect(await take(following, 1)).toMatchObject([{ id, type: 'CREATED', item: { order: 'ours' } }]);
    await update(other, { order: 'another' });
    await inHistory(3);
    await update(id, { order: 'left', title: 'x' });
    await inHistory(4);
    expect(await take(following, 1)).toMatchObject([{ id, type: 'UPDATED', version: 2, item: null }]);
    await update(id, { title: 'unseen' });
    await inHistory(5);
    await update(id, { order: 'farther' });
    await inHistory(6);
    await writer.api.data(`mutation { restoreItem(id: "${id}", version: 1) { id } }`);
    const [back] = await take(following, 1);
    expect(back).toMatchObject({ id, type: 'RESTORED', version: 5, item: { order: 'ours', title: 'Lamp' } });
    expect(back.changedFields.toSorted()).toEqual(['order', 'title']);
  } finally {
    await runner.stop();
  }
});

test.each([
  ['a computed field', { label: { equals: 'Lamp ours' } }, { order: 'theirs' }],
  ['a search', { or: [{ search: 'lamp' }] }, { title: 'Chair' }],
])('so is one that takes it out by what %s looks at', async (_name, where, out) => {
  const following = follow({ where });
  const id = await create({ order: 'ours' });
  expect(await take(following, 1)).toMatchObject([{ id, type: 'CREATED', item: { order: 'ours' } }]);
  await update(id, out);
  expect(await take(following, 1)).toMatchObject([{ id, type: 'UPDATED', version: 2, item: null }]);
});

test('records come with the records they belong to', async () => {
  const parent = await createBrand({ name: 'house' });
  const brandId = await createBrand({ name: 'brand', parent: undefined, parentId: parent });
  const following = follow({});
  await create({ brandId });
  expect(await take(following, 1)).toMatchObject([{ item: { brand: { name: 'brand', parent: { name: 'house' } } } }]);
});

test('a page of changes is read by one statement', async () => {
  for (let n = 0; n < 10; n += 1) await create({ title: `${n}` });
  const query = jest.spyOn(Object.getPrototypeOf(await reader.database.transaction(OURS, async (tx) => tx)), 'query');
  try {
    await take(follow({}), 10);
    expect(query.mock.calls.filter(([text]) => String(text).startsWith('with matching'))).toHaveLength(1);
  } finally {
    query.mockRestore();
  }
});

test('another tenant is told nothing of it, whatever position it names', async () => {
  const theirs = follow({}, reader, THEIRS);
  await create({ title: 'ours' });
  const own = await create({ title: 'theirs' }, THEIRS);
  expect(await take(theirs, 1)).toMatchObject([{ id: own, item: { title: 'theirs' } }]);
});

test.each<Transport>(['sockets', 'event streams'])(
  'who follows one instance by %s hears what another wrote',
  async (transport) => {
    const first = follow({ after: null }, reader, OURS, transport);
    const waiting = take(first, 1);
    await eventually('it listens', async () => (await listeners()) === 1);
    const id = await create({ order: 'one' });
    const [seen] = await waiting;
    expect(seen).toMatchObject({ id, item: { order: 'one' } });
    first.client.terminate();
    await eventually('nobody listens', async () => (await listeners()) === 0);
    await update(id, { order: 'two' });
    const other = await create({});
    const rest = await take(follow({ after: seen.position }, writer, OURS, transport), 2);
    expect(rest).toMatchObject([
      { id, version: 2 },
      { id: other, version: 1 },
    ]);
  },
);

test('changes come without any hint', async () => {
  isAnnounced = false;
  const following = follow({});
  await eventually('it listens', async () => (await listeners()) === 1);
  const id = await create({});
  expect(await take(following, 1)).toMatchObject([{ id }]);
});

test('without a position one begins with what comes', async () => {
  await create({ title: 'before' });
  // The mark has passed it.
  const before = follow({});
  await take(before, 1);
  await before.client.dispose();
  await eventually('nobody listens', async () => (await listeners()) === 0);
  const following = follow({ after: null });
  const first = take(following, 1);
  await eventually('it listens', async () => (await listeners()) === 1);
  const id = await create({ title: 'later' });
  expect(await first).toMatchObject([{ id }]);
});

test.each([
  ['a position that is none', { after: 'x' }],
  ['an empty position', { after: '' }],
  ['a condition that is refused', { where: { id: { equals: 'x' } } }],
])('%s is refused at once', async (_name, variables) => {
  await expect(take(follow(variables), 1)).rejects.toThrow('VALIDATION_ERROR');
});

test('who takes nothing is cut, holds nothing meanwhile, and misses nothing by going on behind its last position', async () => {
  const slow = await anInstance(1_000);
  try {
    const socket = new WebSocket(slow.api.url.replace('http', 'ws'), 'graphql-transport-ws');
    const messages: Json[] = [];
    socket.on('message', (data) => messages.push(JSON.parse(String(data))));
    await new Promise((resolve) => socket.once('open', resolve));
    socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${OURS}` } }));
    await eventually('an acknowledgement', () => messages.length === 1);
    // More than two pages, and more than what lies in the buffers of a connection.
    const order = 'x'.repeat(10_000);
    const often = Array.from({ length: 30 }, (_, n) => `a${n}: order`).join(' ');
    await Promise.all(Array.from({ length: 2 * CHANGES_PAGE + 5 }, () => create({ order })));
    socket.pause();
    const payload = { query: CHANGED.replace('order', often), variables: { after: '0' } };
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload }));
    await eventually('it listens', async () => (await listeners()) === 1);
    await eventually('it was cut', async () => (await listeners()) === 0);
    socket.resume();
    const error = await eventually('an error', () => messages.find(({ type }) => type === 'error'));
    const taken = messages.filter(({ type }) => type === 'next').map((message) => message.payload.data.itemChanged);
    expect(error.payload).toMatchObject([
      { extensions: { code: 'RATE_LIMITED', after: taken.at(-1)?.position ?? '0' } },
    ]);
    const all = await logged();
    expect(taken.length).toBeLessThan(all.length);
    const rest = await take(follow({ after: error.payload[0].extensions.after }, reader), all.length - taken.length);
    expect([...taken, ...rest].map(({ position }) => position)).toEqual(all.map(({ position }) => position));
    socket.terminate();
  } finally {
    await Promise.all(clients.splice(0).map((client) => client.dispose()));
    await end(slow);
  }
});

test('who reads nothing of an event stream is cut too, holds nothing meanwhile, and misses nothing', async () => {
  const slow = await anInstance(1_000);
  try {
    const order = 'x'.repeat(10_000);
    const often = Array.from({ length: 30 }, (_, n) => `a${n}: order`).join(' ');
    await Promise.all(Array.from({ length: 2 * CHANGES_PAGE + 5 }, () => create({ order })));
    const request = httpRequest(slow.api.url, {
      method: 'POST',
      headers: { authorization: `Bearer ${OURS}`, 'content-type': 'application/json', accept: 'text/event-stream' },
    });
    request.end(JSON.stringify({ query: CHANGED.replace('order', often), variables: { after: '0' } }));
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(response.headers['content-type']).toMatch(/^text\/event-stream/);
    await eventually('it listens', async () => (await listeners()) === 1);
    // Nobody reads the answer until the subscription was cut.
    await eventually('it was cut', async () => (await listeners()) === 0);
    let text = '';
    for await (const chunk of response) text += String(chunk);
    const results = [...text.matchAll(/^event: next\ndata: (.*)$/gm)].map(([, json]) => JSON.parse(json!) as Json);
    expect(text).toMatch(/event: complete\ndata:\s*\n\n$/);
    const taken = results.flatMap(({ data }) => data?.itemChanged ?? []);
    const { errors } = results.at(-1);
    expect(errors).toMatchObject([{ extensions: { code: 'RATE_LIMITED', after: taken.at(-1)?.position ?? '0' } }]);
    const all = await logged();
    expect(taken.length).toBeLessThan(all.length);
    const { after } = errors[0].extensions;
    const rest = await take(follow({ after }, reader, OURS, 'event streams'), all.length - taken.length);
    expect([...taken, ...rest].map(({ position }) => position)).toEqual(all.map(({ position }) => position));
  } finally {
    await Promise.all(clients.splice(0).map((client) => client.dispose()));
    await end(slow);
  }
});
