// File sync: the gateway as it is built, a process of its own, beside a bare Socket.IO relay and Hocuspocus in the same run. Notes of 1 KB,
// all clients in this process. Each section is run alone by its name; without one, all are.
//
//   npm install --prefix tools/bench
//   node tools/bench/file-sync.mjs [section …] [--seconds 5] [--rounds 3] [--profile FOLDER]
//
// writes      acked writes a second from 8 clients that all hear of everything, single ones and in pushes of 20
// edits       acked edits a second of 8 people with their own clients, beside Hocuspocus, as shipped and storing each edit
// latency     from a write to the other clients, 1, 20 and 200 of them, on one node and on two, beside Hocuspocus and the relay
// first-sync  1,000 and 16,000 files into an empty client
// reconnect   a client that comes back, and nothing is new
// idle        memory of a socket that does nothing, of 2,000
// paused      the server's memory while a client takes nothing from the line
//
// What is compared runs in turns, so that whatever else the machine does meets all arms; where it can, the CPU's time is printed
// too, which other work changes less. --profile writes CPU profiles of the gateways. It needs what `npm start` provides.
import { parseArgs } from 'node:util';
import { percentile, withBenchDatabase } from './bench-database.mjs';
import { authors, gatewayArm, hashOf, hocuspocusArm, Pusher, put, relayArm, text, two } from './file-sync/arms.mjs';
import { LightClient } from './file-sync/light-client.mjs';
import { aStore, startGateway, startPeer, stop, stopAll, usageOf } from './file-sync/servers.mjs';

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    profile: { type: 'string' },
  },
});
const SECONDS = Number(given.seconds);
const ROUNDS = Number(given.rounds);
const WRITERS = 8;
/** Writes of one arm before it is the other's turn, and turns. The first turn warms up code and connections. */
const TURN_WRITES = 20;
const TURNS = 21;
const PAUSE_MS = 5;
const MIB = 1024 * 1024;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const sorted = (numbers) => numbers.toSorted((a, b) => a - b);
const middle = (numbers) => percentile(sorted(numbers), 0.5);
const show = (times) => `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms`;
const gatewayOf = (databaseUrl) => startGateway(databaseUrl, given.profile);
const json = (ops) => `{"ops":[${ops.map((op) => JSON.stringify(op)).join(',')}]}`;

async function push(client, ops) {
  const ack = await client.send('push', json(ops));
  if (!ack.includes('"success":true') || ack.includes('"success":false')) throw new Error(ack);
}

/** Runs `send(lane)` over and over with so many lanes at a time; how many a second, and what one cost the server and us. */
async function rateOf(server, lanes, each, send, seconds = SECONDS) {
  const before = await usageOf(server);
  const own = process.cpuUsage();
  const from = performance.now();
  let done = 0;
  const run = async (lane) => {
    while (performance.now() < from + seconds * 1000) {
      await send(lane);
      done += each;
    }
  };
  await Promise.all(Array.from({ length: lanes }, (_, lane) => run(lane)));
  const rate = Math.round((done / (performance.now() - from)) * 1000);
  const { user, system } = process.cpuUsage(own);
  const after = await usageOf(server);
  const perOp = (ms) => `${((ms / done) * 1000).toFixed(0)} µs`;
  return {
    rate,
    cost: `CPU of one: server ${perOp(after.cpuMs - before.cpuMs)}, clients ${perOp((user + system) / 1000)}`,
  };
}

