import { backoffMs, isCodedError, sleep, type Backoff } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { isTracing, recordSpans, spanTime } from '@atomo-cc/platform/telemetry';
import type { Fence } from '../fence.js';
import { UNSETTLED_LOOK_MS } from '../read.js';
import { claimShard, lockShard, moveCheckpoint, noteFailure, stopProjection, type Shard } from './checkpoints.js';
import { applyInParts } from './dead-letters.js';
import { isFed, readBuild, targetOf, type Build } from './builds.js';
import { applyEvents, readBatch, type ProjectionCode } from './projection.js';

/** Attempts at a whole batch before it is taken apart: what passes by itself mostly has by then. */
const WHOLE_ATTEMPTS = 3;
/** Waits between attempts. Half a minute at most: a database that comes back should not be waited for much longer. */
const RETRY: Backoff = { firstMs: 100, maxMs: 30_000 };
/** The longest pause between looks while an append that stays open holds up the mark: the pauses grow up to this. */
const MAX_UNSETTLED_LOOK_MS = 320;

/**
 * Looks of a shard that finds events each time begin this far apart, and each applies what came meanwhile: a look costs as much
 * as a dozen events. Whoever waits for a projection waits a third of what is promised longer at most.
 */
const BUSY_LOOK_MS = 15;
/**
 * Of a look. Its statements are the same each time, and those that are prepared are planned once for all values: planned for the
 * values of each look, finding the events would cost more than reading them.
 *
 * And the commit does not wait for the disk. What a crash of the server may lose, events and checkpoint together, is applied again
 * from the log, which is flushed; and whatever is committed later and waits for the disk takes this along.
 */
const LOOK_SETTINGS = `, set_config('plan_cache_mode', 'force_generic_plan', true), set_config('synchronous_commit', 'off', true)`;

/** Nobody reads why a nap ended; without a reason each wake would make an error with its stack. */
const WOKEN = 'woken';

/** What a worker needs of its runner. */
export interface ShardWork {
  readonly database: SystemDatabase;
  readonly fence: Fence;
  readonly code: ProjectionCode;
  readonly maxEvents: number;
  readonly pollMs: number;
  /** A transaction in which this process does nothing for so long is ended by Postgres, and its locks with it. */
  readonly idleMs: number;
  readonly onApplied: (events: number, letters: number) => void;
  readonly onError: (error: unknown) => void;
}

/** What one look found: whether there may be more at once, or after which pause to look again. */
type Look = {
  readonly next: 'now' | 'poll' | 'unsettled';
  readonly events: number;
  readonly letters: number;
  /** The `traceparent` of the events, where traces are recorded. */
  readonly traces?: readonly (string | undefined)[];
};

/**
 * Applies the events of one shard under one epoch of its lease, a batch in a transaction: lock the checkpoint, read,
 * apply, move the checkpoint. It ends when it is stopped or when the checkpoint has a later epoch.
 *
 * Why each event takes effect once. The checkpoint's row is locked from the begin of a batch to its commit, and says where
 * the batch begins; so batches of a shard follow one another whoever applies them, and a crash undoes events and
 * checkpoint together. A holder that lost the lease finds another epoch in the row and does nothing. One that loses it
 * in the middle of a batch either commits before its successor's claim, which waits for the row, or is ended by
 * Postgres because it is silent, and all it did is rolled back.
 */
export class ShardWorker {
  /** Settles when the worker has ended; never rejects. */
  readonly ended: Promise<void>;
  private hasEnded = false;
  private readonly stopping = new AbortController();
  private nap = new AbortController();
  private unsettledMs = UNSETTLED_LOOK_MS;

  constructor(
    private readonly work: ShardWork,
    readonly shard: Shard,
    /** That of the lease under which it works. */
    readonly epoch: number,
  ) {
    this.ended = this.run().finally(() => (this.hasEnded = true));
  }

  /** Looks at the log soon, also when it is looking right now. */
  wake(): void {
    this.nap.abort(WOKEN);
  }

  /** Whether it has ended, also by itself: someone else has the shard, or had a later epoch of it. */
  get isOver(): boolean {
    return this.hasEnded;
  }

  /** Ends after the batch that is under way. */
  stop(): Promise<void> {
    this.stopping.abort();
    this.nap.abort(WOKEN);
    return this.ended;
  }

  private async run(): Promise<void> {
    let isClaimed = false;
    let failures = 0;
    while (!this.stopping.signal.aborted) {
      // Before the look: a hint that comes during it may be of an event that it does not see.
      this.nap = new AbortController();
      let pauseMs = 0;
      let nextLookAt = 0;
      try {
        if (!isClaimed) await this.inTransaction((tx) => claimShard(tx, this.shard, this.epoch));
        isClaimed = true;
        const startTime = spanTime();
        const lookedAt = performance.now();
        const { next, events, letters, traces } = await this.inTransaction(
          (tx) => this.look(tx, failures),
          LOOK_SETTINGS,
        );
        failures = 0;
        if (traces) this.recordTraces(traces, startTime);
        if (events > 0) this.work.onApplied(events, letters);
        if (next !== 'now') {
          pauseMs = this.pauseBefore(next === 'unsettled', events);
          nextLookAt = lookedAt + BUSY_LOOK_MS;
        }
      } catch (error) {
        if (isCodedError(error) && error.code === 'LEASE_LOST') return;
        failures += 1;
        await this.fail(error);
        await sleep(backoffMs(failures, RETRY), this.stopping.signal);
      }
      if (pauseMs > 0 && !this.stopping.signal.aborted) await sleep(pauseMs, this.nap.signal);
      const earlyMs = nextLookAt - performance.now();
      if (earlyMs > 0 && !this.stopping.signal.aborted) await sleep(earlyMs, this.stopping.signal);
    }
  }

