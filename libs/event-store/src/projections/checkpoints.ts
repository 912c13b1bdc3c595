import { CodedError } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import type { Projection, ProjectionIdentity } from './projection.js';

/**
 * `paused` by a person, `stopped` by a fault that only a person can mend; both end with `resumeProjection`. It is said by row,
 * so that it holds for every instance and outlives them.
 */
export type ShardState = 'running' | 'paused' | 'stopped';

/** Which checkpoint is meant. */
export interface Shard extends ProjectionIdentity {
  readonly shard: number;
}

const OF_SHARD = 'projection = $1 and version = $2 and shard = $3';
/** Characters of an error that are kept: enough to know it again, and a message may quote a whole statement. */
const MAX_ERROR_CHARS = 2_000;

/**
 * Makes the checkpoints of a projection that has never run.
 * @throws CodedError PROJECTION_SHARDS_CHANGED: its events would be divided anew among checkpoints of the old division
 */
export async function ensureCheckpoints(tx: Tx, { name, version, shards = 1 }: Projection): Promise<void> {
  await tx.execute(
    `insert into projection_checkpoints (projection, version, shard, shards)
     select $1, $2, n, $3::int from generate_series(0, $3::int - 1) as n on conflict do nothing`,
    [name, version, shards],
  );
  const [other] = await tx.query<{ shards: number }>(
    'select shards from projection_checkpoints where projection = $1 and version = $2 and shards <> $3 limit 1',
    [name, version, shards],
  );
  if (other) {
    throw new CodedError(
      'PROJECTION_SHARDS_CHANGED',
      `Projection ${name} version ${version} has run with ${other.shards} shards and now asks for ${shards}: give it a new version.`,
    );
  }
}

/**
 * Makes `epoch` the only one that may move the checkpoint. It waits for a batch that is being applied under an older one.
 * @throws CodedError LEASE_LOST when a later holder was here already
 */
