import type { Redis } from 'ioredis';
import { RateLimiterMemory, RateLimiterRedis } from 'rate-limiter-flexible';
import { apiError, type Clock, type CodedError, systemClock, type TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { BELIEVED_MS } from './beliefs.js';
import { limitsOf } from './limits.js';
import type { RatedQuota } from './plans.js';

const QUOTA: RatedQuota = 'requestsPerMinute';
/** The time that the limit is for; it begins with the first request. */
const WINDOW_SECONDS = 60;
/**
 * A process takes a twentieth of the limit from Redis at a time and spends it by itself, so that 19 of 20 requests of the smallest
 * plan cost no round trip. What a process has taken and does not need is lost to the others for the rest of the minute.
 */
const LEASES = 20;
/** A Redis that has not answered by then is away: requests must not wait for it, and this process counts for itself. */
const SHARED_MS = 250;
/** For so long it is not asked again. */
const AWAY_MS = 2_000;
/** Tenants that a process keeps counts of, some hundred bytes each. The oldest go first, with what they had left. */
const MOST_TENANTS = 10_000;

interface Count {
  /** As the plan, or an operator, said at `readAt`; null: no limit. */
  limit: number | null;
  readAt: number;
  /** Requests of the lease that are still good until `windowEnd`. */
  left: number;
  windowEnd: number;
  /** There is nothing left for anybody until `windowEnd`. */
  isUsedUp: boolean;
  renewing: Promise<void> | undefined;
}

/**
 * Counts the requests of each tenant, for all processes together in Redis. While Redis is away each process counts for itself, which
 * lets through as many times the limit as there are processes. Another limit holds within 5 s.
 */
export class RequestRates {
  private readonly counts = new Map<TenantId, Count>();
  private readonly shared: RateLimiterRedis | undefined;
  private readonly local: RateLimiterMemory;
  private readonly clock: Clock;
  private awayUntil = 0;

  /** @param options.redis a connection that fails fast; without one this process counts for itself */
  constructor(
    private readonly system: SystemDatabase,
    options: { readonly redis?: Redis; readonly clock?: Clock } = {},
  ) {
    // The limiters count, and refuse nothing: the limit is the tenant's, and theirs would be one for all.
    const counter = { points: Number.MAX_SAFE_INTEGER, duration: WINDOW_SECONDS, keyPrefix: 'atomo:requests' };
    this.local = new RateLimiterMemory(counter);
    this.shared = options.redis && new RateLimiterRedis({ ...counter, storeClient: options.redis });
    this.clock = options.clock ?? systemClock;
  }

  /**
   * Counts one request of a tenant. Nothing is to be awaited where the lease has one left, or there is no limit.
   * @throws CodedError RATE_LIMITED with `retryAfterSeconds`, at once or by the promise
   */
  take(tenant: TenantId): Promise<void> | undefined {
    const count = this.counts.get(tenant);
    const now = this.clock.now();
    if (!count || now - count.readAt >= BELIEVED_MS) return this.renewAndTake(tenant);
    if (count.limit === null) return undefined;
    if (now >= count.windowEnd) return this.renewAndTake(tenant);
    if (count.left > 0) {
      count.left -= 1;
      return undefined;
    }
    if (count.isUsedUp) throw tooManyRequests(count.limit, count.windowEnd - now);
    return this.renewAndTake(tenant);
  }

  private async renewAndTake(tenant: TenantId): Promise<void> {
    let count = this.counts.get(tenant);
    if (!count) {
      count = { limit: null, readAt: -Infinity, left: 0, windowEnd: 0, isUsedUp: false, renewing: undefined };
      this.counts.set(tenant, count);
      if (this.counts.size > MOST_TENANTS) this.counts.delete(this.counts.keys().next().value!);
    }
    // All who come meanwhile wait for one lease; of those for whom it is too small some take the next.
    count.renewing ??= this.renew(tenant, count).finally(() => {
      count.renewing = undefined;
    });
    await count.renewing;
    return this.take(tenant);
  }

  private async renew(tenant: TenantId, count: Count): Promise<void> {
    const now = this.clock.now();
    if (now - count.readAt >= BELIEVED_MS) {
      const limit = await this.limitOf(tenant, count.limit);
      if (limit !== count.limit) Object.assign(count, { limit, left: 0, windowEnd: 0 });
      count.readAt = now;
    }
    const { limit, windowEnd, left, isUsedUp } = count;
    if (limit === null || (now < windowEnd && (left > 0 || isUsedUp))) return;
    const wanted = Math.max(Math.floor(limit / LEASES), 1);
    const { consumedPoints, msBeforeNext } = await this.countTogether(tenant, wanted);
    count.left = Math.min(Math.max(limit - (consumedPoints - wanted), 0), wanted);
    // At least a moment, or who waits for the lease would find it over.
    count.windowEnd = now + Math.max(msBeforeNext, 1);
    count.isUsedUp = count.left === 0;
  }

  private async countTogether(tenant: TenantId, wanted: number) {
    if (!this.shared || this.clock.now() < this.awayUntil) return this.local.consume(tenant, wanted);
    let timer: NodeJS.Timeout | undefined;
    const away = new Promise<never>((_resolve, reject) => {
      // A process that was busy for so long reads first what has come meanwhile: the timer runs before the socket, the immediate after.
      timer = setTimeout(() => setImmediate(() => reject(new Error('Redis does not answer'))), SHARED_MS);
    });
    try {
      return await Promise.race([this.shared.consume(tenant, wanted), away]);
    } catch {
      this.awayUntil = this.clock.now() + AWAY_MS;
      return await this.local.consume(tenant, wanted);
    } finally {
      clearTimeout(timer);
    }
  }

  /** A database that is away says so to the request itself; here what was known goes on to hold. */
  private async limitOf(tenant: TenantId, known: number | null): Promise<number | null> {
    try {
      const { of } = await this.system.transaction((tx) => limitsOf(tx, tenant));
      return of(QUOTA).limit;
    } catch {
      return known;
    }
  }
}

function tooManyRequests(limit: number, waitMs: number): CodedError {
  const retryAfterSeconds = Math.max(Math.ceil(waitMs / 1000), 1);
  return apiError(
    'RATE_LIMITED',
    `Your plan allows ${limit} requests a minute, and they are used up. Try again in ${retryAfterSeconds} seconds.`,
    { quota: QUOTA, limit, retryAfterSeconds },
  );
}
