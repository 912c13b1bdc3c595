import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { sleep } from '@atomo-cc/kernel';
import { writeWhole, type Home } from './home.js';
import type { ProvidedPostgres } from './postgres.js';
import { commandLineOf } from './postgres-place.js';
import { reasonOf, Refusal } from './refusal.js';
import type { ProvidedRedis } from './redis.js';
import type { Registered, Roster } from './roster.js';
import { askHealth, ServiceProcess, type ServiceSpec } from './service-process.js';

/** How long processes of a killed run may take to end by themselves once they see that its socket is closed. */
const LEFT_BEHIND_LIMIT_MS = 15_000;
/** How long the first worker may take: the autoscaler decides on its rhythm, then the worker boots. */
const WORKER_LIMIT_MS = 60_000;
/** Workers that outlive their autoscaler get this long after SIGTERM. */
const WORKER_STOP_LIMIT_MS = 10_000;
/** A dead Postgres or Redis is started again at once, then with growing pauses. */
const SERVER_RESTART_MS = [200, 1_000, 2_000, 5_000, 10_000];
const POLL_MS = 100;

/** What a supervisor runs; the table of services is a parameter, so that it can be driven with others in tests. */
export interface SupervisorPlan {
  readonly home: Home;
  readonly roster: Roster;
  readonly services: readonly ServiceSpec[];
  /** The workers belong to the autoscaler; they are known by the name they register with. */
  readonly workers: { name: string; entry: string; portVariable: string; port: number; expected: number };
  /** The address whose ports must be free. */
  readonly host: string;
  readonly node: string;
  readonly cwd: string;
  readonly memoryUri: string;
  /** Starts, or starts again on the same port. */
  readonly postgres: (port?: number) => Promise<ProvidedPostgres>;
  readonly redis: (port?: number) => Promise<ProvidedRedis>;
  /** The environment of the services, once the two URLs are known. */
  readonly environment: (databaseUrl: string, redisUrl: string) => Record<string, string>;
  readonly say: (line: string) => void;
}

/** Where everything runs: what `run.json` holds. */
export interface RunningSystem {
  readonly pid: number;
  readonly services: Readonly<Record<string, { url: string; pid: number; log: string }>>;
  readonly workers: readonly { pid: number; url: string }[];
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly memoryUri: string;
}

type Server = ProvidedPostgres | ProvidedRedis;

/**
 * Runs Postgres, Redis and the services of a plan as one: all of them or none, started again when one dies, stopped in
 * order. `run.json` in the home is true from ready to stop, and is not there before or after.
 */
export class Supervisor {
  readonly #plan: SupervisorPlan;
  readonly #abort = new AbortController();
  readonly #services: ServiceProcess[] = [];
  readonly #servers = new Map<'Postgres' | 'Redis', Server>();
  readonly #runFile: string;
  #ready = false;
  #forced = false;
  #stopping: Promise<void> | undefined;
  #providing: Promise<unknown> = Promise.resolve();
  #restarts = Promise.resolve();

