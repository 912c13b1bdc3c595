// The API over HTTP against peers: content-core as it is built, a process of its own whose caller is logged in; PostGraphile 5; Payload 3
// (REST); and the floor, Fastify with one prepared statement. All on one Postgres and the same 100,000 contacts of 5,000
// companies, with pools of ten connections, asked by 32 connections from a process of its own. Before anything is timed the answers
// are compared. Each arm runs three times, in turns; the middle run is printed, with its ratio to the floor.
//
// - list: 50 contacts with their company. by id: one contact with its company.
// - page: 50 contacts of a stage by their names, for which there is an index, with their company. deep page: the same, somewhere in
//   the list, behind the last one of a page. Payload has no cursor: it is asked for names behind that one.
// - create: ours writes event, audit row and read row, and seals what is personal; the others insert a row.
//
// The rows of all arms are put in by SQL, ours without events, since what is read is the rows.
//
// Where there is a /proc, the processor time of a request is printed too, of the arm's process and of Postgres, and of a create
// with what goes on behind its answer. Unlike the rate it does not tell of what else the machine does.
//
//   npm install --prefix tools/bench
//   node tools/bench/graphql-api.mjs [--deep] [--seconds 5] [--rounds 3] [--arms floor,atomo] [--cases "list,by id"] [--profile FOLDER]
//
// --deep has 1,000,000 contacts, and only their deep pages. --profile FOLDER writes a CPU profile of content-core. It needs what
// `npm start` provides: Postgres 18 (for its ids in order) and Redis.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { redisUrl, ROOT, withBenchDatabase } from './bench-database.mjs';

const { values: given } = parseArgs({
  options: {
    deep: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    arms: { type: 'string' },
    cases: { type: 'string' },
    profile: { type: 'string' },
  },
});
const SECONDS = Number(given.seconds);
const ROUNDS = Number(given.rounds);
const ROWS = given.deep ? 1_000_000 : 100_000;
const COMPANIES = 5_000;
const PAGE = 50;
const CONNECTIONS = 32;
const POOL = 10;
/** Different requests of a case, which are sent in turns. */
const REQUESTS = 500;
const STAGES = ['Lead', 'Prospect', 'Customer', 'Former'];
const LOGIN = { email: 'bench@example.com', password: 'the password of the benchmark' };
const here = path.join(ROOT, 'tools/bench/graphql-api');

/** The CRM's contacts and companies, and an index for the page. A lone schema has no package to find the DSL by its name. */
const SCHEMA = `
import { belongsTo, date, defineSchema, email, enumeration, text } from '${path.join(ROOT, 'libs/schema/dist/index.js')}';
export default defineSchema({
  models: {
    Company: { fields: { name: text().required() } },
    Contact: {
      fields: {
        name: text().required().max(200).personal(),
        email: email().personal(),
        phone: text().max(50).personal(),
        company: belongsTo('Company'),
        stage: enumeration('Lead', 'Prospect', 'Customer', 'Former'),
        birthday: date().personal(),
      },
      index: [['stage', 'name']],
    },
  },
});`;

/** Ids in order and names without one. */
const SEED = `
create temp table seed_companies as
  select format('01920000-%s-7000-8000-%s', lpad(to_hex(n), 4, '0'), substr(md5('c' || n), 1, 12))::uuid as id,
    n, 'Company ' || n as name
  from generate_series(0, ${COMPANIES - 1}) n;
create temp table seed_contacts as
  select format('0193%s-%s-7000-8000-%s', lpad(to_hex(s / 65536), 4, '0'), lpad(to_hex(s % 65536), 4, '0'), substr(md5(s::text), 1, 12))::uuid as id,
    initcap(substr(md5('n' || s), 1, 6)) || ' Contact ' || s as name, 'c' || s || '@example.com' as email, '+1 555 ' || s as phone,
    c.id as company_id, (array['${STAGES.join("','")}'])[s % 4 + 1] as stage
  from generate_series(0, ${ROWS - 1}) s join seed_companies c on c.n = (s * 7919::bigint) % ${COMPANIES};`;

const PEER_TABLES = `
create schema peers;
create table peers.companies (id uuid primary key default uuidv7(), name text not null);
create table peers.contacts (
  id uuid primary key default uuidv7(), name text not null, email text, phone text, stage text,
  company_id uuid references peers.companies, birthday date,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now()
);
create index on peers.contacts (company_id);
create index on peers.contacts (stage, name);
create schema payload;`;

