import {
  cancelBuild,
  EventCodec,
  ProjectionRunner,
  projectionStatus,
  requestBuild,
  rollbackProjection,
  SubjectKeys,
  switchBuild,
  wasErasedSince,
} from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { belongsTo, defineSchema, text, type SchemaDefinition } from '@atomo-cc/schema';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { anApi, type TestApi } from '../testing/index.js';
import { HISTORY } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';
import { projectionsOf } from './row-projection.js';

/** For a busy machine. */
jest.setTimeout(60_000);

const SMALL = defineSchema({ models: { Shelf: { fields: { label: text().required() } } } });
/** One more model, one more field, and one that needs an index. */
const GROWN = defineSchema({
  models: {
    Shelf: { fields: { label: text().required(), room: text(), crate: belongsTo('Crate') } },
    Crate: { fields: { name: text().required() } },
  },
});
const NAMES = [HISTORY, 'rows-shelf'];
const ORDER = { by: 'user:1', reason: 'a test' };

let database: TestDatabase;
let api: TestApi;
let runner: ProjectionRunner;
const faults: unknown[] = [];

/** What content-core does at its start, as far as it has to do with models. */
async function boot(schema: SchemaDefinition): Promise<void> {
  await createModelTables(database.url, schema);
  const codec = new EventCodec(new SubjectKeys('the encryption key of these tests'), ATOMO_EVENTS);
  api = await anApi([modelsApi(schema, database.app, { codec, wasErasedSince, onAppended: () => runner.wake() })]);
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: projectionsOf(schema, codec),
    decode: (tx, events) => codec.decode(tx, events),
    pollMs: 30,
    leaseMs: 900,
    onError: (error) => faults.push(error),
  });
  await runner.start();
}

async function halt(): Promise<void> {
  await runner.stop();
  await api.close();
}

beforeEach(async () => {
  database = await aDatabase(contentCoreMigrations, { poolSize: 10 });
});
afterEach(async () => {
  await halt();
  await database.drop();
  expect(faults.splice(0)).toEqual([]);
});

const reaches = (build: number, state: string) =>
  eventually(`builds ${build} are ${state}`, async () => {
    await runner.look();
    const found = (await projectionStatus(database.system)).filter(({ projection }) => NAMES.includes(projection));
    return found.every(({ builds }) => builds.some((each) => each.build === build && each.state === state));
  });
const forEach = (work: (projection: string) => Promise<unknown>) => Promise.all(NAMES.map(work));

async function write(mutation: string): Promise<{ id: string; updatedAt: string }> {
  const data = await api.data(`mutation { it: ${mutation} { id updatedAt } }`);
  return data.it;
}

/** Asks the history, which is the log's own progress proven (see progressAt), and what is read now. */
async function expectEverywhere(crate: { id: string; updatedAt: string }, shelf: { id: string; updatedAt: string }) {
  const past = `query ($id: ID!, $asOf: DateTime) { shelf(id: $id, asOf: $asOf) { label room crate { name } } }`;
  const whole = { label: 'A', room: 'cellar', crate: { name: 'apples' } };
  expect((await api.data(past, { id: shelf.id, asOf: shelf.updatedAt })).shelf).toEqual(whole);
  expect((await api.data(past, { id: shelf.id })).shelf).toEqual(whole);
  const crateAt = `query ($id: ID!, $asOf: DateTime) { crate(id: $id, asOf: $asOf) { name } }`;
  expect((await api.data(crateAt, { id: crate.id, asOf: crate.updatedAt })).crate).toEqual({ name: 'apples' });
}

test.each(['the build under way', 'the retired build'])(
  'a schema that has grown goes on in the live build, and in %s',
  async (next) => {
    await boot(SMALL);
    const { id } = await write('createShelf(input: {label: "A"})');
    await forEach((projection) => requestBuild(database.system, { projection, ...ORDER }));
    await reaches(2, 'live');
    await forEach((projection) => requestBuild(database.system, { projection, holdSwitch: true, ...ORDER }));
    await reaches(3, 'ready');
    await reaches(1, 'retired');
    await halt();

    await boot(GROWN);
    const crate = await write('createCrate(input: {name: "apples"})');
    const shelf = await write(`updateShelf(id: "${id}", input: {room: "cellar", crateId: "${crate.id}"})`);
    await expectEverywhere(crate, shelf);
    if (next === 'the retired build') {
      await forEach((projection) => cancelBuild(database.system, { projection, ...ORDER }));
      await forEach((projection) => rollbackProjection(database.system, { projection, ...ORDER }));
      await reaches(1, 'live');
      await expectEverywhere(crate, shelf);
    } else {
      await forEach((projection) => switchBuild(database.system, { projection }));
      await reaches(3, 'live');
      await expectEverywhere(crate, shelf);
      await forEach((projection) => rollbackProjection(database.system, { projection, ...ORDER }));
      await reaches(2, 'live');
      await expectEverywhere(crate, shelf);
    }
    const found = await projectionStatus(database.system);
    const shards = found.flatMap(({ builds }) => builds.flatMap((build) => build.shards));
    expect(shards.every(({ state, openDeadLetters }) => state === 'running' && openDeadLetters === 0)).toBe(true);
    expect(found.find(({ projection }) => projection === HISTORY)!.live!.tables).toEqual([
      'history_shelf',
      'history_crate',
    ]);
  },
);

test('a schema that is as it was changes no table and no build', async () => {
  await boot(SMALL);
  const before = await database.asOwner('select xmin::text, ctid::text, * from projection_builds order by projection');
  await halt();
  await boot(SMALL);
  expect(await database.asOwner('select xmin::text, ctid::text, * from projection_builds order by projection')).toEqual(
    before,
  );
});
