import { setTimeout as pause } from 'node:timers/promises';
import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { AppDatabase, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { toEvent, type Row } from './append.js';
import type { Fence } from './fence.js';

/** Events of one page of an iterator or a subscription: enough to make the statement's own cost small, and a few megabytes at most for events of usual size. */
export const EVENT_PAGE = 500;
/** How long to wait before the mark is looked at again while an open append holds it up; such an append takes milliseconds. */
export const UNSETTLED_LOOK_MS = 20;

/** Which events of a tenant are asked for. All that is given must hold. */
export interface EventSelection {
  readonly types?: readonly string[] | null;
  readonly stream?: string | null;
  /** How the names of the streams begin, taken literally: `Contact-`. */
  readonly streamPrefix?: string | null;
}

/** One page of a tenant's events. */
export interface EventFilter extends EventSelection {
  /** Only events behind this position. */
  readonly after: bigint;
  /** Only events up to the settled mark (see Fence): beyond it an earlier event may still appear. */
  readonly settled: bigint;
  readonly limit: number;
}

/** The columns of an event, in a {@link Row}. */
export const EVENT_COLUMNS = 'position, stream, stream_version, type, schema_version, data, metadata, recorded_at';

/**
 * The tenant's events in the order of the log. A prefix is compared with starts_with: nothing in it needs an escape, and
 * in a database of collation C Postgres can also turn it into a range of the index by stream.
 */
export async function readEvents(tx: Tx, tenant: TenantId, filter: EventFilter): Promise<RecordedEvent[]> {
  const { after, settled, types, stream, streamPrefix, limit } = filter;
  const rows = await tx.prepared<Row>(
    `select ${EVENT_COLUMNS} from event_log
     where tenant_id = $1 and position > $2 and position <= $3
       and ($4::text[] is null or type = any($4)) and ($5::text is null or stream = $5)
       and ($6::text is null or starts_with(stream, $6))
     order by position limit $7`,
    [tenant, String(after), String(settled), types ?? null, stream ?? null, streamPrefix ?? null, limit],
  );
  return rows.map((row) => toEvent(tenant, row));
}

/** The way through a stream. */
export interface StreamWay {
  /** The version to begin with, itself included: unless given the first, or backward the last. */
  readonly from?: number;
  /** Forward, from old to new, unless given. */
  readonly direction?: 'forward' | 'backward';
}

/**
 * One page of a stream; empty for a stream that has no events there. It needs no settled mark: whoever appends holds the
 * stream's row until the commit, so versions become visible in their order.
 */
export async function readStream(
  tx: Tx,
  tenant: TenantId,
  stream: string,
  page: StreamWay & { readonly limit: number },
): Promise<RecordedEvent[]> {
  const isForward = page.direction !== 'backward';
  const rows = await tx.prepared<Row>(
    `select ${EVENT_COLUMNS} from event_log
     where tenant_id = $1 and stream = $2 and stream_version ${isForward ? '>=' : '<='} $3::bigint
     order by stream_version ${isForward ? 'asc' : 'desc'} limit $4`,
    [tenant, stream, page.from ?? (isForward ? 1 : Number.MAX_SAFE_INTEGER), page.limit],
  );
  return rows.map((row) => toEvent(tenant, row));
}

/**
 * A stream's events one after the other, a page in memory at a time, each page in a transaction of its own. Forward it ends
 * where the stream ends when its end is reached; backward it begins with the event that is last when it begins.
 * @throws RangeError for a page size that is no number from 1 on
 */
export async function* streamEvents(
  database: AppDatabase | SystemDatabase,
  tenant: TenantId,
  stream: string,
  options: StreamWay & { readonly pageSize?: number } = {},
): AsyncGenerator<RecordedEvent, void, undefined> {
  const limit = pageSizeOf(options);
  const step = options.direction === 'backward' ? -1 : 1;
  let way: StreamWay = options;
  for (;;) {
    const page = await readIn(database, tenant, (tx) => readStream(tx, tenant, stream, { ...way, limit }));
    yield* page;
    if (page.length < limit) return;
    way = { ...way, from: page.at(-1)!.streamVersion + step };
  }
}

/** What an iteration over the log is asked for. */
export interface AllEventsOptions extends EventSelection {
  /** Only events behind this position; 0 for all. */
  readonly after: bigint;
  readonly pageSize?: number;
  /** Ends a wait for an open append with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * All events of the tenant up to the last one that is committed when the iteration begins, one after the other in the
 * order of the log, each once; a page in memory at a time, each page in a transaction of its own. What is appended later
 * is left out, so it ends however busy the log is. Near the end it may wait for appends that were open when it began.
 * @param fence of the same database; share one per process
 * @throws RangeError for a page size that is no number from 1 on
 */
export async function* allEvents(
  database: AppDatabase | SystemDatabase,
  tenant: TenantId,
  fence: Fence,
  options: AllEventsOptions,
): AsyncGenerator<RecordedEvent, void, undefined> {
  const limit = pageSizeOf(options);
  const end = await readIn(database, tenant, (tx) => lastPosition(tx, tenant));
  let { after } = options;
  let settled = 0n;
  while (after < end) {
    options.signal?.throwIfAborted();
    const page = await readIn(database, tenant, async (tx) => {
      if (settled <= after) settled = await fence.advance(tx);
      if (settled > end) settled = end;
      return settled > after ? readEvents(tx, tenant, { ...options, after, settled, limit }) : null;
    });
    yield* page ?? [];
    if (page?.length === limit) after = page.at(-1)!.position;
    else if (page) after = settled;
    else await pause(UNSETTLED_LOOK_MS, undefined, { signal: options.signal });
  }
}

/** Runs `work` in a short transaction of either role. */
export function readIn<Result>(
  database: AppDatabase | SystemDatabase,
  tenant: TenantId,
  work: (tx: Tx) => Promise<Result>,
): Promise<Result> {
  return database instanceof AppDatabase ? database.transaction(tenant, work) : database.transaction(work);
}

/** The page size that was asked for. @throws RangeError: with none or less nothing would ever be read */
export function pageSizeOf({ pageSize = EVENT_PAGE }: { readonly pageSize?: number }): number {
  if (!Number.isSafeInteger(pageSize) || pageSize < 1) throw new RangeError('a page has 1 event or more');
  return pageSize;
}

async function lastPosition(tx: Tx, tenant: TenantId): Promise<bigint> {
  const [last] = await tx.prepared<{ position: string }>(
    'select coalesce(max(position), 0) as position from event_log where tenant_id = $1',
    [tenant],
  );
  return BigInt(last!.position);
}
