import type { Counter, Gauge, Metrics } from '@atomo-cc/platform/telemetry';
import type { Shard } from './checkpoints.js';
import type { BuildStatus, ShardStatus } from './status.js';

/** What one runner did and saw, as Prometheus metrics; totals of all runners together stand in the checkpoints. */
export class ProjectionFigures {
  private readonly events: Counter;
  private readonly errors: Counter;
  private readonly letters: Counter;
  private readonly lagEvents: Gauge;
  private readonly lagSeconds: Gauge;
  private readonly done: Gauge;
  private readonly toDo: Gauge;
  private readonly eta: Gauge;

  constructor(metrics: Metrics) {
    const build = ['projection', 'build'];
    const shard = [...build, 'shard'];
    this.events = metrics.counter('projection_events_total', 'Events applied.', build);
    this.errors = metrics.counter('projection_errors_total', 'Attempts at a batch that failed.', build);
    this.letters = metrics.counter('projection_dead_letters_total', 'Events passed over.', build);
    this.lagEvents = metrics.gauge('projection_lag_events', 'Positions drawn behind the checkpoint.', shard);
    this.lagSeconds = metrics.gauge('projection_lag_seconds', 'Age of the oldest event behind the checkpoint.', shard);
    this.done = metrics.gauge('projection_build_events_done', 'Events applied by a build under way.', build);
    this.toDo = metrics.gauge('projection_build_events_to_do', 'Events in the log when the build began.', build);
    this.eta = metrics.gauge('projection_build_eta_seconds', 'Time until the build has caught up.', build);
  }

  applied(shard: Shard, events: number, letters: number): void {
    this.events.inc(labelsOf(shard), events);
    if (letters > 0) this.letters.inc(labelsOf(shard), letters);
  }

  failed(shard: Shard): void {
    this.errors.inc(labelsOf(shard));
  }

  /** Shows the lag of these shards, and no longer that of others: another runner holds them now. */
  showLag(shards: readonly ShardStatus[]): void {
    this.lagEvents.reset();
    this.lagSeconds.reset();
    for (const status of shards) {
      this.lagEvents.set(shardLabels(status), status.lagEvents);
      this.lagSeconds.set(shardLabels(status), status.lagMs / 1000);
    }
  }

  /** Shows how far the builds are that are under way. */
  showBuilds(builds: readonly BuildStatus[]): void {
    for (const gauge of [this.done, this.toDo, this.eta]) gauge.reset();
    for (const build of builds) {
      if (!build.progress) continue;
      const { eventsDone, eventsToDo, etaMs } = build.progress;
      this.done.set(labelsOf(build), eventsDone);
      if (eventsToDo !== null) this.toDo.set(labelsOf(build), eventsToDo);
      if (etaMs !== null) this.eta.set(labelsOf(build), etaMs / 1000);
    }
  }
}

const labelsOf = ({ projection, build }: { projection: string; build: number }) => ({ projection, build });
const shardLabels = (shard: Shard) => ({ ...labelsOf(shard), shard: shard.shard });
