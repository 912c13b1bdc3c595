import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Queue } from 'bullmq';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { HISTORICAL_SYNC_QUEUE } from '@atomo-cc/queues';
import { aDatabase, aRedis, eventually, freePort, type TestDatabase } from '@atomo-cc/testing';
import { openRedis, type Redis } from '../redis/index.js';
import { JobQueues } from './job-queues.js';
import { enqueue, Outbox1700000002000, OutboxRelay } from './outbox.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const NAME = HISTORICAL_SYNC_QUEUE.name;

let database: TestDatabase;
let redis: Redis;
let queues: JobQueues;
const relays: OutboxRelay[] = [];

beforeAll(async () => {
  database = await aDatabase([Outbox1700000002000], { poolSize: 6 });
});

afterAll(() => database?.drop());

beforeEach(async () => {
  await database.asOwner('truncate outbox');
  redis = await aRedis('command');
  queues = new JobQueues(redis);
});

afterEach(async () => {
  await Promise.all(relays.splice(0).map((relay) => relay.stop()));
  await queues.close();
  redis.disconnect();
});

const put = (jobId: string, delayMs = 0) =>
  database.app.transaction(A, (tx) =>
    enqueue(tx, HISTORICAL_SYNC_QUEUE, { tenant: A, jobId, payload: { jobId: uuidv7(), tenantId: A }, delayMs }),
  );

function relay(into = queues, onError: (error: unknown) => void = () => undefined): OutboxRelay {
  const made = new OutboxRelay(database.system, into, onError);
  relays.push(made);
  return made;
}

const left = async () =>
  (await database.asOwner<{ job_id: string }>('select job_id from outbox order by id')).map((row) => row.job_id);
const isEmpty = async () => (await left()).length === 0;
const depth = async (of = queues) => {
  const found = (await of.depths()).find(({ name }) => name === NAME)!;
  return { waiting: found.waiting, active: found.active, delayed: found.delayed };
};

/** Ids of the jobs in Redis. */
async function inRedis(connection = redis): Promise<string[]> {
  const queue = new Queue(NAME, { connection });
  const jobs = await queue.getJobs(['wait', 'delayed', 'prioritized', 'active']);
  await queue.close();
  return jobs.map((job) => job.id!).sort();
}

describe('the outbox', () => {
  it('reaches the queue after the commit, and not before', async () => {
    relay().start();
    await database.app.transaction(A, async (tx) => {
      await enqueue(tx, HISTORICAL_SYNC_QUEUE, {
        tenant: A,
        jobId: 'job-1',
        payload: { jobId: uuidv7(), tenantId: A },
      });
      const turn = relay();
      turn.kick();
      await turn.stop();
      expect(await inRedis()).toEqual([]);
    });
    relays[0]!.kick();
    await eventually('the job is queued', async () => (await inRedis()).length === 1);
    await eventually('the row is gone', isEmpty);
    const queue = new Queue<{ tenantId: string }>(NAME, { connection: redis });
    const job = await queue.getJob('job-1');
    await queue.close();
    expect(job!.data.tenantId).toBe(A);
    expect(job!.opts).toMatchObject({
      attempts: HISTORICAL_SYNC_QUEUE.policy.attempts,
      removeOnComplete: true,
      removeOnFail: true,
    });
  });

  it('holds nothing of a transaction that was rolled back', async () => {
    const failed = database.app.transaction(A, async (tx) => {
      await enqueue(tx, HISTORICAL_SYNC_QUEUE, {
        tenant: A,
        jobId: 'job-1',
        payload: { jobId: uuidv7(), tenantId: A },
      });
      throw new Error('no');
    });
    await expect(failed).rejects.toThrow('no');
    await put('job-2');
    relay().kick();
    await eventually('the outbox is empty', isEmpty);
    expect(await inRedis()).toEqual(['job-2']);
  });

  it('two jobs of one id are one while the first waits', async () => {
    await put('job-1');
    await put('job-1');
    relay().kick();
    await eventually('the outbox is empty', isEmpty);
    await put('job-1', 60_000);
    relays[0]!.kick();
    await eventually('the outbox is empty', isEmpty);
    expect(await depth()).toEqual({ waiting: 1, active: 0, delayed: 0 });
  });

  it('a delayed job keeps its time, counted from when it was asked for', async () => {
    await put('job-1', 60_000);
    relay().kick();
    await eventually('the outbox is empty', isEmpty);
    expect(await depth()).toEqual({ waiting: 0, active: 0, delayed: 1 });
    await put('job-2', 60_000);
    await database.asOwner(`update outbox set run_at = now() - interval '1 minute'`);
    relays[0]!.kick();
    await eventually('the outbox is empty', isEmpty);
    expect(await depth()).toEqual({ waiting: 1, active: 0, delayed: 1 });
  });

  it('is emptied by two relays, each job moved by one of them', async () => {
    const added: string[] = [];
    const both = Promise.withResolvers<void>();
    const counting = (name: string) => {
      const own = new JobQueues(redis);
      const add = own.add.bind(own);
      own.add = async (...job) => {
        added.push(`${job[1]} ${name}`);
        // Neither is through before the other has begun.
        if (!added[0]!.endsWith(` ${name}`)) both.resolve();
        await both.promise;
        await add(...job);
      };
      return own;
    };
    const all = [counting('one'), counting('two')];
    await database.asOwner(
      `insert into outbox (id, tenant_id, queue, job_id, payload)
       select gen_random_uuid(), $1, $2, 'job-' || n, '{}' from generate_series(1, 450) n`,
      [A, NAME],
    );
    for (const each of all) relay(each).kick();
    await eventually('the outbox is empty', isEmpty);
    await Promise.all(relays.map((each) => each.stop()));
    expect(added).toHaveLength(450);
    expect(new Set(added.map((line) => line.split(' ')[0])).size).toBe(450);
    expect(new Set(added.map((line) => line.split(' ')[1]))).toEqual(new Set(['one', 'two']));
    expect((await depth()).waiting).toBe(450);
    await Promise.all(all.map((each) => each.close()));
  });

  it('finds what nobody told it of', async () => {
    relay().start();
    await put('job-1');
    await eventually('the outbox is empty', isEmpty);
    expect(await inRedis()).toEqual(['job-1']);
  });

  it('leaves a queue that it does not know to others, and moves what stands behind it', async () => {
    const faults: unknown[] = [];
    await database.asOwner(
      `insert into outbox (id, tenant_id, queue, job_id, payload) values ($1, $2, 'of-newer-software', 'x', '{}')`,
      [uuidv7(), A],
    );
    await put('job-1');
    relay(queues, (error) => faults.push(error)).kick();
    await eventually('the known one is moved', async () => (await left()).join() === 'x');
    expect(await inRedis()).toEqual(['job-1']);
    expect(faults).toEqual([]);
  });

  it.each(['a:b', '', '42', ':'])('refuses the id %j, which the queue would refuse', async (jobId) => {
    await expect(put(jobId)).rejects.toThrow(RangeError);
    expect(await left()).toEqual([]);
  });

  it('refuses a payload that its queue does not declare', async () => {
    const wrong = database.app.transaction(A, (tx) =>
      enqueue(tx, HISTORICAL_SYNC_QUEUE, { tenant: A, jobId: 'job-1', payload: { jobId: 'x', tenantId: A } }),
    );
    await expect(wrong).rejects.toMatchObject({ code: 'JOB_PAYLOAD_INVALID' });
  });

  it('requests may add to it, but neither read nor change it', async () => {
    await put('job-1');
    for (const statement of ['select * from outbox', 'delete from outbox', 'update outbox set queue = queue']) {
      await expect(database.app.transaction(A, (tx) => tx.execute(statement))).rejects.toThrow(/permission denied/);
    }
  });

  it('a relay that was stopped moves nothing more', async () => {
    const stopped = relay();
    stopped.start();
    await stopped.stop();
    await put('job-1');
    stopped.kick();
    await stopped.stop();
    expect(await left()).toEqual(['job-1']);
  });
});