async function writes(databaseUrl) {
  const gateway = await gatewayOf(databaseUrl);
  const arms = [];
  for (const inFlight of [1, 10, 50]) {
    arms.push({
      name: `protocol 1, ${inFlight} in flight`,
      lanes: inFlight,
      each: 1,
      auth: (key) => ({ apiKey: key }),
      send: async (client, lane) => {
        const ack = await client.send('modified-file', `{"path":"n/${lane}.md","content":"${text()}"}`);
        if (!ack.includes('"success":true')) throw new Error(ack);
      },
    });
  }
  for (const [each, inFlight] of [
    [1, 1],
    [1, 50],
    [20, 8],
    [20, 16],
  ]) {
    arms.push({
      name: `protocol 2, pushes of ${each}, ${inFlight} in flight`,
      lanes: inFlight,
      each,
      auth: (key, n) => two(key, `d${n}`),
      send: (client, lane) =>
        push(
          client,
          Array.from({ length: each }, (_, n) => put(`n/${lane}-${n}.md`)),
        ),
    });
  }
  for (const { name, lanes, each, auth, send } of arms) {
    const [key] = await aStore(gateway);
    const clients = await Promise.all(
      Array.from({ length: WRITERS }, (_, n) => LightClient.connect(gateway.url, auth(key, n))),
    );
    const run = (seconds) => rateOf(gateway, lanes, each, (lane) => send(clients[lane % WRITERS], lane), seconds);
    await run(1);
    const { rate, cost } = await run(SECONDS);
    console.log(`${name}: ${rate} acked writes/s (${cost})`);
    for (const client of clients) client.close();
  }
}

const NAMES = {
  gateway: 'gateway, on disk',
  shipped: 'Hocuspocus as shipped, in memory',
  durable: 'Hocuspocus storing each, on disk',
};

async function edits(databaseUrl) {
  const servers = {
    gateway: await gatewayOf(databaseUrl),
    shipped: await startPeer('hocuspocus', { DATABASE_URL: databaseUrl }),
    durable: await startPeer('hocuspocus', { DATABASE_URL: databaseUrl, DURABLE: '1' }),
  };
  for (const lanes of [WRITERS, 6 * WRITERS]) {
    const [key] = await aStore(servers.gateway);
    const pushers = await Promise.all(
      Array.from({ length: WRITERS }, (_, n) => Pusher.connect(servers.gateway.url, two(key, `d${n}`))),
    );
    const peers = { shipped: await authors(servers.shipped, WRITERS, false) };
    peers.durable = await authors(servers.durable, WRITERS, true);
    const note = (lane) => `n/${lane}.md`;
    const arms = {
      gateway: (lane) => pushers[lane % WRITERS].edit(note(lane)),
      shipped: (lane) => peers.shipped[lane % WRITERS].edit(note(lane)),
      durable: (lane) => peers.durable[lane % WRITERS].edit(note(lane)),
    };
    const found = { gateway: [], shipped: [], durable: [] };
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [name, send] of Object.entries(arms)) {
        const run = await rateOf(servers[name], lanes, 1, send, round === 0 ? 1 : SECONDS);
        if (round > 0) found[name].push(run);
      }
    }
    const rates = {};
    for (const [name, runs] of Object.entries(found)) {
      const { rate, cost } = runs.toSorted((a, b) => a.rate - b.rate)[Math.floor(runs.length / 2)];
      rates[name] = rate;
      console.log(`edits of ${WRITERS} people, ${lanes} in flight, ${NAMES[name]}: ${rate} acked edits/s (${cost})`);
    }
    const times = (peer) => `${(rates.gateway / rates[peer]).toFixed(2)} ×`;
    console.log(
      `  the gateway does ${times('shipped')} what Hocuspocus does as shipped, ${times('durable')} where that stores each`,
    );
    for (const person of [...pushers, ...Object.values(peers).flat()]) person.close();
  }
}

