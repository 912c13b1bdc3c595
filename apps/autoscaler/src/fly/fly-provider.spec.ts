import type { RegisteredWorker } from '@atomo-cc/platform/workers';
import { FlyProvider, type FlyOptions } from './fly-provider.js';
import { aMachinesServer, type MachinesServer } from './testing/machines-server.js';

describe('workers as Fly Machines', () => {
  let now: number;
  let waited: number[];
  let server: MachinesServer;

  beforeEach(async () => {
    now = 1_800_000_000_000;
    waited = [];
    server = await aMachinesServer(() => now);
  });
  afterEach(() => server.close());

  const provider = (more: Partial<FlyOptions> = {}) =>
    new FlyProvider({
      url: server.url,
      token: 'FlyV1 secret',
      app: 'workers',
      group: 'worker',
      maxMachines: 4,
      now: () => now,
      sleep: async (ms) => {
        waited.push(ms);
        now += ms;
      },
      ...more,
    });
  const actions = () => server.log.map((line) => line.replace(/ → 20\d$/, ''));

  it('lists what runs or is about to, of its own group', async () => {
    server.add({ state: 'stopped' });
    server.add({ state: 'started', events: [{ type: 'start', timestamp: 5 }] });
    server.add({ state: 'stopping' });
    server.add({ state: 'started', config: { metadata: { fly_process_group: 'web' } } });
    server.add({ state: 'failed' });
    const fly = provider();
    expect(await fly.list()).toEqual([
      { id: 'm2', startedAt: 5, stopping: false },
      { id: 'm3', startedAt: now, stopping: true },
    ]);
    expect(fly.instanceOf({ machine: 'm2' } as RegisteredWorker)).toBe('m2');
    expect(fly.instanceOf({ machine: 'm4' } as RegisteredWorker)).toBeNull();
    expect(fly.instanceOf({ machine: null } as RegisteredWorker)).toBeNull();
  });

  it('starts a stopped Machine, under a lease, before it makes one', async () => {
    server.add({ state: 'started' });
    server.add({ state: 'stopped', host_status: 'unreachable' });
    const third = server.add({ state: 'stopped', cordoned: true });
    expect(await provider().start()).toEqual({ id: 'm3', startedAt: now, stopping: false });
    expect(third).toMatchObject({ state: 'started', cordoned: false, lease: null });
    expect(actions()).toEqual(['list app', 'lease m3', 'uncordon m3', 'start m3', 'release m3']);
  });

  it('makes a copy of the first one of the group when none is stopped', async () => {
    const first = server.add({ state: 'started', region: 'ams' });
    const { id } = await provider().start();
    const copy = server.machines.find((machine) => machine.id === id)!;
    expect(copy).toMatchObject({ region: 'ams', config: first.config });
    expect(copy.config.metadata).toEqual({
      fly_process_group: 'worker',
      fly_platform_version: 'v2',
      fly_release_id: 'r1',
    });
  });

  it('goes on to the next Machine when someone else holds the first, and makes none', async () => {
    server.add({ lease: { nonce: 'theirs', until: now + 60_000 } });
    server.add();
    expect((await provider().start()).id).toBe('m2');
    server.machines[1]!.lease = { nonce: 'theirs', until: now + 60_000 };
    server.machines[1]!.state = 'stopped';
    await expect(provider().start()).rejects.toMatchObject({ code: 'FLEET_BUSY' });
    expect(server.machines).toHaveLength(2);
  });

  it('stops by SIGTERM with the longest time Fly grants, cordoned, under a lease', async () => {
    const machine = server.add({ state: 'started' });
    const fly = provider();
    await fly.stop('m1');
    expect(machine).toMatchObject({ state: 'stopping', cordoned: true, lease: null });
    expect(machine.stopped_with).toEqual({ signal: 'SIGTERM', timeout: '300s' });
    expect(await fly.list()).toEqual([expect.objectContaining({ id: 'm1', stopping: true })]);
    await expect(fly.stop('gone')).rejects.toMatchObject({ code: 'FLEET_WORKER_GONE' });
  });

  it('gives the lease back when the act fails', async () => {
    const machine = server.add();
    server.fail({ action: 'start', times: 1, status: 412 });
    await expect(provider().start()).rejects.toMatchObject({ code: 'FLEET_BUSY' });
    expect(machine.lease).toBeNull();
  });

  it('keeps to the rate limit by itself', async () => {
    server.add({ state: 'started' });
    const fly = provider();
    for (let each = 0; each < 8; each += 1) {
      now += 1;
      await fly.stop('m1');
    }
    expect(server.throttled()).toBe(0);
    expect(waited.length).toBeGreaterThan(0);
    // Eight stops at one a second, of which three may come at once.
    expect(now - 1_800_000_000_000).toBeGreaterThanOrEqual(4_900);
  });

  it('serves lists that are asked for often from one listing', async () => {
    server.add({ state: 'started' });
    const fly = provider();
    await Promise.all([fly.list(), fly.list()]);
    now += 1_000;
    await fly.list();
    expect(server.log).toHaveLength(1);
    now += 1_500;
    await fly.list();
    expect(server.log).toHaveLength(2);
  });

  it.each([
    ['429 with Retry-After', { status: 429, headers: { 'retry-after': '4' } }, 4_000],
    ['429 without', { status: 429 }, 500],
    ['503', { status: 503 }, 500],
    ['408', { status: 408 }, 500],
    ['a lost answer', { status: 'lost' }, 500],
  ] as const)('waits and asks again after %s', async (_name, fault, leastMs) => {
    server.add({ state: 'started' });
    server.fail({ action: 'list', times: 1, ...fault });
    expect(await provider().list()).toHaveLength(1);
    expect(Math.max(...waited)).toBeGreaterThanOrEqual(leastMs);
  });

  it('gives up after three tries, and does not sit out a long Retry-After', async () => {
    server.fail({ action: 'list', times: 3, status: 500 });
    await expect(provider().list()).rejects.toMatchObject({ code: 'FLEET_UNAVAILABLE' });
    expect(server.log).toHaveLength(3);
    server.fail({ action: 'list', times: 1, status: 503, headers: { 'retry-after': '60' } });
    now += 60_000;
    await expect(provider().list()).rejects.toMatchObject({ code: 'FLEET_UNAVAILABLE' });
    expect(server.log).toHaveLength(4);
  });

  it.each([503, 'lost'] as const)('never makes two Machines for one start: %s is not repeated', async (status) => {
    server.add({ state: 'started' });
    server.fail({ action: 'create', times: 1, status });
    await expect(provider().start()).rejects.toMatchObject({ code: 'FLEET_UNAVAILABLE' });
    expect(server.log.filter((line) => line.startsWith('create'))).toHaveLength(1);
    expect(server.machines).toHaveLength(status === 'lost' ? 2 : 1);
  });

  it('repeats a create that was refused for coming too fast', async () => {
    server.add({ state: 'started' });
    server.fail({ action: 'create', times: 1, status: 429 });
    expect((await provider().start()).id).toBe('m2');
  });

  it('says what a person has to mend', async () => {
    await expect(provider().start()).rejects.toMatchObject({
      code: 'FLEET_NO_TEMPLATE',
      message: expect.stringContaining('deploy the worker'),
    });
    await expect(provider({ token: 'wrong' }).list()).rejects.toMatchObject({ code: 'FLEET_NOT_PERMITTED' });
    await expect(provider({ app: 'other' }).list()).rejects.toMatchObject({ code: 'FLEET_MISCONFIGURED' });
    server.add({ state: 'started', config: { metadata: { fly_process_group: 'worker' } } });
    await expect(provider().start()).rejects.toMatchObject({
      code: 'FLEET_MISCONFIGURED',
      message: expect.stringContaining('config.image is required'),
    });
    for (let each = 0; each < 3; each += 1) server.add({ state: 'failed' });
    await expect(provider().start()).rejects.toMatchObject({
      code: 'FLEET_MISCONFIGURED',
      message: expect.stringContaining('4 Machines'),
    });
    await expect(provider({ url: 'http://127.0.0.1:1' }).list()).rejects.toMatchObject({ code: 'FLEET_UNAVAILABLE' });
  });
});
