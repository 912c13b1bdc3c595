import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from './append.js';
import type { AuditEntry } from './audit.js';

/** What makes stored events readable: opens what is sealed and brings old shapes up to date. Keeps the order. */
export interface EventDecoder {
  decode(tx: Tx, events: readonly RecordedEvent[]): Promise<readonly RecordedEvent[]>;
}

/** What an event made of a field. Null stands for no value, and for one whose subject's key is gone. */
export interface FieldChange {
  readonly field: string;
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * What the events of a page changed, by position. Two statements whatever the page: its events, and for each field the
 * last earlier event of the stream that names it, found by going down the stream from there. The ways of one field do not
 * overlap, since each ends at the next event that names it: together they are at most the stream, once for each field.
 */
export async function readChanges(
  tx: Tx,
  tenant: TenantId,
  entries: readonly AuditEntry[],
  decoder: EventDecoder | null,
): Promise<ReadonlyMap<bigint, readonly FieldChange[]>> {
  if (entries.length === 0) return new Map();
  const wanted = entries.flatMap(({ stream, streamVersion, position, fields }) =>
    fields.map((field) => ({ stream, version: streamVersion, position: String(position), field })),
  );
  const earlier = await tx.query<{ position: string; field: string; found: string }>(
    `select w.position, w.field, e.position as found
     from jsonb_to_recordset($2::jsonb) as w (stream text, version int, position bigint, field text)
     cross join lateral (
       select position from event_log l
       where l.tenant_id = $1 and l.stream = w.stream and l.stream_version < w.version
         and (l.data ? w.field or l.data->'$sealed'->'fields' ? w.field)
       order by l.stream_version desc limit 1) e
     where w.version > 1`,
    [tenant, JSON.stringify(wanted)],
  );
  const positions = new Set([...entries.map(({ position }) => String(position)), ...earlier.map(({ found }) => found)]);
  const rows = await tx.query<Row>(
    `select position, stream, stream_version, type, schema_version, data, metadata, recorded_at
     from event_log where tenant_id = $1 and position = any($2) order by position`,
    [tenant, [...positions]],
  );
  const stored = rows.map((row) => toEvent(tenant, row));
  const readable = decoder ? await decoder.decode(tx, stored) : stored;
  const byPosition = new Map(readable.map((event) => [String(event.position), event]));
  const beforeOf = new Map(earlier.map(({ position, field, found }) => [`${position} ${field}`, found]));
  return new Map(
    entries.map(({ position, fields }) => [
      position,
      fields.map((field) => ({
        field,
        before: valueOf(byPosition.get(beforeOf.get(`${position} ${field}`) ?? ''), field),
        after: valueOf(byPosition.get(String(position)), field),
      })),
    ]),
  );
}

function valueOf(event: RecordedEvent | undefined, field: string): unknown {
  return event && Object.hasOwn(event.data, field) ? (event.data[field] ?? null) : null;
}
