import { consume, type QuotaRefusal, reserve, type Reservation, settle } from '@atomo-cc/access';
import { apiError, type CodedError, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { AppDatabase } from '@atomo-cc/platform/postgres';

/** What the plan of a tenant limits of uploads. */
const QUOTA = 'uploadedBytes';
/** Bytes set aside beyond those that have come: the ledger is asked seldom, and other uploads have their share. */
const RESERVED_AHEAD = 64 * 1024 * 1024;
/** An upload that brings nothing for so long, or whose process died, has nothing set aside any more; at its end it is asked for again. */
const RESERVED_MS = 3_600_000;

/** Holds an upload to what is left of its tenant's quota. Only what was stored whole is counted. */
export class UploadQuota {
  private readonly key = `upload ${uuidv7()}`;
  private reservation: Reservation | undefined;
  private bytes = 0;

  constructor(
    private readonly database: AppDatabase,
    private readonly tenant: TenantId,
  ) {}

  /** Passes an upload on for as long as the quota allows. @throws CodedError RATE_LIMITED with what is left and when it renews */
  async *metered(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of source) {
      this.bytes += piece.length;
      if (this.bytes > (this.reservation?.left ?? 0)) await this.enough(this.bytes + RESERVED_AHEAD);
      yield piece;
    }
  }

  /** Counts what has come. @throws CodedError RATE_LIMITED when it came so slowly that others have taken the quota meanwhile */
  async count(): Promise<void> {
    if (this.bytes === 0) return;
    await this.enough(this.bytes);
    await this.database.transaction(this.tenant, (tx) => consume(tx, this.reservation!, this.bytes, this.key));
  }

  /** Gives back what is set aside and not counted. */
  async giveBack(): Promise<void> {
    if (this.reservation) await settle(this.database, this.reservation).catch(() => undefined);
  }

  private async enough(amount: number): Promise<void> {
    const wanted = { quota: QUOTA, key: this.key, amount, least: this.bytes, ttlMs: RESERVED_MS } as const;
    const answer = await reserve(this.database, this.tenant, wanted);
    if ('refusal' in answer) throw tooMuch(answer.refusal);
    this.reservation = answer.reservation;
  }
}

function tooMuch({ quota, limit, used, reserved, left, renewsAt }: QuotaRefusal): CodedError {
  const retryAfterSeconds = Math.max(Math.ceil((renewsAt.getTime() - Date.now()) / 1000), 1);
  const day = renewsAt.toISOString().slice(0, 10);
  return apiError(
    'RATE_LIMITED',
    `Your plan allows uploads of ${limit} bytes a month, of which ${left} are left. It renews on ${day}.`,
    { quota, limit, used, reserved, left, renewsAt: renewsAt.toISOString(), retryAfterSeconds },
  );
}
