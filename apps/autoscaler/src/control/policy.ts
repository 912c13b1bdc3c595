import type { Backoff } from '@atomo-cc/kernel';

/** One worker is always there, so that a job never waits for a machine to boot. */
export const MIN_WORKERS = 1;
/**
 * Waiting jobs count as "nobody takes them" only after this long: between two slices of one job the next slice waits for a
 * moment, and that is no reason for another worker.
 */
export const WAIT_PATIENCE_MS = 5_000;
/** After a worker was added the next one waits until the first had time to take jobs, else one burst starts them all. */
export const SCALE_UP_PAUSE_MS = 10_000;
/** A new worker that has not made itself known by then will not: a cold machine boots in seconds, a local process in one. */
export const STARTUP_LIMIT_MS = 60_000;
/**
 * A worker that runs but has not been heard of for this long hangs. Its jobs went to others long before (their locks last
 * 15 s), so ending it hurts nobody; a shorter limit would end workers whose machine only paused.
 */
export const SILENCE_LIMIT_MS = 30_000;
/** A worker that ends younger than this, although it was ready, counts as crashing. */
export const SHORT_LIFE_MS = 10_000;
/** Pauses after failed starts: the first soon, because most failures pass; never hot, because some do not pass for days. */
export const START_BACKOFF: Backoff = { firstMs: 500, maxMs: 60_000 };
/** Pauses after workers that crashed soon after they were ready: a killed worker must be back within two seconds. */
export const CRASH_BACKOFF: Backoff = { firstMs: 250, maxMs: 1_000 };

/** So many crashes in a row may be anything, such as somebody's kill: their workers are replaced at once. */
export const FREE_CRASHES = 3;

/** What an operator sets. */
export interface Limits {
  /** MAX_WORKERS: no more than this run at once, draining ones included, because each costs memory and money. */
  readonly maxWorkers: number;
  /** SCALE_UP_QUEUE_DEPTH: more waiting jobs than this call for another worker. */
  readonly scaleUpQueueDepth: number;
  /** SCALE_DOWN_IDLE_MINUTES in milliseconds: a worker beyond the first that was idle for this long is let go. */
  readonly scaleDownIdleMs: number;
}

/** A queue as the policy sees it. */
export interface QueueView {
  readonly name: string;
  readonly waiting: number;
  readonly active: number;
  /** Since when jobs wait without a break, in milliseconds since 1970; null when none waits. */
  readonly waitingSince: number | null;
}

/** A worker as the policy sees it: what its provider and its heartbeat say, taken together. */
export interface WorkerView {
  /** The provider's id; for a worker that the provider does not own, its id in the registry. */
  readonly id: string;
  /** False for a worker that the provider does not own: it counts, but is never touched. */
  readonly managed: boolean;
  readonly startedAt: number;
  /** When it was last heard of, in milliseconds since 1970; null when never. */
  readonly heardAt: number | null;
  /** Whether its heartbeat is there at this moment. */
  readonly beating: boolean;
  readonly activeJobs: number;
  readonly concurrency: number;
  readonly idleMs: number;
  readonly draining: boolean;
  readonly drained: boolean;
  /** The provider was told to stop it. */
  readonly stopping: boolean;
}

/** What happened before that bears on what to do now. */
export interface History {
  /** When a worker was last added because of jobs, or let go because of idleness; null for never. */
  readonly scaledUpAt: number | null;
  readonly scaledDownAt: number | null;
  /** Failures in a row, and when the next try is allowed: of starting, of living on after the start, of stopping. */
  readonly starts: Attempts;
  readonly crashes: Attempts;
  readonly stops: Attempts;
}

/** Failures in a row of one kind of act, in milliseconds since 1970. */
export interface Attempts {
  readonly failures: number;
  readonly retryAt: number;
}

/** A history in which nothing happened. */
export const NO_HISTORY: History = {
  scaledUpAt: null,
  scaledDownAt: null,
  starts: { failures: 0, retryAt: 0 },
  crashes: { failures: 0, retryAt: 0 },
  stops: { failures: 0, retryAt: 0 },
};

/** Everything a decision depends on. */
export interface View {
  readonly now: number;
  readonly queues: readonly QueueView[];
  readonly workers: readonly WorkerView[];
  readonly limits: Limits;
  readonly history: History;
  /** How many workers an operator asked for; null leaves it to the queues. */
  readonly target: number | null;
}

