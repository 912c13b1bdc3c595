import { EventEmitter } from 'node:events';
import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { AppDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import type { Redis } from '@atomo-cc/platform/redis';
import type { Fence } from './fence.js';
import { pageSizeOf, readEvents, readIn, UNSETTLED_LOOK_MS, type EventSelection } from './read.js';

/** How often the log is looked at even when no hint came: a lost hint costs at most this much, never an event. */
export const SUBSCRIPTION_POLL_MS = 1_000;
/** The longest pause between looks while an append that stays open holds up the mark: the pauses grow up to this. */
const MAX_UNSETTLED_LOOK_MS = 320;
/** Beyond every position there is: Postgres' greatest bigint. */
const ALL_POSITIONS = 2n ** 63n - 1n;

const CHANNEL_PREFIX = 'event-log:appended:';

/** The Redis channel of hints that the tenant's log has grown. A message carries nothing. */
export function appendedChannel(tenant: TenantId): string {
  return `${CHANNEL_PREFIX}${tenant}`;
}

/**
 * Tells the subscribers of all instances to look. To be called after the commit: a look before it would find nothing. It
 * never fails and need not be awaited; a hint that is lost costs its readers one slow poll.
 * @param redis a connection of use `command`
 */
export function announceAppended(redis: Redis, tenant: TenantId): void {
  redis.publish(appendedChannel(tenant), '').catch(() => undefined);
}

/** Hands the hints of one Redis connection to any number of subscriptions. */
export class AppendHints {
  private readonly hints = new EventEmitter().setMaxListeners(0);

  /** @param redis a connection of use `blocking`, for hints alone: a subscribed connection takes no other commands */
  constructor(private readonly redis: Redis) {
    redis.on('message', (channel: string) => this.hints.emit(channel));
    redis.on('pmessage', (pattern: string) => this.hints.emit(pattern));
  }

  /** Calls `look` at every hint of the tenant, and once the hints begin to arrive, until the answer is called. */
  listen(tenant: TenantId, look: () => void): () => void {
    const channel = appendedChannel(tenant);
    this.hints.on(channel, look);
    // Not awaited: while Redis is away the poll serves. What was appended before the hints began is seen by the look after.
    this.redis.subscribe(channel).then(look, () => undefined);
    return () => {
      this.hints.off(channel, look);
      if (this.hints.listenerCount(channel) === 0) this.redis.unsubscribe(channel).catch(() => undefined);
    };
  }

  /** Calls `look` at every hint of any tenant, as `listen` does for one: for those who follow the whole log. */
  listenToAll(look: () => void): () => void {
    const pattern = `${CHANNEL_PREFIX}*`;
    this.hints.on(pattern, look);
    this.redis.psubscribe(pattern).then(look, () => undefined);
    return () => {
      this.hints.off(pattern, look);
      if (this.hints.listenerCount(pattern) === 0) this.redis.punsubscribe(pattern).catch(() => undefined);
    };
  }
}

/** What a subscription follows. */
export interface SubscribeOptions extends EventSelection {
  readonly database: AppDatabase | SystemDatabase;
  /** Of the same database. One serves all subscriptions of a process. */
  readonly fence: Fence;
  readonly tenant: TenantId;
  /** Only events behind this position: 0 for all, or that of the last event that was dealt with. */
  readonly after: bigint;
  /** Without hints the log is polled (see SUBSCRIPTION_POLL_MS). */
  readonly hints?: AppendHints;
  /** Ends the subscription, without an error. */
  readonly signal?: AbortSignal;
  readonly pageSize?: number;
}

/**
 * The tenant's events behind a position, first those that are there, then those that come, in the order of the log,
 * without a gap and none twice, whichever instance appends them. They come in pages that are never empty, and the next is
 * read only when it is asked for: a slow reader costs no memory. It ends by its signal or by `return()`, at any moment,
 * also while it waits; a page that was being read is then dropped, so a reader that goes on later begins behind the last
 * event it has dealt with.
 * @throws RangeError for a page size that is no number from 1 on; else what the database throws: subscribe again, from the same place
 */
export function subscribe(options: SubscribeOptions): AsyncGenerator<RecordedEvent[], void, undefined> {
  pageSizeOf(options);
  // A plain generator that is left while it waits would go on waiting, and hold its timer and listeners, until an event comes.
  const left = new AbortController();
  const pages = follow(options, left);
  return Object.assign(Object.create(pages) as typeof pages, {
    next: () => pages.next(),
    return: () => {
      left.abort();
      return pages.return();
    },
    throw: (error: unknown) => {
      left.abort();
      return pages.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this as unknown as typeof pages;
    },
  });
}

async function* follow(
  options: SubscribeOptions,
  left: AbortController,
): AsyncGenerator<RecordedEvent[], void, undefined> {
  const { database, fence, tenant, hints, signal } = options;
  const limit = pageSizeOf(options);
  const bell = new Bell();
  const leave = () => left.abort();
  if (signal?.aborted) leave();
  signal?.addEventListener('abort', leave);
  left.signal.addEventListener('abort', bell.ring);
  const ignore = hints?.listen(tenant, bell.ring);
  let { after } = options;
  let settled = 0n;
  let unsettledMs = UNSETTLED_LOOK_MS;
  try {
    while (!left.signal.aborted) {
      // Before the look: a hint that comes during it may be of an event that it does not see.
      bell.silence();
      const isMarkNew = settled <= after;
      const { page, isHeldUp } = await readIn(database, tenant, async (tx) => {
        if (isMarkNew) settled = await fence.advance(tx);
        const seen = settled > after ? await readEvents(tx, tenant, { ...options, after, settled, limit }) : [];
        if (seen.length === limit || !isMarkNew) return { page: seen, isHeldUp: false };
        // Committed, but not settled: nothing will give a hint when the append that holds up the mark is rolled back, or is another tenant's.
        const beyond = { ...options, after: settled > after ? settled : after, settled: ALL_POSITIONS, limit: 1 };
        return { page: seen, isHeldUp: (await readEvents(tx, tenant, beyond)).length > 0 };
      });
      if (left.signal.aborted) return;
      if (page.length === limit) after = page.at(-1)!.position;
      else if (settled > after) after = settled;
      if (page.length > 0) {
        unsettledMs = UNSETTLED_LOOK_MS;
        yield page;
      }
      if (page.length === limit || !isMarkNew) continue;
      await bell.rung(isHeldUp ? unsettledMs : SUBSCRIPTION_POLL_MS);
      unsettledMs = isHeldUp ? Math.min(unsettledMs * 2, MAX_UNSETTLED_LOOK_MS) : UNSETTLED_LOOK_MS;
    }
  } finally {
    ignore?.();
    signal?.removeEventListener('abort', leave);
    left.signal.removeEventListener('abort', bell.ring);
  }
}

/** Remembers that it was rung, so that a ring between two waits is not lost; any number of them are one. */
class Bell {
  private isRung = false;
  private wake: () => void = () => undefined;

  readonly ring = (): void => {
    this.isRung = true;
    this.wake();
  };

  silence(): void {
    this.isRung = false;
  }

  /** Waits until it is rung, at most so long; not at all if it was rung since it was silenced. */
  async rung(atMostMs: number): Promise<void> {
    if (this.isRung) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, atMostMs);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.wake = () => undefined;
  }
}
