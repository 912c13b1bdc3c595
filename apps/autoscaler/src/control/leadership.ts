import { releaseLease, takeLease, type Lease, type SystemDatabase } from '@atomo-cc/platform/postgres';

/** The lease of the one autoscaler that acts. */
const LEASE = 'autoscaler';
/** How long a leader that died is waited for. The leader renews every second; three lost renewals are no accident. */
export const LEASE_MS = 4_000;
/** The leader stops acting this long before its lease ends, so that an act under way ends before another's first begins. */
const SAFETY_MS = 1_000;

/** This process's part in the question which autoscaler acts. Several may run; one holds the lease. */
export class Leadership {
  private lease: Lease | null = null;
  /** On the monotonic clock: a step of the machine's clock changes nothing. */
  private heldUntil = 0;

  constructor(
    private readonly database: SystemDatabase,
    /** A name of this process that no other has. */
    readonly holder: string,
  ) {}

  /** Whether this process may act at this moment. */
  get isHeld(): boolean {
    return performance.now() < this.heldUntil;
  }

  /** Takes or renews the lease. Rejects, without a claim, when Postgres does not answer. */
  async take(): Promise<boolean> {
    // Counted from before the question, so that a slow answer never makes the claim longer than the lease.
    const asked = performance.now();
    this.lease = await this.database.transaction((tx) => takeLease(tx, LEASE, this.holder, LEASE_MS));
    this.heldUntil = this.lease ? asked + LEASE_MS - SAFETY_MS : 0;
    return this.isHeld;
  }

  /** Gives the lease up, so that the next autoscaler need not wait for its end. Never rejects. */
  async release(): Promise<void> {
    const lease = this.lease;
    this.lease = null;
    this.heldUntil = 0;
    if (lease) await this.database.transaction((tx) => releaseLease(tx, lease)).catch(() => undefined);
  }
}
