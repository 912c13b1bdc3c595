// What sealing costs: ns per seal and open, and events/s of encode and decode for batches of 256 Contacts on Postgres, each a
// transaction: subjects that are new (a key is made for each), and subjects that have a key already. Each is run three times,
// in turns; the middle run is printed.
//
//   node tools/bench/sealing.mjs [batches per run, default 100]
import { createSecretKey, randomBytes } from 'node:crypto';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { append, EventCodec, eventStoreMigrations, SubjectKeys } = await load('libs/event-store/dist/index.js');
const { open, seal } = await load('libs/event-store/dist/subject-keys.js');
const { ATOMO_EVENTS } = await load('libs/events/dist/index.js');
const { DEFAULT_TENANT_ID: TENANT, uuidv7 } = await load('libs/kernel/dist/index.js');

const BATCHES = Number(process.argv[2] ?? 100);
const PER_BATCH = 256;
const METADATA = { actor: 'user:bench', correlationId: uuidv7(), causationId: uuidv7() };
const PERSONAL = ['name', 'email', 'phone'];

const batchOf = (streams, expected = 'any') =>
  streams.map((stream, n) => ({
    stream,
    expected,
    metadata: METADATA,
    events: [
      {
        type: 'Contact.created',
        schemaVersion: 1,
        data: { name: `Contact ${n}`, email: `c${n}@example.com`, phone: '+1 555 0100', stage: 'Lead' },
        personal: { subject: stream, fields: PERSONAL },
      },
    ],
  }));
/** What `append` takes without a codec: it refuses personal fields that are not sealed. */
const inTheClear = (entry) => ({
  ...entry,
  events: entry.events.map(({ type, schemaVersion, data }) => ({ type, schemaVersion, data })),
});
const newStreams = () => Array.from({ length: PER_BATCH }, () => `Contact-${uuidv7()}`);

function nanoseconds(times, work) {
  for (let i = 0; i < times / 10; i += 1) work();
  const from = performance.now();
  for (let i = 0; i < times; i += 1) work();
  return Math.round(((performance.now() - from) / times) * 1e6);
}

const middle = (runs) => runs.sort((a, b) => a - b)[Math.floor(runs.length / 2)];

const key = createSecretKey(randomBytes(32));
const context = ['atomo sealed fields', TENANT, `Contact-${uuidv7()}`, 'Contact.created', `Contact-${uuidv7()}`, 1];
const content = JSON.stringify({ name: 'Ada Lovelace', email: 'ada@example.com', phone: '+1 555 0100' });
const box = seal(key, context, content);
const [sealNs, openNs] = [() => seal(key, context, content), () => open(key, context, box)].map((work) =>
  middle([1, 2, 3].map(() => nanoseconds(100_000, work))),
);
console.log(`seal ${sealNs} ns, open ${openNs} ns (${content.length} bytes)`);

await withBenchDatabase(async (url) => {
  await migrate(url, eventStoreMigrations);
  const database = await openAppDatabase({ url, service: 'bench', poolSize: 2 });
  const codec = new EventCodec(new SubjectKeys('the encryption key of the benchmark'), ATOMO_EVENTS);
  const known = newStreams();
  let recorded = [];
  await database.transaction(TENANT, async (tx) => {
    recorded = (await append(tx, TENANT, await codec.encode(tx, TENANT, batchOf(known)))).events;
  });
  const arms = {
    'begin and commit alone': () => database.transaction(TENANT, async () => undefined),
    'encode, subjects said to be new': (streams) =>
      database.transaction(TENANT, (tx) => codec.encode(tx, TENANT, batchOf(streams, 'none'))),
    'encode, subjects found to be new': (streams) =>
      database.transaction(TENANT, (tx) => codec.encode(tx, TENANT, batchOf(streams))),
    'encode, known subjects': () => database.transaction(TENANT, (tx) => codec.encode(tx, TENANT, batchOf(known))),
    'append alone, new streams': (streams) =>
      database.transaction(TENANT, (tx) => append(tx, TENANT, batchOf(streams).map(inTheClear))),
    'encode and append, new subjects': (streams) =>
      database.transaction(TENANT, async (tx) =>
        append(tx, TENANT, await codec.encode(tx, TENANT, batchOf(streams, 'none'))),
      ),
    decode: () => database.transaction(TENANT, (tx) => codec.decode(tx, recorded)),
  };
  const runs = Object.fromEntries(Object.keys(arms).map((arm) => [arm, []]));
  for (let round = 0; round < 3; round += 1) {
    for (const [arm, work] of Object.entries(arms)) {
      const batches = Array.from({ length: BATCHES }, newStreams);
      const from = performance.now();
      for (const streams of batches) await work(streams);
      runs[arm].push((performance.now() - from) / BATCHES);
    }
  }
  console.log('| arm | ms per batch of 256 | events/s |');
  console.log('|---|---|---|');
  for (const [arm, results] of Object.entries(runs)) {
    const ms = middle(results);
    console.log(`| ${arm} | ${ms.toFixed(2)} | ${Math.round((PER_BATCH / ms) * 1000)} |`);
  }
  console.log(`load average ${os.loadavg()[0].toFixed(1)}`);
  await database.close();
});
