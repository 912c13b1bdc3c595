import { CodedError, uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { Leases1700000001000, openSystemDatabase, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { createLogger, type Logger } from '@atomo-cc/platform/logging';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { aCable, aDatabase, aSeed, eventually, seeded, type TestDatabase } from '@atomo-cc/testing';
import { EventCatalogue } from '@atomo-cc/events';
import { append } from '../append.js';
import { EventCodec } from '../codec.js';
import { SubjectKeys } from '../subject-keys.js';
import { eventStoreMigrations } from '../schema.js';
import { claimShard, lockShard, moveCheckpoint, pauseProjection, resumeProjection } from './checkpoints.js';
import { requestBuild } from './builds.js';
import { askForRetry, openDeadLetters, retryDeadLetter, skipDeadLetter } from './dead-letters.js';
import { unknownEvent, type DecodeEvents, type Projection } from './projection.js';
import { ProjectionRunner, type ProjectionRunnerOptions } from './runner.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const LEASE_MS = 900;

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let database: TestDatabase;
let runners: ProjectionRunner[] = [];
let clean: (() => unknown)[] = [];

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations], { poolSize: 12 });
  await database.asOwner(
    'create table counts (projection text, tenant_id uuid, stream text, n int, sum bigint, primary key (projection, tenant_id, stream))',
  );
  await database.asOwner('grant select, insert, update on counts to atomo_system');
});

afterEach(async () => {
  await Promise.all(runners.map((runner) => runner.stop()));
  for (const each of clean) await each();
  [runners, clean] = [[], []];
  await database.asOwner(
    'truncate event_log, event_streams, counts, projection_builds, projection_checkpoints, projection_dead_letters',
  );
});

afterAll(() => database?.drop());

interface Written {
  readonly stream: string;
  readonly n: number;
  readonly type?: string;
  readonly schemaVersion?: number;
}

async function write(tenant: TenantId, written: readonly Written[]): Promise<bigint[]> {
  const result = await database.app.transaction(tenant, (tx) => writeIn(tx, tenant, written));
  return result.map(({ position }) => position);
}

async function writeIn(tx: Tx, tenant: TenantId, written: readonly Written[]): Promise<readonly RecordedEvent[]> {
  const appends = written.map(({ stream, n, type = 'Thing.changed', schemaVersion = 1 }) => ({
    stream,
    expected: 'any' as const,
    events: [{ type, schemaVersion, data: { n } }],
    metadata: METADATA,
  }));
  const result = await append(tx, tenant, appends);
  if (!result.ok) throw new Error('conflict');
  return result.events;
}

/** Adds up `n` per stream: an event that takes effect twice, or not at all, shows in the sums. */
function counting(before?: (batch: readonly RecordedEvent[], tx: Tx) => unknown, shards = 1): Projection {
  const name = `counting-${uuidv7()}`;
  return {
    name,
    version: 1,
    mode: 'async',
    tables: [],
    shards,
    eventTypes: { 'Thing.changed': [1] },
    async apply(batch, tx) {
      await before?.(batch, tx);
      const folded = new Map<string, { tenant_id: string; stream: string; n: number; sum: number }>();
      for (const { tenant, stream, data } of batch) {
        const key = `${tenant} ${stream}`;
        const row = folded.get(key) ?? { tenant_id: tenant, stream, n: 0, sum: 0 };
        folded.set(key, { ...row, n: row.n + 1, sum: row.sum + Number(data['n']) });
      }
      await tx.execute(
        `insert into counts as c (projection, tenant_id, stream, n, sum)
         select $1, f.* from jsonb_to_recordset($2::jsonb) as f (tenant_id uuid, stream text, n int, sum bigint)
         on conflict (projection, tenant_id, stream) do update set n = c.n + excluded.n, sum = c.sum + excluded.sum`,
        [name, JSON.stringify([...folded.values()])],
      );
    },
  };
}

const counted = ({ name }: Projection) =>
  database.asOwner(
    'select tenant_id, stream, n, sum::int from counts where projection = $1 order by tenant_id, stream collate "C"',
    [name],
  );
const truth = (but: readonly bigint[] = []) =>
  database.asOwner(
    `select tenant_id, stream, count(*)::int as n, sum((data->>'n')::int)::int as sum from event_log
     where type = 'Thing.changed' and not position = any($1) group by 1, 2 order by tenant_id, stream collate "C"`,
    [but.map(String)],
  );

async function run(
  projections: Projection | readonly Projection[],
  options: Partial<ProjectionRunnerOptions> = {},
): Promise<ProjectionRunner> {
  const runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [projections].flat() as Projection[],
    leaseMs: LEASE_MS,
    pollMs: 50,
    ...options,
  });
  runners.push(runner);
  await runner.start();
  return runner;
}

