// Durable creates of Contacts (event, chain, row): one transaction each against group commit, with the same callers, pool,
// role and rows. Each arm runs three times, in turns, for as long; the middle run is printed.
//
//   node tools/bench/group-commit.mjs [seconds per run, default 5]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { eventStoreMigrations } = await load('libs/event-store/dist/index.js');
const { DEFAULT_TENANT_ID, uuidv7 } = await load('libs/kernel/dist/index.js');
const { RecordCommands } = await load('apps/content-core/dist/models/commands.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { default: schema } = await load('services/crm/schema.ts');

const SECONDS = Number(process.argv[2] ?? 5);
const POOL = 10;
const Contact = schema.models.find((model) => model.name === 'Contact');
const context = { principal: { tenantId: DEFAULT_TENANT_ID, userId: uuidv7(), role: 'Admin' }, requestId: uuidv7() };

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

const middle = (runs) => runs.sort((a, b) => a.rate - b.rate)[Math.floor(runs.length / 2)];

await withBenchDatabase(async (url) => {
  await migrate(url, eventStoreMigrations);
  await createModelTables(url, schema);
  const database = await openAppDatabase({ url, service: 'bench', poolSize: POOL });
  const arms = {
    'one transaction each': new RecordCommands(schema, database, { maxBatch: 1, maxInFlight: POOL }),
    'group commit': new RecordCommands(schema, database),
  };
  console.log('| callers | arm | creates/s | p50 ms | p99 ms | ratio |');
  console.log('|---|---|---|---|---|---|');
  for (const callers of [1, 50, 500]) {
    const runs = { 'one transaction each': [], 'group commit': [] };
    for (let round = 0; round < 3; round += 1) {
      for (const [arm, commands] of Object.entries(arms)) runs[arm].push(await run(commands, callers));
    }
    const base = middle(runs['one transaction each']).rate;
    for (const [arm, results] of Object.entries(runs)) {
      const { rate, p50, p99 } = middle(results);
      console.log(
        `| ${callers} | ${arm} | ${Math.round(rate)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${(rate / base).toFixed(1)} |`,
      );
    }
  }
  await database.close();
});