/** Writes, and notes when each reader hears of it: milliseconds, into `times`. */
async function turn({ readers, write, listen }, times) {
  for (let n = 0; n < TURN_WRITES; n += 1) {
    let left = readers.length;
    const sent = {};
    const heard = new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${left} clients did not hear of a write`)), 20_000);
      for (const reader of readers) {
        const stopListening = listen(reader, (marks) => {
          if (!marks.includes(sent.mark)) return;
          times.push(performance.now() - sent.at);
          stopListening();
          left -= 1;
          if (left > 0) return;
          clearTimeout(late);
          resolve();
        });
      }
    });
    sent.at = performance.now();
    const { mark, acked } = write(n);
    sent.mark = mark;
    await Promise.all([acked, heard]);
    await sleep(PAUSE_MS);
  }
}

async function latency(databaseUrl) {
  const nodes = [await gatewayOf(databaseUrl), await gatewayOf(databaseUrl)];
  const hocuspocus = await startPeer('hocuspocus', { DATABASE_URL: databaseUrl });
  for (const count of [1, 20, 200]) {
    // A relay of its own: it hands everything to everybody.
    const relay = await startPeer('relay');
    const arms = {
      'one node': await gatewayArm(nodes[0], nodes[0], count),
      'two nodes': await gatewayArm(nodes[0], nodes[1], count),
      Hocuspocus: await hocuspocusArm(hocuspocus, count),
      relay: await relayArm(relay, count),
    };
    const times = Object.fromEntries(Object.keys(arms).map((name) => [name, []]));
    for (let n = 0; n < TURNS; n += 1) {
      for (const [name, arm] of Object.entries(arms)) await turn(arm, n === 0 ? [] : times[name]);
    }
    const bare = percentile(sorted(times.relay), 0.99);
    for (const [name, all] of Object.entries(times)) {
      const ordered = sorted(all);
      const ratio = (percentile(ordered, 0.99) / bare).toFixed(2);
      console.log(`from a write to ${count} other clients, ${name}: ${show(ordered)}, ${ratio} × the relay's p99`);
    }
    for (const arm of Object.values(arms)) arm.end();
    await stop(relay);
  }
}

async function fill({ url }, key, files) {
  const writer = await LightClient.connect(url, two(key, 'w'));
  for (let n = 0; n < files; n += 100) {
    const names = Array.from({ length: Math.min(100, files - n) }, (_, m) => `first/${n + m}.md`);
    await push(
      writer,
      names.map((name) => put(name)),
    );
  }
  writer.close();
}

async function firstSync(databaseUrl) {
  const gateway = await gatewayOf(databaseUrl);
  for (const files of [1_000, 16_000]) {
    const [key] = await aStore(gateway);
    await fill(gateway, key, files);
    const times = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const from = performance.now();
      const response = await fetch(`${gateway.url}/api/v2/snapshot?inline=true`, { headers: { 'x-api-key': key } });
      let had = 0;
      let rest = '';
      for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + piece).split('\n');
        rest = lines.pop();
        for (const line of lines) {
          const { inline, hash } = JSON.parse(line);
          if (inline !== undefined && hashOf(Buffer.from(inline, 'base64')) === hash) had += 1;
        }
      }
      times.push(performance.now() - from);
      if (had !== files) throw new Error(`${had} of ${files} files came`);
    }
    console.log(`first sync of ${files} files, every hash checked: ${middle(times).toFixed(0)} ms`);
  }
}

async function reconnect(databaseUrl) {
  const gateway = await gatewayOf(databaseUrl);
  const [key] = await aStore(gateway);
  await fill(gateway, key, 1_000);
  const first = await LightClient.connect(gateway.url, two(key, 'd'));
  const { epoch, head } = JSON.parse(first.ready);
  first.close();
  const times = [];
  let bytes = 0;
  for (let round = 0; round < 200; round += 1) {
    const from = performance.now();
    const back = await LightClient.connect(gateway.url, two(key, 'd', { cursor: { epoch, seq: head } }));
    times.push(performance.now() - from);
    bytes = back.bytes;
    if (JSON.parse(back.ready).head !== head) throw new Error('something was new');
    back.close();
  }
  console.log(
    `reconnect to 1,000 files, nothing new: ${show(sorted(times))} until ready, in which ${bytes} bytes come`,
  );
}

