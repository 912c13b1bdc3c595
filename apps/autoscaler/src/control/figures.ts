import type { Counter, Gauge, Metrics } from '@atomo-cc/platform/telemetry';
import { floorOf, serving, type Decision, type View } from './policy.js';

/** What /metrics shows of the leader's work; a standby shows zeros. */
export class Figures {
  private readonly leader: Gauge;
  private readonly desired: Gauge;
  private readonly running: Gauge;
  private readonly jobs: Gauge;
  private readonly decisions: Counter;

  constructor(metrics: Metrics) {
    this.leader = metrics.gauge('autoscaler_leader', '1 while this autoscaler is the one that acts.');
    this.desired = metrics.gauge('autoscaler_workers_desired', 'Workers that should take jobs, by the last decision.');
    this.running = metrics.gauge('autoscaler_workers_running', 'Workers that run, draining ones included.');
    this.jobs = metrics.gauge('autoscaler_queue_jobs', 'Jobs in a queue.', ['queue', 'state']);
    this.decisions = metrics.counter(
      'autoscaler_decisions_total',
      'Decisions, those for nothing counted when the rule changed.',
      ['action', 'rule'],
    );
  }

  leads(isHeld: boolean): void {
    this.leader.set(isHeld ? 1 : 0);
  }

  show(view: View, decision: Decision): void {
    const change = decision.action === 'start' ? decision.count : decision.action === 'drain' ? -1 : 0;
    this.desired.set(Math.max(floorOf(view), serving(view).length + change));
    this.running.set(view.workers.length);
    for (const { name, waiting, active } of view.queues) {
      this.jobs.set({ queue: name, state: 'waiting' }, waiting);
      this.jobs.set({ queue: name, state: 'active' }, active);
    }
  }

  count({ action, rule }: Decision): void {
    this.decisions.inc({ action, rule });
  }

  /** Sets the leader's gauges to nothing: of several autoscalers only the leader claims to know. */
  forget(): void {
    for (const gauge of [this.desired, this.running, this.jobs]) gauge.reset();
  }
}