const caughtUp = (runner: ProjectionRunner, withinMs = 30_000) =>
  eventually(
    'all is applied',
    async () => (await runner.status()).every(({ lagEvents, state }) => lagEvents === 0 && state === 'running'),
    withinMs,
  );

function aGate(): { promise: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, open: resolve };
}

/** A pool of its own, whose transactions can be made to hang before they begin, as those of a stalled process. */
async function aStallingDatabase(service: string) {
  const real = await openSystemDatabase({ url: database.url, service, poolSize: 6 });
  clean.push(() => real.close());
  let gate: ReturnType<typeof aGate> | null = null;
  const system = {
    transaction: async (work: (tx: Tx) => Promise<unknown>) => {
      await gate?.promise;
      return real.transaction(work);
    },
    close: () => real.close(),
  } as unknown as SystemDatabase;
  return {
    system,
    stall: () => {
      gate = aGate();
    },
    wake: () => {
      gate?.open();
      gate = null;
    },
    close: () => real.close(),
  };
}

it('20,000 events of two tenants, written while it runs, give what the log says', async () => {
  const random = seeded(aSeed('counting'));
  const projection = counting();
  const metrics = new Metrics('test');
  const runner = await run(projection, { metrics, maxEvents: 1_777 });
  for (let written = 0; written < 20_000; written += 500) {
    const batch = Array.from({ length: 500 }, () => ({
      stream: `Thing-${Math.floor(random() * 300)}`,
      n: Math.floor(random() * 1_000),
      ...(random() < 0.1 && { type: 'Thing.ignored' }),
    }));
    await write(random() < 0.5 ? A : B, batch);
    if (random() < 0.5) runner.wake();
  }
  await caughtUp(runner);
  expect(await counted(projection)).toEqual(await truth());
  const [row] = await database.asOwner<{ n: string }>(
    `select count(*) as n from event_log where type = 'Thing.changed'`,
  );
  const [status] = await runner.status();
  expect(status).toMatchObject({ eventsTotal: Number(row!.n), errorsTotal: 0, openDeadLetters: 0, lagMs: 0 });
  expect(await metrics.registry.getSingleMetricAsString('projection_events_total')).toContain(` ${row!.n}`);
});

it('batches hold no more events than they may, in the order of the log', async () => {
  const seen: bigint[] = [];
  const sizes: number[] = [];
  const projection = counting((batch) => {
    sizes.push(batch.length);
    seen.push(...batch.map(({ position }) => position));
  });
  const small = Array.from({ length: 40 }, (_, n) => ({ stream: `Thing-${n % 3}`, n }));
  const positions = await write(A, small);
  // A mebibyte each that hardly compresses: eight or nine fill a batch long before twenty do.
  await database.asOwner(
    `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata)
     select nextval('event_log_position'), $1, 'Thing-large', v, 'Thing.changed', 1, jsonb_build_object('n', 1, 'noise', noise), '{}'
     from (select v, string_agg(md5(v || '/' || i), '') as noise
           from generate_series(1, 20) v, generate_series(1, 32768) i group by v order by v) as large`,
    [A],
  );
  const runner = await run(projection, { maxEvents: 20 });
  await caughtUp(runner);
  expect(sizes.slice(0, 2)).toEqual([20, 20]);
  expect(Math.max(...sizes.slice(2))).toBeLessThan(16);
  expect(seen.slice(0, 40)).toEqual(positions);
  expect(seen).toHaveLength(60);
  expect(seen.every((position, n) => n === 0 || position > seen[n - 1]!)).toBe(true);
});

it('an open append holds the mark, and what it commits late is not skipped', async () => {
  const projection = counting();
  const runner = await run(projection);
  const [gate, isOpen] = [aGate(), aGate()];
  const slow = database.app.transaction(A, async (tx) => {
    await writeIn(tx, A, [{ stream: 'Thing-slow', n: 7 }]);
    isOpen.open();
    await gate.promise;
  });
  await isOpen.promise;
  await write(A, [{ stream: 'Thing-fast', n: 1 }]);
  const looks = runner as unknown as { fence: { advance: jest.Mock } };
  const spy = jest.spyOn(looks.fence, 'advance');
  runner.wake();
  try {
    await eventually('it looked at the log', () => spy.mock.calls.length >= 3);
    expect(await counted(projection)).toEqual([]);
  } finally {
    gate.open();
    await slow;
  }
  await caughtUp(runner);
  expect(await counted(projection)).toEqual(await truth());
  expect(await counted(projection)).toHaveLength(2);
});