  constructor(plan: SupervisorPlan) {
    this.#plan = plan;
    this.#runFile = path.join(plan.home.folder, 'run.json');
    plan.roster.onChange(() => this.#publish());
  }

  /**
   * Starts everything and waits until all of it answers as ready.
   * @throws Refusal in one sentence; the caller then calls {@link stop}. Also throws when it was stopped meanwhile.
   */
  async start(): Promise<RunningSystem> {
    const plan = this.#plan;
    const { signal } = this.#abort;
    await this.#settleLeftBehind();
    fs.rmSync(this.#runFile, { force: true });
    await this.#requireFreePorts();

    const providing = this.#provideBoth();
    this.#providing = providing;
    const [postgres, redis] = await providing;
    signal.throwIfAborted();
    const env = plan.environment(postgres.url, redis.url);
    for (const spec of plan.services) {
      const logFile = path.join(plan.home.logs, `${spec.name}.log`);
      const changed = () => this.#publish();
      this.#services.push(
        new ServiceProcess(spec, { node: plan.node, cwd: plan.cwd, env, logFile, say: plan.say, changed }),
      );
    }
    plan.say(`Starting ${plan.services.map((spec) => spec.name).join(', ')}`);
    for (const service of this.#services) service.start();
    await Promise.all(this.#services.map((service) => service.untilReady(signal)));
    await this.#untilWorkersReady();
    signal.throwIfAborted();
    this.#ready = true;
    this.#publish();
    this.#keep('Postgres', plan.postgres);
    this.#keep('Redis', plan.redis);
    return this.#running();
  }

  /** Stops everything in order and keeps the data; a second call with `now` cuts all waits short. */
  stop(now = false): Promise<void> {
    this.#abort.abort(new Refusal('Stopped while starting.'));
    if (now && !this.#forced) {
      this.#forced = true;
      for (const service of this.#services) void service.stop(true);
      for (const server of this.#servers.values()) void server.stop(true);
    }
    return (this.#stopping ??= this.#stopInOrder());
  }

  async #stopInOrder(): Promise<void> {
    const { roster, workers } = this.#plan;
    this.#ready = false;
    fs.rmSync(this.#runFile, { force: true });
    // The autoscaler drains its workers when it is told to stop, and all of them still need Postgres and Redis.
    await Promise.all(this.#services.map((service) => service.stop(this.#forced)));
    await endAll(() => roster.registered(workers.name), this.#forced ? 0 : WORKER_STOP_LIMIT_MS);
    await roster.close();
    // Whatever is just coming up is there to be stopped once it is up.
    await Promise.allSettled([this.#providing, this.#restarts]);
    await Promise.all([...this.#servers.values()].map((server) => server.stop(this.#forced)));
  }

  /** Both or none: one that came up beside one that failed is there to be stopped. */
  async #provideBoth(): Promise<[ProvidedPostgres, ProvidedRedis]> {
    const plan = this.#plan;
    const keep = <Provided extends Server>(name: 'Postgres' | 'Redis', server: Provided): Provided => {
      this.#servers.set(name, server);
      plan.say(server.description);
      return server;
    };
    const [postgres, redis] = await Promise.allSettled([
      plan.postgres().then((server) => keep('Postgres', server)),
      plan.redis().then((server) => keep('Redis', server)),
    ]);
    if (postgres.status === 'rejected') throw postgres.reason;
    if (redis.status === 'rejected') throw redis.reason;
    return [postgres.value, redis.value];
  }

  /** Starts a Postgres or Redis of ours again on its port when it dies. */
  #keep(name: 'Postgres' | 'Redis', provide: (port?: number) => Promise<Server>): void {
    const server = this.#servers.get(name);
    void server?.exited?.then((how) => {
      if (this.#abort.signal.aborted) return;
      this.#plan.say(`${name} ended (${how}), starting it again`);
      this.#restarts = this.#restarts.then(() => this.#startAgain(name, provide, server.port));
    });
  }

  async #startAgain(
    name: 'Postgres' | 'Redis',
    provide: (port?: number) => Promise<Server>,
    port?: number,
  ): Promise<void> {
    for (let attempt = 0; !this.#abort.signal.aborted; attempt += 1) {
      await sleep(SERVER_RESTART_MS[Math.min(attempt, SERVER_RESTART_MS.length - 1)]!, this.#abort.signal);
      if (this.#abort.signal.aborted) return;
      try {
        this.#servers.set(name, await provide(port));
        this.#plan.say(`${name} is ready again`);
        return this.#keep(name, provide);
      } catch (error) {
        this.#plan.say(`${name} could not be started again: ${reasonOf(error)}`);
      }
    }
  }

  async #untilWorkersReady(): Promise<void> {
    const { roster, workers, home } = this.#plan;
    const { signal } = this.#abort;
    const deadline = performance.now() + WORKER_LIMIT_MS;
    let health = 'none has registered';
    for (;;) {
      const registered = roster.registered(workers.name);
      const answers = await Promise.all(registered.map((worker) => askHealth(worker.url, signal)));
      if (answers.filter((answer) => answer === 'ready').length >= workers.expected) return;
      signal.throwIfAborted();
      health = answers.find((answer) => answer !== 'ready') ?? health;
      if (performance.now() > deadline) {
        throw new Refusal(
          `No ${workers.name} was ready after ${WORKER_LIMIT_MS / 1000} s (${health}). Logs: ${home.logs}`,
        );
      }
      await sleep(POLL_MS, signal);
    }
  }

  async #requireFreePorts(): Promise<void> {
    const { services, workers, host, roster } = this.#plan;
    // After a crash the old processes may need a moment more than their ids tell.
    const deadline = performance.now() + (roster.afterCrash ? LEFT_BEHIND_LIMIT_MS : 0);
    const wanted = [...services, ...(workers.expected > 0 ? [workers] : [])];
    for (const { name, port, portVariable } of wanted) {
      const twin = wanted.find((other) => other.name !== name && other.port === port);
      if (twin)
        throw new Refusal(
          `${name} and ${twin.name} are both given port ${port}: change ${portVariable} or ${twin.portVariable}.`,
        );
      for (;;) {
        const fault = await portFault(port, host);
        this.#abort.signal.throwIfAborted();
        if (!fault) break;
        if (performance.now() > deadline) {
          throw new Refusal(
            `Port ${port} of ${name} ${fault}: stop the program that uses it, or choose another port with ${portVariable}, for instance ${portVariable}=${port + 1000} npm start.`,
          );
        }
        await sleep(POLL_MS, this.#abort.signal);
      }
    }
  }

  /** Waits for the processes of a killed run, which end by themselves, and ends those that do not. */
  async #settleLeftBehind(): Promise<void> {
    const { services, workers, say, roster } = this.#plan;
    if (!roster.afterCrash) return;
    say('The last run was killed; clearing up after it');
    let old: Partial<RunningSystem> = {};
    try {
      old = JSON.parse(fs.readFileSync(this.#runFile, 'utf8')) as RunningSystem;
    } catch {
      // Killed before it was ready: the ports tell.
    }
    const entries = [...services.map((spec) => spec.entry), workers.entry];
    const isOurs = ({ pid }: { pid: number }) => {
      const command = commandLineOf(pid);
      return command !== undefined && entries.some((entry) => command.includes(entry));
    };
    const all = [...Object.values(old.services ?? {}), ...(old.workers ?? [])];
    const deadline = performance.now() + LEFT_BEHIND_LIMIT_MS;
    while (all.some(isOurs) && performance.now() < deadline) await sleep(POLL_MS, this.#abort.signal);
    for (const { pid } of all.filter(isOurs)) signalIfThere(pid, 'SIGKILL');
  }

  #running(): RunningSystem {
    const { roster, workers, memoryUri } = this.#plan;
    return {
      pid: process.pid,
      services: Object.fromEntries(
        this.#services.map(({ spec, url, pid, run }) => [spec.name, { url, pid, log: run.logFile }]),
      ),
      workers: roster.registered(workers.name).map(({ pid, url }) => ({ pid, url })),
      databaseUrl: this.#servers.get('Postgres')!.url,
      redisUrl: this.#servers.get('Redis')!.url,
      memoryUri,
    };
  }

  #publish(): void {
    if (this.#ready) writeWhole(this.#runFile, this.#running());
  }
}

/** What keeps a port from being listened on; undefined when nothing does. */
export async function portFault(port: number, host: string): Promise<string | undefined> {
  // A program that listens on all addresses does not keep us from listening on one of them on every system.
  const answered = await new Promise<boolean>((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(true));
    socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
  });
  if (answered) return 'is taken';
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code === 'EADDRINUSE' ? 'is taken' : `cannot be used (${reasonOf(error)})`),
    );
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}

async function endAll(list: () => readonly Registered[], limitMs: number): Promise<void> {
  for (const { pid } of list()) signalIfThere(pid, 'SIGTERM');
  const deadline = performance.now() + limitMs;
  while (list().length > 0 && performance.now() < deadline) await sleep(POLL_MS);
  for (const { pid } of list()) signalIfThere(pid, 'SIGKILL');
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