async function idle(databaseUrl) {
  const sockets = 2_000;
  const gateway = await gatewayOf(databaseUrl);
  const keys = await aStore(gateway, 5);
  const arms = {
    gateway: [gateway, (n) => two(keys[n % keys.length], `d${n}`)],
    relay: [await startPeer('relay'), () => undefined],
  };
  for (const [name, [server, authOf]] of Object.entries(arms)) {
    const hundred = (from) =>
      Promise.all(Array.from({ length: 100 }, (_, n) => LightClient.connect(server.url, authOf(from + n))));
    for (const client of await hundred(0)) client.close();
    await sleep(1000);
    const before = await usageOf(server);
    const clients = [];
    while (clients.length < sockets) clients.push(...(await hundred(clients.length)));
    await sleep(1000);
    const after = await usageOf(server);
    const each = (field) => `${((after[field] - before[field]) / sockets / 1024).toFixed(1)} KiB`;
    console.log(
      `idle, ${sockets} sockets, ${name}: each holds ${each('held')}, and takes ${each('rss')} of resident memory`,
    );
    for (const client of clients) client.close();
  }
}

/** Sends 100 MB past a client that takes nothing; how many MiB more the server holds then. */
async function heldFor(server, slow, send) {
  const size = 32_000;
  const ops = (n) => Array.from({ length: 20 }, (_, m) => put(`${n % 10}-${m}.md`, size));
  // What so much traffic leaves behind in any case.
  for (let n = 0; n < 20; n += 1) await send(ops(n));
  await sleep(1000);
  const before = await usageOf(server);
  slow.pause();
  for (let n = 0; n < (100 * MIB) / (20 * size); n += 1) await send(ops(n));
  await sleep(1000);
  const after = await usageOf(server);
  return `${((after.held - before.held) / MIB).toFixed(1)} MiB more held, ${((after.rss - before.rss) / MIB).toFixed(0)} MiB more resident`;
}

async function paused(databaseUrl) {
  const gateway = await gatewayOf(databaseUrl);
  const [key] = await aStore(gateway);
  const writer = await LightClient.connect(gateway.url, two(key, 'w'));
  const slow = await LightClient.connect(gateway.url, two(key, 'slow'));
  let { head: through } = JSON.parse(slow.ready);
  let arrive;
  const goal = {};
  slow.listener = (name, payload) => {
    if (name !== 'changes') return;
    const [, from, to] = /"from":(\d+),"through":(\d+)/.exec(payload());
    if (Number(from) !== through) throw new Error(`after ${through} came ${from}`);
    through = Number(to);
    if (through === goal.head) arrive();
  };
  const held = await heldFor(gateway, slow, (ops) => push(writer, ops));
  if (slow.hasEnded) throw new Error('100 MB took longer than the 30 s after which a client that takes nothing is cut');
  const now = await LightClient.connect(gateway.url, two(key, 'now'));
  goal.head = JSON.parse(now.ready).head;
  const from = performance.now();
  const arrived = new Promise((resolve) => (arrive = resolve));
  slow.resume();
  await arrived;
  console.log(
    `a client takes nothing while 100 MB go by, gateway: ${held}; it has all of it, in order, ` +
      `${(performance.now() - from).toFixed(0)} ms after it goes on`,
  );
  const relay = await startPeer('relay');
  const [teller, deaf] = await Promise.all([LightClient.connect(relay.url), LightClient.connect(relay.url)]);
  console.log(
    `a client takes nothing while 100 MB go by, relay: ${await heldFor(relay, deaf, (ops) => teller.send('write', json(ops)))}`,
  );
}

const sections = { writes, edits, latency, 'first-sync': firstSync, reconnect, idle, paused };
const wanted = positionals.length > 0 ? positionals : Object.keys(sections);
for (const name of wanted) {
  if (!(name in sections))
    throw new Error(`There is no section ${name}; there are ${Object.keys(sections).join(', ')}.`);
}

let failed = false;
for (const name of wanted) {
  // A database and servers of its own: what one section leaves behind is not measured in the next.
  await withBenchDatabase(async (databaseUrl) => {
    await sections[name](databaseUrl).catch((error) => {
      console.error(error);
      failed = true;
    });
    await stopAll();
  });
}
process.exit(failed ? 1 : 0);
