import { backoffMs } from '@atomo-cc/kernel';
import {
  afterAttempt,
  CRASH_BACKOFF,
  decide,
  FREE_CRASHES,
  NO_HISTORY,
  SCALE_UP_PAUSE_MS,
  SILENCE_LIMIT_MS,
  START_BACKOFF,
  STARTUP_LIMIT_MS,
  WAIT_PATIENCE_MS,
  type Attempts,
  type Decision,
  type View,
  type WorkerView,
} from './policy.js';

const NOW = 1_000_000_000;
const MINUTE = 60_000;

/** A worker that is ready and free; older ones have smaller numbers. */
const free = (id: string, more: Partial<WorkerView> = {}): WorkerView => ({
  id,
  managed: true,
  startedAt: NOW - 60 * MINUTE + id.charCodeAt(0),
  heardAt: NOW,
  beating: true,
  activeJobs: 0,
  concurrency: 1,
  idleMs: 1_000,
  draining: false,
  drained: false,
  stopping: false,
  ...more,
});
const busy = (id: string, more: Partial<WorkerView> = {}) => free(id, { activeJobs: 1, idleMs: 0, ...more });
const idle = (id: string, minutes = 6) => free(id, { idleMs: minutes * MINUTE });
const booting = (id: string, ageMs = 500) => free(id, { startedAt: NOW - ageMs, heardAt: null, beating: false });
const silent = (id: string, ms: number) => free(id, { heardAt: NOW - ms, beating: false });
const draining = (id: string, more: Partial<WorkerView> = {}) => busy(id, { draining: true, ...more });

const queue = (waiting: number, active = 0, waitedMs = WAIT_PATIENCE_MS) => [
  { name: 'historical-sync', waiting, active, waitingSince: waiting > 0 ? NOW - waitedMs : null },
];

const view = (more: Partial<View>): View => ({
  now: NOW,
  queues: queue(0),
  workers: [],
  limits: { maxWorkers: 3, scaleUpQueueDepth: 5, scaleDownIdleMs: 5 * MINUTE },
  history: NO_HISTORY,
  target: null,
  ...more,
});

const failed = (failures: number, inMs: number): Attempts => ({ failures, retryAt: NOW + inMs });

type Expected = Partial<{ action: Decision['action']; rule: Decision['rule']; which: string; count: number }>;
const none = (rule: Decision['rule']): Expected => ({ action: 'none', rule });

