import type { TenantId } from '@atomo-cc/kernel';
import type { EventMetadata, RecordedEvent } from '@atomo-cc/events';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { chainHash } from './append.js';

/** What can be wrong with the log. Only somebody with more rights than Atomo's own roles can bring about any of it. */
export const EVENT_LOG_ERRORS = {
  LOG_EVENT_CHANGED:
    'The event does not fit its link: it or the link was changed, or an event before it was taken out or put in. Compare it with a backup.',
  LOG_EVENT_MISSING:
    'The stream goes on behind a version that is not there: an event was removed. Restore it from a backup.',
  LOG_EVENT_UNEXPECTED:
    "An event has a version that the stream's row does not count: it was put in, or the row was changed. Compare both with a backup.",
  LOG_LINK_MISSING:
    'The event has no link although events before it have one: the link was removed, or the event was put in.',
  LOG_HEAD_MISMATCH:
    "The stream's row and the stream's last event disagree: the last events were removed, or the row was changed. Compare both with a backup.",
  LOG_POSITION_DISORDER:
    'The event has no greater position than the one before it in its stream: a position was changed.',
  LOG_STREAM_ROW_MISSING: 'The stream has events but no row: the row was removed, or the events were put in.',
  LOG_STREAM_GONE: 'The checkpoint knows a stream of which no event is left: it was removed. Restore it from a backup.',
  LOG_STREAM_SHORTER:
    'The checkpoint knows later events of the stream than are there: they were removed. Restore them from a backup.',
  LOG_HISTORY_REWRITTEN:
    'The event is not the one that the checkpoint knows: the stream was written anew. Compare it with a backup.',
  LOG_CHECKPOINT_INVALID:
    'The file is no checkpoint, was changed, or was signed with another AUTH_SECRET. Take the untouched file and the AUTH_SECRET of that time.',
} as const;

/** A way in which a stream is broken. */
export type LogFaultCode = Exclude<keyof typeof EVENT_LOG_ERRORS, 'LOG_CHECKPOINT_INVALID'>;

/** The first broken link of a stream. */
export interface LogFault {
  readonly code: LogFaultCode;
  readonly tenant: TenantId;
  readonly stream: string;
  /** The version at which the stream is broken. */
  readonly version: number;
  /** Of that event or, where it is not there, of the last one found before it; null when there is none. */
  readonly position: bigint | null;
}

/** The end of a stream as it was found. */
export interface StreamHead {
  readonly tenant: TenantId;
  readonly stream: string;
  /** 0 when nothing was ever appended. */
  readonly version: number;
  /** The link of the last event; empty when that event is older than the chain. */
  readonly hash: Buffer;
  /** The position of the last event; 0 when there is none. */
  readonly position: bigint;
}

/** How far a verification went. */
export interface LogTotals {
  readonly streams: number;
  readonly events: number;
  /** Events that are older than the chain: nothing vouches for what they say. */
  readonly unchained: number;
  readonly broken: number;
}

/** What to verify, and who is told. */
export interface VerifyOptions {
  /** Only this tenant's streams. */
  readonly tenant?: TenantId | undefined;
  /** Told once for each broken stream. */
  readonly onFault: (fault: LogFault) => void;
  /** Told once for each sound stream. */
  readonly onSound?: (head: StreamHead) => Promise<void> | void;
}

/** Streams per look: their heads are what one page holds. */
const STREAMS_PER_PAGE = 500;
/** Events per look: enough that the way to Postgres does not count, few enough that large events stay within memory. */
const EVENTS_PER_PAGE = 500;

/**
 * Walks every stream's chain and computes every link anew. Needs memory for one page, and holds no transaction open.
 *
 * Appends may go on meanwhile. A page of streams is read in one statement, hence at one instant, in which a stream's row
 * and its events fit together because every append commits them together; of each stream only the events that were there
 * at that instant are then read, and those can never change. What is appended later is not looked at.
 *
 * It cannot see a stream that was removed with its row, or one that was written anew from an event on, links and row
 * included: for both, compare with a checkpoint. Positions are held to their order only, since no link covers them.
 */
export async function verifyLog(database: SystemDatabase, options: VerifyOptions): Promise<LogTotals> {
  const totals = { streams: 0, events: 0, unchained: 0, broken: 0 };
  let last: FoundStream | undefined;
  do {
    const after = last;
    const found = await database.transaction((tx) => findStreams(tx, after, options.tenant));
    last = found.at(-1);
    const walks = found.map((stream) => new Walk(stream));
    for (let pieces = nextPieces(walks); pieces.length > 0; pieces = nextPieces(walks)) {
      const rows = await database.transaction((tx) => readPieces(tx, pieces));
      for (const row of rows) pieces[row.piece - 1]!.walk.pass(row);
      for (const { walk, upTo } of pieces) walk.arrive(upTo);
    }
    for (const walk of walks) {
      walk.end();
      totals.streams += 1;
      totals.events += walk.events;
      totals.unchained += walk.unchained;
      if (walk.fault) {
        totals.broken += 1;
        options.onFault(walk.fault);
      } else await options.onSound?.(walk.head);
    }
  } while (last);
  return totals;
}

