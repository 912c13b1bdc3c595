import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import {
  APP_ROLE,
  Leases1700000001000,
  migrate,
  openAppDatabase,
  openSystemDatabase,
  SYSTEM_ROLE,
  tenantTable,
  type Tx,
} from '@atomo-cc/platform/postgres';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { aConnection, aDatabase, aRedis, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append } from '../append.js';
import { eventStoreMigrations } from '../schema.js';
import { announceAppended, AppendHints } from '../subscription.js';
import { cancelBuild, requestBuild, rollbackProjection, switchBuild, type BuildState } from './builds.js';
import { pauseProjection, resumeProjection } from './checkpoints.js';
import { openDeadLetters, retryDeadLetter, skipDeadLetter } from './dead-letters.js';
import type { Projection, ProjectionTarget } from './projection.js';
import { ProjectionRunner, type ProjectionRunnerOptions } from './runner.js';
import { projectionStatus } from './status.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const LEASE_MS = 600;
const ORDER = { by: 'user:1', reason: 'a test' };

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(180_000);

let database: TestDatabase;
let runners: ProjectionRunner[] = [];
let tables: string[] = [];

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations], { poolSize: 16 });
  await database.asOwner('create table effects (projection text, position bigint, build int)');
  await database.asOwner('grant select, insert on effects to atomo_system');
});

afterEach(async () => {
  await Promise.all(runners.map((runner) => runner.stop()));
  runners = [];
  await database.asOwner(
    'truncate event_log, event_streams, effects, projection_builds, projection_checkpoints, projection_dead_letters',
  );
  const rows = await database.asOwner<{ name: string }>(
    `select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relname ~ '^sums_'`,
  );
  for (const { name } of rows) await database.asOwner(`drop table ${name}`);
  tables = [];
});

afterAll(() => database?.drop());

/** Numbers that the same seed gives again (mulberry32). */
function aSeed(what: string): () => number {
  let state = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  process.stdout.write(`${what}, seed ${state}\n`);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Some statements need a wait that is none of the promise: the database's own clock gives it. */
const pauseMs = (tx: Tx, ms: number) => tx.query('select pg_sleep($1::float8 / 1000)', [ms]);

async function write(tenant: TenantId, written: readonly { stream: string; n: number }[]): Promise<bigint[]> {
  const result = await database.app.transaction(tenant, (tx) => writeIn(tx, tenant, written));
  return result.map(({ position }) => position);
}

async function writeIn(tx: Tx, tenant: TenantId, written: readonly { stream: string; n: number }[]) {
  const appends = written.map(({ stream, n }) => ({
    stream,
    expected: 'any' as const,
    events: [{ type: 'Sum.changed', schemaVersion: 1, data: { n } }],
    metadata: METADATA,
  }));
  const result = await append(tx, tenant, appends);
  if (!result.ok) throw new Error('conflict');
  return result.events;
}

const some = (count: number, random: () => number, streams = 40) =>
  Array.from({ length: count }, () => ({
    stream: `Sum-${Math.floor(random() * streams)}`,
    n: Math.floor(random() * 100),
  }));

/** What a test may change of the counting projection. */
interface Variant {
  readonly name?: string;
  readonly table?: string;
  readonly version?: number;
  readonly shards?: number;
  /** By which `n` is multiplied: tells versions of the code apart. */
  readonly factor?: number;
  before?(batch: readonly RecordedEvent[], tx: Tx, target: ProjectionTarget): unknown;
}

/** Adds up `n` per stream, and writes down each event that may act. */
function summing(variant: Variant = {}): Projection & { readonly table: string } {
  const name = variant.name ?? `sums-${uuidv7()}`;
  const table = variant.table ?? name.replaceAll('-', '_');
  tables.push(table);
  const factor = variant.factor ?? 1;
  return {
    name,
    table,
    version: variant.version ?? 1,
    shards: variant.shards ?? 1,
    mode: 'async',
    eventTypes: { 'Sum.changed': [1] },
    tables: [
      {
        name: table,
        complete: async (tx, physical) => {
          await tx.execute(`comment on table ${physical} is 'completed'`);
        },
        create: async (tx, physical) => {
          const [there] = await tx.query('select 1 where to_regclass($1) is not null', [physical]);
          if (there) return;
          await tx.query(
            `create table ${physical} (tenant_id uuid not null, stream text not null, n int not null, sum bigint not null, primary key (tenant_id, stream))`,
          );
          for (const sql of tenantTable(physical, { app: 'select', system: 'select, insert, update, delete' })) {
            await tx.query(sql);
          }
        },
      },
    ],
    async apply(batch, tx, target) {
      await variant.before?.(batch, tx, target);
      const rows = batch.map(({ tenant, stream, data }) => ({ tenant, stream, n: Number(data['n']) * factor }));
      await tx.execute(
        `insert into ${target.table(table)} as t (tenant_id, stream, n, sum)
         select tenant, stream, count(*), sum(n) from jsonb_to_recordset($1::jsonb) as r (tenant uuid, stream text, n int)
         group by tenant, stream order by tenant, stream
         on conflict (tenant_id, stream) do update set n = t.n + excluded.n, sum = t.sum + excluded.sum`,
        [JSON.stringify(rows)],
      );
      const acting = batch.filter((event) => target.mayAct(event)).map(({ position }) => String(position));
      await tx.execute('insert into effects select $1, unnest($2::bigint[]), $3', [name, acting, target.build]);
    },
  };
}

const rowsOf = ({ table }: { table: string }, tenant: TenantId | null = null) =>
  database.asOwner(
    `select tenant_id, stream, n, sum::int from ${table} where $1::uuid is null or tenant_id = $1
     order by tenant_id, stream collate "C"`,
    [tenant],
  );
const truth = (factor = 1, tenant: TenantId | null = null) =>
  database.asOwner(
    `select tenant_id, stream, count(*)::int as n, sum((data->>'n')::int * $1::int)::int as sum from event_log
     where $2::uuid is null or tenant_id = $2 group by 1, 2 order by tenant_id, stream collate "C"`,
    [factor, tenant],
  );
/** Positions that acted not exactly once. */
const misacted = ({ name }: Projection) =>
  database.asOwner(
    `select position, (select count(*)::int from effects e where e.projection = $1 and e.position = l.position) as acted
     from event_log l where (select count(*) from effects e where e.projection = $1 and e.position = l.position) <> 1`,
    [name],
  );

async function run(projections: Projection | readonly Projection[], options: Partial<ProjectionRunnerOptions> = {}) {
  const runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [projections].flat() as Projection[],
    leaseMs: LEASE_MS,
    pollMs: 30,
    ...options,
  });
  runners.push(runner);
  await runner.start();
  return runner;
}

