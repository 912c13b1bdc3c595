// Appends of `append`, the way the product does them, against `@event-driven-io/emmett-postgresql`, each in a database of its
// own on the same Postgres, with pools of the same size and the same events. Durability is the server's for both.
//
// - single events: 50 callers, each appending one event after the other to a stream of its own, at no expected version.
// - batches: 100 events per append, one stream per append, by as many callers as there are connections.
//
// Ours: `append` in a transaction of its own (tenant, role and row-level security included, which the peer does without), and
// `append` behind GroupCommit, as commands are written. Each arm warms up, then runs in turns; the middle run is printed. For
// single events in group commit the streams of the callers are the same as in the other arms.
//
//   npm install --prefix tools/bench
//   node tools/bench/append-emmett.mjs [seconds per run, default 5] [runs, default 5]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';
import pg from 'pg';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { append, eventStoreMigrations, GroupCommit } = await load('libs/event-store/dist/index.js');
const { uuidv7 } = await load('libs/kernel/dist/index.js');

const SECONDS = Number(process.argv[2] ?? 5);
const RUNS = Number(process.argv[3] ?? 5);
const POOL = 10;
const TENANT = uuidv7();
const METADATA = { actor: `user:${uuidv7()}`, correlationId: uuidv7(), causationId: uuidv7() };
const CASES = [
  { name: '1 event, 50 callers, a stream each', callers: 50, batch: 1, isStreamPerAppend: false },
  { name: `100 events, ${POOL} callers, a stream each append`, callers: POOL, batch: 100, isStreamPerAppend: true },
];

const dataOf = (n) => ({ name: `Contact ${n}`, email: `c${n}@example.com`, stage: 'Lead', value: n });

/** Ours: `write(stream, events)` answers after the commit. */
function ours(database) {
  const appendAll = async (appends) => {
    const result = await database.transaction(TENANT, (tx) => append(tx, TENANT, appends));
    if (!result.ok) throw new Error('conflict');
    return result;
  };
  const group = new GroupCommit({
    commit: async (_tenant, commands) => {
      await appendAll(commands);
      return commands.map(() => null);
    },
    streamsOf: ({ stream }) => [stream],
    isRolledBack: () => false,
  });
  const toAppend = (stream, numbers) => ({
    stream,
    expected: 'any',
    events: numbers.map((n) => ({ type: 'Contact.updated', schemaVersion: 1, data: dataOf(n) })),
    metadata: METADATA,
  });
  return {
    'append, a transaction each': (stream, numbers) => appendAll([toAppend(stream, numbers)]),
    'append, group commit': (stream, numbers) => group.submit(TENANT, toAppend(stream, numbers)),
  };
}

/** The peer, by its own documentation: a store on a pool. */
function emmett(url) {
  const pool = new pg.Pool({ connectionString: url, max: POOL });
  const store = getPostgreSQLEventStore(url, { connectionOptions: { pool } });
  return {
    prepare: () => store.schema.migrate(),
    write: (stream, numbers) =>
      store.appendToStream(
        stream,
        numbers.map((n) => ({ type: 'Contact.updated', data: dataOf(n), metadata: METADATA })),
      ),
    close: async () => {
      await store.close();
      if (!pool.ended) await pool.end();
    },
  };
}

async function run(write, { callers, batch, isStreamPerAppend }, seconds, label) {
  const latencies = [];
  const from = performance.now();
  const until = from + seconds * 1000;
  const numbers = Array.from({ length: batch }, (_, n) => n);
  const caller = async (n) => {
    for (let i = 0; performance.now() < until; i += 1) {
      const begun = performance.now();
      await write(isStreamPerAppend ? `Contact-${label}-${n}-${i}` : `Contact-${label}-${n}`, numbers);
      latencies.push(performance.now() - begun);
    }
  };
  await Promise.all(Array.from({ length: callers }, (_, n) => caller(n)));
  const rate = (latencies.length * batch) / ((performance.now() - from) / 1000);
  latencies.sort((a, b) => a - b);
  return { rate, p50: percentile(latencies, 0.5), p99: percentile(latencies, 0.99) };
}

const middle = (runs) => runs.toSorted((a, b) => a.rate - b.rate)[Math.floor(runs.length / 2)];

async function count(url, table) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(`select count(*)::int as n from ${table}`);
  await client.end();
  return rows[0].n;
}

await withBenchDatabase(async (url) => {
  await withBenchDatabase(async (theirUrl) => {
    await migrate(url, eventStoreMigrations);
    const database = await openAppDatabase({ url, service: 'bench', poolSize: POOL });
    const peer = emmett(theirUrl);
    await peer.prepare();
    const arms = { 'emmett-postgresql': peer.write, ...ours(database) };
    console.log('| case | arm | events/s | lowest–highest | p50 ms | p99 ms | ratio |');
    console.log('|---|---|---|---|---|---|---|');
    for (const [at, one] of CASES.entries()) {
      const runs = Object.fromEntries(Object.keys(arms).map((arm) => [arm, []]));
      for (const [n, write] of Object.values(arms).entries()) await run(write, one, 2, `warm-${at}-${n}`);
      for (let round = 0; round < RUNS; round += 1) {
        for (const [n, [arm, write]] of Object.entries(arms).entries()) {
          runs[arm].push(await run(write, one, SECONDS, `${at}-${round}-${n}`));
        }
      }
      const base = middle(runs['emmett-postgresql']).rate;
      for (const [arm, results] of Object.entries(runs)) {
        const { rate, p50, p99 } = middle(results);
        const rates = results.map((result) => Math.round(result.rate)).sort((a, b) => a - b);
        console.log(
          `| ${one.name} | ${arm} | ${Math.round(rate)} | ${rates[0]}–${rates.at(-1)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${(rate / base).toFixed(2)} |`,
        );
      }
    }
    // That both really wrote what they acknowledged.
    console.log(
      `\nrows: event_log ${await count(url, 'event_log')}, emt_messages ${await count(theirUrl, 'emt_messages')}`,
    );
    await peer.close();
    await database.close();
  });
});