const cases: [name: string, situation: Partial<View>, expected: Expected][] = [
  // Always one.
  ['nothing runs', {}, { action: 'start', count: 1, rule: 'minimum' }],
  ['the only worker died while jobs wait', { queues: queue(20) }, { action: 'start', count: 1, rule: 'minimum' }],
  ['the only worker boots', { workers: [booting('a')], queues: queue(20) }, none('steady')],
  ['the only worker drains', { workers: [draining('a')] }, { action: 'start', count: 1, rule: 'minimum' }],
  ['the only worker is being stopped', { workers: [free('a', { stopping: true })] }, { action: 'start', count: 1 }],
  ['one is there, nothing to do', { workers: [free('a')] }, none('steady')],
  ['the only one is idle for an hour', { workers: [idle('a', 60)] }, none('steady')],
  ['a foreign worker serves', { workers: [free('a', { managed: false })] }, none('steady')],

  // Growing.
  ['five jobs wait for a free worker', { workers: [free('a')], queues: queue(5) }, none('steady')],
  ['six jobs wait', { workers: [free('a')], queues: queue(6) }, { action: 'start', count: 1, rule: 'queue-depth' }],
  [
    'six jobs wait in two queues together',
    { workers: [free('a')], queues: [...queue(3), ...queue(3)] },
    { action: 'start', rule: 'queue-depth' },
  ],
  ['six jobs wait, three run already', { workers: [busy('a'), busy('b'), busy('c')], queues: queue(6) }, none('full')],
  ['six jobs wait, one boots', { workers: [busy('a'), booting('b')], queues: queue(6) }, none('steady')],
  [
    'six jobs wait, one was just added',
    {
      workers: [busy('a'), busy('b')],
      queues: queue(6),
      history: { ...NO_HISTORY, scaledUpAt: NOW - SCALE_UP_PAUSE_MS + 1 },
    },
    none('steady'),
  ],
  [
    'six jobs still wait after the pause',
    {
      workers: [busy('a'), busy('b')],
      queues: queue(6),
      history: { ...NO_HISTORY, scaledUpAt: NOW - SCALE_UP_PAUSE_MS },
    },
    { action: 'start', count: 1, rule: 'queue-depth' },
  ],
  [
    'one job waits, none is free',
    { workers: [busy('a')], queues: queue(1, 1) },
    { action: 'start', rule: 'no-free-worker' },
  ],
  ['one job waits for a moment', { workers: [busy('a')], queues: queue(1, 1, WAIT_PATIENCE_MS - 1) }, none('steady')],
  ['one job waits, one is free', { workers: [busy('a'), free('b')], queues: queue(1, 1) }, none('steady')],
  [
    'one job waits, the worker takes two',
    { workers: [busy('a', { concurrency: 2 })], queues: queue(1, 1) },
    none('steady'),
  ],
  [
    'one job waits, the free one drains',
    { workers: [busy('a'), free('b', { draining: true })], queues: queue(1, 1) },
    { action: 'start', rule: 'no-free-worker' },
  ],
  [
    'six jobs wait, a draining one takes the last place',
    { workers: [busy('a'), busy('b'), draining('c')], queues: queue(6) },
    none('full'),
  ],

  // Shrinking: never the busy one, never the last one, one at a time.
  [
    'two, the newer idle for six minutes',
    { workers: [busy('a'), idle('b')] },
    { action: 'drain', which: 'b', rule: 'idle' },
  ],
  [
    'two, the older idle: the newest is busy and is left alone',
    { workers: [idle('a'), busy('b')] },
    { action: 'drain', which: 'a', rule: 'idle' },
  ],
  ['all three busy', { workers: [busy('a'), busy('b'), busy('c')] }, none('steady')],
  ['three idle: the newest goes', { workers: [idle('a'), idle('b'), idle('c')] }, { action: 'drain', which: 'c' }],
  ['idle for less than the limit', { workers: [idle('a', 4.99), idle('b', 4.99)] }, none('steady')],
  ['idle exactly for the limit', { workers: [idle('a', 5), idle('b', 5)] }, { action: 'drain', which: 'b' }],
  ['idle, but a job waits', { workers: [idle('a'), idle('b')], queues: queue(1) }, none('steady')],
  [
    'idle, one was let go four minutes ago',
    { workers: [idle('a'), idle('b')], history: { ...NO_HISTORY, scaledDownAt: NOW - 4 * MINUTE } },
    none('steady'),
  ],
  [
    'idle, one was let go five minutes ago',
    { workers: [idle('a'), idle('b')], history: { ...NO_HISTORY, scaledDownAt: NOW - 5 * MINUTE } },
    { action: 'drain', which: 'b' },
  ],
  [
    'the idle one is foreign',
    { workers: [busy('a'), free('b', { idleMs: 6 * MINUTE, managed: false })] },
    none('steady'),
  ],
  ['one drains already, one serves', { workers: [idle('a'), draining('b')] }, none('steady')],
  [
    'drained and empty',
    { workers: [free('a'), free('b', { draining: true, drained: true })] },
    { action: 'stop', which: 'b', rule: 'drained' },
  ],
  ['draining and still busy', { workers: [free('a'), draining('b')] }, none('steady')],
  ['empty but not yet closed to jobs', { workers: [free('a'), free('b', { draining: true })] }, none('steady')],
  ['drained, a job was taken all the same', { workers: [free('a'), draining('b', { drained: true })] }, none('steady')],
  [
    'drained and already told to stop',
    { workers: [free('a'), free('b', { draining: true, drained: true, stopping: true })] },
    none('steady'),
  ],

  [
    'a foreign one is drained and empty',
    { workers: [free('a'), free('b', { managed: false, draining: true, drained: true })] },
    none('steady'),
  ],
  [
    'idle for long by its clock, and yet busy',
    { workers: [busy('a'), busy('b', { idleMs: 6 * MINUTE })] },
    none('steady'),
  ],

  // Broken ones.
  ['silent for a moment', { workers: [silent('a', SILENCE_LIMIT_MS)] }, none('steady')],
  ['silent for long', { workers: [silent('a', SILENCE_LIMIT_MS + 1)] }, { action: 'stop', which: 'a', rule: 'silent' }],
  [
    'never made itself known',
    { workers: [booting('a', STARTUP_LIMIT_MS + 1)] },
    { action: 'stop', which: 'a', rule: 'silent' },
  ],
  [
    'silent and being stopped: replaced at once',
    { workers: [free('a', { heardAt: NOW - SILENCE_LIMIT_MS - 1, beating: false, stopping: true })] },
    { action: 'start', count: 1, rule: 'minimum' },
  ],

  // Failures never loop hot.
  ['starting failed', { history: { ...NO_HISTORY, starts: failed(3, 1) } }, none('backoff')],
  [
    'starting failed, the pause is over',
    { history: { ...NO_HISTORY, starts: failed(3, 0) } },
    { action: 'start', count: 1 },
  ],
  [
    'growing waits for the pause too',
    { workers: [busy('a')], queues: queue(9), history: { ...NO_HISTORY, starts: failed(1, 1) } },
    none('backoff'),
  ],
  [
    'a stop that failed does not hold up a start',
    {
      workers: [free('a', { draining: true, drained: true })],
      history: { ...NO_HISTORY, stops: failed(1, 1) },
    },
    { action: 'start', count: 1 },
  ],
  [
    'a start that failed does not hold up a stop',
    {
      workers: [free('a', { draining: true, drained: true })],
      history: { ...NO_HISTORY, starts: failed(1, 1) },
    },
    { action: 'stop', which: 'a' },
  ],

  // What an operator asks for.
  ['three asked for, one runs', { target: 3, workers: [free('a')] }, { action: 'start', count: 2, rule: 'target' }],
  [
    'nine asked for: the limit holds',
    { target: 9, workers: [free('a')] },
    { action: 'start', count: 2, rule: 'target' },
  ],
  ['two asked for: idleness takes none away', { target: 2, workers: [idle('a'), idle('b')] }, none('steady')],
  ['one asked for, many jobs wait', { target: 1, workers: [busy('a')], queues: queue(50) }, none('steady')],
  [
    'one asked for: a free one goes first',
    { target: 1, workers: [free('a'), busy('b')] },
    { action: 'drain', which: 'a' },
  ],
  [
    'one asked for, both busy: drained, not stopped',
    { target: 1, workers: [busy('a'), busy('b')] },
    { action: 'drain', which: 'b' },
  ],
  ['one asked for, one of three drains', { target: 1, workers: [busy('a'), busy('b'), draining('c')] }, none('steady')],
  [
    'four run where three may',
    { workers: [busy('a'), busy('b'), busy('c'), busy('d')] },
    { action: 'drain', which: 'd', rule: 'over-limit' },
  ],
];

