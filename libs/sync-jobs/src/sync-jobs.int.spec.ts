import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { Outbox1700000002000 } from '@atomo-cc/platform/queues';
import type { Tx } from '@atomo-cc/platform/postgres';
import { SYNC_JOB_MOVES, SYNC_JOB_STATES, type SyncJobState } from '@atomo-cc/queues';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { syncJobMigrations } from './schema.js';
import {
  beatSyncJob,
  claimSyncJob,
  commitChunk,
  completeSyncJob,
  continueSyncJob,
  failSyncJob,
  findSyncJob,
  listQuarantined,
  listSyncJobs,
  quarantine,
  reapAbandoned,
  renewWaiting,
  startSyncJob,
  steerSyncJob,
  waitSyncJob,
  type ChunkCounts,
  type SyncJobClaim,
} from './sync-jobs.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const COUNTS: ChunkCounts = {
  recordsNew: 5,
  recordsChanged: 1,
  recordsUnchanged: 2,
  recordsQuarantined: 3,
  people: 4,
  threads: 6,
  replies: 7,
  nodes: 8,
  edges: 9,
};
const CHUNK = { checkpoint: { offset: 500 }, bytesProcessed: 400, counts: COUNTS };
const PASSING = { code: 'INTERNAL_ERROR', message: 'The database was away.', mayPass: true };

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase([Outbox1700000002000, ...syncJobMigrations]);
});

afterAll(() => database?.drop());

beforeEach(() => database.asOwner('truncate historical_sync_jobs, quarantined_records, outbox'));

const inA = <Result>(work: (tx: Tx) => Promise<Result>) => database.app.transaction(A, work);
const start = (tenant = A) =>
  database.app.transaction(tenant, (tx) =>
    startSyncJob(tx, { tenant, integration: 'mbox', importId: uuidv7(), bytesTotal: 1_000 }),
  );
const claim = async (id: string, worker = 'worker-1') => (await inA((tx) => claimSyncJob(tx, id, worker)))!.claim;
const find = async (id: string) => (await inA((tx) => findSyncJob(tx, id)))!;
const rowOf = async (id: string) =>
  (await database.asOwner('select * from historical_sync_jobs where id = $1', [id]))[0]!;

/** What is to be enqueued, and with which delay in seconds. */
const outbox = () =>
  database.asOwner<{ queue: string; job_id: string; payload: object; tenant_id: string; seconds: number }>(
    `select queue, job_id, payload, tenant_id, extract(epoch from run_at - created_at)::float as seconds from outbox order by id`,
  );
const emptyOutbox = () => database.asOwner('truncate outbox');

async function aRunningJob() {
  const job = await start();
  const held = await claim(job.id);
  await emptyOutbox();
  return { id: job.id, held };
}

