import {
  destroySubjectKey,
  EventCodec,
  eventStoreMigrations,
  keepSnapshots,
  pauseProjection,
  ProjectionRunner,
  resumeProjection,
  SubjectKeys,
  wasErasedSince,
} from '@atomo-cc/event-store';
import { ATOMO_EVENTS, type RecordedEvent } from '@atomo-cc/events';
import type { TenantId } from '@atomo-cc/kernel';
import { inputName } from '@atomo-cc/schema';
import { Leases1700000001000, Tx } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, seeded, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { HISTORY, historyProjection } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { modelsApi, type ModelsApiOptions } from './models-api.js';
import { recordFold, recordToKeep } from './record-states.js';
import { eventsInLog, itemInput } from './testing/histories.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const [OURS, THEIRS] = SHOP_TENANTS;
const [brandModel, itemModel] = SHOP.models as [(typeof SHOP.models)[0], (typeof SHOP.models)[0]];
const NO_SUCH = '00000000-0000-7000-8000-00000000dead';

/** For a busy machine; the random histories ask some hundred questions. */
jest.setTimeout(60_000);

let database: TestDatabase;
let api: TestApi;
let runner: ProjectionRunner;
/** What the API under test is told of the log; tests set it and put it back. */
const log: { -readonly [Key in keyof ModelsApiOptions]: ModelsApiOptions[Key] } = {};
const codec = new EventCodec(new SubjectKeys('the encryption key of these tests'), ATOMO_EVENTS);
const failures: unknown[] = [];

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(database.url, SHOP);
  api = await anApi([modelsApi(SHOP, database.app, log)]);
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [historyProjection(SHOP)],
    pollMs: 15,
    onError: (error) => failures.push(error),
  });
  await runner.start();
});

afterAll(async () => {
  await runner?.stop();
  await api?.close();
  await database?.drop();
});

afterEach(async () => {
  jest.restoreAllMocks();
  expect(failures.splice(0)).toEqual([]);
  await pauseProjection(database.system, { projection: HISTORY });
  await database.asOwner(
    'truncate event_log, event_streams, stream_snapshots, command_answers, projection_dead_letters, model_item, model_brand, history_item, history_brand',
  );
  await resumeProjection(database.system, { projection: HISTORY });
});

const OWN = 'id version createdAt updatedAt';
const ITEM = `${OWN} title contactMail price inStock arrivesOn size brandId order`;
const ITEM_AT = `query ($id: ID!, $asOf: DateTime) { item(id: $id, asOf: $asOf) { ${ITEM} brand { name parent { name version } } } }`;
const HISTORY_OF = `query ($id: ID!, $first: Int, $after: String) { itemHistory(id: $id, first: $first, after: $after) {
  nodes { version type action recordedAt actor requestId restoredVersion changes { field before after } record { ${ITEM} } }
  edges { cursor node { version } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`;
const RESTORE = `mutation ($id: ID!, $version: Int!, $expectedVersion: Int, $key: String) {
  restoreItem(id: $id, version: $version, expectedVersion: $expectedVersion, idempotencyKey: $key) { ${ITEM} } }`;

const create = async (input: object, tenant = OURS): Promise<Json> =>
  (
    await api.data(
      `mutation ($input: CreateItemInput!) { createItem(input: $input) { ${ITEM} } }`,
      { input: { title: 'Lamp', ...input } },
      tenant,
    )
  ).createItem;
const update = async (id: string, input: object): Promise<Json> =>
  (
    await api.data(`mutation ($id: ID!, $input: UpdateItemInput!) { updateItem(id: $id, input: $input) { ${ITEM} } }`, {
      id,
      input,
    })
  ).updateItem;
const createBrand = async (input: object): Promise<string> =>
  (await api.data('mutation ($input: CreateBrandInput!) { createBrand(input: $input) { id } }', { input })).createBrand
    .id;
