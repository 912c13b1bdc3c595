// Replay of the log into a fresh projection, set-based: one worker, two tenants, contacts with ten versions each.
//
// - one write per 100 events, one write per batch: counts events per stream and adds up a number.
// - rows, history: what the product computes of a model, its read rows and their history.
// - sealed: the same from a log whose personal fields are sealed, each contact under its own key.
//
// Each arm runs three times, in turns, into a projection of its own; the middle run is printed.
//
//   node tools/bench/replay.mjs [events, default 200000]
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { Leases1700000001000, migrate, openAppDatabase, openSystemDatabase } = await load(
  'libs/platform/dist/postgres/index.js',
);
const { append, EventCodec, eventStoreMigrations, ProjectionRunner, SubjectKeys } = await load(
  'libs/event-store/dist/index.js',
);
const { ATOMO_EVENTS } = await load('libs/events/dist/index.js');
const { uuidv7 } = await load('libs/kernel/dist/index.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { historyTable } = await load('apps/content-core/dist/models/schema-diff.js');
const { historyProjection } = await load('apps/content-core/dist/models/history-projection.js');
const { rowProjection } = await load('apps/content-core/dist/models/row-projection.js');
const { default: schema } = await load('services/crm/schema.ts');

const Contact = schema.models.find((model) => model.name === 'Contact');
const EVENTS = Number(process.argv[2] ?? 200_000);
/** One in ten events begins a record. */
const STREAMS = Math.max(1, Math.floor(EVENTS / 10));
const IDS = Array.from({ length: STREAMS }, () => uuidv7());
const PER_APPEND = 1_000;
const TENANTS = [uuidv7(), uuidv7()];
const METADATA = { actor: 'user:bench', correlationId: uuidv7(), causationId: uuidv7() };

/** Contacts as the models write them: the values that were given. A contact is of one tenant. */
async function fill(app, codec) {
  for (let from = 0; from < EVENTS; from += PER_APPEND) {
    const appends = TENANTS.map(() => []);
    for (let n = from; n < Math.min(from + PER_APPEND, EVENTS); n += 1) {
      const stream = `Contact-${IDS[n % STREAMS]}`;
      const type = n < STREAMS ? 'Contact.created' : 'Contact.updated';
      const data = { name: `Contact ${n}`, email: `c${n}@example.com`, stage: 'Lead', value: n };
      const personal = codec ? { personal: { subject: stream, fields: ['name', 'email'] } } : {};
      const events = [{ type, schemaVersion: 1, data, ...personal }];
      appends[(n % STREAMS) % TENANTS.length].push({ stream, expected: 'any', events, metadata: METADATA });
    }
    for (const [n, tenant] of TENANTS.entries()) {
      await app.transaction(tenant, async (tx) =>
        append(tx, tenant, codec ? await codec.encode(tx, tenant, appends[n]) : appends[n]),
      );
    }
  }
}

/** A projection of the product under a name of its own, into the tables that are there. */
function ofModel(name, projection) {
  const target = { build: 1, isLive: true, table: (base) => base, mayAct: () => false };
  return {
    name,
    version: 1,
    mode: 'async',
    tables: [],
    eventTypes: projection.eventTypes,
    apply: (batch, tx) => projection.apply(batch, tx, target),
  };
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

async function run(system, databaseUrl, projection, decode) {
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
    decode,
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

const results = [];

for (const codec of [null, new EventCodec(new SubjectKeys('the encryption key of the benchmark'), ATOMO_EVENTS)]) {
  await withBenchDatabase(async (url) => {
    await migrate(url, [Leases1700000001000, ...eventStoreMigrations]);
    await createModelTables(url, schema);
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
    await fill(app, codec);
    await owner.query('vacuum analyze event_log');
    const models = [
      ['rows', (name) => ofModel(name, rowProjection(Contact)), Contact.table, 'count(*)', STREAMS],
      ['history', (name) => ofModel(name, historyProjection(schema)), historyTable(Contact), 'count(*)', EVENTS],
    ];
    const counts = [
      ['one write per 100 events', (name) => counting(name, 100), 'counts', 'sum(n)', EVENTS],
      ['one write per batch', (name) => counting(name, Infinity), 'counts', 'sum(n)', EVENTS],
    ];
    const arms = codec ? models.map(([arm, ...rest]) => [`${arm}, sealed`, ...rest]) : [...counts, ...models];
    const rates = new Map(arms.map(([arm]) => [arm, []]));
    const decode = codec ? (tx, events) => codec.decode(tx, events) : undefined;
    for (let round = 0; round < 3; round += 1) {
      for (const [arm, make, table, amount, expected] of arms) {
        await owner.query(`truncate ${table}`);
        const name = `${arm.replaceAll(/\W+/g, '-')}-${round}`;
        rates.get(arm).push(await run(system, url, make(name), decode));
        // The owner may be held to the rows of a tenant.
        const [{ n }] = await system.transaction((tx) => tx.query(`select ${amount}::int as n from ${table}`));
        if (n !== expected) throw new Error(`${arm}: ${n} instead of ${expected}`);
      }
    }
    for (const [arm, all] of rates) results.push([arm, middle(all)]);
    await Promise.all([app.close(), system.close(), owner.end()]);
  });
}

console.log('| events | arm | events/s | ratio |');
console.log('|---|---|---|---|');
for (const [arm, rate] of results) {
  console.log(`| ${EVENTS} | ${arm} | ${Math.round(rate)} | ${(rate / results[0][1]).toFixed(1)} |`);
}
console.log(`load average ${os.loadavg()[0].toFixed(1)}`);
