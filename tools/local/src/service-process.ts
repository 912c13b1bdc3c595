import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { sleep } from '@atomo-cc/kernel';
import { endOf, killGroup, readFrom, settles } from './guarded.js';
import { reasonOf, Refusal } from './refusal.js';

/** How long a service may take to become ready: the first start migrates, on a slow machine with cold disks. */
const READY_LIMIT_MS = 120_000;
const POLL_MS = 100;
const HEALTH_LIMIT_MS = 3_000;
/** The first restart is at once; one that keeps dying waits longer each time, up to this. */
const RESTART_FIRST_MS = 200;
const RESTART_MAX_MS = 30_000;
/** Having lived this long, a service has recovered: its next death is a first one again. */
const RECOVERED_AFTER_MS = 20_000;
/** An older log beyond this is put aside at a start, one generation. */
const LOG_LIMIT_BYTES = 20 * 1024 * 1024;

/** One service of the table: what runs and where. */
export interface ServiceSpec {
  readonly name: string;
  /** The script that Node runs. */
  readonly entry: string;
  readonly port: number;
  /** The environment variable that chooses the port. */
  readonly portVariable: string;
  /** For the table shown to the user. */
  readonly purpose: string;
  /** How long it may take to end after SIGTERM, in milliseconds. */
  readonly stopLimitMs: number;
}

/** What a {@link ServiceProcess} is run with. */
export interface ServiceRun {
  readonly node: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  readonly say: (line: string) => void;
  /** Called when the process id changes. */
  readonly changed: () => void;
}

/** A service of ours, kept running: started anew when it dies, until it is stopped. */
export class ServiceProcess {
  readonly url: string;
  pid = 0;
  #state: 'booting' | 'kept' | 'stopping' = 'booting';
  #exited: Promise<string> = Promise.resolve('not started');
  #deaths = 0;
  #logBegin = 0;
  readonly #stopped = new AbortController();

  constructor(
    readonly spec: ServiceSpec,
    readonly run: ServiceRun,
  ) {
    this.url = `http://127.0.0.1:${spec.port}`;
    rotate(run.logFile);
  }

