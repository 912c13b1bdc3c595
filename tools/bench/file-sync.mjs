// node tools/bench/file-sync.mjs  (with `npm start` running, or DATABASE_URL and REDIS_URL)
//
// Acked writes a second into one store, single and in pushes of 20, by protocol 1 and 2; the time from a write to the other
// clients, with 1 and with 20 of them, beside a bare Socket.IO relay in the same run; the first sync of 1,000 files; a
// reconnect with nothing new. Contents of 1 KB. Gateway and relay are processes of their own, all clients are in this one.
import { fork } from 'node:child_process';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { createServer } from 'node:net';
import { io } from 'socket.io-client';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const SECONDS = 5;
const LATENCY_WRITES = 400;
const PAUSE_MS = 5;
const MASTER = 'sk_admin_dev';

const redisUrl =
  process.env.REDIS_URL ??
  JSON.parse(fs.readFileSync(path.resolve(ROOT, process.env.ATOMO_HOME ?? '.atomo', 'run.json'), 'utf8')).redisUrl;
const text = () => randomBytes(768).toString('base64');
const hashOf = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function putOf(name) {
  const bytes = Buffer.from(text());
  const inline = bytes.toString('base64');
  return { opId: randomUUID(), op: 'put', path: name, hash: hashOf(bytes), size: bytes.length, inline };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function startGateway(databaseUrl) {
  const port = await freePort();
  const env = {
    ...process.env,
    ATOMO_MODE: 'embedded',
    LOG_LEVEL: 'error',
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    SYNC_GATEWAY_PORT: String(port),
    SYNC_OPS_PER_SECOND: '1000000',
    GATEWAY_MASTER_KEY: MASTER,
    ATOMO_SUPERVISOR: '',
  };
  const child = fork(path.join(ROOT, 'apps/sync-gateway/dist/main.js'), {
    env,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const url = `http://127.0.0.1:${port}`;
  for (let left = 100; ; left -= 1) {
    const isReady = await fetch(`${url}/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return { url, child };
    if (left === 0) throw new Error('the gateway does not start');
    await sleep(200);
  }
}

async function startRelay() {
  const child = fork(path.join(import.meta.dirname, 'relay.mjs'));
  const { url } = await new Promise((resolve) => child.once('message', resolve));
  return { url, child };
}

async function connect(url, auth) {
  const socket = io(url, { transports: ['websocket'], forceNew: true, reconnection: false, auth });
  await new Promise((resolve, reject) => {
    socket.once(auth?.protocol === 2 ? 'ready' : 'connect', resolve);
    socket.once('connect_error', reject);
  });
  return socket;
}

async function admin(url, route, body) {
  const response = await fetch(`${url}/api/v1/admin${route}`, {
    method: 'POST',
    headers: { 'x-api-key': MASTER, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return response.json();
}

async function aStore(url) {
  const { id } = await admin(url, '/stores', { name: 'bench' });
  const { key } = await admin(url, `/stores/${id}/keys`, { name: 'bench', permissions: ['read', 'write'] });
  return key;
}

/** Operations a second that were acked, with `inFlight` events under way at any time, from 8 sockets of one store. */
async function throughput(sockets, inFlight, each, send) {
  const until = performance.now() + SECONDS * 1000;
  let done = 0;
  const from = performance.now();
  const lanes = Array.from({ length: inFlight }, async (_, lane) => {
    const socket = sockets[lane % sockets.length];
    while (performance.now() < until) {
      await send(socket, lane);
      done += each;
    }
  });
  await Promise.all(lanes);
  return Math.round((done / (performance.now() - from)) * 1000);
}

/** From the emit of a write to each other client's event: milliseconds, sorted. */
async function latency(writer, readers, write, marker) {
  const sent = new Map();
  const times = [];
  let heard = 0;
  for (const reader of readers) {
    reader.on('changes', (payload) => {
      for (const mark of marker(payload)) {
        const at = sent.get(mark);
        if (at === undefined) continue;
        times.push(performance.now() - at);
        heard += 1;
      }
    });
  }
  for (let n = 0; n < LATENCY_WRITES; n += 1) {
    const { mark, event, payload } = write(n);
    sent.set(mark, performance.now());
    await writer.emitWithAck(event, payload);
    await sleep(PAUSE_MS);
  }
  for (let left = 200; heard < LATENCY_WRITES * readers.length && left > 0; left -= 1) await sleep(20);
  for (const reader of readers) reader.off('changes');
  if (heard !== LATENCY_WRITES * readers.length)
    throw new Error(`heard ${heard} of ${LATENCY_WRITES * readers.length}`);
  // The first ones warm up code and connections.
  return times.slice(times.length / 10).toSorted((a, b) => a - b);
}

const show = (times) => `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`;
const two = (apiKey, id, more = {}) => ({ apiKey, protocol: 2, device: { id }, ...more });

await withBenchDatabase(async (databaseUrl) => {
  const gateway = await startGateway(databaseUrl);
  const relay = await startRelay();
  try {
    for (const inFlight of [1, 10, 50]) {
      const key = await aStore(gateway.url);
      const sockets = await Promise.all(Array.from({ length: 8 }, () => connect(gateway.url, { apiKey: key })));
      const rate = await throughput(sockets, inFlight, 1, (socket, lane) =>
        socket.emitWithAck('modified-file', { path: `n/${lane}.md`, content: text() }),
      );
      console.log(`protocol 1, 8 clients that all hear, ${inFlight} in flight: ${rate} acked writes/s`);
      for (const socket of sockets) socket.disconnect();
    }
    for (const [each, inFlight] of [
      [1, 50],
      [20, 8],
      [20, 16],
    ]) {
      const key = await aStore(gateway.url);
      const sockets = await Promise.all(Array.from({ length: 8 }, (_, n) => connect(gateway.url, two(key, `d${n}`))));
      const rate = await throughput(sockets, inFlight, each, async (socket, lane) => {
        const ops = Array.from({ length: each }, (_, n) => putOf(`n/${lane}-${n}.md`));
        const { results } = await socket.emitWithAck('push', { ops });
        if (results.some(({ success }) => !success)) throw new Error(JSON.stringify(results));
      });
      console.log(
        `protocol 2, 8 clients that all hear, pushes of ${each}, ${inFlight} in flight: ${rate} acked operations/s`,
      );
      for (const socket of sockets) socket.disconnect();
    }
    for (const count of [1, 20]) {
      const key = await aStore(gateway.url);
      const writer = await connect(gateway.url, two(key, 'w'));
      const readers = await Promise.all(
        Array.from({ length: count }, (_, n) => connect(gateway.url, two(key, `r${n}`))),
      );
      const bare = await Promise.all(Array.from({ length: count + 1 }, () => connect(relay.url)));
      const ours = await latency(
        writer,
        readers,
        (n) => {
          const op = putOf(`${n % 50}.md`);
          return { mark: op.opId, event: 'push', payload: { ops: [op] } };
        },
        ({ changes }) => changes.map(({ opId }) => opId),
      );
      const relayed = await latency(
        bare[0],
        bare.slice(1),
        () => {
          const op = putOf('a.md');
          return { mark: op.opId, event: 'write', payload: op };
        },
        ({ opId }) => [opId],
      );
      const ratio = percentile(ours, 0.99) / percentile(relayed, 0.99);
      console.log(
        `write → ${count} other clients: ${show(ours)}; bare relay ${show(relayed)}; p99 ratio ${ratio.toFixed(2)}`,
      );
      for (const socket of [writer, ...readers, ...bare]) socket.disconnect();
    }
    const key = await aStore(gateway.url);
    const writer = await connect(gateway.url, two(key, 'w'));
    for (let n = 0; n < 1_000; n += 100) {
      await writer.emitWithAck('push', { ops: Array.from({ length: 100 }, (_, m) => putOf(`first/${n + m}.md`)) });
    }
    let from = performance.now();
    const fresh = await connect(gateway.url, two(key, 'fresh'));
    let after;
    let files = 0;
    let cursor;
    do {
      const page = await fresh.emitWithAck('snapshot', { inline: true, limit: 1_000, ...(after && { after }) });
      cursor ??= { epoch: page.epoch, seq: page.head };
      files += page.files.filter(({ inline }) => inline).length;
      after = page.next;
    } while (after);
    console.log(`first sync of ${files} files of 1 KB: ${(performance.now() - from).toFixed(0)} ms`);
    from = performance.now();
    const back = await connect(gateway.url, two(key, 'fresh', { cursor }));
    console.log(`reconnect with nothing new: ${(performance.now() - from).toFixed(1)} ms until ready`);
    for (const socket of [writer, fresh, back]) socket.disconnect();
  } finally {
    const ended = new Promise((resolve) => gateway.child.once('exit', resolve));
    gateway.child.kill('SIGTERM');
    relay.child.disconnect();
    await ended;
  }
});
process.exit(0);
