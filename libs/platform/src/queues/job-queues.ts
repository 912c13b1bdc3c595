import { Queue } from 'bullmq';
import { CodedError, type TenantId } from '@atomo-cc/kernel';
import { QUEUES, type QueueDeclaration } from '@atomo-cc/queues';
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

/** The declared queues in Redis, for adding jobs and for looking at their depth. While Redis is away every call fails at once. */
export class JobQueues {
  private readonly opened = new Map<string, Promise<Queue>>();

  /** @param redis a connection of use `command`, so that adding fails fast while Redis is away */
  constructor(private readonly redis: Redis) {}

  /** Adds a job; a job with the same id that still waits makes this a no-op. */
  async add(queue: string, jobId: string, payload: object, delayMs: number): Promise<void> {
    const declared = QUEUES.find(({ name }) => name === queue);
    if (!declared) throw new CodedError('JOB_NAME_UNKNOWN', `no queue is called ${queue}`);
    await (await this.open(declared)).add(queue, payload, { jobId, delay: delayMs });
  }

  /** How deep every queue is. */
  async depths(): Promise<QueueDepth[]> {
    return Promise.all(
      QUEUES.map(async (declared) => {
        const queue = await this.open(declared);
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

  /**
   * Removes the jobs of a tenant that wait. One that a worker has ends by itself: its row is gone.
   * @returns how many were removed
   */
  async removeJobsOf(tenant: TenantId): Promise<number> {
    let removed = 0;
    for (const declared of QUEUES) {
      const queue = await this.open(declared);
      for (const job of await queue.getJobs(['wait', 'prioritized', 'delayed', 'failed', 'completed'])) {
        if ((job?.data as { tenantId?: unknown } | undefined)?.tenantId !== tenant) continue;
        removed += await queue.remove(job.id!);
      }
    }
    return removed;
  }

  async close(): Promise<void> {
    const opened = await Promise.allSettled(this.opened.values());
    await Promise.all(opened.flatMap((queue) => (queue.status === 'fulfilled' ? [queue.value.close()] : [])));
  }

  /**
   * BullMQ waits without limit for a connection that was never there, and a queue whose first command failed stays broken
   * for ever. So a queue is made only while Redis is there, and anew after such a failure.
   */
  private async open(declared: QueueDeclaration): Promise<Queue> {
    if (this.redis.status !== 'ready') throw new Error(`Redis is not connected (${this.redis.status})`);
    let opening = this.opened.get(declared.name);
    if (!opening) {
      opening = openQueue(declared, this.redis);
      this.opened.set(declared.name, opening);
      opening.catch(() => this.opened.delete(declared.name));
    }
    return opening;
  }
}

async function openQueue(declared: QueueDeclaration, redis: Redis): Promise<Queue> {
  const queue = new Queue(declared.name, {
    connection: redis,
    // What a job did and why it failed stands in Postgres; a finished job left in Redis would also block its id.
    defaultJobOptions: { attempts: declared.policy.attempts, removeOnComplete: true, removeOnFail: true },
  });
  // The caller of a command meets its error; an event without a listener would end the process.
  queue.on('error', () => undefined);
  try {
    await queue.waitUntilReady();
    return queue;
  } catch (error) {
    await queue.close().catch(() => undefined);
    throw error;
  }
}
