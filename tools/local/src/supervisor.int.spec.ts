import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { freePort } from '@atomo-cc/testing';
import type { RunningSystem } from './supervisor.js';

const DIST = path.resolve('tools/local/dist');
const DEADLINE_MS = 30_000;

/** A service as small as one can be: answers /health/ready, registers, ends on SIGTERM and when the supervisor is gone. */
const SERVICE = `
import http from 'node:http';
import net from 'node:net';
import { spawn } from 'node:child_process';
const name = process.argv[1].split('/').at(-1).replace('.mjs', '');
if (process.env.FAIL === name) { console.error('Error: the database speaks no SQL'); process.exit(3); }
const PORTS = { 'content-core': 'CONTENT_CORE_PORT', autoscaler: 'AUTOSCALER_PORT', 'historical-sync-worker': 'WORKER_PORT' };
const port = Number(process.env[PORTS[name]]);
http.createServer((request, response) => response.end('{}')).listen(port, '127.0.0.1', () => {
  const socket = net.connect(process.env.ATOMO_SUPERVISOR, () =>
    socket.write(JSON.stringify({ name, pid: process.pid, url: 'http://127.0.0.1:' + port }) + '\\n'));
  socket.on('data', () => {}).on('error', () => {}).on('close', () => process.exit(0));
  if (name === 'autoscaler') {
    const worker = spawn(process.execPath, [process.argv[1].replace('autoscaler', 'historical-sync-worker')], { stdio: 'inherit' });
    process.on('SIGTERM', () => { worker.kill('SIGTERM'); worker.once('exit', () => process.exit(0)); });
  } else process.on('SIGTERM', () => process.env.DEAF === name || process.exit(0));
});
`;

/** Runs a supervisor over the fakes as start.js does over the services. */
const RUNNER = `
import path from 'node:path';
import { openHome } from '${DIST}/home.js';
import { openRoster } from '${DIST}/roster.js';
import { providePostgres } from '${DIST}/postgres.js';
import { provideRedis } from '${DIST}/redis.js';
import { readConfig } from '${DIST}/config.js';
import { runCommand } from '${DIST}/refusal.js';
import { Supervisor } from '${DIST}/supervisor.js';
const here = import.meta.dirname;
const { root, environment, ports } = readConfig();
const say = (line) => console.log(line);
await runCommand(async () => {
  const home = openHome(path.join(here, 'home'));
  const roster = await openRoster(home.socket);
  const spec = (name, portVariable, port) => ({ name, portVariable, port, entry: path.join(here, name + '.mjs'), purpose: '', stopLimitMs: 1000 });
  const supervisor = new Supervisor({
    home, roster, say, host: '127.0.0.1', node: process.execPath, cwd: here, memoryUri: 'memory',
    services: [spec('content-core', 'CONTENT_CORE_PORT', ports.contentCore), spec('autoscaler', 'AUTOSCALER_PORT', ports.autoscaler)],
    workers: { name: 'historical-sync-worker', entry: path.join(here, 'historical-sync-worker.mjs'), portVariable: 'WORKER_PORT', port: ports.worker, expected: 1 },
    postgres: (port) => providePostgres({ home, root, databaseUrl: process.env.PLAN_DATABASE_URL ?? '', environment, throwAway: true, port, say }),
    redis: (port) => provideRedis({ home, redisUrl: process.env.PLAN_REDIS_URL ?? '', environment, port, say }),
    environment: (databaseUrl, redisUrl) => ({ ...environment, ATOMO_SUPERVISOR: home.socket, DATABASE_URL: databaseUrl, REDIS_URL: redisUrl }),
  });
  const interrupted = new Promise((resolve) => process.on('SIGINT', () => { resolve(); void supervisor.stop(); }));
  try { await supervisor.start(); } catch (error) { await supervisor.stop(); throw error; }
  console.log('Atomo is ready');
  await interrupted;
  await supervisor.stop();
  return 0;
});
process.exit();
`;

/** A supervisor process with everything it printed. */
class Run {
  output = '';
  readonly exited: Promise<number | null>;
  constructor(readonly child: ChildProcess) {
    for (const stream of [child.stdout!, child.stderr!])
      stream.setEncoding('utf8').on('data', (chunk: string) => (this.output += chunk));
    this.exited = new Promise((resolve) => child.once('close', (code) => resolve(code)));
  }
}