describe('the policy', () => {
  it.each(cases)('%s', (_name, situation, expected) => {
    expect(decide(view(situation))).toMatchObject(expected);
  });

  it('gives every decision a reason in words', () => {
    for (const [, situation] of cases) expect(decide(view(situation)).reason).toMatch(/^[A-Z0-9].*\.$/);
  });

  it('never stops a worker that has a job and beats, and never goes below one or above the limit', () => {
    const kinds = [
      free('a'),
      busy('b'),
      idle('c'),
      draining('d'),
      free('e', { draining: true, drained: true }),
      booting('f'),
    ];
    for (let mask = 0; mask < 2 ** kinds.length; mask += 1) {
      const workers = kinds.filter((_, place) => mask & (2 ** place));
      for (const target of [null, 1, 2, 3]) {
        for (const waiting of [0, 1, 6]) {
          const decision = decide(view({ workers, target, queues: queue(waiting) }));
          if (decision.action === 'start') expect(workers.length + decision.count).toBeLessThanOrEqual(3);
          if (decision.action === 'stop')
            expect(workers.find(({ id }) => id === decision.which)).toMatchObject({ drained: true, activeJobs: 0 });
          if (decision.action === 'drain') {
            expect(
              workers.filter((worker) => !worker.draining && worker.id !== decision.which).length,
            ).toBeGreaterThanOrEqual(1);
          }
        }
      }
    }
  });

  it('starts at most a handful of times in ten minutes of a provider that always fails', () => {
    let starts: Attempts = NO_HISTORY.starts;
    let tries = 0;
    for (let now = NOW; now < NOW + 10 * MINUTE; now += 1_000) {
      if (decide(view({ now, history: { ...NO_HISTORY, starts } })).action !== 'start') continue;
      tries += 1;
      starts = afterAttempt(starts, 'failed', now, backoffMs);
    }
    expect(tries).toBeGreaterThan(8);
    expect(tries).toBeLessThan(35);
  });
});

describe('the pauses after failures', () => {
  const longest = (attempt: number, { firstMs, maxMs }: { firstMs: number; maxMs: number }) =>
    backoffMs(attempt, { firstMs, maxMs }, () => 1);

  it('grow to a minute for starts, stay below two seconds for crashes, and end with a success', () => {
    let attempts: Attempts = NO_HISTORY.starts;
    for (let each = 0; each < 20; each += 1) attempts = afterAttempt(attempts, 'failed', NOW, longest);
    expect(attempts).toEqual({ failures: 20, retryAt: NOW + START_BACKOFF.maxMs });
    expect(afterAttempt(attempts, 'crashed', NOW, longest).retryAt).toBe(NOW + CRASH_BACKOFF.maxMs);
    const crashes = (failures: number) => afterAttempt({ failures, retryAt: 0 }, 'crashed', NOW, longest);
    expect(crashes(0)).toEqual({ failures: 1, retryAt: NOW });
    expect(crashes(FREE_CRASHES - 1).retryAt).toBe(NOW);
    expect(crashes(FREE_CRASHES).retryAt).toBeGreaterThan(NOW);
    expect(CRASH_BACKOFF.maxMs).toBeLessThan(2_000);
    expect(afterAttempt(attempts, 'ok', NOW, longest)).toEqual(NO_HISTORY.starts);
  });
});
