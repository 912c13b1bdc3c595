import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from '../append.js';

/** Why a projection does not go on, or does not do what it is asked. */
export const PROJECTION_ERRORS = {
  PROJECTION_EVENT_UNKNOWN:
    'The projection does not know this type or schema version of event and has stopped before it. Deploy a version that does, then resume it.',
  PROJECTION_BROKEN:
    'Not single events are at fault but the projection: too many of one batch fail, or a statement is wrong. It has stopped before them: mend it, then resume it.',
  PROJECTION_SHARDS_CHANGED:
    'The projection has run with another number of shards, and its checkpoints belong to those. Give it a new version.',
  PROJECTION_NOT_FOUND: 'No projection of this name, or no such build of it, has ever run here. Check both.',
  PROJECTION_VERSION_OTHER: 'The build belongs to another version of the projection than this process has.',
  DEAD_LETTER_NOT_OPEN: 'There is no such dead letter, or it was retried or skipped already. List the open ones.',
} as const;

/** A table of a projection. */
export interface ProjectionTable {
  /**
   * Under which readers ask for it: lower case, 54 characters at most, so that those of a build (`<name>__b<build>`) fit into
   * the 63 that Postgres keeps.
   */
  readonly name: string;
  /**
   * Of an inline projection: its rows belong to one row each of another of its tables, whose `id` stands in `column`, and follow
   * from the same events as that; they need no id and version of their own. The columns are those of the primary key.
   */
  readonly ownedBy?: { readonly table: string; readonly column: string };
  /**
   * Makes the table under the given name, with its rights (see tenantTable; the system role selects, inserts, updates and
   * deletes) and indexes, as the owner. It leaves the names of indexes and constraints to Postgres, which keeps them apart.
   *
   * Of a table that is there it adds what that lacks (columns that may be null, indexes), and changes and drops nothing: each
   * runner that starts calls it for all builds of its version. So a table or a column may come without a new version when the
   * log holds no event yet that it is for, as with a model or field that nobody could write before. Where such events are
   * there, or processes of before go on applying without it, it lacks them: a new `version` reads the log anew, and so does
   * `requestBuild`.
   */
  create(tx: Tx, physicalName: string): Promise<void>;
  /**
   * Gives the table of a build what only a live one needs, such as unique indexes, which events of the past would offend on
   * their way: as the owner, in the transaction of the switch, before readers wait. A build may be switched to more than once.
   */
  complete?(tx: Tx, physicalName: string): Promise<void>;
}

/** What a batch is applied to: one build of the projection. */
export interface ProjectionTarget {
  readonly build: number;
  /** Whether readers see this build. */
  readonly isLive: boolean;
  /** What the table is called in this build now. @throws TypeError for a table that the projection does not list */
  table(base: string): string;
  /**
   * Whether the event may have an effect beyond the projection's tables (a job, a message), written in the same transaction.
   * No while the build is not live, and for what an earlier live build has applied already; so however often a projection is
   * built anew, each event acts once. An event that is a dead letter of the live build counts as applied by it.
   */
  mayAct(event: RecordedEvent): boolean;
}

/** Something that is computed from the log. */
export interface Projection {
  /** Lower case letters, digits and hyphens; 63 at most. */
  readonly name: string;
  /**
   * Of its code and the shape of its tables, from 1 on. When a process has a newer one than the live build's, a build is made
   * and takes its place when it has caught up.
   */
  readonly version: number;
  /**
   * The types of event that it is given, each with the schema versions that it understands (those of today where the runner
   * decodes, as older ones then come in today's shape); the batch holds no others. With
   * `'all'` it is given every event, and throws `unknownEvent` for one that it must not pass over.
   */
  readonly eventTypes: 'all' | Readonly<Record<string, readonly number[]>>;
  /** Parts that run side by side, each with its share of the streams; 1 unless given. To change it, raise the version. */
  readonly shards?: number;
  /** None for a projection that keeps its rows elsewhere; it has nothing to rebuild then. */
  readonly tables: readonly ProjectionTable[];
  /**
   * `async`: the runner applies the log behind the commands' backs. `inline`: the commands write the live tables in their own
   * transactions, and the runner only feeds builds that are not live; then every row has tenant_id, id and version, and
   * `apply` leaves rows alone that are as new or newer (`where row.version < excluded.version`).
   */
  readonly mode: 'async' | 'inline';
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
  apply(batch: readonly RecordedEvent[], tx: Tx, target: ProjectionTarget): Promise<void>;
}

/** Turns events as they are stored into what projections understand: opens what is sealed, brings old versions up to date. */
export type DecodeEvents = (tx: Tx, events: readonly RecordedEvent[]) => Promise<readonly RecordedEvent[]>;

/** The error by which a projection refuses an event that it does not know: it stops before it, and nothing else does. */
export function unknownEvent(projection: Pick<Projection, 'name' | 'version'>, event: RecordedEvent): CodedError {
  return new CodedError(
    'PROJECTION_EVENT_UNKNOWN',
    `Projection ${projection.name} version ${projection.version} does not know ${event.type} in schema version ${event.schemaVersion} (position ${event.position}).`,
    { type: event.type, schemaVersion: event.schemaVersion, position: String(event.position) },
  );
}

/** A projection with what its events pass through before it. */
export interface ProjectionCode {
  readonly projection: Projection;
  readonly decode: DecodeEvents | undefined;
}

/**
 * Decodes events and applies them.
 * @throws CodedError PROJECTION_EVENT_UNKNOWN for the first event in a schema version that the projection does not list;
 * PROJECTION_BROKEN for sealed data that does not open
 */
