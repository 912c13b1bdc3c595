import { createHmac, timingSafeEqual } from 'node:crypto';
import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { EventMetadata } from '@atomo-cc/events';
import { changeTables, sqlState, type Tx } from '@atomo-cc/platform/postgres';
import { chainHash } from './append.js';
import { FENCE_LOCK } from './fence.js';
import {
  LOG_EXPORT_ERRORS,
  LOG_EXPORT_FORMAT,
  LOG_EXPORT_VERSION,
  type EventLine,
  type LogExportCounts,
  type LogExportHeader,
} from './log-export.js';
import { EVENT_LOG_ERRORS, parseExactly, type LogFaultCode } from './verify.js';

/** Lines of one statement: enough that the way to Postgres does not count. */
const LINES_PER_WRITE = 2_000;
/** Characters of one statement's lines; a line that goes over it is still taken. */
const CHARS_PER_WRITE = 8 * 1024 * 1024;

/** Streams whose ends are kept in memory: some 20 MB. Beyond, they are written and read again when their stream goes on. */
const MAX_HEADS = 50_000;

/** What to believe of the file, and who is told. */
export interface LogImportOptions {
  /** The key of the seal (see `checkpointKey`); null believes a file without it, and the chains are still computed anew. */
  readonly key: Buffer | null;
  /** Unless given LINES_PER_WRITE. */
  readonly linesPerWrite?: number;
  /** Unless given MAX_HEADS. */
  readonly maxHeads?: number;
  /** Told the events written so far. */
  readonly onProgress?: (events: number) => void;
}

/** What was imported. */
export interface LogImported extends LogExportCounts {
  readonly header: LogExportHeader;
}

/**
 * Puts an export into a database: the same positions, times, links, keys and answers, and streams that go on from there. One
 * transaction, which ends only after the seal in the last line was found right: a file with a fault leaves nothing behind.
 * What is derived from the log is not written; replay it.
 *
 * It runs under the owner's login, and nothing else could do it: by privilege the roles of the services may not write an
 * event that was not appended by a tenant's own request, and they keep it so. Where the owner is no superuser row-level
 * security holds for it as well, so it is lifted for the owner alone inside this transaction. That also locks the tables:
 * nobody reads or appends meanwhile.
 *
 * The log must be empty. One tenant may also come to others where the file's positions lie behind all that were ever drawn,
 * as in a later append: at a lower position it would be passed over by every projection that is further.
 * @param lines without their line ends
 * @throws CodedError LOG_EXPORT_INVALID, LOG_EXPORT_TOO_NEW, LOG_EXPORT_BROKEN, LOG_NOT_EMPTY
 */
export async function importLog(
  databaseUrl: string,
  lines: AsyncIterable<string>,
  options: LogImportOptions,
): Promise<LogImported> {
  let imported: LogImported | undefined;
  await changeTables(databaseUrl, async (tx) => {
    // As an append does: the settled mark must not pass the positions before their events are there.
    await tx.execute('select pg_advisory_xact_lock_shared($1)', [FENCE_LOCK]);
    for (const table of TABLES) await tx.execute(`alter table ${table} no force row level security`);
    const file = new Import(tx, options);
    imported = await file.run(lines).catch((error: unknown) => {
      // A value that its column cannot have, or the same row twice: no export writes either.
      throw /^2[23]/.test(sqlState(error) ?? '')
        ? invalid(`up to line ${file.line} something is what no log can hold`)
        : error;
    });
    for (const table of TABLES) await tx.execute(`alter table ${table} force row level security`);
  });
  return imported!;
}

const TABLES = ['event_log', 'event_streams', 'subject_keys', 'command_answers'] as const;

type Kind = 'event' | 'key' | 'answer';

