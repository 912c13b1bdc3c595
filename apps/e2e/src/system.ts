import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** The repository; e2e runs start where jest's root is. */
export const ROOT = resolve('.');

/** What `.atomo/run.json` holds while Atomo runs. */
export interface RunFile {
  readonly services: Readonly<
    Record<'content-core' | 'sync-gateway' | 'autoscaler', { url: string; pid: number; log: string }>
  >;
  readonly workers: readonly { pid: number; url: string }[];
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly memoryUri: string;
}

/** Atomo, started the way a user starts it, in a home of its own. */
export interface RunningSystem {
  readonly home: string;
  /** Everything `npm start` has printed so far. */
  output(): string;
  run(): RunFile;
  /** Ctrl-C; answers the exit code. */
  stop(): Promise<number | null>;
  /** Kills the supervisor without a word. */
  kill(): Promise<void>;
  /** Starts it again in the same home and on the same ports. Answers the milliseconds to `Atomo is ready`. */
  restart(): Promise<number>;
  /** The environment it runs in, for other commands that should meet it. */
  readonly environment: NodeJS.ProcessEnv;
}

/** A first start installs nothing here, but initialises Postgres and builds what changed. */
const READY_MS = 120_000;

/** Starts Atomo with `npm start` and answers once it has printed `Atomo is ready`. */
export async function startSystem(): Promise<RunningSystem> {
  const home = join(mkdtempSync(join(tmpdir(), 'atomo-e2e-')), '.atomo');
  const [core, gateway, autoscaler, worker] = await freePorts(4);
  const environment: NodeJS.ProcessEnv = {
    ...process.env,
    ATOMO_HOME: home,
    CONTENT_CORE_PORT: String(core),
    SYNC_GATEWAY_PORT: String(gateway),
    AUTOSCALER_PORT: String(autoscaler),
    WORKER_PORT: String(worker),
  };
  // Its own Postgres and Redis, as on a fresh clone.
  delete environment['DATABASE_URL'];
  delete environment['REDIS_URL'];
  let child: ChildProcess;
  let output = '';
  const start = async (): Promise<number> => {
    const started = performance.now();
    output = '';
    child = spawn('npm', ['start'], { cwd: ROOT, env: environment, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    child.stdout!.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr!.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await printed(child, () => output, 'Atomo is ready');
    return performance.now() - started;
  };
  const ended = () =>
    child.exitCode !== null
      ? Promise.resolve(child.exitCode)
      : new Promise<number | null>((done) => child.once('exit', done));
  await start();
  return {
    home,
    environment,
    output: () => output,
    run: () => JSON.parse(readFileSync(join(home, 'run.json'), 'utf8')) as RunFile,
    // A terminal's Ctrl-C reaches the whole group: npm, its shell and the supervisor.
    stop: () => {
      process.kill(-child.pid!, 'SIGINT');
      return ended();
    },
    kill: async () => {
      process.kill(-child.pid!, 'SIGKILL');
      await ended();
    },
    restart: start,
  };
}

/** Stops the system and deletes its home. */
export async function removeSystem(system: RunningSystem): Promise<void> {
  await system.stop();
  rmSync(resolve(system.home, '..'), { recursive: true, force: true });
}

/** Runs a command to its end. */
export function runCommand(
  command: string,
  args: string[],
  environment: NodeJS.ProcessEnv,
): Promise<{ code: number | null; output: string }> {
  const child = spawn(command, args, { cwd: ROOT, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  return new Promise((done, failed) => {
    child.once('error', failed);
    child.once('close', (code) => done({ code, output }));
  });
}

function printed(child: ChildProcess, output: () => string, line: string): Promise<void> {
  return new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Error(`no "${line}" within ${READY_MS} ms:\n${output()}`)), READY_MS);
    const look = () => {
      if (!output().split('\n').includes(line)) return;
      clearTimeout(timer);
      done();
    };
    child.stdout!.on('data', look);
    child.once('exit', (code) => {
      clearTimeout(timer);
      failed(new Error(`npm start ended with ${code}:\n${output()}`));
    });
  });
}

/** Below those that the system gives to whoever asks for any: nobody is given them while Atomo is down between two starts. */
async function freePorts(count: number): Promise<number[]> {
  const servers = new Map<number, Server>();
  while (servers.size < count) {
    const port = randomInt(10_240, 32_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((done) => {
      server.once('error', () => done(false));
      server.listen(port, '127.0.0.1', () => done(true));
    });
    if (isFree) servers.set(port, server);
  }
  await Promise.all([...servers.values()].map((server) => new Promise((done) => server.close(done))));
  return [...servers.keys()];
}
