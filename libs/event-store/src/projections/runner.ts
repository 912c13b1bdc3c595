import { CodedError, sleep, uuidv7 } from '@atomo-cc/kernel';
import { releaseLease, takeLease, type Lease, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import type { Metrics } from '@atomo-cc/platform/telemetry';
import { Fence } from '../fence.js';
import type { AppendHints } from '../subscription.js';
import { ensureBuilds, tendBuilds, type BuildWork } from './build-steps.js';
import { isFed, OVER, readBuilds, type Build } from './builds.js';
import { raiseEpoch, type Shard } from './checkpoints.js';
import { retryAsked } from './dead-letters.js';
import { ProjectionFigures } from './figures.js';
import { checkProjection, MAX_BATCH_EVENTS, type DecodeEvents, type Projection } from './projection.js';
import { ShardWorker, type ShardWork } from './shard-worker.js';
import { readBuildStatus, readShards, type ShardStatus } from './status.js';

/** How long a shard waits for a holder that died. A holder renews three times as often; three lost renewals are no accident. */
export const PROJECTION_LEASE_MS = 5_000;
/** How often the log is looked at even when no hint came: a lost hint costs at most this much, never an event. */
export const PROJECTION_POLL_MS = 1_000;
/** How long stop waits for batches that are under way. One that hangs is ended by Postgres, and its lease runs out. */
const STOP_TIMEOUT_MS = 10_000;
/** Steps of builds in a row, as one leads to the next; what is left comes with the next beat. */
const MAX_STEPS = 20;

/** What a runner runs. */
export interface ProjectionRunnerOptions {
  readonly database: SystemDatabase;
  /** The owner's, of the same database: builds are made, renamed and dropped with it. */
  readonly databaseUrl: string;
  /** A projection may stand here in several versions: each runs the builds that are of it. */
  readonly projections: readonly Projection[];
  /** What each batch passes through before it is applied; events are applied as they are stored unless given. */
  readonly decode?: DecodeEvents;
  /** Hints of appends, by which the shards look at once; without them the log is polled (see PROJECTION_POLL_MS). */
  readonly hints?: AppendHints;
  readonly metrics?: Metrics;
  /** Told each failed attempt, and each failed renewal of the leases (then without a shard); for the log. Must not throw. */
  readonly onError?: (error: unknown, shard: Shard | null) => void;
  /** Unless given PROJECTION_LEASE_MS. */
  readonly leaseMs?: number;
  /** Unless given PROJECTION_POLL_MS. */
  readonly pollMs?: number;
  /** Unless given MAX_BATCH_EVENTS. */
  readonly maxEvents?: number;
  /** Unless given STOP_TIMEOUT_MS. */
  readonly stopMs?: number;
}

interface Held {
  readonly lease: Lease;
  readonly worker: ShardWorker;
}

/** A shard with the code that works on it, and what a beat found of its lease. */
interface Beat {
  readonly shard: Shard;
  readonly projection: Projection;
  readonly lease: Lease | null;
  readonly isSurplus: boolean;
}

/**
 * Runs projections: the live builds of async ones, and those that are being made, side by side, and takes builds through
 * their states. A build is run by those who have its version of the code. Each shard is worked on by one of them, whichever
 * holds its lease; the shards of a build are divided evenly among them, and those of a runner that died go to the others
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
  private ignoreHints: (() => void) | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private tending: Promise<void> | null = null;

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
   * Makes the first build of a projection that has none, gives builds that are there what their tables lack, takes its share
   * and begins. Once only; a stopped runner is not started again.
   * @throws CodedError PROJECTION_SHARDS_CHANGED; else what the database throws
   */
  async start(): Promise<void> {
    await ensureBuilds(this.buildWork());
    await this.beat();
    this.beating = this.keepBeating();
    this.ignoreHints = this.options.hints?.listenToAll(() => this.wake());
    this.tend();
  }

  /**
   * Ends after the batches that are under way and gives the leases up, so that others go on at once. After STOP_TIMEOUT_MS
   * it waits no longer. Never rejects.
   */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.ignoreHints?.();
    const leases = [...this.held.values()].map(({ lease }) => lease);
    const ended = Promise.all([
      this.beating,
      this.tending,
      ...[...this.held.values()].map(({ worker }) => worker.stop()),
      ...this.leaving,
    ]).then(() => true);
    const limit = new AbortController();
    const isEnded = await Promise.race([ended, sleep(this.options.stopMs ?? STOP_TIMEOUT_MS, limit.signal)]);
    limit.abort();
    this.held.clear();
    // What still hangs keeps its lease until it runs out, and the database may be what it hangs on.
    if (!isEnded) return;
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

  /** Notices at once what was asked for (a build, a switch, a resumption), instead of with the next beat. */
  async look(): Promise<void> {
    if (this.stopping.signal.aborted) return;
    await this.beat();
    this.tend();
    await this.tending;
    this.wake();
  }

  /** Lets all shards look at the log: to be called on the hint that it has grown, or that a projection was resumed. */
  wake(): void {
    for (const { worker } of this.held.values()) worker.wake();
  }

  /** The shards that this runner works on. */
  get shards(): readonly Shard[] {
    return [...this.held.values()].map(({ worker }) => worker.shard);
  }

  /** How all shards of its projections stand that are fed from the log, whoever works on them. */
  status(): Promise<ShardStatus[]> {
    return this.options.database.transaction((tx) => readShards(tx, this.names));
  }

  private get names(): readonly string[] {
    return [...new Set(this.projections.map(({ name }) => name))];
  }

  private buildWork(): BuildWork {
    const { database, databaseUrl, decode, onError } = this.options;
    const { fence, projections } = this;
    return { database, databaseUrl, fence, projections, decode, onError: (error) => onError?.(error, null) };
  }

  /** Takes builds on, beside the beats: a step may wait for locks longer than a lease lasts. */
  private tend(): void {
    this.tending ??= this.takeSteps()
      .catch((error: unknown) => this.options.onError?.(error, null))
      .finally(() => (this.tending = null));
  }

  private async takeSteps(): Promise<void> {
    for (let step = 0; step < MAX_STEPS && !this.stopping.signal.aborted; step += 1) {
      const work = this.buildWork();
      if (step === 0) await retryAsked(work.database, work).catch(work.onError);
      if (!(await tendBuilds(work)) || this.stopping.signal.aborted) return;
      // The next builds have shards of their own to take.
      await this.beat();
    }
  }

  private async keepBeating(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      await sleep(this.leaseMs / 3, this.stopping.signal);
      if (this.stopping.signal.aborted) return;
      // Meanwhile the workers go on: what they may still do is decided by the epoch in their checkpoints, not here.
      await this.beat().catch((error: unknown) => this.options.onError?.(error, null));
      this.tend();
    }
  }

  /** Renews, takes and gives up leases, all in one transaction: a beat per shard would wear the pool out when there are many. */
  private async beat(): Promise<void> {
    // One at a time: two would judge the same workers by what each of them found.
    const turn = this.turn.then(() => this.beatNow());
    this.turn = turn.catch(() => undefined);
    await turn;
  }

  private async beatNow(): Promise<void> {
    if (this.stopping.signal.aborted) return;
    const { beats, builds } = await this.options.database.transaction(async (tx) => {
      const found: Beat[] = [];
      const known = await readBuilds(tx, this.names);
      for (const projection of this.projections) {
        const own = known.filter(
          (build) => build.projection === projection.name && build.version === projection.version,
        );
        refuseOtherShards(projection, own);
        const runners = await this.countRunners(tx, projection);
        for (const build of own.filter(isFed)) found.push(...(await this.takeShare(tx, projection, build, runners)));
      }
      return { beats: found, builds: this.figures ? await readBuildStatus(tx, this.names) : [] };
    });
    const listed = new Set(beats.map(({ shard }) => leaseName(shard)));
    for (const [name, held] of this.held) if (!listed.has(name)) this.letGo(name, held, held.lease);
    for (const each of beats) this.settle(each);
    const shards = builds.flatMap((build) => build.shards);
    this.figures?.showLag(shards.filter((shard) => this.held.has(leaseName(shard))));
    this.figures?.showBuilds(builds);
  }

  /** The leases of its share of a build's shards. */
  private async takeShare(tx: Tx, projection: Projection, build: Build, runners: number): Promise<Beat[]> {
    const found: Beat[] = [];
    const share = Math.ceil(build.shards / runners);
    let taken = 0;
    const take = async (shard: Shard): Promise<Lease | null> => {
      const name = leaseName(shard);
      const lease = await takeLease(tx, name, this.holder, this.leaseMs);
      const held = this.held.get(name);
      if (!lease || (held && held.lease.epoch === lease.epoch && !held.worker.isOver)) return lease;
      return (await raiseEpoch(tx, shard, lease)) ?? lease;
    };
    // Its own first, so that it does not change shards without need; each group by number.
    const shards = Array.from({ length: build.shards }, (_, shard) => ({
      projection: build.projection,
      build: build.build,
      shard,
    }));
    for (const shard of shards.filter((each) => this.held.has(leaseName(each)))) {
      const isSurplus = taken >= share;
      const lease = await take(shard);
      found.push({ shard, projection, lease, isSurplus });
      if (lease && !isSurplus) taken += 1;
    }
    for (const shard of shards.filter((each) => !this.held.has(leaseName(each)))) {
      if (taken >= share) break;
      const lease = await take(shard);
      if (lease) taken += 1;
      found.push({ shard, projection, lease, isSurplus: false });
    }
    return found;
  }

  /** Brings the worker of a shard in line with its lease. */
  private settle({ shard, projection, lease, isSurplus }: Beat): void {
    const name = leaseName(shard);
    const held = this.held.get(name);
    if (held && (!lease || isSurplus || lease.epoch !== held.lease.epoch || held.worker.isOver)) {
      this.letGo(name, held, isSurplus ? lease : null);
    }
    if (lease && !isSurplus && !this.held.has(name) && !this.stopping.signal.aborted) {
      this.held.set(name, { lease, worker: new ShardWorker(this.workOn(projection, shard), shard, lease.epoch) });
    }
  }

  /** Stops a worker, and gives its lease up when it has ended. */
  private letGo(name: string, { worker }: Held, lease: Lease | null): void {
    // Not waited for: a worker that lost its lease may hang, and can do no harm.
    this.held.delete(name);
    const gone = worker.stop().then(() => (lease ? this.giveUp(lease) : undefined));
    this.leaving.add(gone);
    void gone.finally(() => this.leaving.delete(gone));
  }

  private workOn(projection: Projection, shard: Shard): ShardWork {
    const { database, decode, onError } = this.options;
    return {
      database,
      fence: this.fence,
      code: { projection, decode },
      maxEvents: this.options.maxEvents ?? MAX_BATCH_EVENTS,
      pollMs: this.options.pollMs ?? PROJECTION_POLL_MS,
      idleMs: this.leaseMs,
      onApplied: (events, letters) => this.figures?.applied(shard, events - letters, letters),
      onError: (error) => {
        this.figures?.failed(shard);
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

/** @throws CodedError PROJECTION_SHARDS_CHANGED: events would be divided anew among checkpoints of the old division */
function refuseOtherShards({ name, version, shards = 1 }: Projection, builds: readonly Build[]): void {
  const other = builds.find((build) => build.shards !== shards && !OVER.includes(build.state));
  if (!other) return;
  throw new CodedError(
    'PROJECTION_SHARDS_CHANGED',
    `Projection ${name} version ${version} has run with ${other.shards} shards and now asks for ${shards}: give it a new version.`,
  );
}

/** How the leases by which the runners of a version count each other begin. */
const memberPrefix = ({ name, version }: Pick<Projection, 'name' | 'version'>) =>
  `projection-runner/${name}/${version}/`;
const leaseName = ({ projection, build, shard }: Shard) => `projection/${projection}/${build}/${shard}`;
