import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from '../append.js';
import type { EventCodec } from '../codec.js';

/** Why a projection does not go on, or does not do what it is asked. */
export const PROJECTION_ERRORS = {
  PROJECTION_EVENT_UNKNOWN:
    'The projection does not know this type or schema version of event and has stopped before it. Deploy a version that does, then resume it.',
  PROJECTION_BROKEN:
    'Not single events are at fault but the projection: too many of one batch fail, or a statement is wrong. It has stopped before them: mend it, then resume it.',
  PROJECTION_SHARDS_CHANGED:
    'The projection has run with another number of shards, and its checkpoints belong to those. Give it a new version.',
  PROJECTION_NOT_FOUND: 'No projection of this name and version has ever run here. Check both.',
  DEAD_LETTER_NOT_OPEN: 'There is no such dead letter, or it was retried or skipped already. List the open ones.',
} as const;

/** What a projection's tables and checkpoints belong to. A new version starts from the beginning, beside the old one. */
export interface ProjectionIdentity {
  /** Lower case letters, digits and hyphens; 63 at most. */
  readonly name: string;
  /** From 1 on. */
  readonly version: number;
}

/** Something that is computed from the log, behind the commands' backs. */
export interface Projection extends ProjectionIdentity {
  /**
   * The types of event that it is given, each with the schema versions that it understands (where the runner has a codec: that
   * of today, as older ones come in its shape); the batch holds no others. With
   * `'all'` it is given every event, and throws `unknownEvent` for one that it must not pass over.
   */
  readonly eventTypes: 'all' | Readonly<Record<string, readonly number[]>>;
  /** Parts that run side by side, each with its share of the streams; 1 unless given. To change it, raise the version. */
  readonly shards?: number;
  /**
   * Applies events in the order of the log: fold them in memory, then write once, set-based. The checkpoint is written in the
   * same transaction, so each batch takes effect once. It must do nothing but that: no other connection, and no effect that
   * a rollback does not undo, because a batch is tried again whole and in parts.
   *
   * A batch holds events of many tenants: the log has one order and a shard one checkpoint, and a batch for each of a
   * thousand tenants would be a thousand small writes. The transaction has the system role's rights and sees all tenants, so
   * every row written and every condition names `event.tenant`.
   *
   * Other events of a stream go on when one became a dead letter, and a retry applies it after them: an upsert holds its row
   * to the newest with `where row.version < excluded.version`.
   */
  apply(batch: readonly RecordedEvent[], tx: Tx): Promise<void>;
}

/** The error by which a projection refuses an event that it does not know: it stops before it, and nothing else does. */
export function unknownEvent(projection: ProjectionIdentity, event: RecordedEvent): CodedError {
  return new CodedError(
    'PROJECTION_EVENT_UNKNOWN',
    `Projection ${projection.name} version ${projection.version} does not know ${event.type} in schema version ${event.schemaVersion} (position ${event.position}).`,
    { type: event.type, schemaVersion: event.schemaVersion, position: String(event.position) },
  );
}

/** @throws CodedError PROJECTION_EVENT_UNKNOWN for the first event in a schema version that the projection does not list */
export function refuseUnknown(projection: Projection, batch: readonly RecordedEvent[]): void {
  const { eventTypes } = projection;
  if (eventTypes === 'all') return;
  for (const event of batch) {
    if (!eventTypes[event.type]?.includes(event.schemaVersion)) throw unknownEvent(projection, event);
  }
}

/**
 * The events as a projection sees them: opened, and in the shapes of today. What cannot be read stops this projection alone,
 * before it, and nothing else.
 * @param codec null: the events as they are stored
 * @throws CodedError PROJECTION_EVENT_UNKNOWN; PROJECTION_BROKEN for sealed data that does not open
 */