const FILL = {
  peers: `
insert into peers.companies (id, name) select id, name from seed_companies order by id;
insert into peers.contacts (id, name, email, phone, stage, company_id)
  select id, name, email, phone, stage, company_id from seed_contacts order by id;`,
  payload: `
insert into payload.companies (id, name) select id, name from seed_companies order by id;
insert into payload.contacts (id, name, email, phone, stage, company_id)
  select id, name, email, phone, stage::payload.enum_contacts_stage, company_id from seed_contacts order by id;`,
  atomo: `
insert into model_company (tenant_id, id, version, created_at, updated_at, name)
  select t.id, s.id, 1, now(), now(), s.name from seed_companies s, tenants t order by s.id;
insert into model_contact (tenant_id, id, version, created_at, updated_at, name, email, phone, stage, company_id)
  select t.id, s.id, 1, now(), now(), s.name, s.email, s.phone, s.stage, s.company_id from seed_contacts s, tenants t order by s.id;`,
};

const children = [];

/** The processes of the arms, by the URLs at which they listen. */
const pids = new Map();

/** Starts a server, and answers its URL once it says so in a line of its output. */
async function start(args, environment, urlOf = (line) => (/^http:\S+$/.test(line) ? line : null)) {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, NODE_ENV: 'production', POOL: String(POOL), ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: ROOT,
  });
  children.push(child);
  for await (const line of createInterface(child.stdout)) {
    const url = urlOf(line);
    if (!url) continue;
    child.stdout.resume();
    pids.set(url, child.pid);
    return url;
  }
  throw new Error(`${args.at(-1)} ended before it listened`);
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function stopAll() {
  await Promise.all(
    children.splice(0).map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    }),
  );
}

const json = { 'content-type': 'application/json' };
const CONTACT = 'id name email stage company { id name }';
const PEER_CONTACT = 'id: rowId name email stage company: companyByCompanyId { id: rowId name }';
const pick = ({ id, name, email, stage, company }) => ({ id, name, email, stage, company });
const picked = ({ id, name, email, stage }) => ({ id, name, email, stage });

/** A request of the load: what autocannon takes. */
const graphql = (path, query, variables, headers) => ({
  method: 'POST',
  path,
  headers: { ...json, ...headers },
  body: JSON.stringify({ query, variables }),
});

