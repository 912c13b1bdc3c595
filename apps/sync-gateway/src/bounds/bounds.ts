import { Injectable } from '@nestjs/common';
import { sleep } from '@atomo-cc/kernel';
import { syncError } from '@atomo-cc/sync-protocol';

/** What an operator may set. */
export interface BoundsConfig {
  /** Operations a second of one key on one node. */
  readonly opsPerSecond: number;
  /** Bytes that a store may hold which has no quota of its own. */
  readonly quotaBytes: number;
  /** How long history, trash and tombstones stay. */
  readonly retentionDays: number;
}

/** A key may do in one go what it may do in so many seconds: the first sync of a vault is one burst. */
const BURST_SECONDS = 5;
/** Bytes a second of one key; some 30 MB/s is a fast disk's first sync, and far below what a node takes. */
const BYTES_PER_SECOND = 32 * 1024 * 1024;
/** The longest that protocol 1 is kept waiting instead of refused: its plugin takes no answer for an acked write. */
const LONGEST_WAIT_MS = 10_000;
/** Refused handshakes of one address within a minute; above what a device with an old key makes by reconnecting. */
const FAILURES_PER_MINUTE = 60;
/** Open sockets of one key on one node. */
const SOCKETS_PER_KEY = 500;
/** Snapshots that one key may read at once on one node; each holds a page or two. */
const SNAPSHOTS_PER_KEY = 8;
/** When to ask again whoever reads too many. */
const SNAPSHOT_WAIT_MS = 1_000;
/** Buckets kept; the ones unused for longest go first, which at worst fills them up again. */
const BUCKETS = 20_000;

/** Some amount that runs full at a rate. Times in milliseconds. */
export class TokenBucket {
  private level: number;
  private at: number;

  constructor(
    private readonly perSecond: number,
    private readonly capacity: number,
    private readonly now: () => number = () => performance.now(),
  ) {
    this.level = capacity;
    this.at = now();
  }

  /** Whether `amount` is there. */
  has(amount: number): boolean {
    return this.take(0) === 0 && this.level >= amount;
  }

  /** Takes `amount`; answers how long to wait until it had been there, and takes nothing then. 0: it was there. */
  take(amount: number): number {
    const now = this.now();
    this.level = Math.min(this.capacity, this.level + ((now - this.at) / 1000) * this.perSecond);
    this.at = now;
    // What is larger than the bucket passes when it is full, and is paid off afterwards.
    const needed = Math.min(amount, this.capacity);
    if (this.level >= needed) {
      this.level -= amount;
      return 0;
    }
    return Math.ceil(((needed - this.level) / this.perSecond) * 1000);
  }
}

/** What one key, address or store may take of this node. */
@Injectable()
export class Bounds {
  private readonly ops = new Map<string, TokenBucket>();
  private readonly bytes = new Map<string, TokenBucket>();
  private readonly failures = new Map<string, TokenBucket>();
  private readonly sockets = new Map<string, number>();
  private readonly snapshots = new Map<string, number>();

  constructor(private readonly config: BoundsConfig) {}

  get quotaBytes(): number {
    return this.config.quotaBytes;
  }

  get retentionDays(): number {
    return this.config.retentionDays;
  }

  get opsPerSecond(): number {
    return this.config.opsPerSecond;
  }

  /** @throws CodedError RATE_LIMITED with `retryAfterMs` */
  take(keyId: string, ops: number, bytes = 0): void {
    const wait = this.waitFor(keyId, ops, bytes);
    if (wait > 0) throw limited(wait);
  }

  /**
   * As `take`, but waits a while instead of refusing at once.
   * @throws CodedError RATE_LIMITED
   */
  async takeSlowly(keyId: string, ops: number, bytes: number): Promise<void> {
    const from = performance.now();
    for (let wait = this.waitFor(keyId, ops, bytes); wait > 0; wait = this.waitFor(keyId, ops, bytes)) {
      if (performance.now() - from + wait > LONGEST_WAIT_MS) throw limited(wait);
      await sleep(wait);
    }
  }

  /** Whether an address has not guessed too often. */
  mayTry(address: string): boolean {
    return bucketOf(this.failures, address, FAILURES_PER_MINUTE / 60, FAILURES_PER_MINUTE).has(1);
  }

  /** Notes that a handshake of this address was refused. */
  failed(address: string): void {
    bucketOf(this.failures, address, FAILURES_PER_MINUTE / 60, FAILURES_PER_MINUTE).take(1);
  }

  /** Counts a socket of the key in; false: it has enough. */
  enter(keyId: string): boolean {
    return enter(this.sockets, keyId, SOCKETS_PER_KEY);
  }

  /** Counts a socket out. */
  leave(keyId: string): void {
    leave(this.sockets, keyId);
  }

  /**
   * Counts a snapshot that the key reads in.
   * @returns counts it out
   * @throws CodedError RATE_LIMITED
   */
  enterSnapshot(keyId: string): () => void {
    if (!enter(this.snapshots, keyId, SNAPSHOTS_PER_KEY)) throw limited(SNAPSHOT_WAIT_MS);
    return () => leave(this.snapshots, keyId);
  }

  private waitFor(keyId: string, ops: number, bytes: number): number {
    const { opsPerSecond } = this.config;
    const forOps = bucketOf(this.ops, keyId, opsPerSecond, opsPerSecond * BURST_SECONDS).take(ops);
    if (forOps > 0 || bytes === 0) return forOps;
    return bucketOf(this.bytes, keyId, BYTES_PER_SECOND, BYTES_PER_SECOND * BURST_SECONDS).take(bytes);
  }
}

function bucketOf(buckets: Map<string, TokenBucket>, name: string, perSecond: number, capacity: number): TokenBucket {
  const bucket = buckets.get(name) ?? new TokenBucket(perSecond, capacity);
  buckets.delete(name);
  buckets.set(name, bucket);
  const [oldest] = buckets.keys();
  if (buckets.size > BUCKETS && oldest !== undefined) buckets.delete(oldest);
  return bucket;
}

function enter(counts: Map<string, number>, name: string, most: number): boolean {
  const count = counts.get(name) ?? 0;
  if (count >= most) return false;
  counts.set(name, count + 1);
  return true;
}

function leave(counts: Map<string, number>, name: string): void {
  const count = (counts.get(name) ?? 1) - 1;
  if (count > 0) counts.set(name, count);
  else counts.delete(name);
}

function limited(wait: number) {
  return syncError('RATE_LIMITED', 'Too much at once with this key.', { retryAfterMs: wait });
}