async function statusOf({ name }: { name: string }) {
  return (await projectionStatus(database.system)).find(({ projection }) => projection === name)!;
}
const stateOf = async (projection: { name: string }, build: number): Promise<BuildState | undefined> =>
  (await statusOf(projection)).builds.find((each) => each.build === build)?.state;
const inState = (projection: Projection, build: number, state: BuildState) =>
  eventually(`build ${build} is ${state}`, async () => (await stateOf(projection, build)) === state, 30_000);
const caughtUp = (projection: Projection) =>
  eventually(
    'the live build has caught up',
    async () => (await statusOf(projection)).live!.shards.every(({ lagEvents }) => lagEvents === 0),
    30_000,
  );
/** The tables of a projection that are there, under all their names. */
const tablesOf = async ({ table }: { table: string }) =>
  (
    await database.asOwner<{ name: string }>(
      `select relname as name from pg_class where relkind = 'r' and starts_with(relname, $1) order by 1`,
      [table],
    )
  ).map(({ name }) => name.slice(table.length));

it('a rebuild mends rows, keeps the old ones to go back to, and acts for no event twice', async () => {
  const random = aSeed('rebuild');
  const projection = summing({ shards: 2 });
  const metrics = new Metrics('test');
  const runner = await run(projection, { metrics });
  for (let round = 0; round < 10; round += 1) await write(random() < 0.5 ? A : B, some(200, random));
  await caughtUp(projection);
  await database.asOwner(`update ${projection.table} set sum = -1`);
  expect(await tablesOf(projection)).toEqual(['']);
  const build = await requestBuild(database.system, { projection: projection.name, ...ORDER });
  expect(build).toBe(2);
  await runner.look();
  await inState(projection, 2, 'live');
  expect(await rowsOf(projection)).toEqual(await truth());
  expect(await tablesOf(projection)).toEqual(['', '__b1']);
  expect(await database.asOwner(`select obj_description($1::regclass) as note`, [projection.table])).toEqual([
    { note: 'completed' },
  ]);
  const { builds } = await statusOf(projection);
  expect(builds).toMatchObject([
    { build: 2, state: 'live', requestedBy: 'user:1', reason: 'a test', lagEvents: 0, openDeadLetters: 0 },
    { build: 1, state: 'retired', shards: [] },
  ]);
  await write(A, some(100, random));
  await caughtUp(projection);
  expect(await rowsOf(projection)).toEqual(await truth());
  expect(await misacted(projection)).toEqual([]);

  // Back to build 1, whose rows are wrong by what was broken, and by nothing else.
  await rollbackProjection(database.system, { projection: projection.name, ...ORDER });
  await runner.look();
  await inState(projection, 1, 'live');
  await caughtUp(projection);
  const [sums] = await database.asOwner<{ n: number }>(`select sum(n)::int as n from ${projection.table}`);
  expect(sums!.n).toBe(2_100);
  expect(await stateOf(projection, 2)).toBe('retired');
  await write(B, some(100, random));
  await caughtUp(projection);
  expect(await misacted(projection)).toEqual([]);

  // One is kept; the one before it goes.
  await requestBuild(database.system, { projection: projection.name, ...ORDER });
  await runner.look();
  await inState(projection, 3, 'live');
  await eventually('the older one is dropped', async () => (await tablesOf(projection)).length === 2);
  expect(await tablesOf(projection)).toEqual(['', '__b1']);
  expect(await stateOf(projection, 2)).toBe('dropped');
  expect(await rowsOf(projection)).toEqual(await truth());
  const left = await database.asOwner('select distinct build from projection_checkpoints order by 1');
  expect(left).toEqual([{ build: 1 }, { build: 3 }]);
});

