/** Asks one dependency for an answer; rejects when there is none. */
export type HealthCheck = () => Promise<unknown>;

/** A dependency that does not answer in this time counts as down: the asker has its own, longer limit. */
const CHECK_TIMEOUT_MS = 2_000;

/** What GET /health/ready answers: 200 when every dependency is up, else 503. */
export interface Readiness {
  readonly status: 'ready' | 'not ready';
  readonly dependencies: Readonly<Record<string, { state: 'up' | 'down'; milliseconds: number; reason?: string }>>;
}

/** The dependencies of a service, asked each time someone looks at /health/ready. */
export class Health {
  private readonly checks = new Map<string, HealthCheck>();
  private isStopping = false;

  /** Names a dependency; the service is ready only while `check` answers. */
  add(dependency: string, check: HealthCheck): void {
    this.checks.set(dependency, check);
  }

  /** From now on the service is not ready, so that no new work is sent to it while it ends what it has. */
  stopping(): void {
    this.isStopping = true;
  }

  async readiness(): Promise<Readiness> {
    const entries = await Promise.all([...this.checks].map(async ([name, check]) => [name, await ask(check)] as const));
    const isReady = !this.isStopping && entries.every(([, answer]) => answer.state === 'up');
    return { status: isReady ? 'ready' : 'not ready', dependencies: Object.fromEntries(entries) };
  }
}

async function ask(check: HealthCheck): Promise<{ state: 'up' | 'down'; milliseconds: number; reason?: string }> {
  const from = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const outcome = await Promise.race([
    // A check that throws before it gives a promise is down too, not a fault of the asker.
    Promise.resolve()
      .then(check)
      .then(
        () => undefined,
        // The driver's message may name hosts and users; the log has it, the answer only says that it failed.
        () => 'no answer',
      ),
    new Promise<string>((resolve) => {
      const late = () => resolve(`no answer in ${CHECK_TIMEOUT_MS} ms`);
      // A process that was busy for so long reads first what has come meanwhile: the timer runs before the socket, the immediate after.
      timer = setTimeout(() => setImmediate(late), CHECK_TIMEOUT_MS);
    }),
  ]);
  clearTimeout(timer);
  const milliseconds = Math.round(performance.now() - from);
  return outcome === undefined ? { state: 'up', milliseconds } : { state: 'down', milliseconds, reason: outcome };
}
