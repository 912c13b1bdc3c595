import { setTimeout as pause } from 'node:timers/promises';
import { CodedError } from '@atomo-cc/kernel';
import { changeTables, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { insertAuditRows } from './audit.js';
import { Fence, FENCE_LOCK } from './fence.js';
import { ensureBuilds } from './projections/build-steps.js';
import { isUnderWay, readBuilds } from './projections/builds.js';
import {
  applyEvents,
  checkProjection,
  MAX_BATCH_EVENTS,
  readBatch,
  type DecodeEvents,
  type Projection,
  type ProjectionTarget,
} from './projections/projection.js';
import { ProjectionRunner } from './projections/runner.js';

/** Positions whose audit rows one statement writes: it takes a second or two. */
const POSITIONS_PER_WRITE = 50_000;
/** How often the async projections are looked at. */
const LOOK_MS = 200;

/** Why a replay does not begin, or does not get to its end. */
export const REPLAY_ERRORS = {
  REPLAY_NOT_EMPTY:
    'There are derived rows already, and a replay would mix with them. Replay with --again, which empties those tables first.',
  REPLAY_STOPPED:
    'An async projection has stopped, or has dead letters: what it derives is not whole. Its status says why; mend it, then resume it.',
} as const;

/** What a replay makes anew. */
export interface ReplayOptions {
  /** The owner's, which alone may empty tables. */
  readonly databaseUrl: string;
  /** With 3 connections or more, and 1 for each shard of the async projections. */
  readonly database: SystemDatabase;
  /**
   * Inline ones are applied here, one after the other; for the async ones a runner is run here until they are at the end of the
   * log. Their tables are there.
   */
  readonly projections: readonly Projection[];
  /** What events pass through before they are applied; as they are stored unless given. */
  readonly decode?: DecodeEvents;
  /** Empties the derived tables first; else rows that are there already are a reason to refuse. */
  readonly isAgain: boolean;
  /** Told after each batch: the events done of those that this step has. */
  readonly onProgress?: (step: string, events: number, expected: number) => void;
}

/** Events that each step went through, by its name. */
export type ReplayTotals = Readonly<Record<string, number>>;

/**
 * Makes everything anew that is derived from the log: the audit rows, what the commands write beside their events, and
 * what async projections write. While the first two are under way appends wait (for at most their statement_timeout, and
 * then fail): an event that came between would be applied twice or not at all. One that fails leaves a part behind, and is
 * to be begun again with `isAgain`.
 * @throws CodedError REPLAY_NOT_EMPTY, REPLAY_STOPPED, PROJECTION_BUILD_UNDER_WAY; else what a projection throws for an event that it cannot apply
 */
export async function replayLog(options: ReplayOptions): Promise<ReplayTotals> {
  const { database, databaseUrl, projections, decode } = options;
  projections.forEach(checkProjection);
  const tables = ['audit_log', ...projections.flatMap((projection) => projection.tables.map(({ name }) => name))];
  if (!options.isAgain) await refuseRows(database, tables);
  const work = { database, databaseUrl, fence: new Fence(), projections, decode, onError: () => undefined };
  await ensureBuilds(work);
  const totals: Record<string, number> = {};
  await database.transaction(async (fence) => {
    // Alone: an append holds it shared from before it draws a position until its commit.
    await fence.execute('select pg_advisory_xact_lock($1)', [FENCE_LOCK]);
    const { end, events } = await database.transaction(measureLog);
    await emptyTables(options, tables, end);
    const step = (name: string) => {
      const show = (done: number) => {
        totals[name] = done;
        options.onProgress?.(name, done, events);
      };
      show(0);
      return show;
    };
    await replayAudit(database, end, step('audit'));
    for (const projection of projections) {
      if (projection.mode === 'inline') await applyAll(database, { projection, decode }, end, step(projection.name));
    }
  });
  await runToEnd(options, totals);
  return totals;
}

async function refuseRows(database: SystemDatabase, tables: readonly string[]): Promise<void> {
  await database.transaction(async (tx) => {
    for (const table of tables) {
      const [found] = await tx.query(`select 1 from ${table} limit 1`);
      if (found) throw new CodedError('REPLAY_NOT_EMPTY', REPLAY_ERRORS.REPLAY_NOT_EMPTY, { table });
    }
  });
}

/**
 * Empties what is derived, snapshots of streams too, and sets the live builds of async projections back to the beginning. What
 * is in the log already has had its effects: the builds' gate is the end of it.
 */
async function emptyTables(
  { databaseUrl, database, projections }: ReplayOptions,
  tables: readonly string[],
  end: bigint,
): Promise<void> {
  const names = projections.map(({ name }) => name);
  const builds = await database.transaction((tx) => readBuilds(tx, names));
  const other = builds.find(isUnderWay);
  if (other) {
    throw new CodedError(
      'PROJECTION_BUILD_UNDER_WAY',
      `Build ${other.build} of ${other.projection} is ${other.state}. Wait for it or cancel it, then replay.`,
    );
  }
  await changeTables(databaseUrl, (tx) =>
    tx.execute(`truncate ${[...new Set([...tables, 'stream_snapshots'])].join(', ')}`).then(() => undefined),
  );
  await database.transaction(async (tx) => {
    await tx.execute(
      `delete from projection_dead_letters d using projection_builds b
       where b.projection = any($1) and b.state = 'live' and d.projection = b.projection and d.build = b.build`,
      [names],
    );
    // Not deleted: a runner that is at work takes its position from the row at each batch.
    await tx.execute(
      `update projection_checkpoints c
       set position = 0, events_total = 0, errors_total = 0, last_error = null, state = 'running', updated_at = clock_timestamp()
       from projection_builds b
       where b.projection = any($1) and b.state = 'live' and b.mode = 'async'
         and c.projection = b.projection and c.build = b.build`,
      [names],
    );
    await tx.execute(
      `update projection_builds set gate = array_fill($2::bigint, array[shards])
       where projection = any($1) and state = 'live' and mode = 'async'`,
      [names, String(end)],
    );
  });
}

async function measureLog(tx: Tx): Promise<{ end: bigint; events: number }> {
  const [row] = await tx.query<{ end: string; events: string }>(
    'select coalesce(max(position), 0) as end, count(*) as events from event_log',
  );
  return { end: BigInt(row!.end), events: Number(row!.events) };
}

async function replayAudit(database: SystemDatabase, end: bigint, onProgress: (events: number) => void): Promise<void> {
  let events = 0;
  for (let after = 0n; after < end; after += BigInt(POSITIONS_PER_WRITE)) {
    events += await database.transaction((tx) =>
      tx.execute(insertAuditRows('event_log where position > $1 and position <= $2 order by position'), [
        String(after),
        String(after + BigInt(POSITIONS_PER_WRITE)),
      ]),
    );
    onProgress(events);
  }
}

/** Applies the log to a projection from its beginning, all shards as one, each batch in a transaction. */
async function applyAll(
  database: SystemDatabase,
  code: { readonly projection: Projection; readonly decode: DecodeEvents | undefined },
  end: bigint,
  onProgress: (events: number) => void,
): Promise<void> {
  let events = 0;
  const whole = { ...code.projection, shards: 1 };
  const target: ProjectionTarget = { build: 1, isLive: true, table: (base) => base, mayAct: () => false };
  for (let after = 0n; after < end;) {
    const bounds = { shard: 0, after, upTo: end, maxEvents: MAX_BATCH_EVENTS, tenant: null, gate: null };
    const batch = await database.transaction(async (tx) => {
      const read = await readBatch(tx, whole, bounds);
      await applyEvents(tx, code, read.events, target);
      return read;
    });
    after = batch.upTo;
    events += batch.events.length;
    onProgress(events);
  }
}

async function runToEnd(options: ReplayOptions, totals: Record<string, number>): Promise<void> {
  const { database, databaseUrl, decode, onProgress } = options;
  const projections = options.projections.filter(({ mode }) => mode === 'async');
  if (projections.length === 0) return;
  const { end, events } = await database.transaction(measureLog);
  const runner = new ProjectionRunner({ database, databaseUrl, projections, ...(decode && { decode }) });
  await runner.start();
  try {
    for (;;) {
      const shards = await runner.status();
      for (const { name } of projections) {
        const own = shards.filter(({ projection }) => projection === name);
        const done = own.reduce((sum, { eventsTotal }) => sum + eventsTotal, 0);
        totals[name] = done;
        onProgress?.(name, done, events);
      }
      const faulty = shards.find(({ state, openDeadLetters }) => state !== 'running' || openDeadLetters > 0);
      if (faulty) {
        throw new CodedError(
          'REPLAY_STOPPED',
          `Projection ${faulty.projection}: ${faulty.lastError ?? `${faulty.openDeadLetters} dead letters`}. ${REPLAY_ERRORS.REPLAY_STOPPED}`,
        );
      }
      if (shards.every(({ position }) => position >= end)) return;
      await pause(LOOK_MS);
    }
  } finally {
    await runner.stop();
  }
}
