import { hostname } from 'node:os';
import { uuidv7 } from '@atomo-cc/kernel';
import type { Redis } from '../redis/index.js';

/** How often a worker says that it lives; also the longest a worker needs to notice a drain request. */
export const BEAT_MS = 1_000;
/** After this silence a worker is no longer listed: four beats may get lost on the way, a fifth is no accident. */
export const BEAT_TTL_MS = 5_000;
/** How long a drain request waits to be read: many beats long, so that a worker whose Redis was away still finds it. */
const DRAIN_REQUEST_TTL_MS = 60_000;
/** The shape of an entry; readers skip entries of any other version. */
const ENTRY_VERSION = 1;

/** All keys share one hash tag, so that they lie on one node of a Redis Cluster and can be changed together. */
const INDEX = '{workers}:ids';
const entryKey = (id: string) => `{workers}:entry:${id}`;
const drainKey = (id: string) => `{workers}:drain:${id}`;

/** A worker as it describes itself. It is listed while it beats; nobody has to clear up after a killed one. */
export interface RegisteredWorker {
  readonly version: typeof ENTRY_VERSION;
  /** New at every start of a worker. */
  readonly id: string;
  /** Which service it is, such as historical-sync-worker. */
  readonly name: string;
  readonly pid: number;
  readonly host: string;
  /** The cloud's own id of the machine, where there is one. */
  readonly machine: string | null;
  readonly url: string;
  /** When the process started, in milliseconds since 1970 by the worker's own clock. */
  readonly startedAt: number;
  readonly activeJobs: number;
  /** How many jobs it works on at the same time. */
  readonly concurrency: number;
  /** How long it has had no job, in milliseconds; 0 while it has one. */
  readonly idleMs: number;
  /** It was asked to drain: it takes no new job, or stops taking them at its next beat. */
  readonly draining: boolean;
  /** It drains, has no job left and will take none: it may be stopped without hurting anybody. */
  readonly drained: boolean;
}

/** What a worker says of itself. */
export interface WorkerBeatOptions {
  readonly name: string;
  readonly url: string;
  /** How many jobs it has now. */
  readonly activeJobs: () => number;
  /**
   * Asked once to take no further job; the jobs it has go on. When it answers a promise, the worker counts as drained only
   * after it resolved. When it fails, it is asked again at the next beat.
   */
  readonly onDrain: () => void | Promise<void>;
  /** How many jobs it works on at the same time; 1 unless given. */
  readonly concurrency?: number;
  /** The cloud's id of this machine, such as FLY_MACHINE_ID. */
  readonly machine?: string;
}

/** A worker's running heartbeat. */
export interface WorkerBeat {
  readonly id: string;
  /** True from the moment the worker read a drain request. */
  readonly isDraining: boolean;
  /** Beats now, such as when a job began or ended. Never rejects: a beat that Redis did not take is made up for by the next. */
  update(): Promise<void>;
  /** Ends the heartbeat and takes the worker off the list. Never rejects. */
  stop(): Promise<void>;
}

/**
 * Makes a worker known to the autoscaler for as long as it lives. While Redis is away beats are dropped, and the worker is
 * listed again with the first beat after it came back.
 */
export function startWorkerBeat(redis: Redis, options: WorkerBeatOptions): WorkerBeat {
  const id = uuidv7();
  const startedAt = Math.round(Date.now() - process.uptime() * 1000);
  let idleFrom = performance.now();
  let drain: 'not asked' | 'asked' | 'closed to jobs' = 'not asked';
  let isStopped = false;
  let running: Promise<void> | undefined;

  const entry = (): RegisteredWorker => {
    const activeJobs = options.activeJobs();
    if (activeJobs > 0) idleFrom = performance.now();
    return {
      version: ENTRY_VERSION,
      id,
      name: options.name,
      pid: process.pid,
      host: hostname(),
      machine: options.machine || null,
      url: options.url,
      startedAt,
      activeJobs,
      concurrency: options.concurrency ?? 1,
      idleMs: activeJobs > 0 ? 0 : Math.round(performance.now() - idleFrom),
      draining: drain !== 'not asked',
      drained: drain === 'closed to jobs' && activeJobs === 0,
    };
  };

  const beatOnce = async () => {
    const replies = await redis
      .multi()
      .set(entryKey(id), JSON.stringify(entry()), 'PX', BEAT_TTL_MS)
      .sadd(INDEX, id)
      .get(drainKey(id))
      .exec();
    const isAsked = replies?.[2]?.[1] != null;
    if (!isAsked || drain !== 'not asked') return;
    drain = 'asked';
    // Not awaited: closing may take as long as a job, and the beat must go on meanwhile.
    Promise.resolve()
      .then(options.onDrain)
      .then(
        () => {
          drain = 'closed to jobs';
          return beat.update();
        },
        () => {
          drain = 'not asked';
        },
      );
  };

  // One beat at a time: a connection that queues commands while Redis is away would else pile up a beat per second.
  const beatUnlessRunning = (): Promise<void> => {
    running ??= beatOnce()
      .catch(() => undefined)
      .finally(() => {
        running = undefined;
      });
    return running;
  };

  const timer = setInterval(() => void beatUnlessRunning(), BEAT_MS);
  // A worker that boots faster than its connection, or whose Redis comes back, is listed at once.
  const beatNow = () => void beat.update();
  redis.on('ready', beatNow);
  const beat: WorkerBeat = {
    id,
    get isDraining() {
      return drain !== 'not asked';
    },
    update: async () => {
      // A beat under way may have looked before the change that the caller wants known.
      await running;
      if (!isStopped) await beatUnlessRunning();
    },
    stop: async () => {
      isStopped = true;
      clearInterval(timer);
      redis.off('ready', beatNow);
      if (redis.status !== 'ready') return;
      await running;
      await redis
        .multi()
        .del(entryKey(id))
        .srem(INDEX, id)
        .del(drainKey(id))
        .exec()
        .catch(() => undefined);
    },
  };
  void beatUnlessRunning();
  return beat;
}

/** All workers that beat within the last BEAT_TTL_MS, in the order in which they registered. Rejects while Redis is away. */
export async function listWorkers(redis: Redis): Promise<RegisteredWorker[]> {
  const ids = (await redis.smembers(INDEX)).sort();
  if (ids.length === 0) return [];
  const [entries, requests] = await Promise.all([redis.mget(ids.map(entryKey)), redis.mget(ids.map(drainKey))]);
  // A worker whose entry came back between the two commands puts itself on the index again with its next beat.
  const silent = ids.filter((_, place) => entries[place] == null);
  if (silent.length > 0) await redis.srem(INDEX, ...silent);
  return ids.flatMap((_, place) => {
    const worker = parseEntry(entries[place]);
    if (!worker) return [];
    return [{ ...worker, draining: worker.draining || requests[place] != null }];
  });
}

/**
 * Asks a worker to take no further job. It reads the request at its next beat; asking twice does no harm.
 * @returns whether such a worker is listed
 */
export async function requestDrain(redis: Redis, id: string): Promise<boolean> {
  if ((await redis.exists(entryKey(id))) === 0) return false;
  await redis.set(drainKey(id), '1', 'PX', DRAIN_REQUEST_TTL_MS);
  return true;
}

function parseEntry(text: string | null | undefined): RegisteredWorker | undefined {
  if (text == null) return undefined;
  try {
    const entry = JSON.parse(text) as RegisteredWorker;
    return entry.version === ENTRY_VERSION ? entry : undefined;
  } catch {
    return undefined;
  }
}
