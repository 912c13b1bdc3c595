import type { TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';

/**
 * Rows that are looked at for one page where no index answers the whole question (a rare field, say). It keeps a page
 * below 20 ms on a log of any length; the next page goes on where the look ended.
 */
export const MAX_AUDIT_LOOK = 10_000;
/** The same where each row is found by way of the log's indexes, and costs eight times as much. */
const MAX_JOINED_LOOK = 1_250;
/**
 * How much later than its time an event may have drawn its position, in milliseconds. Both happen in the two statements of
 * one append; the first may wait for streams' rows until its statement_timeout of 60 s, the second waits for nothing.
 */
export const TIME_SLACK_MS = 70_000;

/** Which rows of the audit log are asked for, newest first. All that is given must hold. */
export interface AuditFilter {
  readonly actor?: string | null;
  /** Types of event. */
  readonly actions?: readonly string[] | null;
  readonly stream?: string | null;
  /** Rows that name at least one of these fields. */
  readonly fields?: readonly string[] | null;
  /** Recorded at or after. */
  readonly from?: Date | null;
  /** Recorded before. */
  readonly to?: Date | null;
  /** Only rows that are older than this position. */
  readonly after?: bigint | null;
  /** Only rows up to the settled mark (see Fence), so that no page changes later. */
  readonly settled: bigint;
  readonly limit: number;
}

/** Who did what, when and to what. */
export interface AuditEntry {
  /** Of the event, which has the values. */
  readonly position: bigint;
  readonly at: Date;
  readonly actor: string;
  /** The type of the event. */
  readonly action: string;
  readonly stream: string;
  readonly streamVersion: number;
  /** Names only, sorted. */
  readonly fields: readonly string[];
  readonly address: string | null;
  /** The event's correlation id: one for everything that a request set off. */
  readonly requestId: string | null;
  /** Why, in the words of who did it, where they were asked. */
  readonly reason: string | null;
}

/** A page of the audit log. */
export interface AuditPage {
  readonly entries: readonly AuditEntry[];
  /**
   * Where the look ended before the page was full: everything down to here was looked at, and older rows may match as
   * well. Null for a full page, and where there is nothing older.
   */
  readonly lookedTo: bigint | null;
}

/**
 * The fields that an event names: keys of `data` that are not the store's own, and those in the sealed box. Sorted by code
 * points, so that every database writes the same row.
 */
const FIELDS = `array(
  select field collate "C" from jsonb_object_keys(data) as field where not starts_with(field, '$')
  union select field collate "C" from jsonb_array_elements_text(data->'$sealed'->'fields') as field
  order by 1)`;

/** The columns of the audit log in the order of {@link auditRowsOf}. */
const AUDIT_COLUMNS = 'tenant_id, position, recorded_at, actor, action, stream, stream_version, fields, address';

/**
 * The statement that writes the audit rows of events, the same for appends and for a replay.
 * @param events a relation with the columns of the log, and a condition if need be; never from outside
 */
export function insertAuditRows(events: string): string {
  return `insert into audit_log (${AUDIT_COLUMNS})
    select tenant_id, position, recorded_at, metadata->>'actor', type, stream, stream_version, ${FIELDS}, metadata->>'address'
    from ${events}`;
}

/**
 * A page of the audit log. Each kind of question has a statement that goes down one index from the newest row; no index is
 * there for this alone but that by actor. By action it goes down the log's index by type, by stream down the stream, and
 * what remains of the question is answered row by row, at most MAX_AUDIT_LOOK of them.
 *
 * Times become positions: both grow together but for appends that overlap, which TIME_SLACK_MS allows for, so that a search
 * by halves over the primary key does what an index by time would do, and writes pay nothing for it.
 */
export async function readAudit(tx: Tx, tenant: TenantId, filter: AuditFilter): Promise<AuditPage> {
  const { actor = null, actions = null, stream = null, fields = null, from = null, to = null, limit } = filter;
  const bounds = await boundsOf(tx, tenant, filter);
  const kind = kindOf(filter);
  const rows = await tx.query<AuditRow>(PAGE_OF[kind], [
    tenant,
    String(bounds.above),
    String(bounds.below),
    limit,
    actor,
    actions,
    stream,
    fields,
    from,
    to,
    lookOf(kind, filter),
  ]);
  const entries = rows.flatMap((row) => (row.position === null ? [] : [toEntry(row as FoundRow)]));
  const floor = rows[0]?.floor ?? null;
  return { entries, lookedTo: entries.length < limit && floor !== null ? BigInt(floor) : null };
}

type Kind = 'all' | 'actor' | 'actorActions' | 'actions' | 'stream';

function kindOf({ actor, actions, stream }: AuditFilter): Kind {
  if (stream != null) return 'stream';
  if (actor != null) return actions == null ? 'actor' : 'actorActions';
  return actions == null ? 'all' : 'actions';
}

/** Rows to look at in each group: the page where its index answers the whole question, else the group's share. */
function lookOf(kind: Kind, { actor, actions, fields, from, to, limit }: AuditFilter): number {
  const isAnswered = fields == null && !from && !to && (kind !== 'stream' || (actor == null && actions == null));
  if (isAnswered) return limit;
  const rows = kind === 'stream' || kind === 'actions' ? MAX_JOINED_LOOK : MAX_AUDIT_LOOK;
  const groups = kind === 'actions' || kind === 'actorActions' ? new Set(actions).size : 1;
  return Math.max(limit, Math.floor(rows / Math.max(1, groups)));
}

interface FoundRow {
  readonly position: string;
  readonly recorded_at: Date;
  readonly actor: string;
  readonly action: string;
  readonly stream: string;
  readonly stream_version: number;
  readonly fields: string[];
  readonly address: string | null;
  readonly request_id: string | null;
  readonly reason: string | null;
}
/** The floor stands in every row, and in one without anything else when nothing was found. */
type AuditRow = { [Column in keyof FoundRow]: FoundRow[Column] | null } & { readonly floor: string | null };

function toEntry(row: FoundRow): AuditEntry {
  return {
    position: BigInt(row.position),
    at: row.recorded_at,
    actor: row.actor,
    action: row.action,
    stream: row.stream,
    streamVersion: row.stream_version,
    fields: row.fields,
    address: row.address,
    requestId: row.request_id,
    reason: row.reason,
  };
}

const WITHIN = 'position > $2 and position < $3';
const ROW = 'select * from audit_log a where a.tenant_id = $1';
const ALL_ACTIONS = 'groups as (select null::text as action)';
const GIVEN_ACTIONS = 'groups as (select distinct unnest($6::text[]) as action)';

const PAGE_OF: Readonly<Record<Kind, string>> = {
  all: pageStatement(ALL_ACTIONS, `${ROW} and ${WITHIN} order by position desc`),
  actorActions: pageStatement(
    GIVEN_ACTIONS,
    `${ROW} and actor = $5 and a.action = g.action and ${WITHIN} order by position desc`,
  ),
  // The index by actor is in the order of positions within each action: they are found by jumping from each to the next.
  actor: pageStatement(
    `groups as (
       (select action from audit_log where tenant_id = $1 and actor = $5 order by action limit 1)
       union all
       select n.action from groups g cross join lateral (
         select action from audit_log where tenant_id = $1 and actor = $5 and action > g.action order by action limit 1) n
     )`,
    `${ROW} and actor = $5 and a.action = g.action and ${WITHIN} order by position desc`,
    'greatest($4, $11::int / (select greatest(1, count(*)::int) from groups))',
  ),
  actions: pageStatement(
    GIVEN_ACTIONS,
    `select a.* from (select position from event_log where tenant_id = $1 and type = g.action and ${WITHIN} order by position desc limit $11) e
     cross join lateral (${ROW} and a.position = e.position) a order by e.position desc`,
  ),
  // Within a stream positions grow with versions, and no index has both: the versions that the positions leave are found by
  // halves. Otherwise a page at the other end of a long stream would go through all of it.
  stream: pageStatement(
    `halves as (
       select at, 0 as low,
              coalesce((select stream_version from event_log where tenant_id = $1 and stream = $7 order by stream_version desc limit 1), 0) + 1 as high
       from unnest(array[$2::bigint + 1, $3::bigint]) as at
       union all
       select h.at, case when e.position < h.at then e.stream_version else h.low end,
              case when e.position < h.at then h.high else (h.low + h.high) / 2 end
       from halves h
       left join lateral (
         select position, stream_version from event_log
         where tenant_id = $1 and stream = $7 and stream_version >= (h.low + h.high) / 2 and stream_version < h.high
         order by stream_version limit 1) e on true
       where h.high - h.low > 1
     ),
     versions as (
       select coalesce(max(low) filter (where at = $2::bigint + 1), 0) as above, coalesce(max(low) filter (where at = $3::bigint), 0) as upto from halves
     ),
     ${ALL_ACTIONS}`,
    `select a.* from (
       select position, stream_version from event_log where tenant_id = $1 and stream = $7 and ${WITHIN}
         and stream_version > (select above from versions) and stream_version <= (select upto from versions)
       order by stream_version desc limit $11) e
     cross join lateral (${ROW} and a.position = e.position) a order by e.stream_version desc`,
  ),
};

/**
 * Each group is gone down from its newest row until the page is full or its share of the look is used up. Rows count from
 * the highest place at which a group was left, since below it that group may have more; `floor` is that place.
 */
function pageStatement(groups: string, source: string, look = '$11'): string {
  return `with recursive ${groups},
    found as materialized (
      select g.action as grp, r.* from groups g cross join lateral (
        select * from (${source} limit ${look}) s
        where ($5::text is null or s.actor = $5) and ($6::text[] is null or s.action = any($6))
          and ($7::text is null or s.stream = $7) and ($8::text[] is null or s.fields && $8)
          and ($9::timestamptz is null or s.recorded_at >= $9) and ($10::timestamptz is null or s.recorded_at < $10)
        order by s.position desc limit $4) r
    ),
    floors as (
      select max(case when f.rows >= $4 then f.low else
                   (select s.position from (${source} limit ${look}) s
                    order by s.position desc offset ${look} - 1 limit 1) end) as floor
      from groups g
      left join (select grp, count(*) as rows, min(position) as low from found group by grp) f on f.grp is not distinct from g.action
    )
    select floor, p.*, e.metadata->>'correlationId' as request_id, e.metadata->>'reason' as reason
    from floors
    left join lateral (
      select position, recorded_at, actor, action, stream, stream_version, fields, address
      from found where position >= coalesce(floor, 0) order by position desc limit $4) p on true
    left join event_log e on e.tenant_id = $1 and e.position = p.position
    order by p.position desc`;
}

/** The positions that can hold matches: above the one, below the other. */
async function boundsOf(
  tx: Tx,
  tenant: TenantId,
  { from, to, after, settled }: AuditFilter,
): Promise<{ above: bigint; below: bigint }> {
  const end = after != null && after <= settled ? after : settled + 1n;
  if (!from && !to) return { above: 0n, below: end };
  const [row] = await tx.query<{ above: string; below: string }>(
    `with recursive halves as (
       select side, at, 0::bigint as low, $2::bigint as high
       from (values ('from', $3::timestamptz - $5 * interval '1 millisecond'), ('to', $4::timestamptz + $5 * interval '1 millisecond'))
         as wanted (side, at)
       where at is not null
       union all
       select h.side, h.at, case when r.recorded_at < h.at then r.position else h.low end,
              case when r.recorded_at < h.at then h.high else (h.low + h.high) / 2 end
       from halves h
       left join lateral (
         select position, recorded_at from audit_log
         where tenant_id = $1 and position >= (h.low + h.high) / 2 and position < h.high order by position limit 1) r on true
       where h.high - h.low > 1
     )
     select coalesce(max(low) filter (where side = 'from'), 0) as above,
            coalesce(min(high) filter (where side = 'to'), $2) as below from halves`,
    [tenant, String(end), from ?? null, to ?? null, TIME_SLACK_MS],
  );
  return { above: BigInt(row!.above), below: BigInt(row!.below) };
}