const updateBrand = (id: string, input: object) =>
  api.data('mutation ($id: ID!, $input: UpdateBrandInput!) { updateBrand(id: $id, input: $input) { id } }', {
    id,
    input,
  });
const codeOf = async (query: string, variables: object, tenant = OURS): Promise<string | undefined> =>
  (await api.ask(query, { ...variables }, tenant)).errors?.[0]?.extensions?.['code'] as string | undefined;
/** A time is over once the database's clock is past it; what is written from then on is later. */
const after = (time: string) =>
  eventually(`the clock is past ${time}`, async () => {
    const [row] = await database.asOwner<{ past: boolean }>('select clock_timestamp() > $1::timestamptz as past', [
      new Date(Date.parse(time) + 1),
    ]);
    return row!.past;
  });

type Records = Map<string, Record<string, Json>>;

/** All records of one tenant at a time, folded from the log in the plainest way. */
function foldTo(events: readonly RecordedEvent[], time: number): { items: Records; brands: Records } {
  const found = { items: new Map(), brands: new Map() } as { items: Records; brands: Records };
  for (const event of events) {
    if (event.recordedAt.getTime() > time) continue;
    const [kind] = event.type.split('.');
    const id = event.stream.slice(kind!.length + 1);
    const records = kind === 'Item' ? found.items : found.brands;
    const fields = (kind === 'Item' ? itemModel : brandModel).fields.map(inputName);
    const at = event.recordedAt.toISOString();
    const empty = { id, createdAt: at, ...Object.fromEntries(fields.map((name) => [name, null])) };
    records.set(id, { ...(records.get(id) ?? empty), ...event.data, version: event.streamVersion, updatedAt: at });
  }
  for (const item of found.items.values()) {
    const brand = found.brands.get(item['brandId'] as string);
    const parent = found.brands.get((brand?.['parentId'] ?? '') as string);
    const above = parent ? { name: parent['name'], version: parent['version'] } : null;
    item['brand'] = brand ? { name: brand['name'], parent: above } : null;
  }
  return found;
}