  private pauseBefore(isUnsettled: boolean, events: number): number {
    if (!isUnsettled) {
      this.unsettledMs = UNSETTLED_LOOK_MS;
      return this.work.pollMs;
    }
    if (events > 0) this.unsettledMs = UNSETTLED_LOOK_MS;
    const pauseMs = Math.min(this.unsettledMs, this.work.pollMs);
    this.unsettledMs = Math.min(this.unsettledMs * 2, MAX_UNSETTLED_LOOK_MS);
    return pauseMs;
  }

  private inTransaction<Result>(work: (tx: Tx) => Promise<Result>, more = ''): Promise<Result> {
    return this.work.database.transaction(async (tx) => {
      tx.send(`select set_config('idle_in_transaction_session_timeout', $1, true)${more}`, [String(this.work.idleMs)]);
      return work(tx);
    });
  }

  private async look(tx: Tx, failures: number): Promise<Look> {
    const { code, maxEvents } = this.work;
    // Two statements, though neither is waited for alone: who changes a build's state, and so the names of its tables, locks its
    // checkpoints first. Read in the statement that locks, the build would be as it was before the wait for the lock.
    const [{ position, state }, build] = await Promise.all([
      lockShard(tx, this.shard, this.epoch),
      readBuild(tx, this.shard.projection, this.shard.build),
    ]);
    if (state !== 'running' || !build || !isFed(build)) return { next: 'poll', events: 0, letters: 0 };
    const upTo = await this.bound(tx, build);
    const { tenant } = build;
    const gate = build.state === 'live' ? build.gate : null;
    const bounds = { shard: this.shard.shard, after: position, upTo, maxEvents, tenant, gate };
    const batch = await readBatch(tx, code.projection, bounds);
    const events = batch.events.length;
    const target = targetOf(build, batch.gated);
    let letters = 0;
    if (failures < WHOLE_ATTEMPTS) await applyEvents(tx, code, batch.events, target);
    else if (events > 0) {
      const place = { shard: this.shard, attempts: failures + 1, target };
      letters = await applyInParts(tx, code, batch.events, place);
    }
    const move = { from: position, to: batch.upTo, events: events - letters };
    const isBehind = batch.upTo < upTo;
    const [isWaiting] = await Promise.all([
      !isBehind && build.state === 'live' && isHeldUp(tx, upTo),
      batch.upTo > position && moveCheckpoint(tx, this.shard, this.epoch, move),
    ]);
    const traces = isTracing() ? { traces: batch.events.map(({ metadata }) => metadata.traceparent) } : {};
    if (isBehind) return { next: 'now', events, letters, ...traces };
    return { next: isWaiting ? 'unsettled' : 'poll', events, letters, ...traces };
  }

  /** A span in each trace whose events were in the batch, with the batch's times: from its look to its commit. */
  private recordTraces(traces: readonly (string | undefined)[], startTime: number): void {
    const { projection, build, shard } = this.shard;
    const attributes = {
      'atomo.projection': projection,
      'atomo.projection.build': build,
      'atomo.projection.shard': shard,
      'atomo.batch.events': traces.length,
    };
    recordSpans(`project ${projection}`, traces, { kind: 'consumer', startTime, endTime: spanTime(), attributes });
  }

  /**
   * How far the shard may go: to the settled mark; beside an async live build not beyond that one, so that what the live build
   * has not applied yet is applied, and acts, when this one is live.
   */
  private bound(tx: Tx, build: Build): Promise<bigint> | bigint {
    return build.state === 'live' || build.mode === 'inline'
      ? this.work.fence.advance(tx)
      : livePosition(tx, this.shard, build.shards);
  }

  /** Keeps the error where people look, and stops the projection when trying again is of no use. */
  private async fail(error: unknown): Promise<void> {
    this.work.onError(error);
    const isHopeless =
      isCodedError(error) && (error.code === 'PROJECTION_EVENT_UNKNOWN' || error.code === 'PROJECTION_BROKEN');
    try {
      await this.work.database.transaction(async (tx) => {
        if (isHopeless) await stopProjection(tx, this.shard, this.epoch);
        await noteFailure(tx, this.shard, this.epoch, error);
      });
    } catch {
      // It is the database that fails: there is nowhere to write it down, and the caller was told.
    }
  }
}

/** Up to where the live build has applied everything that is in this shard of another one. */
async function livePosition(tx: Tx, { projection, shard }: Shard, shards: number): Promise<bigint> {
  const [row] = await tx.query<{ position: string | null }>(
    `select min(position) as position from projection_checkpoints
     where projection = $1 and (shards <> $2 or shard = $3)
       and build = (select build from projection_builds where projection = $1 and state = 'live')`,
    [projection, shards, shard],
  );
  return BigInt(row!.position ?? 0);
}

/** Whether events are committed beyond the mark: when it moves on, nobody gives a hint. */
async function isHeldUp(tx: Tx, settled: bigint): Promise<boolean> {
  // Not as `exists`, for which a plan that does not know the mark may read the log from its beginning.
  const [row] = await tx.prepared<{ held: boolean }>(
    'select coalesce(max(position) > $1, false) as held from event_log',
    [String(settled)],
  );
  return row!.held;
}
