// A worker without work, for tests of what starts and stops workers. It is run like the real one: its port and Redis come
// from the environment, it registers, drains when asked, and ends on SIGTERM. `GET /jobs?n=1` gives it jobs to have.
// FAKE_WORKER=broken ends at once with code 3; FAKE_WORKER=mute never registers; FAKE_WORKER=stubborn ignores SIGTERM.
import { createServer } from 'node:http';
import { openRedis } from '@atomo-cc/platform/redis';
import { startWorkerBeat } from '@atomo-cc/platform/workers';

const { FAKE_WORKER: kind, REDIS_URL, WORKER_PORT } = process.env;
if (kind === 'broken') {
  process.stderr.write('this worker is broken\n');
  process.exit(3);
}
let jobs = 0;
let beat;
const server = createServer((request, response) => {
  const wanted = new URL(request.url, 'http://worker').searchParams.get('n');
  if (wanted !== null) jobs = Number(wanted);
  void Promise.resolve(beat?.update()).then(() => response.end(String(jobs)));
});
server.listen(Number(WORKER_PORT), '127.0.0.1', () => {
  if (kind === 'mute') return;
  const redis = openRedis(REDIS_URL, 'command', () => undefined);
  const url = `http://127.0.0.1:${WORKER_PORT}`;
  redis.once('ready', () => {
    beat = startWorkerBeat(redis, { name: 'fake-worker', url, activeJobs: () => jobs, onDrain: () => undefined });
  });
});
process.on('SIGTERM', async () => {
  if (kind === 'stubborn') return;
  await beat?.stop();
  process.exit(0);
});
// A test that was killed leaves nobody to end its workers.
setTimeout(() => process.exit(4), 60_000);
