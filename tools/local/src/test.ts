import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { readConfig, type LocalConfig } from './config.js';
import { endOf, settles } from './guarded.js';
import { Refusal, runCommand } from './refusal.js';
import { startTestServers, type TestServers } from './throw-away.js';
import { addUp, emptyTally, lastLine, type JestResult, type Tally } from './tally.js';

/** Variables that would send the tests, or the system they start, to data of the user. */
const NOT_FOR_TESTS = [
  'DATABASE_URL',
  'REDIS_URL',
  'MEMORY_URI',
  'ATOMO_HOME',
  'ATOMO_SERVICE',
  'ADMIN_EMAIL',
  'ADMIN_PASSWORD',
  'GATEWAY_MASTER_KEY',
  'CONTENT_CORE_PORT',
  'SYNC_GATEWAY_PORT',
  'AUTOSCALER_PORT',
  'WORKER_PORT',
];
/** Each has a numbered database of the test Redis, from 1; Redis has 16. */
const MOST_WORKERS = 15;
/** What runs gets this long to end after a signal before its servers are taken away. */
const INTERRUPT_LIMIT_MS = 10_000;

await runCommand(async () => {
  const config = readConfig();
  const given = process.argv.slice(2);
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => interrupted.abort(signal));
  // bootstrap was killed: nobody waits for a result any more.
  if (process.channel) {
    process.once('disconnect', () => interrupted.abort('SIGTERM'));
    process.channel.unref();
  }

  let tally = emptyTally();
  // With arguments of one's own one works on something: only jest runs.
  if (given.length === 0 && !(await checked(config, interrupted.signal))) tally = { ...tally, failed: 1 };

  let servers: TestServers | undefined;
  try {
    if (!interrupted.signal.aborted) {
      servers = await startTestServers(config, (line) => console.log(line));
      const env = testEnvironment(config, servers);
      const rounds =
        given.length > 0
          ? [given]
          : [
              ['--selectProjects', 'unit', 'int'],
              ['--selectProjects', 'e2e', '--runInBand'],
            ];
      for (const args of rounds) tally = addUp(tally, await jest(config, args, env, interrupted.signal));
    }
  } catch (error) {
    console.error(error instanceof Refusal ? error.message : error);
    tally = { ...tally, failed: tally.failed + 1 };
  } finally {
    await servers?.stop();
  }
  if (interrupted.signal.aborted) console.log('The tests were interrupted.');
  console.log(lastLine(tally));
  return tally.failed > 0 || interrupted.signal.aborted ? 1 : 0;
});
process.exit();

/** Runs `npm run check`: format, lint, boundaries, types. A fault in it counts as one failed test and stops nothing. */
async function checked(config: LocalConfig, signal: AbortSignal): Promise<boolean> {
  const npm = config.npm;
  const [program, ...before] = npm && /\.[cm]?js$/.test(npm) ? [process.execPath, npm] : ['npm'];
  console.log('npm run check');
  const ended = await run(program, [...before, 'run', '--silent', 'check'], config, config.environment, signal);
  if (ended === 'exit code 0') return true;
  console.error(`npm run check failed (${ended}); the tests run nevertheless.`);
  return false;
}

async function jest(
  config: LocalConfig,
  args: string[],
  env: Record<string, string>,
  signal: AbortSignal,
): Promise<Tally> {
  if (signal.aborted) return emptyTally();
  const results = path.join(os.tmpdir(), `atomo-jest-${process.pid}.json`);
  const workers = Math.min(Math.max(2, os.availableParallelism() - 1), MOST_WORKERS);
  const more = [
    '--passWithNoTests',
    '--json',
    `--outputFile=${results}`,
    ...(args.includes('--runInBand') ? [] : [`--maxWorkers=${workers}`]),
  ];
  console.log(`jest ${args.join(' ')}`);
  try {
    const script = path.join(config.root, 'node_modules', 'jest', 'bin', 'jest.js');
    const ended = await run(process.execPath, [script, ...more, ...args], config, env, signal, 'silent');
    const result = JSON.parse(fs.readFileSync(results, 'utf8')) as JestResult;
    const tally = addUp(emptyTally(), result);
    // Jest can fail without a failed test: coverage, a broken set-up of a project, an open handle.
    return ended !== 'exit code 0' && tally.failed === 0 ? { ...tally, failed: 1 } : tally;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    // Jest did not come as far as to write its results.
    return { ...emptyTally(), failed: 1 };
  } finally {
    fs.rmSync(results, { force: true });
  }
}

/** Runs a child to its end, in a group of its own so that it is ended whole when the run is interrupted. */
async function run(
  program: string,
  args: string[],
  config: LocalConfig,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal,
  stdout: 'shown' | 'silent' = 'shown',
): Promise<string> {
  const child = spawn(program, args, {
    cwd: config.root,
    env,
    stdio: ['ignore', stdout === 'shown' ? 'inherit' : 'ignore', 'inherit'],
  });
  const ended = endOf(child);
  const interrupt = () => {
    child.kill('SIGINT');
    void settles(ended, INTERRUPT_LIMIT_MS).then((inTime) => inTime || child.kill('SIGKILL'));
  };
  signal.addEventListener('abort', interrupt, { once: true });
  const how = await ended;
  signal.removeEventListener('abort', interrupt);
  if (how.includes('ENOENT')) throw new Refusal(`${program} could not be started: ${how}.`);
  return how;
}

function testEnvironment(config: LocalConfig, servers: TestServers): Record<string, string> {
  return {
    ...config.environment,
    // Blank rather than left out: what is set, though blank, is not filled from .env by what the tests start.
    ...Object.fromEntries(NOT_FOR_TESTS.map((name) => [name, ''])),
    ATOMO_TEST_DATABASE_URL: servers.databaseUrl,
    ATOMO_TEST_REDIS_URL: servers.redisUrl,
  };
}