describe('asOf', () => {
  test(`between every two changes, one and many are the fold of the log to that time (seed ${SEED})`, async () => {
    const random = seeded(SEED);
    const brands: string[] = [];
    const items: string[] = [];
    for (let i = 0; i < 60; i += 1) {
      const what = random();
      const any = (ids: readonly string[]) => ids[Math.floor(random() * ids.length)]!;
      if (what < 0.1 || brands.length === 0) {
        brands.push(await createBrand({ name: `b${i}`, parentId: random() < 0.5 ? any(brands) : null }));
      } else if (what < 0.25) {
        await updateBrand(any(brands), { name: `b${i}`, parentId: random() < 0.5 ? any(brands) : null });
      } else if (what < 0.5 || items.length === 0) {
        items.push((await create({ title: `i${i}`, ...itemInput(random, brands) })).id);
      } else await update(any(items), itemInput(random, brands));
    }
    const theirs = await create({ title: 'theirs' }, THEIRS);
    const events = (await eventsInLog(database)).filter(({ tenant }) => tenant === OURS);
    const moments = new Set(events.flatMap(({ recordedAt }) => [recordedAt.getTime() - 1, recordedAt.getTime()]));
    const LIST = `query ($asOf: DateTime, $where: ItemWhere, $orderBy: [ItemOrder!]) {
      items(asOf: $asOf, where: $where, orderBy: $orderBy, first: 100) { totalCount nodes { ${ITEM} brand { name parent { name version } } } } }`;
    for (const time of moments) {
      const expected = foldTo(events, time);
      const asOf = new Date(time).toISOString();
      const all = (await api.data(LIST, { asOf })).items;
      expect(new Map(all.nodes.map((node: Json) => [node.id, node]))).toEqual(expected.items);
      expect(all.totalCount).toBe(expected.items.size);

      const id = items[Math.floor(random() * items.length)]!;
      expect((await api.data(ITEM_AT, { id, asOf })).item).toEqual(expected.items.get(id) ?? null);
      expect((await api.data(ITEM_AT, { id: theirs.id, asOf })).item).toBeNull();

      const brandId = brands[Math.floor(random() * brands.length)]!;
      const where = { or: [{ brandId: { equals: brandId } }, { inStock: { equals: true }, price: { gte: 1 } }] };
      const some = (await api.data(LIST, { asOf, where, orderBy: [{ updatedAt: 'DESC' }, { id: 'ASC' }] })).items;
      const matching = [...expected.items.values()].filter(
        (each) => each['brandId'] === brandId || (each['inStock'] === true && (each['price'] ?? -1) >= 1),
      );
      const byUpdate = (a: Json, b: Json) =>
        a.updatedAt === b.updatedAt ? (a.id < b.id ? -1 : 1) : a.updatedAt > b.updatedAt ? -1 : 1;
      expect(some.nodes).toEqual(matching.toSorted(byUpdate));
    }
  });

  test('the pages of a list are of one time, whatever is written between them', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 7; i += 1) ids.push((await create({ title: `t${i}`, price: 7 - i })).id);
    const asOf = (await update(ids[6]!, { order: 'x' })).updatedAt as string;
    await after(asOf);
    const PAGE = `query ($asOf: DateTime, $after: String) { items(asOf: $asOf, first: 3, after: $after, orderBy: [{ price: ASC }]) {
      nodes { id title } totalCount pageInfo { hasNextPage endCursor } } }`;
    const seen: string[] = [];
    let cursor: string | null = null;
    for (let page = 0; page < 3; page += 1) {
      const { items } = await api.data(PAGE, { asOf, after: cursor });
      expect(items.totalCount).toBe(7);
      seen.push(...items.nodes.map((node: Json) => node.title));
      cursor = items.pageInfo.endCursor;
      expect(items.pageInfo.hasNextPage).toBe(page < 2);
      for (const id of ids) await update(id, { title: `changed${page}`, price: page * 100 });
      await create({ title: `late${page}`, price: 0 });
    }
    expect(seen).toEqual(['t6', 't5', 't4', 't3', 't2', 't1', 't0']);
    expect(await codeOf(PAGE, { after: cursor })).toBe('VALIDATION_ERROR');
  });

  test('a time to come, and null, are now', async () => {
    const made = await create({ price: 1 });
    const changed = await update(made.id, { price: 2 });
    // The history is of no use for it: it is paused, and behind.
    await pauseProjection(database.system, { projection: HISTORY });
    const last = await update(made.id, { price: 3 });
    for (const asOf of ['2999-01-01T00:00:00Z', null]) {
      expect((await api.data(ITEM_AT, { id: made.id, asOf })).item).toMatchObject(last);
      const { items } = await api.data('query ($asOf: DateTime) { items(asOf: $asOf) { nodes { price } } }', { asOf });
      expect(items.nodes).toEqual([{ price: 3 }]);
    }
    await resumeProjection(database.system, { projection: HISTORY });
    runner.wake();
    expect((await api.data(ITEM_AT, { id: made.id, asOf: changed.updatedAt })).item).toMatchObject(changed);
  });

  test('before the first record there is nothing, and what is no id or time is told', async () => {
    const { id } = await create({});
    const asOf = '1999-01-01T00:00:00Z';
    expect((await api.data(ITEM_AT, { id, asOf })).item).toBeNull();
    expect((await api.data(ITEM_AT, { id: 'nonsense', asOf })).item).toBeNull();
    expect(
      (await api.data('query ($asOf: DateTime) { items(asOf: $asOf) { totalCount nodes { id } } }', { asOf })).items,
    ).toEqual({
      totalCount: 0,
      nodes: [],
    });
    expect(await codeOf(ITEM_AT, { id, asOf: 'yesterday' })).toBe('VALIDATION_ERROR');
  });

  test('an answer waits for what was committed by then, and rather fails than misses it', async () => {
    await create({});
    await pauseProjection(database.system, { projection: HISTORY });
    const { id, createdAt } = await create({ title: 'late' });
    await after(createdAt);
    const asked = api.ask(ITEM_AT, { id, asOf: createdAt });
    await resumeProjection(database.system, { projection: HISTORY });
    runner.wake();
    expect((await asked).data.item).toMatchObject({ title: 'late' });

    await pauseProjection(database.system, { projection: HISTORY });
    const changed = await update(id, { title: 'later' });
    await after(changed.updatedAt);
    const answer = await api.ask(ITEM_AT, { id, asOf: changed.updatedAt });
    expect(answer.data?.item ?? null).toBeNull();
    expect(answer.errors).toMatchObject([
      { message: expect.stringMatching(/behind/), extensions: { code: 'RATE_LIMITED' } },
    ]);
    // What was there before is not held up by it, and neither is the other tenant.
    expect((await api.data(ITEM_AT, { id, asOf: createdAt })).item).toMatchObject({ title: 'late' });
    expect((await api.data(ITEM_AT, { id, asOf: changed.updatedAt }, THEIRS)).item).toBeNull();
    await resumeProjection(database.system, { projection: HISTORY });
    runner.wake();
    expect((await api.data(ITEM_AT, { id, asOf: changed.updatedAt })).item).toMatchObject({ title: 'later' });
  });

  test('while an event could not be applied, nothing is answered about the time since', async () => {
    const { id, createdAt } = await create({ title: 'a' });
    const changed = await update(id, { title: 'b' });
    await api.data(ITEM_AT, { id, asOf: createdAt });
    await database.asOwner(
      `insert into projection_dead_letters (projection, build, position, shard, tenant_id, stream, stream_version, type, error, stack, attempts)
       select 'history', 1, position, 0, tenant_id, stream, stream_version, type, 'secret', '', 1 from event_log where stream_version = 2`,
    );
    await after(changed.updatedAt);
    const answer = await api.ask(ITEM_AT, { id, asOf: changed.updatedAt });
    expect(answer.errors).toMatchObject([{ extensions: { code: 'INTERNAL_ERROR' } }]);
    expect(JSON.stringify(answer)).not.toContain('secret');
    expect((await api.data(ITEM_AT, { id, asOf: createdAt })).item).toMatchObject({ title: 'a' });
    await database.asOwner(
      `update projection_dead_letters set state = 'skipped', reason = 'x', resolved_at = now() where projection = 'history'`,
    );
    await api.data(ITEM_AT, { id, asOf: changed.updatedAt });
  });

  test('it takes one statement to look how far the history is, and one to read', async () => {
    const brandId = await createBrand({ name: 'b' });
    const { id, createdAt } = await create({ brandId });
    await after(createdAt);
    await api.data(ITEM_AT, { id, asOf: createdAt });
    const query = jest.spyOn(Tx.prototype, 'query');
    await api.data(ITEM_AT, { id, asOf: createdAt });
    const asked = query.mock.calls.filter(([, values]) => values?.includes(OURS)).map(([sql]) => sql);
    expect(asked).toEqual([expect.stringContaining('projection_checkpoints'), expect.stringContaining('history_item')]);
  });
});

