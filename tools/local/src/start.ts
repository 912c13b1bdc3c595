import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline/promises';
import { styleText } from 'node:util';
import { parseOptions } from './options.js';
import { readConfig, type LocalConfig } from './config.js';
import { openHome, SERVICE_FILE, shown, writeWhole, type Home, type StartedService } from './home.js';
import { providePostgres, stopLeftBehind } from './postgres.js';
import { dataFoldersOf, removePostgresOf } from './postgres-place.js';
import { provideRedis, stopRedisLeftBehind } from './redis.js';
import { Refusal, runCommand } from './refusal.js';
import { openRoster, type Roster } from './roster.js';
import type { ServiceSpec } from './service-process.js';
import { Supervisor, type RunningSystem, type SupervisorPlan } from './supervisor.js';

/**
 * One Ctrl-C arrives several times: from the terminal, and forwarded by npm and by bootstrap. A second one that means
 * "now" comes later than this.
 */
const SAME_SIGNAL_MS = 1_000;
/** Everything the supervisor keeps in a home; `--reset` deletes these and nothing else of what may lie there. */
const KEPT = ['redis', 'memory', 'logs', 'secrets.json', 'run.json', SERVICE_FILE, 'postgres-outside'];
const WORKER = 'historical-sync-worker';
const EXIT_INTERRUPTED = 130;
/** After the second Ctrl-C nothing is waited for longer; what is left then ends by itself, as after a kill -9. */
const FORCED_LIMIT_MS = 5_000;

await runCommand(async () => {
  const flags = parseOptions('start', process.argv.slice(2), {
    service: { type: 'string' },
    reset: { type: 'boolean' },
    yes: { type: 'boolean' },
  });
  const config = readConfig();
  const service = serviceFolder(config, flags.values.service);
  const startedAt = performance.now();
  const say = (line: string) => console.log(`${styleText('dim', elapsed(startedAt).padStart(6))}  ${line}`);

  let home = openHome(config.home);
  const roster = await openRoster(home.socket);
  if (flags.values.reset) {
    if (!(await confirmed(home, flags.values.yes === true))) {
      await roster.close();
      throw new Refusal('Nothing was deleted.');
    }
    await deleteData(home);
    home = openHome(config.home);
    if (config.databaseUrl) say('Note: the data in the Postgres of DATABASE_URL is yours and was not deleted');
  }

  const started: StartedService = { folder: service };
  writeWhole(path.join(home.folder, SERVICE_FILE), started);
  const plan = planOf(config, home, roster, service, say);
  const supervisor = new Supervisor(plan);
  let interruptedAt: number | undefined;
  let ended: (() => void) | undefined;
  const untilInterrupted = new Promise<void>((resolve) => (ended = resolve));
  const interrupt = () => {
    const again = interruptedAt !== undefined;
    if (again && performance.now() - interruptedAt! < SAME_SIGNAL_MS) return;
    console.log(again ? 'Stopping at once' : 'Stopping (the data is kept; Ctrl-C again stops at once)');
    interruptedAt ??= performance.now();
    void supervisor.stop(again);
    if (again) setTimeout(() => process.exit(EXIT_INTERRUPTED), FORCED_LIMIT_MS).unref();
    ended!();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt);
  // bootstrap was killed: nobody could stop us any more.
  if (process.channel) {
    process.once('disconnect', interrupt);
    process.channel.unref();
  }
  // A terminal that is gone must not keep us from stopping what we started.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});

  try {
    const running = await supervisor.start();
    console.log(overview(config, plan, running, elapsed(startedAt)));
    console.log('Atomo is ready');
    await untilInterrupted;
  } catch (error) {
    await supervisor.stop();
    if (interruptedAt !== undefined) return EXIT_INTERRUPTED;
    throw error;
  }
  await supervisor.stop();
  console.log('Stopped');
  return 0;
});
// Sockets of clients that are being closed would keep the process for a while.
process.exit();