describe('a job from start to end', () => {
  it('is pending with its first slice in the outbox of the same transaction', async () => {
    const job = await start();
    expect(job).toMatchObject({
      status: 'pending',
      bytesTotal: 1_000,
      progressPercentage: 0,
      recordsProcessed: 0,
      startedAt: null,
    });
    expect(await outbox()).toEqual([
      {
        queue: 'historical-sync',
        job_id: `${job.id}-0`,
        payload: { jobId: job.id, tenantId: A },
        tenant_id: A,
        seconds: 0,
      },
    ]);
  });

  it('leaves neither row nor slice when the transaction is rolled back', async () => {
    const failed = inA(async (tx) => {
      await startSyncJob(tx, { tenant: A, integration: 'mbox', importId: uuidv7(), bytesTotal: 1 });
      throw new Error('no');
    });
    await expect(failed).rejects.toThrow('no');
    expect(await database.asOwner('select 1 from historical_sync_jobs union all select 1 from outbox')).toEqual([]);
  });

  it('adds up what its chunks did, and ends complete', async () => {
    const job = await start();
    const claimed = await inA((tx) => claimSyncJob(tx, job.id, 'worker-1'));
    expect(claimed).toMatchObject({
      job: { status: 'running', checkpoint: null },
      claim: { jobId: job.id, tenant: A, epoch: 1 },
    });
    expect(claimed!.job.startedAt).toBeInstanceOf(Date);
    const held = claimed!.claim;
    expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(true);
    expect(
      await inA((tx) => commitChunk(tx, held, { ...CHUNK, checkpoint: { offset: 900 }, bytesProcessed: 2_000 })),
    ).toBe(true);
    expect(await find(job.id)).toMatchObject({
      status: 'running',
      checkpoint: { offset: 900 },
      bytesProcessed: 1_000,
      progressPercentage: 100,
      recordsProcessed: 22,
      recordsNew: 10,
      recordsChanged: 2,
      recordsUnchanged: 4,
      recordsQuarantined: 6,
      people: 8,
      threads: 12,
      replies: 14,
      entitiesExtracted: 16,
      relationshipsExtracted: 18,
    });
    expect(await inA((tx) => completeSyncJob(tx, held))).toBe(true);
    const done = await find(job.id);
    expect(done).toMatchObject({ status: 'completed', progressPercentage: 100, recordsNew: 10 });
    expect(done.completedAt).toBeInstanceOf(Date);
    expect(await inA((tx) => claimSyncJob(tx, job.id, 'worker-2'))).toBeNull();
    expect(await inA((tx) => completeSyncJob(tx, held))).toBe(false);
  });

  it('goes on in another slice with an id of its own, and keeps when it began', async () => {
    const { id, held } = await aRunningJob();
    const began = (await find(id)).startedAt;
    expect(await inA((tx) => continueSyncJob(tx, held))).toBe(true);
    expect((await outbox()).map((row) => row.job_id)).toEqual([`${id}-1`]);
    const next = await claim(id, 'worker-2');
    expect(next.epoch).toBe(2);
    expect((await find(id)).startedAt).toEqual(began);
  });
});

describe('a claim that was lost', () => {
  it('changes nothing any more', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => commitChunk(tx, held, CHUNK));
    const newer = await claim(id, 'worker-2');
    const before = await rowOf(id);
    const late: ((tx: Tx) => Promise<unknown>)[] = [
      (tx) => commitChunk(tx, held, { ...CHUNK, checkpoint: { offset: 0 } }),
      (tx) => beatSyncJob(tx, held),
      (tx) => continueSyncJob(tx, held),
      (tx) => completeSyncJob(tx, held),
    ];
    for (const write of late) expect(await inA(write)).toBe(false);
    expect(await inA((tx) => failSyncJob(tx, held, PASSING))).toBeNull();
    expect(await inA((tx) => failSyncJob(tx, held, { ...PASSING, mayPass: false }))).toBeNull();
    expect(await rowOf(id)).toEqual(before);
    expect(await outbox()).toEqual([]);
    expect(await inA((tx) => commitChunk(tx, newer, CHUNK))).toBe(true);
  });

  it.each(['pause', 'cancel'] as const)(
    '%s between two chunks is one: the chunk must be rolled back',
    async (asked) => {
      const { id, held } = await aRunningJob();
      await inA((tx) => commitChunk(tx, held, CHUNK));
      await inA((tx) => steerSyncJob(tx, id, asked));
      const before = await rowOf(id);
      expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(false);
      expect(await inA((tx) => beatSyncJob(tx, held))).toBe(false);
      expect(await inA((tx) => continueSyncJob(tx, held))).toBe(false);
      expect(await inA((tx) => completeSyncJob(tx, held))).toBe(false);
      expect(await inA((tx) => failSyncJob(tx, held, PASSING))).toBeNull();
      expect(await rowOf(id)).toEqual(before);
      expect(await outbox()).toEqual([]);
    },
  );

  it('a pause that was resumed before the worker looked is one too', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => steerSyncJob(tx, id, 'pause'));
    await inA((tx) => steerSyncJob(tx, id, 'resume'));
    expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(false);
    await claim(id, 'worker-2');
    expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(false);
  });

  it('of two who claim at once each has an epoch, and only the later one counts', async () => {
    const { id } = await start();
    const claims = await Promise.all([claim(id, 'worker-1'), claim(id, 'worker-2')]);
    const [early, late] = claims.toSorted((a, b) => a.epoch - b.epoch) as [SyncJobClaim, SyncJobClaim];
    expect([early.epoch, late.epoch]).toEqual([1, 2]);
    expect(await inA((tx) => commitChunk(tx, early, CHUNK))).toBe(false);
    expect(await inA((tx) => commitChunk(tx, late, CHUNK))).toBe(true);
  });
});

