import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, hashOf, putOf, TestGateway } from '../testing/index.js';

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url, { environment: { SYNC_OPS_PER_SECOND: '20', SYNC_QUOTA_MIB: '1' } });
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

it('a stranger may send its handshake and nothing large before it (defect 23)', async () => {
  const { key } = await (await gateway.aStore()).aKey();
  const closeOf = async (frame: string) => {
    const raw = new WebSocket(`${gateway.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
    await new Promise((resolve) => raw.addEventListener('open', resolve, { once: true }));
    raw.send(frame);
    const told = new Promise<string>((resolve) => {
      raw.addEventListener('close', ({ code }) => resolve(`closed ${code}`), { once: true });
      raw.addEventListener('message', ({ data }) => String(data).startsWith('40') && resolve('let in'));
    });
    const outcome = await told;
    raw.close();
    return outcome;
  };
  const hello = (padding: number) => `40${JSON.stringify({ apiKey: key, padding: 'x'.repeat(padding) })}`;
  expect(await closeOf(hello(10_000))).toBe('let in');
  expect(await closeOf(hello(100_000))).toBe('closed 1009');
});

it('a key that does too much is told when to go on, and harms no other key of the store (defect 23)', async () => {
  const store = await gateway.aStore();
  const [busy, calm] = await Promise.all([0, 1].map(async () => Device2.connect(gateway, (await store.aKey()).key)));
  await busy!.push(...Array.from({ length: 100 }, (_, n) => putOf(`${n}.md`, 'x')));
  const refusal = await busy!
    .push(...Array.from({ length: 100 }, (_, n) => putOf(`${n}.md`, 'y')))
    .catch((error: unknown) => error);
  expect(refusal).toMatchObject({
    code: 'RATE_LIMITED',
    retryable: true,
    details: { retryAfterMs: expect.any(Number) as number },
  });
  expect(await calm!.op(putOf('b.md', 'x'))).toMatchObject({ success: true });
});

it('a client of protocol 1 that does too much waits, and loses nothing', async () => {
  const { key } = await (await gateway.aStore()).aKey();
  const client = await gateway.connect(key);
  const acks = await Promise.all(
    Array.from({ length: 110 }, (_, n) => client.send('modified-file', { path: `${n}.md`, content: 'x' })),
  );
  expect(acks.filter(({ success }) => !success)).toEqual([]);
});

it('a store takes no more than its quota, whichever way it comes, and goes on when there is room', async () => {
  const store = await gateway.aStore('', { quotaBytes: 1_000 });
  const { key } = await store.aKey();
  const device = await Device2.connect(gateway, key);
  expect(device.ready.limits.quotaBytes).toBe(1_000);
  await device.op(putOf('a.md', 'x'.repeat(600)));
  expect(await device.op(putOf('b.md', 'x'.repeat(600)))).toMatchObject({ error: { code: 'QUOTA_EXCEEDED' } });
  const part = randomBytes(600);
  await expect(device.ask('upload', { hash: hashOf(part), bytes: part })).rejects.toMatchObject({
    code: 'QUOTA_EXCEEDED',
  });
  const put = { path: 'b.md', content: 'x'.repeat(600) };
  expect(await gateway.call('PUT', '/api/v1/files', key, put)).toMatchObject({
    status: 403,
    body: { error: { code: 'FORBIDDEN', message: 'The store is full.' } },
  });
  // Overwriting with less, and what goes, makes room.
  await device.op(putOf('a.md', 'x'));
  expect(await device.op(putOf('b.md', 'x'.repeat(900)))).toMatchObject({ success: true });
});

it('a reader that takes nothing is sent pages at its own pace, and then has everything', async () => {
  const store = await gateway.aStore('', { quotaBytes: 1_000_000_000 });
  const slow = await Device2.connect(gateway, (await store.aKey('read')).key);
  let hints = 0;
  slow.socket.on('head', () => (hints += 1));
  const line = (slow.socket.io.engine as unknown as { transport: { ws: { _socket: Socket } } }).transport.ws._socket;
  line.pause();
  const text = randomBytes(22_000).toString('base64');
  let seq = 0;
  // Some 30 MB: far above what the kernel holds for a line that stands still, and above the socket's budget.
  for (let keys = 0; keys < 10; keys += 1) {
    const writer = await Device2.connect(gateway, (await store.aKey('write')).key);
    const done = await writer.push(...Array.from({ length: 100 }, (_, n) => putOf(`${n}.md`, `${keys} ${text}`)));
    seq = Math.max(...done.map((result) => (result.success ? result.seq : 0)));
    writer.socket.disconnect();
  }
  expect(seq).toBe(1_000);
  line.resume();
  const heard = await slow.changes(1_000);
  expect(heard.map((change) => change.seq)).toEqual(Array.from({ length: 1_000 }, (_, place) => place + 1));
  // It was told once that there is more, and nothing was kept for it in memory.
  expect(hints).toBe(1);
}, 60_000);
