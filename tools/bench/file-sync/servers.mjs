// The servers that are measured, each a process of its own, and what they have used.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import path from 'node:path';
import { redisUrl, ROOT } from '../bench-database.mjs';

const MASTER = 'sk_admin_dev';
const here = import.meta.dirname;
const children = [];

function start(file, env, execArgv = []) {
  const child = fork(file, [], {
    env: { ...process.env, ...env },
    execArgv: ['--expose-gc', '--import', path.join(here, 'usage.mjs'), ...execArgv],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  children.push(child);
  return child;
}

/** Ends a server, and waits for it. */
export async function stop({ child }) {
  children.splice(children.indexOf(child), 1);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

/** Ends all that run. */
export async function stopAll() {
  await Promise.all(children.map((child) => stop({ child })));
}

/** What a server has used: {rss, held} in bytes, garbage collected, and the CPU's time in ms. */
export async function usageOf({ child }) {
  child.send('usage');
  for (;;) {
    const [message] = await once(child, 'message');
    if (message.usage) return message.usage;
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** The gateway as it is built; without the limit of a key's operations, which is no subject here. */
export async function startGateway(databaseUrl, profile) {
  const port = await freePort();
  const env = {
    ATOMO_MODE: 'embedded',
    LOG_LEVEL: 'error',
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl(),
    SYNC_GATEWAY_PORT: String(port),
    SYNC_OPS_PER_SECOND: '1000000',
    GATEWAY_MASTER_KEY: MASTER,
    ATOMO_SUPERVISOR: '',
  };
  const profiling = profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}`] : [];
  const child = start(path.join(ROOT, 'apps/sync-gateway/dist/main.js'), env, profiling);
  const url = `http://127.0.0.1:${port}`;
  for (let left = 150; left > 0; left -= 1) {
    const isReady = await fetch(`${url}/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return { url, child };
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error('the gateway does not start');
}

/** A peer of this folder. */
export async function startPeer(name, env = {}) {
  const child = start(path.join(here, `${name}.mjs`), env);
  const [{ url }] = await once(child, 'message');
  return { url, child };
}

async function admin(url, route, body) {
  const response = await fetch(`${url}/api/v1/admin${route}`, {
    method: 'POST',
    headers: { 'x-api-key': MASTER, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return response.json();
}

/** A new store, and keys to it: a node lets each have 500 sockets. */
export async function aStore({ url }, keys = 1) {
  const { id } = await admin(url, '/stores', { name: 'bench' });
  const made = [];
  for (let n = 0; n < keys; n += 1) {
    made.push((await admin(url, `/stores/${id}/keys`, { name: 'bench', permissions: ['read', 'write'] })).key);
  }
  return made;
}
