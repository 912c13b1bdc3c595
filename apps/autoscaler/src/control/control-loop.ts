import { backoffMs, isCodedError } from '@atomo-cc/kernel';
import type { Logger } from '@atomo-cc/platform/logging';
import type { Redis } from '@atomo-cc/platform/redis';
import { requestDrain, type RegisteredWorker } from '@atomo-cc/platform/workers';
import type { WorkerProvider } from '../fleet/index.js';
import type { Figures } from './figures.js';
import type { Leadership } from './leadership.js';
import type { Loss, Observation, Observer } from './observer.js';
import {
  afterAttempt,
  decide,
  NO_HISTORY,
  SHORT_LIFE_MS,
  type Decision,
  type History,
  type Limits,
  type Outcome,
  type View,
} from './policy.js';
import type { DecisionRecord, SharedState } from './shared-state.js';

/** How often the leader looks: well inside the two seconds in which a dead worker must be back. */
export const LOOK_MS = 1_000;
/** Steps per look, so that a fault in the policy could never start or stop things without a pause. */
const STEPS_PER_LOOK = 5;

/** What the loop works with. */
export interface ControlParts {
  readonly provider: WorkerProvider;
  readonly leadership: Leadership;
  readonly observer: Observer;
  readonly state: SharedState;
  readonly redis: Redis;
  readonly limits: Limits;
  readonly figures: Figures;
  readonly logger: Logger;
}

/**
 * Looks, decides and acts, again and again, while it leads. A look that fails (Postgres, Redis or the provider away) ends
 * without an act, and the next one starts from what is there then.
 */
export class ControlLoop {
  private history: History = NO_HISTORY;
  private lastFailureAt = 0;
  private lastRule = '';
  private lastFault = '';
  private wasLeader = false;
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private isWanted = false;
  private isStopped = false;

  constructor(private readonly parts: ControlParts) {
    parts.provider.onChange(() => this.kick());
  }

  start(): void {
    this.kick();
  }

  /** Looks now rather than at the next second. */
  kick(): void {
    if (this.isStopped) return;
    if (this.running) {
      this.isWanted = true;
      return;
    }
    clearTimeout(this.timer);
    this.running = this.whileRenewing(() => this.lookSafely()).finally(() => {
      this.running = undefined;
      if (this.isStopped) return;
      const again = this.isWanted;
      this.isWanted = false;
      if (again) this.kick();
      else this.timer = setTimeout(() => this.kick(), this.pause());
    });
  }

  /** Ends after the step under way, ends what should not outlive the leader, and gives the lease to whoever is next. */
  async stop(): Promise<void> {
    this.isStopped = true;
    clearTimeout(this.timer);
    await this.running;
    const { provider, leadership } = this.parts;
    // The lease is kept until the workers are gone: the next leader then finds none half stopped.
    if (leadership.isHeld) await this.whileRenewing(() => provider.close(true));
    else await provider.close(false);
    await leadership.release();
  }

  /** Until the next look: a second, or less when a pause after a failure ends before. */
  private pause(): number {
    const untilRetry = Math.max(this.history.starts.retryAt, this.history.crashes.retryAt) - Date.now();
    return untilRetry > 0 ? Math.min(LOOK_MS, untilRetry) : LOOK_MS;
  }

  /** A cloud may take longer to start a worker than a lease lasts, so the lease is renewed beside the work. */
  private async whileRenewing(work: () => Promise<void>): Promise<void> {
    const { leadership } = this.parts;
    // Once lost it is not taken back in the middle of an act: what was seen before says nothing any more.
    const renew = () => void (leadership.isHeld && leadership.take().catch(() => undefined));
    const timer = setInterval(renew, LOOK_MS);
    await work().finally(() => clearInterval(timer));
  }

  private async lookSafely(): Promise<void> {
    const { leadership, logger, figures } = this.parts;
    try {
      await this.look();
      if (this.lastFault) logger.info('looking again');
      this.lastFault = '';
    } catch (error) {
      const fault = error instanceof Error ? error.message : String(error);
      // Said once, not every second for as long as it lasts.
      if (fault !== this.lastFault) logger.warn({ err: error }, 'nothing can be decided');
      this.lastFault = fault;
    }
    figures.leads(leadership.isHeld);
  }

  private async look(): Promise<void> {
    const { leadership, observer, logger, figures } = this.parts;
    const leads = await leadership.take();
    if (leads !== this.wasLeader) {
      this.wasLeader = leads;
      this.lastRule = '';
      observer.forget();
      figures.forget();
      logger.info({ holder: leadership.holder }, leads ? 'leading' : 'another autoscaler leads');
    }
    for (let step = 0; step < STEPS_PER_LOOK && leadership.isHeld && !this.isStopped; step += 1) {
      if (!(await this.step())) return;
    }
  }

