import type { TenantId } from '@atomo-cc/kernel';
import type { PersonalFields, RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from './append.js';
import { EVENT_COLUMNS, EVENT_PAGE, readStream } from './read.js';
import type { StoredKey } from './subject-keys.js';

/**
 * Versions from one snapshot of a stream to the next: so many events a state is folded from at most. Folding a hundred takes
 * about a millisecond; a snapshot for fewer would cost more to write than it ever saves.
 */
export const SNAPSHOT_EVERY = 100;

/** What a stream's events come to. A state is a JSON object: a snapshot is nothing but the state. */
export interface StateFold<State extends Readonly<Record<string, unknown>>> {
  /** The version of the state's shape; raise it whenever the same events come to another state, also by an upcaster. Snapshots of another are passed over. */
  readonly shape: number;
  /** The state after an event, null before the first. Pure. The event is open: as `decode` gives it. */
  evolve(state: State | null, event: RecordedEvent): State;
}

/** Opens what the log keeps sealed; the part of the event codec that reading needs. */
export interface EventOpener {
  /**
   * The events with their personal fields open, null where their subject's key is gone, in today's shape.
   * @param read keys that were read along with the events, and need not be looked for
   */
  decode(tx: Tx, events: readonly RecordedEvent[], read?: readonly StoredKey[]): Promise<RecordedEvent[]>;
}

/** Seals and opens states as events are sealed and opened; the part of the event codec that snapshots need. */
export interface StateSealer {
  /** What is to be stored: the named fields sealed under the key of their subject. */
  sealState(
    tx: Tx,
    tenant: TenantId,
    stream: string,
    values: Readonly<Record<string, unknown>>,
    personal: PersonalFields,
  ): Promise<Readonly<Record<string, unknown>>>;
  /** What was sealed, with null in the fields whose subject's key is gone. `read` as of EventOpener. */
  openState(
    tx: Tx,
    tenant: TenantId,
    stream: string,
    stored: Readonly<Record<string, unknown>>,
    read?: readonly StoredKey[],
  ): Promise<Readonly<Record<string, unknown>>>;
}

/** A stream's state after one of its events. */
export interface StreamState<State> {
  readonly version: number;
  /** From when on it was the state: the latest time that an event up to it was recorded at. */
  readonly since: Date;
  readonly state: State;
}

/** Which state is asked for: that after the event of a version, or the last one at a time. */
export type StateAt = { readonly version: number } | { readonly time: Date };

/**
 * The state of a stream at a version or at a time: the newest snapshot at or below, and the events behind it. Null when the
 * stream had no events then, or does not have that version.
 *
 * Time means the events up to the first one that was recorded later. Where a clock was set back, an event may say an earlier
 * time than the one before it; it then counts from that one's time on, so a later version never gives way to an earlier one.
 */
export async function stateAt<State extends Readonly<Record<string, unknown>>>(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  at: StateAt,
  fold: StateFold<State>,
  codec?: EventOpener & Partial<StateSealer>,
): Promise<StreamState<State> | null> {
  let reached = await newestSnapshot(tx, tenant, stream, at, fold, codec);
  const last = 'version' in at ? at.version : Number.MAX_SAFE_INTEGER;
  for (;;) {
    const from = (reached?.version ?? 0) + 1;
    const limit = Math.min(EVENT_PAGE, last - from + 1);
    if (limit < 1) break;
    const stored = await readStream(tx, tenant, stream, { from, limit });
    const open = codec ? await codec.decode(tx, stored) : stored;
    for (const event of open) {
      if ('time' in at && event.recordedAt > at.time) return reached;
      reached = {
        version: event.streamVersion,
        since: reached && reached.since > event.recordedAt ? reached.since : event.recordedAt,
        state: fold.evolve(reached?.state ?? null, event),
      };
    }
    if (stored.length < limit) break;
  }
  return 'version' in at && reached?.version !== at.version ? null : reached;
}

/** How a snapshot's row is found: by the version, or by the time up to which everything below it was recorded. */
async function newestSnapshot<State extends Readonly<Record<string, unknown>>>(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  at: StateAt,
  fold: StateFold<State>,
  codec: Partial<StateSealer> | undefined,
): Promise<StreamState<State> | null> {
  const [bound, value] =
    'version' in at ? ['stream_version <= $4::int', at.version] : ['recorded_at <= $4::timestamptz', at.time];
  const [row] = await tx.query<{ version: number; since: Date; state: State }>(
    `select stream_version as version, recorded_at as since, state from stream_snapshots
     where tenant_id = $1 and stream = $2 and shape = $3 and ${bound}
     order by stream_version desc limit 1`,
    [tenant, stream, fold.shape, value],
  );
  if (!row) return null;
  const state = codec?.openState ? await codec.openState(tx, tenant, stream, row.state) : row.state;
  return { ...row, state: state as State };
}

/** One event of a stream, open, and what it made of the state. */
export interface StreamStep<State> {
  readonly event: RecordedEvent;
  /** Null before the first event. */
  readonly before: State | null;
  readonly after: State;
}

/** Steps of a stream, and how it ends. */
export interface StreamSteps<State> {
  /** From new to old. */
  readonly steps: readonly StreamStep<State>[];
  /** The type of the stream's newest event, wherever the steps are; null where it has none. */
  readonly newestType: string | null;
}

/** A row of {@link STEPS}: an event, or the snapshot below all events, which has no position and its state as data. */
type StepRow = Omit<Row, 'position'> & {
  readonly position: string | null;
  readonly newest: string;
  /** Null where nothing is sealed, or there is no such key. */
  readonly key_subject: string | null;
  readonly key_generation: number;
  readonly wrapped: Buffer | null;
  readonly wrapped_by: string;
};

// A page of events, the newest snapshot below it, and the events between the two: from there on the state is known at each of
// them. Each event comes with the key that it is sealed under. As JSON the generations are compared whatever stands in the data.
const STEPS = `
  with page as (
    select ${EVENT_COLUMNS} from event_log where tenant_id = $1 and stream = $2 and stream_version < $3::bigint
    order by stream_version desc limit $4),
  base as (
    select stream_version, state, recorded_at from stream_snapshots
    where tenant_id = $1 and stream = $2 and shape = $5 and stream_version < (select min(stream_version) from page)
    order by stream_version desc limit 1),
  ground as (select coalesce(max(stream_version), 0) as version from base),
  below as (
    select ${EVENT_COLUMNS} from event_log
    where tenant_id = $1 and stream = $2 and stream_version < (select min(stream_version) from page)
      and stream_version > (select version from ground)
    order by stream_version desc limit ${EVENT_PAGE})
  select e.*, k.subject as key_subject, k.generation as key_generation, k.wrapped, k.wrapped_by,
    (select type from event_log where tenant_id = $1 and stream = $2 order by stream_version desc limit 1) as newest
  from (select * from page union all select * from below
        union all select null, $2, stream_version, null, null, state, null, recorded_at from base) e
  left join lateral (
    select subject, generation, wrapped, wrapped_by from subject_keys s
    where s.tenant_id = $1 and s.subject = e.data #>> '{$sealed,subject}'
      and to_jsonb(s.generation) = e.data #> '{$sealed,key}' limit 1) k on true
  order by e.stream_version desc`;

/**
 * The last steps of a stream: `atLeast` of them, or all there are, and with them those down to the nearest snapshot, which the
 * states are folded from. One statement, the keys of what is sealed included; more only where EVENT_PAGE events below those that
 * were asked for are without a snapshot.
 * @param below only versions below this one; null for the whole stream
 */
export async function lastSteps<State extends Readonly<Record<string, unknown>>>(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  { below, atLeast }: { readonly below: number | null; readonly atLeast: number },
  fold: StateFold<State>,
  codec?: EventOpener & Partial<StateSealer>,
): Promise<StreamSteps<State>> {
  const given = [tenant, stream, below ?? Number.MAX_SAFE_INTEGER, atLeast, fold.shape];
  const rows = await tx.prepared<StepRow>(STEPS, given);
  const keys = rows.flatMap(({ key_subject: subject, key_generation: generation, wrapped, wrapped_by: wrappedBy }) =>
    subject === null ? [] : [{ tenant, subject, generation, wrapped, wrappedBy }],
  );
  const stored = rows
    .flatMap(({ position, ...row }) => (position === null ? [] : [toEvent(tenant, { ...row, position })]))
    .toReversed();
  const snapshot = rows.find(({ position }) => position === null);
  const first = stored[0]?.streamVersion ?? 1;
  let state: State | null = null;
  if (snapshot?.stream_version === first - 1) {
    const { data } = snapshot;
    state = (codec?.openState ? await codec.openState(tx, tenant, stream, data, keys) : data) as State;
  } else if (first > 1) {
    state = (await stateAt(tx, tenant, stream, { version: first - 1 }, fold, codec))?.state ?? null;
  }
  const steps: StreamStep<State>[] = [];
  for (const event of codec ? await codec.decode(tx, stored, keys) : stored) {
    const after = fold.evolve(state, event);
    steps.push({ event, before: state, after });
    state = after;
  }
  return { steps: steps.toReversed(), newestType: rows[0]?.newest ?? null };
}

/** Whether a stream that went from one version to another should have its state kept. */
export function isSnapshotDue(before: number, after: number): boolean {
  return Math.floor(after / SNAPSHOT_EVERY) > Math.floor(before / SNAPSHOT_EVERY);
}

/** A state that is worth keeping. */
export interface StateToKeep {
  readonly stream: string;
  /** The version that it is the state at. */
  readonly version: number;
  /** That of the fold. */
  readonly shape: number;
  readonly state: Readonly<Record<string, unknown>>;
  /** Which names of the state tell something about a person; absent where none do. */
  readonly personal?: PersonalFields;
}

/**
 * Keeps states of streams, in the transaction that appended their events and after the append. A snapshot that is there
 * already stays. Its time is the latest that any event up to it was recorded at, so that a clock that was set back leads
 * to the same state as without it.
 */
export async function keepSnapshots(
  tx: Tx,
  tenant: TenantId,
  states: readonly StateToKeep[],
  codec?: Pick<StateSealer, 'sealState'>,
): Promise<void> {
  if (states.length === 0) return;
  const rows: object[] = [];
  for (const { stream, version, shape, state, personal } of states) {
    const stored = codec && personal ? await codec.sealState(tx, tenant, stream, state, personal) : state;
    rows.push({ stream, version, shape, state: stored });
  }
  await tx.execute(
    `insert into stream_snapshots (tenant_id, stream, stream_version, shape, state, recorded_at)
     select $1, s.stream, s.version, s.shape, s.state, greatest(before.recorded_at, since.recorded_at)
     from jsonb_to_recordset($2::jsonb) as s (stream text, version int, shape int, state jsonb)
     left join lateral (
       select stream_version, recorded_at from stream_snapshots k
       where k.tenant_id = $1 and k.stream = s.stream and k.stream_version <= s.version
       order by stream_version desc limit 1
     ) before on true
     cross join lateral (
       select max(e.recorded_at) as recorded_at from event_log e
       where e.tenant_id = $1 and e.stream = s.stream and e.stream_version <= s.version
         and e.stream_version > coalesce(before.stream_version, 0)
     ) since
     where greatest(before.recorded_at, since.recorded_at) is not null
     order by s.stream, s.version
     on conflict (tenant_id, stream, stream_version) do nothing`,
    [tenant, JSON.stringify(rows)],
  );
}
