import type { TenantId } from '@atomo-cc/kernel';
import type { EventMetadata, NewEvent, RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { holdFence } from './fence.js';

/** What the caller believes of the stream: anything, that it has no events yet (also 0), or that it is exactly at this version. */
export type ExpectedVersion = 'any' | 'none' | number;

/** What is added to one stream. */
export interface StreamAppend {
  readonly stream: string;
  readonly expected: ExpectedVersion;
  readonly events: readonly NewEvent[];
}

/** Either everything was appended, or nothing: then a stream was not at the expected version, and this is the one it is at. */
export type AppendResult =
  | { readonly ok: true; readonly events: readonly RecordedEvent[] }
  | { readonly ok: false; readonly stream: string; readonly currentVersion: number };

/**
 * Appends events to one or more streams, in the caller's transaction. After a conflict the transaction must be rolled back.
 *
 * Order: fence, then the row of each stream, then positions. The stream's row is locked to the end of the transaction, so
 * within a stream positions grow with versions; streams are locked in the order of their names, so two appends to the same
 * streams wait for each other instead of deadlocking.
 */
export async function append(
  tx: Tx,
  tenant: TenantId,
  appends: readonly StreamAppend[],
  metadata: EventMetadata,
): Promise<AppendResult> {
  await holdFence(tx);
  const recorded: Omit<Row, 'position' | 'recorded_at'>[] = [];
  const ordered = [...appends].sort((a, b) => (a.stream < b.stream ? -1 : 1));
  for (const { stream, expected, events } of ordered) {
    const version = await raiseVersion(tx, tenant, stream, expected, events.length);
    if (version === null) return { ok: false, stream, currentVersion: await currentVersion(tx, tenant, stream) };
    events.forEach((event, index) => {
      recorded.push({
        stream,
        stream_version: version - events.length + index + 1,
        type: event.type,
        schema_version: event.schemaVersion,
        data: event.data,
        metadata,
      });
    });
  }
  const rows = await tx.query<Row>(
    `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata)
     select nextval('event_log_position'), $1, e.stream, e.stream_version, e.type, e.schema_version, e.data, e.metadata
     from (select * from jsonb_to_recordset($2::jsonb)
             as e (stream text, stream_version int, type text, schema_version int, data jsonb, metadata jsonb)) as e
     returning position, stream, stream_version, type, schema_version, data, metadata, recorded_at`,
    [tenant, JSON.stringify(recorded)],
  );
  return { ok: true, events: rows.map((row) => toEvent(tenant, row)) };
}

async function raiseVersion(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  expected: ExpectedVersion,
  by: number,
): Promise<number | null> {
  const statement =
    expected === 'any'
      ? `insert into event_streams as s (tenant_id, stream, version) values ($1, $2, $3)
         on conflict (tenant_id, stream) do update set version = s.version + $3 returning version`
      : expected === 'none' || expected === 0
        ? `insert into event_streams as s (tenant_id, stream, version) values ($1, $2, $3)
           on conflict (tenant_id, stream) do update set version = $3 where s.version = 0 returning version`
        : `update event_streams set version = version + $3
           where tenant_id = $1 and stream = $2 and version = $4 returning version`;
  const parameters =
    typeof expected === 'number' && expected !== 0 ? [tenant, stream, by, expected] : [tenant, stream, by];
  const [row] = await tx.query<{ version: number }>(statement, parameters);
  return row?.version ?? null;
}

async function currentVersion(tx: Tx, tenant: TenantId, stream: string): Promise<number> {
  const [row] = await tx.query<{ version: number }>(
    'select version from event_streams where tenant_id = $1 and stream = $2',
    [tenant, stream],
  );
  return row?.version ?? 0;
}

/** A row of the log. */
export interface Row {
  position: string;
  stream: string;
  stream_version: number;
  type: string;
  schema_version: number;
  data: Record<string, unknown>;
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
