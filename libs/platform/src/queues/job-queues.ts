import { Queue } from 'bullmq';
import { CodedError } from '@atomo-cc/kernel';
import { QUEUES } from '@atomo-cc/queues';
import type { Redis } from '../redis/index.js';

/** Where a queue stands. */
export interface QueueDepth {
  readonly name: string;
  /** Jobs ready to be taken. */
  readonly waiting: number;
  /** Jobs a worker has. */
  readonly active: number;
  /** Jobs whose time has not come. */
  readonly delayed: number;
}

/** The declared queues in Redis, for adding jobs and for looking at their depth. */
export class JobQueues {
  private readonly queues: ReadonlyMap<string, Queue>;

  /** @param redis a connection of use `command`, so that adding fails fast while Redis is away */
  constructor(redis: Redis) {
    this.queues = new Map(
      QUEUES.map((declared) => [
        declared.name,
        new Queue(declared.name, {
          connection: redis,
          // What a job did and why it failed stands in Postgres; a finished job left in Redis would also block its id.
          defaultJobOptions: { attempts: declared.policy.attempts, removeOnComplete: true, removeOnFail: true },
        }),
      ]),
    );
    for (const queue of this.queues.values()) queue.on('error', () => undefined);
  }

  /** Adds a job; a job with the same id that still waits makes this a no-op. */
  async add(queue: string, jobId: string, payload: object, delayMs: number): Promise<void> {
    await this.named(queue).add(queue, payload, { jobId, delay: delayMs });
  }

  /** How deep every queue is. */
  async depths(): Promise<QueueDepth[]> {
    return Promise.all(
      [...this.queues.values()].map(async (queue) => {
        const counts = await queue.getJobCounts('wait', 'prioritized', 'active', 'delayed');
        return {
          name: queue.name,
          waiting: (counts['wait'] ?? 0) + (counts['prioritized'] ?? 0),
          active: counts['active'] ?? 0,
          delayed: counts['delayed'] ?? 0,
        };
      }),
    );
  }

  async close(): Promise<void> {
    await Promise.all([...this.queues.values()].map((queue) => queue.close()));
  }

  private named(name: string): Queue {
    const queue = this.queues.get(name);
    if (!queue) throw new CodedError('JOB_NAME_UNKNOWN', `no queue is called ${name}`);
    return queue;
  }
}
