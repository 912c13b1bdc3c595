import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from './append.js';

/** Which events of a tenant are asked for. */
export interface EventFilter {
  /** Only events behind this position. */
  readonly after: bigint;
  /** Only events up to the settled mark (see Fence): beyond it an earlier event may still appear. */
  readonly settled: bigint;
  readonly types?: readonly string[] | null;
  readonly stream?: string | null;
  readonly limit: number;
}

/** The tenant's events in the order of the log. */
export async function readEvents(tx: Tx, tenant: TenantId, filter: EventFilter): Promise<RecordedEvent[]> {
  const rows = await tx.query<Row>(
    `select position, stream, stream_version, type, schema_version, data, metadata, recorded_at from event_log
     where tenant_id = $1 and position > $2 and position <= $3
       and ($4::text[] is null or type = any($4)) and ($5::text is null or stream = $5)
     order by position limit $6`,
    [tenant, String(filter.after), String(filter.settled), filter.types ?? null, filter.stream ?? null, filter.limit],
  );
  return rows.map((row) => toEvent(tenant, row));
}