it('two runners share the shards; those of one that dies go to the other in time', async () => {
  const random = seeded(aSeed('sharing'));
  const projection = counting(undefined, 6);
  const first = await aStallingDatabase('first');
  const one = await run(projection, { database: first.system });
  expect(one.shards).toHaveLength(6);
  const two = await run(projection);
  await eventually('they share', () => one.shards.length === 3 && two.shards.length === 3);
  const some = () => Array.from({ length: 50 }, () => ({ stream: `Thing-${Math.floor(random() * 40)}`, n: 1 }));
  for (let round = 0; round < 20; round += 1) await write(random() < 0.5 ? A : B, some());
  // Neither releases nor renews from here on, as after kill -9: its connections are gone.
  await first.close();
  expect(
    await database.asOwner(`select name from leases where expires_at > clock_timestamp() + $1 * interval '1 ms'`, [
      LEASE_MS,
    ]),
  ).toEqual([]);
  for (let round = 0; round < 20; round += 1) await write(random() < 0.5 ? A : B, some());
  await eventually('the other has all', () => two.shards.length === 6);
  await caughtUp(two);
  expect(await counted(projection)).toEqual(await truth());
  expect((await two.status()).reduce((sum, { eventsTotal }) => sum + eventsTotal, 0)).toBe(2_000);
});

it('a stream is always in the same shard', async () => {
  const shardOf = new Map<string, Set<string>>();
  const projection = counting(async (batch, tx) => {
    const [{ pid }] = (await tx.query('select txid_current()::text as pid')) as [{ pid: string }];
    for (const { stream } of batch) shardOf.set(stream, (shardOf.get(stream) ?? new Set()).add(pid));
  }, 3);
  await write(
    A,
    Array.from({ length: 90 }, (_, n) => ({ stream: `Thing-${n % 30}`, n })),
  );
  const runner = await run(projection);
  await caughtUp(runner);
  expect([...shardOf.values()].every((batches) => batches.size === 1)).toBe(true);
  expect(new Set([...shardOf.values()].flatMap((batches) => [...batches])).size).toBe(3);
  expect(await counted(projection)).toEqual(await truth());
});

it('a runner that lost its lease while it applied changes nothing, and neither does its next batch', async () => {
  const [gate, inApply] = [aGate(), aGate()];
  let isFirst = true;
  const projection = counting(async () => {
    if (!isFirst) return;
    isFirst = false;
    inApply.open();
    await gate.promise;
  });
  const stalling = await aStallingDatabase('zombie');
  const errors: unknown[] = [];
  const zombie = await run(projection, { database: stalling.system, onError: (error) => errors.push(error) });
  await write(A, [{ stream: 'Thing-1', n: 5 }]);
  zombie.wake();
  await inApply.promise;
  stalling.stall();
  const heir = await run(projection);
  try {
    await eventually('the heir has it', () => heir.shards.length === 1);
    await caughtUp(heir, 10_000);
    expect(await counted(projection)).toEqual(await truth());
  } finally {
    gate.open();
    stalling.wake();
  }
  await eventually('the zombie has failed', () => errors.length > 0);
  await write(A, [{ stream: 'Thing-1', n: 6 }]);
  await eventually('the zombie has seen it', () => zombie.shards.length === 0);
  await caughtUp(heir);
  expect(await counted(projection)).toEqual(await truth());
});

it('a checkpoint is neither locked nor moved under an older epoch, nor claimed back', async () => {
  const projection = counting();
  const runner = await run(projection);
  await runner.stop();
  const shard = { projection: projection.name, build: 1, shard: 0 };
  await database.system.transaction((tx) => claimShard(tx, shard, 1_000));
  const lost = expect.objectContaining({ code: 'LEASE_LOST' });
  const move = { from: 0n, to: 9n, events: 1 };
  await expect(database.system.transaction((tx) => lockShard(tx, shard, 999))).rejects.toEqual(lost);
  await expect(database.system.transaction((tx) => moveCheckpoint(tx, shard, 999, move))).rejects.toEqual(lost);
  await expect(database.system.transaction((tx) => claimShard(tx, shard, 999))).rejects.toEqual(lost);
  await expect(
    database.system.transaction((tx) => moveCheckpoint(tx, shard, 1_000, { ...move, from: 8n })),
  ).rejects.toEqual(lost);
  const from = await at(shard);
  await database.system.transaction((tx) => moveCheckpoint(tx, shard, 1_000, { from, to: from + 9n, events: 1 }));
  expect(await at(shard)).toBe(from + 9n);
});

