import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Client } from 'pg';
import { eventually, requireVariable } from './database.js';
import { freePort } from './free-port.js';

/** How Postgres is ended: `fast` rolls back and writes a checkpoint, `immediate` is a crash that it notices, `kill` one that it does not. */
export type PostgresEnd = 'fast' | 'immediate' | 'kill';

const SIGNALS = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;
/** A start replays the log of what was running when Postgres was killed; a restart waits for its orphans to notice. */
const START_LIMIT_MS = 60_000;

/** A Postgres of one test file alone, which it may end and start as it likes. What it acknowledged is on disk. */
export interface OwnPostgres {
  /** Of its superuser, on the database `postgres`. */
  readonly url: string;
  /** Ends it by its process id, and resolves when it is gone. */
  end(how: PostgresEnd): Promise<void>;
  /** Starts it on the same port, and resolves when it takes connections. */
  start(): Promise<void>;
  /** Ends it and deletes its data. */
  remove(): Promise<void>;
}

/**
 * Makes a new Postgres with the binaries of the one that the tests run on, as the user that owns that one's data (Postgres
 * refuses to run as root). It has the settings that Postgres comes with, so fsync is on.
 */
export async function anOwnPostgres(): Promise<OwnPostgres> {
  const { binaries, user } = await serverOfTheTests();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), `atomo-own-postgres-${process.pid}-`));
  if (user) fs.chownSync(folder, user.uid, user.gid);
  const data = path.join(folder, 'data');
  const options = { cwd: '/', env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }, ...user };
  const account = ['--username=owner', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync'];
  const initdb = spawn(path.join(binaries, 'initdb'), [`--pgdata=${data}`, ...account], {
    ...options,
    stdio: 'ignore',
  });
  const code = await new Promise((resolve) => initdb.once('exit', resolve));
  if (code !== 0) throw new Error(`initdb ended with ${String(code)}`);

  const port = await freePort();
  const url = `postgres://owner@127.0.0.1:${port}/postgres`;
  let server: ChildProcess | undefined;
  // A test run that ends in the middle leaves nothing behind.
  const sweep = () => server?.kill('SIGQUIT');
  process.once('exit', sweep);
  const end = async (how: PostgresEnd) => {
    if (!server) return;
    const gone = new Promise((resolve) => server!.once('exit', resolve));
    server.kill(SIGNALS[how]);
    await gone;
    server = undefined;
  };
  const start = async () => {
    await eventually(
      'Postgres takes connections',
      async () => {
        // After a kill its backends hold the shared memory for a moment, and a new one refuses to start beside them.
        if (server?.exitCode !== null) {
          const settings = { listen_addresses: '127.0.0.1', unix_socket_directories: '', max_connections: '50' };
          const given = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
          server = spawn(path.join(binaries, 'postgres'), ['-D', data, '-p', String(port), ...given], {
            ...options,
            stdio: 'ignore',
          });
        }
        const client = new Client({ connectionString: url });
        return client.connect().then(
          () => client.end().then(() => true),
          () => false,
        );
      },
      START_LIMIT_MS,
    );
  };
  const remove = async () => {
    await end('immediate');
    process.off('exit', sweep);
    fs.rmSync(folder, { recursive: true, force: true });
  };
  await start();
  return { url, end, start, remove };
}

/** Where the Postgres of the tests has its programs, and the user it runs as where that is not ours. */
async function serverOfTheTests(): Promise<{ binaries: string; user: { uid: number; gid: number } | undefined }> {
  const client = new Client({ connectionString: requireVariable('ATOMO_TEST_DATABASE_URL') });
  await client.connect();
  try {
    const { rows } = await client.query<{ binaries: string; data: string }>(
      `select (select setting from pg_config() where name = 'BINDIR') as binaries, current_setting('data_directory') as data`,
    );
    const { binaries, data } = rows[0]!;
    if (!fs.existsSync(path.join(binaries, 'initdb'))) {
      throw new Error(`this needs the Postgres of the tests to be on this machine, with initdb in ${binaries}`);
    }
    if (process.getuid?.() !== 0) return { binaries, user: undefined };
    const { uid, gid } = fs.statSync(data);
    return { binaries, user: { uid, gid } };
  } finally {
    await client.end();
  }
}