describe('history', () => {
  test('lists each version with who made it, what it changed and what the record was', async () => {
    const brandId = await createBrand({ name: 'b' });
    const made = await create({ price: 1, order: null });
    await update(made.id, { price: 2, inStock: false });
    const last = await update(made.id, { inStock: true, price: null, brandId });
    const { nodes, pageInfo, edges } = (await api.data(HISTORY_OF, { id: made.id })).itemHistory;
    expect(nodes.map((node: Json) => [node.version, node.type, node.action])).toEqual([
      [3, 'Item.updated', 'updated'],
      [2, 'Item.updated', 'updated'],
      [1, 'Item.created', 'created'],
    ]);
    expect(nodes[0].changes.toSorted((a: Json, b: Json) => (a.field < b.field ? -1 : 1))).toEqual([
      { field: 'brandId', before: null, after: brandId },
      { field: 'inStock', before: false, after: true },
      { field: 'price', before: 2, after: null },
    ]);
    expect(nodes[1].changes).toEqual([
      { field: 'price', before: 1, after: 2 },
      { field: 'inStock', before: null, after: false },
    ]);
    expect(nodes[2].changes).toEqual([
      { field: 'title', before: null, after: 'Lamp' },
      { field: 'price', before: null, after: 1 },
    ]);
    expect(nodes[0].record).toEqual(last);
    expect(nodes[2].record).toEqual(made);
    expect(nodes[0]).toMatchObject({ actor: `user:${OURS}`, restoredVersion: null, recordedAt: last.updatedAt });
    expect(nodes[0].requestId).toMatch(/./);
    expect(pageInfo).toMatchObject({ hasNextPage: false, hasPreviousPage: false });
    expect(edges.map((edge: Json) => edge.node.version)).toEqual([3, 2, 1]);
  });

  test(`pages fit together, with snapshots and without, and each is one statement (seed ${SEED})`, async () => {
    const { id } = await create({ price: 0 });
    const random = seeded(SEED);
    await Promise.all(Array.from({ length: 230 }, (_, i) => update(id, { price: i + 1, order: `${random()}` })));
    const whole = async (first: number): Promise<Json[]> => {
      const nodes: Json[] = [];
      for (let cursor: string | null = null, more = true; more;) {
        const { itemHistory } = await api.data(HISTORY_OF, { id, first, after: cursor });
        nodes.push(...itemHistory.nodes);
        cursor = itemHistory.pageInfo.endCursor;
        more = itemHistory.pageInfo.hasNextPage;
        expect(itemHistory.pageInfo.hasPreviousPage).toBe(nodes.length > itemHistory.nodes.length);
      }
      return nodes;
    };
    const nodes = await whole(100);
    expect(nodes.map(({ version }) => version)).toEqual(Array.from({ length: 231 }, (_, i) => 231 - i));
    const events = (await eventsInLog(database, [itemModel])).toReversed();
    expect(nodes.map(({ record }) => record.price)).toEqual(events.map(({ data }) => data['price']));
    for (const [i, node] of nodes.entries()) {
      for (const { field, before } of node.changes) expect(before).toEqual(nodes[i + 1]?.record[field] ?? null);
    }
    expect(await whole(17)).toEqual(nodes);
    await database.app.transaction(OURS, (tx) =>
      keepSnapshots(
        tx,
        OURS,
        [100, 200].map((version) => {
          const facts = events
            .toReversed()
            .slice(0, version)
            .reduce<ReturnType<typeof recordFold.evolve> | null>(recordFold.evolve, null)!;
          return recordToKeep(itemModel, id, version, facts);
        }),
      ),
    );
    expect(await whole(17)).toEqual(nodes);
    const statements = countStatements();
    for (const page of [{ first: 50 }, { first: 17, after: cursorOf(['Item history', 190]) }])
      await api.data(HISTORY_OF, { id, ...page });
    expect(statements()).toHaveLength(2);
  });

  test('is one statement also where values are sealed, in events and in the snapshot below them', async () => {
    const sealing = await sealingApi();
    try {
      const { id } = (await sealing.data(CREATED, { input: { title: 'Lamp', contactMail: 'a@example.com' } }))
        .createItem;
      for (let n = 1; n < 120; n += 1)
        await sealing.data(UPDATED, { id, input: n % 5 === 0 ? { contactMail: `a${n}@example.com` } : { price: n } });
      expect(await database.asOwner('select stream_version, state from stream_snapshots')).toEqual([
        { stream_version: 100, state: expect.objectContaining({ $sealed: expect.anything() }) },
      ]);
      const statements = countStatements();
      const { itemHistory } = await sealing.data(HISTORY_OF, { id, first: 19 });
      expect(statements()).toHaveLength(1);
      const mails = itemHistory.nodes.map((node: Json) => node.record.contactMail);
      expect(mails).toEqual(Array.from({ length: 19 }, (_, i) => `a${Math.floor((120 - i - 1) / 5) * 5}@example.com`));
      await database.system.transaction((tx) => destroySubjectKey(tx, OURS as TenantId, `Item-${id}`));
      const erased = (await sealing.data(HISTORY_OF, { id, first: 19 })).itemHistory;
      expect(erased.nodes.map((node: Json) => node.record.contactMail)).toEqual(Array(19).fill(null));
      expect(erased.nodes[0].record.price).toBe(119);
    } finally {
      await sealing.close();
    }
  });

  test('of a record that is not there, or not ours, it is empty; what is wrong is told', async () => {
    const theirs = await create({}, THEIRS);
    for (const id of [NO_SUCH, 'nonsense', theirs.id]) {
      expect((await api.data(HISTORY_OF, { id })).itemHistory).toEqual({
        nodes: [],
        edges: [],
        pageInfo: { hasNextPage: false, hasPreviousPage: false, startCursor: null, endCursor: null },
      });
    }
    const { id } = await create({});
    for (const wrong of [
      { first: 0 },
      { first: 101 },
      { after: 'x' },
      { after: cursorOf(['Item history', 'x']) },
      { after: cursorOf(['Item', 1]) },
      { after: cursorOf(['Item history', 2 ** 31]) },
    ]) {
      expect(await codeOf(HISTORY_OF, { id, ...wrong })).toBe('VALIDATION_ERROR');
    }
  });

  test('events are opened before they are shown', async () => {
    const { id } = await create({ contactMail: 'a@example.com' });
    await update(id, { contactMail: 'b@example.com' });
    const redacting: Pick<EventCodec, 'decode'> = {
      decode: async (_tx, events) =>
        events.map((event) => ({
          ...event,
          data: { ...event.data, ...('contactMail' in event.data ? { contactMail: null } : {}) },
        })),
    };
    log.codec = redacting as EventCodec;
    try {
      const { nodes } = (await api.data(HISTORY_OF, { id })).itemHistory;
      expect(nodes[0].changes).toEqual([{ field: 'contactMail', before: null, after: null }]);
      expect(nodes[1].record).toMatchObject({ title: 'Lamp', contactMail: null });
    } finally {
      delete log.codec;
    }
  });
});