async function at({ projection }: { projection: string }): Promise<bigint> {
  const [row] = await database.asOwner<{ position: string }>(
    'select position from projection_checkpoints where projection = $1',
    [projection],
  );
  return BigInt(row!.position);
}

it('crashes between apply and commit repeat nothing', async () => {
  const random = seeded(aSeed('crashes'));
  const inner = counting(undefined, 2);
  let crashes = 0;
  const projection: Projection = {
    ...inner,
    async apply(batch, tx, target) {
      await inner.apply(batch, tx, target);
      if (crashes < 8 && random() < 0.6) {
        crashes += 1;
        const [self] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
        await database.asOwner('select pg_terminate_backend($1)', [self!.pid]);
      }
    },
  };
  const runner = await run(projection, { maxEvents: 100 });
  for (let round = 0; round < 20; round += 1) {
    await write(
      random() < 0.5 ? A : B,
      Array.from({ length: 50 }, (_, n) => ({ stream: `Thing-${n % 9}`, n })),
    );
  }
  await caughtUp(runner);
  expect(crashes).toBeGreaterThan(0);
  expect(await counted(projection)).toEqual(await truth());
  expect(await openDeadLetters(database.system, { projection: projection.name })).toEqual([]);
});

/** What a service's logger writes. */
function logged(work: (logger: Logger) => void): string {
  const logger = createLogger('test', 'info');
  const stream = Object.getOwnPropertySymbols(logger).find(({ description }) => description === 'pino.stream')!;
  const writer = (logger as unknown as Record<symbol, { write(line: string): void }>)[stream]!;
  let lines = '';
  const write = jest.spyOn(writer, 'write').mockImplementation((line) => void (lines += line));
  work(logger);
  write.mockRestore();
  return lines;
}

it('what a look asks is planned once for a connection, not for the values of each look', async () => {
  const system = await openSystemDatabase({ url: database.url, service: 'planned', poolSize: 3 });
  clean.push(() => system.close());
  const plans: unknown[] = [];
  const projection = counting(async (_batch, tx) => {
    const found = await tx.query(
      `select custom_plans::int as custom from pg_prepared_statements where statement like '%from event_log%limit%'`,
    );
    plans.push(...found);
  });
  const runner = await run(projection, { database: system });
  for (const n of [1, 2]) {
    await write(A, [{ stream: 'a', n }]);
    await caughtUp(runner);
  }
  expect(new Set(plans.map((plan) => JSON.stringify(plan)))).toEqual(new Set(['{"custom":0}']));
});

describe('a connection that goes silent', () => {
  it('its commits do not wait for the disk, unlike those of who writes events', async () => {
    const settings = new Set<string>();
    const setting = async (tx: Tx) =>
      (await tx.query<{ synchronous_commit: string }>('show synchronous_commit'))[0]!.synchronous_commit;
    await write(A, [{ stream: 's', n: 1 }]);
    await caughtUp(await run(counting(async (_batch, tx) => settings.add(await setting(tx)))));
    expect([...settings]).toEqual(['off']);
    expect(await database.system.transaction(setting)).toBe('on');
  });

  it('holds up a projection for the limit; then it goes on, and nothing is counted twice', async () => {
    const cable = await aCable(database.url);
    const system = await openSystemDatabase({ url: cable.url, service: 'silent', poolSize: 6, answerTimeoutMs: 1_000 });
    clean.push(
      () => (cable.resume(), system.close()),
      () => cable.close(),
    );
    const projection = counting();
    await write(
      A,
      [1, 2, 3].map((n) => ({ stream: 'Thing-1', n })),
    );
    const runner = await run(projection, { database: system });
    await caughtUp(runner);
    for (const at of ['before commit', 'after commit'] as const) {
      const silent = cable.stallNext(at);
      await write(
        A,
        [4, 5].map((n) => ({ stream: 'Thing-2', n })),
      );
      await silent;
      await eventually('it goes on', () => caughtUp(runner).then(() => true));
      cable.resume();
      await write(A, [{ stream: 'Thing-3', n: 6 }]);
      await caughtUp(runner);
      expect(await counted(projection)).toEqual(await truth());
    }
  });
});

