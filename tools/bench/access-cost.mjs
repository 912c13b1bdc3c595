// What access rules and row-level security cost on a read by id and on a list of 50 contacts with their companies. The same rows
// stand in two databases; in the second row-level security is off. All go the way of the API's reads: compiled by the product,
// through AppDatabase.read, under the role of requests with the tenant set, one at a time, the arms taking turns. Beside the
// tenant's rows stand as many of another tenant; of ten contacts one is hidden by the rule.
//
//   node tools/bench/access-cost.mjs [contacts of a tenant, default 50000] [times, default 2000]
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import pg from 'pg';
import { percentile, ROOT, withBenchDatabase } from './bench-database.mjs';

const load = (file) => import(pathToFileURL(path.join(ROOT, file)).href);
const { Leases1700000001000, migrate, openAppDatabase } = await load('libs/platform/dist/postgres/index.js');
const { eventStoreMigrations } = await load('libs/event-store/dist/index.js');
const { createModelTables } = await load('apps/content-core/dist/models/model-tables.js');
const { compileGet, compileList } = await load('apps/content-core/dist/models/query-compiler.js');
const { readerOf } = await load('apps/content-core/dist/models/record-access.js');
const { belongsTo, caller, defineSchema, enumeration, text } = await load('libs/schema/dist/index.js');

const CONTACTS = Number(process.argv[2] ?? 50_000);
const TIMES = Number(process.argv[3] ?? 2_000);
const WARM_UP = 200;
const MARK = 1.25;
const TENANTS = ['01900000-0000-7000-8000-00000000000a', '01900000-0000-7000-8000-00000000000b'];
const [TENANT] = TENANTS;

const schema = defineSchema({
  models: {
    Company: {
      fields: { name: text().required(), stage: enumeration('Open', 'Hidden') },
      access: { read: { Manager: true, Sales: { where: { stage: { not: 'Hidden' } } } } },
    },
    Contact: {
      fields: {
        name: text().required(),
        mail: text(),
        owner: text().max(36),
        stage: enumeration('Open', 'Hidden'),
        company: belongsTo('Company'),
      },
      access: {
        read: {
          Manager: true,
          Sales: { where: { or: [{ stage: { not: 'Hidden' } }, { owner: { equals: caller.id } }] } },
        },
      },
    },
  },
});
const [Contact] = schema.models.filter(({ name }) => name === 'Contact');
const idOf = (kind, n) => `01900000-0000-7000-80${kind}0-${n.toString(16).padStart(12, '0')}`;

async function fill(url) {
  await migrate(url, [Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(url, schema);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  for (const tenant of TENANTS) {
    await client.query(
      `insert into model_company (tenant_id, id, version, created_at, updated_at, name, stage)
       select $1, ('01900000-0000-7000-8020-' || lpad(to_hex(n), 12, '0'))::uuid, 1, now(), now(), 'Company ' || n, 'Open' from generate_series(0, 999) n`,
      [tenant],
    );
    await client.query(
      `insert into model_contact (tenant_id, id, version, created_at, updated_at, name, mail, owner, stage, company_id)
       select $1, ('01900000-0000-7000-8010-' || lpad(to_hex(n), 12, '0'))::uuid, 1, now(), now(), 'Contact ' || n, n || '@example.com', null,
         case when n % 10 = 0 then 'Hidden' else 'Open' end, ('01900000-0000-7000-8020-' || lpad(to_hex(n % 1000), 12, '0'))::uuid
       from generate_series(0, $2::int - 1) n`,
      [tenant, CONTACTS],
    );
  }
  await client.query('vacuum analyze model_contact');
  await client.query('vacuum analyze model_company');
  return client;
}

let seed = 42;
const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
const node = new Map([
  ...['id', 'name', 'mail', 'stage'].map((name) => [name, new Map()]),
  ['company', new Map([['name', new Map()]])],
]);

/** A visible contact of a random place. */
const anyContact = () => {
  const n = Math.floor(random() * (CONTACTS - 100));
  return idOf('1', n % 10 === 0 ? n + 1 : n);
};
const QUESTIONS = {
  'get by id, with its company': (reader, id) => compileGet(reader, Contact, id, node),
  'list of 50, with their companies': (reader, id) =>
    compileList(reader, Contact, {
      where: null,
      orderBy: [],
      after: [id],
      limit: 51,
      node,
      withTotal: false,
      withKeys: false,
    }),
};

await withBenchDatabase((guarded) =>
  withBenchDatabase(async (open) => {
    const clients = [await fill(guarded), await fill(open)];
    for (const table of ['model_contact', 'model_company']) {
      await clients[1].query(
        `alter table ${table} disable row level security; alter table ${table} no force row level security`,
      );
    }
    // A connection for each arm, so that each is used as often.
    const [before, behind, ruled] = await Promise.all(
      [open, guarded, guarded].map((url) => openAppDatabase({ url, service: 'bench', poolSize: 1 })),
    );
    const as = (role) => readerOf(schema, { tenantId: TENANT, userId: TENANT, role });
    const arms = {
      neither: [before, as('Manager')],
      'row-level security': [behind, as('Manager')],
      'row-level security and rules': [ruled, as('Sales')],
    };
    let isReached = true;
    for (const [question, compile] of Object.entries(QUESTIONS)) {
      const times = Object.fromEntries(Object.keys(arms).map((arm) => [arm, []]));
      for (let round = -WARM_UP; round < TIMES; round += 1) {
        // In turn, and each about a record of its own: who comes second would find warm what the first has read.
        const turns = Object.entries(arms);
        for (let n = 0; n < turns.length; n += 1) {
          const [arm, [database, reader]] = turns[(n + round + WARM_UP) % turns.length];
          const id = anyContact();
          const start = performance.now();
          const { text: sql, parameters } = compile(reader, id);
          const rows = await database.read(TENANT, sql, parameters);
          if (round >= 0) times[arm].push(performance.now() - start);
          if (rows.length === 0) throw new Error(`${question}, ${arm}: no rows`);
        }
      }
      console.log(question);
      const medians = Object.entries(times).map(([arm, all]) => [
        arm,
        percentile(
          all.toSorted((a, b) => a - b),
          0.5,
        ),
      ]);
      const base = medians[0][1];
      for (const [arm, median] of medians) {
        const ratio = median / base;
        console.log(`  ${arm.padEnd(30)} p50 ${median.toFixed(3)} ms   ${ratio.toFixed(2)} ×`);
        if (ratio >= MARK) isReached = false;
      }
    }
    console.log(`mark: below ${MARK} × — ${isReached ? 'reached' : 'NOT reached'}`);
    await Promise.all([before.close(), behind.close(), ruled.close(), ...clients.map((client) => client.end())]);
  }),
);
