import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePort, redisTestUrl } from '@atomo-cc/testing';
import { LocalProvider, redisLedger } from '../fleet/index.js';
import type { Redis } from '@atomo-cc/platform/redis';

/** The program that stands in for the real worker. */
export const FAKE_WORKER = path.join(__dirname, 'fake-worker.mjs');

/** Where the fake workers of one test live: a folder for logs, a first port, and every process that must not outlive it. */
export interface Scene {
  readonly logs: string;
  readonly firstPort: number;
  /** A provider of fake workers; several stand for several autoscalers of one machine. */
  provider(redis: Redis, environment?: Record<string, string>): LocalProvider;
  /** Ends all providers and their workers. */
  clear(): Promise<void>;
}

/** Sets the scene. */
export async function aScene(): Promise<Scene> {
  const folder = mkdtempSync(path.join(tmpdir(), 'atomo-autoscaler-'));
  const logs = path.join(folder, 'logs');
  const firstPort = await freePort();
  const made: LocalProvider[] = [];
  return {
    logs,
    firstPort,
    provider: (redis, environment = {}) => {
      const provider = new LocalProvider({
        script: FAKE_WORKER,
        firstPort,
        host: '127.0.0.1',
        environment: { PATH: process.env['PATH'] ?? '', REDIS_URL: redisTestUrl(), ...environment },
        logs,
        ledger: redisLedger(redis),
      });
      made.push(provider);
      return provider;
    },
    clear: async () => {
      await Promise.all(
        made.splice(0).map(async (provider) => {
          const left = await provider.list([]).catch(() => []);
          for (const { id } of left) killHard(Number(id));
          await provider.close(true);
        }),
      );
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Ends a process of the scene as a crash would. */
export function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}
