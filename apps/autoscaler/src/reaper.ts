import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';

/** How often abandoned jobs are looked for: they are abandoned for a minute by then, a quarter more does not matter. */
export const REAP_MS = 15_000;

/** Puts abandoned jobs back into the outbox, in the caller's transaction, and answers their ids. */
export type Reap = (tx: Tx) => Promise<readonly string[]>;

/** What the reaper works with. */
export interface ReaperParts {
  readonly database: SystemDatabase;
  readonly reap: Reap;
  /** Only the leader reaps: two would do no harm, but no good either. */
  readonly leads: () => boolean;
  /** Called after a commit with what was put back. */
  readonly onReaped: (jobs: readonly string[]) => void;
  readonly onError: (error: unknown) => void;
}

/** Brings back jobs whose worker died, or whose queue was lost with Redis. */
export class Reaper {
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;

  constructor(private readonly parts: ReaperParts) {}

  start(everyMs: number = REAP_MS): void {
    this.timer = setInterval(() => this.kick(), everyMs);
  }

  /** Ends after the transaction under way. */
  async stop(): Promise<void> {
    clearInterval(this.timer);
    await this.running;
  }

  private kick(): void {
    const { leads, onError } = this.parts;
    if (!leads()) return;
    this.running ??= this.reapOnce()
      .catch(onError)
      .finally(() => {
        this.running = undefined;
      });
  }

  private async reapOnce(): Promise<void> {
    const { database, reap, onReaped } = this.parts;
    const jobs = await database.transaction(reap);
    if (jobs.length > 0) onReaped(jobs);
  }
}
