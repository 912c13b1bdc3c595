import { hostname } from 'node:os';
import type { Redis } from '@atomo-cc/platform/redis';

/** A started process, as remembered beyond the death of the autoscaler that started it. */
export interface LedgerEntry {
  readonly pid: number;
  /** See ProcessIdentity.start. */
  readonly start: string;
  readonly port: number | null;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
}

/** Which worker processes were started on this machine; covers the second between a start and the worker's first heartbeat. */
export interface Ledger {
  read(): Promise<Map<string, LedgerEntry>>;
  write(id: string, entry: LedgerEntry): Promise<void>;
  erase(id: string): Promise<void>;
}

/** The ledger of this machine in Redis. */
export function redisLedger(redis: Redis): Ledger {
  const key = `{autoscaler}:processes:${hostname()}`;
  return {
    read: async () => {
      const all = await redis.hgetall(key);
      return new Map(Object.entries(all).map(([id, text]) => [id, JSON.parse(text) as LedgerEntry]));
    },
    write: async (id, entry) => void (await redis.hset(key, id, JSON.stringify(entry))),
    erase: async (id) => void (await redis.hdel(key, id)),
  };
}