describe('an event that cannot be applied', () => {
  const poisoned = () => {
    const poison = new Set<string>();
    const projection = counting(async (batch, tx) => {
      const found = batch.find(({ position }) => poison.has(String(position)));
      // One fault of JavaScript, one of SQL, which leaves the transaction broken.
      if (found && found.position % 2n === 0n) throw new Error('bad\0event');
      if (found) await tx.query(`select 1 / 0`);
    });
    return { poison, projection };
  };

  it('becomes a dead letter, and all others take effect, also later ones of its stream', async () => {
    const random = seeded(aSeed('poison'));
    const { poison, projection } = poisoned();
    const positions = await write(
      A,
      Array.from({ length: 400 }, (_, n) => ({ stream: `Thing-${n % 7}`, n })),
    );
    while (poison.size < 5) poison.add(String(positions[Math.floor(random() * positions.length)]));
    const runner = await run(projection);
    await caughtUp(runner);
    const bad = [...poison].map(BigInt).sort((a, b) => (a < b ? -1 : 1));
    expect(await counted(projection)).toEqual(await truth(bad));
    const letters = await openDeadLetters(database.system, { projection: projection.name });
    expect(letters.map(({ position }) => position)).toEqual(bad);
    for (const letter of letters) {
      expect(letter).toMatchObject({ tenant: A, type: 'Thing.changed', state: 'open', attempts: 4 });
      expect(letter.error).toMatch(letter.position % 2n === 0n ? /^bad\uFFFDevent$/ : /division by zero/);
      expect(letter.stack).toMatch(/^error: /i);
    }
    const [status] = await runner.status();
    expect(status).toMatchObject({ eventsTotal: 395, errorsTotal: 3, openDeadLetters: 5, lastError: null });

    expect(await retryDeadLetter(database.system, projection, bad[0]!)).toBe(false);
    const [again] = await openDeadLetters(database.system, { projection: projection.name });
    expect(again).toMatchObject({ position: bad[0], attempts: 5 });
    expect(await counted(projection)).toEqual(await truth(bad));

    poison.clear();
    expect(await retryDeadLetter(database.system, projection, bad[0]!)).toBe(true);
    await skipDeadLetter(database.system, { projection: projection.name }, bad[1]!, 'a test of the vendor');
    expect(await counted(projection)).toEqual(await truth(bad.slice(1)));
    const closed = await database.asOwner(
      `select position, state, reason from projection_dead_letters where state <> 'open' order by position`,
    );
    expect(closed).toEqual([
      { position: String(bad[0]), state: 'retried', reason: null },
      { position: String(bad[1]), state: 'skipped', reason: 'a test of the vendor' },
    ]);
    const notOpen = expect.objectContaining({ code: 'DEAD_LETTER_NOT_OPEN' });
    await expect(retryDeadLetter(database.system, projection, bad[0]!)).rejects.toEqual(notOpen);
    await expect(retryDeadLetter(database.system, projection, bad[1]!)).rejects.toEqual(notOpen);
    await expect(skipDeadLetter(database.system, { projection: projection.name }, bad[0]!, 'x')).rejects.toEqual(
      notOpen,
    );
    await expect(skipDeadLetter(database.system, { projection: projection.name }, bad[2]!, '  ')).rejects.toThrow(
      RangeError,
    );
  });

  it('leaves none of its values behind, neither in the letter nor in the log', async () => {
    await database.asOwner('create table once (name text primary key)');
    clean.push(() => database.asOwner('drop table once'));
    await database.asOwner('grant select, insert on once to atomo_system');
    const faults: unknown[] = [];
    const projection = counting(async (_batch, tx) => {
      await tx.execute(`insert into once values ('Ada Lovelace'), ('Ada Lovelace')`).catch((error: unknown) => {
        faults.push(error);
        throw error;
      });
    });
    await write(A, [{ stream: 'Thing-1', n: 1 }]);
    const reported: unknown[] = [];
    const runner = await run(projection, { onError: (error) => void reported.push(error) });
    await eventually('there is a letter', async () => {
      return (await openDeadLetters(database.system, { projection: projection.name })).length > 0;
    });
    await runner.stop();
    // Postgres has told the value; so it is by what is kept that it is not there.
    expect(faults[0]).toMatchObject({ detail: expect.stringMatching(/Ada Lovelace/) as unknown });
    const kept = await database.asOwner<{ error: string; row: string }>(
      'select d.error, to_jsonb(d)::text as row from projection_dead_letters d',
    );
    const checkpoints = await database.asOwner<{ row: string }>(
      'select to_jsonb(c)::text as row from projection_checkpoints c',
    );
    expect(kept[0]!.error).toBe('duplicate key value violates unique constraint "once_pkey"');
    expect([...kept, ...checkpoints].map(({ row }) => row).join()).not.toMatch(/Lovelace/);
    const lines = logged((logger) =>
      [...faults, ...reported].forEach((err) => logger.warn({ err }, 'a projection failed')),
    );
    expect(lines).toMatch(/once_pkey/);
    expect(lines).not.toMatch(/Lovelace/);
  });

  it('stops the projection when there are too many of them, and writes none down', async () => {
    const { poison, projection } = poisoned();
    const positions = await write(
      A,
      Array.from({ length: 40 }, (_, n) => ({ stream: `Thing-${n}`, n })),
    );
    for (const position of positions) poison.add(String(position));
    const runner = await run(projection);
    await eventually('it stopped', async () => (await runner.status())[0]!.state === 'stopped');
    await eventually('it says why', async () =>
      /More than 10 events/.test((await runner.status())[0]!.lastError ?? ''),
    );
    expect(await database.asOwner('select 1 from projection_dead_letters')).toEqual([]);
    poison.clear();
    await resumeProjection(database.system, { projection: projection.name });
    runner.wake();
    await caughtUp(runner);
    expect(await counted(projection)).toEqual(await truth());
  });

  it('is applied again by the next beat of a runner when that is asked for, once for each time', async () => {
    const { poison, projection } = poisoned();
    const [bad] = await write(A, [{ stream: 'Thing-1', n: 1 }]);
    await write(A, [{ stream: 'Thing-2', n: 2 }]);
    poison.add(String(bad));
    const runner = await run(projection);
    await caughtUp(runner);
    const letter = async () => {
      const [row] = await database.asOwner(
        'select state, attempts, is_retry_asked as asked from projection_dead_letters',
      );
      return row;
    };
    expect(await letter()).toEqual({ state: 'open', attempts: 4, asked: false });
    const which = { projection: projection.name };
    await askForRetry(database.system, which, bad!);
    await runner.look();
    expect(await letter()).toEqual({ state: 'open', attempts: 5, asked: false });
    await runner.look();
    expect(await letter()).toEqual({ state: 'open', attempts: 5, asked: false });

    poison.clear();
    await askForRetry(database.system, which, bad!);
    await eventually('a beat has done it', async () => (await letter())!['state'] === 'retried');
    expect(await counted(projection)).toEqual(await truth());
    const notOpen = expect.objectContaining({ code: 'DEAD_LETTER_NOT_OPEN' });
    await expect(askForRetry(database.system, which, bad!)).rejects.toEqual(notOpen);
    await expect(askForRetry(database.system, { projection: 'unheard-of' }, bad!)).rejects.toMatchObject({
      code: 'PROJECTION_NOT_FOUND',
    });
    // One that becomes a letter once more was not asked for.
    poison.add(String(bad));
    await runner.stop();
    await database.asOwner('update projection_checkpoints set position = 0');
    await caughtUp(await run(projection));
    expect(await letter()).toMatchObject({ state: 'open', asked: false });
  });

  it('stays asked for until a runner has the code, and keeps nobody from the turn', async () => {
    const [first, second] = [poisoned(), poisoned()];
    const positions = await write(A, [{ stream: 'Thing-1', n: 1 }]);
    for (const { poison } of [first, second]) poison.add(String(positions[0]));
    const both = await run([first.projection, second.projection]);
    await caughtUp(both);
    await both.stop();
    // So many that are nobody's, before the one that is ours, as a list has its end.
    await database.asOwner(
      `insert into projection_dead_letters (projection, build, position, shard, tenant_id, stream, stream_version, type, error, stack, attempts, is_retry_asked)
       select projection, build, position - n, shard, tenant_id, stream, stream_version, type, error, stack, attempts, true
       from projection_dead_letters, generate_series(1, 1000) n where projection = $1`,
      [first.projection.name],
    );
    for (const { poison, projection } of [first, second]) {
      poison.clear();
      await askForRetry(database.system, { projection: projection.name }, positions[0]!);
    }
    await (await run(second.projection)).look();
    const letters = () =>
      database.asOwner(
        `select projection, state, is_retry_asked as asked from projection_dead_letters where position = $1 order by state`,
        [String(positions[0])],
      );
    expect(await letters()).toEqual([
      { projection: first.projection.name, state: 'open', asked: true },
      { projection: second.projection.name, state: 'retried', asked: true },
    ]);
    await database.asOwner('delete from projection_dead_letters where position <> $1', [String(positions[0])]);
    await (await run(first.projection)).look();
    expect((await letters()).map(({ state }) => state)).toEqual(['retried', 'retried']);
  });

  it.each([
    ['that stops its projection', 'a sealed box', false],
    ['whose connection breaks', 'terminat|connection error', true],
  ] as const)(
    '%s keeps neither other letters nor builds waiting when it is retried',
    async (_what, words, staysAsked) => {
      let isFatal = false;
      const poison = new Set<string>();
      const projection = counting(async (batch, tx) => {
        if (!batch.some(({ position }) => poison.has(String(position)))) return;
        if (!isFatal) throw new Error('bad event');
        if (!staysAsked) throw new CodedError('PROJECTION_BROKEN', 'a sealed box does not open');
        const [self] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
        await database.asOwner('select pg_terminate_backend($1)', [self!.pid]);
        await tx.query('select 1');
      });
      const [bad, good] = await write(A, [
        { stream: 'Thing-1', n: 1 },
        { stream: 'Thing-2', n: 2 },
      ]);
      for (const position of [bad, good]) poison.add(String(position));
      const errors: unknown[] = [];
      const runner = await run(projection, { onError: (error) => errors.push(error), leaseMs: 60_000 });
      await caughtUp(runner);
      isFatal = true;
      poison.delete(String(good));
      for (const position of [bad!, good!])
        await askForRetry(database.system, { projection: projection.name }, position);
      await requestBuild(database.system, {
        projection: projection.name,
        by: 'user:1',
        reason: 'a test',
        holdSwitch: true,
      });
      errors.length = 0;
      await runner.look();
      expect(
        await database.asOwner(
          'select position, state, is_retry_asked as asked, attempts from projection_dead_letters where build = 1 order by position',
        ),
      ).toEqual([
        { position: String(bad), state: 'open', asked: staysAsked, attempts: staysAsked ? 4 : 5 },
        { position: String(good), state: 'retried', asked: true, attempts: 5 },
      ]);
      expect(errors[0]).toMatchObject({ message: expect.stringMatching(words) });
      const [build] = await database.asOwner('select state from projection_builds where build = 2');
      expect(build!['state']).not.toBe('requested');
    },
  );

  it('is not blamed for a statement that is wrong', async () => {
    const projection = counting((_, tx) => tx.query('select * from no_such_table'));
    await write(A, [{ stream: 'Thing-1', n: 1 }]);
    const runner = await run(projection);
    await eventually('it stopped', async () => (await runner.status())[0]!.state === 'stopped');
    expect(await openDeadLetters(database.system, { projection: projection.name })).toEqual([]);
  });
});

