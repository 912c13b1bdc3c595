import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A service in a process of its own, from the built package; it reports when its `close` has run. */
const SCRIPT = `
  import { Module } from '@nestjs/common';
  import { CodedError } from '@atomo-cc/kernel';
  import { runService } from '@atomo-cc/platform/lifecycle';
  const [port, supervisor, fault] = process.argv.slice(1);
  class Root {}
  Module({})(Root);
  await runService(() => {
    if (fault) throw new CodedError('CONFIG_INVALID', fault);
    return {
      name: 'a-service',
      module: Root,
      port: Number(port),
      config: { HOST: '127.0.0.1', LOG_LEVEL: 'silent', ATOMO_SUPERVISOR: supervisor },
      listening: (url) => console.log(url),
      close: async () => console.log('closed'),
    };
  });
`;

interface Run {
  readonly process: ChildProcess;
  readonly output: () => string;
  readonly errors: () => string;
  /** Its URL, once it listens. */
  readonly listens: Promise<string>;
  /** The exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
}

const children: ChildProcess[] = [];
let folder: string;
let servers: Server[] = [];
let sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'atomo-service-'));
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
  [sockets, servers] = [[], []];
  rmSync(folder, { recursive: true });
});

function run(port = 0, supervisor = '', fault = ''): Run {
  const child = spawn(process.execPath, ['--input-type=module', '-e', SCRIPT, '--', String(port), supervisor, fault], {
    cwd: 'libs/platform',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let [output, errors] = ['', ''];
  child.stderr.on('data', (chunk: Buffer) => (errors += String(chunk)));
  const ended = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | string);
  const listens = new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += String(chunk);
      const [url] = /http:\S+/.exec(output) ?? [];
      if (url) resolve(url);
    });
    void ended.then((how) => reject(new Error(`it ended with ${how} before it listened: ${errors}`)));
  });
  listens.catch(() => undefined);
  return { process: child, output: () => output, errors: () => errors, listens, ended };
}

describe('runService', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('%s ends it cleanly with code 0', async (signal) => {
    const service = run();
    expect((await fetch(`${await service.listens}/health/live`)).status).toBe(200);
    service.process.kill(signal);
    expect(await service.ended).toBe(0);
    expect(service.output()).toMatch(/closed\n$/);
    expect(service.errors()).toBe('');
  });

  it('a taken port is one sentence and code 1', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    servers.push(taken);
    await once(taken, 'listening');
    const service = run((taken.address() as { port: number }).port);
    expect(await service.ended).toBe(1);
    expect(service.errors()).toMatch(/^The port is taken \(.*\): stop the other program, or set another port\.\n$/);
    expect(service.output()).toBe('closed\n');
  });

  it('a fault with a code is its sentence and code 1, without a stack', async () => {
    const service = run(0, '', 'DATABASE_URL is not set. Example: …');
    expect(await service.ended).toBe(1);
    expect(service.errors()).toBe('DATABASE_URL is not set. Example: …\n');
  });

  it('tells the supervisor where it is, and ends cleanly with it', async () => {
    const path = join(folder, 's.sock');
    const supervisor = createServer((socket) => void sockets.push(socket)).listen(path);
    servers.push(supervisor);
    const service = run(0, path);
    const [socket] = (await once(supervisor, 'connection')) as [Socket];
    const [line] = (await once(socket, 'data')) as [Buffer];
    expect(String(line)).toMatch(/\n$/);
    expect(JSON.parse(String(line))).toEqual({
      name: 'a-service',
      pid: service.process.pid,
      url: await service.listens,
    });
    expect((await fetch(`${await service.listens}/health/live`)).status).toBe(200);
    socket.destroy();
    expect(await service.ended).toBe(0);
    expect(service.output()).toMatch(/closed\n$/);
  });

  it('does not outlive a supervisor that is gone already', async () => {
    const service = run(0, join(folder, 'nobody.sock'));
    expect(await service.ended).toBe(0);
  });
});
