import { consume, type QuotaRefusal, reserve, type Reservation, settle } from '@atomo-cc/access';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import type { SyncJobClaim, WaitingFor } from '@atomo-cc/sync-jobs';

/** What the plan of a tenant limits of an import: records that are new or changed. */
const QUOTA = 'importedRecords';
/** Records set aside at a time: ten chunks, so that the ledger is asked seldom, and jobs of one tenant leave each other some. */
const RESERVED_RECORDS = 1_000;
/** What a worker that died has set aside is free again after this time; longer than it needs for its slowest chunk. */
const RESERVED_MS = 120_000;

/**
 * The part of the tenant's quota that is set aside for a job. It goes by the job, not by the worker: who takes the job over has what
 * the worker before has left.
 */
export class QuotaShare {
  private reservation: Reservation | undefined;
  private free = 0;

  constructor(
    private readonly database: AppDatabase,
    private readonly claim: SyncJobClaim,
  ) {}

  /** Records that it is still good for. */
  get left(): number {
    return this.free;
  }

  /** Makes it good for so many records, or for as many as there are; what to wait for when that is none. */
  async enough(records: number): Promise<WaitingFor | null> {
    if (this.reservation && this.free >= records) return null;
    const answer = await reserve(this.database, this.claim.tenant, {
      quota: QUOTA,
      key: `job ${this.claim.jobId}`,
      amount: Math.max(RESERVED_RECORDS, records),
      least: Math.min(records, 1),
      ttlMs: RESERVED_MS,
    });
    if ('refusal' in answer) return waitingForOf(answer.refusal);
    this.reservation = answer.reservation;
    this.free = answer.reservation.left;
    return null;
  }

  /**
   * Counts records in the transaction that writes them. Call `counted` after its commit.
   * @param place where the next chunk begins; a chunk counts once
   * @throws CodedError QUOTA_RESERVATION_LOST
   */
  async count(tx: Tx, records: number, place: number): Promise<void> {
    await consume(tx, this.reservation!, records, `job ${this.claim.jobId} to ${place}`);
  }

  /** The transaction that counted so many is committed. */
  counted(records: number): void {
    this.free -= records;
  }

  /** Gives back what was not used; where that fails, it is free again after two minutes. */
  async giveBack(): Promise<void> {
    if (this.reservation) await settle(this.database, this.reservation).catch(() => undefined);
    this.reservation = undefined;
  }
}

function waitingForOf({ quota, limit, used, reserved, renewsAt }: QuotaRefusal): WaitingFor {
  const others = reserved > 0 ? ` and ${reserved} are set aside for other jobs` : '';
  const day = renewsAt.toISOString().slice(0, 10);
  return {
    quota,
    limit,
    renewsAt: renewsAt.toISOString(),
    message:
      `The plan allows ${limit} imported records a month: ${used} are used${others}. ` +
      `The job goes on by itself on ${day}, or as soon as the plan allows more.`,
  };
}