/** A stream at the instant at which it was found. */
interface FoundStream {
  readonly tenant: TenantId;
  readonly stream: string;
  /** Of the stream's row; null when there is no row. */
  readonly version: number | null;
  readonly hash: Buffer | null;
  /** The least and the greatest version among its events; null when there are none. */
  readonly oldest: number | null;
  readonly newest: number | null;
  readonly oldestPosition: string | null;
}

interface LoggedLink {
  readonly version: number;
  readonly position: string;
  readonly type: string;
  readonly schemaVersion: number;
  /** As text: numbers that JavaScript would round must be seen as they are. */
  readonly data: string;
  readonly metadata: string;
  /** Null for a time that no append writes: appends write whole milliseconds. */
  readonly recordedAt: Date | null;
  readonly hash: Buffer | null;
}

/** The way along one stream, up to the first broken link. */
class Walk {
  events = 0;
  unchained = 0;
  fault: LogFault | undefined;
  /** The version up to which all is sound. */
  reached = 0;
  #hash: Buffer = Buffer.alloc(0);
  #position = 0n;

  constructor(private readonly found: FoundStream) {
    const { version, oldest, oldestPosition } = found;
    if (oldest === null || oldestPosition === null) return;
    if (version === null) this.#fail('LOG_STREAM_ROW_MISSING', oldest, BigInt(oldestPosition));
    else if (oldest < 1) this.#fail('LOG_EVENT_UNEXPECTED', oldest, BigInt(oldestPosition));
  }

  get tenant(): TenantId {
    return this.found.tenant;
  }

  get stream(): string {
    return this.found.stream;
  }

  get head(): StreamHead {
    return {
      tenant: this.tenant,
      stream: this.stream,
      version: this.reached,
      hash: this.#hash,
      position: this.#position,
    };
  }

  /** How many versions are still to be passed. */
  get left(): number {
    return this.fault ? 0 : (this.found.newest ?? 0) - this.reached;
  }

