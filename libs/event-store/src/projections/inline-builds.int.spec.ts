import { createHash } from 'node:crypto';
import { uuidv5, type TenantId } from '@atomo-cc/kernel';
import { Leases1700000001000, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { aConnection, aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append } from '../append.js';
import { eventStoreMigrations } from '../schema.js';
import { requestBuild, rollbackProjection, type BuildState } from './builds.js';
import type { Projection } from './projection.js';
import { ProjectionRunner } from './runner.js';
import { projectionStatus } from './status.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const ORDER = { by: 'user:1', reason: 'a test' };
const NAME = 'things';
/** Builds that take the live one's place, one after the other, while all write and read. */
const SWITCHES = Number(process.env['SWITCHES'] ?? 8);

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(120_000);

let database: TestDatabase;
let runner: ProjectionRunner | undefined;

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations], { poolSize: 20 });
});

afterEach(async () => {
  await runner?.stop();
  await database.asOwner(
    'truncate event_log, event_streams, projection_builds, projection_checkpoints, projection_dead_letters',
  );
  for (const name of await tablesOf()) await database.asOwner(`drop table ${name}`);
});

afterAll(() => database?.drop());

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

interface Row {
  readonly id: string;
  readonly version: number;
  readonly value: number;
}

/** The statement by which a command writes its rows, and a build those of the log. */
const upsert = (table: string) =>
  `insert into ${table} as t (tenant_id, id, version, value)
   select tenant, id, version, value from jsonb_to_recordset($1::jsonb) as r (tenant uuid, id uuid, version int, value int)
   order by id
   on conflict (tenant_id, id) do update set version = excluded.version, value = excluded.value
   where t.version < excluded.version`;

const things: Projection = {
  name: NAME,
  version: 1,
  shards: 2,
  mode: 'inline',
  eventTypes: { 'Thing.changed': [1] },
  tables: [
    {
      name: 'things',
      create: async (tx, physical) => {
        const [there] = await tx.query('select 1 where to_regclass($1) is not null', [physical]);
        if (there) return;
        await tx.query(
          `create table ${physical} (tenant_id uuid not null, id uuid not null, version int not null, value int, primary key (tenant_id, id))`,
        );
        const rights = { app: 'select, insert, update', system: 'select, insert, update, delete' };
        for (const sql of tenantTable(physical, rights)) await tx.query(sql);
      },
    },
  ],
  async apply(batch, tx, target) {
    const last = new Map(
      batch.map(({ tenant, stream, streamVersion, data }) => [
        `${tenant} ${stream}`,
        { tenant, id: stream.slice('Thing-'.length), version: streamVersion, value: data['value'] },
      ]),
    );
    await tx.execute(upsert(target.table('things')), [JSON.stringify([...last.values()])]);
  },
};

const idOf = (n: number) => uuidv5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', String(n));

/** A command: appends, then writes its rows, with `between` in the middle. */
async function command(
  tx: Tx,
  tenant: TenantId,
  values: ReadonlyMap<string, number>,
  between: () => Promise<unknown> = async () => undefined,
): Promise<void> {
  const result = await append(
    tx,
    tenant,
    [...values].map(([id, value]) => ({
      stream: `Thing-${id}`,
      expected: 'any' as const,
      events: [{ type: 'Thing.changed', schemaVersion: 1, data: { value } }],
      metadata: METADATA,
    })),
  );
  if (!result.ok) throw new Error('conflict');
  await between();
  const rows = result.events.map(({ stream, streamVersion, data }) => ({
    tenant,
    id: stream.slice('Thing-'.length),
    version: streamVersion,
    value: data['value'],
  }));
  await tx.execute(upsert('things'), [JSON.stringify(rows)]);
}

const rowsOf = (tenant: TenantId | null = null) =>
  database.asOwner<Row>(
    'select tenant_id, id, version, value from things where $1::uuid is null or tenant_id = $1 order by 1, 2',
    [tenant],
  );
const truth = (tenant: TenantId | null = null) =>
  database.asOwner<Row>(
    `select distinct on (tenant_id, id) tenant_id, substr(stream, 7)::uuid as id, stream_version as version,
            (data->>'value')::int as value
     from event_log where $1::uuid is null or tenant_id = $1 order by tenant_id, id, stream_version desc`,
    [tenant],
  );
const tablesOf = async () =>
  (
    await database.asOwner<{ name: string }>(
      `select relname as name from pg_class where relkind = 'r' and relname ~ '^things' order by 1`,
    )
  ).map(({ name }) => name);