/** Which rule decided; stable, for metrics and for programs that read decisions. */
export type Rule =
  | 'minimum'
  | 'target'
  | 'queue-depth'
  | 'no-free-worker'
  | 'idle'
  | 'over-limit'
  | 'drained'
  | 'silent'
  | 'backoff'
  | 'full'
  | 'steady';

/** What to do, and why in words for a person. */
export type Decision = { readonly rule: Rule; readonly reason: string } & (
  | { readonly action: 'start'; readonly count: number }
  | { readonly action: 'drain' | 'stop'; readonly which: string }
  | { readonly action: 'none' }
);

/**
 * Decides the next single step. What is broken or finished is cleared away first, then the minimum is restored, then come
 * the wishes of operator and queues; shrinking is last. A worker is stopped only when it says itself that it is drained, or
 * when nothing has been heard of it for long; a busy one is only ever drained.
 */
export function decide(view: View): Decision {
  return stopFinished(view) ?? restore(view) ?? grow(view) ?? shrink(view) ?? steady(view);
}

/** How many workers there should be now: the operator's wish, or at least one, within the limits. */
export function floorOf(view: Pick<View, 'target' | 'limits'>): number {
  return Math.max(MIN_WORKERS, Math.min(view.target ?? MIN_WORKERS, view.limits.maxWorkers));
}

/** The workers that take jobs, or will once they have booted. */
export function serving(view: Pick<View, 'workers' | 'now'>): WorkerView[] {
  return view.workers.filter((worker) => !worker.draining && !worker.stopping && !isSilent(worker, view.now));
}

function isStarting(worker: WorkerView, now: number): boolean {
  return worker.heardAt === null && !isSilent(worker, now);
}

function isSilent(worker: WorkerView, now: number): boolean {
  if (worker.beating) return false;
  return worker.heardAt === null ? now - worker.startedAt > STARTUP_LIMIT_MS : now - worker.heardAt > SILENCE_LIMIT_MS;
}

function stopFinished({ now, workers, history }: View): Decision | undefined {
  if (now < history.stops.retryAt) return undefined;
  const touchable = workers.filter((worker) => worker.managed && !worker.stopping);
  const done = touchable.find((worker) => worker.beating && worker.drained && worker.activeJobs === 0);
  if (done)
    return { action: 'stop', which: done.id, rule: 'drained', reason: `Worker ${done.id} is drained and empty.` };
  const silent = touchable.find((worker) => isSilent(worker, now));
  if (!silent) return undefined;
  const since = Math.round((now - (silent.heardAt ?? silent.startedAt)) / 1000);
  const what = silent.heardAt === null ? 'never made itself known' : 'has not been heard of';
  return {
    action: 'stop',
    which: silent.id,
    rule: 'silent',
    reason: `Worker ${silent.id} runs but ${what} for ${since} s.`,
  };
}

function restore(view: View): Decision | undefined {
  const floor = floorOf(view);
  const missing = floor - serving(view).length;
  if (missing <= 0) return undefined;
  const rule = view.target === null ? 'minimum' : 'target';
  const wanted = rule === 'minimum' ? 'There must always be one' : `${floor} are asked for`;
  return startWithin(
    view,
    missing,
    rule,
    `${wanted}; ${serving(view).length} of ${view.workers.length} workers can take jobs.`,
  );
}

function grow(view: View): Decision | undefined {
  if (view.target !== null) return undefined;
  const { now, queues, limits, history } = view;
  const waiting = total(queues, 'waiting');
  if (waiting === 0) return undefined;
  const takers = serving(view);
  // Jobs may be about to be taken: by workers that boot, or by the one that was just added.
  if (takers.some((worker) => isStarting(worker, now))) return undefined;
  if (history.scaledUpAt !== null && now - history.scaledUpAt < SCALE_UP_PAUSE_MS) return undefined;
  if (waiting > limits.scaleUpQueueDepth) {
    return startWithin(view, 1, 'queue-depth', `${waiting} jobs wait, more than ${limits.scaleUpQueueDepth}.`);
  }
  const since = Math.min(...queues.flatMap((queue) => queue.waitingSince ?? []));
  const isFree = (worker: WorkerView) => worker.beating && worker.activeJobs < worker.concurrency;
  if (takers.some(isFree) || now - since < WAIT_PATIENCE_MS) return undefined;
  const seconds = Math.round((now - since) / 1000);
  return startWithin(view, 1, 'no-free-worker', `${waiting} jobs wait, for ${seconds} s, and no worker is free.`);
}

