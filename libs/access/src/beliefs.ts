import type { Clock } from '@atomo-cc/kernel';

/** How long a process may believe what it has read of a session or a token: a revocation elsewhere holds here within this time. */
export const BELIEVED_MS = 5_000;
/** Answers that are remembered per process; some hundred bytes each. The oldest go first. */
const MOST_REMEMBERED = 10_000;

interface Belief<Value> {
  readonly readAt: number;
  readonly value: Promise<Value>;
}

/** What a process has read and may believe for a moment, so that not every request asks the database. */
export class Beliefs<Value> {
  private readonly held = new Map<string, Belief<Value>>();

  constructor(
    private readonly lookUp: (key: string, now: number) => Promise<Value>,
    private readonly clock: Clock,
  ) {}

  /** What is known of `key`, no older than `believedMs`; callers at the same time share one look-up. */
  get(key: string, believedMs: number = BELIEVED_MS): Promise<Value> {
    const now = this.clock.now();
    const known = this.held.get(key);
    if (known && now - known.readAt < believedMs) return known.value;
    const value = this.lookUp(key, now);
    // Removed first, so that a Map's order of insertion stays the order of age.
    this.held.delete(key);
    this.held.set(key, { readAt: now, value });
    value.catch(() => {
      // A database that was away for a moment is asked again, not remembered.
      if (this.held.get(key)?.value === value) this.held.delete(key);
    });
    if (this.held.size > MOST_REMEMBERED) this.held.delete(this.held.keys().next().value!);
    return value;
  }

  /**
   * Forgets what is known of `key`. Call it after the commit that changed it: a look-up that began before is forgotten too, so
   * its old answer serves nobody who comes later.
   */
  forget(key: string): void {
    this.held.delete(key);
  }
}
