import { Redis } from 'ioredis';

export type { Redis } from 'ioredis';

/** The longest pause between attempts to reach Redis again; short, because everything that waits for Redis waits this long. */
const MAX_RECONNECT_MS = 2_000;
/** A command that gets no answer in this time fails instead of hanging; none of ours takes more than milliseconds. */
const COMMAND_TIMEOUT_MS = 5_000;

/**
 * What a connection is for:
 * - `command`: fails fast while Redis is away, so that a request or a transaction never waits on it;
 * - `blocking`: waits for Redis to come back, for BullMQ workers and subscribers, which resume by themselves.
 */
export type RedisUse = 'command' | 'blocking';

/** Opens a connection that reconnects for ever. Errors are reported to `onError` (each kind once until Redis is back). */
export function openRedis(url: string, use: RedisUse, onError: (error: Error) => void): Redis {
  const retryStrategy = (attempt: number) => Math.min(100 * attempt, MAX_RECONNECT_MS);
  const options =
    use === 'command'
      ? { maxRetriesPerRequest: 1, enableOfflineQueue: false, commandTimeout: COMMAND_TIMEOUT_MS, retryStrategy }
      : { maxRetriesPerRequest: null, retryStrategy };
  const redis = new Redis(url, options);
  let reported = '';
  redis.on('error', (error: Error) => {
    if (error.message === reported) return;
    reported = error.message;
    onError(error);
  });
  redis.on('ready', () => {
    reported = '';
  });
  return redis;
}