describe('with a codec', () => {
  const codec = new EventCodec(
    new SubjectKeys('the encryption key of these tests'),
    new EventCatalogue({ 'Thing.changed': { version: 2, upcasters: { 1: ({ n }) => ({ n, isOld: true }) } } }),
  );
  const decode: DecodeEvents = (tx, events) => codec.decode(tx, events);
  const seen: unknown[] = [];
  const seeing = (): Projection => ({
    ...counting((batch) => void seen.push(...batch.map(({ data }) => data))),
    eventTypes: { 'Thing.changed': [2] },
  });
  beforeEach(() => void seen.splice(0));

  it('a projection sees events opened and in the shape of today', async () => {
    await write(A, [{ stream: 'Thing-1', n: 1 }]);
    const event = {
      type: 'Thing.changed',
      schemaVersion: 2,
      data: { n: 2 },
      personal: { subject: 'Thing-2', fields: ['n'] },
    };
    await database.app.transaction(B, async (tx) => {
      const appends = [{ stream: 'Thing-2', expected: 'any' as const, events: [event], metadata: METADATA }];
      await append(tx, B, await codec.encode(tx, B, appends));
    });
    await caughtUp(await run(seeing(), { decode }));
    expect(seen).toEqual([{ n: 1, isOld: true }, { n: 2 }]);
  });

  it.each([
    ['a newer version', { schemaVersion: 3, data: { n: 2 } }, 'PROJECTION_EVENT_UNKNOWN'],
    [
      'a box that does not open',
      { schemaVersion: 2, data: { $sealed: { subject: 'x', key: 1, fields: [], box: '' } } },
      'PROJECTION_BROKEN',
    ],
  ])('%s stops the projection that meets it, before it, and no other', async (_name, event, code) => {
    await write(A, [{ stream: 'Thing-1', n: 1 }]);
    const other: Projection = { ...counting(), eventTypes: { 'Thing.seen': [1] } };
    const errors: unknown[] = [];
    const stopping = seeing();
    const runner = await run([stopping, other], { decode, onError: (error) => errors.push(error) });
    await eventually('the first is applied', () => seen.length === 1);
    const appends = [
      {
        stream: 'Thing-1',
        expected: 'any' as const,
        events: [{ type: 'Thing.changed', ...event }],
        metadata: METADATA,
      },
    ];
    await database.app.transaction(A, (tx) => append(tx, A, appends));
    const stateOf = async ({ name }: Projection) =>
      (await runner.status()).find((shard) => shard.projection === name)!.state;
    await eventually('it stopped', async () => (await stateOf(stopping)) === 'stopped');
    expect(await stateOf(other)).toBe('running');
    expect(errors).toEqual([expect.objectContaining({ code })]);
    expect(seen).toHaveLength(1);
    expect(await openDeadLetters(database.system, { projection: stopping.name })).toEqual([]);
  });
});