  /** One look, one decision, one act. Answers whether another may follow at once. */
  private async step(): Promise<boolean> {
    const { state, observer, limits, leadership, figures } = this.parts;
    const now = Date.now();
    const target = await state.target();
    const seen = await observer.look(now);
    for (const loss of seen.losses) await this.noteLoss(loss, now);
    this.noteHealth(seen, now);
    const view: View = { now, queues: seen.queues, workers: seen.workers, limits, history: this.history, target };
    const decision = decide(view);
    figures.show(view, decision);
    if (decision.action === 'none' || !this.parts.provider.canAct) {
      if (decision.rule !== this.lastRule) await this.record(decision, decision.action === 'none' ? 'done' : 'advice');
      return false;
    }
    // Looking took time; the lease may have ended meanwhile.
    if (!leadership.isHeld) return false;
    const outcome = await this.carryOut(decision, seen);
    await this.record(decision, outcome ?? 'done');
    return outcome === null;
  }

  /** Answers null when it is done, else what went wrong. */
  private async carryOut(decision: Exclude<Decision, { action: 'none' }>, seen: Observation): Promise<string | null> {
    const { provider, redis } = this.parts;
    const now = Date.now();
    try {
      switch (decision.action) {
        case 'start':
          for (let each = 0; each < decision.count; each += 1) await provider.start();
          if (decision.rule === 'queue-depth' || decision.rule === 'no-free-worker') {
            this.history = { ...this.history, scaledUpAt: now };
          }
          return null;
        case 'drain':
          return await this.drain(decision, seen.registered.get(decision.which), redis, now);
        case 'stop':
          await provider.stop(decision.which);
          this.history = { ...this.history, stops: NO_HISTORY.stops };
          return null;
      }
    } catch (error) {
      const code = isCodedError(error) ? error.code : '';
      // What is gone needs no stop; the next look no longer sees it.
      if (decision.action === 'stop' && code !== 'FLEET_WORKER_GONE') {
        this.history = { ...this.history, stops: afterAttempt(this.history.stops, 'failed', now, backoffMs) };
      }
      if (decision.action === 'start') this.note('starts', 'failed', now);
      this.parts.logger.warn({ err: error, action: decision.action }, 'the provider failed');
      return error instanceof Error ? error.message : String(error);
    }
  }

  private async drain(
    decision: Decision,
    worker: RegisteredWorker | undefined,
    redis: Redis,
    now: number,
  ): Promise<string | null> {
    if (!worker || !(await requestDrain(redis, worker.id))) return 'The worker is no longer registered.';
    if (decision.rule === 'idle') this.history = { ...this.history, scaledDownAt: now };
    return null;
  }

  private note(kind: 'starts' | 'crashes', outcome: Outcome, now: number): void {
    this.history = { ...this.history, [kind]: afterAttempt(this.history[kind], outcome, now, backoffMs) };
    if (outcome !== 'ok') this.lastFailureAt = now;
  }

  /** A worker started after the last failure ends the row of failed starts when it beats, that of crashes when it lives on. */
  private noteHealth(seen: Observation, now: number): void {
    const newcomers = seen.workers.filter((worker) => worker.beating && worker.startedAt >= this.lastFailureAt);
    if (this.history.starts.failures > 0 && newcomers.length > 0) this.note('starts', 'ok', now);
    const livesOn = newcomers.some((worker) => now - worker.startedAt >= SHORT_LIFE_MS);
    if (this.history.crashes.failures > 0 && livesOn) this.note('crashes', 'ok', now);
  }

  private async noteLoss(loss: Loss, now: number): Promise<void> {
    if (loss.kind === 'boot') this.note('starts', 'failed', now);
    if (loss.kind === 'crash') this.note('crashes', 'crashed', now);
    const when = { boot: 'before it was ready', crash: 'soon after it was ready', late: 'without having been told to' };
    const reason = `Worker ${loss.id} ended ${when[loss.kind]}: ${loss.how}.`;
    this.parts.logger.warn({ worker: loss.id, kind: loss.kind }, reason);
    await this.keep({ action: 'noticed', rule: 'ended', reason, which: loss.id, count: null, outcome: 'done' });
  }

  private async record(decision: Decision, outcome: string): Promise<void> {
    this.lastRule = decision.rule;
    this.parts.figures.count(decision);
    const which = 'which' in decision ? decision.which : null;
    const count = 'count' in decision ? decision.count : null;
    const { action, rule, reason } = decision;
    this.parts.logger.info({ action, rule, which, count, outcome }, reason);
    await this.keep({ action, rule, reason, which, count, outcome });
  }

  /** The act is done by now; that it could not be written down is said in the log and changes nothing. */
  private async keep(what: Omit<DecisionRecord, 'version' | 'at' | 'leader'>): Promise<void> {
    const { state, leadership, logger } = this.parts;
    const entry: DecisionRecord = { version: 1, at: new Date().toISOString(), leader: leadership.holder, ...what };
    await state.record(entry).catch((error: unknown) => logger.warn({ err: error }, 'a decision could not be kept'));
  }
}
