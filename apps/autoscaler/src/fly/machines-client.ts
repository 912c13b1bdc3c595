import { backoffMs, isCodedError, type Backoff } from '@atomo-cc/kernel';
import { fleetError } from '../fleet/index.js';

// The Machines API: https://fly.io/docs/machines/api/machines-resource/

/** Fly allows one request a second per action and machine (or app), and three at once. */
const RATE_PER_SECOND = 1;
const BURST = 3;
/** Tries per request; what still fails then is left to the autoscaler's own, longer pauses. */
const TRIES = 3;
const RETRY: Backoff = { firstMs: 1_000, maxMs: 5_000 };
/** A request that gets no answer in this time counts as failed; Fly answers most within one second. */
const REQUEST_LIMIT_MS = 10_000;
/** A longer `Retry-After` is not sat out with a request in hand. */
const LONGEST_WAIT_MS = 10_000;

/** A Machine, as far as we read it. */
export interface Machine {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly region: string;
  /** `ok`, `unknown` or `unreachable`. */
  readonly host_status?: string;
  readonly config: { readonly metadata?: Readonly<Record<string, string>> } & Readonly<Record<string, unknown>>;
  /** Newest first; `timestamp` in milliseconds since 1970. */
  readonly events?: readonly { readonly type: string; readonly timestamp: number }[];
  readonly created_at: string;
  readonly updated_at: string;
}

/** Where and as whom to ask. */
export interface MachinesOptions {
  readonly url: string;
  readonly token: string;
  readonly app: string;
  /** The monotonic or wall clock in milliseconds, and how to wait; tests put in their own. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
}

interface Call {
  readonly action: string;
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly machine?: string;
  readonly path?: string;
  readonly body?: object;
  readonly nonce?: string;
  /** Whether it may be asked again when it is unknown whether it took effect. */
  readonly repeatable: boolean;
}

/** Speaks to Fly's Machines API: keeps to its rate limits, repeats what may be repeated, and translates its codes once. */
export class MachinesClient {
  private readonly buckets = new Map<string, { tokens: number; at: number }>();

  constructor(private readonly options: MachinesOptions) {}

  /** All Machines of a process group that are not destroyed. */
  async list(group: string): Promise<Machine[]> {
    const path = `?metadata.fly_process_group=${encodeURIComponent(group)}`;
    return (await this.call({ action: 'list', method: 'GET', path, repeatable: true })) as Machine[];
  }

  /** Makes a Machine and starts it. Not repeated when the answer is lost: the next look shows whether it is there. */
  async create(region: string, config: Machine['config']): Promise<Machine> {
    return (await this.call({
      action: 'create',
      method: 'POST',
      body: { region, config },
      repeatable: false,
    })) as Machine;
  }

  /** Starts a stopped Machine. */
  async start(machine: string, nonce: string): Promise<void> {
    await this.call({ action: 'start', method: 'POST', machine, path: '/start', nonce, repeatable: true });
  }

  /** Sends SIGTERM, and SIGKILL when it has not ended after `seconds`. */
  async stop(machine: string, nonce: string, seconds: number): Promise<void> {
    const body = { signal: 'SIGTERM', timeout: `${seconds}s` };
    await this.call({ action: 'stop', method: 'POST', machine, path: '/stop', body, nonce, repeatable: true });
  }

  /** Takes a Machine out of its services' balancing, or puts it back. */
  async setCordoned(machine: string, nonce: string, isCordoned: boolean): Promise<void> {
    const action = isCordoned ? 'cordon' : 'uncordon';
    await this.call({ action, method: 'POST', machine, path: `/${action}`, nonce, repeatable: true });
  }