describe('steering', () => {
  const putInto = (id: string, state: SyncJobState) =>
    database.asOwner('update historical_sync_jobs set status = $2 where id = $1', [id, state]);
  const cases = SYNC_JOB_STATES.flatMap((state) =>
    (['pause', 'resume', 'cancel'] as const).map((asked) => [state, asked] as const),
  );

  it.each(cases)('a %s job that is asked to %s does as the table says', async (state, asked) => {
    const { id } = await start();
    await putInto(id, state);
    const before = await rowOf(id);
    const { from, to } = SYNC_JOB_MOVES[asked];
    if (from.includes(state)) expect(await inA((tx) => steerSyncJob(tx, id, asked))).toMatchObject({ status: to });
    else {
      await expect(inA((tx) => steerSyncJob(tx, id, asked))).rejects.toMatchObject({
        code: 'SYNC_JOB_ILLEGAL_MOVE',
        details: { state, move: asked },
      });
      expect(await rowOf(id)).toEqual(before);
    }
  });

  it('resuming queues a slice at once that no slice queued for later can hold up', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => failSyncJob(tx, held, PASSING));
    await inA((tx) => steerSyncJob(tx, id, 'pause'));
    await inA((tx) => steerSyncJob(tx, id, 'resume'));
    const [later, now] = await outbox();
    expect(later!.seconds).toBeGreaterThan(0);
    expect(now!.seconds).toBe(0);
    // BullMQ takes two jobs of one id for one, whatever their delays.
    expect(now!.job_id).not.toBe(later!.job_id);
    expect(await find(id)).toMatchObject({ status: 'pending', errorCount: 0, completedAt: null });
  });

  it('a job goes on from its checkpoint', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => commitChunk(tx, held, CHUNK));
    await inA((tx) => steerSyncJob(tx, id, 'pause'));
    await inA((tx) => steerSyncJob(tx, id, 'resume'));
    const next = await inA((tx) => claimSyncJob(tx, id, 'worker-2'));
    expect(next!.job).toMatchObject({ checkpoint: CHUNK.checkpoint, recordsNew: 5 });
  });

  it('a job that is not there is NOT_FOUND', async () => {
    await expect(inA((tx) => steerSyncJob(tx, uuidv7(), 'pause'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('failing', () => {
  it('an error that may pass is tried again after growing pauses, and fails the job in the end', async () => {
    const { id } = await start();
    await emptyOutbox();
    const pauses: number[] = [];
    for (let attempt = 1; attempt <= 5; attempt += 1) {
      const held = await claim(id);
      expect(await inA((tx) => failSyncJob(tx, held, PASSING))).toBe('pending');
      expect(await find(id)).toMatchObject({
        status: 'pending',
        errorCount: attempt,
        lastError: { code: 'INTERNAL_ERROR' },
        completedAt: null,
      });
      const [slice, ...more] = await outbox();
      expect(more).toEqual([]);
      expect(slice!.job_id).toBe(`${id}-${attempt}`);
      pauses.push(slice!.seconds);
      await emptyOutbox();
    }
    // Each is drawn from the upper half of 2, 4, 8, 16 and 32 s.
    pauses.forEach((pause, at) => {
      expect(pause).toBeGreaterThanOrEqual(2 ** at);
      expect(pause).toBeLessThanOrEqual(2 ** (at + 1));
    });
    expect(await inA(async (tx) => failSyncJob(tx, (await claimSyncJob(tx, id, 'w'))!.claim, PASSING))).toBe('failed');
    expect(await outbox()).toEqual([]);
    const failed = await find(id);
    expect(failed).toMatchObject({ status: 'failed', errorCount: 6, lastError: { message: PASSING.message } });
    expect(failed.completedAt).toBeInstanceOf(Date);
  });

  it('a chunk that succeeds makes the count begin anew', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => failSyncJob(tx, held, PASSING));
    const next = await claim(id);
    await inA((tx) => commitChunk(tx, next, CHUNK));
    expect(await find(id)).toMatchObject({ errorCount: 0, lastError: null });
  });

  it('an error that does not pass fails the job at once', async () => {
    const { id, held } = await aRunningJob();
    const error = { code: 'ARCHIVE_TRUNCATED', message: 'The archive ends early.', mayPass: false };
    expect(await inA((tx) => failSyncJob(tx, held, error))).toBe('failed');
    expect(await find(id)).toMatchObject({
      status: 'failed',
      errorCount: 1,
      lastError: { code: error.code, message: error.message },
    });
    expect(await outbox()).toEqual([]);
  });
});

describe('the reaper', () => {
  const reap = () => database.system.transaction((tx) => reapAbandoned(tx));
  const silentFor = (id: string, seconds: number) =>
    database.asOwner(
      `update historical_sync_jobs set updated_at = clock_timestamp() - $2 * interval '1 second' where id = $1`,
      [id, seconds],
    );

  it('queues those that were silent for a minute, once a minute, and no others', async () => {
    const [silent, fresh, waiting] = [await aRunningJob(), await aRunningJob(), await start()];
    await emptyOutbox();
    await silentFor(silent.id, 61);
    await silentFor(fresh.id, 55);
    await silentFor(waiting.id, 61);
    expect((await reap()).sort()).toEqual([silent.id, waiting.id].sort());
    expect((await outbox()).map((row) => row.job_id).sort()).toEqual([`${silent.id}-1`, `${waiting.id}-0`].sort());
    expect(await reap()).toEqual([]);
    await silentFor(silent.id, 61);
    expect(await reap()).toEqual([silent.id]);
  });

  it.each(['chunk', 'beat'] as const)('a %s is a sign of life', async (sign) => {
    const { id, held } = await aRunningJob();
    await silentFor(id, 61);
    await inA((tx) => (sign === 'chunk' ? commitChunk(tx, held, CHUNK) : beatSyncJob(tx, held)));
    expect(await reap()).toEqual([]);
  });

  it('lets finished and paused jobs rest', async () => {
    for (const state of SYNC_JOB_STATES.filter((each) => each !== 'pending' && each !== 'running')) {
      const { id } = await start();
      await database.asOwner('update historical_sync_jobs set status = $2 where id = $1', [id, state]);
      await silentFor(id, 3_600);
    }
    expect(await reap()).toEqual([]);
  });

  it('does not take the claim from a worker that was only slow', async () => {
    const { id, held } = await aRunningJob();
    await silentFor(id, 61);
    await reap();
    expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(true);
  });

  it('two at once share the jobs, and each job is queued once', async () => {
    const jobs = [await aRunningJob(), await aRunningJob(), await aRunningJob()];
    for (const { id } of jobs) await silentFor(id, 61);
    const reaped = (await Promise.all([reap(), reap()])).flat();
    expect(reaped.sort()).toEqual(jobs.map(({ id }) => id).sort());
    expect(await outbox()).toHaveLength(3);
  });

  it('needs the system role: under a tenant it does not see what others have abandoned', async () => {
    const { id } = await aRunningJob();
    await silentFor(id, 61);
    expect(await database.app.transaction(B, (tx) => reapAbandoned(tx))).toEqual([]);
    expect(await reap()).toEqual([id]);
  });
});

describe('waiting', () => {
  const WAIT = { quota: 'importedRecords', limit: 5, renewsAt: '2027-01-01T00:00:00.000Z', message: 'Used up.' };
  const renew = (...free: TenantId[]) =>
    database.system.transaction((tx) =>
      renewWaiting(tx, async (_tx, asked) => asked.filter(({ tenant }) => free.includes(tenant))),
    );
  async function aWaitingJob(tenant = A) {
    const { id } = await start(tenant);
    await database.app.transaction(tenant, async (tx) => {
      const { claim: held } = (await claimSyncJob(tx, id, 'worker-1'))!;
      expect(await waitSyncJob(tx, held, WAIT)).toBe(true);
    });
    await emptyOutbox();
    return id;
  }

  it('says what for, and goes on from its checkpoint once that is there', async () => {
    const { id, held } = await aRunningJob();
    await inA((tx) => commitChunk(tx, held, CHUNK));
    expect(await inA((tx) => waitSyncJob(tx, held, WAIT))).toBe(true);
    expect(await find(id)).toMatchObject({ status: 'waiting', waitingFor: WAIT, lastError: null, completedAt: null });
    expect(await inA((tx) => claimSyncJob(tx, id, 'worker-2'))).toBeNull();
    expect(await inA((tx) => commitChunk(tx, held, CHUNK))).toBe(false);
    expect(await renew(B)).toEqual([]);
    expect(await renew(A)).toEqual([id]);
    expect((await outbox()).map((row) => row.job_id)).toEqual([`${id}-2`]);
    expect(await find(id)).toMatchObject({ status: 'pending', waitingFor: null });
    const next = await inA((tx) => claimSyncJob(tx, id, 'worker-2'));
    expect(next!.job).toMatchObject({ checkpoint: CHUNK.checkpoint, recordsNew: 5 });
  });

  it('is over by what its owner asks, and a lost claim changes nothing', async () => {
    const jobs = [await aWaitingJob(), await aWaitingJob(), await aWaitingJob()];
    for (const [n, asked] of (['pause', 'resume', 'cancel'] as const).entries())
      expect(await inA((tx) => steerSyncJob(tx, jobs[n]!, asked))).toMatchObject({ waitingFor: null });
    expect(await renew(A)).toEqual([]);
    const { id, held } = await aRunningJob();
    await claim(id, 'worker-2');
    expect(await inA((tx) => waitSyncJob(tx, held, WAIT))).toBe(false);
  });

  it('of two who renew at once each takes others, and of tenants only those with something left', async () => {
    const [ours, more, theirs] = [await aWaitingJob(), await aWaitingJob(), await aWaitingJob(B)];
    const renewed = (await Promise.all([renew(A), renew(A)])).flat();
    expect(renewed.toSorted()).toEqual([ours, more].toSorted());
    expect(await renew(B)).toEqual([theirs]);
  });
});

describe('quarantine', () => {
  it('keeps what could not be read with place and reason, and notes nothing twice', async () => {
    const { id, held } = await aRunningJob();
    const faults = [
      { offset: 90_000_000_000, code: 'MAIL_BROKEN', reason: "its header's end is missing" },
      { offset: 7, code: 'MESSAGE_TOO_LARGE', reason: 'too large' },
    ];
    const importId = uuidv7();
    await inA((tx) => quarantine(tx, held, importId, faults));
    await inA((tx) => quarantine(tx, held, importId, faults));
    await inA((tx) => quarantine(tx, held, importId, []));
    expect(await inA((tx) => listQuarantined(tx, id, 10))).toEqual([faults[1], faults[0]]);
    expect(await inA((tx) => listQuarantined(tx, id, 1))).toEqual([faults[1]]);
    expect(await database.app.transaction(B, (tx) => listQuarantined(tx, id, 10))).toEqual([]);
  });
});

describe('reading', () => {
  it('lists newest first in pages, and only what belongs to the tenant', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 5; n += 1) ids.unshift((await start()).id);
    const others = await start(B);
    const list = async (first: number, after: string | null) =>
      (await inA((tx) => listSyncJobs(tx, { first, after }))).map(({ id }) => id);
    expect(await list(10, null)).toEqual(ids);
    expect(await list(2, null)).toEqual(ids.slice(0, 2));
    expect(await list(2, ids[1]!)).toEqual(ids.slice(2, 4));
    expect(await inA((tx) => findSyncJob(tx, others.id))).toBeNull();
    expect(await inA((tx) => claimSyncJob(tx, others.id, 'w'))).toBeNull();
    await expect(inA((tx) => steerSyncJob(tx, others.id, 'cancel'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
