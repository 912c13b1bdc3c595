import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { withRoom } from '@atomo-cc/access';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { localHashEmbedder, searchMemory, SemanticStore } from '@atomo-cc/memory';
import { BlobStore } from '@atomo-cc/platform/blobs';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  claimSyncJob,
  failSyncJob,
  findSyncJob,
  listQuarantined,
  renewWaiting,
  startSyncJob,
  steerSyncJob,
  type SyncJob,
  type SyncJobClaim,
} from '@atomo-cc/sync-jobs';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { workerMigrations } from '../migrations.js';
import { aMailbox, figuresOf, indexedIds } from '../testing/index.js';
import { describeFailure, runImportSlice, type ImportContext } from './import-slice.js';
import { QuotaShare } from './quota-share.js';

const TENANT = DEFAULT_TENANT_ID;
const FOREVER = new AbortController().signal;

let database: TestDatabase;
let folder: string;
let blobs: BlobStore;

beforeEach(async () => {
  database = await aDatabase(workerMigrations);
  folder = await mkdtemp(join(tmpdir(), 'import-slice-'));
  blobs = new BlobStore(database.app);
});

afterEach(async () => {
  jest.restoreAllMocks();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

type Chunk = (claim: SyncJobClaim, records: number) => void;

const contextOf = (onChunk: Chunk = () => undefined): ImportContext => ({
  database: database.app,
  blobs,
  index: { store: new SemanticStore({ uri: folder }), embedder: localHashEmbedder },
  onChunk,
});
const inTenant = <Result>(work: Parameters<AppDatabase['transaction']>[1]) =>
  database.app.transaction(TENANT, work) as Promise<Result>;

async function start(archive: Buffer): Promise<string> {
  const blob = await blobs.put(TENANT, 'mail', [archive] as never);
  return inTenant<SyncJob>((tx) =>
    startSyncJob(tx, { tenant: TENANT, integration: 'mbox', importId: blob.id, bytesTotal: blob.size }),
  ).then(({ id }) => id);
}
const claim = async (id: string) =>
  (await inTenant<Awaited<ReturnType<typeof claimSyncJob>>>((tx) => claimSyncJob(tx, id, 'test')))!;
const jobOf = async (id: string) => (await inTenant<SyncJob | null>((tx) => findSyncJob(tx, id)))!;

/** One slice as the processor runs it. */
async function slice(id: string, options: { onChunk?: Chunk; signal?: AbortSignal } = {}) {
  const claimed = await claim(id);
  return runImportSlice(contextOf(options.onChunk), claimed.job, claimed.claim, options.signal ?? FOREVER);
}
async function imported(archive: Buffer): Promise<SyncJob> {
  const id = await start(archive);
  expect(await slice(id)).toBe('completed');
  return jobOf(id);
}
const figures = () => figuresOf((sql) => database.asOwner(sql));
async function expectIndexHoldsEachRecordOnce(): Promise<void> {
  const records = await database.asOwner<{ id: string }>('select id from memory_records');
  expect(await indexedIds(join(folder, TENANT))).toEqual(records.map(({ id }) => id).toSorted());
}

test('the orchard’s list gives the counts that its README names, and again nothing', async () => {
  const archive = await readFile(join('apps/historical-sync-worker/src/connectors/mbox/fixtures/orchard.mbox'));
  const job = await imported(archive);
  expect(job).toMatchObject({
    status: 'completed',
    recordsNew: 11,
    recordsChanged: 0,
    recordsUnchanged: 0,
    recordsQuarantined: 1,
    recordsProcessed: 12,
    replies: 6,
    threads: 5,
    progressPercentage: 100,
    bytesProcessed: archive.length,
    errorCount: 0,
    lastError: null,
  });
  expect(await inTenant((tx) => listQuarantined(tx, job.id, 100))).toEqual([
    { offset: 6096, code: 'MAIL_NO_SENDER', reason: expect.any(String) },
  ]);
  await expectIndexHoldsEachRecordOnce();
  const [hit] = await searchMemory(database.app, new SemanticStore({ uri: folder }), localHashEmbedder, {
    tenant: TENANT,
    query: 'cider barrels price',
    mode: 'HYBRID',
    limit: 3,
  });
  expect(hit!.record.subject).toMatch(/Price of cider barrels/);

  const { jobs: _first, ...before } = await figures();
  const again = await imported(archive);
  expect(again).toMatchObject({
    status: 'completed',
    recordsNew: 0,
    recordsUnchanged: 11,
    recordsQuarantined: 1,
    people: 0,
    threads: 0,
    replies: 0,
    entitiesExtracted: 0,
    relationshipsExtracted: 0,
  });
  const { jobs: _both, ...after } = await figures();
  // What could not be read is noted for each job that met it.
  expect(after).toEqual({ ...before, quarantined: 2 });
  await expectIndexHoldsEachRecordOnce();
});

test('chunks of a hundred; plain and gzipped give the same', async () => {
  const archive = aMailbox(350);
  const sizes: number[] = [];
  const id = await start(archive);
  expect(await slice(id, { onChunk: (_claim, records) => void sizes.push(records) })).toBe('completed');
  expect(sizes).toEqual([100, 100, 100, 50]);
  const job = await jobOf(id);
  expect(job).toMatchObject({
    recordsNew: 343,
    recordsQuarantined: 7,
    recordsProcessed: 350,
    threads: 70,
    bytesProcessed: archive.length,
  });
  const graph = await database.asOwner<{ edges: number; nodes: number }>(
    `select (select count(*)::int from graph_edges) as edges, (select count(*)::int from graph_nodes) as nodes`,
  );
  expect(graph).toEqual([{ edges: job.relationshipsExtracted, nodes: job.entitiesExtracted }]);
  await expectIndexHoldsEachRecordOnce();

  expect(await imported(gzipSync(archive))).toMatchObject({
    recordsNew: 0,
    recordsUnchanged: 343,
    recordsQuarantined: 7,
    replies: 0,
  });
  await expectIndexHoldsEachRecordOnce();
});

test('big messages make smaller chunks', async () => {
  const big = (n: number) =>
    `From a@b.example Mon Mar  3 08:15:00 2003\nFrom: a@b.example\nDate: Mon, 3 Mar 2003 09:15:00 +0100\nMessage-ID: <big${n}@b.example>\n\n${`${'x'.repeat(99)}\n`.repeat(120_000)}\n`;
  const sizes: number[] = [];
  const id = await start(gzipSync(Buffer.from([1, 2, 3, 4].map(big).join(''))));
  expect(await slice(id, { onChunk: (_claim, records) => void sizes.push(records) })).toBe('completed');
  expect(sizes).toEqual([3, 1]);
}, 60_000);

test('a claim lost in the middle takes the chunk back, and who took over ends with the same counts', async () => {
  const archive = aMailbox(350);
  await imported(archive);
  const undisturbed = await figures();
  await reset();

  const id = await start(archive);
  let chunks = 0;
  let took: ReturnType<typeof claim> | undefined;
  const first = await claim(id);
  const transaction = AppDatabase.prototype.transaction;
  // Another worker claims the job while the third chunk is being written.
  jest.spyOn(AppDatabase.prototype, 'transaction').mockImplementation(async function (this: AppDatabase, tenant, work) {
    if (chunks === 2 && !took) {
      took = (async () =>
        (await transaction.call(database.app, TENANT, (tx) => claimSyncJob(tx, id, 'other'))) as Awaited<
          ReturnType<typeof claim>
        >)();
      await took;
    }
    return transaction.call(this, tenant, work) as never;
  });
  expect(
    await runImportSlice(
      contextOf(() => void (chunks += 1)),
      first.job,
      first.claim,
      FOREVER,
    ),
  ).toBe('lost');
  jest.restoreAllMocks();
  expect(chunks).toBe(2);
  expect(await figures()).toMatchObject({ records: 196 });
  const other = await took!;
  expect(other.job.checkpoint).not.toBeNull();
  expect(await runImportSlice(contextOf(), other.job, other.claim, FOREVER)).toBe('completed');
  expect(await figures()).toEqual(undisturbed);
  await expectIndexHoldsEachRecordOnce();
});

async function reset(): Promise<void> {
  for (const table of [
    'graph_edge_evidence',
    'graph_edges',
    'graph_person_words',
    'graph_nodes',
    'memory_index_queue',
    'memory_records',
    'quarantined_records',
    'historical_sync_jobs',
    'outbox',
  ]) {
    await database.asOwner(`delete from ${table}`);
  }
  await rm(folder, { recursive: true, force: true });
}

test.each(['pause', 'cancel'] as const)(
  '%s between chunks ends the slice; what was read is searchable',
  async (move) => {
    const id = await start(aMailbox(350));
    let steered: Promise<unknown> | undefined;
    const transaction = AppDatabase.prototype.transaction;
    let chunks = 0;
    jest.spyOn(AppDatabase.prototype, 'transaction').mockImplementation(async function (
      this: AppDatabase,
      tenant,
      work,
    ) {
      if (chunks === 1) await (steered ??= transaction.call(database.app, TENANT, (tx) => steerSyncJob(tx, id, move)));
      return transaction.call(this, tenant, work) as never;
    });
    expect(await slice(id, { onChunk: () => void (chunks += 1) })).toBe('lost');
    jest.restoreAllMocks();
    expect(await jobOf(id)).toMatchObject({ status: move === 'pause' ? 'paused' : 'cancelled', recordsProcessed: 100 });
    await expectIndexHoldsEachRecordOnce();
    if (move === 'cancel') return;
    await inTenant((tx) => steerSyncJob(tx, id, 'resume'));
    expect(await slice(id)).toBe('completed');
    expect(await jobOf(id)).toMatchObject({ recordsProcessed: 350, recordsNew: 343, recordsUnchanged: 0 });
  },
);

test('a slice told to end lets go of the upload it was reading', async () => {
  const id = await start(Buffer.from(aMailbox(350)));
  let isReleased = false;
  const read = BlobStore.prototype.read;
  jest.spyOn(BlobStore.prototype, 'read').mockImplementation(async function* (this: BlobStore, ...asked) {
    try {
      // Little at a time, so that the end of the upload is far when the slice ends.
      for await (const bytes of read.apply(this, asked)) {
        for (let at = 0; at < bytes.length; at += 64) yield bytes.subarray(at, at + 64);
      }
    } finally {
      isReleased = true;
    }
  });
  const ending = new AbortController();
  expect(await slice(id, { onChunk: () => ending.abort(), signal: ending.signal })).toBe('continued');
  expect(isReleased).toBe(true);
  jest.restoreAllMocks();
});

test('a slice told to end goes on in the next, with the same totals', async () => {
  const archive = gzipSync(aMailbox(350));
  await imported(archive);
  const undisturbed = await figures();
  await reset();

  const id = await start(archive);
  const outcomes: string[] = [];
  for (let outcome = ''; outcome !== 'completed';) {
    await database.asOwner('delete from outbox');
    const ending = new AbortController();
    outcome = await slice(id, { onChunk: () => ending.abort(), signal: ending.signal });
    outcomes.push(outcome);
    const queued = await database.asOwner<{ job_id: string; payload: object }>('select job_id, payload from outbox');
    const { epoch } = (
      await database.asOwner<{ epoch: string }>('select epoch from historical_sync_jobs where id = $1', [id])
    )[0]!;
    if (outcome === 'continued')
      expect(queued).toEqual([{ job_id: `${id}-${epoch}`, payload: { jobId: id, tenantId: TENANT } }]);
    else expect(queued).toEqual([]);
    expect(outcomes.length).toBeLessThan(10);
  }
  // After the last chunk nothing is left to read, which the next slice finds.
  expect(outcomes).toEqual(['continued', 'continued', 'continued', 'continued', 'completed']);
  expect(await figures()).toEqual(undisturbed);
  await expectIndexHoldsEachRecordOnce();
});

describe('the quota of the tenant', () => {
  const limit = (amount: number) =>
    database.asOwner(
      `insert into tenant_limits (tenant_id, quota, amount) values ($1, 'importedRecords', $2)
       on conflict (tenant_id, quota) do update set amount = excluded.amount`,
      [TENANT, amount],
    );
  const ledger = async () => {
    const [balance] = await database.asOwner<{ used: number; reserved: number }>(
      'select used::int, reserved::int from quota_balances',
    );
    return { ...balance, reservations: (await database.asOwner('select 1 from quota_reservations')).length };
  };
  /** As the autoscaler does it. */
  const renew = () => database.system.transaction((tx) => renewWaiting(tx, withRoom));

  test('lets a job read so many records and no more, wait, and end with the same counts when there is more', async () => {
    const archive = gzipSync(aMailbox(350));
    await imported(archive);
    const undisturbed = await figures();
    expect(await ledger()).toEqual({ used: 343, reserved: 0, reservations: 0 });
    await reset();
    await database.asOwner('delete from quota_balances');
    await database.asOwner('delete from quota_receipts');

    await limit(130);
    const id = await start(archive);
    expect(await slice(id)).toBe('waiting');
    expect(await jobOf(id)).toMatchObject({
      status: 'waiting',
      recordsNew: 130,
      lastError: null,
      waitingFor: {
        quota: 'importedRecords',
        limit: 130,
        message: expect.stringMatching(
          /^The plan allows 130 imported records a month: 130 are used\. The job goes on by/,
        ),
      },
    });
    expect(await ledger()).toEqual({ used: 130, reserved: 0, reservations: 0 });
    await expectIndexHoldsEachRecordOnce();
    expect(await renew()).toEqual([]);
    await limit(131);
    expect(await renew()).toEqual([id]);
    expect(await slice(id)).toBe('waiting');
    await limit(343);
    await renew();
    expect(await slice(id)).toBe('completed');
    expect(await figures()).toEqual(undisturbed);
    await expectIndexHoldsEachRecordOnce();
    expect(await ledger()).toEqual({ used: 343, reserved: 0, reservations: 0 });
    // What memory has costs nothing, but of what is unknown nobody can say so: all used up, a job waits.
    expect(await slice(await start(archive))).toBe('waiting');
    await limit(344);
    expect(await imported(archive)).toMatchObject({ recordsUnchanged: 343 });
    expect(await ledger()).toMatchObject({ used: 343 });
  });

  test('what a worker that died has set aside is its successor’s, and what it wrote counts once', async () => {
    await limit(343);
    const id = await start(aMailbox(350));
    const first = await claim(id);
    let chunks = 0;
    const died = runImportSlice(
      contextOf(() => {
        if ((chunks += 1) === 2) throw new Error('killed');
      }),
      first.job,
      first.claim,
      FOREVER,
    );
    // It gives nothing back, as one that is killed.
    jest.spyOn(QuotaShare.prototype, 'giveBack').mockResolvedValue();
    await expect(died).rejects.toThrow('killed');
    jest.restoreAllMocks();
    expect(await ledger()).toEqual({ used: 0, reserved: 343, reservations: 1 });
    expect(await slice(id)).toBe('completed');
    expect(await jobOf(id)).toMatchObject({ recordsNew: 343, recordsUnchanged: 0 });
    expect(await ledger()).toEqual({ used: 343, reserved: 0, reservations: 0 });
  });
});

/** What the processor notes of a slice that throws. */
async function failure(id: string): Promise<{ thrown: ReturnType<typeof describeFailure>; status: unknown }> {
  const claimed = await claim(id);
  const thrown = await runImportSlice(contextOf(), claimed.job, claimed.claim, FOREVER).then(
    () => Promise.reject(new Error('it did not fail')),
    describeFailure,
  );
  return { thrown, status: await inTenant((tx) => failSyncJob(tx, claimed.claim, thrown)) };
}

test('an upload that breaks off fails for good, and every whole message before the break is kept', async () => {
  const archive = aMailbox(350);
  const packed = gzipSync(archive);
  const id = await start(packed.subarray(0, Math.floor(packed.length * 0.7)));
  expect(await failure(id)).toMatchObject({ thrown: { code: 'ARCHIVE_TRUNCATED', mayPass: false }, status: 'failed' });
  const job = await jobOf(id);
  expect(job).toMatchObject({
    status: 'failed',
    lastError: { code: 'ARCHIVE_TRUNCATED', message: expect.stringContaining('upload the whole file again') },
  });
  // Not only whole chunks of a hundred: up to the message in which it breaks off, in whole numbers.
  expect(job.recordsProcessed).toBeGreaterThan(200);
  expect(job.recordsProcessed % 100).not.toBe(0);
  const [{ last }] = (await database.asOwner<{ last: number }>(
    `select max(substring(message_id from 'm(\\d+)@')::int) as last from memory_records`,
  )) as [{ last: number }];
  expect([job.recordsProcessed - 1, job.recordsProcessed - 2]).toContain(last);
  await expectIndexHoldsEachRecordOnce();

  const whole = await imported(packed);
  expect(whole).toMatchObject({
    status: 'completed',
    recordsUnchanged: job.recordsNew,
    recordsNew: 343 - job.recordsNew,
  });
});

test.each([
  ['NOT_AN_MBOX', Buffer.from('dear diary\n'.repeat(100))],
  ['ARCHIVE_TRUNCATED', gzipSync(aMailbox(3)).subarray(0, 20)],
  ['ARCHIVE_CORRUPT', Buffer.concat([Buffer.from([0x1f, 0x8b]), Buffer.alloc(100, 7)])],
])('an archive that is none fails at once with %s', async (code, archive) => {
  const id = await start(archive);
  expect(await failure(id)).toMatchObject({ thrown: { code, mayPass: false }, status: 'failed' });
  expect(await jobOf(id)).toMatchObject({ status: 'failed', recordsProcessed: 0, lastError: { code } });
});

test('a database error may pass: the job is queued again, with a word for its owner that gives nothing away', async () => {
  const id = await start(aMailbox(10));
  await database.asOwner('alter table graph_nodes rename to hidden_nodes');
  const { thrown, status } = await failure(id);
  expect({ thrown, status }).toEqual({
    thrown: { code: 'INTERNAL_ERROR', message: expect.not.stringContaining('graph_nodes'), mayPass: true },
    status: 'pending',
  });
  expect(await jobOf(id)).toMatchObject({ status: 'pending', errorCount: 1, recordsProcessed: 0 });
  expect(
    await database.asOwner(`select 1 from outbox where run_at > created_at + interval '500 milliseconds'`),
  ).toHaveLength(1);
  await database.asOwner('alter table hidden_nodes rename to graph_nodes');
  expect(await slice(id)).toBe('completed');
  expect(await jobOf(id)).toMatchObject({ errorCount: 0, recordsNew: 10 });
});

test('an index that cannot be written fails the slice, not the records; the next slice catches up', async () => {
  const id = await start(aMailbox(150));
  const write = jest.spyOn(SemanticStore.prototype, 'write').mockRejectedValue(new Error('no bucket'));
  expect(await failure(id)).toMatchObject({ thrown: { code: 'INTERNAL_ERROR', mayPass: true }, status: 'pending' });
  write.mockRestore();
  expect(await slice(id)).toBe('completed');
  expect(await jobOf(id)).toMatchObject({ recordsProcessed: 150, recordsNew: 147 });
  await expectIndexHoldsEachRecordOnce();
});

test('two archives of one tenant at the same time end as if one after the other', async () => {
  const [one, two] = [aMailbox(150, 'one'), aMailbox(150, 'two')];
  await imported(one);
  await imported(two);
  const { jobs: _jobs, ...apart } = await figures();
  await reset();
  await Promise.all([imported(one), imported(two)]);
  const { jobs: _both, ...together } = await figures();
  expect(together).toEqual(apart);
  await expectIndexHoldsEachRecordOnce();
});

test('an empty archive is complete at once', async () => {
  expect(await imported(Buffer.alloc(0))).toMatchObject({
    status: 'completed',
    recordsProcessed: 0,
    progressPercentage: 100,
  });
});