export async function applyEvents(
  tx: Tx,
  { projection, decode }: ProjectionCode,
  stored: readonly RecordedEvent[],
  target: ProjectionTarget,
): Promise<void> {
  if (stored.length === 0) return;
  const events = decode ? await decoded(tx, projection, decode, stored) : stored;
  const { eventTypes } = projection;
  if (eventTypes !== 'all') {
    for (const event of events) {
      if (!eventTypes[event.type]?.includes(event.schemaVersion)) throw unknownEvent(projection, event);
    }
  }
  await projection.apply(events, tx, target);
}

/** What cannot be read stops the projection that meets it, before it, and nothing else. */
async function decoded(
  tx: Tx,
  projection: Projection,
  decode: DecodeEvents,
  stored: readonly RecordedEvent[],
): Promise<readonly RecordedEvent[]> {
  try {
    return await decode(tx, stored);
  } catch (error) {
    if (!isCodedError(error)) throw error;
    const { code, message, details } = error;
    const event = stored.find(({ position }) => String(position) === details?.['position']);
    if (event && (code === 'EVENT_TYPE_UNKNOWN' || code === 'EVENT_VERSION_UNKNOWN'))
      throw unknownEvent(projection, event);
    throw new CodedError('PROJECTION_BROKEN', message, details, { cause: error });
  }
}

/** Characters of a table's base name: what 63 leave beside `__b` and a build of six digits. */
const MAX_TABLE_NAME = 54;

/** @throws TypeError for a projection that cannot be told from others, has no shard, or tables that cannot be renamed */
export function checkProjection({ name, version, shards = 1, tables }: Projection): void {
  if (!/^[a-z][a-z0-9-]{0,62}$/.test(name)) {
    throw new TypeError(`projection "${name}": a name is lower case letters, digits and hyphens, 63 at most`);
  }
  if (!Number.isSafeInteger(version) || version < 1) throw new TypeError(`projection ${name}: versions count from 1`);
  if (!Number.isSafeInteger(shards) || shards < 1) throw new TypeError(`projection ${name}: it has 1 shard or more`);
  for (const table of tables) {
    if (!/^[a-z_][a-z0-9_]*$/.test(table.name) || table.name.length > MAX_TABLE_NAME) {
      throw new TypeError(
        `projection ${name}: a table's name is lower case, ${MAX_TABLE_NAME} characters at most: "${table.name}"`,
      );
    }
  }
  if (new Set(tables.map((table) => table.name)).size < tables.length) {
    throw new TypeError(`projection ${name}: two tables have the same name`);
  }
}

/** What the table of a build is called while readers do not see it. */
export function sideTable(base: string, build: number): string {
  return `${base}__b${build}`;
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
  /** Positions of the events that an earlier live build has applied. */
  readonly gated: ReadonlySet<bigint>;
}

/** Which events a shard is asked for. */
export interface BatchBounds {
  readonly shard: number;
  readonly after: bigint;
  /** At most the settled mark (see Fence), unless the caller has another proof that nothing can still appear. */
  readonly upTo: bigint;
  readonly maxEvents: number;
  /** Only this tenant's; of all tenants when null. */
  readonly tenant: TenantId | null;
  /** Where the shards of the earlier live build stood when it was replaced. */
  readonly gate: readonly bigint[] | null;
}

/**
 * The number of the shard of a stream, always the same whoever asks: tables partitioned by hash rest on the same function of
 * Postgres. The sign is masked away, as the absolute value of the smallest number does not exist.
 */
const shardOf = (shards: string) => `((hashtextextended(stream, 0) & 9223372036854775807) % ${shards})`;
/** SQL: whether an earlier live build has applied the event; `gate` is that build's checkpoints as bigint[], or null. */
export const isGated = (gate: string) =>
  `coalesce(position <= (${gate}::bigint[])[(1 + ${shardOf(`cardinality(${gate}::bigint[])`)})::int], false)`;

/** The next events of a shard in the order of the log. Needs the system role. */
export async function readBatch(tx: Tx, projection: Projection, bounds: BatchBounds): Promise<Batch> {
  const { shard, after, maxEvents, tenant, gate } = bounds;
  const end = after + BigInt(MAX_BATCH_POSITIONS);
  const upTo = end < bounds.upTo ? end : bounds.upTo;
  if (upTo <= after) return { events: [], upTo: after, gated: new Set() };
  const types = projection.eventTypes === 'all' ? null : Object.keys(projection.eventTypes);
  // The event that goes over the bound is still taken: one that is larger alone would never be applied otherwise.
  const rows = await tx.prepared<Row & { tenant_id: TenantId; bytes: string; gated: boolean }>(
    `select * from (
       select found.*, sum(size) over (order by position rows unbounded preceding) as bytes
       from (
         select tenant_id, position, stream, stream_version, type, schema_version, data, metadata, recorded_at,
                pg_column_size(data) + pg_column_size(metadata) as size, ${isGated('$9')} as gated
         from event_log
         where position > $1 and position <= $2 and ($3::text[] is null or type = any($3))
           and ($4 = 1 or ${shardOf('$4')} = $5) and ($8::uuid is null or tenant_id = $8)
         order by position limit $6
       ) as found
     ) as sized
     where bytes - size <= $7
     order by position`,
    [
      String(after),
      String(upTo),
      types,
      projection.shards ?? 1,
      shard,
      maxEvents,
      MAX_BATCH_BYTES,
      tenant,
      gate?.map(String) ?? null,
    ],
  );
  const events = rows.map((row) => toEvent(row.tenant_id, row));
  const isCut = rows.length === maxEvents || Number(rows.at(-1)?.bytes ?? 0) > MAX_BATCH_BYTES;
  return {
    events,
    upTo: isCut ? events.at(-1)!.position : upTo,
    gated: new Set(rows.filter((row) => row.gated).map((row) => BigInt(row.position))),
  };
}
