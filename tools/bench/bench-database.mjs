// A database of its own on the Postgres of a running Atomo (`npm start`, which keeps fsync and synchronous_commit on) or of
// DATABASE_URL, dropped at the end; and its Redis, or that of REDIS_URL.
import fs from 'node:fs';
import path from 'node:path';
import pg from 'pg';

/** The root of the repository. */
export const ROOT = path.resolve(import.meta.dirname, '../..');

/** One run may have several. */
let databases = 0;

/** Runs `work` with the URL of a fresh database. */
export async function withBenchDatabase(work) {
  const server = process.env.DATABASE_URL ?? runFile().databaseUrl;
  databases += 1;
  const name = `bench_${process.pid}_${databases}`;
  await onServer(server, `create database ${name}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  try {
    return await work(url.href);
  } finally {
    await onServer(server, `drop database ${name} with (force)`);
  }
}

/** The Redis to use. */
export function redisUrl() {
  return process.env.REDIS_URL ?? runFile().redisUrl;
}

function runFile() {
  const file = path.resolve(ROOT, process.env.ATOMO_HOME ?? '.atomo', 'run.json');
  if (!fs.existsSync(file)) {
    console.error('Atomo is not running: start it with `npm start`, or set DATABASE_URL.');
    process.exit(1);
  }
  return JSON.parse(fs.readFileSync(file, 'utf8'));
}

async function onServer(url, sql) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(sql).finally(() => client.end());
}

/** The value below which `share` of the sorted numbers lie. */
export function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}