it('a queue that is not declared is refused', async () => {
  await expect(queues.add('no-such-queue', 'x', {}, 0)).rejects.toMatchObject({ code: 'JOB_NAME_UNKNOWN' });
});

it('the depth cannot be told of a Redis that is not there, and this is said at once', async () => {
  const away = openRedis('redis://127.0.0.1:1', 'command', () => undefined);
  await expect(new JobQueues(away).depths()).rejects.toThrow(/not connected/);
  away.disconnect();
});

describe('while Redis is away', () => {
  let server: ChildProcess | undefined;
  let port: number;

  /** A Redis of this test's own, which it may stop. */
  async function startServer(): Promise<void> {
    const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    server = spawn('redis-server', options, { stdio: ['ignore', 'pipe', 'inherit'] });
    let log = '';
    server.stdout!.on('data', (chunk: Buffer) => (log += String(chunk)));
    await eventually('Redis accepts connections', () => /ready to accept connections/i.test(log));
  }

  async function stopServer(): Promise<void> {
    if (!server) return;
    const gone = once(server, 'close');
    server.kill('SIGKILL');
    await gone;
    server = undefined;
  }

  beforeEach(async () => {
    port = await freePort();
  });

  afterEach(stopServer);

  it.each(['before the service starts', 'later'])(
    '(%s) the row stays, and goes when it is back',
    async (when) => {
      if (when === 'later') await startServer();
      const own = openRedis(`redis://127.0.0.1:${port}`, 'command', () => undefined);
      const ownQueues = new JobQueues(own);
      if (when === 'later') {
        await eventually('the queue answers', () =>
          depth(ownQueues).then(
            () => true,
            () => false,
          ),
        );
        await stopServer();
        await eventually('the connection is lost', () => own.status !== 'ready');
      }
      const faults: unknown[] = [];
      const moving = relay(ownQueues, (error) => faults.push(error));
      moving.start();
      await put('job-1');
      moving.kick();
      await eventually('the relay has met the fault', () => faults.length > 0);
      expect(await left()).toEqual(['job-1']);
      await startServer();
      await eventually('the row has gone', isEmpty);
      expect(await inRedis(own)).toEqual(['job-1']);
      await moving.stop();
      await ownQueues.close();
      own.disconnect();
    },
    90_000,
  );
});