it('switches under load, there and back: readers see no error, no gap and no older state', async () => {
  const random = aSeed('switch under load');
  const projection = summing({ shards: 2 });
  const runner = await run(projection, { onError: () => undefined });
  let isOver = false;
  const writers = [A, B].map(async (tenant) => {
    while (!isOver) await write(tenant, some(1 + Math.floor(random() * 20), random));
  });
  const reader = async (tenant: TenantId) => {
    let seen = 0;
    let reads = 0;
    for (; !isOver; reads += 1) {
      const [row] = await database.app.transaction(tenant, (tx) =>
        tx.query<{ n: number }>(`select coalesce(sum(n), 0)::int as n from ${projection.table}`),
      );
      if (row!.n < seen) throw new Error(`${row!.n} after ${seen}`);
      seen = row!.n;
    }
    return reads;
  };
  // As one who is connected directly: a statement that is prepared once.
  const prepared = async () => {
    const client = await aConnection(database);
    try {
      let seen = 0;
      let reads = 0;
      for (; !isOver; reads += 1) {
        const text = `select coalesce(sum(n), 0)::int as n from ${projection.table}`;
        const { rows } = await client.query({ name: 'counted', text });
        if (rows[0].n < seen) throw new Error(`${rows[0].n} after ${seen}`);
        seen = rows[0].n;
      }
      return reads;
    } finally {
      await client.end();
    }
  };
  const readers = [reader(A), reader(B), prepared()];
  let live = 1;
  let latest = 1;
  try {
    for (let round = 0; round < 6; round += 1) {
      if (round % 2 === 1) live = await rollbackProjection(database.system, { projection: projection.name, ...ORDER });
      else live = latest = await requestBuild(database.system, { projection: projection.name, ...ORDER });
      await Promise.race([inState(projection, live, 'live'), ...readers, ...writers]);
    }
  } finally {
    isOver = true;
  }
  await Promise.all(writers);
  const reads = await Promise.all(readers);
  expect(Math.min(...reads)).toBeGreaterThan(20);
  expect(latest).toBe(4);
  await caughtUp(projection);
  expect(await rowsOf(projection)).toEqual(await truth());
  expect(await misacted(projection)).toEqual([]);
  expect(runner.shards.every(({ build }) => build === live)).toBe(true);
});

it('newer code makes a build and takes over; older code neither applies to it nor takes it back', async () => {
  const random = aSeed('versions');
  const seen: number[] = [];
  const old = summing({ shards: 1, before: (_, __, target) => seen.push(target.build) });
  const first = await run(old);
  await write(A, some(300, random));
  await caughtUp(old);
  // Another number of shards: the checkpoints of the two do not fit each other.
  const newer = summing({ name: old.name, version: 2, factor: 10, shards: 3 });
  const second = await run(newer);
  for (let round = 0; round < 10; round += 1) await write(round % 2 ? A : B, some(50, random));
  await inState(newer, 2, 'live');
  await write(B, some(50, random));
  await caughtUp(newer);
  expect(await rowsOf(newer)).toEqual(await truth(10));
  await first.look();
  await second.look();
  expect(first.shards).toEqual([]);
  expect(second.shards).toHaveLength(3);
  expect(new Set(seen)).toEqual(new Set([1]));
  expect(await misacted(newer)).toEqual([]);
  expect((await statusOf(newer)).builds).toMatchObject([{ build: 2, version: 2, requestedBy: 'system' }, { build: 1 }]);

  // Going back is the operator's will: newer code does not undo it.
  await rollbackProjection(database.system, { projection: newer.name, ...ORDER });
  await inState(newer, 1, 'live');
  await write(B, some(50, random));
  await second.look();
  await first.look();
  await caughtUp(newer);
  expect(await rowsOf(newer)).toEqual(await truth(1));
  expect((await statusOf(newer)).builds).toHaveLength(2);
  expect(await misacted(newer)).toEqual([]);
});

