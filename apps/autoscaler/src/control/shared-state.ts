import type { Redis } from '@atomo-cc/platform/redis';
import type { Decision } from './policy.js';

/** How many decisions are kept: days of an ordinary week, and little memory. */
export const DECISIONS_KEPT = 200;

const TARGET = '{autoscaler}:target';
const MARKS = '{autoscaler}:queues';
const DECISIONS = '{autoscaler}:decisions';

/** Since when a queue has been as it is, in milliseconds since 1970. */
export interface QueueMarks {
  /** Since when no job waits and none is worked on; null while one is. */
  readonly idleSince: number | null;
  /** Since when jobs wait without a break; null when none does. */
  readonly waitingSince: number | null;
}

/** A decision as it is kept and shown. `noticed` is something that happened without the autoscaler. */
export interface DecisionRecord {
  readonly version: 1;
  /** ISO 8601. */
  readonly at: string;
  /** The autoscaler that decided. */
  readonly leader: string;
  readonly action: Decision['action'] | 'noticed';
  readonly rule: Decision['rule'] | 'ended';
  readonly reason: string;
  readonly which: string | null;
  readonly count: number | null;
  /** `done`, `advice` when the provider cannot act, or what went wrong. */
  readonly outcome: string;
}

/** What all autoscalers know together. It lies in Redis, so a new leader goes on where the old one ended, and every one shows the same. */
export class SharedState {
  constructor(private readonly redis: Redis) {}

  /** How many workers an operator asked for; null leaves it to the queues. */
  async target(): Promise<number | null> {
    const text = await this.redis.get(TARGET);
    return text === null ? null : Number(text);
  }

  async setTarget(workers: number | null): Promise<void> {
    if (workers === null) await this.redis.del(TARGET);
    else await this.redis.set(TARGET, workers);
  }

  async marks(): Promise<ReadonlyMap<string, QueueMarks>> {
    const all = await this.redis.hgetall(MARKS);
    return new Map(Object.entries(all).map(([queue, text]) => [queue, JSON.parse(text) as QueueMarks]));
  }

  async setMarks(queue: string, marks: QueueMarks): Promise<void> {
    await this.redis.hset(MARKS, queue, JSON.stringify(marks));
  }

  async record(decision: DecisionRecord): Promise<void> {
    await this.redis
      .multi()
      .lpush(DECISIONS, JSON.stringify(decision))
      .ltrim(DECISIONS, 0, DECISIONS_KEPT - 1)
      .exec();
  }

  /** The last decisions, newest first. */
  async decisions(limit: number): Promise<DecisionRecord[]> {
    const texts = await this.redis.lrange(DECISIONS, 0, limit - 1);
    return texts.map((text) => JSON.parse(text) as DecisionRecord);
  }
}

/** What the marks of a queue are now that it was looked at. The same object when nothing changed. */
export function markQueue(
  marks: QueueMarks | undefined,
  depth: { waiting: number; active: number },
  now: number,
): QueueMarks {
  const isIdle = depth.waiting + depth.active === 0;
  const isWaiting = depth.waiting > 0;
  const known = marks ?? { idleSince: null, waitingSince: null };
  const idleSince = isIdle ? (known.idleSince ?? now) : null;
  const waitingSince = isWaiting ? (known.waitingSince ?? now) : null;
  const isSame = marks !== undefined && idleSince === known.idleSince && waitingSince === known.waitingSince;
  return isSame ? marks : { idleSince, waitingSince };
}