  /** Runs `work` while nobody else may change the Machine. @throws CodedError FLEET_BUSY when someone else has the lease */
  async withLease<Result>(machine: string, seconds: number, work: (nonce: string) => Promise<Result>): Promise<Result> {
    const path = '/lease';
    const body = { ttl: seconds, description: 'atomo autoscaler' };
    // Not repeated: were the first answer lost, the second would find our own lease in the way.
    const answer = await this.call({ action: 'lease', method: 'POST', machine, path, body, repeatable: false });
    const { nonce } = (answer as { data: { nonce: string } }).data;
    try {
      return await work(nonce);
    } finally {
      // A lease that cannot be given back ends by itself.
      await this.call({ action: 'release', method: 'DELETE', machine, path, nonce, repeatable: true }).catch(
        () => undefined,
      );
    }
  }

  private async call(call: Call): Promise<unknown> {
    for (let attempt = 1; ; attempt += 1) {
      await this.takeTurn(`${call.action} ${call.machine ?? 'app'}`);
      const outcome = await this.ask(call).catch((error: unknown) => {
        if (isCodedError(error)) throw error;
        return { after: null, refused: false, error: fleetError('FLEET_UNAVAILABLE', 'Fly does not answer.', error) };
      });
      if ('answer' in outcome) return outcome.answer;
      const wait = outcome.after ?? backoffMs(attempt, RETRY);
      const mayRepeat = call.repeatable || outcome.refused;
      if (attempt === TRIES || !mayRepeat || wait > LONGEST_WAIT_MS) throw outcome.error;
      await this.options.sleep(wait);
    }
  }

  /** One request. Answers what came, or why and when to try again; throws what a repetition does not mend. */
  private async ask(
    call: Call,
  ): Promise<{ answer: unknown } | { after: number | null; refused: boolean; error: Error }> {
    const { url, token, app } = this.options;
    const machine = call.machine === undefined ? '' : `/${encodeURIComponent(call.machine)}`;
    const response = await fetch(
      `${url.replace(/\/$/, '')}/v1/apps/${encodeURIComponent(app)}/machines${machine}${call.path ?? ''}`,
      {
        method: call.method,
        headers: {
          authorization: `Bearer ${token}`,
          ...(call.body ? { 'content-type': 'application/json' } : {}),
          ...(call.nonce === undefined ? {} : { 'fly-machine-lease-nonce': call.nonce }),
        },
        ...(call.body ? { body: JSON.stringify(call.body) } : {}),
        signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
      },
    );
    const text = await response.text();
    if (response.ok) return { answer: text === '' ? null : (JSON.parse(text) as unknown) };
    const { status } = response;
    const said = `Fly answers ${status} to ${call.action}${call.machine ? ` of ${call.machine}` : ''}: ${reasonIn(text)}`;
    if (status === 429 || status === 408 || status >= 500) {
      const seconds = Number(response.headers.get('retry-after') ?? Number.NaN);
      // 429 is refused before anything is done, so even what must not happen twice may be asked again.
      return {
        after: Number.isFinite(seconds) ? seconds * 1000 : null,
        refused: status === 429,
        error: fleetError('FLEET_UNAVAILABLE', said),
      };
    }
    if (status === 401 || status === 403) throw fleetError('FLEET_NOT_PERMITTED', said);
    if (status === 404 && call.machine !== undefined) throw fleetError('FLEET_WORKER_GONE', said);
    // 409: leased by someone else. 412: in a state from which this is not possible, such as stopping.
    if (status === 409 || status === 412) throw fleetError('FLEET_BUSY', said);
    throw fleetError('FLEET_MISCONFIGURED', said);
  }

  /** Waits until Fly's limit for this action has room. */
  private async takeTurn(key: string): Promise<void> {
    const { now, sleep } = this.options;
    for (;;) {
      const at = now();
      const bucket = this.buckets.get(key) ?? { tokens: BURST, at };
      const tokens = Math.min(BURST, bucket.tokens + (Math.max(0, at - bucket.at) / 1000) * RATE_PER_SECOND);
      this.buckets.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, at });
      if (tokens >= 1) return;
      await sleep(Math.ceil(((1 - tokens) / RATE_PER_SECOND) * 1000));
    }
  }
}

function reasonIn(text: string): string {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === 'string') return error.slice(0, 300);
  } catch {
    // Not JSON: a proxy's page, which helps nobody.
  }
  return 'no reason given';
}