/** A start of `count` workers, or why it cannot be. */
function startWithin(view: View, count: number, rule: Rule, reason: string): Decision {
  const { now, workers, limits, history } = view;
  const room = limits.maxWorkers - workers.length;
  if (room <= 0) {
    return {
      action: 'none',
      rule: 'full',
      reason: `${reason} But ${workers.length} run, and MAX_WORKERS is ${limits.maxWorkers}.`,
    };
  }
  const { failures: failed, retryAt } =
    history.crashes.retryAt > history.starts.retryAt ? history.crashes : history.starts;
  if (now < retryAt) {
    const wait = Math.ceil((retryAt - now) / 1000);
    const failures = `${failed} failed in a row`;
    return { action: 'none', rule: 'backoff', reason: `${reason} But ${failures}; the next try is in ${wait} s.` };
  }
  return { action: 'start', count: Math.min(count, room), rule, reason };
}

function shrink(view: View): Decision | undefined {
  const { now, workers, queues, limits, history, target } = view;
  const takers = serving(view);
  const floor = floorOf(view);
  if (takers.length <= floor) return undefined;
  const candidates = takers.filter((worker) => worker.managed && worker.beating);
  if (target !== null || workers.length > limits.maxWorkers) {
    const tooMany = takers.length - (target === null ? limits.maxWorkers : floor);
    // One after the other: each drain may take as long as a job, and what is left over changes meanwhile.
    if (tooMany <= 0 || workers.some((worker) => worker.draining && worker.managed && !worker.stopping))
      return undefined;
    const idlest = candidates.toSorted((a, b) => a.activeJobs - b.activeJobs || b.startedAt - a.startedAt)[0];
    if (!idlest) return undefined;
    const rule = target === null ? 'over-limit' : 'target';
    const reason = `${takers.length} workers run, ${takers.length - tooMany} are ${rule === 'target' ? 'asked for' : 'allowed'}.`;
    return { action: 'drain', which: idlest.id, rule, reason };
  }
  if (total(queues, 'waiting') > 0) return undefined;
  if (history.scaledDownAt !== null && now - history.scaledDownAt < limits.scaleDownIdleMs) return undefined;
  // The youngest of the idle ones: the first worker keeps its well-known port.
  const idle = candidates
    .filter((worker) => worker.activeJobs === 0 && worker.idleMs >= limits.scaleDownIdleMs)
    .toSorted((a, b) => b.startedAt - a.startedAt)[0];
  if (!idle) return undefined;
  const minutes = Math.floor(idle.idleMs / 60_000);
  return {
    action: 'drain',
    which: idle.id,
    rule: 'idle',
    reason: `Worker ${idle.id} had no job for ${minutes} minutes, and no job waits.`,
  };
}

function steady(view: View): Decision {
  const jobs = `jobs waiting: ${total(view.queues, 'waiting')}, worked on: ${total(view.queues, 'active')}`;
  return { action: 'none', rule: 'steady', reason: `Workers: ${serving(view).length}; ${jobs}.` };
}

function total(queues: readonly QueueView[], what: 'waiting' | 'active'): number {
  return queues.reduce((sum, queue) => sum + queue[what], 0);
}

/** What an attempt came to. */
export type Outcome = 'ok' | 'failed' | 'crashed';

/**
 * The attempts after one more: success forgets all failures, a failure pushes the next try away.
 * @param wait draws the pause in milliseconds before try number n; kernel's backoffMs
 */
export function afterAttempt(
  attempts: Attempts,
  outcome: Outcome,
  now: number,
  wait: (attempt: number, backoff: Backoff) => number,
): Attempts {
  if (outcome === 'ok') return { failures: 0, retryAt: 0 };
  const failures = attempts.failures + 1;
  if (outcome === 'crashed' && failures <= FREE_CRASHES) return { failures, retryAt: now };
  return { failures, retryAt: now + wait(failures, outcome === 'crashed' ? CRASH_BACKOFF : START_BACKOFF) };
}