let folder: string;
let environment: Record<string, string>;
const runs: Run[] = [];

/** `given` adds to the environment; without `embedded` the run uses the servers of jest's set-up. */
function run(given: Record<string, string> = {}, embedded = false): Run {
  const shared = {
    PLAN_DATABASE_URL: process.env.ATOMO_TEST_DATABASE_URL!,
    PLAN_REDIS_URL: process.env.ATOMO_TEST_REDIS_URL!,
  };
  const child = spawn(process.execPath, [path.join(folder, 'run.mjs')], {
    env: { PATH: process.env.PATH!, ...environment, ...(embedded ? {} : shared), ...given },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const started = new Run(child);
  runs.push(started);
  return started;
}

async function until<Value>(what: string, ask: () => Value | Promise<Value>): Promise<NonNullable<Value>> {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const value = await ask();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`Not within ${DEADLINE_MS} ms: ${what}\n${runs.at(-1)?.output}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

const ready = (started: Run) => until('ready', () => started.output.includes('Atomo is ready'));
const runFile = () => path.join(folder, 'home', 'run.json');
const running = () => JSON.parse(fs.readFileSync(runFile(), 'utf8')) as RunningSystem;
const isAlive = (pid: number) => {
  try {
    // A zombie that its new parent does not fetch is dead as well.
    process.kill(pid, 0);
    return process.platform !== 'linux' || !/\) [ZX] /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
};
const pidsOf = (system: RunningSystem) =>
  [...Object.values(system.services), ...system.workers].map((entry) => entry.pid);

beforeEach(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), `atomo-test-${process.pid}-`));
  fs.chmodSync(folder, 0o711);
  for (const name of ['content-core', 'autoscaler', 'historical-sync-worker'])
    fs.writeFileSync(path.join(folder, `${name}.mjs`), SERVICE);
  fs.writeFileSync(path.join(folder, 'run.mjs'), RUNNER);
  const [contentCore, autoscaler, worker] = [await freePort(), await freePort(), await freePort()];
  environment = {
    CONTENT_CORE_PORT: String(contentCore),
    AUTOSCALER_PORT: String(autoscaler),
    WORKER_PORT: String(worker),
  };
});

afterEach(async () => {
  for (const { child, exited } of runs.splice(0)) {
    child.kill('SIGINT');
    await exited;
  }
  fs.rmSync(folder, { recursive: true, force: true });
});

jest.setTimeout(4 * DEADLINE_MS);

it('runs all of it, tells where in run.json, and leaves nothing behind when it is interrupted', async () => {
  const first = run();
  await ready(first);
  const system = running();
  expect(Object.keys(system.services)).toEqual(['content-core', 'autoscaler']);
  expect(system.workers).toEqual([{ pid: expect.any(Number), url: `http://127.0.0.1:${environment.WORKER_PORT}` }]);
  expect(system.databaseUrl).toBe(process.env.ATOMO_TEST_DATABASE_URL);
  expect(pidsOf(system).every(isAlive)).toBe(true);

  first.child.kill('SIGINT');
  expect(await first.exited).toBe(0);
  expect(pidsOf(system).filter(isAlive)).toEqual([]);
  expect(fs.existsSync(runFile())).toBe(false);
});

it('is refused while another one runs for the same home', async () => {
  const first = run();
  await ready(first);
  const second = run();
  expect(await second.exited).toBe(1);
  expect(second.output).toMatch(new RegExp(`^Atomo is already running \\(pid ${first.child.pid}, since 20.*Z\\)`));
  expect(isAlive(first.child.pid!)).toBe(true);
});

it('names a taken port, its variable and what to do, before anything is started', async () => {
  const other = net.createServer();
  await new Promise<void>((resolve) => other.listen(Number(environment.AUTOSCALER_PORT), '127.0.0.1', resolve));
  try {
    const refused = run();
    expect(await refused.exited).toBe(1);
    expect(refused.output).toBe(
      `Port ${environment.AUTOSCALER_PORT} of autoscaler is taken: stop the program that uses it, or choose another port with AUTOSCALER_PORT, for instance AUTOSCALER_PORT=${Number(environment.AUTOSCALER_PORT) + 1000} npm start.\n`,
    );
  } finally {
    other.close();
  }
});

it('stops what it started when a service dies while starting, and says why', async () => {
  const refused = run({ FAIL: 'content-core' });
  expect(await refused.exited).toBe(1);
  expect(refused.output).toContain(
    'content-core ended while starting (exit code 3): Error: the database speaks no SQL. Log: ',
  );
  expect(fs.existsSync(runFile())).toBe(false);
  await expect(connects(Number(environment.AUTOSCALER_PORT))).resolves.toBe(false);
});

it('refuses a DATABASE_URL that leads nowhere, and leaves no Redis of its own behind', async () => {
  const refused = run({ PLAN_DATABASE_URL: 'postgres://me:secret@127.0.0.1:1/atomo' }, true);
  expect(await refused.exited).toBe(1);
  expect(refused.output).toContain('DATABASE_URL: Postgres at 127.0.0.1:1 cannot be reached');
  expect(refused.output).not.toContain('secret@');
  const { port } = JSON.parse(fs.readFileSync(path.join(folder, 'home/redis/instance.json'), 'utf8')) as {
    port: number;
  };
  await expect(connects(port)).resolves.toBe(false);
});

it('starts a service again within two seconds when it is killed, and keeps run.json true', async () => {
  await ready(run());
  const { pid } = running().services['content-core']!;
  // A machine on which a process takes long to start is given longer.
  const from = performance.now();
  spawnSync(process.execPath, ['-e', '']);
  const patienceMs = 2_000 + 10 * (performance.now() - from);
  const killedAt = performance.now();
  process.kill(pid, 'SIGKILL');
  await until('another process', () => running().services['content-core']!.pid !== pid);
  const { url } = running().services['content-core']!;
  await until('an answer', () =>
    fetch(url).then(
      (response) => response.ok,
      () => false,
    ),
  );
  expect(performance.now() - killedAt).toBeLessThan(patienceMs);
});

it('forgets a worker that is gone', async () => {
  await ready(run());
  process.kill(running().workers[0]!.pid, 'SIGKILL');
  await until('no worker', () => running().workers.length === 0);
});

it('ends a service by force that does not heed SIGTERM', async () => {
  const deaf = run({ DEAF: 'content-core' });
  await ready(deaf);
  const { pid } = running().services['content-core']!;
  deaf.child.kill('SIGINT');
  expect(await deaf.exited).toBe(0);
  expect(deaf.output).toContain('content-core did not end in 1 s and is ended by force');
  expect(isAlive(pid)).toBe(false);
});

it('takes over after a kill -9 with its data, and nothing outlives the killed one', async () => {
  const killed = run({}, true);
  await ready(killed);
  const before = running();
  await inDatabase(before.databaseUrl, 'create table kept as select 42 as answer');
  killed.child.kill('SIGKILL');
  await killed.exited;

  const next = run({}, true);
  await ready(next);
  expect(next.output).toContain('The last run was killed');
  expect(pidsOf(before).filter(isAlive)).toEqual([]);
  await expect(connects(Number(new URL(before.databaseUrl).port))).resolves.toBe(false);
  await expect(connects(Number(new URL(before.redisUrl).port))).resolves.toBe(false);
  expect(await inDatabase(running().databaseUrl, 'select answer from kept')).toEqual([{ answer: 42 }]);
});

it('starts a killed Postgres again on the same port', async () => {
  const started = run({}, true);
  await ready(started);
  const { databaseUrl } = running();
  const pidFile = path.join(folder, 'home/postgres/data/postmaster.pid');
  process.kill(Number(fs.readFileSync(pidFile, 'utf8').split('\n')[0]), 'SIGKILL');
  await until('Postgres again', () => started.output.includes('Postgres is ready again'));
  expect(await inDatabase(databaseUrl, 'select 1 as one')).toEqual([{ one: 1 }]);
});

it('ends Postgres and Redis by itself when it is killed and nothing is started after it', async () => {
  const killed = run({}, true);
  await ready(killed);
  const { databaseUrl, redisUrl } = running();
  killed.child.kill('SIGKILL');
  await until('all gone', async () => {
    const open = await Promise.all([databaseUrl, redisUrl].map((url) => connects(Number(new URL(url).port))));
    return !open.includes(true);
  });
});

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(true));
    socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
  });
}

async function inDatabase(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows as unknown[];
  } finally {
    await client.end();
  }
}
