import fs from 'node:fs';
import { Redis } from 'ioredis';
import { openHome } from './home.js';
import { checkRedis, provideRedis } from './redis.js';
import { makeThrowAwayFolder } from './throw-away.js';

const redisUrl = process.env.ATOMO_TEST_REDIS_URL!;
const quiet = () => {};

describe('a Redis given by URL', () => {
  it('tells its version', async () => {
    expect(await checkRedis(redisUrl, quiet)).toMatch(/^\d+\.\d+/);
  });

  it('is refused in one sentence that says what is wrong, never with the password', async () => {
    await expect(checkRedis('redis://:secret@127.0.0.1:1', quiet)).rejects.toThrow(
      /^REDIS_URL: Redis at 127.0.0.1:1 cannot be reached \(.*ECONNREFUSED/,
    );
    await expect(checkRedis('redis://:secret@127.0.0.1:1', quiet)).rejects.not.toThrow(/secret/);
  });
});

describe('an own Redis', () => {
  let folder: string;
  const wish = () => ({ home: openHome(folder), redisUrl: '', environment: { PATH: process.env.PATH! }, say: quiet });

  beforeEach(() => (folder = makeThrowAwayFolder()));
  afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

  it('never evicts, asks for a password, and has its data again at the next start', async () => {
    const first = await provideRedis(wish());
    const { port } = first;
    const client = new Redis(first.url);
    expect(await client.config('GET', 'maxmemory-policy')).toEqual(['maxmemory-policy', 'noeviction']);
    expect(await client.config('GET', 'appendonly')).toEqual(['appendonly', 'yes']);
    await client.set('kept', '42');
    await client.quit();
    await expect(checkRedis(`redis://127.0.0.1:${port}`, quiet)).rejects.toThrow(/refuses the login/);
    await first.stop();

    const second = await provideRedis(wish());
    const again = new Redis(second.url);
    expect(await again.get('kept')).toBe('42');
    await again.quit();
    await second.stop();
  });

  it('is ended first when an earlier start left it behind', async () => {
    const leftBehind = await provideRedis(wish());
    const next = await provideRedis(wish());
    expect(next.port).not.toBe(leftBehind.port);
    await expect(leftBehind.exited).resolves.toBe('exit code 0');
    await next.stop();
  });
});