async function run(projection = things, errors: unknown[] = []): Promise<ProjectionRunner> {
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [projection],
    leaseMs: 600,
    pollMs: 20,
    maxEvents: 200,
    onError: (error) => errors.push(error),
  });
  await runner.start();
  return runner;
}

const inState = (build: number, state: BuildState) =>
  eventually(
    `build ${build} is ${state}`,
    async () => {
      const [status] = await projectionStatus(database.system);
      return status!.builds.find((each) => each.build === build)?.state === state;
    },
    30_000,
  );

/** A connection of its own whose statements are prepared once under a name, as the plans of a driver that keeps them. */
async function aPreparedTx() {
  const client = await aConnection(database);
  const run = (text: string, values: unknown[] = []) =>
    client.query({ name: createHash('md5').update(text).digest('hex'), text, values });
  const query = async (sql: string, values?: unknown[]) => (await run(sql, values)).rows;
  const tx = {
    query,
    prepared: query,
    execute: async (sql: string, values?: unknown[]) => (await run(sql, values)).rowCount ?? 0,
  } as unknown as Tx;
  const [{ pid }] = (await tx.query('select pg_backend_pid() as pid')) as [{ pid: number }];
  return { client, tx, pid };
}

it('switches there and back under commands that roll back, dawdle and die: rows are the fold of the log', async () => {
  const random = aSeed('inline switches');
  await run();
  let isOver = false;
  const tally = { committed: 0, rolledBack: 0, killed: 0 };
  const values = () =>
    new Map(
      Array.from({ length: 1 + Math.floor(random() * 4) }, () => [idOf(Math.floor(random() * 400)), tally.committed]),
    );
  const dawdle = (tx: Tx) => async () => {
    if (random() < 0.6) await tx.query('select pg_sleep($1::float8)', [random() * 0.03]);
  };

  const pooled = async (tenant: TenantId) => {
    while (!isOver) {
      const isRolledBack = random() < 0.15;
      await database.app
        .transaction(tenant, async (tx) => {
          await command(tx, tenant, values(), dawdle(tx));
          await dawdle(tx)();
          if (isRolledBack) throw new Error('rolled back');
        })
        .then(
          () => (tally.committed += 1),
          (error: Error) => {
            if (error.message !== 'rolled back') throw error;
            tally.rolledBack += 1;
          },
        );
    }
  };
  const prepared = async (tenant: TenantId) => {
    let open = await aPreparedTx();
    // The death of a connection may show in a later command than the one during which it was ordered.
    let isDoomed = false;
    try {
      while (!isOver) {
        const { client, tx, pid } = open;
        const isKilled = random() < 0.1;
        isDoomed ||= isKilled;
        try {
          await client.query('begin');
          await command(tx, tenant, values(), async () => {
            await dawdle(tx)();
            // Half of them right here, half at any moment of what follows.
            if (isKilled && random() < 0.5) await database.asOwner('select pg_terminate_backend($1)', [pid]);
            else if (isKilled) void database.asOwner('select pg_terminate_backend($1)', [pid]);
          });
          await client.query(random() < 0.1 ? 'rollback' : 'commit');
          tally.committed += 1;
        } catch (error) {
          if (!isDoomed) throw error;
          isDoomed = false;
          tally.killed += 1;
          await client.end().catch(() => undefined);
          open = await aPreparedTx();
        }
      }
    } finally {
      await open.client.end().catch(() => undefined);
    }
  };
  // Neither the number of rows nor the sum of their versions ever goes back, whatever is switched.
  const reader = async (tenant: TenantId, tx: Tx | null) => {
    let [seen, reads] = [{ rows: 0, versions: 0 }, 0];
    const text =
      'select count(*)::int as rows, coalesce(sum(version), 0)::int as versions from things where tenant_id = $1';
    for (; !isOver; reads += 1) {
      const [row] = (await (tx
        ? tx.query(text, [tenant])
        : database.app.transaction(tenant, (each) => each.query(text, [tenant])))) as [typeof seen];
      if (row.rows < seen.rows || row.versions < seen.versions) {
        throw new Error(`${JSON.stringify(row)} after ${JSON.stringify(seen)}`);
      }
      seen = row;
    }
    return reads;
  };

  const direct = await aPreparedTx();
  const writers = [pooled(A), pooled(A), pooled(B), prepared(A), prepared(B)];
  const readers = [reader(A, null), reader(B, null), reader(A, direct.tx)];
  const faults = Promise.all([...writers, ...readers]);
  const lives: number[] = [];
  try {
    for (let round = 0; round < SWITCHES; round += 1) {
      const isBack = lives.length > 0 && random() < 0.5;
      const order = { projection: NAME, ...ORDER };
      const live = isBack
        ? await rollbackProjection(database.system, order)
        : await requestBuild(database.system, order);
      await Promise.race([inState(live, 'live'), faults.then(() => undefined)]);
      lives.push(live);
      // Something is written between switches, whatever the machine does.
      const before = tally.committed;
      await Promise.race([eventually('commands go on', () => tally.committed >= before + 20), faults]);
    }
  } finally {
    isOver = true;
    await Promise.allSettled([...writers, ...readers]);
    await direct.client.end();
  }
  await faults;
  expect(Math.min(...(await Promise.all(readers)))).toBeGreaterThan(20);
  expect(tally.rolledBack).toBeGreaterThan(0);
  expect(tally.killed).toBeGreaterThan(0);
  expect(await rowsOf()).toEqual(await truth());
  expect((await tablesOf()).length).toBeLessThanOrEqual(3);
});

