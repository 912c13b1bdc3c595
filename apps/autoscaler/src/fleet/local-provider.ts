import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import path from 'node:path';
import { sleep } from '@atomo-cc/kernel';
import { BEAT_TTL_MS, type RegisteredWorker } from '@atomo-cc/platform/workers';
import type { Ledger } from './ledger.js';
import { identifyProcess, type ProcessIdentity } from './process-identity.js';
import { fleetError, type Ending, type Instance, type WorkerProvider } from './provider.js';

/** An empty worker ends in milliseconds; one that has not ended after this hangs and is ended by force. */
const STOP_LIMIT_MS = 30_000;
/**
 * How long the autoscaler waits for its workers when it is stopped itself: time to finish a chunk. Those that need longer
 * have their SIGTERM and end by themselves; they are never ended by force, for they may be busy.
 */
const CLOSE_LIMIT_MS = 8_000;
/** How often a process that is not our child is looked at; a look costs a few microseconds. */
const WATCH_MS = 250;

/** How much of a log is read for its last line, and how much of that line is shown. */
const LAST_WORDS_BYTES = 4_096;
const LAST_WORDS_SHOWN = 300;

/** How to run a worker as a process of this machine. */
export interface LocalProviderOptions {
  /** The program, run by this process's own Node. */
  readonly script: string;
  /** The port of the first worker; others, and the first when it is taken, get free ones. */
  readonly firstPort: number;
  /** The address that workers listen on. */
  readonly host: string;
  /** Handed on to workers, with WORKER_PORT set. */
  readonly environment: Readonly<Record<string, string>>;
  /** Where `worker-<port>.log` goes; without it workers write to our own output. */
  readonly logs: string | undefined;
  /** Remembers what was started beyond our own death. */
  readonly ledger: Ledger;
}

interface Process {
  readonly identity: ProcessIdentity;
  readonly port: number | null;
  readonly startedAt: number;
  readonly log: string;
  /** How long its log was when it was started, in bytes: what stands before is another worker's. */
  readonly logBegin: number;
  /** Our own child: its exit event tells when and how it ended, so it need not be watched. */
  readonly isChild: boolean;
  stopBy: number | null;
}

/**
 * Runs workers as processes of this machine. They are detached, so they outlive a killed autoscaler; the next one finds
 * them through the ledger and through the registry. A process is signalled only after it was identified as the very one
 * that was started or adopted: process ids are used again.
 */
export class LocalProvider implements WorkerProvider {
  readonly kind = 'local';
  readonly canAct = true;
  private readonly processes = new Map<string, Process>();
  private readonly ended: Ending[] = [];
  /** Process ids of workers that ended lately; the heartbeat of a killed one outlasts it by seconds. */
  private readonly gone = new Set<number>();
  private listener: () => void = () => undefined;
  private isAdopting: Promise<void> | undefined;
  private readonly watch: NodeJS.Timeout;

  constructor(private readonly options: LocalProviderOptions) {
    this.watch = setInterval(() => void this.look().catch(() => undefined), WATCH_MS);
  }

  onChange(listener: () => void): void {
    this.listener = listener;
  }

  endings(): Ending[] {
    return this.ended.splice(0);
  }

  instanceOf(worker: RegisteredWorker): string | null {
    return worker.host === hostname() && this.processes.has(String(worker.pid)) ? String(worker.pid) : null;
  }

  endedInstanceOf(worker: RegisteredWorker): string | null {
    const id = String(worker.pid);
    return worker.host === hostname() && this.gone.has(worker.pid) && !this.processes.has(id) ? id : null;
  }

  async list(registered: readonly RegisteredWorker[]): Promise<Instance[]> {
    // Two calls at once would adopt the same process twice.
    this.isAdopting = (this.isAdopting ?? Promise.resolve()).catch(() => undefined).then(() => this.adopt(registered));
    await this.isAdopting;
    await this.look();
    return [...this.processes].map(([id, each]) => ({ id, startedAt: each.startedAt, stopping: each.stopBy !== null }));
  }