export async function decodeFor(
  projection: Projection,
  batch: readonly RecordedEvent[],
  tx: Tx,
  codec: EventCodec | null,
): Promise<readonly RecordedEvent[]> {
  let events = batch;
  try {
    if (codec) events = await codec.decode(tx, batch);
  } catch (error) {
    if (!isCodedError(error)) throw error;
    if (error.code === 'EVENT_TYPE_UNKNOWN' || error.code === 'EVENT_VERSION_UNKNOWN') {
      throw unknownEvent(
        projection,
        batch.find(({ position }) => String(position) === error.details?.['position'])!,
      );
    }
    throw new CodedError('PROJECTION_BROKEN', error.message, error.details, { cause: error });
  }
  refuseUnknown(projection, events);
  return events;
}

/** @throws TypeError for a projection that cannot be told from others, or has no shard */
export function checkProjection({ name, version, shards = 1 }: Projection): void {
  if (!/^[a-z][a-z0-9-]{0,62}$/.test(name)) {
    throw new TypeError(`projection "${name}": a name is lower case letters, digits and hyphens, 63 at most`);
  }
  if (!Number.isSafeInteger(version) || version < 1) throw new TypeError(`projection ${name}: versions count from 1`);
  if (!Number.isSafeInteger(shards) || shards < 1) throw new TypeError(`projection ${name}: it has 1 shard or more`);
}

/** Events of one batch: about where replay stops getting faster, and small enough to be tried again in a moment. */
export const MAX_BATCH_EVENTS = 5_000;
/** Stored bytes of one batch's events. Stored they are compressed, so in memory they may be several times as large. */
export const MAX_BATCH_BYTES = 8 * 1024 * 1024;
/**
 * Positions looked through at once. It bounds a statement that looks for a rare type in a long log, which would otherwise
 * run into its time limit again and again and never get anywhere.
 */
export const MAX_BATCH_POSITIONS = 50_000;

/** What a shard does next. */
export interface Batch {
  readonly events: readonly RecordedEvent[];
  /** Where the checkpoint stands once they are applied: everything for this shard up to here is in the batch. */
  readonly upTo: bigint;
}

/** Which events a shard is asked for. */
export interface BatchBounds {
  readonly shard: number;
  readonly after: bigint;
  /** The settled mark (see Fence). */
  readonly settled: bigint;
  readonly maxEvents: number;
}

/**
 * A stream is always in the same shard, whoever asks: tables partitioned by hash rest on the same function of Postgres. The
 * sign is masked away, as the absolute value of the smallest number does not exist.
 */
const SHARD_OF = `((hashtextextended(stream, 0) & 9223372036854775807) % $4)`;

/** The next events of a shard, of all tenants, in the order of the log. Needs the system role. */
export async function readBatch(tx: Tx, projection: Projection, bounds: BatchBounds): Promise<Batch> {
  const { shard, after, settled, maxEvents } = bounds;
  const end = after + BigInt(MAX_BATCH_POSITIONS);
  const upTo = end < settled ? end : settled;
  if (upTo <= after) return { events: [], upTo: after };
  const types = projection.eventTypes === 'all' ? null : Object.keys(projection.eventTypes);
  // The event that goes over the bound is still taken: one that is larger alone would never be applied otherwise.
  const rows = await tx.query<Row & { tenant_id: TenantId; bytes: string }>(
    `select * from (
       select found.*, sum(size) over (order by position rows unbounded preceding) as bytes
       from (
         select tenant_id, position, stream, stream_version, type, schema_version, data, metadata, recorded_at,
                pg_column_size(data) + pg_column_size(metadata) as size
         from event_log
         where position > $1 and position <= $2 and ($3::text[] is null or type = any($3))
           and ($4 = 1 or ${SHARD_OF} = $5)
         order by position limit $6
       ) as found
     ) as sized
     where bytes - size <= $7
     order by position`,
    [String(after), String(upTo), types, projection.shards ?? 1, shard, maxEvents, MAX_BATCH_BYTES],
  );
  const events = rows.map((row) => toEvent(row.tenant_id, row));
  const isCut = rows.length === maxEvents || Number(rows.at(-1)?.bytes ?? 0) > MAX_BATCH_BYTES;
  return { events, upTo: isCut ? events.at(-1)!.position : upTo };
}
