import { plainToInstance } from 'class-transformer';
import { IsUUID, validateSync } from 'class-validator';
import { CodedError } from '@atomo-cc/kernel';

/** What a job is refused with before any work is done on it. */
export const QUEUE_ERRORS = {
  JOB_PAYLOAD_INVALID: 'A queued job does not have the shape its queue declares; it was enqueued by other software.',
  JOB_NAME_UNKNOWN: 'A queue holds a job whose name libs/queues does not declare; sender and worker differ in version.',
} as const;

/** One slice of a historical sync: work on the job's row until the slice's time is over, then queue the next one. */
export class HistoricalSyncSlice {
  @IsUUID()
  jobId!: string;

  @IsUUID()
  tenantId!: string;
}

/** How BullMQ treats a job of a queue. */
export interface JobPolicy {
  /** How often BullMQ itself runs it; repeats after an error are decided by the job's row, so this is 1 where a row exists. */
  readonly attempts: number;
  /**
   * How long a worker may be silent before the job counts as stalled and another worker gets it. Short enough that a
   * killed worker's job goes on soon, long enough for a busy event loop; BullMQ renews at half of it.
   */
  readonly lockMs: number;
  /** How often workers look for stalled jobs. */
  readonly stalledCheckMs: number;
  /** How often a job may stall before BullMQ gives it up; the reaper would bring it back from its row even then. */
  readonly maxStalled: number;
}

/** A queue: its name in Redis, its jobs' payload class, and the policy of all its jobs. */
export interface QueueDeclaration<Payload extends object = object> {
  readonly name: string;
  readonly payload: new () => Payload;
  readonly policy: JobPolicy;
}

/** Every queue of the product; a job is declared here and nowhere else. */
export const HISTORICAL_SYNC_QUEUE: QueueDeclaration<HistoricalSyncSlice> = {
  name: 'historical-sync',
  payload: HistoricalSyncSlice,
  policy: { attempts: 1, lockMs: 15_000, stalledCheckMs: 7_500, maxStalled: 100 },
};

/** All declared queues by name, for checks at boot and for the autoscaler's view. */
export const QUEUES: readonly QueueDeclaration[] = [HISTORICAL_SYNC_QUEUE];

/**
 * Reads a job's payload as `queue` declares it.
 * @throws CodedError JOB_PAYLOAD_INVALID naming the faulty properties
 */
export function parsePayload<Payload extends object>(queue: QueueDeclaration<Payload>, data: unknown): Payload {
  const payload = plainToInstance(queue.payload, data ?? {});
  const faults = validateSync(payload, { whitelist: true, forbidUnknownValues: true });
  if (faults.length > 0) {
    const properties = faults.map((fault) => fault.property).join(', ');
    throw new CodedError('JOB_PAYLOAD_INVALID', `a job of queue ${queue.name} has a wrong ${properties}`);
  }
  return payload;
}

/**
 * The Redis channel on which a worker says that a job's row has changed. A hint only: it carries nothing, and who misses one
 * finds the change at its next look at the row.
 */
export function progressChannel(jobId: string): string {
  return `historical-sync:progress:${jobId}`;
}
