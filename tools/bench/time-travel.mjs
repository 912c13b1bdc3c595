// What questions about the past cost on a long log: events of contacts of two tenants, ten versions each, spread over a year, and
// single contacts with 1,000 and 10,000 versions. The log, its audit rows and streams are written by SQL, the audit rows by the
// product's own statement; history and snapshots by the product itself. Personal fields are not sealed (sealing.mjs has what
// opening them costs). Each question is asked through the product's functions, in a transaction of its own, by the role of
// requests.
//
//   node tools/bench/time-travel.mjs [events, default 1000000] [times each question is asked, default 200]
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { Leases1700000001000, migrate, openAppDatabase, openSystemDatabase } = await load(
  'libs/platform/dist/postgres/index.js',
);
const {
  eventStoreMigrations,
  keepSnapshots,
  ProjectionRunner,
  readAudit,
  readChanges,
  readStream,
  stateAt,
  SNAPSHOT_EVERY,
} = await load('libs/event-store/dist/index.js');
const { insertAuditRows } = await load('libs/event-store/dist/audit.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { historyProjection } = await load('apps/content-core/dist/models/history-projection.js');
const { recordFold, recordToKeep } = await load('apps/content-core/dist/models/record-states.js');
const { readAsOf, readHistory } = await load('apps/content-core/dist/models/history.js');
const { compileGet, compileList } = await load('apps/content-core/dist/models/query-compiler.js');
const { readerOf } = await load('apps/content-core/dist/models/record-access.js');
const { default: schema } = await load('services/crm/schema.ts');

const EVENTS = Number(process.argv[2] ?? 1_000_000);
const TIMES = Number(process.argv[3] ?? 200);
/** Asked before the clock runs, so that plans and pages are there as on a server that has run for a while. */
const WARM_UP = 10;
const VERSIONS = 10;
const COMPANIES = 400;
/** The share of events that one record may have, where the log is short. */
const LONG = [Math.min(1_000, Math.floor(EVENTS / 40)), Math.min(10_000, Math.floor(EVENTS / 20))];
const CONTACTS = 2 * Math.floor((EVENTS - COMPANIES - LONG[0] - LONG[1]) / VERSIONS / 2);
/** Of so many events one is of a rare kind, or names a rare field; even, as the first tenant's contacts are. */
const RARE = 2 * Math.min(2_500, Math.ceil(CONTACTS / 8));
/** Prime, and so no divisor of the number of contacts: each round of events meets all of them, in an order of its own. */
const STRIDE = 1_000_003;
const YEAR_MS = 365 * 24 * 3600 * 1000;
const END = Math.floor(Date.now() / 1000) * 1000 - 3600_000;
const START = END - YEAR_MS;
const TENANTS = ['01900000-0000-7000-8000-00000000000a', '01900000-0000-7000-8000-00000000000b'];
const [TENANT] = TENANTS;
const Contact = schema.models.find((model) => model.name === 'Contact');
const READER = readerOf(schema, { tenantId: TENANT, userId: TENANT, role: 'Admin' });
const MARK_AUDIT_MS = 20;

const id = (kind, n) => `01900000-0000-7000-80${kind}0-${n.toString(16).padStart(12, '0')}`;
const contactId = (n) => id('1', n);
const companyId = (n) => id('2', n);
const longId = (n) => id('3', n);
const sqlId = (kind, n) => `('01900000-0000-7000-80${kind}0-' || lpad(to_hex(${n}), 12, '0'))`;

/** Of contact n, as of company n, the tenant is the one of its parity; the long records are of the first. */
const FILL = `
  with said as (
    select $4::float8 + 0.0 as at, n % 2 as tenant, 'Company-' || ${sqlId('2', 'n')} as stream, 1 as version,
           'Company.created' as type, jsonb_build_object('name', 'Company ' || n, 'industry', 'Trade') as data, n as seed
    from generate_series(0, $1::int - 1) n
    union all
    select $4 + 1 + (r * $2::float8 + k) / ($2::float8 * ${VERSIONS}) * $5, c % 2, 'Contact-' || ${sqlId('1', 'c')}, r + 1,
           case when r = 0 then 'Contact.created' when (k + r) % ${RARE} = 8 then 'Contact.restored' else 'Contact.updated' end,
           case when r = 0 then jsonb_build_object('name', 'Contact ' || c, 'email', 'c' || c || '@example.com',
                  'phone', '+1 555 ' || c, 'stage', 'Lead', 'companyId', ${sqlId('2', '(c % 2 + 2 * ((c / 2) % ($1 / 2)))')})
                when (k + r) % ${RARE} = 4 then jsonb_build_object('birthday', '1990-01-01')
                when r % 3 = 0 then jsonb_build_object('phone', '+1 555 ' || (c + r))
                when r % 3 = 1 then jsonb_build_object('stage', (array['Lead', 'Prospect', 'Customer', 'Former'])[1 + (k + r) % 4])
                else jsonb_build_object('name', 'Contact ' || c || ' ' || r, 'email', 'c' || c || '.' || r || '@example.com') end,
           k * 7 + r
    from generate_series(0, ${VERSIONS - 1}) r, generate_series(0, $2::int - 1) k,
         lateral (select ((k::bigint * ${STRIDE} + r * 7919) % $2)::int as c) p
    union all
    select $4 + 1 + v::float8 / n * ($5 - 1), 0, 'Contact-' || ${sqlId('3', 'w - 1')}, v, case v when 1 then 'Contact.created' else 'Contact.updated' end,
           case v when 1 then jsonb_build_object('name', 'Long ' || w, 'email', 'long@example.com', 'stage', 'Lead')
                  else jsonb_build_object('phone', '+1 555 ' || v) end, v
    from unnest($3::int[]) with ordinality l (n, w), lateral generate_series(1, n) v
  )
  insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at)
  select row_number() over (order by at, stream, version), ($6::uuid[])[1 + tenant], stream, version, type, 1, data,
         jsonb_build_object('actor', case when seed % 20011 = 7 then 'key:rare' when seed % 10 < 6 then 'user:0' else 'user:' || seed % 20 end,
                            'correlationId', 'r' || seed, 'causationId', 'r' || seed),
         to_timestamp(floor(at) / 1000.0)
  from said order by 1`;

const FILLED = [
  'event_log',
  'event_streams',
  'audit_log',
  'model_contact',
  'model_company',
  'history_contact',
  'history_company',
];

async function fill(owner) {
  // The owner's rights end at the tenants' rows, but not for as long as it says so itself.
  for (const table of FILLED) await owner.query(`alter table ${table} no force row level security`);
  await owner.query(FILL, [COMPANIES, CONTACTS, LONG, START, YEAR_MS, TENANTS]);
  await owner.query(`select setval('event_log_position', (select max(position) from event_log))`);
  await owner.query(
    'insert into event_streams (tenant_id, stream, version) select tenant_id, stream, max(stream_version) from event_log group by 1, 2',
  );
  await owner.query(insertAuditRows('event_log order by position'));
  await owner.query('vacuum analyze');
}

/** History as the runner makes it, which also says how far it has got; read rows are what is valid in it now. */
async function project(owner, system, url, events) {
  const applied = Promise.withResolvers();
  const history = historyProjection(schema);
  let count = 0;
  const runner = new ProjectionRunner({
    database: system,
    databaseUrl: url,
    projections: [
      {
        ...history,
        async apply(batch, tx, target) {
          await history.apply(batch, tx, target);
          count += batch.length;
          if (count >= events) applied.resolve();
        },
      },
    ],
    onError: applied.reject,
  });
  await runner.start();
  await applied.promise;
  await runner.stop();
  for (const model of schema.models.filter(({ name }) => ['Contact', 'Company'].includes(name))) {
    const { rows } = await owner.query(
      `select string_agg(quote_ident(attname), ', ') as columns from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped`,
      [model.table],
    );
    await owner.query(
      `insert into ${model.table} (${rows[0].columns}) select ${rows[0].columns}
       from ${model.table.replace('model_', 'history_')} where valid_to = 'infinity'`,
    );
  }
}

/** The snapshots that commands would have kept. */
async function snapshots(app) {
  for (const n of LONG.keys()) {
    await app.transaction(TENANT, async (tx) => {
      const stream = `Contact-${longId(n)}`;
      let state = null;
      const due = [];
      for (let from = 1; ; from += 1_000) {
        const events = await readStream(tx, TENANT, stream, { from, limit: 1_000 });
        for (const event of events) {
          state = recordFold.evolve(state, event);
          if (event.streamVersion % SNAPSHOT_EVERY === 0)
            due.push(recordToKeep(Contact, longId(n), event.streamVersion, state));
        }
        if (events.length < 1_000) break;
      }
      await keepSnapshots(tx, TENANT, due);
    });
  }
}

/** Compares what the history says with what the log comes to, for some records and times. */
async function check(app) {
  const names = ['name', 'email', 'phone', 'stage', 'companyId', 'birthday'];
  const node = new Map(['id', 'version', ...names].map((name) => [name, new Map()]));
  for (let n = 0; n < 50; n += 1) {
    const contact = contactId(evenContact());
    const time = anyTime();
    const { text, parameters } = compileGet(READER, Contact, contact, node, time);
    const [row, said] = await app.transaction(TENANT, async (tx) => [
      (await tx.query(text, parameters))[0]?.node,
      await stateAt(tx, TENANT, `Contact-${contact}`, { time: new Date(time) }, recordFold),
    ]);
    const expected = said && [said.version, ...names.map((name) => said.state[name] ?? null)];
    const found = row ? [row.version, ...names.map((name) => row[name])] : null;
    if (JSON.stringify(found) !== JSON.stringify(expected)) {
      throw new Error(`${contact} at ${time}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
    }
  }
}

// The same questions in every run.
let seed = 42;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
const anyTime = (from = 0, to = 1) =>
  new Date(START + 60_000 + (from + random() * (to - from)) * (YEAR_MS - 120_000)).toISOString();
const evenContact = () => 2 * Math.floor(random() * Math.floor(CONTACTS / 2));

/**
 * Each question: its name, what asks it once and answers how many rows came, and its mark or number of times if it has its own.
 *
 * @returns {Generator<[string, () => Promise<number>, { mark?: number, times?: number }?]>}
 */
function* questions(app, max) {
  const own = (read) => app.transaction(TENANT, read);
  const node = new Map(
    ['id', 'version', 'name', 'email', 'phone', 'stage', 'companyId', 'updatedAt'].map((n) => [n, new Map()]),
  );
  const withCompany = new Map([...node, ['company', new Map([['name', new Map()]])]]);
  const at = (time, compile) =>
    readAsOf(app, schema, TENANT, time, async (tx, asOf) => {
      const { text, parameters } = compile(asOf);
      const [row] = await tx.query(text, parameters);
      return row?.rows?.length ?? (row ? 1 : 0);
    });
  const list = (query) => (asOf) =>
    compileList(READER, Contact, {
      where: null,
      orderBy: [],
      after: null,
      limit: 51,
      node,
      withTotal: false,
      asOf,
      ...query,
    });
  const ofCompany = () => ({ companyId: { equals: companyId(2 * Math.floor((random() * COMPANIES) / 2)) } });

  yield [
    'contact asOf',
    () => at(anyTime(), (asOf) => compileGet(READER, Contact, contactId(evenContact()), node, asOf)),
  ];
  yield [
    'contact asOf, with its company',
    () => at(anyTime(), (asOf) => compileGet(READER, Contact, contactId(evenContact()), withCompany, asOf)),
  ];
  yield [
    `contact asOf, ${LONG[1]} versions`,
    () => at(anyTime(), (asOf) => compileGet(READER, Contact, longId(1), node, asOf)),
  ];
  yield ['contacts asOf, first 50', () => at(anyTime(0.2), list({}))];
  yield ['contacts asOf, 50 behind a cursor', () => at(anyTime(0.2), list({ after: [contactId(evenContact())] }))];
  yield ['contacts asOf, of a company', () => at(anyTime(0.2), list({ where: ofCompany() }))];
  yield [
    'contacts asOf, of a company, by name',
    () => at(anyTime(0.2), list({ where: ofCompany(), orderBy: [{ name: 'ASC' }] })),
  ];
  yield [
    'contacts asOf, of a company, totalCount',
    () => at(anyTime(0.2), list({ where: ofCompany(), withTotal: true })),
  ];
  yield ['contacts asOf, all by name', () => at(anyTime(0.2), list({ orderBy: [{ name: 'ASC' }] })), { times: 20 }];
  yield ['contacts asOf, all, totalCount', () => at(anyTime(0.2), list({ withTotal: true })), { times: 20 }];

  const history = (contact, before) =>
    own(async (tx) => (await readHistory(tx, READER, Contact, contact, { before, limit: 21 }, {})).entries.length);
  yield [`contactHistory, ${VERSIONS} versions`, () => history(contactId(evenContact()), null)];
  for (const [n, versions] of LONG.entries()) {
    yield [`contactHistory, ${versions} versions, newest`, () => history(longId(n), null)];
    yield [
      `contactHistory, ${versions} versions, deep`,
      () => history(longId(n), 30 + Math.floor(random() * (versions - 30))),
    ];
    const state = { version: 0 };
    yield [
      `stateAt, ${versions} versions`,
      () => {
        state.version = 1 + Math.floor(random() * (versions - 1));
        return own(async (tx) => (await stateAt(tx, TENANT, `Contact-${longId(n)}`, { ...state }, recordFold)) && 1);
      },
    ];
  }

  const audit = (filter, withChanges) =>
    own(async (tx) => {
      const { entries } = await readAudit(tx, TENANT, { settled: max, limit: 51, ...filter });
      if (withChanges) await readChanges(tx, TENANT, entries, null);
      return entries.length;
    });
  const deep = () => ({ after: BigInt(1 + Math.floor(random() * Number(max))) });
  const range = (share) => {
    const from = START + random() * (1 - share) * YEAR_MS;
    return { from: new Date(from), to: new Date(from + share * YEAR_MS) };
  };
  const HOUR = 1 / 8760;
  const filters = {
    'no filter': () => ({}),
    'a common actor': () => ({ actor: 'user:0' }),
    'a rare actor': () => ({ actor: 'key:rare' }),
    'a common action': () => ({ actions: ['Contact.updated'] }),
    'a rare action': () => ({ actions: ['Contact.restored'] }),
    'three actions': () => ({ actions: ['Contact.created', 'Contact.updated', 'Contact.restored'] }),
    'a record': () => ({ stream: `Contact-${contactId(evenContact())}` }),
    'a long record': () => ({ stream: `Contact-${longId(1)}` }),
    'a common field': () => ({ fields: ['phone'] }),
    'a rare field': () => ({ fields: ['birthday'] }),
    'a field that never was': () => ({ fields: ['nothing'] }),
    'an hour': () => range(HOUR),
    'nine months': () => range(0.75),
    'a common actor, a rare action': () => ({ actor: 'user:0', actions: ['Contact.restored'] }),
    'a common actor, a rare field': () => ({ actor: 'user:0', fields: ['birthday'] }),
    'a rare actor, an hour': () => ({ actor: 'key:rare', ...range(HOUR) }),
    'a common action, a day': () => ({ actions: ['Contact.updated'], ...range(24 * HOUR) }),
    'a common action, a rare field': () => ({ actions: ['Contact.updated'], fields: ['birthday'] }),
    'a long record, a rare field': () => ({ stream: `Contact-${longId(1)}`, fields: ['birthday'] }),
    'a long record, nine months': () => ({ stream: `Contact-${longId(1)}`, ...range(0.75) }),
  };
  const mark = MARK_AUDIT_MS;
  for (const [name, filter] of Object.entries(filters)) {
    yield [`auditLog, ${name}`, () => audit(filter(), false), { mark }];
    yield [`auditLog, ${name}, deep`, () => audit({ ...filter(), ...deep() }, false), { mark }];
  }
  for (const name of [
    'no filter',
    'a common actor',
    'a rare action',
    'a record',
    'a long record',
    'a rare field',
    'an hour',
  ]) {
    yield [`auditLog, ${name}, with changes`, () => audit(filters[name](), true), { mark }];
    yield [`auditLog, ${name}, deep, with changes`, () => audit({ ...filters[name](), ...deep() }, true), { mark }];
  }
}

async function ask(work, times) {
  for (let n = 0; n < Math.min(WARM_UP, times); n += 1) await work();
  const took = [];
  let rows = 0;
  for (let n = 0; n < times; n += 1) {
    const from = performance.now();
    rows += await work();
    took.push(performance.now() - from);
  }
  return { took: took.sort((a, b) => a - b), rows: rows / times };
}

await withBenchDatabase(async (url) => {
  await migrate(url, [Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(url, schema);
  const owner = new pg.Client({ connectionString: url });
  await owner.connect();
  // Dropped with the database when a run fails, whose error is the one to see.
  owner.on('error', () => undefined);
  const began = performance.now();
  await fill(owner);
  const { rows } = await owner.query('select count(*)::int as events, max(position) as max from event_log');
  const app = await openAppDatabase({ url, service: 'bench', poolSize: 2 });
  const system = await openSystemDatabase({ url, service: 'bench' });
  const filled = performance.now();
  await project(owner, system, url, rows[0].events);
  const projected = performance.now();
  await snapshots(app);
  for (const table of FILLED) await owner.query(`alter table ${table} force row level security`);
  await owner.query('vacuum analyze');
  await owner.query('checkpoint').catch(() => undefined);
  await check(app);
  const seconds = (ms) => (ms / 1000).toFixed(0);
  console.log(
    `${rows[0].events} events of ${CONTACTS + LONG.length} contacts: written in ${seconds(filled - began)} s, history in ${seconds(projected - filled)} s\n`,
  );
  console.log('| question | rows | p50 ms | p95 ms | p99 ms | mark |');
  console.log('|---|---|---|---|---|---|');
  for (const [name, work, { mark, times = TIMES } = {}] of questions(app, BigInt(rows[0].max))) {
    const { took, rows: found } = await ask(work, Math.min(times, TIMES));
    const [p50, p95, p99] = [0.5, 0.95, 0.99].map((share) => percentile(took, share));
    const verdict = mark === undefined ? '' : `p95 < ${mark}: ${p95 < mark ? 'met' : '**missed**'}`;
    console.log(
      `| ${name} | ${found.toFixed(1)} | ${[p50, p95, p99].map((ms) => ms.toFixed(2)).join(' | ')} | ${verdict} |`,
    );
  }
  console.log(`\nload average ${os.loadavg()[0].toFixed(1)}`);
  await Promise.all([app.close(), system.close(), owner.end()]);
});