it.each(['schema version', 'type'])('an unknown %s stops that projection before it, and no other', async (what) => {
  const other = counting();
  const strict = counting(undefined, 2);
  const unknown: Projection = {
    ...strict,
    eventTypes: what === 'type' ? 'all' : strict.eventTypes,
    async apply(batch, tx, target) {
      for (const event of batch) if (event.type !== 'Thing.changed') throw unknownEvent(unknown, event);
      await strict.apply(batch, tx, target);
    },
  };
  const runner = await run([other, unknown]);
  await write(A, [{ stream: 'Thing-1', n: 1 }]);
  runner.wake();
  await caughtUp(runner);
  const strange = what === 'type' ? { type: 'Thing.strange' } : { schemaVersion: 2 };
  await write(A, [{ stream: 'Thing-1', n: 2, ...strange }]);
  const lenient = counting();
  Object.assign(lenient, { eventTypes: { 'Thing.changed': [1, 2] } });
  const second = await run(lenient);
  const stateOf = async ({ name }: Projection) => {
    const rows = (await runner.status()).filter((row) => row.projection === name);
    return [...new Set(rows.map(({ state }) => state))].join();
  };
  await eventually('all its shards have stopped', async () => (await stateOf(unknown)) === 'stopped');
  await eventually('it says why', async () =>
    (await runner.status()).some(({ lastError }) => lastError?.includes('does not know')),
  );
  expect(await counted(unknown)).toEqual([{ tenant_id: A, stream: 'Thing-1', n: 1, sum: 1 }]);
  expect(await openDeadLetters(database.system, { projection: unknown.name })).toEqual([]);
  await caughtUp(second);
  expect(await counted(lenient)).toEqual(await truth());
});

