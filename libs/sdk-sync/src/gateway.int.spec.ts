import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server } from 'socket.io';
import { type Ready, SERVER_EVENTS_2 } from '@atomo-cc/sync-protocol';
import { GatewayServer } from './gateway.js';

/** How much shorter the pauses between attempts are here. */
const FASTER = 200;
/** Timers of these lengths are pauses between attempts: half a second to half a minute, half of it random. */
const isPause = (ms: number) => ms >= 250 && ms <= 30_000 && ms !== 15_000;

const READY = { limits: {} } as Ready;

afterEach(() => jest.restoreAllMocks());

/** Shortens the pauses, and collects how long they would have been. */
function collectPauses(): number[] {
  const pauses: number[] = [];
  const real = globalThis.setTimeout;
  jest.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms = 0, ...rest: []) => {
    if (!isPause(ms)) return real(run, ms, ...rest);
    pauses.push(ms);
    return real(run, ms / FASTER, ...rest);
  }) as typeof setTimeout);
  return pauses;
}

it('tries to connect for ever, with growing pauses, when nobody answers and after every cut (defect 20)', async () => {
  const http = createServer();
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const { port } = http.address() as AddressInfo;
  // The address is known, and nobody answers there.
  await new Promise((resolve) => http.close(resolve));
  const pauses = collectPauses();
  const calls: string[] = [];
  let heard = () => {};
  const note = (what: string) => {
    calls.push(what);
    heard();
  };
  const until = async (isThere: () => boolean) => {
    while (!isThere()) await new Promise<void>((resolve) => (heard = resolve));
  };
  const client = new GatewayServer(
    { url: `http://127.0.0.1:${port}`, key: 'sk_store_000000_x', device: { id: 'a', name: 'a' } },
    READY,
    {
      cursor: () => {
        // Asked for with each handshake that gets that far.
        note('handshake');
        return null;
      },
      changes: () => {},
      head: () => {},
      connected: () => note('connected'),
      disconnected: () => note('disconnected'),
      refused: (error) => note(error.message),
    },
  );
  client.open();
  const attempts = 12;
  const tick = setInterval(() => heard(), 5);
  await until(() => pauses.length >= attempts);
  expect(calls).toEqual([]);
  // Each is drawn from the upper half of what doubles up to half a minute.
  for (const [place, pause] of pauses.entries()) {
    const ceiling = Math.min(30_000, 500 * 2 ** place);
    expect(pause).toBeGreaterThanOrEqual(ceiling / 2);
    expect(pause).toBeLessThanOrEqual(ceiling);
  }

  const server = new Server(port, { transports: ['websocket'] });
  server.on('connection', (socket) => socket.emit(SERVER_EVENTS_2.ready, READY));
  const connections = () => calls.filter((call) => call === 'connected').length;
  for (let cut = 1; cut <= 7; cut += 1) {
    await until(() => connections() === cut);
    // The server ends it, after which the client of Socket.IO would not come back by itself.
    server.disconnectSockets(true);
  }
  await until(() => connections() === 8);
  clearInterval(tick);
  expect(calls.filter((call) => call === 'disconnected')).toHaveLength(7);
  client.close();
  await server.close();
});

it('tells the gateway where it stands: at once when that is far, else a little later, and at the end what is left', async () => {
  collectPauses();
  const http = createServer();
  const server = new Server(http, { transports: ['websocket'] });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const heard: unknown[] = [];
  const waiting = new Set<() => void>();
  const until = async (count: number) => {
    while (heard.length < count) await new Promise<void>((resolve) => waiting.add(resolve));
  };
  let answer = () => {};
  server.on('connection', (socket) => {
    socket.on('ack', (payload: unknown, ack?: (answer: object) => void) => {
      heard.push(payload);
      answer = () => ack?.({ success: true });
      for (const wake of waiting) wake();
    });
    socket.emit(SERVER_EVENTS_2.ready, { limits: { ackWindow: 100 } });
  });
  const at = (seq: number) => ({ epoch: 'e', seq });
  const client = new GatewayServer(
    { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, key: 'k', device: { id: 'a', name: 'a' } },
    READY,
    {
      cursor: () => at(5),
      changes: () => {},
      head: () => {},
      connected: () => {},
      disconnected: () => {},
      refused: () => {},
    },
  );
  client.open();
  // What it stands at when it connects is told after a while.
  await until(1);
  expect(heard).toEqual([{ epoch: 'e', through: 5 }]);
  // While that is not answered nothing is sent, and then the latest alone.
  client.applied(at(60));
  client.applied(at(61));
  answer();
  await until(2);
  expect(heard[1]).toEqual({ epoch: 'e', through: 61 });
  answer();
  client.applied(at(62));
  client.close();
  await until(3);
  answer();
  expect(heard[2]).toEqual({ epoch: 'e', through: 62 });
  await server.close();
});

it('reads a snapshot to its end over cuts, hands out each file once, and gives up where nothing comes or the log is another', async () => {
  const file = (path: string) => ({ fileId: path, path, hash: path, size: 1, seq: 1, at: '' });
  const answers: { lines: object[]; tail?: string; isCut?: true }[] = [];
  const asked: string[] = [];
  const http = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url!, 'http://gateway');
    asked.push(`${pathname} ${searchParams.get('inline')} ${searchParams.get('after')}`);
    const { lines, tail = '', isCut } = answers.shift()!;
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    const body = lines.map((line) => `${JSON.stringify(line)}\n`).join('') + tail;
    if (isCut) response.write(body, () => response.destroy());
    else response.end(body);
  });
  http.listen(0, '127.0.0.1');
  await once(http, 'listening');
  const client = new GatewayServer(
    { url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`, key: 'k', device: { id: 'a', name: 'a' } },
    READY,
    {
      cursor: () => null,
      changes: () => {},
      head: () => {},
      connected: () => {},
      disconnected: () => {},
      refused: () => {},
    },
  );
  const read = async (...planned: typeof answers) => {
    asked.length = 0;
    answers.splice(0, answers.length, ...planned);
    const files: string[] = [];
    const cursor = await client
      .snapshot(({ path }) => files.push(path), true)
      .catch((error: { code: string }) => error.code);
    return { cursor, files, asked: asked.map((each) => each.replace('/api/v2/snapshot true ', '')) };
  };
  const [head, later, end] = [{ epoch: 'e', head: 3 }, { epoch: 'e', head: 9 }, { end: true }];
  expect(
    await read(
      { lines: [head, file('a'), file('b é')], tail: '{"fileId":"c","pa', isCut: true },
      { lines: [later, file('c')] },
      { lines: [later, end] },
    ),
  ).toEqual({ cursor: { epoch: 'e', seq: 3 }, files: ['a', 'b é', 'c'], asked: ['null', 'b é', 'c'] });
  expect(await read({ lines: [head, file('a')], isCut: true }, { lines: [later], isCut: true })).toMatchObject({
    cursor: 'SYNC_OFFLINE',
  });
  expect(await read({ lines: [head, file('a')] }, { lines: [{ ...later, epoch: 'f' }, file('b'), end] })).toMatchObject(
    {
      cursor: 'SYNC_OFFLINE',
      files: ['a'],
    },
  );
  http.close();
});
