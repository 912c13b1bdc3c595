import { changeTables, SYSTEM_ROLE, type Tx } from '@atomo-cc/platform/postgres';
import type { Fence } from '../fence.js';
import { lockBuilds, moveBuild, refuseLetters, targetOf, type Build } from './builds.js';
import { lockCheckpoints, moveCheckpoint, type Checkpoint } from './checkpoints.js';
import { applyEvents, MAX_BATCH_EVENTS, readBatch, sideTable, type ProjectionCode } from './projection.js';

/** While batches and retries that are under way end, and the build is brought up to date. No reader waits meanwhile. */
export const BEFORE_READERS_WAIT: Limits = { lockMs: 30_000, statementMs: 60_000 };
/**
 * From the request for the live tables on, behind which readers wait. A lock is waited for less than the second after which
 * Postgres looks for deadlocks: when a reader and a switch wait for each other, it is the switch that gives way.
 */
const WHILE_READERS_WAIT: Limits = { lockMs: 250, statementMs: 5_000 };
/** A process that falls silent so long in the middle loses its transaction. */
const SILENCE_MS = 5_000;

/** What a switch needs of its runner. */
export interface SwitchWork {
  readonly databaseUrl: string;
  readonly fence: Fence;
  readonly code: ProjectionCode;
}

/**
 * Puts a build that is ready in the live one's place, in one transaction; false when it is not ready any more.
 *
 * **Readers** name the base tables, before and after. Proof that they never meet a missing or empty table, or an older
 * state, at READ COMMITTED:
 *
 *   1. Tables are renamed under ACCESS EXCLUSIVE, taken for all live tables before the first is renamed. A statement either
 *      has its lock on a live table first, and then ends before the switch goes on; or it waits for the switch. A transaction
 *      keeps the locks of its statements, so it does not see one table of before and one of after.
 *   2. A statement that has waited finds the table by name anew: Postgres looks the name up again when it has the lock and
 *      something was changed meanwhile (RangeVarGetRelidExtended), and a prepared plan, whose tables were renamed, is made
 *      anew from the statement (RevalidateCachedQuery). Its snapshot is taken after that, so it sees what the switch wrote.
 *   3. So what is left is that the build holds everything that was live: see below. A transaction at REPEATABLE READ has an
 *      older snapshot, by which the tables that it finds may be older too; nobody here reads so.
 *
 * **An async projection.** The checkpoints of both builds are locked, so no batch and no retry is under way on either. Under
 * them the build is brought to where the live one's shards stand: it has applied each event that the live one has. What it
 * applies here that the live one has not (with another number of shards the checkpoints do not fit each other) acts here,
 * and is gated by the live one's checkpoints; before, it never went beyond them (ShardWorker.bound). So each event acts once.
 *
 * **An inline projection.** Its live rows are written by commands, each in the transaction that appends the event. Under the
 * exclusive lock, each such transaction
 *   - has ended, if it had written a row: locks are kept to the end, and a commit is visible before its locks are given back.
 *     Its events are in the log that the next statement reads, wherever the settled mark is, and are applied here;
 *   - or has not written its rows yet, although it may have appended: they are written after the switch, into the new table,
 *     by (2). They are the newest of their stream, whose row it holds locked. What the build applies of a log in which a
 *     position is not there yet is guarded by the rows' versions, so no order between streams matters;
 *   - or has been rolled back, and is in no log.
 * So row by row the new table has what the old one had, or what follows. The build that retires is no longer written; its
 * checkpoint is set to the settled mark, below which nothing is missing from it, and going back feeds it from there. ∎
 */
export async function switchBuilds(work: SwitchWork, name: string, number: number): Promise<boolean> {
  let isDone = false;
  await changeTables(work.databaseUrl, async (tx) => {
    await setLimits(tx, BEFORE_READERS_WAIT);
    isDone = await asSystem(tx, async () => {
      const [builds, checkpoints] = [await lockBuilds(tx, name), await lockCheckpoints(tx, name, null)];
      const build = builds.find((each) => each.build === number);
      const live = builds.find(({ state }) => state === 'live');
      if (!live || !build || build.state !== 'ready' || build.holdSwitch || build.tenant) return false;
      if (!build.allowDeadLetters) await refuseLetters(tx, build);
      const of = (of: Build) => checkpoints.filter((each) => each.build === of.build);
      if (of(build).some(({ state }) => state !== 'running')) return false;
      await replace(tx, work, { build, live, retired: builds.filter(({ state }) => state === 'retired') }, of);
      return true;
    });
  });
  return isDone;
}

interface Switched {
  readonly build: Build;
  readonly live: Build;
  readonly retired: readonly Build[];
}

