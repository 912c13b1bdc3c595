import { sleep, uuidv7 } from '@atomo-cc/kernel';
import { releaseLease, takeLease, type Lease, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import type { Metrics } from '@atomo-cc/platform/telemetry';
import type { EventCodec } from '../codec.js';
import { Fence } from '../fence.js';
import { ensureCheckpoints, readStatus, type Shard, type ShardStatus } from './checkpoints.js';
import { ProjectionFigures } from './figures.js';
import { checkProjection, MAX_BATCH_EVENTS, type Projection, type ProjectionIdentity } from './projection.js';
import { ShardWorker, type ShardWork } from './shard-worker.js';

/** How long a shard waits for a holder that died. A holder renews three times as often; three lost renewals are no accident. */
export const PROJECTION_LEASE_MS = 5_000;
/** How often the log is looked at even when no hint came: a lost hint costs at most this much, never an event. */
export const PROJECTION_POLL_MS = 1_000;

/** What a runner runs. */
export interface ProjectionRunnerOptions {
  readonly database: SystemDatabase;
  readonly projections: readonly Projection[];
  /** Opens events and reads old shapes as those of today; without it, projections are given what is stored. */
  readonly codec?: EventCodec;
  readonly metrics?: Metrics;
  /** Told each failed attempt, and each failed renewal of the leases (then without a shard); for the log. Must not throw. */
  readonly onError?: (error: unknown, shard: Shard | null) => void;
  /** Unless given PROJECTION_LEASE_MS. */
  readonly leaseMs?: number;
  /** Unless given PROJECTION_POLL_MS. */
  readonly pollMs?: number;
  /** Unless given MAX_BATCH_EVENTS. */
  readonly maxEvents?: number;
}

interface Held {
  readonly lease: Lease;
  readonly worker: ShardWorker;
}

/**
 * Runs async projections. Each shard of each projection is worked on by one of all the runners that have it, whichever holds
 * its lease; the shards of a projection are divided evenly among them, and those of a runner that died go to the others
 * within PROJECTION_LEASE_MS and a third. A shard takes one connection while it has something to do, so a runner
 * wants a pool that is larger than the number of its shards by two or three.
 */
export class ProjectionRunner {
  private readonly holder = uuidv7();
  /** One for all shards: its looks are shared. */
  private readonly fence = new Fence();
  private readonly held = new Map<string, Held>();
  private readonly leaving = new Set<Promise<void>>();
  private readonly figures: ProjectionFigures | null;
  private readonly projections: readonly Projection[];
  private readonly leaseMs: number;
  private readonly stopping = new AbortController();
  private beating: Promise<void> | null = null;

  /** @throws TypeError for a projection without a proper name, or two with the same name and version */
  constructor(private readonly options: ProjectionRunnerOptions) {
    options.projections.forEach(checkProjection);
    // In one order in all runners: their leases are rows, locked one after the other.
    this.projections = [...options.projections].sort((a, b) => (memberPrefix(a) < memberPrefix(b) ? -1 : 1));
    if (new Set(this.projections.map(memberPrefix)).size < this.projections.length) {
      throw new TypeError('two projections have the same name and version');
    }
    this.leaseMs = options.leaseMs ?? PROJECTION_LEASE_MS;
    this.figures = options.metrics ? new ProjectionFigures(options.metrics) : null;
  }

  /**
   * Makes the checkpoints, takes its share and begins. Once only; a stopped runner is not started again.
   * @throws CodedError PROJECTION_SHARDS_CHANGED; else what the database throws
   */
  async start(): Promise<void> {
    await this.options.database.transaction(async (tx) => {
      for (const projection of this.projections) await ensureCheckpoints(tx, projection);
    });
    await this.beat();
    this.beating = this.keepBeating();
  }

  /** Ends after the batches that are under way and gives the leases up, so that others go on at once. Never rejects. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.beating;
    const leases = [...this.held.values()].map(({ lease }) => lease);
    await Promise.all([...[...this.held.values()].map(({ worker }) => worker.stop()), ...this.leaving]);
    this.held.clear();
    await this.options.database
      .transaction(async (tx) => {
        for (const lease of leases) await releaseLease(tx, lease);
        await tx.execute('delete from leases where holder = $1 and name = any($2)', [
          this.holder,
          this.projections.map((projection) => memberPrefix(projection) + this.holder),
        ]);
      })
      .catch(() => undefined);
  }

  /** Lets all shards look at the log: to be called on the hint that it has grown, or that a projection was resumed. */
  wake(): void {
    for (const { worker } of this.held.values()) worker.wake();
  }

  /** The shards that this runner works on. */
  get shards(): readonly Shard[] {
    return [...this.held.values()].map(({ worker }) => worker.shard);
  }

  /** How all shards of its projections stand, whoever works on them. */
  status(): Promise<ShardStatus[]> {
    return this.options.database.transaction((tx) => readStatus(tx, this.projections));
  }

  private async keepBeating(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      await sleep(this.leaseMs / 3, this.stopping.signal);
      if (this.stopping.signal.aborted) return;
      // Meanwhile the workers go on: what they may still do is decided by the epoch in their checkpoints, not here.
      await this.beat().catch((error: unknown) => this.options.onError?.(error, null));
    }
  }

  /** Renews, takes and gives up leases, all in one transaction: a beat per shard would wear the pool out when there are many. */
  private async beat(): Promise<void> {
    const { beats, lag } = await this.options.database.transaction(async (tx) => {
      const found: { shard: Shard; projection: Projection; lease: Lease | null; isSurplus: boolean }[] = [];
      for (const projection of this.projections) {
        const count = projection.shards ?? 1;
        const share = Math.ceil(count / (await this.countRunners(tx, projection)));
        let taken = 0;
        // Its own first, so that it does not change shards without need; each group by number.
        const shards = Array.from({ length: count }, (_, shard) => ({ ...identityOf(projection), shard }));
        const own = shards.filter((shard) => this.held.has(leaseName(shard)));
        for (const shard of own) {
          const isSurplus = taken >= share;
          const lease = await takeLease(tx, leaseName(shard), this.holder, this.leaseMs);
          found.push({ shard, projection, lease, isSurplus });
          if (lease && !isSurplus) taken += 1;
        }
        for (const shard of shards.filter((each) => !this.held.has(leaseName(each)))) {
          if (taken >= share) break;
          const lease = await takeLease(tx, leaseName(shard), this.holder, this.leaseMs);
          if (lease) taken += 1;
          found.push({ shard, projection, lease, isSurplus: false });
        }
      }
      return { beats: found, lag: this.figures ? await readStatus(tx, this.projections) : [] };
    });
    for (const { shard, projection, lease, isSurplus } of beats) this.settle(shard, projection, lease, isSurplus);
    this.figures?.showLag(lag.filter((shard) => this.held.has(leaseName(shard))));
  }

  /** Brings the worker of a shard in line with its lease. */
  private settle(shard: Shard, projection: Projection, lease: Lease | null, isSurplus: boolean): void {
    const name = leaseName(shard);
    const held = this.held.get(name);
    if (held && (!lease || isSurplus || lease.epoch !== held.lease.epoch)) {
      // Not waited for: a worker that lost its lease may hang, and can do no harm.
      this.held.delete(name);
      const gone = held.worker.stop().then(() => (isSurplus && lease ? this.giveUp(lease) : undefined));
      this.leaving.add(gone);
      void gone.finally(() => this.leaving.delete(gone));
    }
    if (lease && !isSurplus && !this.held.has(name) && !this.stopping.signal.aborted) {
      this.held.set(name, { lease, worker: new ShardWorker(this.workOn(projection, shard), shard, lease.epoch) });
    }
  }

  private workOn(projection: Projection, shard: Shard): ShardWork {
    const { database, onError } = this.options;
    return {
      database,
      fence: this.fence,
      projection,
      codec: this.options.codec ?? null,
      maxEvents: this.options.maxEvents ?? MAX_BATCH_EVENTS,
      pollMs: this.options.pollMs ?? PROJECTION_POLL_MS,
      idleMs: this.leaseMs,
      onApplied: (events, letters) => this.figures?.applied(projection, events - letters, letters),
      onError: (error) => {
        this.figures?.failed(projection);
        onError?.(error, shard);
      },
    };
  }

  private async giveUp(lease: Lease): Promise<void> {
    // Not given up it runs out.
    await this.options.database.transaction((tx) => releaseLease(tx, lease)).catch(() => undefined);
  }

  /** Says that this runner is there, and counts those that are. All know the same shards of a projection, so none is left over. */
  private async countRunners(tx: Tx, projection: Projection): Promise<number> {
    const prefix = memberPrefix(projection);
    await takeLease(tx, prefix + this.holder, this.holder, this.leaseMs);
    await tx.execute(
      `delete from leases where name in
         (select name from leases where starts_with(name, $1) and expires_at <= clock_timestamp() for update skip locked)`,
      [prefix],
    );
    const [row] = await tx.query<{ runners: number }>(
      'select count(*)::int as runners from leases where starts_with(name, $1) and expires_at > clock_timestamp()',
      [prefix],
    );
    return Math.max(1, row!.runners);
  }
}

const identityOf = ({ name, version }: ProjectionIdentity): ProjectionIdentity => ({ name, version });
/** How the leases by which the runners of a projection count each other begin. */
const memberPrefix = ({ name, version }: ProjectionIdentity) => `projection-runner/${name}/${version}/`;
const leaseName = ({ name, version, shard }: Shard) => `projection/${name}/${version}/${shard}`;
