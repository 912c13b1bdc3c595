import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { sqlState, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from '../append.js';
import { columnText, errorText, type Shard } from './checkpoints.js';
import type { EventCodec } from '../codec.js';
import { decodeFor, type Projection, type ProjectionIdentity } from './projection.js';

/** Dead letters of one batch: beyond, it is the projection that is broken, and going on would turn the whole log into them. */
export const MAX_DEAD_LETTERS_PER_BATCH = 10;
/** Characters of a stack that are kept: some thirty frames. */
const MAX_STACK_CHARS = 8_000;
/** Characters of the reason for which an event is skipped. */
const MAX_REASON_CHARS = 1_000;
/** Letters answered at once. */
const MAX_LISTED = 1_000;

/** An event that a projection could not apply, and passed over. */
export interface DeadLetter extends Shard {
  readonly position: bigint;
  readonly tenant: TenantId;
  readonly stream: string;
  readonly streamVersion: number;
  readonly type: string;
  readonly error: string;
  readonly stack: string;
  readonly attempts: number;
  readonly state: 'open' | 'retried' | 'skipped';
  /** Why it was skipped. */
  readonly reason: string | null;
  readonly failedAt: Date;
  readonly resolvedAt: Date | null;
}

/**
 * Applies a batch that failed as a whole, in halves of halves, until each event at fault stands alone and becomes a dead
 * letter; all others take effect. Answers how many letters that made.
 *
 * The rest goes on, also later events of the same stream: a stream that was held back would need a memory of its own for
 * as long as nobody looks, and most projections want the newest state, which comes with the next event.
 * @throws what is no event's fault (a deadlock, a lost connection, an unknown event); CodedError PROJECTION_BROKEN for too
 * many letters, and for a statement that Postgres finds wrong (a missing table or right), which no event can be
 */
export async function applyInParts(
  tx: Tx,
  projection: Projection,
  batch: readonly RecordedEvent[],
  place: { readonly shard: Shard; readonly attempts: number },
): Promise<number> {
  const letters: { event: RecordedEvent; error: unknown }[] = [];
  const apply = async (events: readonly RecordedEvent[]): Promise<void> => {
    const error = await attempt(tx, projection, events);
    if (error === undefined) return;
    if (events.length === 1) {
      letters.push({ event: events[0]!, error });
      if (letters.length > MAX_DEAD_LETTERS_PER_BATCH) {
        throw new CodedError(
          'PROJECTION_BROKEN',
          `More than ${MAX_DEAD_LETTERS_PER_BATCH} events of one batch fail, the first at position ${letters[0]!.event.position}: ${errorText(letters[0]!.error)}`,
          undefined,
          { cause: error },
        );
      }
      return;
    }
    const half = Math.ceil(events.length / 2);
    await apply(events.slice(0, half));
    await apply(events.slice(half));
  };
  await apply(batch);
  for (const { event, error } of letters) await keepLetter(tx, place.shard, event, error, place.attempts);
  return letters.length;
}

/** Applies events under a savepoint; answers the error when they are at fault, and then nothing of them took effect. */
async function attempt(tx: Tx, projection: Projection, events: readonly RecordedEvent[]): Promise<unknown> {
  await tx.query('savepoint part');
  try {
    await projection.apply(events, tx);
  } catch (error) {
    if (sqlState(error ?? {})?.startsWith('42')) {
      const { name, version } = projection;
      const said = `A statement of projection ${name} version ${version} is wrong: ${errorText(error)}`;
      throw new CodedError('PROJECTION_BROKEN', said, undefined, { cause: error });
    }
    if (!isEventsFault(error)) throw error;
    // Fails, and so ends everything, when the connection is what broke.
    await tx.query('rollback to savepoint part');
    return error ?? new Error('thrown without an error');
  }
  await tx.query('release savepoint part');
  return undefined;
}

/** SQLSTATE classes of what passes, or belongs to the server: connection, rolled back, resources, locks, operator, system. */
const NO_EVENTS_FAULT = /^(08|25P0[234]|40|53|55P03|57P|58)/;

function isEventsFault(error: unknown): boolean {
  if (isCodedError(error) && error.code === 'PROJECTION_EVENT_UNKNOWN') return false;
  const state = sqlState(error ?? {});
  return state === null || !NO_EVENTS_FAULT.test(state);
}

async function keepLetter(tx: Tx, shard: Shard, event: RecordedEvent, error: unknown, attempts: number): Promise<void> {
  await tx.execute(
    `insert into projection_dead_letters as d
       (projection, version, position, shard, tenant_id, stream, stream_version, type, error, stack, attempts)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     on conflict (projection, version, position) do update
       set error = excluded.error, stack = excluded.stack, attempts = d.attempts + excluded.attempts, state = 'open',
           reason = null, resolved_at = null, failed_at = clock_timestamp()`,
    [
      shard.name,
      shard.version,
      String(event.position),
      shard.shard,
      event.tenant,
      event.stream,
      event.streamVersion,
      event.type,
      errorText(error),
      stackText(error),
      attempts,
    ],
  );
}

function stackText(error: unknown): string {
  return columnText((error as Error | null)?.stack ?? '', MAX_STACK_CHARS);
}

/** The open dead letters of a projection in the order of the log, 1,000 at most. */
export function openDeadLetters(
  database: SystemDatabase,
  { name, version }: ProjectionIdentity,
): Promise<DeadLetter[]> {
  return database.transaction(async (tx) => {
    const rows = await tx.query<Omit<DeadLetter, 'position'> & { position: string }>(
      `select projection as name, version, shard, position, tenant_id as tenant, stream, stream_version as "streamVersion", type,
              error, stack, attempts, state, reason, failed_at as "failedAt", resolved_at as "resolvedAt"
       from projection_dead_letters where projection = $1 and version = $2 and state = 'open'
       order by position limit $3`,
      [name, version, MAX_LISTED],
    );
    return rows.map((row) => ({ ...row, position: BigInt(row.position) }));
  });
}

/**
 * Applies the event of a dead letter now, between two batches of its shard and after later events of its stream. True: it took
 * effect and the letter is closed. False: it failed again, and the letter has the new error.
 * @param codec that of the runner
 * @throws CodedError DEAD_LETTER_NOT_OPEN, PROJECTION_EVENT_UNKNOWN, PROJECTION_BROKEN; what is no event's fault: try again
 */
export function retryDeadLetter(
  database: SystemDatabase,
  projection: Projection,
  position: bigint,
  codec: EventCodec | null = null,
): Promise<boolean> {
  return database.transaction(async (tx) => {
    const stored = await lockLetter(tx, projection, position);
    const events = await decodeFor(projection, [stored], tx, codec);
    const error = await attempt(tx, projection, events);
    const key = [projection.name, projection.version, String(position)];
    if (error === undefined) {
      await tx.execute(
        `update projection_dead_letters set state = 'retried', attempts = attempts + 1, resolved_at = clock_timestamp()
         where projection = $1 and version = $2 and position = $3`,
        key,
      );
      return true;
    }
    await tx.execute(
      `update projection_dead_letters set attempts = attempts + 1, error = $4, stack = $5, failed_at = clock_timestamp()
       where projection = $1 and version = $2 and position = $3`,
      [...key, errorText(error), stackText(error)],
    );
    return false;
  });
}

/**
 * Closes a dead letter without its event taking effect.
 * @param reason why that is right, for those who ask later; 1 to 1,000 characters
 * @throws CodedError DEAD_LETTER_NOT_OPEN; RangeError for a reason that says nothing, or too much
 */
export async function skipDeadLetter(
  database: SystemDatabase,
  projection: ProjectionIdentity,
  position: bigint,
  reason: string,
): Promise<void> {
  const said = reason.trim();
  if (said.length === 0 || said.length > MAX_REASON_CHARS) {
    throw new RangeError(`a reason has 1 to ${MAX_REASON_CHARS} characters`);
  }
  const closed = await database.transaction((tx) =>
    tx.execute(
      `update projection_dead_letters set state = 'skipped', reason = $4, resolved_at = clock_timestamp()
       where projection = $1 and version = $2 and position = $3 and state = 'open'`,
      [projection.name, projection.version, String(position), columnText(said, MAX_REASON_CHARS)],
    ),
  );
  if (closed === 0) throw notOpen(projection, position);
}

/** The event of an open letter; its shard's checkpoint and the letter are locked to the end of the transaction, in that order. */
async function lockLetter(tx: Tx, projection: Projection, position: bigint): Promise<RecordedEvent> {
  const key = [projection.name, projection.version, String(position)];
  await tx.query(
    `select 1 from projection_checkpoints c where projection = $1 and version = $2 and shard =
       (select shard from projection_dead_letters where projection = $1 and version = $2 and position = $3)
     for update`,
    key,
  );
  const [letter] = await tx.query(
    `select 1 from projection_dead_letters
     where projection = $1 and version = $2 and position = $3 and state = 'open' for update`,
    key,
  );
  if (!letter) throw notOpen(projection, position);
  const [row] = await tx.query<Row & { tenant_id: TenantId }>(
    `select tenant_id, position, stream, stream_version, type, schema_version, data, metadata, recorded_at
     from event_log where position = $1`,
    [String(position)],
  );
  return toEvent(row!.tenant_id, row!);
}

function notOpen({ name, version }: ProjectionIdentity, position: bigint): CodedError {
  return new CodedError(
    'DEAD_LETTER_NOT_OPEN',
    `Projection ${name} version ${version} has no open dead letter at position ${position}.`,
  );
}