const RELATIONS: Readonly<Record<Kind, string>> = {
  event: `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at, hash)
    select position, tenant, stream, version, type, "schemaVersion", data, metadata, "recordedAt", decode(hash, 'hex')
    from json_to_recordset($1::json) as e (position bigint, tenant uuid, stream text, version int, type text, "schemaVersion" int,
                                           data jsonb, metadata jsonb, "recordedAt" timestamptz, hash text)`,
  key: `insert into subject_keys (tenant_id, subject, generation, wrapped, wrapped_by, created_at, destroyed_at)
    select tenant, subject, generation, decode(wrapped, 'hex'), "wrappedBy", "createdAt", "destroyedAt"
    from json_to_recordset($1::json) as k (tenant uuid, subject text, generation int, wrapped text, "wrappedBy" text,
                                           "createdAt" timestamptz, "destroyedAt" timestamptz)`,
  answer: `insert into command_answers (tenant_id, key, fingerprint, record_id, version, created_at)
    select tenant, key, fingerprint, "recordId", version, "createdAt"
    from json_to_recordset($1::json) as a (tenant uuid, key text, fingerprint text, "recordId" uuid, version int, "createdAt" timestamptz)`,
};
const COUNT_OF = { event: 'events', key: 'keys', answer: 'answers' } as const;

interface Head {
  version: number;
  /** Empty where the last event is older than the chain. */
  hash: Buffer;
}

interface Waiting {
  readonly line: number;
  readonly body: string;
  readonly content: { readonly tenant?: unknown };
  /** False for a line with a number that JavaScript cannot have written. */
  readonly isExact: boolean;
}

/** The way through one file. */
class Import {
  /** The line that was read last, from 1 on. */
  line = 0;
  private header: LogExportHeader | undefined;
  private readonly counts = { keys: 0, answers: 0, events: 0 };
  private last = 0n;
  private readonly heads = new Map<string, Head>();
  private hasWrittenHeads = false;
  private kind: Kind = 'key';
  private waiting: Waiting[] = [];
  private chars = 0;

  constructor(
    private readonly tx: Tx,
    private readonly options: LogImportOptions,
  ) {}

  async run(lines: AsyncIterable<string>): Promise<LogImported> {
    const seal = createHmac('sha256', this.options.key ?? '');
    let isOver = false;
    for await (const line of lines) {
      this.line += 1;
      if (isOver) throw invalid('something follows its last line');
      const { content, isExact } = this.parse(line);
      if (content['end'] !== undefined) {
        await this.flush();
        await this.writeHeads();
        this.checkEnd(content, seal.digest());
        isOver = true;
        continue;
      }
      seal.update(`${line}\n`);
      if (this.header) await this.take(line, content, isExact);
      else await this.begin(content as unknown as LogExportHeader);
    }
    if (!this.header || !isOver) throw invalid('its end is missing');
    // Not undone by a rollback, hence last; a number too many is only a hole.
    await this.tx.query(
      `select setval('event_log_position', greatest($1::bigint, last_value), true) from event_log_position where $1::bigint > 0`,
      [String(this.last)],
    );
    return { header: this.header, ...this.counts };
  }

  private async begin(header: LogExportHeader): Promise<void> {
    if (header.format !== LOG_EXPORT_FORMAT) throw invalid('its first line is not that of an export');
    if (!Number.isSafeInteger(header.version) || header.version < 1) throw invalid('its version is none');
    if (header.version > LOG_EXPORT_VERSION) {
      throw new CodedError(
        'LOG_EXPORT_TOO_NEW',
        `The file has version ${header.version} of the format, and this Atomo reads up to ${LOG_EXPORT_VERSION}. ${LOG_EXPORT_ERRORS.LOG_EXPORT_TOO_NEW}`,
      );
    }
    for (const table of TABLES) {
      const [found] = await this.tx.query(`select 1 from ${table} where $1::uuid is null or tenant_id = $1 limit 1`, [
        header.tenant,
      ]);
      if (found) throw notEmpty();
    }
    this.header = header;
  }