it('what shards of the live build had not applied yet acts when a build of other shards takes its place, and nothing else', async () => {
  const random = aSeed('uneven shards');
  const old = summing({ shards: 3 });
  await run(old);
  await write(A, some(60, random));
  await caughtUp(old);
  // One shard stays behind; the others go on and act.
  await database.asOwner(`update projection_checkpoints set state = 'paused' where shard = 1`);
  await write(A, some(90, random));
  await eventually('the others have gone on', async () => {
    const { shards } = (await statusOf(old)).live!;
    return shards.filter(({ lagEvents }) => lagEvents === 0).length === 2;
  });
  const acted = await database.asOwner('select 1 from effects');
  expect(acted.length).toBeLessThan(150);
  await run(summing({ name: old.name, version: 2, shards: 1 }));
  await inState(old, 2, 'live');
  await caughtUp(old);
  expect(await rowsOf(old)).toEqual(await truth());
  expect(await misacted(old)).toEqual([]);
  const byTwo = await database.asOwner('select 1 from effects where build = 2');
  expect(byTwo).toHaveLength(150 - acted.length);

  // And back, from one shard to three: what build 2 has done does not act again.
  await write(A, some(90, random));
  await resumeProjection(database.system, { projection: old.name, build: 2 });
  await rollbackProjection(database.system, { projection: old.name, ...ORDER });
  await resumeProjection(database.system, { projection: old.name, build: 1 });
  await inState(old, 1, 'live');
  await caughtUp(old);
  expect(await rowsOf(old)).toEqual(await truth());
  expect(await misacted(old)).toEqual([]);
});

it('hints of any tenant wake it', async () => {
  const [redis, subscriber] = [await aRedis('command'), await aRedis()];
  try {
    const projection = summing();
    await run(projection, { pollMs: 60_000, leaseMs: 60_000, hints: new AppendHints(subscriber) });
    for (const tenant of [A, B]) {
      await write(tenant, [{ stream: 'Sum-1', n: 1 }]);
      announceAppended(redis, tenant);
      await caughtUp(projection);
    }
    expect(await rowsOf(projection)).toEqual(await truth());
    await runners.pop()!.stop();
  } finally {
    redis.disconnect();
    subscriber.disconnect();
  }
});

it('one build at a time; a held one waits for its switch; status and metrics tell how far it is', async () => {
  const random = aSeed('held');
  const gate = Promise.withResolvers<void>();
  const projection = summing({
    before: async (_, __, { isLive }) => {
      if (!isLive) await gate.promise;
    },
  });
  const metrics = new Metrics('test');
  const runner = await run(projection, { metrics, leaseMs: 20_000 });
  await expect(requestBuild(database.system, { projection: 'unheard-of', ...ORDER })).rejects.toMatchObject({
    code: 'PROJECTION_NOT_FOUND',
  });
  await expect(cancelBuild(database.system, { projection: projection.name, ...ORDER })).rejects.toMatchObject({
    code: 'PROJECTION_BUILD_NOT_UNDER_WAY',
  });
  await expect(rollbackProjection(database.system, { projection: projection.name, ...ORDER })).rejects.toMatchObject({
    code: 'PROJECTION_NOTHING_RETIRED',
  });
  await write(A, some(300, random));
  // More positions than a build may be behind and count as ready.
  await database.asOwner(`select setval('event_log_position', nextval('event_log_position') + 6000)`);
  await write(A, some(10, random));
  await caughtUp(projection);
  const request = { projection: projection.name, holdSwitch: true, ...ORDER };
  await expect(requestBuild(database.system, { ...request, reason: ' ' })).rejects.toThrow(RangeError);
  await requestBuild(database.system, request);
  await expect(requestBuild(database.system, request)).rejects.toMatchObject({ code: 'PROJECTION_BUILD_UNDER_WAY' });
  await runner.look();
  await runner.look();
  await eventually('the events are counted', async () => (await statusOf(projection)).builds[0]!.progress?.eventsToDo);
  const [building] = (await statusOf(projection)).builds;
  expect(building).toMatchObject({ state: 'building', progress: { eventsDone: 0, eventsToDo: 310, etaMs: null } });
  gate.resolve();
  await eventually('it is ready', async () => {
    await runner.look();
    return (await stateOf(projection, 2)) === 'ready';
  });
  await runner.look();
  expect(await stateOf(projection, 2)).toBe('ready');
  const [ready] = (await statusOf(projection)).builds;
  expect(ready!.progress).toMatchObject({ eventsToDo: 310, etaMs: 0 });
  expect(await metrics.registry.getSingleMetricAsString('projection_build_events_to_do')).toContain(' 310');
  await switchBuild(database.system, { projection: projection.name });
  await runner.look();
  expect(await stateOf(projection, 2)).toBe('live');
  expect(await rowsOf(projection)).toEqual(await truth());
});

