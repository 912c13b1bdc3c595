import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openRoster } from './roster.js';
import { makeThrowAwayFolder } from './throw-away.js';

let folder: string;
let socketPath: string;

beforeEach(() => {
  folder = makeThrowAwayFolder();
  socketPath = path.join(folder, 'supervisor.sock');
});
afterEach(() => fs.rmSync(folder, { recursive: true, force: true }));

/** A socket whose process was killed: the file is there, nobody listens. */
async function leaveStaleSocket(): Promise<void> {
  const script = `require('node:net').createServer().listen(${JSON.stringify(socketPath)}, () => process.kill(process.pid, 'SIGKILL'))`;
  await once(spawn(process.execPath, ['-e', script]), 'close');
  expect(fs.existsSync(socketPath)).toBe(true);
}

function connect(): net.Socket {
  return net.connect(socketPath).on('error', () => {});
}

it('takes over the socket of a killed supervisor, and tells that it did', async () => {
  expect.assertions(2);
  await leaveStaleSocket();
  const roster = await openRoster(socketPath);
  expect(roster.afterCrash).toBe(true);
  await roster.close();
});

it('lets one of many starts have the socket of a killed supervisor', async () => {
  await leaveStaleSocket();
  const results = await Promise.allSettled(Array.from({ length: 8 }, () => openRoster(socketPath)));
  const won = results.filter((result) => result.status === 'fulfilled');
  expect(won).toHaveLength(1);
  for (const result of results) {
    if (result.status === 'rejected') expect(String(result.reason)).toMatch(/already running \(pid \d+, since /);
  }
  await won[0]!.value.close();
});

it('knows who is connected, for as long as the connection lasts', async () => {
  const roster = await openRoster(socketPath);
  expect(roster.afterCrash).toBe(false);
  const changes: number[] = [];
  const next = () => new Promise<void>((resolve) => roster.onChange(resolve));
  roster.onChange(() => changes.push(roster.registered('worker').length));

  const came = next();
  const socket = connect();
  socket.write('{"name":"worker","pid":7,"url":"http://127.0.0.1:3300"}\n');
  await came;
  expect(roster.registered('worker')).toEqual([{ name: 'worker', pid: 7, url: 'http://127.0.0.1:3300' }]);
  expect(roster.registered('other')).toEqual([]);

  const went = next();
  socket.destroy();
  await went;
  expect(changes).toEqual([1, 0]);
  await roster.close();
});

it('hangs up on who sends no registration', async () => {
  const roster = await openRoster(socketPath);
  for (const line of [
    'not JSON\n',
    '{"name":"worker"}\n',
    '{"name":"worker","pid":"7","url":"http://x"}\n',
    'x'.repeat(5_000),
  ]) {
    const socket = connect();
    socket.resume().write(line);
    await once(socket, 'close');
  }
  expect(roster.registered('worker')).toEqual([]);
  await roster.close();
});

it('closes the connections of all when it closes: that is how services learn that the supervisor is gone', async () => {
  const roster = await openRoster(socketPath);
  const socket = connect().resume();
  await once(socket, 'connect');
  await Promise.all([once(socket, 'close'), roster.close()]);
  expect(fs.existsSync(socketPath)).toBe(false);
});
