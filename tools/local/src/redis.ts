import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { sleep } from '@atomo-cc/kernel';
import { Redis } from 'ioredis';
import { endOf, readFrom, startGuarded } from './guarded.js';
import { freePort, shown, writeWhole, type Home } from './home.js';
import { reasonOf, Refusal } from './refusal.js';

/** BullMQ's own recommendation; older ones lack commands that it and the adapters use. */
const OLDEST = [6, 2] as const;
const CONNECT_LIMIT_MS = 10_000;
/** How long an own Redis may take to load its append-only file. */
const START_LIMIT_MS = 60_000;
const PORT_ATTEMPTS = 3;
const POLL_MS = 25;
const STOP_STEPS = [['TERM', 10_000]] as const;
/** How long apt-get waits for another package manager that is at work. */
const APT_LOCK_SECONDS = 120;
const SERVERS = ['redis-server', 'valkey-server'] as const;

/** A Redis that is there to be used. */
export interface ProvidedRedis {
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

/** What {@link provideRedis} needs to know. */
export interface RedisWish {
  readonly home: Home;
  /** Empty: start an own server. */
  readonly redisUrl: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Listen here rather than on a free port. */
  readonly port?: number | undefined;
  readonly say: (line: string) => void;
}

/**
 * The Redis of `redisUrl` once it has answered, else an own redis-server or valkey-server with its data in the home; the
 * program is installed by the platform's package manager where it is missing.
 * @throws Refusal naming what is wrong, or what to do where there is no Redis
 */
export async function provideRedis(wish: RedisWish): Promise<ProvidedRedis> {
  if (!wish.redisUrl) return startOwn(wish, (await findServer(wish.environment)) ?? (await install(wish)));
  const version = await checkRedis(wish.redisUrl, wish.say);
  const { host } = new URL(wish.redisUrl);
  return { url: wish.redisUrl, description: `Redis ${version} at ${host} (REDIS_URL)`, stop: async () => {} };
}

/**
 * Pings a Redis given by URL.
 * @returns its version
 * @throws Refusal in one sentence without the password: unreachable, wrong password, too old
 */
export async function checkRedis(redisUrl: string, say: (line: string) => void): Promise<string> {
  const redis = open(redisUrl);
  const place = new URL(redisUrl).host;
  try {
    await redis.connect();
    await redis.ping();
    const version = await versionOf(redis);
    const [major, minor] = version.split('.').map(Number) as [number, number];
    if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
      throw new Refusal(`The Redis of REDIS_URL is version ${version}; Atomo needs ${OLDEST.join('.')} or newer.`);
    }
    // CONFIG is often forbidden on managed servers; only a known wrong value is worth a word.
    const policy = await redis.config('GET', 'maxmemory-policy').then(
      (pair) => pair[1],
      () => undefined,
    );
    if (policy && policy !== 'noeviction') {
      say(`Note: the Redis of REDIS_URL has maxmemory-policy ${policy}; set noeviction, else queued jobs can vanish`);
    }
    return version;
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(
      /NOAUTH|WRONGPASS|invalid password|AUTH/.test(reasonOf(error))
        ? `REDIS_URL: Redis at ${place} refuses the login (wrong or missing password).`
        : `REDIS_URL: Redis at ${place} cannot be reached (${reasonOf(error)}); start it, or leave REDIS_URL out to use an own one.`,
    );
  } finally {
    redis.disconnect();
  }
}

/** A client for one question: no reconnects, no queue, the first fault is the answer. */
function open(url: string): Redis {
  const redis = new Redis(url, {
    lazyConnect: true,
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    enableReadyCheck: false,
    connectTimeout: CONNECT_LIMIT_MS,
    commandTimeout: CONNECT_LIMIT_MS,
    // ioredis keeps this timer, and with it the process, also when the connection is closed already.
    disconnectTimeout: 100,
  });
  // ioredis rejects connect() with "Connection is closed." and tells the reason only here.
  let reason: Error | undefined;
  redis.on('error', (error: Error) => (reason ??= error));
  const connect = redis.connect.bind(redis);
  redis.connect = () =>
    connect().catch((error: unknown) => {
      throw reason ?? error;
    });
  return redis;
}

