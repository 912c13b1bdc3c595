import { CodedError } from '@atomo-cc/kernel';
import type { Lease, SystemDatabase, Tx } from '@atomo-cc/platform/postgres';

/**
 * `paused` by a person, `stopped` by a fault that only a person can mend; both end with `resumeProjection`. It is said by row,
 * so that it holds for every instance and outlives them.
 */
export type ShardState = 'running' | 'paused' | 'stopped';

/** Which checkpoint is meant. */
export interface Shard {
  readonly projection: string;
  readonly build: number;
  readonly shard: number;
}

const OF_SHARD = 'projection = $1 and build = $2 and shard = $3';
/** Over so long the rates of a shard are taken: long enough for a mean, short enough to see it change. */
const RATE_WINDOW_MS = 10_000;
/** Characters of an error that are kept: enough to know it again, and a message may quote a whole statement. */
const MAX_ERROR_CHARS = 2_000;

/** Makes the checkpoints of a build, at the beginning of the log. */
export async function insertCheckpoints(
  tx: Tx,
  { projection, build, shards }: { readonly projection: string; readonly build: number; readonly shards: number },
): Promise<void> {
  await tx.execute(
    `insert into projection_checkpoints (projection, build, shard, shards)
     select $1, $2, n, $3::int from generate_series(0, $3::int - 1) as n`,
    [projection, build, shards],
  );
}

/** Where a shard stands. */
export interface Checkpoint {
  readonly build: number;
  readonly shard: number;
  readonly position: bigint;
  readonly state: ShardState;
}

/**
 * Locks the checkpoints of builds to the end of the transaction: no batch of them is under way, and none begins. In one order
 * for all, so that two who lock many wait for each other instead of deadlocking.
 */
export async function lockCheckpoints(
  tx: Tx,
  projection: string,
  builds: readonly number[] | null,
): Promise<Checkpoint[]> {
  const rows = await tx.query<Omit<Checkpoint, 'position'> & { position: string }>(
    `select build, shard, position, state from projection_checkpoints
     where projection = $1 and ($2::int[] is null or build = any($2)) order by build, shard for update`,
    [projection, builds],
  );
  return rows.map((row) => ({ ...row, position: BigInt(row.position) }));
}

/**
 * Raises the epoch of a lease that is held above that of the checkpoint: the leases may have been emptied, and count from 1
 * again, while the checkpoints were kept. Answers the new epoch, or null when it is above already.
 */
export async function raiseEpoch(tx: Tx, shard: Shard, lease: Lease): Promise<Lease | null> {
  const [row] = await tx.query<{ epoch: string }>(
    `update leases l set epoch = c.epoch + 1 from projection_checkpoints c
     where ${OF_SHARD} and l.name = $4 and l.holder = $5 and l.epoch <= c.epoch returning l.epoch`,
    [shard.projection, shard.build, shard.shard, lease.name, lease.holder],
  );
  return row ? { ...lease, epoch: Number(row.epoch) } : null;
}

/**
 * Makes `epoch` the only one that may move the checkpoint. It waits for a batch that is being applied under an older one.
 * @throws CodedError LEASE_LOST when a later holder was here already
 */
export async function claimShard(tx: Tx, shard: Shard, epoch: number): Promise<void> {
  const claimed = await tx.execute(`update projection_checkpoints set epoch = $4 where ${OF_SHARD} and epoch <= $4`, [
    shard.projection,
    shard.build,
    shard.shard,
    epoch,
  ]);
  if (claimed === 0) throw leaseLost(shard);
}

/**
 * Locks the checkpoint to the end of the transaction: nobody else applies, pauses or takes over this shard meanwhile.
 * @throws CodedError LEASE_LOST
 */
export async function lockShard(tx: Tx, shard: Shard, epoch: number): Promise<{ position: bigint; state: ShardState }> {
  const [row] = await tx.prepared<{ position: string; state: ShardState }>(
    `select position, state from projection_checkpoints where ${OF_SHARD} and epoch = $4 for update`,
    [shard.projection, shard.build, shard.shard, epoch],
  );
  if (!row) throw leaseLost(shard);
  return { position: BigInt(row.position), state: row.state };
}

/**
 * Counts events and errors ($1, $2 of `values`) in the window of the rates, and begins a new one when it is over.
 */
function counted(events: string, errors: string): string {
  const sinceMs = `extract(epoch from clock_timestamp() - window_at) * 1000`;
  const isOver = `${sinceMs} >= ${RATE_WINDOW_MS}`;
  const rate = (kind: string, more: string) => `
    ${kind}_per_s = case when ${isOver} then (window_${kind} + ${more}) * 1000 / (${sinceMs}) else ${kind}_per_s end,
    window_${kind} = case when ${isOver} then 0 else window_${kind} + ${more} end`;
  return `${rate('events', events)}, ${rate('errors', errors)},
    window_at = case when ${isOver} then clock_timestamp() else window_at end`;
}

