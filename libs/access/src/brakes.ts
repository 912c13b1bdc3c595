import { createHash, createHmac, randomBytes } from 'node:crypto';
import { isIPv6 } from 'node:net';
import type { Redis } from 'ioredis';
import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import { apiError, type CodedError } from '@atomo-cc/kernel';

/**
 * How many wrong passwords are tried within a quarter of an hour, counted from the first. A right one gives its try back.
 * - `pair`: of one account from one address. Nobody mistypes ten times; at this pace a list of 10,000 common passwords takes ten days.
 * - `address`: from one address, whatever the accounts: an office behind one address, but no list of leaked logins.
 * - `account`: of one account from all addresses together. When it is used up, those addresses go on from which the account has
 *   logged in within 30 days, so whoever guesses from a thousand machines cannot keep its owner out of their usual places.
 */
export const LOGIN_LIMITS = {
  pair: { tries: 10, seconds: 900 },
  address: { tries: 100, seconds: 900 },
  account: { tries: 50, seconds: 900 },
} as const;
/**
 * How many wrong refresh tokens are looked up for one address within a quarter of an hour. Nobody guesses one; this bounds what whoever
 * tries costs the database. Generous, because an office behind the address waits with them: one forgotten tab that
 * tries each second stays below it.
 */
export const REFRESH_LIMIT = { tries: 1_000, seconds: 900 } as const;
/**
 * Counters per limit that a process keeps while Redis is away: with the timers that end them some 5 MB. Names share counters
 * then, by a hash that nobody outside knows.
 */
const LOCAL_COUNTERS = 16_384;
/** IPv6 addresses are given out in blocks of 64 bits: whoever has one address has them all. */
const IPV6_GROUPS = 4;

type LimitName = keyof typeof LOGIN_LIMITS;

/** Counts in this process alone, in a number of counters that nobody can exceed. */
class LocalCounters extends RateLimiterMemory {
  private readonly secret = randomBytes(16);

  override getKey(key: string): string {
    const place = createHmac('sha256', this.secret).update(key).digest().readUInt32BE() % LOCAL_COUNTERS;
    return super.getKey(String(place));
  }
}

/** A try that was counted. */
export interface CountedTry {
  /** Gives the try back, because the password was right. */
  giveBack(): Promise<void>;
}

/** Counts within one limit: in Redis, or without it, and while it is away, in this process. */
function counters(
  name: string,
  { tries: points, seconds: duration }: { readonly tries: number; readonly seconds: number },
  redis: Redis | undefined,
): RateLimiterAbstract {
  const options = { points, duration, keyPrefix: `atomo:login:${name}` };
  const local = new LocalCounters(options);
  return redis ? new RateLimiterRedis({ ...options, storeClient: redis, insuranceLimiter: local }) : local;
}

/**
 * Slows down whoever guesses passwords. Tries are counted in Redis for all processes together before any password is looked at,
 * so that of a thousand at once no more than the limit is worked on. While Redis is away each process counts for itself, which
 * lets through as many times the limit as there are processes.
 */
export class LoginBrakes {
  private readonly limiters: Readonly<Record<LimitName, RateLimiterAbstract>>;

  /** @param redis a connection that fails fast; without one this process counts for itself */
  constructor(redis: Redis | undefined) {
    const limiter = (name: LimitName) => counters(name, LOGIN_LIMITS[name], redis);
    this.limiters = { pair: limiter('pair'), address: limiter('address'), account: limiter('account') };
  }

  /**
   * Counts a try.
   * @param account the e-mail address as it is stored, of an account or of none: both are counted the same
   * @param isUsualAddress asked only when the account's limit is used up
   * @throws CodedError RATE_LIMITED with `retryAfterSeconds`
   */
  async count(
    account: string,
    address: string | undefined,
    isUsualAddress: () => Promise<boolean>,
  ): Promise<CountedTry> {
    const from = addressBlock(address);
    // The address first: one that has to wait uses up nothing of an account.
    const tries: [LimitName, string][] = [
      ['address', from],
      ['pair', `${from} ${account}`],
      ['account', account],
    ];
    const counted: [LimitName, string][] = [];
    for (const [name, key] of tries) {
      const waitMs = await this.take(name, key);
      if (waitMs === null) counted.push([name, key]);
      else if (name !== 'account' || !(await isUsualAddress())) throw tooManyTries('logins', waitMs);
    }
    return {
      giveBack: async () => {
        await Promise.all(counted.map(([name, key]) => this.limiters[name].reward(hidden(key))));
      },
    };
  }

  /** Null when the try is within the limit, else the milliseconds until there is one again. */
  private async take(name: LimitName, key: string): Promise<number | null> {
    try {
      await this.limiters[name].consume(hidden(key));
      return null;
    } catch (refusal) {
      if (refusal instanceof RateLimiterRes) return refusal.msBeforeNext;
      throw refusal;
    }
  }
}

/**
 * Slows down whoever sends refresh tokens that are none. Right ones are never counted, however many come at once from one address:
 * it is looked whether there is room, and only what turned out wrong is counted.
 */
export class RefreshBrake {
  private readonly limiter: RateLimiterAbstract;

  /** @param redis as for LoginBrakes */
  constructor(redis: Redis | undefined) {
    this.limiter = counters('refresh', REFRESH_LIMIT, redis);
  }

  /** @throws CodedError RATE_LIMITED with `retryAfterSeconds` when too many wrong ones have come from the address */
  async check(address: string | undefined): Promise<void> {
    const counted = await this.limiter.get(hidden(addressBlock(address)));
    if (counted && counted.consumedPoints >= REFRESH_LIMIT.tries) {
      throw tooManyTries('refresh tokens', counted.msBeforeNext);
    }
  }

  /** Counts a wrong one. */
  async countWrong(address: string | undefined): Promise<void> {
    await this.limiter.penalty(hidden(addressBlock(address)));
  }
}

/** What is counted as one address: of IPv6 the block that one customer is given. */
export function addressBlock(address = 'unknown'): string {
  const plain = address.toLowerCase().replace(/^::ffff:(?=[\d.]+$)/, '');
  if (!isIPv6(plain)) return plain;
  const [head = '', tail] = plain.replace(/%.*$/, '').split('::');
  const before = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(8 - before.length - after.length, 0);
  const groups = [...before, ...Array.from({ length: zeros }, () => '0'), ...after];
  return groups
    .slice(0, IPV6_GROUPS)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':');
}

/** E-mail and network addresses are nobody's business who looks into Redis. */
function hidden(key: string): string {
  return createHash('sha256').update(key).digest('base64url');
}

function tooManyTries(what: string, waitMs: number): CodedError {
  const retryAfterSeconds = Math.max(Math.ceil(waitMs / 1000), 1);
  return apiError('RATE_LIMITED', `Too many wrong ${what}. Try again in ${retryAfterSeconds} seconds.`, {
    retryAfterSeconds,
  });
}