async function versionOf(redis: Redis): Promise<string> {
  const info = await redis.info('server');
  return /(?:valkey_version|redis_version):(\S+)/.exec(info)?.[1] ?? '0.0.0';
}

async function startOwn(wish: RedisWish, program: string): Promise<ProvidedRedis> {
  const folder = path.join(wish.home.folder, 'redis');
  const logFile = path.join(wish.home.logs, 'redis.log');
  const password = wish.home.secrets.redisPassword;
  const urlOf = (port: number) => `redis://:${password}@127.0.0.1:${port}`;
  fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
  await stopRedisLeftBehind(wish.home);

  for (let attempt = 1; ; attempt += 1) {
    const port = wish.port ?? (await freePort());
    // The settings go by file: arguments can be read by every user of the machine, and the password is among them.
    const settings = path.join(folder, 'redis.conf');
    fs.writeFileSync(
      settings,
      [
        `port ${port}`,
        'bind 127.0.0.1',
        `requirepass ${password}`,
        `dir "${folder}"`,
        'appendonly yes',
        'appendfsync everysec',
        'save ""',
        // BullMQ keeps jobs in ordinary keys: evicting one would lose a job.
        'maxmemory-policy noeviction',
        'daemonize no',
        '',
      ].join('\n'),
      { mode: 0o600 },
    );
    writeWhole(path.join(folder, 'instance.json'), { port });
    const server = startGuarded([program, settings], {
      logFile,
      cwd: folder,
      env: { PATH: wish.environment.PATH ?? '/usr/bin:/bin', LC_ALL: 'C' },
    });
    let ended: string | undefined;
    void server.exited.then((how) => (ended = how));
    const deadline = Date.now() + START_LIMIT_MS;
    for (;;) {
      const version = await ask(urlOf(port));
      if (version) {
        return {
          url: urlOf(port),
          description: `Redis ${version}, own instance, data in ${shown(folder)}`,
          exited: server.exited,
          port,
          stop: (now) => server.stop(now ? [] : STOP_STEPS),
        };
      }
      if (ended !== undefined || Date.now() > deadline) break;
      await sleep(POLL_MS);
    }
    await server.stop([]);
    const output = server.output().trim();
    if (/Address already in use/.test(output) && attempt < PORT_ATTEMPTS) continue;
    const last = output
      .split('\n')
      .at(-1)
      ?.replace(/^\d+:\w+ .*? [*#.-] /, '');
    throw new Refusal(
      `Redis did not start (${ended ?? `no answer in ${START_LIMIT_MS / 1000} s`}): ${last}. Log: ${logFile}`,
    );
  }
}

/** The version when the server answers with this password and has loaded its data; undefined while it does not. */
async function ask(url: string): Promise<string | undefined> {
  const redis = open(url);
  try {
    await redis.connect();
    await redis.ping();
    return await versionOf(redis);
  } catch {
    return undefined;
  } finally {
    redis.disconnect();
  }
}

/** Ends the Redis of this home whose supervisor was killed; that it knows our password proves that it is ours. */
export async function stopRedisLeftBehind(home: Home): Promise<void> {
  let url: string;
  try {
    const instance = fs.readFileSync(path.join(home.folder, 'redis', 'instance.json'), 'utf8');
    const { port } = JSON.parse(instance) as { port: number };
    url = `redis://:${home.secrets.redisPassword}@127.0.0.1:${port}`;
  } catch {
    return;
  }
  const redis = open(url);
  try {
    await redis.connect();
    await redis.ping();
    await redis.shutdown().catch(() => {});
  } catch {
    return;
  } finally {
    redis.disconnect();
  }
  const deadline = Date.now() + STOP_STEPS[0][1];
  while ((await ask(url)) && Date.now() < deadline) await sleep(POLL_MS);
}

async function findServer(environment: Readonly<Record<string, string>>): Promise<string | undefined> {
  const folders = [
    ...(environment.PATH ?? '').split(path.delimiter),
    '/usr/sbin',
    '/opt/homebrew/bin',
    '/usr/local/bin',
  ];
  for (const name of SERVERS) {
    for (const folder of folders) {
      const file = path.join(folder, name);
      if (folder && spawnSync(file, ['--version'], { stdio: 'ignore' }).status === 0) return file;
    }
  }
  return undefined;
}

const NO_REDIS =
  'Redis is missing: install it (Debian, Ubuntu: sudo apt-get install redis-server; macOS: brew install redis; Fedora: sudo dnf install valkey), or set REDIS_URL to a running one, for instance redis://localhost:6379.';

async function install(wish: RedisWish): Promise<string> {
  const logFile = path.join(wish.home.logs, 'install.log');
  if (process.platform === 'darwin' && has('brew')) {
    wish.say('Installing Redis with Homebrew (about a minute, first time only)');
    await installBy([['brew', 'install', 'redis']], wish, logFile);
  } else if (process.platform === 'linux' && process.getuid?.() === 0 && has('apt-get')) {
    wish.say('Installing Redis with apt-get (about 20 s, first time only)');
    const apt = ['apt-get', '-o', `DPkg::Lock::Timeout=${APT_LOCK_SECONDS}`, '-q', '-y'];
    const get = [...apt, '--no-install-recommends', 'install', 'redis-server'];
    await withoutServiceStart(async () => {
      // The package lists are often missing (images) or old; they are fetched only when the first try fails.
      await installBy([get], wish, logFile).catch(() => installBy([[...apt, 'update'], get], wish, logFile));
    });
  } else {
    throw new Refusal(NO_REDIS);
  }
  const server = await findServer(wish.environment);
  if (!server) throw new Refusal(NO_REDIS);
  return server;
}

function has(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}

async function installBy(commands: string[][], wish: RedisWish, logFile: string): Promise<void> {
  for (const [program, ...args] of commands) {
    const log = fs.openSync(logFile, 'a');
    const begin = fs.fstatSync(log).size;
    const env = { ...wish.environment, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1', HOMEBREW_NO_AUTO_UPDATE: '1' };
    const ended = await endOf(spawn(program!, args, { stdio: ['ignore', log, log], env }));
    fs.closeSync(log);
    if (ended === 'exit code 0') continue;
    const lines = readFrom(logFile, begin).trim().split('\n');
    const reason = lines.findLast((line) => /^E:|error/i.test(line)) ?? lines.at(-1);
    throw new Refusal(
      `Installing Redis failed (${[program, ...args].join(' ')}): ${reason}. Log: ${logFile}\n${NO_REDIS}`,
    );
  }
}

/**
 * Debian starts a service when its package is installed, unless the program policy-rc.d forbids it (101). An own Redis is
 * started here, so a second one on the system's port would only be in the way; where systemd runs it is disabled as well.
 */
async function withoutServiceStart(work: () => Promise<void>): Promise<void> {
  const policy = '/usr/sbin/policy-rc.d';
  const MARK = '# Put here by Atomo while it installs Redis; may be deleted.';
  const foreign = fs.existsSync(policy) && !fs.readFileSync(policy, 'utf8').includes(MARK);
  const remove = () => fs.rmSync(policy, { force: true });
  if (!foreign) {
    fs.writeFileSync(policy, `#!/bin/sh\n${MARK}\nexit 101\n`, { mode: 0o755 });
    process.once('exit', remove);
  }
  try {
    await work();
    if (fs.existsSync('/run/systemd/system')) spawnSync('systemctl', ['disable', 'redis-server'], { stdio: 'ignore' });
  } finally {
    if (!foreign) {
      remove();
      process.off('exit', remove);
    }
  }
}
