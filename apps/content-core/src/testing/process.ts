import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { eventually, freePort, redisTestUrl, type TestDatabase } from '@atomo-cc/testing';

/** The login that the embedded mode has. */
export const DEVELOPMENT_LOGIN = { email: 'admin@atomo.local', password: 'atomo-dev' };

/** content-core in a process of its own, as it is deployed. */
export interface RunningContentCore {
  readonly url: string;
  /** What it wrote, log lines and all. */
  readonly output: () => string;
  readonly isAlive: () => boolean;
  /** An access token of who logs in. @throws Error when the login is refused */
  logIn(login?: { email: string; password: string }): Promise<string>;
  stop(): Promise<void>;
}

/**
 * Runs content-core as built, with the CRM, on a database of its own. Starting takes seconds.
 * @param environment what is set beside the addresses of the services
 */
export async function aContentCore(
  database: TestDatabase,
  environment: Readonly<Record<string, string>> = {},
): Promise<RunningContentCore> {
  const folder = mkdtempSync(join(tmpdir(), 'atomo-content-core-'));
  const port = await freePort();
  const child = spawn(process.execPath, [resolve('apps/content-core/dist/main.js')], {
    env: {
      PATH: process.env['PATH'],
      ATOMO_MODE: 'embedded',
      DATABASE_URL: database.url,
      REDIS_URL: redisTestUrl(),
      MEMORY_URI: folder,
      CONTENT_CORE_PORT: String(port),
      LOG_LEVEL: 'error',
      ...environment,
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const ended = new Promise<void>((done) => child.once('close', () => done()));
  const isAlive = () => child.exitCode === null && child.signalCode === null;
  const url = `http://127.0.0.1:${port}`;
  const isReady = async () => {
    if (!isAlive()) throw new Error(`content-core did not start: ${output}`);
    return (await fetch(`${url}/health/ready`).catch(() => null))?.status === 200;
  };
  await eventually('content-core is ready', isReady, 60_000);
  return {
    url,
    output: () => output,
    isAlive,
    logIn: async (login = DEVELOPMENT_LOGIN) => {
      const response = await fetch(`${url}/auth/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(login),
      });
      const { accessToken } = (await response.json()) as { accessToken?: string };
      if (!accessToken) throw new Error(`The login was refused: ${response.status}.`);
      return accessToken;
    },
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