/** Each arm: how it is started, its requests, and what its answers mean. `after` is the contact behind which a page begins. */
const ARMS = {
  floor: {
    isGraphql: false,
    start: (databaseUrl) => start([path.join(here, 'floor.mjs')], { DATABASE_URL: databaseUrl }),
    list: () => ({ path: `/contacts?first=${PAGE}` }),
    one: (id) => ({ path: `/contacts/${id}` }),
    page: (stage) => ({ path: `/contacts?first=${PAGE}&stage=${stage}` }),
    deepPage: ({ stage, name, id }) => ({
      path: `/contacts?${new URLSearchParams({ first: PAGE, stage, after: name, id })}`,
    }),
    create: (contact) => ({ method: 'POST', path: '/contacts', headers: json, body: JSON.stringify(contact) }),
    contacts: (body) => body,
    contact: (body) => body,
    created: (body) => body,
    count: 'select count(*)::int as count from peers.contacts',
  },
  atomo: {
    isGraphql: true,
    start: async (databaseUrl) => {
      const service = path.join(os.tmpdir(), `atomo-bench-${process.pid}`);
      fs.mkdirSync(service, { recursive: true });
      fs.writeFileSync(path.join(service, 'schema.ts'), SCHEMA);
      const profiling = given.profile ? ['--cpu-prof', `--cpu-prof-dir=${given.profile}`] : [];
      const url = await start(
        [...profiling, path.join(ROOT, 'apps/content-core/dist/main.js')],
        {
          ATOMO_SERVICE: service,
          DATABASE_URL: databaseUrl,
          REDIS_URL: redisUrl(),
          CONTENT_CORE_PORT: String(await freePort()),
          ATOMO_MODE: 'embedded',
          ADMIN_EMAIL: LOGIN.email,
          ADMIN_PASSWORD: LOGIN.password,
          MEMORY_URI: path.join(service, 'memory'),
        },
        (line) => /"url":"(http:[^"]+)".*"msg":"listening"/.exec(line)?.[1] ?? null,
      );
      const login = await fetch(`${url}/auth/login`, { method: 'POST', headers: json, body: JSON.stringify(LOGIN) });
      ARMS.atomo.headers = { authorization: `Bearer ${(await login.json()).accessToken}` };
      return url;
    },
    ask: (query, variables) => graphql('/graphql', query, variables, ARMS.atomo.headers),
    list: () => ARMS.atomo.ask(`query List { contacts(first: ${PAGE}) { nodes { ${CONTACT} } } }`),
    one: (id) => ARMS.atomo.ask(`query One($id: ID!) { contact(id: $id) { ${CONTACT} } }`, { id }),
    page: (stage) => ARMS.atomo.deepPage({ stage }),
    deepPage: ({ stage, cursor }) =>
      ARMS.atomo.ask(
        `query Page($stage: ContactStage!, $after: String) {
          contacts(where: { stage: { equals: $stage } }, orderBy: [{ name: ASC }], first: ${PAGE}, after: $after) { nodes { ${CONTACT} } }
        }`,
        { stage, after: cursor ?? null },
      ),
    cursor: ({ stage, name }) =>
      ARMS.atomo.ask(
        `query Cursor($stage: ContactStage!, $name: String!) {
          found: contacts(where: { stage: { equals: $stage }, name: { equals: $name } }, orderBy: [{ name: ASC }]) { edges { cursor } }
        }`,
        { stage, name },
      ),
    create: (input) =>
      ARMS.atomo.ask(
        'mutation Create($input: CreateContactInput!) { createContact(input: $input) { id name email stage } }',
        { input },
      ),
    contacts: (body) => body.data.contacts.nodes,
    contact: (body) => body.data.contact,
    created: (body) => body.data.createContact,
    count: 'select count(*)::int as count from model_contact',
  },
  postgraphile: {
    isGraphql: true,
    start: (databaseUrl) => start([path.join(here, 'postgraphile.mjs')], { DATABASE_URL: databaseUrl }),
    ask: (query, variables) => graphql('/graphql', query, variables),
    list: () => ARMS.postgraphile.ask(`query List { allContacts(first: ${PAGE}) { nodes { ${PEER_CONTACT} } } }`),
    one: (id) =>
      ARMS.postgraphile.ask(`query One($id: UUID!) { contactByRowId(rowId: $id) { ${PEER_CONTACT} } }`, { id }),
    page: (stage) => ARMS.postgraphile.deepPage({ stage }),
    deepPage: ({ stage, cursor }) =>
      ARMS.postgraphile.ask(
        `query Page($stage: String!, $after: Cursor) {
          allContacts(condition: { stage: $stage }, orderBy: [NAME_ASC], first: ${PAGE}, after: $after) { nodes { ${PEER_CONTACT} } }
        }`,
        { stage, after: cursor ?? null },
      ),
    cursor: ({ stage, name }) =>
      ARMS.postgraphile.ask(
        `query Cursor($stage: String!, $name: String!) {
          found: allContacts(condition: { stage: $stage, name: $name }, orderBy: [NAME_ASC]) { edges { cursor } }
        }`,
        { stage, name },
      ),
    create: (contact) =>
      ARMS.postgraphile.ask(
        'mutation Create($contact: ContactInput!) { createContact(input: { contact: $contact }) { contact { id: rowId name email stage } } }',
        { contact },
      ),
    contacts: (body) => body.data.allContacts.nodes,
    contact: (body) => body.data.contactByRowId,
    created: (body) => body.data.createContact.contact,
    count: 'select count(*)::int as count from peers.contacts',
  },
  payload: {
    isGraphql: false,
    start: (databaseUrl) => start([path.join(here, 'payload.mjs')], { DATABASE_URL: databaseUrl }),
    prepare: async (databaseUrl) => {
      const environment = { DATABASE_URL: databaseUrl, POOL: String(POOL), PUSH: '1', NODE_ENV: 'development' };
      const child = spawn(process.execPath, [path.join(here, 'payload.mjs')], {
        env: { ...process.env, ...environment },
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      const [code] = await once(child, 'exit');
      assert.equal(code, 0, 'Payload has not made its tables');
    },
    ask: (query, of = '') => {
      const shape = { depth: '1', 'populate[companies][name]': 'true' };
      for (const field of ['name', 'email', 'stage', 'company']) shape[`select[${field}]`] = 'true';
      return { path: `/api/contacts${of}?${new URLSearchParams({ ...query, ...shape })}` };
    },
    list: () => ARMS.payload.ask({ limit: PAGE, sort: 'id', pagination: 'false' }),
    one: (id) => ARMS.payload.ask({}, `/${id}`),
    page: (stage) =>
      ARMS.payload.ask({ limit: PAGE, sort: 'name', pagination: 'false', 'where[stage][equals]': stage }),
    deepPage: ({ stage, name }) =>
      ARMS.payload.ask({
        limit: PAGE,
        sort: 'name',
        pagination: 'false',
        'where[and][0][stage][equals]': stage,
        'where[and][1][name][greater_than]': name,
      }),
    create: ({ companyId, ...contact }) => ({
      method: 'POST',
      path: '/api/contacts?depth=0',
      headers: json,
      body: JSON.stringify({ ...contact, company: companyId }),
    }),
    contacts: (body) => body.docs,
    contact: (body) => body,
    created: (body) => body.doc,
    count: 'select count(*)::int as count from payload.contacts',
  },
};

async function send(url, { path: place, ...request }) {
  const response = await fetch(url + place, request);
  const body = await response.json();
  if (!response.ok || body.errors) throw new Error(`${place}: ${response.status} ${JSON.stringify(body)}`);
  return body;
}

/** A tick of the kernel's accounts; 100 a second on all Linux of today. */
const TICK_US = 10_000;
/** Behind the last answer the history of what was created is still to be written. */
const SETTLE_MS = 1_500;

/** What a process says of itself in /proc, behind its name, which may have any characters; null where it is gone or there is none. */
function statOf(pid) {
  try {
    return fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  } catch {
    return null;
  }
}

/** What a process has used, and its children that are gone, in microseconds; NaN where nobody tells. */
const timeOf = (pid) => (statOf(pid)?.slice(11, 15) ?? [NaN]).reduce((sum, ticks) => sum + ticks * TICK_US, 0);

/** What a server has used, and Postgres with all that it has started. */
async function processorTimes(client, server) {
  const { rows } = await client.query('select pg_backend_pid() as pid');
  const postmaster = statOf(rows[0].pid)?.[1];
  const all = postmaster ? fs.readdirSync('/proc').filter((name) => statOf(name)?.[1] === postmaster) : [];
  return [timeOf(server), [postmaster, ...all].reduce((sum, pid) => sum + (timeOf(pid) || 0), 0)];
}

/** The load of one arm for one case. */
async function measure(url, arm, requests, seconds) {
  const child = spawn(process.execPath, [path.join(here, 'load.mjs')], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(
    JSON.stringify({ url, requests, connections: CONNECTIONS, duration: seconds, verify: arm.isGraphql }),
  );
  return JSON.parse(await text(child.stdout));
}

const middle = (runs) => runs.toSorted((a, b) => a.rate - b.rate)[Math.floor(runs.length / 2)];
const some = (count, of) => Array.from({ length: count }, (_, n) => of(n));

const names = given.arms?.split(',') ?? Object.keys(ARMS);
const arms = Object.entries(ARMS).filter(([name]) => name === 'floor' || names.includes(name));

try {
  await withBenchDatabase(async (url) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const urls = {};
    try {
      await client.query(SEED);
      await client.query(PEER_TABLES);
      await client.query(FILL.peers);
      for (const [name, arm] of arms) {
        await arm.prepare?.(url);
        // Content-core makes its tables itself.
        urls[name] = name === 'atomo' ? await arm.start(url) : undefined;
        if (name in FILL) await client.query(FILL[name]);
      }
      // What autovacuum would come to do in the middle of a run.
      await client.query('vacuum (analyze)');
      for (const [name, arm] of arms) urls[name] ??= await arm.start(url);
      const chosen = (column, count) =>
        client
          .query(`select id, name, stage from seed_contacts order by md5(${column}) limit ${count}`)
          .then(({ rows }) => rows);
      const ids = (await chosen(`'one' || id::text`, REQUESTS)).map(({ id }) => id);
      const places = await chosen(`'page' || id::text`, REQUESTS);
      const { rows: companies } = await client.query(`select id from seed_companies limit ${REQUESTS}`);
      const cases = casesOf(ids, places, companies);
      const asked = given.cases?.split(',') ?? (given.deep ? ['deep page'] : Object.keys(cases));
      console.log(
        `| ${ROWS.toLocaleString('en')} rows | arm | requests/s | p50 ms | p99 ms | ratio | its µs | Postgres' µs |`,
      );
      console.log('|---|---|---|---|---|---|---|---|');
      for (const name of asked) await runCase(client, urls, name, cases[name]);
      console.log(`load average ${os.loadavg()[0].toFixed(1)}`);
    } finally {
      await stopAll();
      await client.end();
    }
  });
} finally {
  await stopAll();
}

function casesOf(ids, places, companies) {
  const fresh = (n) => ({
    name: `New Contact ${n}`,
    email: `new${n}@example.com`,
    phone: '+1 555 0100',
    stage: STAGES[n % 4],
    companyId: companies[n].id,
  });
  return {
    list: { requests: (arm) => [arm.list()], meaning: (arm, body) => arm.contacts(body).map(pick), size: PAGE },
    'by id': { requests: (arm) => ids.map(arm.one), meaning: (arm, body) => pick(arm.contact(body)) },
    page: { requests: (arm) => STAGES.map(arm.page), meaning: (arm, body) => arm.contacts(body).map(pick), size: PAGE },
    'deep page': {
      requests: async (arm, url) => {
        if (!arm.cursor) return places.map(arm.deepPage);
        const requests = [];
        for (const place of places) {
          const { data } = await send(url, arm.cursor(place));
          requests.push(arm.deepPage({ ...place, cursor: data.found.edges[0].cursor }));
        }
        return requests;
      },
      meaning: (arm, body) => arm.contacts(body).map(pick),
    },
    create: {
      requests: (arm) => some(REQUESTS, (n) => arm.create(fresh(n))),
      // The ids are each one's own.
      meaning: (arm, body) => ({ ...picked(arm.created(body)), id: null }),
      isWrite: true,
    },
  };
}

async function runCase(client, urls, name, { requests: requestsOf, meaning, size, isWrite }) {
  const requests = {};
  for (const [arm, of] of arms) requests[arm] = await requestsOf(of, urls[arm]);
  // All say the same.
  for (let n = 0; n < requests.floor.length; n += isWrite ? REQUESTS : 25) {
    const expected = meaning(ARMS.floor, await send(urls.floor, requests.floor[n]));
    if (size) assert.equal(expected.length, size);
    for (const [arm, of] of arms.slice(1)) {
      assert.deepEqual(meaning(of, await send(urls[arm], requests[arm][n])), expected, `${arm} answers something else`);
    }
  }
  const runs = Object.fromEntries(arms.map(([arm]) => [arm, []]));
  for (const [arm, of] of arms) await measure(urls[arm], of, requests[arm], 2);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [arm, of] of arms) {
      const before = isWrite && (await client.query(of.count)).rows[0].count;
      const used = await processorTimes(client, pids.get(urls[arm]));
      const run = await measure(urls[arm], of, requests[arm], SECONDS);
      if (isWrite) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      const times = await processorTimes(client, pids.get(urls[arm]));
      run.time = times.map((time, n) => (time - used[n]) / run.answered);
      assert.equal(run.faults, 0, `${arm}: ${run.faults} requests failed`);
      if (isWrite) {
        const written = (await client.query(of.count)).rows[0].count - before;
        // The requests that were under way when the time was over are written, and not counted.
        const isKept = written >= run.answered && written <= run.answered + CONNECTIONS;
        assert.ok(isKept, `${arm}: ${run.answered} creates were answered, ${written} are kept`);
      }
      runs[arm].push(run);
    }
  }
  const base = middle(runs.floor).rate;
  for (const [arm, results] of Object.entries(runs)) {
    const { rate, p50, p99 } = middle(results);
    const time = [0, 1].map((n) =>
      Math.round(results.map((run) => run.time[n]).toSorted((a, b) => a - b)[ROUNDS >> 1]),
    );
    const shown = [name, arm, Math.round(rate), p50, p99, (rate / base).toFixed(2), ...time];
    console.log(`| ${shown.join(' | ')} |`);
  }
}
