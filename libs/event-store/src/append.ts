import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { TenantId } from '@atomo-cc/kernel';
import type { EventMetadata, NewEvent, RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { FENCE_LOCK } from './fence.js';

/** What the caller believes of the stream: anything, that it has no events yet (also 0), or that it is exactly at this version. */
export type ExpectedVersion = 'any' | 'none' | number;

/** What one command adds to one stream. */
export interface StreamAppend {
  readonly stream: string;
  readonly expected: ExpectedVersion;
  readonly events: readonly NewEvent[];
  readonly metadata: EventMetadata;
}

/** Either everything was appended, or nothing: then a stream was not at the expected version, and this is the one it is at. */
export type AppendResult =
  | { readonly ok: true; readonly events: readonly RecordedEvent[] }
  | { readonly ok: false; readonly stream: string; readonly currentVersion: number };

/**
 * Appends events to any number of streams, in the caller's transaction and in two statements. After a conflict the
 * transaction must be rolled back. A stream may stand there several times; its later events follow the earlier ones, and
 * each entry's expectation is that after the entries before it.
 *
 * Order: fence, then the row of each stream, then positions. The streams' rows are locked to the end of the transaction, so
 * within a stream positions grow with versions; they are locked in the order of their names, so two appends to the same
 * streams wait for each other instead of deadlocking.
 */
export async function append(tx: Tx, tenant: TenantId, appends: readonly StreamAppend[]): Promise<AppendResult> {
  const heads = await raiseVersions(tx, tenant, appends);
  const rows: LoggedRow[] = [];
  for (const { stream, expected, events, metadata } of appends) {
    const head = heads.get(stream)!;
    const known = expected === 'none' ? 0 : expected;
    if (known !== 'any' && known !== head.version) return { ok: false, stream, currentVersion: head.version };
    for (const { type, schemaVersion, data } of events) {
      head.version += 1;
      const event = {
        tenant,
        stream,
        streamVersion: head.version,
        type,
        schemaVersion,
        data,
        metadata,
        recordedAt: head.now,
      };
      head.hash = chainHash(head.hash, event);
      rows.push({
        stream,
        stream_version: head.version,
        type,
        schema_version: schemaVersion,
        data,
        metadata,
        hash: head.hash.toString('hex'),
      });
    }
  }
  return { ok: true, events: await insertEvents(tx, tenant, rows, heads) };
}

/**
 * The link of an event in its stream's chain: SHA-256 of the link before it and of everything the event says but its
 * position, as canonical JSON (RFC 8785). Changing, removing or inserting an event breaks every link behind it.
 */
export function chainHash(previous: Buffer, event: Omit<RecordedEvent, 'position'>): Buffer {
  const said = canonicalize({
    tenant: event.tenant,
    stream: event.stream,
    version: event.streamVersion,
    type: event.type,
    schemaVersion: event.schemaVersion,
    data: event.data,
    metadata: event.metadata,
    at: event.recordedAt.toISOString(),
  });
  return createHash('sha256').update(previous).update(said!).digest();
}

interface Head {
  version: number;
  /** Empty before the first event. */
  hash: Buffer;
  readonly now: Date;
}

interface LoggedRow {
  readonly stream: string;
  readonly stream_version: number;
  readonly type: string;
  readonly schema_version: number;
  readonly data: NewEvent['data'];
  readonly metadata: EventMetadata;
  readonly hash: string;
}

/** Takes the fence, locks the streams' rows and raises their versions; answers the heads as they were before. */
async function raiseVersions(tx: Tx, tenant: TenantId, appends: readonly StreamAppend[]): Promise<Map<string, Head>> {
  const counts = new Map<string, number>();
  for (const { stream, events } of appends) counts.set(stream, (counts.get(stream) ?? 0) + events.length);
  const rows = await tx.query<{ stream: string; version: number; hash: Buffer; now: Date }>(
    `with fence as materialized (select pg_advisory_xact_lock_shared($3))
     insert into event_streams as s (tenant_id, stream, version, hash)
     select $1, w.stream, w.events, ''
     from fence, jsonb_to_recordset($2::jsonb) as w (stream text, events int)
     order by w.stream
     on conflict (tenant_id, stream) do update set version = s.version + excluded.version
     returning stream, version, hash, date_trunc('milliseconds', clock_timestamp()) as now`,
    [tenant, JSON.stringify([...counts].map(([stream, events]) => ({ stream, events }))), FENCE_LOCK],
  );
  return new Map(
    rows.map(({ stream, version, hash, now }) => [stream, { version: version - counts.get(stream)!, hash, now }]),
  );
}

async function insertEvents(
  tx: Tx,
  tenant: TenantId,
  rows: readonly LoggedRow[],
  heads: ReadonlyMap<string, Head>,
): Promise<RecordedEvent[]> {
  const logged = await tx.query<{ position: string; n: number }>(
    `with moved as (
       update event_streams s set hash = decode(h.hash, 'hex')
       from jsonb_to_recordset($3::jsonb) as h (stream text, hash text)
       where s.tenant_id = $1 and s.stream = h.stream
     ), logged as (
       insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at, hash)
       select nextval('event_log_position'), $1, e.stream, e.stream_version, e.type, e.schema_version, e.data, e.metadata,
              e.recorded_at, decode(e.hash, 'hex')
       from (select * from jsonb_to_recordset($2::jsonb)
               as e (n int, stream text, stream_version int, type text, schema_version int, data jsonb, metadata jsonb,
                     recorded_at timestamptz, hash text) order by n) as e
       returning position, stream, stream_version
     )
     select l.position, e.n from logged l
     join jsonb_to_recordset($2::jsonb) as e (n int, stream text, stream_version int)
       on e.stream = l.stream and e.stream_version = l.stream_version
     order by e.n`,
    [
      tenant,
      JSON.stringify(rows.map((row, n) => ({ ...row, n, recorded_at: heads.get(row.stream)!.now }))),
      JSON.stringify([...heads].map(([stream, head]) => ({ stream, hash: head.hash.toString('hex') }))),
    ],
  );
  return logged.map(({ position, n }) =>
    toEvent(tenant, { ...rows[n]!, position, recorded_at: heads.get(rows[n]!.stream)!.now }),
  );
}

/** A row of the log. */
export interface Row {
  position: string;
  stream: string;
  stream_version: number;
  type: string;
  schema_version: number;
  data: Readonly<Record<string, unknown>>;
  metadata: EventMetadata;
  recorded_at: Date;
}

/** Turns a row of the log into an event. */
export function toEvent(tenant: TenantId, row: Row): RecordedEvent {
  return {
    position: BigInt(row.position),
    tenant,
    stream: row.stream,
    streamVersion: row.stream_version,
    type: row.type,
    schemaVersion: row.schema_version,
    data: row.data,
    metadata: row.metadata,
    recordedAt: row.recorded_at,
  };
}
