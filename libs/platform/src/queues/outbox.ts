import type { MigrationInterface, QueryRunner } from 'typeorm';
import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import { parsePayload, QUEUES, type QueueDeclaration } from '@atomo-cc/queues';
import { runAll, tenantTable, type SystemDatabase, type Tx } from '../postgres/index.js';
import type { JobQueues } from './job-queues.js';

/** How often the relay looks for jobs that nobody told it of, such as those of a process that died after its commit. */
const POLL_MS = 1_000;
/** Jobs moved per transaction: few enough that their rows are locked for milliseconds only. */
const BATCH = 100;

/**
 * What this version can move. A job of a queue that only newer software declares is left to that software's relay; taking it
 * would fail the batch again and again, with all that is behind it.
 */
const KNOWN = QUEUES.map(({ name }) => name);

/** The table of jobs that are committed but not yet in Redis. */
export class Outbox1700000002000 implements MigrationInterface {
  name = 'Outbox1700000002000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table outbox (
         id uuid primary key,
         tenant_id uuid not null,
         queue text not null,
         job_id text not null,
         payload jsonb not null,
         run_at timestamptz not null default now(),
         created_at timestamptz not null default now()
       )`,
      ...tenantTable('outbox', { app: 'insert', system: 'select, insert, update, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table outbox');
  }
}

/**
 * Puts a job into the outbox, in the caller's transaction: it reaches its queue if, and only if, that transaction commits.
 * @param jobId two jobs of one queue with the same id are one while the first still waits; has no colon and is no number (BullMQ's rules)
 * @param delayMs earliest start from now
 * @throws RangeError for such a jobId: in the outbox it would hold up everything behind it
 */
export async function enqueue<Payload extends object>(
  tx: Tx,
  queue: QueueDeclaration<Payload>,
  job: { tenant: TenantId; jobId: string; payload: Payload; delayMs?: number },
): Promise<void> {
  if (!/^[^:]*[^:\d][^:]*$/.test(job.jobId)) throw new RangeError('a job id has no colon, and is no number');
  parsePayload(queue, job.payload);
  await tx.execute(
    `insert into outbox (id, tenant_id, queue, job_id, payload, run_at)
     values ($1, $2, $3, $4, $5, now() + $6 * interval '1 millisecond')`,
    [uuidv7(), job.tenant, queue.name, job.jobId, JSON.stringify(job.payload), job.delayMs ?? 0],
  );
}

/**
 * Moves committed jobs from the outbox to Redis. Every service that enqueues runs one; they share the work by skipping each
 * other's locked rows. A job is added before its row is deleted, so a crash between the two adds it again: at least once.
 */
export class OutboxRelay {
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;
  private isStopped = false;
  private isWanted = false;

  constructor(
    private readonly database: SystemDatabase,
    private readonly queues: JobQueues,
    private readonly onError: (error: unknown) => void,
  ) {}

  start(): void {
    this.timer = setInterval(() => this.kick(), POLL_MS);
    this.kick();
  }

  /** Looks now; called after a commit that enqueued something. */
  kick(): void {
    if (this.isStopped) return;
    if (this.running) {
      this.isWanted = true;
      return;
    }
    this.running = this.drain()
      .catch(this.onError)
      .finally(() => {
        this.running = undefined;
        if (this.isWanted) {
          this.isWanted = false;
          this.kick();
        }
      });
  }

  /** Ends after the move under way. */
  async stop(): Promise<void> {
    this.isStopped = true;
    clearInterval(this.timer);
    await this.running;
  }

  private async drain(): Promise<void> {
    while (!this.isStopped && (await this.moveBatch()) === BATCH);
  }

  private async moveBatch(): Promise<number> {
    return this.database.transaction(async (tx) => {
      const rows = await tx.query<{ id: string; queue: string; job_id: string; payload: object; delay: number }>(
        `select id, queue, job_id, payload,
                greatest(0, extract(epoch from run_at - clock_timestamp()) * 1000)::int as delay
         from outbox where queue = any($1) order by id limit ${BATCH} for update skip locked`,
        [KNOWN],
      );
      for (const row of rows) await this.queues.add(row.queue, row.job_id, row.payload, row.delay);
      await tx.execute('delete from outbox where id = any($1)', [rows.map((row) => row.id)]);
      return rows.length;
    });
  }
}
