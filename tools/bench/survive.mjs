// Proof by hand, against a running Atomo: 50 callers create contacts through GraphQL, each with an idempotency key, while
// content-core is killed with -9 twice and Contact's rows are built anew beside the live ones; readers count all the while.
// At the end every acknowledged contact is there once, nothing else is there of this run, no reader erred or saw fewer
// contacts than before (but while the service was away), and the rows equal the log.
//
//   node tools/bench/survive.mjs [contacts, default 20000]
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { ROOT } from './bench-database.mjs';

const TOTAL = Number(process.argv[2] ?? 20_000);
const CALLERS = 50;
const READERS = 3;
const run = `run${process.pid}${Date.now()}`;
const home = path.resolve(ROOT, process.env.ATOMO_HOME ?? '.atomo');
const running = () => JSON.parse(fs.readFileSync(path.join(home, 'run.json'), 'utf8'));
const url = running().services['content-core'].url;

const login = await fetch(`${url}/auth/login`, {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ email: 'admin@atomo.local', password: 'atomo-dev' }),
});
if (!login.ok) throw new Error(`login: ${login.status} ${await login.text()}`);
const { accessToken } = await login.json();

/** A GraphQL answer, or an error that says whether anything was answered at all. */
async function ask(query, variables) {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${accessToken}` },
    body: JSON.stringify({ query, variables }),
  });
  const body = await response.json();
  if (body.errors) throw Object.assign(new Error(body.errors[0].message), { code: body.errors[0].extensions?.code });
  return body.data;
}

const acknowledged = new Map();
const refused = new Set();
const counts = { retries: 0, reads: 0, readErrors: 0, readsWhileAway: 0, wentBack: 0, kills: 0 };
let next = 0;
let isOver = false;
let awayUntil = 0;
const isAway = () => performance.now() < awayUntil;

async function caller() {
  for (;;) {
    const n = next;
    if (n >= TOTAL) return;
    next += 1;
    // Some are wrong: they are refused, and must leave nothing.
    const isWrong = n % 100 === 99;
    const input = { name: `${run}-${n}`, email: isWrong ? 'nobody' : `${run}-${n}@example.com`, stage: 'Lead' };
    for (;;) {
      try {
        const data = await ask(
          'mutation C($i: CreateContactInput!, $k: String) { createContact(input: $i, idempotencyKey: $k) { id } }',
          { i: input, k: `${run}-${n}` },
        );
        acknowledged.set(n, data.createContact.id);
        break;
      } catch (error) {
        if (error.code === 'VALIDATION_ERROR') {
          refused.add(n);
          break;
        }
        counts.retries += 1;
        await pause(100);
      }
    }
  }
}

async function reader() {
  let greatest = 0;
  while (!isOver) {
    const from = performance.now();
    try {
      const where = { name: { startsWith: `${run}-` } };
      const { contacts } = await ask(
        'query R($w: ContactWhere) { contacts(where: $w, first: 1) { totalCount nodes { id name } } }',
        {
          w: where,
        },
      );
      counts.reads += 1;
      if (contacts.totalCount < greatest) counts.wentBack += 1;
      greatest = Math.max(greatest, contacts.totalCount);
    } catch (error) {
      if (isAway() || from < awayUntil) counts.readsWhileAway += 1;
      else {
        counts.readErrors += 1;
        console.error(`a reader failed: ${error.message}`);
      }
    }
    await pause(20);
  }
}

async function until(share) {
  while (next < TOTAL * share) await pause(20);
}

async function kill() {
  const { pid } = running().services['content-core'];
  awayUntil = Infinity;
  process.kill(pid, 'SIGKILL');
  counts.kills += 1;
  const from = performance.now();
  for (;;) {
    await pause(50);
    const isReady = await fetch(`${url}/health/ready`).then(
      (response) => response.ok,
      () => false,
    );
    if (isReady && running().services['content-core'].pid !== pid) break;
  }
  awayUntil = performance.now();
  console.log(`content-core was killed at ${next} and is back after ${Math.round(performance.now() - from)} ms`);
}

function rebuild(name) {
  const from = performance.now();
  const child = spawn(
    process.execPath,
    ['tools/local/dist/projections.js', 'rebuild', name, '--reason', 'a proof by hand', '--wait'],
    { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] },
  );
  return new Promise((resolve, reject) =>
    child.on('exit', (code) => {
      console.log(`the build of ${name} ended after ${Math.round(performance.now() - from)} ms, at ${next} creates`);
      if (code === 0) resolve();
      else reject(new Error(`the build of ${name} failed`));
    }),
  );
}

const from = performance.now();
const readers = Array.from({ length: READERS }, reader);
const callers = Promise.all(Array.from({ length: CALLERS }, caller));
await until(0.1);
const first = rebuild('rows-contact');
await until(0.25);
await kill();
await first;
await until(0.5);
const second = rebuild('rows-contact');
await until(0.6);
await kill();
await second;
if (next < TOTAL) await rebuild('rows-contact');
await callers;
isOver = true;
await Promise.all(readers);
const seconds = (performance.now() - from) / 1000;

const client = new pg.Client({ connectionString: running().databaseUrl });
await client.connect();
const { rows } = await client.query('select id, name, version from model_contact where name like $1', [`${run}-%`]);
const { rows: logged } = await client.query(
  `select stream, count(*)::int as events from event_log where stream = any($1) group by stream`,
  [rows.map(({ id }) => `Contact-${id}`)],
);
await client.end();
const byNumber = Map.groupBy(rows, ({ name }) => Number(name.slice(run.length + 1)));
const lost = [...acknowledged].filter(([n, id]) => !byNumber.get(n)?.some((row) => row.id === id)).length;
const doubled = [...byNumber.values()].filter((found) => found.length > 1).length;
const unwanted = [...byNumber.keys()].filter((n) => refused.has(n)).length;
const inLog = new Set(logged.map(({ stream }) => stream));
const unlogged = rows.filter(({ id }) => !inLog.has(`Contact-${id}`)).length;
console.log({ seconds: Math.round(seconds), acknowledged: acknowledged.size, refused: refused.size, ...counts });
console.log({ rows: rows.length, lost, doubled, unwanted, rowsWithoutEvents: unlogged });
const isSound =
  lost + doubled + unwanted + unlogged + counts.wentBack + counts.readErrors === 0 && rows.length === acknowledged.size;
console.log(isSound ? 'Nothing was lost, doubled or seen to go back.' : 'NOT SOUND');
process.exit(isSound ? 0 : 1);
