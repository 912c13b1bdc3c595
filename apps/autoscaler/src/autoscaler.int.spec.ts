import { spawn, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import {
  aCable,
  aDatabase,
  aRedis,
  eventually,
  freePort,
  redisTestUrl,
  type Cable,
  type TestDatabase,
} from '@atomo-cc/testing';
import { DEFAULT_TENANT_ID, uuidv7 } from '@atomo-cc/kernel';
import { startService, type RunningService } from '@atomo-cc/platform/lifecycle';
import { enqueue, JobQueues, OutboxRelay } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { HISTORICAL_SYNC_QUEUE } from '@atomo-cc/queues';
import { claimSyncJob, startSyncJob, waitSyncJob } from '@atomo-cc/sync-jobs';
import { autoscalerConfig } from './config.js';
import { Observer, type DecisionRecord } from './control/index.js';
import { REAP_MS, Reaper } from './reaper.js';
import { autoscalerMigrations, autoscalerService } from './service.js';
import { aScene, FAKE_WORKER, killHard, type Scene } from './testing/index.js';

interface Worker {
  id: string;
  state: string;
  pid: number | null;
  url: string;
  managed: boolean;
}

const AUTH = { authorization: 'Bearer ops_dev' };

/** A dead worker must be back in this time. */
const BACK_IN_MS = 2_000;

jest.setTimeout(60_000);

describe('the autoscaler', () => {
  let database: TestDatabase;
  let redis: Redis;
  let scene: Scene;
  let environment: Record<string, string>;
  const services: RunningService[] = [];
  const children: ChildProcess[] = [];
  const cables: Cable[] = [];

  beforeAll(async () => {
    database = await aDatabase(autoscalerMigrations);
  });
  afterAll(async () => {
    await database.drop();
  });
  beforeEach(async () => {
    redis = await aRedis('command');
    scene = await aScene();
    await database.asOwner('delete from leases');
    environment = {
      ATOMO_MODE: 'embedded',
      LOG_LEVEL: 'silent',
      DATABASE_URL: database.url,
      REDIS_URL: redisTestUrl(),
      WORKER_PORT: String(scene.firstPort),
      ATOMO_HOME: path.dirname(scene.logs),
      PATH: process.env['PATH'] ?? '',
    };
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await Promise.all(services.splice(0).map((service) => service.stop()));
    // Adopts what a killed autoscaler left, and ends it.
    scene.provider(redis);
    await scene.clear();
    await Promise.all(cables.splice(0).map((cable) => cable.close()));
    redis.disconnect();
  });

  async function anAutoscaler(more: Record<string, string> = {}): Promise<RunningService> {
    const config = autoscalerConfig({ ...environment, AUTOSCALER_PORT: String(await freePort()), ...more });
    const service = await startService(await autoscalerService(config, FAKE_WORKER));
    services.push(service);
    await eventually('it is ready', async () => (await fetch(`${service.url}/health/ready`)).status === 200);
    return service;
  }
  const ask = (url: string, way: string, init?: RequestInit) => fetch(new URL(way, url), init);
  const get = async <Answer>(url: string, way: string) => (await (await ask(url, way)).json()) as Answer;
  const workersOf = async (url: string) => (await get<{ workers?: Worker[] }>(url, '/workers')).workers ?? [];
  const ready = (url: string, count: number) =>
    eventually(`${count} workers are ready`, async () => {
      const workers = (await workersOf(url)).filter(({ state }) => state === 'ready');
      return workers.length === count ? workers : undefined;
    });
  const decisions = async (url: string) => (await get<{ decisions: DecisionRecord[] }>(url, '/decisions')).decisions;
  const scale = (url: string, body: unknown, headers: Record<string, string> = AUTH) =>
    ask(url, '/scale', {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  const leads = async (url: string) => (await get<{ autoscaler: { leads: boolean } }>(url, '/scale')).autoscaler.leads;

  it('starts one worker, replaces a killed one within two seconds, again and again, and says why', async () => {
    const { url } = await anAutoscaler();
    let [worker] = await ready(url, 1);
    expect(worker!.url).toBe(`http://127.0.0.1:${scene.firstPort}`);
    // A machine on which a process takes long to start is given as long in addition.
    const { at } = (await decisions(url)).find(({ action }) => action === 'start')!;
    const backInMs = BACK_IN_MS + 3 * Math.max(Date.now() - Date.parse(at), 0);
    // Each is killed as soon as it is known, before the autoscaler's next look.
    for (let kill = 1; kill <= 3; kill += 1) {
      const { pid } = worker!;
      killHard(pid!);
      worker = await eventually(
        `worker ${kill + 1} is ready`,
        async () => (await workersOf(url)).find((each) => each.state === 'ready' && each.pid !== pid),
        backInMs,
      );
      expect(worker.url).toBe(`http://127.0.0.1:${scene.firstPort}`);
    }
    expect((await decisions(url)).filter(({ rule }) => rule === 'ended').map(({ reason }) => reason)).toEqual(
      Array(3).fill(expect.stringMatching(/^Worker \d+ ended soon after it was ready: signal SIGKILL; its log: /)),
    );
    expect(await (await ask(url, '/metrics')).text()).toMatch(
      /autoscaler_decisions_total\{action="start",rule="minimum",.*\} 4/,
    );
  });

  it('starts another worker when more than five jobs wait', async () => {
    const queues = new JobQueues(redis);
    const { url } = await anAutoscaler();
    await ready(url, 1);
    for (let each = 0; each < 6; each += 1) await queues.add('historical-sync', `job-${each}`, {}, 0);
    await ready(url, 2);
    expect(await get(url, '/queues')).toEqual({
      queues: [{ name: 'historical-sync', waiting: 6, active: 0, delayed: 0, idleSince: null, idleSeconds: 0 }],
    });
    expect(
      (await decisions(url)).find(({ action, rule }) => action === 'start' && rule === 'queue-depth'),
    ).toMatchObject({
      reason: '6 jobs wait, more than 5.',
      count: 1,
      outcome: 'done',
    });
    await queues.close();
  });

  it('goes down to the number an operator asks for without hurting a busy worker', async () => {
    const { url } = await anAutoscaler();
    await ready(url, 1);
    expect((await scale(url, { workers: 2 })).status).toBe(200);
    const both = await ready(url, 2);
    for (const worker of both) await ask(worker.url, '/jobs?n=1');
    expect(await (await scale(url, { workers: 1 })).json()).toMatchObject({ target: 1, atLeast: 1, atMost: 3 });
    const drained = await eventually('one drains', async () =>
      (await workersOf(url)).find(({ state }) => state === 'draining'),
    );
    // It looks and decides three more times, and each time the worker has its job.
    const looks = jest.spyOn(Observer.prototype, 'look');
    await eventually('three more looks', () => looks.mock.calls.length > 3);
    looks.mockRestore();
    expect((await workersOf(url)).map(({ id }) => id).sort()).toEqual(both.map(({ id }) => id).sort());
    await ask(drained.url, '/jobs?n=0');
    const [left] = await ready(url, 1);
    expect(left!.id).not.toBe(drained.id);
    await eventually('it tells', async () => (await decisions(url)).some(({ rule }) => rule === 'drained'));
    expect((await decisions(url)).map(({ action, rule }) => `${action} ${rule}`)).toContain('drain target');
    await scale(url, { workers: null });
    expect(await get(url, '/scale')).toMatchObject({ target: null });
  });

  it('lets one of two act; the other takes over when the first is killed, and keeps its workers', async () => {
    const port = await freePort();
    const leader = spawn(process.execPath, [path.join(__dirname, 'testing/autoscaler.mjs')], {
      env: { ...environment, AUTOSCALER_PORT: String(port) },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    children.push(leader);
    const first = `http://127.0.0.1:${port}`;
    await eventually('the first leads', () => leads(first).catch(() => false));
    const { url: second } = await anAutoscaler();
    const [worker] = await ready(second, 1);
    expect(await leads(second)).toBe(false);
    leader.kill('SIGKILL');
    await eventually('the second leads', () => leads(second));
    expect((await ready(second, 1))[0]).toMatchObject({ pid: worker!.pid, managed: true });
    killHard(worker!.pid!);
    await eventually('the second acts', async () =>
      (await workersOf(second)).some(({ pid, state }) => pid !== worker!.pid && state === 'ready'),
    );
    expect((await decisions(second)).filter(({ action }) => action === 'start')).toHaveLength(2);
  });

  it('ends its workers when it is stopped, and gives the lease to the next at once', async () => {
    const first = await anAutoscaler();
    const [worker] = await ready(first.url, 1);
    await first.stop();
    expect(() => process.kill(worker!.pid!, 0)).toThrow('ESRCH');
    expect(await database.asOwner('select holder from leases where expires_at > clock_timestamp()')).toEqual([]);
    const second = await anAutoscaler();
    await eventually('the next leads', () => leads(second.url));
  });

  it.each(['DATABASE_URL', 'REDIS_URL'])(
    'does nothing while %s does not answer, says so, and goes on afterwards',
    async (name) => {
      const cable = await aCable(environment[name]!);
      cables.push(cable);
      // Its workers keep their own line to Redis.
      const config = autoscalerConfig({ ...environment, AUTOSCALER_PORT: String(await freePort()), [name]: cable.url });
      Object.assign(config.workerEnvironment, { REDIS_URL: environment['REDIS_URL'] });
      const service = await startService(await autoscalerService(config, FAKE_WORKER));
      services.push(service);
      const [worker] = await ready(service.url, 1);
      cable.cut();
      const isReady = async () => (await ask(service.url, '/health/ready')).status === 200;
      await eventually('it says that it is not ready', async () => !(await isReady()));
      if (name === 'DATABASE_URL') await eventually('it no longer leads', async () => !(await leads(service.url)));
      else expect(await get(service.url, '/workers')).toMatchObject({ error: { code: 'INTERNAL_ERROR' } });
      killHard(worker!.pid!);
      cable.mend();
      await eventually('it is ready', isReady);
      await eventually('it has replaced the worker', async () => {
        const [other, ...more] = (await workersOf(service.url)).filter(({ state }) => state === 'ready');
        return other !== undefined && other.pid !== worker!.pid && more.length === 0;
      });
    },
  );

  it('does not loop hot when workers cannot run', async () => {
    const { url } = await anAutoscaler({ FAKE_WORKER: 'broken' });
    const backoff = await eventually('it pauses', async () =>
      (await decisions(url)).find(({ rule }) => rule === 'backoff'),
    );
    expect(backoff.reason).toMatch(/failed in a row; the next try is in \d+ s/);
    await eventually('it tries a third time', async () => {
      return (await decisions(url)).filter(({ action }) => action === 'start').length >= 3;
    });
    const starts = (await decisions(url))
      .filter(({ action }) => action === 'start')
      .map(({ at }) => Date.parse(at))
      .sort((a, b) => a - b);
    expect(starts[1]! - starts[0]!).toBeGreaterThanOrEqual(200);
    expect(starts[2]! - starts[1]!).toBeGreaterThanOrEqual(450);
    // It ended while it was started or soon after: either way it is told how.
    expect(JSON.stringify(await decisions(url))).toContain('exit code 3');
  });

  it('only watches with provider none', async () => {
    const { url } = await anAutoscaler({ AUTOSCALER_PROVIDER: 'none' });
    const advice = await eventually('it advises', async () => (await decisions(url))[0]);
    expect(advice).toMatchObject({ action: 'start', rule: 'minimum', outcome: 'advice' });
    expect(await workersOf(url)).toEqual([]);
  });

  it('guards its endpoints and answers faults in one shape', async () => {
    const { url } = await anAutoscaler({ AUTOSCALER_PROVIDER: 'none' });
    const fault = async (response: Response) => ({ status: response.status, ...((await response.json()) as object) });
    const coded = (status: number, code: string, message: RegExp) => ({
      status,
      error: expect.objectContaining({ code, message: expect.stringMatching(message) }),
    });
    expect(await fault(await scale(url, { workers: 1 }, {}))).toEqual(
      coded(401, 'UNAUTHENTICATED', /AUTOSCALER_TOKEN/),
    );
    expect(await fault(await scale(url, { workers: 1 }, { authorization: 'Bearer ops_dew' }))).toEqual(
      coded(401, 'UNAUTHENTICATED', /./),
    );
    expect(await fault(await scale(url, { workers: 4 }))).toEqual(
      coded(400, 'VALIDATION_ERROR', /3 at most: raise MAX_WORKERS/),
    );
    for (const body of [{ workers: 0 }, { workers: 1.5 }, { workers: '2' }, {}, [], 7, { workers: 1, more: 1 }]) {
      expect(await fault(await scale(url, body))).toEqual(coded(400, 'VALIDATION_ERROR', /./));
    }
    const post = (body: string, type: string) =>
      ask(url, '/scale', { method: 'POST', body, headers: { ...AUTH, 'content-type': type } });
    for (const [body, type] of [
      [`${'{"workers":'.repeat(100_000)}1${'}'.repeat(100_000)}`, 'application/json'],
      [JSON.stringify({ workers: 1, more: 'x'.repeat(2 ** 20) }), 'application/json'],
      ['workers=1', 'application/x-www-form-urlencoded'],
      ['{"workers":1}', 'text/plain'],
    ] as const) {
      expect(await fault(await post(body, type))).toEqual(coded(400, 'VALIDATION_ERROR', /body/i));
    }
    expect(await fault(await ask(url, '/decisions?limit=1000'))).toEqual(coded(400, 'VALIDATION_ERROR', /limit/));
    expect(await fault(await ask(url, '/nothing'))).toEqual(coded(404, 'NOT_FOUND', /./));
    const token = 'ops_secret-of-this-test-1';
    const guarded = await anAutoscaler({
      AUTOSCALER_PROVIDER: 'none',
      ATOMO_MODE: 'production',
      AUTOSCALER_TOKEN: token,
    });
    expect((await ask(guarded.url, '/queues')).status).toBe(401);
    expect((await ask(guarded.url, '/queues', { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
    expect((await ask(guarded.url, '/health/live')).status).toBe(200);
    expect(() => autoscalerConfig({ ...environment, ATOMO_MODE: 'production', AUTOSCALER_TOKEN: 'ops_short' })).toThrow(
      'AUTOSCALER_TOKEN has 9 characters; at least 22 are needed.',
    );
  });

  it('lets a job that waits for its quota go on within 5 s when there is something left', async () => {
    const queues = new JobQueues(redis);
    const app = { tenant: DEFAULT_TENANT_ID, integration: 'mbox', importId: uuidv7(), bytesTotal: 1 };
    const setLimit = (amount: number) =>
      database.asOwner(
        `insert into tenant_limits (tenant_id, quota, amount) values ($1, 'importedRecords', $2)
         on conflict (tenant_id, quota) do update set amount = excluded.amount`,
        [DEFAULT_TENANT_ID, amount],
      );
    await setLimit(0);
    const id = await database.app.transaction(DEFAULT_TENANT_ID, async (tx) => {
      const job = await startSyncJob(tx, app);
      const { claim } = (await claimSyncJob(tx, job.id, 'worker'))!;
      const wait = { quota: 'importedRecords', limit: 0, renewsAt: '2027-01-01T00:00:00.000Z', message: 'Used up.' };
      await waitSyncJob(tx, claim, wait);
      return job.id;
    });
    await database.asOwner('delete from outbox');
    const looks = jest.spyOn(Reaper.prototype as unknown as { reapOnce(): Promise<void> }, 'reapOnce');
    await anAutoscaler();
    await eventually('it has looked', () => looks.mock.calls.length > 0);
    await Promise.all(looks.mock.results.map(({ value }) => value as Promise<void>));
    expect((await queues.depths())[0]?.waiting).toBe(0);
    await setLimit(1);
    await eventually('the job is queued', async () => (await queues.depths())[0]?.waiting === 1);
    expect(REAP_MS).toBeLessThan(5_000);
    looks.mockRestore();
    const [row] = await database.asOwner('select status from historical_sync_jobs where id = $1', [id]);
    expect(row).toEqual({ status: 'pending' });
    await queues.close();
  });

  it('queues abandoned jobs again, on the leader only', async () => {
    const queues = new JobQueues(redis);
    let isLeader = false;
    let looks = 0;
    let asked = 0;
    const relay = new OutboxRelay(database.system, queues, (error) => {
      throw error;
    });
    const jobId = uuidv7();
    const reaper = new Reaper({
      database: database.system,
      reap: async (tx) => {
        asked += 1;
        const payload = { jobId, tenantId: DEFAULT_TENANT_ID };
        await enqueue(tx, HISTORICAL_SYNC_QUEUE, { tenant: DEFAULT_TENANT_ID, jobId, payload });
        return [jobId];
      },
      leads: () => {
        looks += 1;
        return isLeader;
      },
      onReaped: () => relay.kick(),
      onError: (error) => {
        throw error;
      },
    });
    reaper.start(10);
    await eventually('it would have reaped', () => looks > 3);
    expect(asked).toBe(0);
    isLeader = true;
    await eventually('the job waits', async () => (await queues.depths())[0]?.waiting === 1);
    await reaper.stop();
    await relay.stop();
    await queues.close();
    expect(asked).toBeGreaterThan(0);
  });
});