  /** Takes the next event into view. */
  pass(row: LoggedLink): void {
    if (this.fault) return;
    this.events += 1;
    const expected = this.reached + 1;
    const position = BigInt(row.position);
    if (row.version > expected) return this.#fail('LOG_EVENT_MISSING', expected);
    if (row.version < expected || row.version > this.found.version!) {
      return this.#fail('LOG_EVENT_UNEXPECTED', row.version, position);
    }
    if (position <= this.#position) return this.#fail('LOG_POSITION_DISORDER', row.version, position);
    if (row.hash) {
      if (!this.#linkOf(row)?.equals(row.hash)) return this.#fail('LOG_EVENT_CHANGED', row.version, position);
      this.#hash = row.hash;
    } else if (this.#hash.length > 0) return this.#fail('LOG_LINK_MISSING', row.version, position);
    else this.unchained += 1;
    this.#position = position;
    this.reached = row.version;
  }

  /** Says that all events up to a version came into view. */
  arrive(upTo: number): void {
    if (!this.fault && this.reached < upTo) this.#fail('LOG_EVENT_MISSING', this.reached + 1);
  }

  /** Says that the last event came into view: now the stream's row has to agree. */
  end(): void {
    if (this.fault) return;
    const { version, hash } = this.found;
    if (this.reached < version!) this.#fail('LOG_HEAD_MISMATCH', this.reached + 1);
    else if (!hash?.equals(this.#hash)) this.#fail('LOG_HEAD_MISMATCH', this.reached);
  }

  /** The link that the event should have; undefined for an event that no append can have written. */
  #linkOf(row: LoggedLink): Buffer | undefined {
    if (!row.recordedAt || Number.isNaN(row.recordedAt.getTime())) return undefined;
    const data = parseExactly(row.data);
    const metadata = parseExactly(row.metadata);
    if (data === undefined || metadata === undefined) return undefined;
    return chainHash(this.#hash, {
      tenant: this.tenant,
      stream: this.stream,
      streamVersion: row.version,
      type: row.type,
      schemaVersion: row.schemaVersion,
      data: data as RecordedEvent['data'],
      metadata: metadata as EventMetadata,
      recordedAt: row.recordedAt,
    });
  }

  #fail(code: LogFaultCode, version: number, position = this.#position): void {
    const { tenant, stream } = this.found;
    this.fault = { code, tenant, stream, version, position: position === 0n ? null : position };
  }
}

/** Versions of one stream that are read at once: behind `after`, up to `upTo`. */
interface Piece {
  readonly walk: Walk;
  readonly after: number;
  readonly upTo: number;
}

/** The next pieces of the way, together at most one page of events: many short streams, or a part of a long one. */
function nextPieces(walks: readonly Walk[]): Piece[] {
  const pieces: Piece[] = [];
  let room = EVENTS_PER_PAGE;
  for (const walk of walks) {
    const size = Math.min(walk.left, room);
    if (size > 0) pieces.push({ walk, after: walk.reached, upTo: walk.reached + size });
    room -= size;
    if (room === 0) break;
  }
  return pieces;
}

/**
 * The next streams by tenant and name: those that have a row and those that have events. The latter are found by jumping
 * from each to the next in the index, which costs a probe per stream however many events it has.
 */
async function findStreams(
  tx: Tx,
  after: FoundStream | undefined,
  tenant: TenantId | undefined,
): Promise<FoundStream[]> {
  return tx.query<FoundStream>(
    `with recursive logged as (
       (select tenant_id, stream, 1 as n from event_log
        where ($1::uuid is null or (tenant_id, stream) > ($1, $2::text)) and ($3::uuid is null or tenant_id = $3)
        order by tenant_id, stream limit 1)
       union all
       select e.tenant_id, e.stream, l.n + 1 from logged l cross join lateral (
         select tenant_id, stream from event_log
         where (tenant_id, stream) > (l.tenant_id, l.stream) and ($3::uuid is null or tenant_id = $3)
         order by tenant_id, stream limit 1) e
       where l.n < $4
     ), known as (
       select tenant_id, stream from event_streams
       where ($1::uuid is null or (tenant_id, stream) > ($1, $2::text)) and ($3::uuid is null or tenant_id = $3)
       order by tenant_id, stream limit $4
     ), page as (
       select tenant_id, stream from known union select tenant_id, stream from logged order by tenant_id, stream limit $4
     )
     select p.tenant_id as tenant, p.stream, s.version, s.hash, o.stream_version as oldest, n.stream_version as newest,
            o.position as "oldestPosition"
     from page p
     left join event_streams s on s.tenant_id = p.tenant_id and s.stream = p.stream
     left join lateral (select stream_version, position from event_log e where e.tenant_id = p.tenant_id and e.stream = p.stream
                        order by stream_version limit 1) o on true
     left join lateral (select stream_version from event_log e where e.tenant_id = p.tenant_id and e.stream = p.stream
                        order by stream_version desc limit 1) n on true
     order by p.tenant_id, p.stream`,
    [after?.tenant ?? null, after?.stream ?? null, tenant ?? null, STREAMS_PER_PAGE],
  );
}

/** The events of these pieces, in order. `offset 0` keeps it to one walk of the index per piece, whatever the statistics say. */
async function readPieces(tx: Tx, pieces: readonly Piece[]): Promise<(LoggedLink & { readonly piece: number })[]> {
  return tx.query(
    `select p.n::int as piece, e.stream_version as version, e.position, e.type, e.schema_version as "schemaVersion",
            e.data::text as data, e.metadata::text as metadata, e.hash,
            case when isfinite(e.recorded_at) and e.recorded_at = date_trunc('milliseconds', e.recorded_at)
                 then e.recorded_at end as "recordedAt"
     from unnest($1::uuid[], $2::text[], $3::int[], $4::int[]) with ordinality as p (tenant_id, stream, after, up_to, n)
     cross join lateral (
       select * from event_log l
       where l.tenant_id = p.tenant_id and l.stream = p.stream
         and l.stream_version > p.after and l.stream_version <= p.up_to
       order by l.stream_version offset 0) e
     order by p.n, e.stream_version`,
    [
      pieces.map(({ walk }) => walk.tenant),
      pieces.map(({ walk }) => walk.stream),
      pieces.map(({ after }) => after),
      pieces.map(({ upTo }) => upTo),
    ],
  );
}

/** Two different numbers of up to 15 digits are two different doubles, so only longer ones can be rounded unseen. */
const LONG_NUMBER = /[\d.]{16}/;

/** The value of JSON text; undefined when it has a number that JavaScript cannot have written. */
export function parseExactly(text: string): unknown {
  if (!LONG_NUMBER.test(text)) return JSON.parse(text);
  let isExact = true;
  // TypeScript's library does not know the third argument yet: https://tc39.es/proposal-json-parse-with-source
  const parse = JSON.parse as (
    text: string,
    reviver: (...seen: [string, unknown, { source?: string }]) => unknown,
  ) => unknown;
  const value = parse(text, (_key, seen, { source = '' }) => {
    if (typeof seen === 'number' && decimalOf(source) !== decimalOf(String(seen))) isExact = false;
    return seen;
  });
  return isExact ? value : undefined;
}

/** A number's one way of being written: its digits without zeros at the ends, and the exponent. */
function decimalOf(number: string): string | undefined {
  const [, sign, whole, part = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(number) ?? [];
  if (whole === undefined) return undefined;
  const digits = (whole + part).replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  return kept && `${sign}${kept}e${Number(exponent) - part.length + digits.length - kept.length}`;
}
