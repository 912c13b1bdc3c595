import { createHmac, type Hmac } from 'node:crypto';
import type { TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';

/** The name of the format, in the first line of every file. */
export const LOG_EXPORT_FORMAT = 'atomo-event-log';
/** The version of the format that is written, and the newest that is read. */
export const LOG_EXPORT_VERSION = 1;
/** Rows of one page: enough that the way to Postgres does not count. */
const ROWS_PER_PAGE = 2_000;
/** Stored bytes of one page's events. Stored they are compressed, so in memory they may be several times as large. */
const BYTES_PER_PAGE = 8 * 1024 * 1024;

/** What can be wrong with an export, or with the database that it is to be put into. */
export const LOG_EXPORT_ERRORS = {
  LOG_EXPORT_INVALID:
    'The file is no export of the log, is cut off, was changed, or was sealed with another AUTH_SECRET. Take the untouched file and the AUTH_SECRET of that time.',
  LOG_EXPORT_TOO_NEW: 'The file was written by a newer Atomo. Import it with that one.',
  LOG_EXPORT_BROKEN:
    'An event in the file does not fit the chain of its stream: the file was changed, or the log was broken when it was exported. Nothing was imported.',
  LOG_NOT_EMPTY:
    'The log of this database has events already, and an import keeps positions. Import into an empty database.',
} as const;

/** The first line. What is counted stands in the last. */
export interface LogExportHeader {
  readonly format: typeof LOG_EXPORT_FORMAT;
  readonly version: number;
  /** The only tenant in it; null for all. */
  readonly tenant: TenantId | null;
  readonly at: string;
}

/** How much a file holds; the last line. */
export interface LogExportCounts {
  readonly keys: number;
  readonly answers: number;
  readonly events: number;
}

/**
 * An event's line. It holds all that the log stores, as it is stored: sealed fields stay sealed. The time has microseconds,
 * because the column has, although appends write whole milliseconds.
 */
export interface EventLine {
  readonly position: string;
  readonly tenant: TenantId;
  readonly stream: string;
  readonly version: number;
  readonly type: string;
  readonly schemaVersion: number;
  readonly data: Readonly<Record<string, unknown>>;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly recordedAt: string;
  /** Hexadecimal; null for an event that is older than the chain. */
  readonly hash: string | null;
}

/** What to export, and where to. */
export interface LogExportOptions {
  /** Only this tenant's. */
  readonly tenant?: TenantId | undefined;
  /** See `checkpointKey`; a checkpoint's first line names another format, so neither passes for the other. */
  readonly key: Buffer;
  /** Takes some whole lines; the next page is read when it resolves. */
  readonly write: (lines: string) => Promise<void> | void;
  /** Told the events written so far, and about how many there are. */
  readonly onProgress?: (events: number, expected: number) => void;
}

/**
 * Writes the log as lines of JSON: a header, the subjects' keys as they are wrapped, the answers of commands, the events in
 * the order of the log, and the counts with a seal over all lines before. With a page of it in memory.
 *
 * All of it is one snapshot of the database, and so are whole commands: an append that is open has none of its parts in it,
 * event, key or answer. The settled mark (see Fence) would not be better: it leaves out events above an open append whose
 * answers and keys are there. And an append that was left out never appears in a copy, so nobody who reads the copy can
 * miss it. Streams have no lines, since their events say what their rows do. The transaction holds back vacuum while it runs.
 */
export async function exportLog(database: SystemDatabase, options: LogExportOptions): Promise<LogExportCounts> {
  return database.transaction(async (tx) => {
    await tx.execute('set transaction isolation level repeatable read, read only');
    const tenant = options.tenant ?? null;
    const seal = createHmac('sha256', options.key);
    const counts = { keys: 0, answers: 0, events: 0 };
    const write = async (kind: keyof typeof counts, lines: readonly string[]) => {
      counts[kind] += lines.length;
      await options.write(sealed(seal, lines));
    };
    const header: LogExportHeader = {
      format: LOG_EXPORT_FORMAT,
      version: LOG_EXPORT_VERSION,
      tenant,
      at: new Date().toISOString(),
    };
    await options.write(sealed(seal, [JSON.stringify(header)]));
    for await (const page of keyPages(tx, tenant)) await write('keys', page);
    for await (const page of answerPages(tx, tenant)) await write('answers', page);
    const expected = await countEvents(tx, tenant);
    for await (const page of eventPages(tx, tenant)) {
      await write('events', page);
      options.onProgress?.(counts.events, expected);
    }
    await options.write(`${JSON.stringify({ end: counts, seal: seal.digest('hex') })}\n`);
    return counts;
  });
}

function sealed(seal: Hmac, lines: readonly string[]): string {
  // Some readers take these two for the end of a line; JSON may hold them escaped as well.
  const text = lines
    .map((line) => `${line}\n`)
    .join('')
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029');
  seal.update(text);
  return text;
}

const IN_UTC = `at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'`;

/** By the statistics for all, since counting reads the whole log. */
async function countEvents(tx: Tx, tenant: TenantId | null): Promise<number> {
  const [row] = await tx.query<{ events: number }>(
    tenant === null
      ? `select greatest(0, reltuples)::float8 as events from pg_class where oid = 'event_log'::regclass`
      : 'select count(*)::float8 as events from event_log where tenant_id = $1',
    tenant === null ? [] : [tenant],
  );
  return row!.events;
}

async function* eventPages(tx: Tx, tenant: TenantId | null): AsyncGenerator<string[]> {
  for (let after = '0'; ;) {
    // The event that goes over the bound is still taken: one that is larger alone would never be written otherwise.
    const rows = await tx.query<Omit<EventLine, 'data' | 'metadata'> & { data: string; metadata: string }>(
      `select position, tenant_id as tenant, stream, stream_version as version, type, schema_version as "schemaVersion",
              data::text as data, metadata::text as metadata, to_char(recorded_at ${IN_UTC}) as "recordedAt", encode(hash, 'hex') as hash
       from (
         select found.*, sum(size) over (order by position rows unbounded preceding) - size as before
         from (select *, pg_column_size(data) + pg_column_size(metadata) as size from event_log
               where position > $1 ${tenant === null ? '' : 'and tenant_id = $4'} order by position limit $2) as found
       ) as measured
       where before <= $3 order by position`,
      [after, ROWS_PER_PAGE, BYTES_PER_PAGE, ...(tenant === null ? [] : [tenant])],
    );
    if (rows.length === 0) return;
    // The two texts go as they are: numbers that JavaScript would round stay as they are stored.
    yield rows.map(
      ({ data, metadata, recordedAt, hash, ...row }) =>
        `{"event":${JSON.stringify(row).slice(0, -1)},"data":${data},"metadata":${metadata},"recordedAt":"${recordedAt}","hash":${JSON.stringify(hash)}}}`,
    );
    after = rows.at(-1)!.position;
  }
}

async function* keyPages(tx: Tx, tenant: TenantId | null): AsyncGenerator<string[]> {
  let last: { tenant: string; subject: string; generation: number } | undefined;
  for (;;) {
    const rows: NonNullable<typeof last>[] = await tx.query(
      `select tenant_id as tenant, subject, generation, encode(wrapped, 'hex') as wrapped, wrapped_by as "wrappedBy",
              to_char(created_at ${IN_UTC}) as "createdAt", to_char(destroyed_at ${IN_UTC}) as "destroyedAt"
       from subject_keys
       where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or (tenant_id, subject, generation) > ($2, $3::text, $4::int))
       order by tenant_id, subject, generation limit $5`,
      [tenant, last?.tenant ?? null, last?.subject ?? null, last?.generation ?? null, ROWS_PER_PAGE],
    );
    if (rows.length === 0) return;
    yield rows.map((row) => `{"key":${JSON.stringify(row)}}`);
    last = rows.at(-1);
  }
}

async function* answerPages(tx: Tx, tenant: TenantId | null): AsyncGenerator<string[]> {
  let last: { tenant: string; key: string } | undefined;
  for (;;) {
    const rows: NonNullable<typeof last>[] = await tx.query(
      `select tenant_id as tenant, key, fingerprint, record_id as "recordId", version, to_char(created_at ${IN_UTC}) as "createdAt"
       from command_answers
       where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or (tenant_id, key) > ($2, $3::text))
       order by tenant_id, key limit $4`,
      [tenant, last?.tenant ?? null, last?.key ?? null, ROWS_PER_PAGE],
    );
    if (rows.length === 0) return;
    yield rows.map((row) => `{"answer":${JSON.stringify(row)}}`);
    last = rows.at(-1);
  }
}
