import { type ChildProcess, spawn } from 'node:child_process';
import net from 'node:net';
import path from 'node:path';
import { eventually, freePort } from '@atomo-cc/testing';

const MAIN = path.resolve('apps/sync-gateway/dist/main.js');
const START_LIMIT_MS = 60_000;

/** A gateway in a process of its own, as it is built, which can be killed. */
export class GatewayProcess {
  #child: ChildProcess | undefined;
  #output = '';

  private constructor(
    readonly port: number,
    private readonly environment: Readonly<Record<string, string>>,
  ) {}

  /** Starts one on a free port. */
  static async start(environment: Readonly<Record<string, string>>): Promise<GatewayProcess> {
    const started = new GatewayProcess(await freePort(), environment);
    await started.start();
    return started;
  }

  /** Starts it again on the same port, and resolves when it is ready. */
  async start(): Promise<void> {
    const child = spawn(process.execPath, [MAIN], {
      env: {
        PATH: process.env['PATH'],
        ATOMO_MODE: 'embedded',
        LOG_LEVEL: 'warn',
        SYNC_GATEWAY_PORT: String(this.port),
        ...this.environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (this.#output += String(chunk)));
    // A test run that ends in the middle leaves nothing behind.
    const sweep = () => child.kill('SIGKILL');
    process.once('exit', sweep);
    child.once('exit', () => process.off('exit', sweep));
    await eventually(
      'the gateway is ready',
      () => {
        if (!this.isRunning) throw new Error(`the gateway ended:\n${this.#output.slice(-2_000)}`);
        return fetch(`http://127.0.0.1:${this.port}/health/ready`).then(
          ({ ok }) => ok,
          () => false,
        );
      },
      START_LIMIT_MS,
    );
  }

  get isRunning(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  /** What it said last where it ended by itself; empty while it runs. */
  get lastWords(): string {
    return this.isRunning ? '' : this.#output.slice(-2_000) || 'it ended without a word';
  }

  /** kill -9; resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || !this.isRunning) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }
}

/** A plain balancer: each connection goes to the next one that takes it. */
export class Balancer {
  readonly #server: net.Server;
  readonly #open = new Set<net.Socket>();
  #next = 0;

  constructor(private readonly ports: readonly number[]) {
    this.#server = net.createServer((near) => {
      this.#keep(near);
      this.#forward(near, this.ports.length);
    });
  }

  /** Answers its URL. */
  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as net.AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #forward(near: net.Socket, triesLeft: number): void {
    if (triesLeft === 0) return void near.destroy();
    const far = net.connect(this.ports[(this.#next += 1) % this.ports.length]!, '127.0.0.1');
    this.#keep(far);
    const isRefused = () => this.#forward(near, triesLeft - 1);
    far.once('error', isRefused);
    far.once('connect', () => {
      far.off('error', isRefused);
      near.on('close', () => far.destroy());
      far.on('close', () => near.destroy());
      near.pipe(far).pipe(near);
    });
  }

  #keep(socket: net.Socket): void {
    this.#open.add(socket);
    socket.on('error', () => undefined).on('close', () => this.#open.delete(socket));
  }
}