/**
 * Moves the checkpoint, in the transaction that applied the events.
 * @param epoch null for one who has locked the checkpoint and does not apply under a lease
 * @throws CodedError LEASE_LOST: roll back
 */
export async function moveCheckpoint(
  tx: Tx,
  shard: Shard,
  epoch: number | null,
  move: { readonly from: bigint; readonly to: bigint; readonly events: number },
): Promise<void> {
  const moved = await tx.prepared(
    `update projection_checkpoints
     set position = $6, events_total = events_total + $7, last_error = null, updated_at = clock_timestamp(),
         ${counted('$7::bigint', '0')}
     where ${OF_SHARD} and ($4::bigint is null or epoch = $4) and position = $5 returning 1`,
    [shard.projection, shard.build, shard.shard, epoch, String(move.from), String(move.to), move.events],
  );
  if (moved.length === 0) throw leaseLost(shard);
}

/** Writes down that a batch failed; nothing when the lease is lost. */
export async function noteFailure(tx: Tx, shard: Shard, epoch: number, error: unknown): Promise<void> {
  await tx.execute(
    `update projection_checkpoints set errors_total = errors_total + 1, last_error = $5, updated_at = clock_timestamp(),
       ${counted('0', '1')}
     where ${OF_SHARD} and epoch = $4`,
    [shard.projection, shard.build, shard.shard, epoch, errorText(error)],
  );
}

/** Stops all shards of a build, unless the one that saw the fault has lost its lease. */
export async function stopProjection(tx: Tx, shard: Shard, epoch: number): Promise<void> {
  await tx.execute(
    `update projection_checkpoints set state = 'stopped', updated_at = clock_timestamp()
     where projection = $1 and build = $2 and state = 'running'
       and exists (select 1 from projection_checkpoints where ${OF_SHARD} and epoch = $4)`,
    [shard.projection, shard.build, shard.shard, epoch],
  );
}

/**
 * Pauses a projection on all instances, or one build of it. Once it answers, no batch is under way and none begins.
 * @throws CodedError PROJECTION_NOT_FOUND
 */
export function pauseProjection(
  database: SystemDatabase,
  which: { readonly projection: string; readonly build?: number },
): Promise<void> {
  return setState(database, which, `state = case state when 'running' then 'paused' else state end`);
}

/** Lets a paused or stopped projection, or one build of it, go on where it was. @throws CodedError PROJECTION_NOT_FOUND */
export function resumeProjection(
  database: SystemDatabase,
  which: { readonly projection: string; readonly build?: number },
): Promise<void> {
  return setState(database, which, `state = 'running', last_error = null`);
}

async function setState(
  database: SystemDatabase,
  { projection, build }: { readonly projection: string; readonly build?: number },
  set: string,
): Promise<void> {
  const changed = await database.transaction(async (tx) => {
    await lockCheckpoints(tx, projection, build === undefined ? null : [build]);
    return tx.execute(
      `update projection_checkpoints set ${set}, updated_at = clock_timestamp()
       where projection = $1 and ($2::int is null or build = $2)`,
      [projection, build ?? null],
    );
  });
  if (changed === 0) throw new CodedError('PROJECTION_NOT_FOUND', `No such build of ${projection} has ever run here.`);
}

/** An error's words as a column can keep them: bounded, and without the NUL that Postgres refuses. */
export function errorText(error: unknown): string {
  return columnText(error instanceof Error ? error.message : String(error), MAX_ERROR_CHARS);
}

/** Text as a column can keep it. */
export function columnText(text: string, maxChars: number): string {
  return text.replaceAll('\0', '\uFFFD').slice(0, maxChars);
}

function leaseLost({ projection, build, shard }: Shard): CodedError {
  return new CodedError('LEASE_LOST', `Shard ${shard} of build ${build} of ${projection} has another holder.`);
}

/** SQL of the mean of `events` or `errors` per second of a row of checkpoints `c`: the last window's, and what came since. */
export function rateOf(kind: 'events' | 'errors'): string {
  const ms = `greatest(1, extract(epoch from clock_timestamp() - c.window_at) * 1000)`;
  return `(case when ${ms} >= ${RATE_WINDOW_MS} then c.window_${kind} * 1000 / ${ms}
    else (c.${kind}_per_s * (${RATE_WINDOW_MS} - ${ms}) / 1000 + c.window_${kind}) * 1000 / ${RATE_WINDOW_MS} end)::float8`;
}