  private async take(line: string, content: Record<string, unknown>, isExact: boolean): Promise<void> {
    const kind = (Object.keys(RELATIONS) as Kind[]).find((each) => line.startsWith(`{"${each}":{`));
    if (!kind || Object.keys(content).length !== 1) throw invalid(`line ${this.line} is none of an export's`);
    if (
      kind !== this.kind ||
      this.waiting.length >= (this.options.linesPerWrite ?? LINES_PER_WRITE) ||
      this.chars >= CHARS_PER_WRITE
    ) {
      await this.flush();
      this.kind = kind;
    }
    const body = line.slice(kind.length + 4, -1);
    this.waiting.push({ line: this.line, body, content: content[kind] as { tenant?: unknown }, isExact });
    this.chars += body.length;
  }

  /** Writes the lines that wait. */
  private async flush(): Promise<void> {
    const { kind, waiting } = this;
    if (waiting.length === 0) return;
    for (const { line, content } of waiting) {
      if (this.header!.tenant !== null && content.tenant !== this.header!.tenant) {
        throw invalid(`line ${line} belongs to another tenant than the file`);
      }
    }
    if (kind === 'event') await this.chain();
    // The lines as they are: numbers that JavaScript would round reach Postgres as they were stored.
    await this.tx.execute(RELATIONS[kind], [`[${waiting.map(({ body }) => body).join(',')}]`]);
    this.counts[COUNT_OF[kind]] += waiting.length;
    [this.waiting, this.chars] = [[], 0];
    if (kind === 'event') this.options.onProgress?.(this.counts.events);
  }

  /** Computes the links of the waiting events anew, from where their streams were left. */
  private async chain(): Promise<void> {
    const events = this.waiting.map(({ line, content, isExact }) => ({
      line,
      event: content as unknown as EventLine,
      isExact,
    }));
    await this.checkRoom(events[0]!.event);
    await this.findHeads(events.map(({ event }) => event));
    for (const { line, event, isExact } of events) {
      const head = this.heads.get(keyOf(event))!;
      const position = /^\d{1,18}$/.test(event.position) ? BigInt(event.position) : 0n;
      if (position <= this.last) throw broken(line, event, 'LOG_POSITION_DISORDER');
      if (event.version > head.version + 1) throw broken(line, event, 'LOG_EVENT_MISSING');
      if (event.version !== head.version + 1) throw broken(line, event, 'LOG_EVENT_UNEXPECTED');
      if (event.hash !== null) {
        const hash = Buffer.from(event.hash, 'hex');
        if (!isExact || !linkOf(head.hash, event)?.equals(hash)) throw broken(line, event, 'LOG_EVENT_CHANGED');
        head.hash = hash;
      } else if (head.hash.length > 0) throw broken(line, event, 'LOG_LINK_MISSING');
      head.version = event.version;
      this.last = position;
    }
    if (this.heads.size > (this.options.maxHeads ?? MAX_HEADS)) await this.writeHeads();
  }

  /** Writes how far the streams are that were moved since the last time, and forgets them. */
  private async writeHeads(): Promise<void> {
    const moved = [...this.heads].map(([key, { version, hash }]) => {
      const [tenant, stream] = JSON.parse(key) as [string, string];
      return { tenant, stream, version, hash: hash.toString('hex') };
    });
    for (let from = 0; from < moved.length; from += LINES_PER_WRITE) {
      await this.tx.execute(
        `insert into event_streams (tenant_id, stream, version, hash)
         select tenant, stream, version, decode(hash, 'hex')
         from jsonb_to_recordset($1::jsonb) as h (tenant uuid, stream text, version int, hash text)
         on conflict (tenant_id, stream) do update set version = excluded.version, hash = excluded.hash`,
        [JSON.stringify(moved.slice(from, from + LINES_PER_WRITE))],
      );
    }
    this.hasWrittenHeads ||= moved.length > 0;
    this.heads.clear();
  }

  /** At the first event: whether all positions that were ever drawn lie before it. */
  private async checkRoom(first: EventLine): Promise<void> {
    if (this.last > 0n) return;
    const [found] = await this.tx.query(
      `select 1 from event_log_position s
       where exists (select 1 from event_log) and s.is_called and s.last_value >= $1::bigint`,
      [/^\d{1,18}$/.test(first.position) ? first.position : '0'],
    );
    if (found) throw notEmpty();
  }