/** Begins to count the statements that are about our tenant, or read keys. */
function countStatements(): () => readonly string[] {
  const asked = [
    jest.spyOn(Tx.prototype, 'query'),
    jest.spyOn(Tx.prototype, 'prepared'),
    jest.spyOn(Tx.prototype, 'execute'),
  ];
  const isOurs = (sql: string, values?: readonly unknown[]) => values?.includes(OURS) || sql.includes('subject_keys');
  return () => asked.flatMap(({ mock }) => mock.calls.flatMap(([sql, values]) => (isOurs(sql, values) ? [sql] : [])));
}

const [CREATED, UPDATED] = [
  `mutation ($input: CreateItemInput!) { createItem(input: $input) { ${ITEM} } }`,
  `mutation ($id: ID!, $input: UpdateItemInput!) { updateItem(id: $id, input: $input) { ${ITEM} } }`,
] as const;

/** An API for which an item's mail is personal, and sealed in the log. */
function sealingApi(): Promise<TestApi> {
  const fields = itemModel.fields.map((field) =>
    field.name === 'contactMail' ? { ...field, pii: 'personal' as const } : field,
  );
  const schema = { ...SHOP, models: [brandModel, { ...itemModel, fields }] };
  return anApi([modelsApi(schema, database.app, { codec, wasErasedSince })]);
}