async function replace(
  tx: Tx,
  work: SwitchWork,
  { build, live, retired }: Switched,
  checkpointsOf: (build: Build) => readonly Checkpoint[],
): Promise<void> {
  const isInline = build.mode === 'inline';
  const gate = isInline ? null : checkpointsOf(live).map(({ position }) => position);
  const settled = isInline ? await work.fence.advance(tx) : 0n;
  const reached: Checkpoint[] = [];
  for (const checkpoint of checkpointsOf(build)) {
    const upTo = isInline ? settled : gate!.length === build.shards ? gate![checkpoint.shard]! : greatest(gate!);
    reached.push({ ...checkpoint, position: await feed(tx, work.code, { build, checkpoint, upTo, gate }) });
  }
  await asOwner(tx, async () => {
    for (const table of work.code.projection.tables) await table.complete?.(tx, sideTable(table.name, build.build));
    await setLimits(tx, WHILE_READERS_WAIT);
    if (live.tables.length > 0) await tx.query(`lock table ${live.tables.join(', ')} in access exclusive mode`);
  });
  if (isInline) {
    const drawn = await lastDrawn(tx);
    for (const checkpoint of reached) await feed(tx, work.code, { build, checkpoint, upTo: drawn, isBeyondMark: true });
    await tx.execute(
      `update projection_checkpoints set position = greatest(position, $3) where projection = $1 and build = $2`,
      [live.projection, live.build, String(settled)],
    );
  }
  await asOwner(tx, async () => {
    for (const table of live.tables) await tx.query(`alter table ${table} rename to ${sideTable(table, live.build)}`);
    for (const table of build.tables) await tx.query(`alter table ${sideTable(table, build.build)} rename to ${table}`);
  });
  for (const each of retired) await moveBuild(tx, each, 'drop');
  await moveBuild(tx, live, 'retire');
  await moveBuild(tx, build, 'switch', { gate: gate?.map(String) ?? null });
}

/** What `feed` is to do. */
export interface Feed {
  readonly build: Build;
  /** Locked. */
  readonly checkpoint: Checkpoint;
  readonly upTo: bigint;
  /** That of the build that is replaced: what is behind it acts. Nothing acts unless given. */
  readonly gate?: readonly bigint[] | null;
  /** Leaves the checkpoint where it is: below `upTo` something may still appear. */
  readonly isBeyondMark?: boolean;
}

/** Brings one shard of a build up to a position in the caller's transaction; answers where it stands then. */
export async function feed(tx: Tx, code: ProjectionCode, work: Feed): Promise<bigint> {
  const { build, checkpoint, upTo, gate = null } = work;
  const shard = { projection: build.projection, build: build.build, shard: checkpoint.shard };
  let { position } = checkpoint;
  while (position < upTo) {
    const { tenant } = build;
    const bounds = { shard: shard.shard, after: position, upTo, maxEvents: MAX_BATCH_EVENTS, tenant, gate };
    const batch = await readBatch(tx, code.projection, bounds);
    await applyEvents(tx, code, batch.events, targetOf(build, batch.gated, { mayAct: gate !== null }));
    if (!work.isBeyondMark) {
      await moveCheckpoint(tx, shard, null, { from: position, to: batch.upTo, events: batch.events.length });
    }
    position = batch.upTo;
  }
  return position;
}

/** The last position drawn: no event that is visible now has a greater one. */
export async function lastDrawn(tx: Tx): Promise<bigint> {
  const [row] = await tx.query<{ position: string }>(
    'select case when is_called then last_value else 0 end as position from event_log_position',
  );
  return BigInt(row!.position);
}

/** After how many milliseconds something ends, and gives back what it locked: a wait for a lock, a statement, a silence. */
export interface Limits {
  readonly lockMs: number;
  readonly statementMs: number;
}

/** Sets the limits of the rest of the transaction. */
export async function setLimits(tx: Tx, { lockMs, statementMs }: Limits): Promise<void> {
  await tx.query(
    `select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true),
       set_config('idle_in_transaction_session_timeout', $3, true)`,
    [String(lockMs), String(statementMs), String(SILENCE_MS)],
  );
}

/**
 * Runs a part of an owner's transaction with the rights of the system role: row-level security holds for the owner too, and
 * projections are applied under the same rights as ever.
 */
export async function asSystem<Result>(tx: Tx, work: () => Promise<Result>): Promise<Result> {
  await tx.query(`set local role ${SYSTEM_ROLE}`);
  const result = await work();
  await tx.query('set local role none');
  return result;
}

async function asOwner(tx: Tx, work: () => Promise<void>): Promise<void> {
  await tx.query('set local role none');
  await work();
  await tx.query(`set local role ${SYSTEM_ROLE}`);
}

const greatest = (positions: readonly bigint[]) => positions.reduce((a, b) => (a > b ? a : b), 0n);
