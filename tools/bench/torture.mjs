// The fence under torture for as long as one likes, on a database of its own: writers that are fast, slow and rolled back,
// connections that are killed, a transaction that stays idle in another database and holds a lock of the same number, and
// readers and subscriptions that follow all the while. It ends with the counts, and with exit code 1 if one that must be 0
// is not. It prints its seed; the same seed draws the same lots, though not the same races.
//
//   node tools/bench/torture.mjs [minutes, default 5] [seed]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { eventStoreMigrations } = await load('libs/event-store/dist/index.js');
const { FENCE_LOCK } = await load('libs/event-store/dist/fence.js');
const { tortureFence } = await load('libs/event-store/dist/testing/index.js');
const { aSeed, seeded } = await load('libs/testing/dist/index.js');
const { uuidv7 } = await load('libs/kernel/dist/index.js');

const MINUTES = Number(process.argv[2] ?? 5);
const WRITERS = 16;
const seed = process.argv[3] === undefined ? aSeed('fence torture') : Number(process.argv[3]);

/** Another database's transaction, which must hold nothing up. */
async function bystander(url) {
  const elsewhere = new URL(url);
  elsewhere.pathname = '/postgres';
  const client = new pg.Client({ connectionString: elsewhere.href });
  await client.connect();
  await client.query('begin');
  await client.query('select pg_advisory_xact_lock_shared($1), pg_current_xact_id()', [FENCE_LOCK]);
  return client;
}

await withBenchDatabase(async (url) => {
  await migrate(url, eventStoreMigrations);
  const idle = await bystander(url);
  const owner = new pg.Pool({ connectionString: url, max: 4 });
  owner.on('error', () => undefined);
  const database = await openAppDatabase({ url, service: 'torture', poolSize: WRITERS + 8 });
  const doomed = await openAppDatabase({ url, service: 'doomed', poolSize: 4 });
  const from = performance.now();
  const end = from + MINUTES * 60_000;
  const counts = await tortureFence({
    database,
    doomed,
    asOwner: async (sql, parameters) => (await owner.query(sql, parameters)).rows,
    tenants: [uuidv7(), uuidv7(), uuidv7()],
    writers: WRITERS,
    victims: 4,
    readers: 6,
    subscriptions: 6,
    streams: 24,
    lots: (n) => seeded(seed + n),
    isOver: () => performance.now() > end,
  });
  await idle.end();
  await Promise.all([owner.end(), database.close(), doomed.close()]);
  console.log(`| ${Math.round((performance.now() - from) / 1000)} s, seed ${seed} | count |`);
  console.log('|---|---|');
  for (const [name, count] of Object.entries(counts)) console.log(`| ${name} | ${count} |`);
  const { lost, duplicated, inverted, ghosts, marksBack } = counts;
  if (lost + duplicated + inverted + ghosts + marksBack > 0) process.exitCode = 1;
});
