import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Machine } from '../machines-client.js';

/** A Machine of the fake: what the API shows, with what it keeps to itself. */
export type FakeMachine = { -readonly [Key in keyof Machine]: Machine[Key] } & {
  instance_id: string;
  cordoned: boolean;
  lease: { nonce: string; until: number } | null;
  stopped_with?: { signal?: string; timeout?: string };
};

/** What the next requests of an action meet instead of an answer. */
export interface Fault {
  readonly action: string;
  readonly times: number;
  /** `lost` carries the request out and then breaks the connection, as a lost answer does. */
  readonly status: number | 'lost';
  readonly headers?: Record<string, string>;
}

/** A fake of Fly's Machines API on loopback: shapes, codes, leases and rate limits as documented; time is the test's. */
export interface MachinesServer {
  readonly url: string;
  readonly machines: FakeMachine[];
  /** Every request as `action machine → status`. */
  readonly log: string[];
  /** How many requests were refused for coming too fast. */
  throttled(): number;
  add(more?: Partial<FakeMachine>): FakeMachine;
  fail(fault: Fault): void;
  close(): Promise<void>;
}

const APP = 'workers';
const TOKEN = 'FlyV1 secret';
const RATE_PER_SECOND = 1;
const BURST = 3;

/** Serves app `workers` to the token `FlyV1 secret`. */
export async function aMachinesServer(now: () => number): Promise<MachinesServer> {
  const machines: FakeMachine[] = [];
  const log: string[] = [];
  const faults: { action: string; times: number; status: number | 'lost'; headers?: Record<string, string> }[] = [];
  const buckets = new Map<string, { tokens: number; at: number }>();
  let made = 0;
  let throttled = 0;

  const add = (more: Partial<FakeMachine> = {}): FakeMachine => {
    made += 1;
    const machine: FakeMachine = {
      id: `m${made}`,
      name: `worker-${made}`,
      state: 'stopped',
      region: 'fra',
      host_status: 'ok',
      instance_id: `01INSTANCE${made}`,
      config: {
        image: 'registry.fly.io/workers:deployment-1',
        env: { WORKER_PORT: '3300' },
        guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 2048 },
        restart: { policy: 'on-failure', max_retries: 10 },
        metadata: { fly_process_group: 'worker', fly_platform_version: 'v2', fly_release_id: 'r1' },
      },
      events: [],
      created_at: new Date(1_700_000_000_000 + made * 1000).toISOString(),
      updated_at: new Date(now()).toISOString(),
      cordoned: false,
      lease: null,
      ...more,
    };
    machines.push(machine);
    return machine;
  };

  const isTooFast = (key: string): boolean => {
    const at = now();
    const bucket = buckets.get(key) ?? { tokens: BURST, at };
    const tokens = Math.min(BURST, bucket.tokens + ((at - bucket.at) / 1000) * RATE_PER_SECOND);
    buckets.set(key, { tokens: tokens >= 1 ? tokens - 1 : tokens, at });
    return tokens < 1;
  };

  const show = ({ lease: _lease, stopped_with: _with, ...shown }: FakeMachine) => shown;
  type Answer = [status: number, body?: unknown];
  const leased = (machine: FakeMachine) => (machine.lease && machine.lease.until > now() ? machine.lease : null);

  const actOn = (
    machine: FakeMachine,
    action: string,
    body: Record<string, unknown>,
    nonce: string | undefined,
  ): Answer => {
    const lease = leased(machine);
    if (action === 'get') return [200, show(machine)];
    if (action === 'lease') {
      if (lease && lease.nonce !== nonce) return [409, { error: 'lease currently held by somebody@example.com' }];
      const until = now() + Number(body['ttl'] ?? 60) * 1000;
      machine.lease = { nonce: lease?.nonce ?? `nonce-${log.length}`, until };
      const data = {
        nonce: machine.lease.nonce,
        expires_at: Math.round(until / 1000),
        owner: 'me',
        description: body['description'],
        version: '',
      };
      return [201, { status: 'success', data }];
    }
    if (action === 'release') {
      if (nonce === undefined) return [400, { error: 'lease nonce is required' }];
      if (lease && lease.nonce !== nonce) return [409, { error: 'lease nonce does not match' }];
      machine.lease = null;
      return [200, { ok: true }];
    }
    if (lease && lease.nonce !== nonce) return [409, { error: 'machine lease currently held' }];
    if (action === 'cordon' || action === 'uncordon') {
      machine.cordoned = action === 'cordon';
      return [200, { ok: true }];
    }
    if (action === 'start') {
      if (!['stopped', 'suspended', 'created'].includes(machine.state)) {
        return [412, { error: `failed_precondition: unable to start machine from current state: '${machine.state}'` }];
      }
      const previous_state = machine.state;
      machine.state = 'started';
      machine.events = [{ type: 'start', timestamp: now() }, ...(machine.events ?? [])];
      return [200, { previous_state, migrated: false, new_host: '' }];
    }
    if (action === 'stop') {
      machine.state = 'stopping';
      machine.stopped_with = body as { signal?: string; timeout?: string };
      return [200, { ok: true }];
    }
    return [404, { error: 'not found' }];
  };

  const answer = (
    action: string,
    machine: string | undefined,
    query: URLSearchParams,
    body: Record<string, unknown>,
    nonce: string | undefined,
  ): Answer => {
    if (machine !== undefined) {
      const found = machines.find(({ id }) => id === machine);
      return found ? actOn(found, action, body, nonce) : [404, { error: 'machine not found' }];
    }
    if (action === 'create') {
      const { region, config } = body as { region?: string; config?: FakeMachine['config'] };
      if (!config?.['image']) return [422, { error: 'config.image is required' }];
      const created = add({
        config,
        state: 'created',
        ...(region === undefined ? {} : { region }),
        created_at: new Date(now()).toISOString(),
      });
      created.state = 'starting';
      return [200, show(created)];
    }
    const wanted = [...query]
      .filter(([name]) => name.startsWith('metadata.'))
      .map(([name, value]) => [name.slice(9), value] as const);
    const found = machines.filter(({ config }) => wanted.every(([name, value]) => config.metadata?.[name] === value));
    return [200, found.map(show)];
  };

  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    let text = '';
    for await (const chunk of request) text += String(chunk);
    const url = new URL(request.url ?? '/', 'http://fly');
    const [, , , app, , machine, verb] = url.pathname.split('/');
    const action =
      machine === undefined
        ? request.method === 'POST'
          ? 'create'
          : 'list'
        : verb === 'lease' && request.method === 'DELETE'
          ? 'release'
          : (verb ?? 'get');
    const end = (status: number, body?: unknown, headers: Record<string, string> = {}) => {
      log.push(`${action} ${machine ?? 'app'} → ${status}`);
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body === undefined ? '' : JSON.stringify(body));
    };
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return end(401, { error: 'unauthorized' });
    if (app !== APP) return end(404, { error: 'app not found' });
    if (isTooFast(`${action} ${machine ?? 'app'}`)) {
      throttled += 1;
      return end(429, { error: 'rate limit exceeded' });
    }
    const fault = faults.find((each) => each.action === action && each.times > 0);
    if (fault) fault.times -= 1;
    if (fault && fault.status !== 'lost') return end(fault.status, { error: 'made to fail' }, fault.headers);
    const nonce = request.headers['fly-machine-lease-nonce'];
    const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
    const [status, content] = answer(action, machine, url.searchParams, body, Array.isArray(nonce) ? nonce[0] : nonce);
    if (fault) {
      log.push(`${action} ${machine ?? 'app'} → lost`);
      return void request.socket.destroy();
    }
    end(status, content);
  };

  const server = createServer((request, response) => void handle(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    machines,
    log,
    throttled: () => throttled,
    add,
    fail: (fault) => void faults.push({ ...fault }),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
