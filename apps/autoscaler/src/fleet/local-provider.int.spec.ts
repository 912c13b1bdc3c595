import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { aRedis, eventually } from '@atomo-cc/testing';
import { listWorkers, type RegisteredWorker } from '@atomo-cc/platform/workers';
import type { Redis } from '@atomo-cc/platform/redis';
import { aScene, FAKE_WORKER, killHard, type Scene } from '../testing/index.js';
import { identifyProcess } from './process-identity.js';

jest.mock('./process-identity.js', () => {
  const actual = jest.requireActual<{ identifyProcess: typeof identifyProcess }>('./process-identity.js');
  return { identifyProcess: jest.fn(actual.identifyProcess) };
});

describe('workers as local processes', () => {
  let redis: Redis;
  let scene: Scene;

  beforeEach(async () => {
    redis = await aRedis('command');
    scene = await aScene();
  });
  afterEach(async () => {
    await scene.clear();
    redis.disconnect();
  });

  const registered = (pid: string) =>
    eventually(`worker ${pid} registers`, async () =>
      (await listWorkers(redis)).find((each) => each.pid === Number(pid)),
    );
  const isGone = async (pid: string) => (await identifyProcess(Number(pid))) === null;

  it('starts the first on its port and others on free ones, each with its log, and knows who is who', async () => {
    const provider = scene.provider(redis);
    const first = await provider.start();
    const second = await provider.start();
    const [one, two] = [await registered(first.id), await registered(second.id)];
    expect(one.url).toBe(`http://127.0.0.1:${scene.firstPort}`);
    expect(two.url).not.toBe(one.url);
    expect(provider.instanceOf(one)).toBe(first.id);
    expect(provider.instanceOf({ ...one, host: 'elsewhere' })).toBeNull();
    expect((await provider.list([])).map(({ id }) => id)).toEqual([first.id, second.id]);
    for (const { url } of [one, two])
      expect(() => readFileSync(`${scene.logs}/worker-${new URL(url).port}.log`)).not.toThrow();
  });

  it('stops a worker by SIGTERM and forgets it', async () => {
    const provider = scene.provider(redis);
    const { id } = await provider.start();
    await registered(id);
    const changed = jest.fn();
    provider.onChange(changed);
    await provider.stop(id);
    await eventually('it has ended', async () => (await provider.list([])).length === 0);
    expect(changed).toHaveBeenCalled();
    expect(provider.endings()).toEqual([
      { id, how: expect.stringMatching(/^exit code 0; its log: .*worker-\d+\.log$/) },
    ]);
    expect(await listWorkers(redis)).toEqual([]);
    await expect(provider.stop(id)).rejects.toMatchObject({ code: 'FLEET_WORKER_GONE' });
  });

  it('says how a worker ended that could not run', async () => {
    const provider = scene.provider(redis, { FAKE_WORKER: 'broken' });
    const started = await provider.start().catch((error: unknown) => error as { code: string; message: string });
    if ('code' in started)
      expect(started).toMatchObject({ code: 'FLEET_START_FAILED', message: expect.stringContaining('exit code 3') });
    else {
      const ending = await eventually('it ends', () => provider.endings()[0]);
      expect(ending.how).toMatch(/^exit code 3; its log: .*, whose last line is: this worker is broken$/);
    }
    expect(readFileSync(`${scene.logs}/worker-${scene.firstPort}.log`, 'utf8')).toContain('this worker is broken');
  });

  it('adopts after its own death what its predecessor started, also before the worker registered', async () => {
    const dead = scene.provider(redis, { FAKE_WORKER: 'mute' });
    const { id, startedAt } = await dead.start();
    const heir = scene.provider(redis);
    expect(await heir.list([])).toEqual([{ id, startedAt, stopping: false }]);
    await heir.stop(id);
    await eventually('it has ended', async () => (await heir.list([])).length === 0);
  });

  it('adopts by the registry when Redis lost the ledger, and notices a kill -9 of what it adopted', async () => {
    const dead = scene.provider(redis);
    const { id } = await dead.start();
    const worker = await registered(id);
    await redis.del(`{autoscaler}:processes:${hostname()}`);
    const heir = scene.provider(redis);
    expect((await heir.list([worker])).map((each) => each.id)).toEqual([id]);
    expect(heir.instanceOf(worker)).toBe(id);
    const changed = new Promise<void>((resolve) => heir.onChange(resolve));
    killHard(Number(id));
    await changed;
    expect(await heir.list([worker])).toEqual([]);
  });

  it('never signals a process that is not a worker of ours', async () => {
    const bystander = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], { stdio: 'ignore' });
    await new Promise((resolve) => bystander.once('spawn', resolve));
    const pid = bystander.pid!;
    try {
      const provider = scene.provider(redis);
      // Its number stands in the registry and, with another start, in the ledger: both are stale.
      const claims = {
        version: 1,
        pid,
        host: hostname(),
        url: 'http://127.0.0.1:1',
        startedAt: Date.now(),
      } as RegisteredWorker;
      const entry = JSON.stringify({ pid, start: '1', port: 1, startedAt: 1 });
      await redis.hset(`{autoscaler}:processes:${hostname()}`, String(pid), entry);
      expect(await provider.list([claims])).toEqual([]);
      expect(provider.instanceOf(claims)).toBeNull();
      await expect(provider.stop(String(pid))).rejects.toMatchObject({ code: 'FLEET_WORKER_GONE' });
      await expect(provider.stop('1')).rejects.toMatchObject({ code: 'FLEET_WORKER_GONE' });
      expect(await redis.hlen(`{autoscaler}:processes:${hostname()}`)).toBe(0);
      await provider.close(true);
      expect(await isGone(String(pid))).toBe(false);
    } finally {
      bystander.kill('SIGKILL');
    }
  });

  it('takes a process for another one when its number was given away meanwhile', async () => {
    const other = spawn(process.execPath, [FAKE_WORKER], {
      env: { ...process.env, FAKE_WORKER: 'mute', WORKER_PORT: '0' },
      stdio: 'ignore',
    });
    await new Promise((resolve) => other.once('spawn', resolve));
    try {
      const pid = other.pid!;
      const entry = JSON.stringify({ pid, start: 'of one that ended', port: 1, startedAt: 1 });
      await redis.hset(`{autoscaler}:processes:${hostname()}`, String(pid), entry);
      const provider = scene.provider(redis);
      expect(await provider.list([])).toEqual([]);
      const { id } = await provider.start();
      await registered(id);
      const real = jest.requireActual<{ identifyProcess: typeof identifyProcess }>('./process-identity.js');
      jest.mocked(identifyProcess).mockImplementation(async (asked) => {
        const found = await real.identifyProcess(asked);
        return found && { ...found, start: 'of another' };
      });
      await expect(provider.stop(id)).rejects.toMatchObject({ code: 'FLEET_WORKER_GONE' });
      jest.mocked(identifyProcess).mockImplementation(real.identifyProcess);
      expect((await provider.list([])).map((each) => each.stopping)).toEqual([false]);
      await provider.stop(id);
    } finally {
      other.kill('SIGKILL');
    }
  });

  it('ends its workers with itself only when it leads', async () => {
    const leader = scene.provider(redis);
    const { id } = await leader.start();
    await registered(id);
    const standby = scene.provider(redis);
    await standby.list([]);
    await standby.close(false);
    expect(await isGone(id)).toBe(false);
    await leader.close(true);
    expect(await isGone(id)).toBe(true);
  });
});