function cursorOf(parts: unknown[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url');
}

describe('restore', () => {
  test('gives the fields the values of a version again, as a new version', async () => {
    const brandId = await createBrand({ name: 'b' });
    const made = await create({ price: 1, inStock: true, arrivesOn: '2026-02-28', size: 'Small', brandId });
    await update(made.id, { title: 'Chair', price: null, inStock: false, order: 'x', brandId: null, size: 'Large' });
    const restored = (await api.data(RESTORE, { id: made.id, version: 1 })).restoreItem;
    expect(restored).toEqual({ ...made, version: 3, updatedAt: restored.updatedAt });
    const { nodes } = (await api.data(HISTORY_OF, { id: made.id })).itemHistory;
    expect(nodes[0].changes).toHaveLength(6);
    const again = (await api.data(RESTORE, { id: made.id, version: 2 })).restoreItem;
    expect(again).toMatchObject({ title: 'Chair', price: null, order: 'x', version: 4 });
  });

  test('that changes nothing makes no version', async () => {
    const made = await create({ price: 1 });
    expect((await api.data(RESTORE, { id: made.id, version: 1 })).restoreItem).toEqual(made);
    await update(made.id, { price: 2 });
    const back = await update(made.id, { price: 1 });
    expect((await api.data(RESTORE, { id: made.id, version: 1 })).restoreItem).toEqual(back);
  });

  test('takes effect once for a key, and not on another version than was looked at', async () => {
    const made = await create({ price: 1 });
    await update(made.id, { price: 2 });
    expect(await codeOf(RESTORE, { id: made.id, version: 1, expectedVersion: 1 })).toBe('CONFLICT');
    const wanted = { id: made.id, version: 1, expectedVersion: 2, key: 'once' };
    const first = (await api.data(RESTORE, wanted)).restoreItem;
    expect(first.version).toBe(3);
    expect((await api.data(RESTORE, wanted)).restoreItem).toEqual(first);
  });

  test('names the versions that there are', async () => {
    const { id } = await create({});
    await update(id, { price: 2 });
    for (const version of [0, -1, 3, 2 ** 31 - 1]) {
      const { errors } = await api.ask(RESTORE, { id, version });
      expect(errors).toMatchObject([
        { message: expect.stringMatching(/versions 1 to 2/), extensions: { code: 'VALIDATION_ERROR' } },
      ]);
    }
    expect(await codeOf(RESTORE, { id: NO_SUCH, version: 1 })).toBe('NOT_FOUND');
    expect(await codeOf(RESTORE, { id: 'nonsense', version: 1 })).toBe('NOT_FOUND');
    expect(await codeOf(RESTORE, { id, version: 1 }, THEIRS)).toBe('NOT_FOUND');
  });

  test('refuses a reference to what is not there any more', async () => {
    const brandId = await createBrand({ name: 'b' });
    const { id } = await create({ brandId });
    await update(id, { brandId: null });
    await database.asOwner('delete from model_brand');
    expect(await codeOf(RESTORE, { id, version: 1 })).toBe('VALIDATION_ERROR');
    expect((await api.data(ITEM_AT, { id })).item.version).toBe(2);
  });

  test('leaves personal values that were erased since as they are', async () => {
    const sealing = await sealingApi();
    try {
      const input = { title: 'Lamp', contactMail: 'a@example.com', order: 'x' };
      const { id } = (await sealing.data(CREATED, { input })).createItem;
      await sealing.data(UPDATED, { id, input: { contactMail: 'new@example.com', order: 'y' } });
      await database.system.transaction((tx) => destroySubjectKey(tx, OURS as TenantId, `Item-${id}`));
      const kept = (await sealing.data(RESTORE, { id, version: 1 })).restoreItem;
      expect(kept).toMatchObject({ contactMail: 'new@example.com', order: 'x', version: 3 });

      // What was empty then, and not erased, is emptied.
      const other = (await sealing.data(CREATED, { input: { title: 'Lamp' } })).createItem;
      await sealing.data(UPDATED, { id: other.id, input: { contactMail: 'new@example.com' } });
      const emptied = (await sealing.data(RESTORE, { id: other.id, version: 1 })).restoreItem;
      expect(emptied).toMatchObject({ contactMail: null, version: 3 });
    } finally {
      await sealing.close();
    }
  });
});
