import fs from 'node:fs';
import { Health } from './health.js';

const answers = () => Promise.resolve('pong');
const rejects = () => Promise.reject(new Error('connect ECONNREFUSED 10.0.0.7:5432 as user ada'));

describe('readiness', () => {
  afterEach(() => jest.useRealTimers());

  it('is ready while every dependency answers, and names each', async () => {
    const health = new Health();
    expect(await health.readiness()).toEqual({ status: 'ready', dependencies: {} });
    health.add('postgres', answers);
    health.add('redis', answers);
    const up = { state: 'up', milliseconds: expect.any(Number) };
    expect(await health.readiness()).toEqual({ status: 'ready', dependencies: { postgres: up, redis: up } });
  });

  it('names the one that is down, without telling of hosts and users', async () => {
    const health = new Health();
    health.add('postgres', rejects);
    health.add('redis', answers);
    const readiness = await health.readiness();
    expect(readiness).toMatchObject({
      status: 'not ready',
      dependencies: { postgres: { state: 'down', reason: 'no answer' }, redis: { state: 'up' } },
    });
    expect(JSON.stringify(readiness)).not.toMatch(/ada|10\.0/);
  });

  it('takes a check that throws for one that is down', async () => {
    const health = new Health();
    health.add('redis', () => {
      throw new Error('Connection is closed.');
    });
    expect(await health.readiness()).toMatchObject({ status: 'not ready', dependencies: { redis: { state: 'down' } } });
  });

  it('does not wait for one that hangs, nor trips over its late failure', async () => {
    jest.useFakeTimers();
    const health = new Health();
    const late = Promise.withResolvers<void>();
    health.add('redis', () => late.promise);
    health.add('postgres', answers);
    const asked = health.readiness();
    await jest.advanceTimersByTimeAsync(2_001);
    expect(await asked).toMatchObject({
      status: 'not ready',
      dependencies: { redis: { state: 'down', reason: 'no answer in 2000 ms' }, postgres: { state: 'up' } },
    });
    late.reject(new Error('late'));
    expect(jest.getTimerCount()).toBe(0);
  });

  it('does not take an answer for none that came while the process itself was busy', async () => {
    jest.useRealTimers();
    const health = new Health();
    health.add('disk', () => new Promise<void>((resolve) => fs.stat('.', () => resolve())));
    const asked = health.readiness();
    await Promise.resolve();
    // Nothing else is done in this process for longer than a check may take.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_050);
    expect(await asked).toMatchObject({ status: 'ready' });
  });

  it('asks anew each time, and is never ready again once it stops', async () => {
    const health = new Health();
    let check: () => Promise<unknown> = rejects;
    health.add('postgres', () => check());
    expect((await health.readiness()).status).toBe('not ready');
    check = answers;
    expect((await health.readiness()).status).toBe('ready');
    health.stopping();
    expect((await health.readiness()).status).toBe('not ready');
  });
});