  async start(): Promise<Instance> {
    const port = await this.choosePort();
    const log = this.options.logs === undefined ? undefined : path.join(this.options.logs, `worker-${port}.log`);
    let output: number | 'inherit' = 'inherit';
    let logBegin = 0;
    if (log !== undefined) {
      mkdirSync(path.dirname(log), { recursive: true });
      output = openSync(log, 'a', 0o600);
      logBegin = fstatSync(output).size;
    }
    const child = spawn(process.execPath, [this.options.script], {
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...this.options.environment, WORKER_PORT: String(port) },
    });
    if (typeof output === 'number') closeSync(output);
    // Listened to from the start: a script that ends at once may do so before it can be looked up.
    const exited = new Promise<string>((resolve) => {
      child.once('exit', (code, signal) => resolve(signal ? `signal ${signal}` : `exit code ${code}`));
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', () => resolve());
      child.once('error', (error) =>
        reject(fleetError('FLEET_START_FAILED', `No worker can be started: ${error.message}.`, error)),
      );
    });
    child.unref();
    const pid = child.pid!;
    const id = String(pid);
    const identity = await identifyProcess(pid);
    const startedAt = Date.now();
    const where = log ?? 'our own output';
    if (!identity)
      throw fleetError(
        'FLEET_START_FAILED',
        `The worker ended at once (${await exited}); its log: ${where}${lastWords(where, logBegin)}.`,
      );
    this.processes.set(id, { identity, port, startedAt, log: where, logBegin, isChild: true, stopBy: null });
    void exited.then((how) => this.forget(id, how));
    // Lost when Redis goes away just now; then the worker is adopted by what it says in the registry.
    await this.options.ledger.write(id, { pid, start: identity.start, port, startedAt }).catch(() => undefined);
    return { id, startedAt, stopping: false };
  }

  async stop(id: string): Promise<void> {
    const found = this.processes.get(id);
    if (!found || !(await this.signal(found, 'SIGTERM'))) {
      throw fleetError('FLEET_WORKER_GONE', `Process ${id} is not a worker of this autoscaler, or has ended.`);
    }
    found.stopBy ??= Date.now() + STOP_LIMIT_MS;
  }

  async close(leads: boolean): Promise<void> {
    clearInterval(this.watch);
    if (!leads) return;
    const deadline = Date.now() + CLOSE_LIMIT_MS;
    await Promise.all([...this.processes.values()].map((each) => this.signal(each, 'SIGTERM')));
    while (this.processes.size > 0 && Date.now() < deadline) {
      await sleep(WATCH_MS / 5);
      await this.look();
    }
  }

  /** Notices what has ended, and ends by force what was told to stop and hangs. */
  private async look(): Promise<void> {
    for (const [id, each] of this.processes) {
      if (!each.isChild && !(await this.isSame(each))) this.forget(id, 'it is no longer there');
      else if (each.stopBy !== null && Date.now() > each.stopBy) await this.signal(each, 'SIGKILL');
    }
  }

  /** Takes over the workers that another autoscaler of this machine started: by the ledger, or when that is lost by the registry. */
  private async adopt(registered: readonly RegisteredWorker[]): Promise<void> {
    const known = await this.options.ledger.read();
    for (const [id, entry] of known) {
      if (this.processes.has(id)) continue;
      const identity = await this.ours(entry.pid);
      if (identity?.start === entry.start) this.take(identity, entry.port, entry.startedAt);
      else await this.options.ledger.erase(id);
    }
    for (const worker of registered) {
      if (worker.host !== hostname() || this.processes.has(String(worker.pid))) continue;
      const identity = await this.ours(worker.pid);
      if (identity) this.take(identity, portOf(worker.url), worker.startedAt);
      else if (!(await identifyProcess(worker.pid))) this.setGone(worker.pid);
    }
  }

  private take(identity: ProcessIdentity, port: number | null, startedAt: number): void {
    const log = port !== null && this.options.logs ? path.join(this.options.logs, `worker-${port}.log`) : 'unknown';
    this.processes.set(String(identity.pid), {
      identity,
      port,
      startedAt,
      log,
      logBegin: 0,
      isChild: false,
      stopBy: null,
    });
  }

  /** The process with this id if it runs our worker's program. */
  private async ours(pid: number): Promise<ProcessIdentity | null> {
    const identity = await identifyProcess(pid);
    return identity && ` ${identity.command} `.includes(` ${this.options.script} `) ? identity : null;
  }

  private async isSame(found: Process): Promise<boolean> {
    return (await identifyProcess(found.identity.pid))?.start === found.identity.start;
  }

  /** @returns whether the process was there to be signalled */
  private async signal(found: Process, name: NodeJS.Signals): Promise<boolean> {
    if (!(await this.isSame(found))) return false;
    try {
      return process.kill(found.identity.pid, name);
    } catch {
      return false;
    }
  }

  private forget(id: string, how: string): void {
    const found = this.processes.get(id);
    if (!found) return;
    this.processes.delete(id);
    this.setGone(found.identity.pid);
    this.ended.push({
      id,
      how: `${how}; its log: ${found.log}${/^exit code [1-9]/.test(how) ? lastWords(found.log, found.logBegin) : ''}`,
    });
    void this.options.ledger.erase(id).catch(() => undefined);
    this.listener();
  }

  private setGone(pid: number): void {
    this.gone.add(pid);
    setTimeout(() => this.gone.delete(pid), 2 * BEAT_TTL_MS).unref();
  }

  private async choosePort(): Promise<number> {
    const { firstPort, host } = this.options;
    const taken = new Set([...this.processes.values()].map((each) => each.port));
    if (!taken.has(firstPort) && (await freePort(firstPort, host)) === firstPort) return firstPort;
    for (;;) {
      const port = await freePort(0, host);
      // The system may offer a port again that a worker was given and does not listen on yet.
      if (port !== null && !taken.has(port)) return port;
    }
  }
}

/** `port`, or any free one for 0; null when it is taken. */
function freePort(port: number, host: string): Promise<number | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen(port, host, () => {
      const { port: found } = server.address() as AddressInfo;
      server.close(() => resolve(found));
    });
  });
}

function portOf(url: string): number | null {
  const port = URL.canParse(url) ? Number(new URL(url).port) : 0;
  return port > 0 ? port : null;
}

/** The last line that a worker wrote, with a comma before it: a boot that fails says there what to mend. */
function lastWords(log: string, begin: number): string {
  let file: number | undefined;
  try {
    file = openSync(log, 'r');
    const from = Math.max(begin, fstatSync(file).size - LAST_WORDS_BYTES);
    const tail = Buffer.alloc(LAST_WORDS_BYTES);
    const line =
      tail
        .toString('utf8', 0, readSync(file, tail, 0, LAST_WORDS_BYTES, from))
        .trim()
        .split('\n')
        .at(-1) ?? '';
    return line === '' ? '' : `, whose last line is: ${line.slice(0, LAST_WORDS_SHOWN)}`;
  } catch {
    return '';
  } finally {
    if (file !== undefined) closeSync(file);
  }
}
