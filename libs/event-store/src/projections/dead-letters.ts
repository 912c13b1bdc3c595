import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { sqlState, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from '../append.js';
import { columnText, errorText, type Shard } from './checkpoints.js';
import { findBuild, notFound, readBuild, targetOf, type Build, type BuildOf } from './builds.js';
import {
  applyEvents,
  isGated,
  PROJECTION_ERRORS,
  type DecodeEvents,
  type Projection,
  type ProjectionCode,
  type ProjectionTarget,
} from './projection.js';

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
  code: ProjectionCode,
  batch: readonly RecordedEvent[],
  place: { readonly shard: Shard; readonly attempts: number; readonly target: ProjectionTarget },
): Promise<number> {
  const letters: { event: RecordedEvent; error: unknown }[] = [];
  const apply = async (events: readonly RecordedEvent[]): Promise<void> => {
    const error = await attempt(tx, code, events, place.target);
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
async function attempt(
  tx: Tx,
  code: ProjectionCode,
  events: readonly RecordedEvent[],
  target: ProjectionTarget,
): Promise<unknown> {
  await tx.query('savepoint part');
  try {
    await applyEvents(tx, code, events, target);
  } catch (error) {
    if (sqlState(error ?? {})?.startsWith('42')) {
      const { name, version } = code.projection;
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

/** Whether it passes by itself, and trying again later is all there is to do. */
export function isPassing(error: unknown): boolean {
  return NO_EVENTS_FAULT.test(sqlState(error ?? {}) ?? '');
}

function isEventsFault(error: unknown): boolean {
  return !stopsProjection(error) && !isPassing(error);
}

/** What stops the projection is no letter: an unknown event, sealed data that does not open. */
function stopsProjection(error: unknown): boolean {
  return isCodedError(error) && Object.hasOwn(PROJECTION_ERRORS, error.code);
}

async function keepLetter(tx: Tx, shard: Shard, event: RecordedEvent, error: unknown, attempts: number): Promise<void> {
  await tx.execute(
    `insert into projection_dead_letters as d
       (projection, build, position, shard, tenant_id, stream, stream_version, type, error, stack, attempts)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     on conflict (projection, build, position) do update
       set error = excluded.error, stack = excluded.stack, attempts = d.attempts + excluded.attempts, state = 'open',
           reason = null, resolved_at = null, is_retry_asked = false, failed_at = clock_timestamp()`,
    [
      shard.projection,
      shard.build,
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

/**
 * The open dead letters of a build, the live one unless given, in the order of the log, 1,000 at most.
 * @throws CodedError PROJECTION_NOT_FOUND
 */
export function openDeadLetters(database: SystemDatabase, which: BuildOf): Promise<DeadLetter[]> {
  return database.transaction(async (tx) => {
    const { build } = await findBuild(tx, which);
    const rows = await tx.query<Omit<DeadLetter, 'position'> & { position: string }>(
      `select projection, build, shard, position, tenant_id as tenant, stream, stream_version as "streamVersion", type,
              error, stack, attempts, state, reason, failed_at as "failedAt", resolved_at as "resolvedAt"
       from projection_dead_letters where projection = $1 and build = $2 and state = 'open'
       order by position limit $3`,
      [which.projection, build, MAX_LISTED],
    );
    return rows.map((row) => ({ ...row, position: BigInt(row.position) }));
  });
}

/** Whose letters are retried, and how. */
export interface RetryWork {
  readonly projections: readonly Projection[];
  readonly decode: DecodeEvents | undefined;
  readonly onError: (error: unknown) => void;
}

/** Of which build the letter is, the live one unless given, and how its event is decoded. */
export interface RetryOptions {
  readonly build?: number;
  readonly decode?: DecodeEvents | undefined;
}

/**
 * Applies the event of a dead letter now, between two batches of its shard and after later events of its stream. True: it took
 * effect and the letter is closed. False: it failed again, and the letter has the new error.
 * @throws CodedError DEAD_LETTER_NOT_OPEN, PROJECTION_NOT_FOUND, PROJECTION_VERSION_OTHER, PROJECTION_EVENT_UNKNOWN,
 * PROJECTION_BROKEN; what is no event's fault: try again
 */
export function retryDeadLetter(
  database: SystemDatabase,
  projection: Projection,
  position: bigint,
  options: RetryOptions = {},
): Promise<boolean> {
  return retry(database, projection, position, { ...options, isAsked: false });
}

/** @param options `isAsked`: only while that is asked for (see askForRetry) */
function retry(
  database: SystemDatabase,
  projection: Projection,
  position: bigint,
  options: RetryOptions & { readonly isAsked: boolean },
): Promise<boolean> {
  return database.transaction(async (tx) => {
    const { build: number } = await findBuild(tx, { projection: projection.name, build: options.build });
    const { build, event, gated } = await lockLetter(tx, { projection, number, position, isAsked: options.isAsked });
    const code = { projection, decode: options.decode };
    const error = await attempt(tx, code, [event], targetOf(build, gated));
    const key = [projection.name, number, String(position)];
    if (error === undefined) {
      await tx.execute(
        `update projection_dead_letters set state = 'retried', attempts = attempts + 1, resolved_at = clock_timestamp()
         where projection = $1 and build = $2 and position = $3`,
        key,
      );
      return true;
    }
    await tx.execute(
      `update projection_dead_letters set attempts = attempts + 1, error = $4, stack = $5, failed_at = clock_timestamp(), is_retry_asked = false
       where projection = $1 and build = $2 and position = $3`,
      [...key, errorText(error), stackText(error)],
    );
    return false;
  });
}

/**
 * Asks a runner that has the code to apply the event of a dead letter again (see retryDeadLetter), at its next beat.
 * @throws CodedError DEAD_LETTER_NOT_OPEN, PROJECTION_NOT_FOUND
 */
export async function askForRetry(database: SystemDatabase, which: BuildOf, position: bigint): Promise<void> {
  await database.transaction(async (tx) => {
    const { build } = await findBuild(tx, which);
    const asked = await tx.execute(
      `update projection_dead_letters set is_retry_asked = true
       where projection = $1 and build = $2 and position = $3 and state = 'open'`,
      [which.projection, build, String(position)],
    );
    if (asked === 0) throw notOpen(which.projection, build, position);
  });
}

/**
 * Retries the letters of these projections for which that was asked, once each. What passes by itself leaves a letter asked
 * for; what stops a projection (see PROJECTION_ERRORS) is kept with the letter, which is not asked for any more. Neither keeps
 * others from their turn. Letters of builds whose code is not here are left to a runner that has it.
 * @param onError told what was no event's fault
 */
export async function retryAsked(database: SystemDatabase, { projections, decode, onError }: RetryWork): Promise<void> {
  const codes = projections.map(({ name, version }) => ({ name, version }));
  const asked = await database.transaction((tx) =>
    tx.query<{ projection: string; build: number; version: number; position: string }>(
      `select d.projection, d.build, b.version, d.position
       from projection_dead_letters d join projection_builds b using (projection, build)
       join jsonb_to_recordset($1::jsonb) as c (name text, version int) on c.name = b.projection and c.version = b.version
       where d.is_retry_asked and d.state = 'open' order by d.position limit $2`,
      [JSON.stringify(codes), MAX_LISTED],
    ),
  );
  for (const { projection: name, build, version, position } of asked) {
    const projection = projections.find((each) => each.name === name && each.version === version)!;
    try {
      await retry(database, projection, BigInt(position), { build, decode, isAsked: true });
    } catch (error) {
      // Another runner was faster, or an operator skipped it.
      if (isCodedError(error) && error.code === 'DEAD_LETTER_NOT_OPEN') continue;
      onError(error);
      if (!stopsProjection(error)) continue;
      await database.transaction((tx) =>
        tx.execute(
          `update projection_dead_letters set attempts = attempts + 1, error = $4, stack = $5, failed_at = clock_timestamp(), is_retry_asked = false
           where projection = $1 and build = $2 and position = $3 and state = 'open'`,
          [name, build, position, errorText(error), stackText(error)],
        ),
      );
    }
  }
}

/**
 * Closes a dead letter, of the live build unless given, without its event taking effect.
 * @param reason why that is right, for those who ask later; 1 to 1,000 characters
 * @throws CodedError DEAD_LETTER_NOT_OPEN, PROJECTION_NOT_FOUND; RangeError for a reason that says nothing, or too much
 */
export async function skipDeadLetter(
  database: SystemDatabase,
  which: BuildOf,
  position: bigint,
  reason: string,
): Promise<void> {
  const said = reason.trim();
  if (said.length === 0 || said.length > MAX_REASON_CHARS) {
    throw new RangeError(`a reason has 1 to ${MAX_REASON_CHARS} characters`);
  }
  await database.transaction(async (tx) => {
    const { build } = await findBuild(tx, which);
    const closed = await tx.execute(
      `update projection_dead_letters set state = 'skipped', reason = $4, resolved_at = clock_timestamp()
       where projection = $1 and build = $2 and position = $3 and state = 'open'`,
      [which.projection, build, String(position), columnText(said, MAX_REASON_CHARS)],
    );
    if (closed === 0) throw notOpen(which.projection, build, position);
  });
}

/** The event of an open letter; its shard's checkpoint and the letter are locked to the end of the transaction, in that order. */
async function lockLetter(
  tx: Tx,
  which: { projection: Projection; number: number; position: bigint; isAsked: boolean },
): Promise<{ build: Build; event: RecordedEvent; gated: ReadonlySet<bigint> }> {
  const { projection, number, position } = which;
  const key = [projection.name, number, String(position)];
  await tx.query(
    `select 1 from projection_checkpoints c where projection = $1 and build = $2 and shard =
       (select shard from projection_dead_letters where projection = $1 and build = $2 and position = $3)
     for update`,
    key,
  );
  // Under the lock: a switch may just have given the build's tables other names.
  const build = await readBuild(tx, projection.name, number);
  if (!build) throw notFound({ projection: projection.name, build: number });
  if (build.version !== projection.version) {
    throw new CodedError(
      'PROJECTION_VERSION_OTHER',
      `Build ${number} of ${projection.name} has version ${build.version}.`,
    );
  }
  const [letter] = await tx.query(
    `select 1 from projection_dead_letters
     where projection = $1 and build = $2 and position = $3 and state = 'open' and (is_retry_asked or not $4) for update`,
    [...key, which.isAsked],
  );
  if (!letter) throw notOpen(projection.name, number, position);
  const [row] = await tx.query<Row & { tenant_id: TenantId; gated: boolean }>(
    `select tenant_id, position, stream, stream_version, type, schema_version, data, metadata, recorded_at,
            ${isGated('$2')} as gated
     from event_log where position = $1`,
    [String(position), build.gate?.map(String) ?? null],
  );
  return { build, event: toEvent(row!.tenant_id, row!), gated: new Set(row!.gated ? [position] : []) };
}

function notOpen(projection: string, build: number, position: bigint): CodedError {
  return new CodedError(
    'DEAD_LETTER_NOT_OPEN',
    `Build ${build} of ${projection} has no open dead letter at position ${position}.`,
  );
}
