import { eventStoreMigrations, type ProjectionTarget } from '@atomo-cc/event-store';
import type { RecordedEvent } from '@atomo-cc/events';
import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { ModelDefinition } from '@atomo-cc/schema';
import { changeTables } from '@atomo-cc/platform/postgres';
import { aDatabase, seeded, type TestDatabase } from '@atomo-cc/testing';
import { aPrincipal, SHOP, SHOP_TENANTS } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { createModelTable, createModelTables } from './model-tables.js';
import { rowProjection } from './row-projection.js';
import { eventsInLog, randomHistory } from './testing/histories.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const [OURS] = SHOP_TENANTS;
const item = SHOP.models.find(({ name }) => name === 'Item')!;

/** For a busy machine. */
jest.setTimeout(60_000);

const GREEN: ProjectionTarget = {
  build: 2,
  isLive: false,
  table: (base) => `${base}_green`,
  mayAct: () => false,
};

let database: TestDatabase;
let commands: RecordCommands;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, SHOP);
  commands = new RecordCommands(SHOP, database.app);
});

afterAll(() => database?.drop());

afterEach(async () => {
  await database.asOwner('truncate event_log, event_streams, model_item, model_brand');
  for (const model of SHOP.models) await database.asOwner(`drop table if exists ${model.table}_green`);
});

/** Fills a new table beside the one that the commands wrote. */
async function build(model: ModelDefinition, batches: readonly (readonly RecordedEvent[])[]): Promise<void> {
  const projection = rowProjection(model);
  const green = `${model.table}_green`;
  await changeTables(database.url, (tx) => projection.tables[0]!.create(tx, green));
  for (const batch of batches) {
    await database.system.transaction((tx) => projection.apply(batch, tx, GREEN));
  }
}

/** The rows that are in one of the tables only. */
const differences = (model: ModelDefinition) =>
  database.asOwner(
    `(select 'commands' as from, to_jsonb(t) as row from ${model.table} t except all select 'commands', to_jsonb(g) from ${model.table}_green g)
     union all
     (select 'log', to_jsonb(g) from ${model.table}_green g except all select 'log', to_jsonb(t) from ${model.table} t)`,
  );

const item1 = async (input: object, tenant: TenantId = OURS) =>
  (await commands.create({ model: item, input: { ...input }, idempotencyKey: null, context: contextOf(tenant) })).id;
const contextOf = (tenant: TenantId) => ({ principal: aPrincipal(tenant), requestId: uuidv7() });
const change = (id: string, input: object) =>
  commands.update({
    model: item,
    id,
    input: { ...input },
    expectedVersion: null,
    idempotencyKey: null,
    context: contextOf(OURS),
  });

test(`a table filled from the log equals the one that the commands wrote (seed ${SEED})`, async () => {
  const random = seeded(SEED);
  await randomHistory(commands, random, 400);
  for (const model of SHOP.models) {
    const events = await eventsInLog(database, [model]);
    expect(events.length).toBeGreaterThan(20);
    const batches: RecordedEvent[][] = [];
    for (let at = 0; at < events.length;) {
      const size = 1 + Math.floor(random() ** 2 * 60);
      batches.push(events.slice(at, at + size));
      at += size;
    }
    await build(model, batches);
    expect(await differences(model)).toEqual([]);
    const [{ rows }] = (await database.asOwner(`select count(*)::int as rows from ${model.table}`)) as [
      { rows: number },
    ];
    expect(rows).toBeGreaterThan(5);
  }
});

test('what was applied already changes nothing, and what comes too late is not lost', async () => {
  const id = await item1({ title: 'a', price: 1 });
  await change(id, { title: 'b' });
  await change(id, { price: null });
  await change(id, { inStock: true });
  const [created, titled, priced, stocked] = (await eventsInLog(database, [item])) as [
    RecordedEvent,
    RecordedEvent,
    RecordedEvent,
    RecordedEvent,
  ];
  await build(item, [[created], [priced, stocked]]);
  const [{ title }] = (await database.asOwner('select title from model_item_green')) as [{ title: string }];
  expect(title).toBe('a');
  const projection = rowProjection(item);
  const again = (batch: RecordedEvent[]) => database.system.transaction((tx) => projection.apply(batch, tx, GREEN));
  await again([titled]);
  expect(await differences(item)).toEqual([]);
  await again([created, titled, priced, stocked]);
  expect(await differences(item)).toEqual([]);
});

test('a record whose first event comes last is whole in the end', async () => {
  const id = await item1({ title: 'a', price: 1 });
  await change(id, { title: 'b' });
  const [created, titled] = (await eventsInLog(database, [item])) as [RecordedEvent, RecordedEvent];
  await build(item, [[titled], [created]]);
  expect(await differences(item)).toEqual([]);
});

test('a table under another name has the columns, the indexes, the policies and the rights of the one that is read', async () => {
  await changeTables(database.url, (tx) => createModelTable(tx, item, 'model_item_green'));
  const shapeOf = async (table: string) => {
    const shape = await database.asOwner(
      `select (select json_agg(json_build_array(attname, format_type(atttypid, atttypmod), attnotnull) order by attnum)
               from pg_attribute where attrelid = $1::text::regclass and attnum > 0) as columns,
              (select json_agg(replace(pg_get_indexdef(indexrelid), $1::text, 'x') order by replace(pg_get_indexdef(indexrelid), $1::text, 'x')) from pg_index where indrelid = $1::text::regclass) as indexes,
              (select json_agg(json_build_array(policyname, roles, qual, with_check) order by policyname) from pg_policies where tablename = $1::text) as policies,
              (select relacl::text || relrowsecurity || relforcerowsecurity from pg_class where oid = $1::text::regclass) as rights`,
      [table],
    );
    return shape;
  };
  expect(await shapeOf('model_item_green')).toEqual(await shapeOf('model_item'));
});

test('a field that is added later holds null in the rows that are there, and is filled from then on', async () => {
  const id = await item1({ title: 'old' });
  const grown = { ...item, fields: [...item.fields, { ...item.fields[0]!, name: 'colour', required: false }] };
  await build(item, [await eventsInLog(database, [item])]);
  await changeTables(database.url, (tx) => createModelTable(tx, grown, 'model_item_green'));
  const event = (await eventsInLog(database, [item]))[0]!;
  const update = { ...event, type: 'Item.updated', streamVersion: 2, data: { colour: 'red' } };
  const rows = () => database.asOwner('select id, title, colour from model_item_green');
  expect(await rows()).toEqual([{ id, title: 'old', colour: null }]);
  await database.system.transaction((tx) => rowProjection(grown).apply([update], tx, GREEN));
  expect(await rows()).toEqual([{ id, title: 'old', colour: 'red' }]);
});