  /** Starts the process. */
  start(): void {
    const log = fs.openSync(this.run.logFile, 'a', 0o600);
    this.#logBegin = fs.fstatSync(log).size;
    const startedAt = performance.now();
    const child: ChildProcess = spawn(this.run.node, ['--disable-warning=ExperimentalWarning', this.spec.entry], {
      cwd: this.run.cwd,
      env: this.run.env,
      stdio: ['ignore', log, log],
      // A group of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops things in order.
      detached: true,
    });
    fs.closeSync(log);
    this.pid = child.pid ?? 0;
    this.#exited = endOf(child);
    void this.#exited.then((how) => {
      if (this.#state === 'kept') void this.#restart(how, performance.now() - startedAt);
    });
    this.run.changed();
  }

  /**
   * Waits until it answers as ready; from then on it is kept running.
   * @throws Refusal when it ends before that or takes too long: its name, the last error of its log and the log's path
   */
  async untilReady(signal: AbortSignal): Promise<void> {
    const exited = this.#exited;
    let ended: string | undefined;
    void exited.then((how) => (ended = how));
    const deadline = performance.now() + READY_LIMIT_MS;
    for (;;) {
      const health = await askHealth(this.url, signal);
      signal.throwIfAborted();
      if (ended !== undefined) {
        throw new Refusal(
          `${this.spec.name} ended while starting (${ended}): ${this.#lastError()} Log: ${this.run.logFile}`,
        );
      }
      if (health === 'ready') break;
      if (performance.now() > deadline) {
        throw new Refusal(
          `${this.spec.name} was not ready after ${READY_LIMIT_MS / 1000} s (${health}). ${this.#lastError()} Log: ${this.run.logFile}`,
        );
      }
      await sleep(POLL_MS, signal);
    }
    this.#state = 'kept';
    // Died between its last answer and this line.
    if (ended !== undefined) void this.#restart(ended, 0);
  }

  /** Ends it by SIGTERM, and by force when it takes longer than its spec allows or `now` is set. */
  async stop(now = false): Promise<void> {
    this.#state = 'stopping';
    this.#stopped.abort();
    if (!this.pid) return;
    if (!now) {
      killGroup(this.pid, 'SIGTERM');
      if (await settles(this.#exited, this.spec.stopLimitMs)) return;
      this.run.say(`${this.spec.name} did not end in ${this.spec.stopLimitMs / 1000} s and is ended by force`);
    }
    killGroup(this.pid, 'SIGKILL');
    await this.#exited;
  }

  async #restart(how: string, livedMs: number): Promise<void> {
    this.#deaths = livedMs > RECOVERED_AFTER_MS ? 1 : this.#deaths + 1;
    const waitMs = Math.min(RESTART_MAX_MS, RESTART_FIRST_MS * 2 ** (this.#deaths - 1));
    const again =
      this.#deaths > 1
        ? ` for the ${this.#deaths}. time, starting it again in ${waitMs / 1000} s`
        : ', starting it again';
    // A signal comes from outside, so the log does not tell why.
    const why = how.startsWith('signal') ? '.' : `: ${this.#lastError()}`;
    this.run.say(`${this.spec.name} ended (${how})${again}${why} Log: ${this.run.logFile}`);
    await sleep(waitMs, this.#stopped.signal);
    if (this.#state === 'stopping') return;
    this.start();
    const exited = this.#exited;
    let ended = false;
    void exited.then(() => (ended = true));
    while (!ended && !this.#stopped.signal.aborted) {
      if ((await askHealth(this.url, this.#stopped.signal)) === 'ready') {
        this.run.say(`${this.spec.name} is ready again`);
        return;
      }
      await sleep(POLL_MS, this.#stopped.signal);
    }
  }

  #lastError(): string {
    const line = lastErrorOf(readFrom(this.run.logFile, this.#logBegin));
    return line ? `${line.replace(/[.\s]+$/, '')}.` : 'It wrote nothing.';
  }
}

/** Reads /health/ready: "ready", or why not in a few words. */
export async function askHealth(url: string, signal: AbortSignal): Promise<string> {
  try {
    const response = await fetch(`${url}/health/ready`, {
      signal: AbortSignal.any([signal, AbortSignal.timeout(HEALTH_LIMIT_MS)]),
    });
    const text = await response.text();
    return response.status === 200 ? 'ready' : `answers ${response.status}: ${text.slice(0, 300)}`;
  } catch (error) {
    return `no answer: ${reasonOf((error as Error).cause ?? error)}`;
  }
}

/**
 * The line of a log that tells best why its process ended: the last pino record of level error or above, else the last line
 * that speaks of an error and is no stack frame, else the last line, of a record its message.
 */
export function lastErrorOf(log: string): string | undefined {
  const lines = log.split('\n').filter((line) => line.trim());
  const records = lines.map(parseRecord);
  const failed = records.findLast((record) => (record?.level ?? 0) >= PINO_ERROR);
  if (failed) return messageOf(failed);
  const plain = lines.filter((line, index) => !records[index] && !/^\s*(at |\^|\}|Node\.js v)/.test(line));
  const told = plain.findLastIndex((line) => /error|fatal|fault|refuse|cannot|must/i.test(line));
  const last = records.at(-1);
  if (told < 0) return last ? messageOf(last) : lines.at(-1)?.trim();
  // A list of faults is a headline with indented lines below it: all of them belong together.
  const headline = plain.findLastIndex((line, index) => index <= told && !isIndented(line));
  const end = plain.findIndex((line, index) => index > told && !isIndented(line));
  return plain
    .slice(Math.max(headline, 0), end < 0 ? undefined : end)
    .slice(0, MAX_TOLD_LINES)
    .join('\n')
    .trim();
}

const isIndented = (line: string): boolean => /^\s/.test(line);

/** Faults that are shown on the console; the log has them all. */
const MAX_TOLD_LINES = 20;

const PINO_ERROR = 50;

interface LogRecord {
  readonly level?: number;
  readonly msg?: string;
  readonly err?: { message?: string };
}

function parseRecord(line: string): LogRecord | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as LogRecord;
  } catch {
    return undefined;
  }
}

function messageOf({ msg, err }: LogRecord): string {
  const parts = [...new Set([msg, err?.message])].filter(Boolean);
  return parts.join(': ').split('\n')[0]!;
}

function rotate(logFile: string): void {
  const size = fs.statSync(logFile, { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_LIMIT_BYTES) fs.renameSync(logFile, `${logFile}.1`);
}