export async function claimShard(tx: Tx, shard: Shard, epoch: number): Promise<void> {
  const claimed = await tx.execute(`update projection_checkpoints set epoch = $4 where ${OF_SHARD} and epoch <= $4`, [
    shard.name,
    shard.version,
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
  const [row] = await tx.query<{ position: string; state: ShardState }>(
    `select position, state from projection_checkpoints where ${OF_SHARD} and epoch = $4 for update`,
    [shard.name, shard.version, shard.shard, epoch],
  );
  if (!row) throw leaseLost(shard);
  return { position: BigInt(row.position), state: row.state };
}

/** Moves the checkpoint, in the transaction that applied the events. @throws CodedError LEASE_LOST: roll back */
export async function moveCheckpoint(
  tx: Tx,
  shard: Shard,
  epoch: number,
  move: { readonly from: bigint; readonly to: bigint; readonly events: number },
): Promise<void> {
  const moved = await tx.execute(
    `update projection_checkpoints
     set position = $6, events_total = events_total + $7, last_error = null, updated_at = clock_timestamp()
     where ${OF_SHARD} and epoch = $4 and position = $5`,
    [shard.name, shard.version, shard.shard, epoch, String(move.from), String(move.to), move.events],
  );
  if (moved === 0) throw leaseLost(shard);
}

/** Writes down that a batch failed; nothing when the lease is lost. */
export async function noteFailure(tx: Tx, shard: Shard, epoch: number, error: unknown): Promise<void> {
  await tx.execute(
    `update projection_checkpoints set errors_total = errors_total + 1, last_error = $5, updated_at = clock_timestamp()
     where ${OF_SHARD} and epoch = $4`,
    [shard.name, shard.version, shard.shard, epoch, errorText(error)],
  );
}

/** Stops all shards of a projection, unless the one that saw the fault has lost its lease. */
export async function stopProjection(tx: Tx, shard: Shard, epoch: number): Promise<void> {
  await tx.execute(
    `update projection_checkpoints set state = 'stopped', updated_at = clock_timestamp()
     where projection = $1 and version = $2 and state = 'running'
       and exists (select 1 from projection_checkpoints where ${OF_SHARD} and epoch = $4)`,
    [shard.name, shard.version, shard.shard, epoch],
  );
}

/**
 * Pauses a projection on all instances. Once it answers, no batch is under way and none begins.
 * @throws CodedError PROJECTION_NOT_FOUND
 */
export function pauseProjection(database: SystemDatabase, projection: ProjectionIdentity): Promise<void> {
  return setState(database, projection, `state = case state when 'running' then 'paused' else state end`);
}

/** Lets a paused or stopped projection go on where it was. @throws CodedError PROJECTION_NOT_FOUND */
export function resumeProjection(database: SystemDatabase, projection: ProjectionIdentity): Promise<void> {
  return setState(database, projection, `state = 'running', last_error = null`);
}

async function setState(database: SystemDatabase, { name, version }: ProjectionIdentity, set: string): Promise<void> {
  const changed = await database.transaction(async (tx) => {
    // In one order for all, so that two who change the state of many shards wait for each other instead of deadlocking.
    await tx.query(
      'select 1 from projection_checkpoints where projection = $1 and version = $2 order by shard for update',
      [name, version],
    );
    return tx.execute(
      `update projection_checkpoints set ${set}, updated_at = clock_timestamp() where projection = $1 and version = $2`,
      [name, version],
    );
  });
  if (changed === 0) {
    throw new CodedError('PROJECTION_NOT_FOUND', `No projection ${name} of version ${version} has ever run here.`);
  }
}

/** How one shard of a projection stands. */
export interface ShardStatus extends Shard {
  readonly state: ShardState;
  readonly position: bigint;
  /** Positions drawn behind the checkpoint: at least the number of events that wait, 0 when all is done. */
  readonly lagEvents: number;
  /** The age of the oldest event behind the checkpoint, in milliseconds by the database's clock; 0 when there is none. */
  readonly lagMs: number;
  readonly eventsTotal: number;
  /** Attempts at a batch that failed. */
  readonly errorsTotal: number;
  readonly openDeadLetters: number;
  /** Of the failure that it has not got over yet. */
  readonly lastError: string | null;
  readonly updatedAt: Date;
}

/** How all shards of some projections stand, by name, version and shard. */
export async function readStatus(tx: Tx, projections: readonly ProjectionIdentity[]): Promise<ShardStatus[]> {
  const rows = await tx.query<
    Omit<ShardStatus, 'position' | 'lagEvents' | 'eventsTotal' | 'errorsTotal'> & {
      position: string;
      last: string;
      eventsTotal: string;
      errorsTotal: string;
    }
  >(
    `select c.projection as name, c.version, c.shard, c.state, c.position, s.last,
            coalesce((select greatest(0, extract(epoch from clock_timestamp() - e.recorded_at) * 1000)::float8
                      from event_log e where e.position > c.position order by e.position limit 1), 0) as "lagMs",
            c.events_total as "eventsTotal", c.errors_total as "errorsTotal",
            (select count(*)::int from projection_dead_letters d
             where d.projection = c.projection and d.version = c.version and d.shard = c.shard and d.state = 'open')
              as "openDeadLetters",
            c.last_error as "lastError", c.updated_at as "updatedAt"
     from projection_checkpoints c
     cross join (select case when is_called then last_value else 0 end as last from event_log_position) s
     join jsonb_to_recordset($1::jsonb) as p (name text, version int) on p.name = c.projection and p.version = c.version
     order by c.projection, c.version, c.shard`,
    [JSON.stringify(projections.map(({ name, version }) => ({ name, version })))],
  );
  return rows.map(({ last, position, eventsTotal, errorsTotal, ...row }) => ({
    ...row,
    position: BigInt(position),
    lagEvents: Math.max(0, Number(BigInt(last) - BigInt(position))),
    eventsTotal: Number(eventsTotal),
    errorsTotal: Number(errorsTotal),
  }));
}

/** An error's words as a column can keep them: bounded, and without the NUL that Postgres refuses. */
export function errorText(error: unknown): string {
  return columnText(error instanceof Error ? error.message : String(error), MAX_ERROR_CHARS);
}

/** Text as a column can keep it. */
export function columnText(text: string, maxChars: number): string {
  return text.replaceAll('\0', '\uFFFD').slice(0, maxChars);
}

function leaseLost({ name, version, shard }: Shard): CodedError {
  return new CodedError('LEASE_LOST', `Shard ${shard} of projection ${name} version ${version} has another holder.`);
}
