import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import {
  migrate,
  openAppDatabase,
  openSystemDatabase,
  type AppDatabase,
  type Migration,
  type SystemDatabase,
} from '@atomo-cc/platform/postgres';
import { openRedis, type Redis, type RedisUse } from '@atomo-cc/platform/redis';

/** A database of one test file, with everything migrated. */
export interface TestDatabase {
  /** The owner's URL: no row-level security holds for it, so it can look at what others may not see. */
  readonly url: string;
  readonly app: AppDatabase;
  readonly system: SystemDatabase;
  /** Runs a statement as the owner and returns its rows. */
  asOwner<Row = Record<string, unknown>>(sql: string, parameters?: unknown[]): Promise<Row[]>;
  /** Closes the connections and drops the database. */
  drop(): Promise<void>;
}

/**
 * Makes a fresh database on the Postgres that jest's global set-up started, so that test files run side by side.
 * @param migrations those of the tables under test
 */
export async function aDatabase(
  migrations: readonly Migration[],
  options: { poolSize?: number } = {},
): Promise<TestDatabase> {
  const server = requireVariable('ATOMO_TEST_DATABASE_URL');
  const name = `test_${randomBytes(6).toString('hex')}`;
  await onServer(server, `create database ${name}`);
  const target = new URL(server);
  target.pathname = `/${name}`;
  const url = target.href;
  await migrate(url, migrations);
  const app = await openAppDatabase({ url, service: 'test', ...options });
  const system = await openSystemDatabase({ url, service: 'test', ...options });
  const owner = new Client({ connectionString: url });
  await owner.connect();
  return {
    url,
    app,
    system,
    asOwner: async (sql, parameters) => (await owner.query(sql, parameters)).rows,
    drop: async () => {
      await Promise.all([app.close(), system.close(), owner.end()]);
      await onServer(server, `drop database ${name} with (force)`);
    },
  };
}

/** A connection of its own as the owner: to prepare statements under names, or to be cut. Whoever opens it ends it. */
export async function aConnection(database: TestDatabase): Promise<Client> {
  const client = new Client({ connectionString: database.url });
  // Cut from outside, it is the next statement that says so.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** The URL of a numbered database of the test Redis that this test file has for itself while it runs. */
export function redisTestUrl(): string {
  const url = new URL(requireVariable('ATOMO_TEST_REDIS_URL'));
  // Redis has 16 databases; jest numbers its workers from 1, and each worker runs one file at a time.
  url.pathname = `/${process.env['JEST_WORKER_ID'] ?? '1'}`;
  return url.href;
}

/** A connection to an emptied test Redis. */
export async function aRedis(use: RedisUse = 'blocking'): Promise<Redis> {
  const redis = openRedis(redisTestUrl(), use, () => undefined);
  if (redis.status !== 'ready') await new Promise<void>((resolve) => redis.once('ready', () => resolve()));
  await redis.flushdb();
  return redis;
}

/**
 * Waits until `condition` answers something truthy, asking every 20 ms.
 * @throws Error naming `what` when it does not happen in time
 */
export async function eventually<Result>(
  what: string,
  condition: () => Promise<Result> | Result,
  timeoutMs = 30_000,
): Promise<Exclude<NonNullable<Result>, false>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result) return result as Exclude<NonNullable<Result>, false>;
    if (Date.now() > deadline) throw new Error(`did not happen within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The value of a variable that jest's global set-up sets. */
export function requireVariable(name: string): string {
  const value = process.env[name];
  if (!value)
    throw new Error(`${name} is not set: run the tests through jest, whose global set-up starts Postgres and Redis`);
  return value;
}

async function onServer(url: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}
