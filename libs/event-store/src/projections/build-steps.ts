import { CodedError, isCodedError, sleep } from '@atomo-cc/kernel';
import { changeTables, sqlState, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import type { Fence } from '../fence.js';
import {
  callOff,
  insertRequest,
  isUnderWay,
  lockBuilds,
  moveBuild,
  noteBuildError,
  OVER,
  physicalTable,
  readBuilds,
} from './builds.js';
import type { Build } from './builds.js';
import { errorText, insertCheckpoints, lockCheckpoints } from './checkpoints.js';
import { isPassing } from './dead-letters.js';
import { MAX_BATCH_EVENTS, sideTable, type DecodeEvents, type Projection } from './projection.js';
import { asSystem, BEFORE_READERS_WAIT, setLimits, switchBuilds, type Limits } from './switch.js';
import { checkTenantTables, takeOver } from './tenant-build.js';

/** A build that is no further behind is ready: the switch itself brings it up to date, and this is one batch of it. */
const READY_POSITIONS = MAX_BATCH_EVENTS;
/** While tables are made or dropped: nobody uses them but who looks into a retired one. */
const WHILE_TABLES_CHANGE: Limits = { lockMs: 2_000, statementMs: 60_000 };
/**
 * While tables that are read get what they lack. Readers wait behind the request for a lock; a new column's index, over rows
 * that have nothing in it, takes as long as the table is large.
 */
const WHILE_TABLES_GROW: Limits = { lockMs: 250, statementMs: 600_000 };
/** Half a minute or so in all: who reads a table for longer keeps the process from starting, which says so and tries again. */
const GROW_ATTEMPTS = 40;
/** Between attempts, so that readers get their turn. */
const GROW_PAUSE_MS = 500;
/** Who asks for a build when a process has newer code than the live one's. */
const BY_ITSELF = 'system';

/** What the steps of a build need of its runner. */
export interface BuildWork {
  readonly database: SystemDatabase;
  readonly databaseUrl: string;
  readonly fence: Fence;
  /** By name, then version. */
  readonly projections: readonly Projection[];
  readonly decode: DecodeEvents | undefined;
  readonly onError: (error: unknown) => void;
}

/**
 * Makes build 1 of each projection that has none, live from the start: its tables, and its checkpoints at the beginning of
 * the log. Tables of an inline projection may be there already, written by commands. Builds that are there get the tables
 * and columns that the code of their version has by now (see ProjectionTable.create), whatever state they are in.
 */
export async function ensureBuilds(work: BuildWork): Promise<void> {
  const { database, projections } = work;
  const names = projections.map(({ name }) => name);
  const known = await database.transaction((tx) => readBuilds(tx, names));
  const missing = newest(projections).filter(({ name }) => !known.some(({ projection }) => projection === name));
  if (missing.length > 0) await makeFirstBuilds(work, missing);
  const grown = projections.filter((projection) => known.some((build) => isKept(build, projection)));
  if (grown.length > 0) await growBuilds(work, grown);
}

/** Whether the build has tables that code of this version fills, or may fill again. */
const isKept = (build: Build, { name, version }: Projection) =>
  build.projection === name && build.version === version && build.hasTables && !OVER.includes(build.state);

/**
 * The rows of the builds and their checkpoints are locked before a table is: no build changes its tables' names meanwhile,
 * and a batch, which has its checkpoint before it has a table, ends before it or comes after it instead of deadlocking.
 */
async function growBuilds({ databaseUrl }: BuildWork, projections: readonly Projection[]): Promise<void> {
  const inTurn = async (tx: Tx) => {
    for (const projection of projections) {
      const { name, tables } = projection;
      await setLimits(tx, BEFORE_READERS_WAIT);
      const builds = await asSystem(tx, async () => {
        const own = (await lockBuilds(tx, name)).filter((build) => isKept(build, projection));
        const numbers = own.map(({ build }) => build);
        await lockCheckpoints(tx, name, numbers);
        return own;
      });
      await setLimits(tx, WHILE_TABLES_GROW);
      for (const build of builds) {
        for (const table of tables) await table.create(tx, physicalTable(build, table.name));
        const lacking = tables.map((table) => table.name).filter((table) => !build.tables.includes(table));
        if (lacking.length === 0) continue;
        await asSystem(tx, () =>
          tx.execute(
            'update projection_builds set tables = tables || $3::text[] where projection = $1 and build = $2',
            [name, build.build, lacking],
          ),
        );
      }
    }
  };
  for (let attempts = 1; ; attempts += 1) {
    try {
      return await changeTables(databaseUrl, inTurn);
    } catch (error) {
      if (!isPassing(error) || attempts === GROW_ATTEMPTS) throw error;
      await sleep(GROW_PAUSE_MS);
    }
  }
}

async function makeFirstBuilds({ databaseUrl }: BuildWork, projections: readonly Projection[]): Promise<void> {
  await changeTables(databaseUrl, async (tx) => {
    await setLimits(tx, WHILE_TABLES_CHANGE);
    for (const projection of projections) {
      const { name, version, mode, shards = 1, tables } = projection;
      const isFirst = await asSystem(tx, async () => {
        const made = await tx.execute(
          `insert into projection_builds (projection, build, version, mode, shards, tables, has_tables, state, requested_by,
             reason, started_at, live_at)
           values ($1, 1, $2, $3, $4, $5, true, 'live', $6, 'the first build', clock_timestamp(), clock_timestamp())
           on conflict do nothing`,
          [name, version, mode, shards, tables.map((table) => table.name), BY_ITSELF],
        );
        if (made > 0) await insertCheckpoints(tx, { projection: name, build: 1, shards });
        return made > 0;
      });
      if (!isFirst) continue;
      for (const table of tables) await table.create(tx, table.name);
    }
  });
}

/** One projection in its newest version each. */
export function newest(projections: readonly Projection[]): Projection[] {
  const byName = new Map<string, Projection>();
  for (const projection of projections) {
    const other = byName.get(projection.name);
    if (!other || other.version < projection.version) byName.set(projection.name, projection);
  }
  return [...byName.values()];
}

/**
 * Does what is to be done for the builds of these projections now, one step for each: ask for one when the code is newer,
 * begin it, see that it has caught up, put it in the live one's place, drop what is over. Each step is one transaction
 * under the lock of the builds' rows and looks again at what it found, so it does not matter how many runners take the same,
 * or where one dies. True when something was done, and the next step may be due.
 */
export async function tendBuilds(work: BuildWork): Promise<boolean> {
  const names = work.projections.map(({ name }) => name);
  const all = await work.database.transaction((tx) => readBuilds(tx, names));
  let isAny = false;
  for (const projection of newest(work.projections)) {
    const builds = all.filter((build) => build.projection === projection.name);
    for (const build of builds) isAny = (await attempt(work, build, () => tendBuild(work, build))) || isAny;
    isAny = (await attempt(work, null, () => askForUpgrade(work, projection, builds))) || isAny;
  }
  return isAny;
}

/** Runs a step; what it throws is kept at the build, where people look, and told when it is something else than before. */
async function attempt(work: BuildWork, build: Build | null, step: () => Promise<boolean>): Promise<boolean> {
  try {
    return await step();
  } catch (error) {
    if (build?.error !== errorText(error)) work.onError(error);
    if (build && build.error !== errorText(error)) {
      await work.database.transaction((tx) => noteBuildError(tx, build, errorText(error))).catch(() => undefined);
    }
    return false;
  }
}

async function tendBuild(work: BuildWork, build: Build): Promise<boolean> {
  const { projection: name, build: number, state } = build;
  if (build.hasTables && OVER.includes(state)) return dropBuild(work, build);
  const projection = work.projections.find((each) => each.name === name && each.version === build.version);
  if (!projection) return false;
  const code = { projection, decode: work.decode };
  if (state === 'requested') return begin(work, projection, build);
  if (state === 'building') return seeWhetherReady(work, projection, build);
  if (state !== 'ready' || build.holdSwitch) return false;
  if (build.tenant) return takeOver({ ...work, code }, name, number);
  return switchBuilds({ ...work, code }, name, number);
}

/** Makes tables and checkpoints of a build that was asked for. What is wrong with its tables ends it. */
async function begin(work: BuildWork, projection: Projection, { build: number }: Build): Promise<boolean> {
  const { name, tables, shards = 1 } = projection;
  let isDone = false;
  const inTurn = async (tx: Tx) => {
    await setLimits(tx, WHILE_TABLES_CHANGE);
    const build = await asSystem(tx, async () => (await lockBuilds(tx, name)).find((each) => each.build === number));
    if (build?.state !== 'requested') return;
    for (const table of tables) {
      const side = sideTable(table.name, number);
      await refuseTable(tx, side);
      await table.create(tx, side);
    }
    await asSystem(tx, async () => {
      if (build.tenant) await checkTenantTables(tx, tables, build);
      await insertCheckpoints(tx, { projection: name, build: number, shards });
      const [last] = await tx.query<{ position: string }>(
        'select case when is_called then last_value else 0 end as position from event_log_position',
      );
      await moveBuild(tx, build, 'begin', {
        shards,
        tables: tables.map((table) => table.name),
        has_tables: true,
        to_position: last!.position,
      });
    });
    isDone = true;
  };
  try {
    await changeTables(work.databaseUrl, inTurn);
  } catch (error) {
    if (!isPassing(error) && (sqlState(error ?? {}) || isCodedError(error))) {
      const unreachable = isCodedError(error) && error.code.startsWith('DATABASE_');
      if (!unreachable) await fail(work, name, number, error);
    }
    throw error;
  }
  return isDone;
}

/** @throws CodedError PROJECTION_TABLE_TAKEN: nobody knows what is in it, and the build would be laid over it */
async function refuseTable(tx: Tx, table: string): Promise<void> {
  const [there] = await tx.query<{ is: boolean }>('select to_regclass($1) is not null as is', [table]);
  if (there!.is) throw new CodedError('PROJECTION_TABLE_TAKEN', `A table ${table} is there already.`, { table });
}

async function fail({ database }: BuildWork, name: string, number: number, error: unknown): Promise<void> {
  await database.transaction(async (tx) => {
    const build = (await lockBuilds(tx, name)).find((each) => each.build === number);
    if (build?.state === 'requested') await moveBuild(tx, build, 'fail', { error: errorText(error) });
  });
}

async function seeWhetherReady({ database }: BuildWork, projection: Projection, build: Build): Promise<boolean> {
  const { name, mode } = projection;
  if (build.eventsToDo === null && build.eventsBefore === 0) await countToDo(database, projection, build);
  return database.transaction(async (tx) => {
    const [behind] = await tx.query<{ positions: string; states: string[] }>(
      `select array_agg(distinct g.state) as states, max(
         case when $3 = 'inline' then (select case when is_called then last_value else 0 end from event_log_position)
         else (select min(l.position) from projection_checkpoints l join projection_builds b using (projection, build)
               where l.projection = g.projection and b.state = 'live' and (l.shards <> g.shards or l.shard = g.shard))
         end - g.position) as positions
       from projection_checkpoints g where g.projection = $1 and g.build = $2`,
      [name, build.build, mode],
    );
    if (behind!.states.join() !== 'running' || Number(behind!.positions) > READY_POSITIONS) return false;
    const now = (await lockBuilds(tx, name)).find((each) => each.build === build.build);
    if (now?.state !== 'building') return false;
    await moveBuild(tx, now, 'catchUp');
    return true;
  });
}

/** Counts, once, how many events a build has before it. In a long log that takes its time, and says no more than how far it is. */
async function countToDo(database: SystemDatabase, { eventTypes }: Projection, build: Build): Promise<void> {
  await database.transaction((tx) =>
    tx.execute(
      `update projection_builds set events_to_do =
         (select count(*) from event_log where position <= $3 and ($4::text[] is null or type = any($4))
            and ($5::uuid is null or tenant_id = $5))
       where projection = $1 and build = $2`,
      [
        build.projection,
        build.build,
        String(build.to),
        eventTypes === 'all' ? null : Object.keys(eventTypes),
        build.tenant,
      ],
    ),
  );
}

/** Drops the tables, checkpoints, letters and leases of a build that is over. Whoever dies here leaves it to the next. */
async function dropBuild({ databaseUrl }: BuildWork, { projection, build: number }: Build): Promise<boolean> {
  await changeTables(databaseUrl, async (tx) => {
    await setLimits(tx, WHILE_TABLES_CHANGE);
    const build = await asSystem(tx, async () => (await lockBuilds(tx, projection)).find((b) => b.build === number));
    if (!build?.hasTables || !OVER.includes(build.state)) return;
    for (const table of build.tables) await tx.query(`drop table if exists ${sideTable(table, number)}`);
    await asSystem(tx, async () => {
      const key = [projection, number];
      await tx.execute('delete from projection_checkpoints where projection = $1 and build = $2', key);
      await tx.execute('delete from projection_dead_letters where projection = $1 and build = $2', key);
      await tx.execute('delete from leases where starts_with(name, $1)', [`projection/${projection}/${number}/`]);
      await tx.execute('update projection_builds set has_tables = false where projection = $1 and build = $2', key);
    });
  });
  return true;
}

/**
 * Asks for a build by newer code than the live one's. Once only for a version: after going back to an older build, or
 * cancelling, nobody wants it again by itself. A build of code that is older still gives way, unless it is one to which the
 * projection goes back.
 */
async function askForUpgrade(work: BuildWork, projection: Projection, seen: readonly Build[]): Promise<boolean> {
  const { name, version, shards = 1 } = projection;
  const isDue = (builds: readonly Build[]) =>
    builds.some((build) => build.state === 'live' && build.version < version) &&
    builds.every((build) => build.version < version) &&
    !builds.some((build) => isUnderWay(build) && (build.liveAt || build.tenant));
  if (!isDue(seen)) return false;
  return work.database.transaction(async (tx) => {
    const builds = await lockBuilds(tx, name);
    if (!isDue(builds)) return false;
    const older = builds.find(isUnderWay);
    if (older) await callOff(tx, older, `version ${version} takes its place`);
    const rest = builds.map((build) => (build === older ? { ...build, state: 'cancelled' as const } : build));
    await insertRequest(tx, rest, {
      projection: name,
      version,
      shards,
      tables: projection.tables.map((table) => table.name),
      by: BY_ITSELF,
      reason: `version ${version} of the code`,
    });
    return true;
  });
}