it('a switch gives way to a reader who holds the tables, and comes again', async () => {
  const projection = summing();
  const errors: string[] = [];
  const runner = await run(projection, { onError: (error) => errors.push((error as Error).message) });
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  await caughtUp(projection);
  const gate = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  const slow = database.app.transaction(A, async (tx) => {
    await tx.query(`select * from ${projection.table}`);
    reading.resolve();
    await gate.promise;
    return tx.query(`select n from ${projection.table}`);
  });
  await reading.promise;
  await requestBuild(database.system, { projection: projection.name, ...ORDER });
  await eventually('it gave way', async () => {
    await runner.look();
    return errors.some((message) => message.includes('lock timeout'));
  });
  // Others read on between two attempts, and the live build goes on.
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  await caughtUp(projection);
  expect(await stateOf(projection, 2)).toBe('ready');
  gate.resolve();
  expect(await slow).toEqual([{ n: 2 }]);
  await inState(projection, 2, 'live');
  expect(await rowsOf(projection)).toEqual(await truth());
});

it('does not switch while it has dead letters, unless told to', async () => {
  const poison = new Set<bigint>();
  const projection = summing({
    before: (batch, _, { isLive }) => {
      if (!isLive && batch.some(({ position }) => poison.has(position))) throw new Error('bad');
    },
  });
  const runner = await run(projection);
  const positions = await write(
    A,
    Array.from({ length: 20 }, (_, n) => ({ stream: `Sum-${n}`, n })),
  );
  for (const position of positions.slice(3, 6)) poison.add(position);
  await caughtUp(projection);
  const which = { projection: projection.name, build: 2 };
  await requestBuild(database.system, { projection: projection.name, ...ORDER });
  await inState(projection, 2, 'ready');
  await eventually('it says why', async () => {
    await runner.look();
    return /3 open dead letters/.test((await statusOf(projection)).builds[0]!.error ?? '');
  });
  await expect(switchBuild(database.system, { projection: projection.name })).rejects.toMatchObject({
    code: 'PROJECTION_BUILD_HAS_DEAD_LETTERS',
  });
  expect(await openDeadLetters(database.system, which)).toHaveLength(3);
  expect(await openDeadLetters(database.system, { projection: projection.name })).toEqual([]);
  await skipDeadLetter(database.system, which, positions[3]!, 'a test');
  await switchBuild(database.system, { projection: projection.name, allowDeadLetters: true });
  await inState(projection, 2, 'live');
  poison.clear();
  for (const position of positions.slice(4, 6)) {
    expect(await retryDeadLetter(database.system, projection, position)).toBe(true);
  }
  // What build 1 has applied, and so acted for, does not act again when its letter is retried in the live build 2.
  expect(await misacted(projection)).toEqual([]);
  await database.asOwner(`delete from event_log where position = $1`, [String(positions[3])]);
  expect(await rowsOf(projection)).toEqual(await truth());
  const other = { ...projection, version: 2 };
  await expect(retryDeadLetter(database.system, other, positions[4]!)).rejects.toMatchObject({
    code: 'PROJECTION_VERSION_OTHER',
  });
});

