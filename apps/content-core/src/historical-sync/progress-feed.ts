import { EventEmitter, on } from 'node:events';
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
   * The job now, then each time it has changed, until it has ended or is gone.
   * @param read reads the row with the follower's rights
   */
  async *follow(id: string, read: () => Promise<SyncJob | null>): AsyncGenerator<SyncJob> {
    const channel = progressChannel(id);
    const ended = new AbortController();
    const timer = setInterval(() => this.hints.emit(channel), LOOK_MS);
    // Listening starts before the first look, so a change between the two is not missed.
    const looks = on(this.hints, channel, { signal: ended.signal });
    await this.redis.subscribe(channel).catch(() => undefined);
    try {
      let shown = '';
      for (;;) {
        const job = await read();
        if (!job) return;
        const facts = JSON.stringify([job.status, job.bytesProcessed, job.recordsProcessed, job.errorCount]);
        if (facts !== shown) yield job;
        shown = facts;
        if (ENDED.includes(job.status)) return;
        await looks.next();
      }
    } finally {
      clearInterval(timer);
      ended.abort();
      if (this.hints.listenerCount(channel) === 0) await this.redis.unsubscribe(channel).catch(() => undefined);
    }
  }
}
