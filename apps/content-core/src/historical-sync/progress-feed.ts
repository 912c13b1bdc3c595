import { EventEmitter } from 'node:events';
import { progressChannel } from '@atomo-cc/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import type { SyncJob } from '@atomo-cc/sync-jobs';

/** How often a followed job is looked at even when no hint came: a lost hint costs this much, never the news. */
const LOOK_MS = 2_000;

const ENDED: readonly SyncJob['status'][] = ['completed', 'failed', 'cancelled'];

/** Lets many subscribers follow jobs over one Redis connection. Hints only say "look again"; the row is the truth. */
export class ProgressFeed {
  private readonly hints = new EventEmitter().setMaxListeners(0);

  /** @param redis a connection of use `blocking`, for this feed alone: a subscribed connection takes no other commands */
  constructor(private readonly redis: Redis) {
    redis.on('message', (channel: string) => this.hints.emit(channel));
  }

  /**
   * The job now, then each time it has changed, until it has ended or is gone. It may be left at any moment, also while it
   * waits for a change: a plain generator would go on waiting, and hold its timer and listener, until the next change.
   * @param read reads the row with the follower's rights
   */
  follow(id: string, read: () => Promise<SyncJob | null>): AsyncGenerator<SyncJob, void, undefined> {
    const left = new AbortController();
    const changes = this.changes(progressChannel(id), read, left.signal);
    return Object.assign(Object.create(changes) as typeof changes, {
      next: () => changes.next(),
      return: () => {
        left.abort();
        return changes.return();
      },
      throw: (error: unknown) => {
        left.abort();
        return changes.throw(error);
      },
      [Symbol.asyncIterator]() {
        return this as unknown as typeof changes;
      },
    });
  }

  private async *changes(
    channel: string,
    read: () => Promise<SyncJob | null>,
    left: AbortSignal,
  ): AsyncGenerator<SyncJob, void, undefined> {
    // Any number of hints that come while nobody waits are one look.
    let isHinted = false;
    let wake: () => void = () => undefined;
    const look = () => {
      isHinted = true;
      wake();
    };
    const hinted = () => new Promise<void>((resolve) => (isHinted || left.aborted ? resolve() : (wake = resolve)));
    const timer = setInterval(look, LOOK_MS);
    this.hints.on(channel, look);
    left.addEventListener('abort', look);
    // Not awaited: while Redis is away the slow look serves. A change made before the subscription held is seen by the look after it.
    this.redis.subscribe(channel).then(look, () => undefined);
    try {
      let shown = '';
      while (!left.aborted) {
        isHinted = false;
        const job = await read();
        if (!job) return;
        const facts = JSON.stringify([job.status, job.bytesProcessed, job.recordsProcessed, job.errorCount]);
        if (facts !== shown) yield job;
        shown = facts;
        if (ENDED.includes(job.status)) return;
        await hinted();
      }
    } finally {
      clearInterval(timer);
      this.hints.off(channel, look);
      left.removeEventListener('abort', look);
      if (this.hints.listenerCount(channel) === 0) this.redis.unsubscribe(channel).catch(() => undefined);
    }
  }
}
