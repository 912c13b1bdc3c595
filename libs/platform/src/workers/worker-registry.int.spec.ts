import { aRedis, eventually } from '@atomo-cc/testing';
import type { Redis } from '../redis/index.js';
import { BEAT_TTL_MS, listWorkers, requestDrain, startWorkerBeat, type WorkerBeat } from './worker-registry.js';

const options = { name: 'a-worker', url: 'http://127.0.0.1:1', activeJobs: () => 0, onDrain: () => undefined };

describe('the registry of workers', () => {
  let redis: Redis;
  const beats: WorkerBeat[] = [];
  const start = async (more: Partial<Parameters<typeof startWorkerBeat>[1]> = {}, connection = redis) => {
    const beat = startWorkerBeat(connection, { ...options, ...more });
    beats.push(beat);
    await beat.update();
    return beat;
  };
  const only = async () => {
    const workers = await listWorkers(redis);
    expect(workers).toHaveLength(1);
    return workers[0]!;
  };

  beforeEach(async () => {
    redis = await aRedis('command');
  });
  afterEach(async () => {
    await Promise.all(beats.splice(0).map((beat) => beat.stop()));
    redis.disconnect();
  });

  it('lists a worker with what it says of itself, until it stops', async () => {
    let jobs = 2;
    const beat = await start({ activeJobs: () => jobs, concurrency: 4, machine: 'm1' });
    expect(await only()).toMatchObject({
      id: beat.id,
      name: 'a-worker',
      pid: process.pid,
      machine: 'm1',
      url: options.url,
    });
    expect(await only()).toMatchObject({ activeJobs: 2, concurrency: 4, idleMs: 0, draining: false, drained: false });
    jobs = 0;
    await beat.update();
    expect(await only()).toMatchObject({ activeJobs: 0 });
    await eventually('its idle time grows', async () => (await only()).idleMs > 0);
    await beat.stop();
    expect(await listWorkers(redis)).toEqual([]);
  });

  it('drains: the worker is told once, keeps its jobs, and says when it is empty', async () => {
    let jobs = 1;
    const onDrain = jest.fn();
    const beat = await start({ activeJobs: () => jobs, onDrain });
    expect(await requestDrain(redis, beat.id)).toBe(true);
    expect(await only()).toMatchObject({ draining: true, drained: false });
    await eventually('the worker reads the request', () => beat.isDraining);
    await beat.update();
    expect(await only()).toMatchObject({ draining: true, drained: false, activeJobs: 1 });
    jobs = 0;
    await beat.update();
    expect(await only()).toMatchObject({ draining: true, drained: true, activeJobs: 0 });
    expect(onDrain).toHaveBeenCalledTimes(1);
  });

  it('does not call a worker drained before it has closed itself to jobs', async () => {
    let close = (): void => undefined;
    const beat = await start({ onDrain: () => new Promise<void>((resolve) => (close = resolve)) });
    await requestDrain(redis, beat.id);
    await beat.update();
    await eventually('the worker reads the request', () => beat.isDraining);
    await beat.update();
    expect(await only()).toMatchObject({ draining: true, drained: false });
    close();
    await eventually('it is drained', async () => (await only()).drained);
  });

  it('asks again when the worker failed to close itself to jobs', async () => {
    const onDrain = jest.fn().mockRejectedValueOnce(new Error('not now')).mockResolvedValue(undefined);
    const beat = await start({ onDrain });
    await requestDrain(redis, beat.id);
    await eventually('it is drained', async () => (await only()).drained);
    expect(onDrain).toHaveBeenCalledTimes(2);
  });

  it('says that a worker it does not know cannot be drained', async () => {
    expect(await requestDrain(redis, 'nobody')).toBe(false);
  });

  it('forgets a worker that was killed, and entries it cannot read', async () => {
    // What a killed worker leaves behind: an entry that nobody renews.
    const beat = await start();
    const key = `{workers}:entry:${beat.id}`;
    expect(await redis.pttl(key)).toBeLessThanOrEqual(BEAT_TTL_MS);
    expect(await redis.pttl(key)).toBeGreaterThan(0);
    await redis.sadd('{workers}:ids', 'killed', 'newer', 'broken');
    await redis.set('{workers}:entry:newer', '{"version":2,"id":"newer"}');
    await redis.set('{workers}:entry:broken', 'nonsense');
    expect((await only()).id).toBe(beat.id);
    expect(await redis.sismember('{workers}:ids', 'killed')).toBe(0);
  });

  it.each(['command', 'blocking'] as const)(
    'survives Redis going away on a %s connection and is listed again',
    async (use) => {
      const own = await aRedis(use);
      const beat = await start({}, own);
      own.disconnect(true);
      // What a restart of Redis without persistence leaves.
      await redis.flushdb();
      await beat.update();
      await eventually('it is listed again', async () =>
        (await listWorkers(redis)).some((worker) => worker.id === beat.id),
      );
      await beat.stop();
      own.disconnect();
      await expect(beat.stop()).resolves.toBeUndefined();
    },
  );
});