it('cancelled at any point it leaves the live build as it is, and nothing of its own', async () => {
  const random = aSeed('cancel');
  const projection = summing({ shards: 2, before: (_, tx, { isLive }) => (isLive ? 0 : pauseMs(tx, random() * 20)) });
  await run(projection, { maxEvents: 50, onError: () => undefined });
  for (let round = 0; round < 4; round += 1) await write(A, some(300, random));
  await caughtUp(projection);
  const before = await truth();
  let cancelled = 0;
  let live = 1;
  for (let round = 0; round < 8; round += 1) {
    const build = await requestBuild(database.system, { projection: projection.name, ...ORDER });
    await database.asOwner('select pg_sleep($1)', [random() * 0.9]);
    const isCancelled = await cancelBuild(database.system, { projection: projection.name, ...ORDER }).then(
      () => true,
      (error: { code: string }) => {
        if (error.code !== 'PROJECTION_BUILD_NOT_UNDER_WAY') throw error;
        return false;
      },
    );
    if (isCancelled) cancelled += 1;
    else live = build;
    expect(await stateOf(projection, build)).toBe(isCancelled ? 'cancelled' : 'live');
    expect(await rowsOf(projection)).toEqual(before);
  }
  expect(cancelled).toBeGreaterThan(0);
  await eventually('the rest is gone', async () => (await tablesOf(projection)).length === (live === 1 ? 1 : 2));
  const left = await database.asOwner<{ build: number }>('select distinct build from projection_checkpoints');
  expect(left).toHaveLength(live === 1 ? 1 : 2);
  await write(A, some(10, random));
  await caughtUp(projection);
  expect(await rowsOf(projection)).toEqual(await truth());
});

it('going back that is called off keeps the build to go back to', async () => {
  const random = aSeed('called off');
  const projection = summing();
  const runner = await run(projection);
  await write(A, some(50, random));
  await requestBuild(database.system, { projection: projection.name, ...ORDER });
  await inState(projection, 2, 'live');
  await rollbackProjection(database.system, { projection: projection.name, holdSwitch: true, ...ORDER });
  await cancelBuild(database.system, { projection: projection.name, ...ORDER });
  await runner.look();
  expect(await stateOf(projection, 1)).toBe('retired');
  await write(A, some(50, random));
  await rollbackProjection(database.system, { projection: projection.name, ...ORDER });
  await inState(projection, 1, 'live');
  await caughtUp(projection);
  expect(await rowsOf(projection)).toEqual(await truth());
});

it('paused as a whole it neither builds nor switches; tables that cannot be made end the build', async () => {
  const projection = summing();
  const runner = await run(projection);
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  await caughtUp(projection);
  await requestBuild(database.system, { projection: projection.name, holdSwitch: true, ...ORDER });
  await inState(projection, 2, 'ready');
  await pauseProjection(database.system, { projection: projection.name });
  await switchBuild(database.system, { projection: projection.name });
  await runner.look();
  expect(await stateOf(projection, 2)).toBe('ready');
  await resumeProjection(database.system, { projection: projection.name });
  await runner.look();
  expect(await stateOf(projection, 2)).toBe('live');
  await database.asOwner(`create table ${projection.table}__b3 (id int)`);
  await requestBuild(database.system, { projection: projection.name, ...ORDER });
  await inState(projection, 3, 'failed');
  expect((await statusOf(projection)).builds[0]!.error).toMatch(/is there already/);
  expect(await tablesOf(projection)).toContain('__b3');
});

it('what tables lack is added at the start of a runner, behind the batch under way and behind readers', async () => {
  const [gate, inApply] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const old = summing({
    before: () => {
      inApply.resolve();
      return gate.promise;
    },
  });
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  await run(old, { leaseMs: 60_000 });
  await inApply.promise;
  let attempts = 0;
  const [table] = old.tables;
  const wider: Projection = {
    ...old,
    tables: [
      {
        ...table!,
        create: async (tx, physical) => {
          attempts += 1;
          await table!.create(tx, physical);
          await tx.query(`alter table ${physical} add column if not exists extra int`);
        },
      },
      { ...table!, name: `${old.table}_more` },
    ],
  };
  const started = run(wider, { leaseMs: 60_000 });
  await eventually('it waits for the batch', async () => {
    const waiting = await database.asOwner(
      `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
         and query like '%from projection_checkpoints%for update%'`,
    );
    return waiting.length > 0;
  });
  expect(attempts).toBe(0);
  // Does not keep others from reading for longer than a lock is waited for, and gets its turn when it has ended.
  await database.app.transaction(A, async (tx) => {
    await tx.query(`select 1 from ${old.table}`);
    gate.resolve();
    await eventually('it has given way', () => attempts >= 2);
    expect(await database.app.transaction(A, (other) => other.query(`select sum from ${old.table}`))).toEqual([
      { sum: '1' },
    ]);
  });
  await started;
  expect((await statusOf(old)).live!.tables).toEqual([old.table, `${old.table}_more`]);
  expect(await tablesOf(old)).toEqual(['', '_more']);
  expect(await database.asOwner(`select extra, n from ${old.table}`)).toEqual([{ extra: null, n: 1 }]);
});

