import { createAdapter } from '@socket.io/redis-streams-adapter';
import type { Logger } from '@atomo-cc/platform/logging';
import { openRedis, type Redis } from '@atomo-cc/platform/redis';
import type { Metrics } from '@atomo-cc/platform/telemetry';

/** The stream through which the nodes of one installation talk to each other. */
const STREAM = 'sync-gateway';
/** Messages kept in the stream: presence and the nodes' own talk, of some hundred bytes. The files' log is in Postgres. */
const STREAM_LENGTH = 1_000;
/** How long one read of the stream waits. Short, because a stop waits for it. */
const READ_BLOCK_MS = 1_000;

/** The way to the other nodes. */
export class Relay {
  private readonly redis: Redis;
  private readonly copies: Redis[] = [];

  constructor(url: string, logger: Logger, metrics: Metrics) {
    const connected = metrics.gauge('sync_relay_connected', '1 while Redis, the way to the other nodes, answers.');
    // `blocking` waits for Redis to come back, so that what was sent meanwhile arrives; and the adapter's read loop, which
    // asks again at once after an error, would spin on a connection that fails fast.
    this.redis = openRedis(url, 'blocking', (error) =>
      logger.warn({ err: error }, 'no way to the other nodes: Redis is away'),
    );
    this.redis.on('ready', () => connected.set(1));
    this.redis.on('close', () => connected.set(0));
  }

  /** Makes the adapter of a Socket.IO server. */
  adapter(): ReturnType<typeof createAdapter> {
    const duplicate = this.redis.duplicate.bind(this.redis);
    const publish = this.redis.publish.bind(this.redis);
    // The adapter leaves these promises unobserved, so a connection that ends before Redis answered would end the process.
    this.redis.publish = (...given: Parameters<typeof publish>) => quiet(publish(...given));
    this.redis.duplicate = (...given: Parameters<typeof duplicate>) => {
      const copy = duplicate(...given);
      const subscribe = copy.subscribe.bind(copy) as (...channels: string[]) => Promise<unknown>;
      copy.subscribe = ((...channels: string[]) => quiet(subscribe(...channels))) as typeof copy.subscribe;
      this.copies.push(copy);
      return copy;
    };
    return createAdapter(this.redis, {
      streamName: STREAM,
      channelPrefix: STREAM,
      maxLen: STREAM_LENGTH,
      blockTimeInMs: READ_BLOCK_MS,
    });
  }

  /** Whether Redis answers. */
  get isConnected(): boolean {
    return this.redis.status === 'ready';
  }

  /** Ends all connections. The Socket.IO server must be closed before: only then does the adapter stop reading. */
  close(): void {
    for (const connection of [...this.copies, this.redis]) connection.disconnect();
  }
}

function quiet<Result>(promise: Promise<Result>): Promise<Result> {
  return promise.catch(() => undefined as Result);
}
