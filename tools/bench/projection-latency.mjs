// From a mutation to what an async projection shows: commands are created through RecordCommands, a ProjectionRunner with a
// small upsert projection is woken in-process after each commit, and for every event the time is taken
//
// - from the acknowledgement of its commit to the commit of the projection's batch that has it (below 0 counts as 0: the
//   projection may be quicker than the way back to the caller), and
// - from the call of the mutation to the same.
//
// As many callers as they come, 10 and 50; and paced, at 200 creates per second, which begin on time whether or not those
// before them are done.
//
//   node tools/bench/projection-latency.mjs [seconds per run, default 8]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { Leases1700000001000, migrate, openAppDatabase, openSystemDatabase } = await load(
  'libs/platform/dist/postgres/index.js',
);
const { EventCodec, eventStoreMigrations, ProjectionRunner, SubjectKeys } = await load(
  'libs/event-store/dist/index.js',
);
const { ATOMO_EVENTS } = await load('libs/events/dist/index.js');
const { DEFAULT_TENANT_ID, uuidv7 } = await load('libs/kernel/dist/index.js');
const { RecordCommands } = await load('apps/content-core/dist/models/commands.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { default: schema } = await load('services/crm/schema.ts');

const SECONDS = Number(process.argv[2] ?? 8);
const WARM_UP_SECONDS = 3;
const Contact = schema.models.find((model) => model.name === 'Contact');
const user = uuidv7();
const context = {
  principal: { tenantId: DEFAULT_TENANT_ID, actor: `user:${user}`, userId: user, role: 'Admin' },
  requestId: uuidv7(),
};

/** One upsert per batch, as projections are to be written. */
function contactNames() {
  return {
    name: 'contact-names',
    version: 1,
    mode: 'async',
    eventTypes: { 'Contact.created': [1], 'Contact.updated': [1] },
    tables: [],
    apply: (batch, tx) =>
      tx.execute(
        `insert into contact_names as c (tenant_id, stream, version, name)
         select * from unnest($1::uuid[], $2::text[], $3::int[], $4::text[])
         on conflict (tenant_id, stream) do update set version = excluded.version, name = excluded.name
         where c.version < excluded.version`,
        [
          batch.map(({ tenant }) => tenant),
          batch.map(({ stream }) => stream),
          batch.map(({ streamVersion }) => streamVersion),
          batch.map(({ data }) => data.name),
        ],
      ),
  };
}

/** The system database, which tells after each commit which streams' events became visible by it. */
function watched(system, onVisible) {
  const applied = new WeakMap();
  const transaction = async (work) => {
    let inside;
    const result = await system.transaction((tx) => work((inside = tx)));
    const streams = applied.get(inside);
    if (streams) onVisible(streams, performance.now());
    return result;
  };
  return {
    database: { transaction },
    // A batch that failed is applied event by event, in one transaction.
    note: (tx, batch) => applied.set(tx, [...(applied.get(tx) ?? []), ...batch.map(({ stream }) => stream)]),
  };
}

async function run(commands, visible, drive, seconds) {
  const samples = [];
  const from = performance.now();
  const one = async (n) => {
    const called = performance.now();
    const input = {
      name: `Contact ${n}`,
      email: `c${n.replace(' ', '-')}@example.com`,
      stage: 'Lead',
      phone: '+1 555 0100',
    };
    const id = await commands.create({ model: Contact, input, idempotencyKey: null, context });
    samples.push({ stream: `Contact-${id}`, called, committed: performance.now() });
  };
  await drive(one, from + seconds * 1000);
  const rate = samples.length / ((performance.now() - from) / 1000);
  for (const deadline = performance.now() + 30_000; samples.some(({ stream }) => !visible.has(stream));) {
    if (performance.now() > deadline) throw new Error('the projection does not get there', { cause: failures });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const sorted = (numbers) => numbers.sort((a, b) => a - b);
  return {
    rate,
    lag: sorted(samples.map(({ stream, committed }) => Math.max(0, visible.get(stream) - committed))),
    whole: sorted(samples.map(({ stream, called }) => visible.get(stream) - called)),
  };
}

const asTheyCome = (callers) => async (one, until) => {
  await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      for (let n = 0; performance.now() < until; n += 1) await one(`${caller} ${n}`);
    }),
  );
};

const paced = (perSecond) => async (one, until) => {
  const begun = [];
  const from = performance.now();
  for (let n = 0; performance.now() < until; n += 1) {
    const due = from + (n * 1000) / perSecond;
    if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    begun.push(one(`paced ${n}`));
  }
  await Promise.all(begun);
};

await withBenchDatabase(async (url) => {
  await migrate(url, [Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(url, schema);
  const owner = new pg.Client({ connectionString: url });
  await owner.connect();
  owner.on('error', () => undefined);
  await owner.query(
    'create table contact_names (tenant_id uuid, stream text, version int, name text, primary key (tenant_id, stream))',
  );
  await owner.query('grant select, insert, update on contact_names to atomo_system');
  const app = await openAppDatabase({ url, service: 'bench' });
  const system = await openSystemDatabase({ url, service: 'bench', poolSize: 5 });
  const visible = new Map();
  const { database, note } = watched(system, (streams, at) => {
    for (const stream of streams) visible.set(stream, at);
  });
  const projection = contactNames();
  const apply = async (batch, tx) => {
    await projection.apply(batch, tx);
    note(tx, batch);
  };
  const failures = [];
  const codec = new EventCodec(new SubjectKeys('the encryption key of the benchmark'), ATOMO_EVENTS);
  const runner = new ProjectionRunner({
    database,
    databaseUrl: url,
    decode: (tx, events) => codec.decode(tx, events),
    projections: [{ ...projection, apply }],
    onError: (error) => failures.push(error),
  });
  await runner.start();
  const plain = new RecordCommands(schema, app, { codec });
  // As the service does: a hint after each commit.
  const commands = {
    create: async (command) => {
      const { id } = await plain.create(command);
      runner.wake();
      return id;
    },
  };
  const cases = { '10 callers': asTheyCome(10), '50 callers': asTheyCome(50), 'paced, 200/s': paced(200) };
  console.log(
    '| load | creates/s | commit → visible p50 ms | p99 ms | greatest ms | mutation → visible p50 ms | p99 ms |',
  );
  console.log('|---|---|---|---|---|---|---|');
  for (const [name, drive] of Object.entries(cases)) {
    await run(commands, visible, drive, WARM_UP_SECONDS);
    const { rate, lag, whole } = await run(commands, visible, drive, SECONDS);
    const shown = [
      percentile(lag, 0.5),
      percentile(lag, 0.99),
      lag.at(-1),
      percentile(whole, 0.5),
      percentile(whole, 0.99),
    ];
    console.log(`| ${name} | ${Math.round(rate)} | ${shown.map((ms) => ms.toFixed(1)).join(' | ')} |`);
  }
  await runner.stop();
  if (failures.length > 0) console.log(`failed attempts: ${failures.length}, first: ${failures[0]}`);
  const { rows } = await owner.query('select count(*)::int as n from contact_names');
  if (rows[0].n !== visible.size) throw new Error(`${rows[0].n} rows for ${visible.size} contacts`);
  await Promise.all([app.close(), system.close(), owner.end()]);
});
