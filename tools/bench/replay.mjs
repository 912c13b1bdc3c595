// Replay of the log into a fresh projection that counts events per stream and adds up a number, set-based: one worker, two
// tenants, small events. Each arm runs three times, in turns, into a projection of its own; the middle run is printed.
//
//   node tools/bench/replay.mjs [events, default 200000]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { Leases1700000001000, migrate, openAppDatabase, openSystemDatabase } = await load(
  'libs/platform/dist/postgres/index.js',
);
const { append, eventStoreMigrations, ProjectionRunner } = await load('libs/event-store/dist/index.js');
const { uuidv7 } = await load('libs/kernel/dist/index.js');

const EVENTS = Number(process.argv[2] ?? 200_000);
const STREAMS = 20_000;
const PER_APPEND = 1_000;
const TENANTS = [uuidv7(), uuidv7()];
const METADATA = { actor: 'user:bench', correlationId: uuidv7(), causationId: uuidv7() };

/** Contacts as the models write them: the values that were given. */
async function fill(app) {
  for (let from = 0; from < EVENTS; from += PER_APPEND) {
    const tenant = TENANTS[(from / PER_APPEND) % TENANTS.length];
    const appends = Array.from({ length: Math.min(PER_APPEND, EVENTS - from) }, (_, i) => ({
      stream: `Contact-${(from + i) % STREAMS}`,
      expected: 'any',
      events: [
        {
          type: 'Contact.updated',
          schemaVersion: 1,
          data: { name: `Contact ${from + i}`, email: `c${from + i}@example.com`, stage: 'Lead', value: i },
        },
      ],
      metadata: METADATA,
    }));
    await app.transaction(tenant, (tx) => append(tx, tenant, appends));
  }
}

/** Folds in memory, then writes once per batch; `rows` are the events of one write. */
function counting(name, rows) {
  const write = async (batch, tx) => {
    const folded = new Map();
    for (const { tenant, stream, data } of batch) {
      const key = `${tenant} ${stream}`;
      const row = folded.get(key);
      if (row) {
        row.n += 1;
        row.sum += data.value;
      } else folded.set(key, { tenant, stream, n: 1, sum: data.value });
    }
    const all = [...folded.values()];
    await tx.execute(
      `insert into counts as c (projection, tenant_id, stream, n, sum)
       select $1, * from unnest($2::uuid[], $3::text[], $4::int[], $5::bigint[])
       on conflict (projection, tenant_id, stream) do update set n = c.n + excluded.n, sum = c.sum + excluded.sum`,
      [name, all.map((r) => r.tenant), all.map((r) => r.stream), all.map((r) => r.n), all.map((r) => r.sum)],
    );
  };
  return {
    name,
    version: 1,
    mode: 'async',
    tables: [],
    eventTypes: { 'Contact.created': [1], 'Contact.updated': [1] },
    async apply(batch, tx) {
      for (let from = 0; from < batch.length; from += rows) await write(batch.slice(from, from + rows), tx);
    },
  };
}

async function run(system, databaseUrl, projection) {
  const applied = Promise.withResolvers();
  let count = 0;
  const apply = async (batch, tx) => {
    await projection.apply(batch, tx);
    count += batch.length;
    if (count >= EVENTS) applied.resolve();
  };
  const runner = new ProjectionRunner({
    database: system,
    databaseUrl,
    projections: [{ ...projection, apply }],
    onError: applied.reject,
  });
  const from = performance.now();
  await runner.start();
  await applied.promise;
  // Ends with the commit of the last batch.
  await runner.stop();
  return EVENTS / ((performance.now() - from) / 1000);
}

const middle = (rates) => rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)];

await withBenchDatabase(async (url) => {
  await migrate(url, [Leases1700000001000, ...eventStoreMigrations]);
  const owner = new pg.Client({ connectionString: url });
  await owner.connect();
  // Dropped with the database when a run fails, whose error is the one to see.
  owner.on('error', () => undefined);
  await owner.query(
    `create table counts (projection text, tenant_id uuid, stream text, n int, sum bigint, primary key (projection, tenant_id, stream))`,
  );
  await owner.query('grant select, insert, update on counts to atomo_system');
  const app = await openAppDatabase({ url, service: 'bench' });
  const system = await openSystemDatabase({ url, service: 'bench' });
  await fill(app);
  await owner.query('vacuum analyze event_log');
  const arms = { 'one write per 100 events': [100, []], 'one write per batch': [Infinity, []] };
  for (let round = 0; round < 3; round += 1) {
    for (const [arm, [rows, rates]] of Object.entries(arms)) {
      rates.push(await run(system, url, counting(`${arm.replaceAll(' ', '-')}-${round}`, rows)));
    }
  }
  const { rows } = await owner.query('select projection, sum(n)::int as n from counts group by 1');
  if (rows.some(({ n }) => n !== EVENTS)) throw new Error(`wrong counts: ${JSON.stringify(rows)}`);
  const base = middle(arms['one write per 100 events'][1]);
  console.log('| events | arm | events/s | ratio |');
  console.log('|---|---|---|---|');
  for (const [arm, [, rates]] of Object.entries(arms)) {
    const rate = middle(rates);
    console.log(`| ${EVENTS} | ${arm} | ${Math.round(rate)} | ${(rate / base).toFixed(1)} |`);
  }
  await Promise.all([app.close(), system.close(), owner.end()]);
});
