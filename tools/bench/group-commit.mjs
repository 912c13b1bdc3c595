// Durable creates of Contacts (event, row and audit row), with the same callers, pool, role and rows:
//
// - lean transaction each: the floor, written by hand: begin, tenant, one statement for stream, event, row and audit row, commit. It
//   validates nothing, draws no chain link and takes no fence, so it does less than the product must.
// - one transaction each: the product's own way with batches of one.
// - group commit: the product without what hides personal fields.
// - group commit, sealed: the product as it is. Each contact costs a key, its row, and two ciphers.
//
// Each arm runs three times, in turns, for as long; the middle run is printed, with its ratio to the lean floor.
//
//   node tools/bench/group-commit.mjs [seconds per run, default 5]
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { EventCodec, eventStoreMigrations, SubjectKeys } = await load('libs/event-store/dist/index.js');
const { ATOMO_EVENTS } = await load('libs/events/dist/index.js');
const { DEFAULT_TENANT_ID, uuidv7 } = await load('libs/kernel/dist/index.js');
const { RecordCommands } = await load('apps/content-core/dist/models/commands.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { default: schema } = await load('services/crm/schema.ts');

const SECONDS = Number(process.argv[2] ?? 5);
const POOL = 10;
const Contact = schema.models.find((model) => model.name === 'Contact');
const user = uuidv7();
const context = {
  principal: { tenantId: DEFAULT_TENANT_ID, actor: `user:${user}`, userId: user, role: 'Admin' },
  requestId: uuidv7(),
};

/** `callers` create one contact after the other until the time is over. */
async function run(commands, callers) {
  const latencies = [];
  const until = performance.now() + SECONDS * 1000;
  const caller = async (n) => {
    for (let i = 0; performance.now() < until; i += 1) {
      const from = performance.now();
      const input = { name: `Caller ${n} ${i}`, email: `c${n}-${i}@example.com`, stage: 'Lead', phone: '+1 555 0100' };
      await commands.create({ model: Contact, input, idempotencyKey: null, context });
      latencies.push(performance.now() - from);
    }
  };
  const from = performance.now();
  await Promise.all(Array.from({ length: callers }, (_, n) => caller(n)));
  const seconds = (performance.now() - from) / 1000;
  latencies.sort((a, b) => a - b);
  return { rate: latencies.length / seconds, p50: percentile(latencies, 0.5), p99: percentile(latencies, 0.99) };
}

/** The floor: what a careful programmer writes for one table, without what a log needs besides. */
function leanCommands(url) {
  const pool = new pg.Pool({ connectionString: url, max: POOL, options: '-c role=atomo_app' });
  // Idle connections end with the database when a run fails, whose error is the one to see.
  pool.on('error', () => undefined);
  const text = `with stream as (
      insert into event_streams (tenant_id, stream, version) values ($1, $2, 1)
    ), event as (
      insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata)
      values (nextval('event_log_position'), $1, $2, 1, 'Contact.created', 1, $4, $5)
      returning position, recorded_at
    ), audit as (
      insert into audit_log (tenant_id, position, recorded_at, actor, action, stream, stream_version, fields)
      select $1, position, recorded_at, $10, 'Contact.created', $2, 1, $11 from event
    )
    insert into model_contact (tenant_id, id, version, created_at, updated_at, name, email, stage, phone)
    values ($1, $3, 1, now(), now(), $6, $7, $8, $9)`;
  return {
    create: async ({ input }) => {
      const id = uuidv7();
      const client = await pool.connect();
      try {
        await client.query('begin');
        await client.query({
          name: 'tenant',
          text: `select set_config('app.tenant_id', $1, true)`,
          values: [DEFAULT_TENANT_ID],
        });
        const { name, email, stage, phone } = input;
        const metadata = { actor: context.principal.actor, correlationId: context.requestId };
        await client.query({
          name: 'create',
          text,
          // prettier-ignore
          values: [DEFAULT_TENANT_ID, `Contact-${id}`, id, input, metadata, name, email, stage, phone, metadata.actor, Object.keys(input)],
        });
        await client.query('commit');
      } finally {
        client.release();
      }
    },
    close: () => pool.end(),
  };
}

/** Leaves personal fields as they are; without it the log refuses them. */
const clear = {
  encode: async (_tx, _tenant, appends) =>
    appends.map((entry) => ({
      ...entry,
      events: entry.events.map(({ type, schemaVersion, data }) => ({ type, schemaVersion, data })),
    })),
};

const middle = (runs) => runs.sort((a, b) => a.rate - b.rate)[Math.floor(runs.length / 2)];

await withBenchDatabase(async (url) => {
  await migrate(url, eventStoreMigrations);
  await createModelTables(url, schema);
  const database = await openAppDatabase({ url, service: 'bench', poolSize: POOL });
  const lean = leanCommands(url);
  const codec = new EventCodec(new SubjectKeys('the encryption key of the benchmark'), ATOMO_EVENTS);
  const arms = {
    'lean transaction each': lean,
    'one transaction each': new RecordCommands(schema, database, { codec: clear, maxBatch: 1, maxInFlight: POOL }),
    'group commit': new RecordCommands(schema, database, { codec: clear }),
    'group commit, sealed': new RecordCommands(schema, database, { codec }),
  };
  console.log('| callers | arm | creates/s | p50 ms | p99 ms | ratio |');
  console.log('|---|---|---|---|---|---|');
  for (const callers of [1, 50, 500]) {
    const runs = Object.fromEntries(Object.keys(arms).map((arm) => [arm, []]));
    for (let round = 0; round < 3; round += 1) {
      for (const [arm, commands] of Object.entries(arms)) runs[arm].push(await run(commands, callers));
    }
    const base = middle(runs['lean transaction each']).rate;
    for (const [arm, results] of Object.entries(runs)) {
      const { rate, p50, p99 } = middle(results);
      console.log(
        `| ${callers} | ${arm} | ${Math.round(rate)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${(rate / base).toFixed(1)} |`,
      );
    }
  }
  console.log(`load average ${os.loadavg()[0].toFixed(1)}`);
  await lean.close();
  await database.close();
});