it('paused it does nothing, and no batch is under way; resumed it goes on where it was', async () => {
  let calls = 0;
  const projection = counting(() => (calls += 1));
  const runner = await run(projection);
  await write(A, [{ stream: 'Thing-1', n: 1 }]);
  runner.wake();
  await caughtUp(runner);
  await pauseProjection(database.system, { projection: projection.name });
  const before = calls;
  await write(A, [{ stream: 'Thing-1', n: 2 }]);
  const spy = jest.spyOn(database.system, 'transaction');
  runner.wake();
  await eventually('it looked', () => spy.mock.calls.length >= 3);
  spy.mockRestore();
  expect(calls).toBe(before);
  const [status] = await runner.status();
  expect(status).toMatchObject({ state: 'paused', lagEvents: 1 });
  expect(status!.lagMs).toBeGreaterThan(0);
  await resumeProjection(database.system, { projection: projection.name });
  runner.wake();
  await caughtUp(runner);
  expect(await counted(projection)).toEqual(await truth());
  await expect(pauseProjection(database.system, { projection: 'unheard-of' })).rejects.toMatchObject({
    code: 'PROJECTION_NOT_FOUND',
  });
});

it('stop waits for the batch under way, and the next runner begins at once', async () => {
  const [gate, inApply] = [aGate(), aGate()];
  const projection = counting(() => {
    inApply.open();
    return gate.promise;
  });
  await write(A, [{ stream: 'Thing-1', n: 1 }]);
  const first = await run(projection, { leaseMs: 30_000 });
  await inApply.promise;
  const stopped = first.stop();
  gate.open();
  await stopped;
  expect(await counted(projection)).toEqual(await truth());
  const second = await run(projection, { leaseMs: 30_000 });
  expect(second.shards).toHaveLength(1);
});

it('refuses another number of shards, and names that cannot be told apart', async () => {
  const projection = counting(undefined, 2);
  await (await run(projection)).stop();
  const wider = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [{ ...projection, shards: 3 }],
  });
  await expect(wider.start()).rejects.toMatchObject({ code: 'PROJECTION_SHARDS_CHANGED' });
  const runner = (...projections: Projection[]) =>
    new ProjectionRunner({ database: database.system, databaseUrl: database.url, projections });
  expect(() => runner(projection, { ...projection })).toThrow(TypeError);
  expect(() => runner({ ...projection, name: 'a/b' })).toThrow(TypeError);
  expect(() => runner({ ...projection, version: 0 })).toThrow(TypeError);
  expect(() => runner({ ...projection, shards: 0 })).toThrow(TypeError);
});
