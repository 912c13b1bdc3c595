import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';

/** How often it looks: a job that waits goes on within 5 s when its tenant has got another plan. It costs four statements on small indexes. */
export const REAP_MS = 4_000;

/** Puts jobs that are to go on back into the outbox, in the caller's transaction, and answers their ids. */
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

/** Brings back jobs whose worker died, whose queue was lost with Redis, or which waited for what is there now. */
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
