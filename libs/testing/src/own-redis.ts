import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Redis } from 'ioredis';
import { eventually } from './database.js';
import { freePort } from './free-port.js';

const PROGRAMS = ['redis-server', 'valkey-server'] as const;
const START_LIMIT_MS = 20_000;

/** A Redis of one test file alone, which it may kill and start as it likes. It forgets everything when it ends. */
export interface OwnRedis {
  readonly url: string;
  /** Kills it, and resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it on the same port, empty, and resolves when it answers. */
  start(): Promise<void>;
  /** Kills it for good. */
  remove(): Promise<void>;
}

/** Starts a Redis that keeps nothing on disk. @throws Error where neither redis-server nor valkey-server is installed */
export async function anOwnRedis(): Promise<OwnRedis> {
  const program = PROGRAMS.find((name) => spawnSync(name, ['--version']).status === 0);
  if (!program) throw new Error(`this needs ${PROGRAMS.join(' or ')} on the PATH`);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `atomo-own-redis-${process.pid}-`));
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  let server: ChildProcess | undefined;
  // A test run that ends in the middle leaves nothing behind.
  const sweep = () => server?.kill('SIGKILL');
  process.once('exit', sweep);
  const kill = async () => {
    if (!server) return;
    const gone = new Promise((resolve) => server!.once('exit', resolve));
    server.kill('SIGKILL');
    await gone;
    server = undefined;
  };
  const start = async () => {
    const settings = [
      '--port',
      String(port),
      '--bind',
      '127.0.0.1',
      '--dir',
      folder,
      '--save',
      '',
      '--appendonly',
      'no',
    ];
    server = spawn(program, settings, { stdio: 'ignore' });
    await eventually('Redis answers', () => answers(url), START_LIMIT_MS);
  };
  const remove = async () => {
    await kill();
    process.off('exit', sweep);
    fs.rmSync(folder, { recursive: true, force: true });
  };
  await start();
  return { url, kill, start, remove };
}

async function answers(url: string): Promise<boolean> {
  const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => null, disconnectTimeout: 100 });
  redis.on('error', () => undefined);
  try {
    await redis.connect();
    return (await redis.ping()) === 'PONG';
  } catch {
    return false;
  } finally {
    redis.disconnect();
  }
}
