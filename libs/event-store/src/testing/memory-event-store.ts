import { EventEmitter, once } from 'node:events';
import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { AppendResult, StreamAppend } from '../append.js';
import type { KeptAnswer } from '../idempotency.js';
import { EVENT_PAGE, pageSizeOf, type EventSelection, type StreamWay } from '../read.js';
import type { EventStore, LogPage } from './event-store.js';

/**
 * An event store in memory, for unit tests of what reads and appends: no database, no wait. Data goes through JSON as it
 * does in Postgres. It keeps no chain and has no open appends, so its mark is always its last position.
 */
export function memoryEventStore(): EventStore {
  return new MemoryEventStore();
}

class MemoryEventStore implements EventStore {
  private readonly log: RecordedEvent[] = [];
  private readonly heads = new Map<string, number>();
  private readonly answers = new Map<string, KeptAnswer>();
  private readonly appended = new EventEmitter().setMaxListeners(0);

  async append(
    tenant: TenantId,
    appends: readonly StreamAppend[],
    answers: readonly KeptAnswer[] = [],
  ): Promise<AppendResult> {
    const keys = answers.map(({ key }) => owned(tenant, key));
    const taken = keys.find((key, n) => this.answers.has(key) || keys.indexOf(key) < n);
    const heads = new Map<string, number>();
    const events: RecordedEvent[] = [];
    for (const { stream, expected, events: added, metadata } of appends) {
      const name = owned(tenant, stream);
      let version = heads.get(name) ?? this.heads.get(name) ?? 0;
      const known = expected === 'none' ? 0 : expected;
      if (known !== 'any' && known !== version) return { ok: false, stream, currentVersion: version };
      for (const { type, schemaVersion, data } of added) {
        version += 1;
        const position = BigInt(this.log.length + events.length + 1);
        const recordedAt = new Date();
        const said = throughJson({ data, metadata });
        events.push({ position, tenant, stream, streamVersion: version, type, schemaVersion, ...said, recordedAt });
      }
      heads.set(name, version);
    }
    if (taken) throw new Error('an answer is kept under this key already');
    for (const [name, version] of heads) this.heads.set(name, version);
    for (const [n, answer] of answers.entries()) this.answers.set(keys[n]!, { ...answer });
    this.log.push(...events);
    this.appended.emit('appended');
    return { ok: true, events: events.map(copyOf) };
  }

  async findAnswers(tenant: TenantId, keys: readonly string[]): Promise<ReadonlyMap<string, KeptAnswer>> {
    const found = keys.flatMap((key) => this.answers.get(owned(tenant, key)) ?? []);
    return new Map(found.map((answer) => [answer.key, { ...answer }]));
  }

  async readStream(
    tenant: TenantId,
    stream: string,
    { from, direction, limit }: StreamWay & { readonly limit: number },
  ): Promise<readonly RecordedEvent[]> {
    const all = this.log.filter((event) => event.tenant === tenant && event.stream === stream);
    const isForward = direction !== 'backward';
    const way = isForward ? all : all.reverse();
    const first = from ?? (isForward ? 1 : Infinity);
    const wanted = way.filter(({ streamVersion }) => (isForward ? streamVersion >= first : streamVersion <= first));
    return wanted.slice(0, limit).map(copyOf);
  }

  async readAll(
    tenant: TenantId,
    { after, limit, ...selection }: EventSelection & { readonly after: bigint; readonly limit: number },
  ): Promise<LogPage> {
    return { events: this.behind(tenant, after, limit, selection), settled: BigInt(this.log.length) };
  }

  subscribe(
    tenant: TenantId,
    options: EventSelection & { readonly after: bigint; readonly signal: AbortSignal; readonly pageSize?: number },
  ): AsyncIterable<readonly RecordedEvent[]> {
    pageSizeOf(options);
    return this.follow(tenant, options);
  }

  private async *follow(
    tenant: TenantId,
    options: EventSelection & { readonly after: bigint; readonly signal: AbortSignal; readonly pageSize?: number },
  ): AsyncGenerator<readonly RecordedEvent[], void, undefined> {
    const { signal, pageSize = EVENT_PAGE } = options;
    let { after } = options;
    while (!signal.aborted) {
      const page = this.behind(tenant, after, pageSize, options);
      if (page.length > 0) {
        after = page.at(-1)!.position;
        yield page;
      } else {
        // Nothing can be appended between the look and the wait: both are in one turn.
        await once(this.appended, 'appended', { signal }).catch((error: unknown) => {
          if (!signal.aborted) throw error;
        });
      }
    }
  }

  private behind(tenant: TenantId, after: bigint, limit: number, selection: EventSelection): RecordedEvent[] {
    const { types, stream, streamPrefix } = selection;
    const found: RecordedEvent[] = [];
    // Positions count from 1 without holes here, so a position is also the index of the event behind it.
    for (let at = Number(after); at < this.log.length && found.length < limit; at += 1) {
      const event = this.log[at]!;
      if (event.tenant !== tenant || (types && !types.includes(event.type))) continue;
      if (
        (stream !== undefined && stream !== null && event.stream !== stream) ||
        !event.stream.startsWith(streamPrefix ?? '')
      )
        continue;
      found.push(copyOf(event));
    }
    return found;
  }
}

/** Two tenants may use one name. A tenant's id is a UUID, so the first space ends it. */
function owned(tenant: TenantId, name: string): string {
  return `${tenant} ${name}`;
}

/** What a caller does to its copy does not change the log. */
function copyOf(event: RecordedEvent): RecordedEvent {
  return { ...event, ...throughJson({ data: event.data, metadata: event.metadata }) };
}

function throughJson(said: Pick<RecordedEvent, 'data' | 'metadata'>): Pick<RecordedEvent, 'data' | 'metadata'> {
  return JSON.parse(JSON.stringify(said)) as typeof said;
}
