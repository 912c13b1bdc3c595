import { sleep } from './retry.js';

/**
 * Work that is looked for again and again: one round at a time, a pause between them. Whoever knows of work wakes it; the pause is
 * for what nobody told. A round that fails is told, and the next one comes.
 */
export class Rounds {
  private readonly stopping = new AbortController();
  private nap = new AbortController();
  private running: Promise<void> = Promise.resolve();

  /** @param pauseMs at most, between the end of a round and the begin of the next */
  constructor(
    private readonly round: () => Promise<unknown>,
    private readonly pauseMs: number,
    private readonly onError: (error: unknown) => void,
  ) {}

  /** Whether a round should end at the next place where it can. */
  get isStopping(): boolean {
    return this.stopping.signal.aborted;
  }

  start(): void {
    this.running = this.run();
  }

  /** The next round comes at once; while one is under way, right after it. */
  wake(): void {
    this.nap.abort();
  }

  /** Settles when the round that is under way has ended. */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.wake();
    await this.running;
  }

  private async run(): Promise<void> {
    while (!this.isStopping) {
      this.nap = new AbortController();
      await this.round().catch(this.onError);
      if (!this.isStopping) await sleep(this.pauseMs, this.nap.signal);
    }
  }
}