it('a command that has appended and not yet written writes into the new table, also a statement prepared before', async () => {
  await run();
  const open = await aPreparedTx();
  const id = idOf(1);
  try {
    await open.client.query('begin');
    await command(open.tx, A, new Map([[id, 1]]));
    await open.client.query('commit');
    await open.client.query('begin');
    await command(
      open.tx,
      A,
      new Map([
        [id, 2],
        [idOf(2), 2],
      ]),
      async () => {
        // Its event has a position, below which the mark stays; the switch goes on all the same.
        await database.app.transaction(A, (tx) => command(tx, A, new Map([[idOf(3), 3]])));
        await requestBuild(database.system, { projection: NAME, ...ORDER });
        await inState(2, 'live');
        expect(await rowsOf()).toMatchObject([{ value: 1 }, { value: 3 }]);
      },
    );
    await open.client.query('commit');
  } finally {
    await open.client.end();
  }
  expect(await rowsOf()).toEqual(await truth());
  expect(await rowsOf()).toHaveLength(3);
  // Going back brings to the old table what it has not seen.
  await rollbackProjection(database.system, { projection: NAME, ...ORDER });
  await inState(1, 'live');
  expect(await rowsOf()).toEqual(await truth());
});

it('one tenant is mended row by row while all write: newer rows stay, rows of no event go, lost ones come back', async () => {
  const random = aSeed('inline tenant');
  await run();
  const values = (from: number, to: number) =>
    new Map(Array.from({ length: to - from }, (_, n) => [idOf(from + n), Math.floor(random() * 1_000)]));
  for (const tenant of [A, B]) await database.app.transaction(tenant, (tx) => command(tx, tenant, values(0, 300)));
  await database.asOwner('update things set value = -1 where tenant_id = $1', [A]);
  await database.asOwner('delete from things where tenant_id = $1 and id = any($2)', [A, [...values(50, 60).keys()]]);
  for (const tenant of [A, B]) {
    await database.asOwner('insert into things values ($1, $2, 1, 1)', [tenant, idOf(9_999)]);
  }
  let isOver = false;
  let fresh = 1_000;
  const writer = async (tenant: TenantId) => {
    while (!isOver) {
      // Rows that are new all the time, which must not be taken for those of no event.
      const some = new Map([
        [idOf((fresh += 1)), 1],
        [idOf(Math.floor(random() * 300)), Math.floor(random() * 1_000)],
      ]);
      await database.app.transaction(tenant, (tx) =>
        command(tx, tenant, some, () => tx.query('select pg_sleep($1::float8)', [random() * 0.01])),
      );
    }
  };
  const writers = [writer(A), writer(A), writer(B)];
  await requestBuild(database.system, { projection: NAME, tenant: A, ...ORDER });
  await Promise.race([inState(2, 'merged'), ...writers]).finally(() => (isOver = true));
  await Promise.all(writers);
  expect(await rowsOf(A)).toEqual(await truth(A));
  const ofB = await rowsOf(B);
  expect(ofB.filter(({ id }) => id !== idOf(9_999))).toEqual(await truth(B));
  expect(ofB.some(({ id }) => id === idOf(9_999))).toBe(true);
  await eventually('its tables are gone', async () => (await tablesOf()).join() === 'things');
});

it('tables that commands have written before the first start are taken as they are', async () => {
  await database.asOwner(
    'create table things (tenant_id uuid, id uuid, version int, value int, primary key (tenant_id, id))',
  );
  await database.asOwner('grant select, insert, update, delete on things to atomo_app, atomo_system');
  await database.app.transaction(A, (tx) => command(tx, A, new Map([[idOf(1), 1]])));
  await run();
  expect(await rowsOf()).toEqual(await truth());
  await requestBuild(database.system, { projection: NAME, ...ORDER });
  await inState(2, 'live');
  expect(await rowsOf()).toEqual(await truth());
});