describe('of one tenant', () => {
  it('its rows are built anew while all tenants write, and nobody else is touched', async () => {
    const random = aSeed('one tenant');
    const projection = summing({ shards: 2 });
    await run(projection, { onError: () => undefined });
    for (let round = 0; round < 6; round += 1) await write(round % 2 ? A : B, some(200, random));
    await caughtUp(projection);
    // Of A all is wrong; of B one row, which must stay so.
    await database.asOwner(`update ${projection.table} set sum = sum + 1000000 where tenant_id = $1`, [A]);
    await database.asOwner(`insert into ${projection.table} values ($1, 'Sum-ghost', 1, 1)`, [A]);
    await database.asOwner(`delete from ${projection.table} where tenant_id = $1 and stream = 'Sum-1'`, [A]);
    await database.asOwner(`insert into ${projection.table} values ($1, 'Sum-ghost', 1, 1)`, [B]);
    let isOver = false;
    const writers = [A, B].map(async (tenant) => {
      while (!isOver) await write(tenant, some(5, random));
    });
    await requestBuild(database.system, { projection: projection.name, tenant: A, ...ORDER });
    await inState(projection, 2, 'merged').finally(() => (isOver = true));
    await Promise.all(writers);
    await caughtUp(projection);
    expect(await rowsOf(projection, A)).toEqual(await truth(1, A));
    const ofB = await rowsOf(projection, B);
    expect(ofB.filter(({ stream }) => stream !== 'Sum-ghost')).toEqual(await truth(1, B));
    expect(ofB.filter(({ stream }) => stream === 'Sum-ghost')).toHaveLength(1);
    expect(await misacted(projection)).toEqual([]);
    await eventually('its tables are gone', async () => (await tablesOf(projection)).join() === '');
  });

  it('is refused for tables whose rows cannot be told apart', async () => {
    const projection = summing();
    const [table] = projection.tables;
    const keyless = {
      ...projection,
      tables: [
        {
          ...table!,
          create: async (tx: Tx, physical: string) => {
            await table!.create(tx, physical);
            await tx.query(`alter table ${physical} drop constraint if exists ${physical.slice(0, 58)}_pkey`);
          },
        },
      ],
    };
    const runner = await run(keyless);
    await requestBuild(database.system, { projection: projection.name, tenant: A, ...ORDER });
    await runner.look();
    expect(await stateOf(projection, 2)).toBe('failed');
    expect((await statusOf(projection)).builds[0]!.error).toMatch(/needs a primary key/);
    expect(await tablesOf(projection)).toEqual(['']);
  });
});

it('a shard goes on when the leases were emptied and count from 1 again', async () => {
  const projection = summing();
  const runner = await run(projection);
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  await caughtUp(projection);
  await database.asOwner('update projection_checkpoints set epoch = 7');
  await database.asOwner('truncate leases');
  await write(A, [{ stream: 'Sum-1', n: 2 }]);
  runner.wake();
  await caughtUp(projection);
  expect(await rowsOf(projection)).toEqual(await truth());
});

it('stop does not wait for ever for a batch that hangs', async () => {
  const inApply = Promise.withResolvers<void>();
  const projection = summing({
    before: () => {
      inApply.resolve();
      return new Promise(() => undefined);
    },
  });
  await write(A, [{ stream: 'Sum-1', n: 1 }]);
  const runner = await run(projection, { stopMs: 50 });
  await inApply.promise;
  await expect(runner.stop()).resolves.toBeUndefined();
});

it('events are decoded before they are applied, also when a dead letter is retried', async () => {
  let isBroken = true;
  const projection = summing();
  const decode = async (_: Tx, events: readonly RecordedEvent[]) => {
    if (isBroken && events.some(({ data }) => data['n'] === 2)) throw new Error('no key');
    return events.map((event) => ({ ...event, data: { n: Number(event.data['n']) * 5 } }));
  };
  await run(projection, { decode });
  const positions = await write(
    A,
    [1, 2, 3].map((n) => ({ stream: `Sum-${n}`, n })),
  );
  await eventually('one is a dead letter', async () => {
    return (await openDeadLetters(database.system, { projection: projection.name })).length === 1;
  });
  isBroken = false;
  expect(await retryDeadLetter(database.system, projection, positions[1]!, { decode })).toBe(true);
  expect(await rowsOf(projection)).toEqual(await truth(5));
});