  /** Brings the ends of the events' streams into memory. */
  private async findHeads(events: readonly EventLine[]): Promise<void> {
    const missing = new Set(events.map(keyOf).filter((key) => !this.heads.has(key)));
    for (const key of missing) this.heads.set(key, { version: 0, hash: Buffer.alloc(0) });
    if (!this.hasWrittenHeads) return;
    const keys = [...missing].map((key) => JSON.parse(key) as [string, string]);
    const rows = await this.tx.query<{ tenant: TenantId; stream: string } & Head>(
      `select s.tenant_id as tenant, s.stream, s.version, s.hash
       from unnest($1::uuid[], $2::text[]) as w (tenant_id, stream) join event_streams s using (tenant_id, stream)`,
      [keys.map(([tenant]) => tenant), keys.map(([, stream]) => stream)],
    );
    for (const { version, hash, ...row } of rows) this.heads.set(keyOf(row), { version, hash });
  }

  private checkEnd(content: Record<string, unknown>, right: Buffer): void {
    if (!this.header) throw invalid('its first line is not that of an export');
    if (this.options.key) {
      const given = Buffer.from(String(content['seal']), 'hex');
      if (given.length !== right.length || !timingSafeEqual(given, right)) {
        throw invalid('its seal is wrong, so some byte in it was changed, or AUTH_SECRET is another');
      }
    }
    const counts = content['end'] as Partial<LogExportCounts> | null;
    for (const kind of ['keys', 'answers', 'events'] as const) {
      if (counts?.[kind] !== this.counts[kind]) throw invalid(`its number of ${kind} is wrong`);
    }
  }

  private parse(line: string): { content: Record<string, unknown>; isExact: boolean } {
    try {
      const exact = parseExactly(line);
      const content: unknown = exact ?? JSON.parse(line);
      if (typeof content === 'object' && content !== null && Object.values(content).every(isPart)) {
        return { content: content as Record<string, unknown>, isExact: exact !== undefined };
      }
    } catch {
      // Told below, as any other line that is none of ours.
    }
    throw invalid(`line ${this.line} is no line of an export, or was changed`);
  }
}

/** What may stand in a line: one object, or the scalars of the first and the last. */
function isPart(part: unknown): boolean {
  return part === null || typeof part !== 'object' || !Array.isArray(part);
}

function keyOf({ tenant, stream }: Pick<EventLine, 'tenant' | 'stream'>): string {
  return JSON.stringify([tenant, stream]);
}

/** The link that the event should have; undefined for a time that no append writes. */
function linkOf(previous: Buffer, event: EventLine): Buffer | undefined {
  const { version: streamVersion, hash: _hash, position: _position, metadata, ...said } = event;
  const recordedAt = new Date(event.recordedAt);
  if (Number.isNaN(recordedAt.getTime()) || !/\.\d{3}0*Z$/.test(event.recordedAt)) return undefined;
  return chainHash(previous, { ...said, streamVersion, metadata: metadata as unknown as EventMetadata, recordedAt });
}

function broken(line: number, { position, stream, version, tenant }: EventLine, code: LogFaultCode): CodedError {
  return new CodedError(
    'LOG_EXPORT_BROKEN',
    `Line ${line}, tenant ${tenant}, stream ${JSON.stringify(stream)}, version ${version}, position ${position}: ${code}. ` +
      `${EVENT_LOG_ERRORS[code]} ${LOG_EXPORT_ERRORS.LOG_EXPORT_BROKEN}`,
    { line, position, stream, version, fault: code },
  );
}

function invalid(reason: string): CodedError {
  return new CodedError(
    'LOG_EXPORT_INVALID',
    `The file cannot be imported: ${reason}. ${LOG_EXPORT_ERRORS.LOG_EXPORT_INVALID} Nothing was imported.`,
  );
}

function notEmpty(): CodedError {
  return new CodedError('LOG_NOT_EMPTY', LOG_EXPORT_ERRORS.LOG_NOT_EMPTY);
}
