import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { LocalConfig } from './config.js';
import { openHome } from './home.js';
import { providePostgres, type ProvidedPostgres, stopLeftBehind } from './postgres.js';
import { dataFoldersOf, removePostgresOf } from './postgres-place.js';
import { provideRedis, type ProvidedRedis } from './redis.js';

const PREFIX = 'atomo-test-';

/** Postgres and Redis for one run of the tests. */
export interface TestServers {
  readonly databaseUrl: string;
  readonly redisUrl: string;
  /** Ends what was started, and deletes its folder. */
  stop(): Promise<void>;
}

/**
 * Postgres and Redis for tests: those of ATOMO_TEST_DATABASE_URL and ATOMO_TEST_REDIS_URL, else new ones in a throw-away
 * home. DATABASE_URL and REDIS_URL are never used: tests make and drop databases and empty Redis.
 * @throws Refusal as {@link providePostgres} and {@link provideRedis} do
 */
export async function startTestServers(config: LocalConfig, say: (line: string) => void): Promise<TestServers> {
  if (config.testDatabaseUrl && config.testRedisUrl) {
    return { databaseUrl: config.testDatabaseUrl, redisUrl: config.testRedisUrl, stop: async () => {} };
  }
  await sweepKilled();
  const home = openHome(makeThrowAwayFolder());
  const { root, environment } = config;
  const started: (ProvidedPostgres | ProvidedRedis)[] = [];
  const stop = async () => {
    await Promise.all(started.map((server) => server.stop(true)));
    removePostgresOf(home.folder);
    fs.rmSync(home.folder, { recursive: true, force: true });
  };
  const keep = <Server extends ProvidedPostgres | ProvidedRedis>(server: Server): Server => {
    started.push(server);
    return server;
  };
  const [postgres, redis] = await Promise.allSettled([
    providePostgres({ home, root, environment, databaseUrl: config.testDatabaseUrl, throwAway: true, say }).then(keep),
    provideRedis({ home, environment, redisUrl: config.testRedisUrl, say }).then(keep),
  ]);
  if (postgres.status === 'fulfilled' && redis.status === 'fulfilled') {
    return { databaseUrl: postgres.value.url, redisUrl: redis.value.url, stop };
  }
  await stop();
  throw postgres.status === 'rejected' ? postgres.reason : (redis as PromiseRejectedResult).reason;
}

/** A new folder under the temporary one that bears our process id, so that a later run knows when it is left over. */
export function makeThrowAwayFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `${PREFIX}${process.pid}-`));
  // mkdtemp makes it 0700, and the user that runs Postgres for root could not enter; the secrets in it are 0600.
  fs.chmodSync(folder, 0o711);
  return folder;
}

/** Deletes the folders of earlier runs that were killed, and ends a Postgres that may still serve there. */
async function sweepKilled(): Promise<void> {
  for (const name of fs.readdirSync(os.tmpdir())) {
    const pid = /^atomo-test-(\d+)-/.exec(name)?.[1];
    if (!pid || isAlive(Number(pid))) continue;
    const folder = path.join(os.tmpdir(), name);
    try {
      if (fs.statSync(folder).uid !== process.getuid?.()) continue;
      for (const data of dataFoldersOf(folder)) await stopLeftBehind(data);
      removePostgresOf(folder);
      fs.rmSync(folder, { recursive: true, force: true });
    } catch {
      // Another run sweeps it too, or a process writes to it still: the next run gets it.
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
