import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { AppendResult, StreamAppend } from '../append.js';
import type { KeptAnswer } from '../idempotency.js';
import type { EventSelection, StreamWay } from '../read.js';

/** One page of a tenant's log. */
export interface LogPage {
  /** In the order of the log, every one behind `after` that is selected, up to the limit or to `settled`. */
  readonly events: readonly RecordedEvent[];
  /** The mark: at or below it nothing can still appear, so a page that is not full is followed by one behind this. */
  readonly settled: bigint;
}

/**
 * An event store as its users see it: what Postgres does in transactions, here one call each. `eventStoreConformance` says
 * what every implementation must do; `memoryEventStore` is the one for unit tests.
 */
export interface EventStore {
  /**
   * All of it or nothing, with the answers that repeats of the command will find.
   * @throws Error, with nothing done, when an answer is kept under one of the keys already
   */
  append(tenant: TenantId, appends: readonly StreamAppend[], answers?: readonly KeptAnswer[]): Promise<AppendResult>;
  findAnswers(tenant: TenantId, keys: readonly string[]): Promise<ReadonlyMap<string, KeptAnswer>>;
  readStream(
    tenant: TenantId,
    stream: string,
    page: StreamWay & { readonly limit: number },
  ): Promise<readonly RecordedEvent[]>;
  readAll(
    tenant: TenantId,
    page: EventSelection & { readonly after: bigint; readonly limit: number },
  ): Promise<LogPage>;
  /** What is behind `after`, then what comes, in pages that are never empty, until the signal is given. */
  subscribe(
    tenant: TenantId,
    options: EventSelection & { readonly after: bigint; readonly signal: AbortSignal; readonly pageSize?: number },
  ): AsyncIterable<readonly RecordedEvent[]>;
}