function elapsed(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`;
}

function serviceFolder(config: LocalConfig, given: string | undefined): string {
  const folder = given === undefined ? config.service : path.resolve(config.cwd, given);
  // A path that is meant from the repository's folder works from anywhere in it.
  const found = [folder, path.resolve(config.root, given ?? folder)].find((each) =>
    fs.existsSync(path.join(each, 'schema.ts')),
  );
  if (found) return found;
  throw new Refusal(
    `There is no schema.ts in ${folder}: name a folder that has one, for instance --service services/crm.`,
  );
}

async function confirmed(home: Home, yes: boolean): Promise<boolean> {
  if (yes) return true;
  if (!process.stdin.isTTY)
    throw new Refusal(`--reset deletes all data in ${home.folder}; without a terminal to ask in it needs --yes.`);
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question(`Delete all data in ${home.folder}? Type yes to go on: `).catch(() => '');
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}

async function deleteData(home: Home): Promise<void> {
  await Promise.all([...dataFoldersOf(home.folder).map(stopLeftBehind), stopRedisLeftBehind(home)]);
  removePostgresOf(home.folder);
  for (const name of KEPT) fs.rmSync(path.join(home.folder, name), { recursive: true, force: true });
}

function planOf(
  config: LocalConfig,
  home: Home,
  roster: Roster,
  service: string,
  say: (line: string) => void,
): SupervisorPlan {
  const { root, environment, databaseUrl, redisUrl, ports } = config;
  const memoryUri = config.memoryUri || path.join(home.folder, 'memory');
  const entryOf = (app: string) => path.join(root, 'apps', app, 'dist', 'main.js');
  const spec = (
    name: string,
    portVariable: string,
    port: number,
    stopLimitMs: number,
    purpose: string,
  ): ServiceSpec => ({
    name,
    entry: entryOf(name),
    port,
    portVariable,
    purpose,
    stopLimitMs,
  });
  return {
    home,
    roster,
    host: config.host,
    cwd: root,
    node: process.execPath,
    memoryUri,
    say,
    services: [
      spec(
        'content-core',
        'CONTENT_CORE_PORT',
        ports.contentCore,
        15_000,
        'GraphQL at /graphql, sign in at /auth/login, imports at /api/imports',
      ),
      spec(
        'sync-gateway',
        'SYNC_GATEWAY_PORT',
        ports.syncGateway,
        15_000,
        'file sync: Socket.IO at /socket.io, REST at /api/v1',
      ),
      // It waits for its workers to drain: they finish the page they are at.
      spec(
        'autoscaler',
        'AUTOSCALER_PORT',
        ports.autoscaler,
        45_000,
        'starts and stops workers: /workers /queues /decisions',
      ),
    ],
    workers: { name: WORKER, entry: entryOf(WORKER), portVariable: 'WORKER_PORT', port: ports.worker, expected: 1 },
    postgres: (port) => providePostgres({ home, root, databaseUrl, environment, port, say }),
    redis: (port) => provideRedis({ home, redisUrl, environment, port, say }),
    environment: (postgresUrl, ownRedisUrl) => ({
      AUTOSCALER_PROVIDER: 'local',
      // glibc keeps an arena per thread, and LanceDB has many: without this a long import takes half as much memory again.
      MALLOC_ARENA_MAX: '2',
      ...environment,
      ATOMO_MODE: 'embedded',
      ATOMO_HOME: home.folder,
      ATOMO_SERVICE: service,
      ATOMO_SUPERVISOR: home.socket,
      AUTH_SECRET: config.authSecret || home.secrets.authSecret,
      ENCRYPTION_KEY: config.encryptionKey || home.secrets.encryptionKey,
      DATABASE_URL: postgresUrl,
      REDIS_URL: ownRedisUrl,
      MEMORY_URI: memoryUri,
      HOST: config.host,
      CONTENT_CORE_PORT: String(ports.contentCore),
      SYNC_GATEWAY_PORT: String(ports.syncGateway),
      AUTOSCALER_PORT: String(ports.autoscaler),
      WORKER_PORT: String(ports.worker),
    }),
  };
}

/** The table of what runs where, and what one needs to begin. */
function overview(config: LocalConfig, plan: SupervisorPlan, running: RunningSystem, took: string): string {
  const rows = [
    ...plan.services.map((spec) => [spec.name, running.services[spec.name]!.url, spec.purpose]),
    ...running.workers.map((worker) => [WORKER, worker.url, 'reads archives and mailboxes into memory']),
    ['Postgres', new URL(running.databaseUrl).host, 'URL in run.json'],
    ['Redis', new URL(running.redisUrl).host, 'URL in run.json'],
  ];
  const width = (column: number) => Math.max(...rows.map((row) => row[column]!.length));
  const [first, second] = [width(0), width(1)];
  const login = config.adminPassword
    ? `${config.adminEmail} with the password of ADMIN_PASSWORD`
    : `${config.adminEmail} / atomo-dev`;
  return [
    '',
    ...rows.map(
      ([name, url, purpose]) => `  ${styleText('bold', name!.padEnd(first))}  ${url!.padEnd(second)}  ${purpose}`,
    ),
    '',
    `  Sign in      ${login}`,
    `  Master key   ${config.masterKey ? 'as in GATEWAY_MASTER_KEY' : 'sk_admin_dev'} (sync-gateway)`,
    `  Data, logs   ${shown(plan.home.folder)}, ${shown(plan.home.logs)}`,
    `  Started in   ${took}; Ctrl-C stops everything and keeps the data`,
    '',
  ].join('\n');
}
