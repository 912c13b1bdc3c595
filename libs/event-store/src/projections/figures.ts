import type { Counter, Gauge, Metrics } from '@atomo-cc/platform/telemetry';
import type { Shard, ShardStatus } from './checkpoints.js';
import type { ProjectionIdentity } from './projection.js';

/** What one runner did and saw, as Prometheus metrics; totals of all runners together stand in the checkpoints. */
export class ProjectionFigures {
  private readonly events: Counter;
  private readonly errors: Counter;
  private readonly letters: Counter;
  private readonly lagEvents: Gauge;
  private readonly lagSeconds: Gauge;

  constructor(metrics: Metrics) {
    const projection = ['projection', 'version'];
    const shard = [...projection, 'shard'];
    this.events = metrics.counter('projection_events_total', 'Events applied.', projection);
    this.errors = metrics.counter('projection_errors_total', 'Attempts at a batch that failed.', projection);
    this.letters = metrics.counter('projection_dead_letters_total', 'Events passed over.', projection);
    this.lagEvents = metrics.gauge('projection_lag_events', 'Positions drawn behind the checkpoint.', shard);
    this.lagSeconds = metrics.gauge('projection_lag_seconds', 'Age of the oldest event behind the checkpoint.', shard);
  }

  applied(projection: ProjectionIdentity, events: number, letters: number): void {
    this.events.inc(labelsOf(projection), events);
    if (letters > 0) this.letters.inc(labelsOf(projection), letters);
  }

  failed(projection: ProjectionIdentity): void {
    this.errors.inc(labelsOf(projection));
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
}

const labelsOf = ({ name, version }: ProjectionIdentity) => ({ projection: name, version });
const shardLabels = (shard: Shard) => ({ ...labelsOf(shard), shard: shard.shard });