it('an owner who is no superuser, and whom row-level security holds too, can build and switch', async () => {
  const [owner, name] = [`builds_owner_${process.pid}`, `builds_owned_${process.pid}`];
  await database.asOwner(`create role ${owner} login createrole password 'p'`);
  await database.asOwner(`grant ${APP_ROLE}, ${SYSTEM_ROLE} to ${owner} with admin true, set false, inherit false`);
  await database.asOwner(`create database ${name} owner ${owner}`);
  const url = new URL(database.url);
  [url.username, url.password, url.pathname] = [owner, 'p', name];
  try {
    await migrate(url.href, [Leases1700000001000, ...eventStoreMigrations]);
    const system = await openSystemDatabase({ url: url.href, service: 'test', poolSize: 6 });
    const app = await openAppDatabase({ url: url.href, service: 'test', poolSize: 1 });
    const quiet = { ...summing() };
    const [table] = quiet.tables;
    quiet.apply = async (batch, tx, target) => {
      const rows = batch.map(({ tenant, stream }) => ({ tenant, stream }));
      await tx.execute(
        `insert into ${target.table(table!.name)} select tenant, stream, 1, 1
         from jsonb_to_recordset($1::jsonb) as r (tenant uuid, stream text)`,
        [JSON.stringify(rows)],
      );
    };
    await app.transaction(A, (tx) => writeIn(tx, A, [{ stream: 'Sum-1', n: 1 }]));
    const runner = await run(quiet, { database: system, databaseUrl: url.href });
    const live = async () => (await projectionStatus(system))[0]!.live!;
    await eventually('it has caught up', async () => (await live()).lagEvents === 0);
    await requestBuild(system, { projection: quiet.name, ...ORDER });
    await eventually('build 2 is live', async () => (await live()).build === 2);
    await requestBuild(system, { projection: quiet.name, tenant: A, ...ORDER });
    await eventually('build 3 is merged', async () =>
      (await projectionStatus(system))[0]!.builds.some(({ state }) => state === 'merged'),
    );
    const rows = await app.transaction(A, (tx) => tx.query(`select stream from ${table!.name}`));
    expect(rows).toEqual([{ stream: 'Sum-1' }]);
    await runner.stop();
    await Promise.all([system.close(), app.close()]);
  } finally {
    await database.asOwner(`drop database ${name} with (force)`);
    await database.asOwner(`drop role ${owner}`);
  }
});

it('a killed process in the middle of a build leaves it to the next, which goes on from its checkpoint', async () => {
  const random = aSeed('killed');
  const projection = summing({ name: 'sums-killed' });
  const before = await run(projection);
  for (let round = 0; round < 8; round += 1) await write(round % 2 ? A : B, some(500, random));
  await caughtUp(projection);
  await before.stop();
  // Held, as a switch would do what is left in one step.
  await requestBuild(database.system, { projection: projection.name, holdSwitch: true, ...ORDER });
  let child: ChildProcess | undefined = spawn(
    process.execPath,
    [path.join(__dirname, '../testing/slow-runner.mjs'), database.url, projection.name, projection.table],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  const exited = once(child, 'exit');
  const position = async () => {
    const [row] = await database.asOwner<{ events_total: string }>(
      'select events_total from projection_checkpoints where projection = $1 and build = 2',
      [projection.name],
    );
    return Number(row?.events_total ?? 0);
  };
  try {
    await eventually('it is in the middle', async () => (await position()) > 500 + random() * 1_000, 30_000);
  } finally {
    child.kill('SIGKILL');
    await exited;
    child = undefined;
  }
  // A commit that was on its way to Postgres still counts.
  await eventually('Postgres has let go of it', async () => {
    const left = await database.asOwner(
      `select 1 from pg_stat_activity where datname = current_database() and application_name like 'slow-runner%'`,
    );
    return left.length === 0;
  });
  const reached = await position();
  expect(reached).toBeLessThan(4_000);
  let applied = 0;
  await run({
    ...projection,
    apply: async (batch, tx, target) => {
      if (!target.isLive) applied += batch.length;
      await projection.apply(batch, tx, target);
    },
  });
  await eventually('the heir has caught up', async () => (await position()) === 4_000, 30_000);
  expect(applied).toBe(4_000 - reached);
  await switchBuild(database.system, { projection: projection.name });
  await inState(projection, 2, 'live');
  expect(await rowsOf(projection)).toEqual(await truth());
  expect(await misacted(projection)).toEqual([]);
});
