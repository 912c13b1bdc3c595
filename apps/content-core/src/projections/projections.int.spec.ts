import {
  append,
  eventStoreMigrations,
  pauseProjection,
  ProjectionRunner,
  requestBuild,
  resumeProjection,
  type Projection,
} from '@atomo-cc/event-store';
import type { TenantId } from '@atomo-cc/kernel';
import { Leases1700000001000, tenantTable } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { projectionsApi } from './projections-api.js';

/** For a busy machine. */
jest.setTimeout(60_000);

const [OURS, THEIRS] = SHOP_TENANTS;
const BUILD = `build version state isOneTenant lagEvents lagMs eventsPerSecond errorsPerSecond openDeadLetters isPaused isStopped
  requestedAt liveAt progress { eventsDone eventsToDo eventsPerSecond etaMs }`;
const LIST = `{ projections { name mode live { ${BUILD} } builds { ${BUILD} } } }`;
const ORDER = { by: 'operator:eve', reason: 'the rows of a competitor were wrong', holdSwitch: true };

let database: TestDatabase;
let api: TestApi;
let runner: ProjectionRunner;

/** Keeps the versions of streams; refuses events that say so. */
const seen: Projection = {
  name: 'seen',
  version: 3,
  mode: 'async',
  eventTypes: { 'Item.updated': [1] },
  tables: [
    {
      name: 'seen_streams',
      create: async (tx, physical) => {
        const [there] = await tx.query('select 1 where to_regclass($1) is not null', [physical]);
        if (there) return;
        await tx.query(
          `create table ${physical} (tenant_id uuid, stream text, version int, primary key (tenant_id, stream))`,
        );
        const grants = { app: '', system: 'select, insert, update, delete' };
        for (const statement of tenantTable(physical, grants)) await tx.query(statement);
      },
    },
  ],
  async apply(batch, tx, target) {
    for (const { tenant, stream, streamVersion, data } of batch) {
      if (data['refused']) throw new Error(`the secret of ${tenant}`);
      await tx.execute(
        `insert into ${target.table('seen_streams')} as s values ($1, $2, $3)
         on conflict (tenant_id, stream) do update set version = excluded.version where s.version < excluded.version`,
        [tenant, stream, streamVersion],
      );
    }
  },
};

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  api = await anApi([projectionsApi(database.app)]);
});
afterAll(async () => {
  await runner?.stop();
  await api?.close();
  await database?.drop();
});

async function write(tenant: TenantId, ...all: object[]): Promise<void> {
  const events = all.map((data) => ({ type: 'Item.updated', schemaVersion: 1, data: { ...data } }));
  const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
  await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [{ stream: 'Item-1', expected: 'any', events, metadata }]),
  );
  runner?.wake();
}
const list = async (tenant: TenantId = OURS): Promise<Json> => (await api.data(LIST, {}, tenant)).projections;
const live = async (tenant?: TenantId): Promise<Json> => (await list(tenant))[0].live;
const caughtUp = () => eventually('it has caught up', async () => (await live()).lagEvents === 0);

test('tells how projections and builds stand, of this tenant and of all, and nothing that an operator wrote', async () => {
  expect(await list()).toEqual([]);
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [seen],
    pollMs: 30,
    leaseMs: 900,
  });
  await runner.start();
  await write(OURS, { n: 1 }, { refused: true });
  await write(THEIRS, { refused: true }, { refused: true });
  await eventually('the letters are there', async () => (await live(THEIRS)).openDeadLetters === 2);
  await caughtUp();
  const ours = {
    build: 1,
    version: 3,
    state: 'live',
    isOneTenant: false,
    lagEvents: 0,
    lagMs: 0,
    openDeadLetters: 1,
    isPaused: false,
    isStopped: false,
    progress: null,
  };
  expect(await list()).toMatchObject([{ name: 'seen', mode: 'async', live: ours, builds: [ours] }]);
  const { eventsPerSecond, errorsPerSecond } = await live();
  expect(eventsPerSecond).toBeGreaterThan(0);
  expect(errorsPerSecond).toBeGreaterThan(0);

  await pauseProjection(database.system, { projection: 'seen' });
  await write(THEIRS, { n: 2 });
  expect(await live()).toMatchObject({ isPaused: true, isStopped: false, lagEvents: 1, lagMs: 0 });
  expect((await live(THEIRS)).lagMs).toBeGreaterThan(0);
  await database.asOwner(`update projection_checkpoints set state = 'stopped', last_error = 'the secret'`);
  expect(await live()).toMatchObject({ isPaused: false, isStopped: true });
  await resumeProjection(database.system, { projection: 'seen' });
  await caughtUp();

  await requestBuild(database.system, { projection: 'seen', ...ORDER });
  const underWay = async () => (await list())[0].builds[0];
  await eventually('it is ready', async () => (await underWay()).state === 'ready');
  await eventually('it has all', async () => (await underWay()).lagEvents === 0);
  expect(await list()).toMatchObject([
    { live: ours, builds: [{ build: 2, progress: { eventsDone: 2, eventsToDo: 5, etaMs: 0 } }, { build: 1 }] },
  ]);
  await expect(
    database.app.transaction(OURS, (tx) => tx.query('select error, reason, requested_by from projection_builds')),
  ).rejects.toThrow(/permission denied/);
  await expect(
    database.app.transaction(OURS, (tx) => tx.query('select last_error from projection_checkpoints')),
  ).rejects.toThrow(/permission denied/);
});

test('a build of one tenant is seen by that tenant alone', async () => {
  await database.asOwner(
    `update projection_builds set tenant_id = $1, requested_at = clock_timestamp() where build = 2`,
    [THEIRS],
  );
  expect((await list()).map(({ builds }: Json) => builds.map(({ build }: Json) => build))).toEqual([[1]]);
  const [projection] = await list(THEIRS);
  expect(projection.builds).toMatchObject([{ build: 2, isOneTenant: true, state: 'ready' }, { build: 1 }]);
});

test('needs a token', async () => {
  const { errors } = await api.ask(LIST, {}, 'nobody' as TenantId);
  expect(errors).toMatchObject([{ extensions: { code: 'UNAUTHENTICATED' } }]);
});
