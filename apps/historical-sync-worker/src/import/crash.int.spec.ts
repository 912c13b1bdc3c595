import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { localHashEmbedder, SemanticStore } from '@atomo-cc/memory';
import { BlobStore } from '@atomo-cc/platform/blobs';
import { claimSyncJob, findSyncJob, startSyncJob, type SyncJob } from '@atomo-cc/sync-jobs';
import { aDatabase, aRedis, eventually, freePort, redisTestUrl, type TestDatabase } from '@atomo-cc/testing';
import { runImportSlice } from './import-slice.js';
import { workerMigrations } from '../migrations.js';
import { aMailbox, figuresOf, indexedIds } from '../testing/index.js';

const TENANT = DEFAULT_TENANT_ID;
const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
/** How often the worker is killed. Each time the queue takes up to 22 s to see it, so two must do where nobody asks for more. */
const KILLS = Number(process.env['CRASH_KILLS'] ?? 2);
const MAILS = Number(process.env['CRASH_MAILS'] ?? 2_000);
/** After the job is somewhere, the worker is killed within this time: a few chunks long, so it strikes anywhere inside one. */
const JITTER_MS = 150;
const RESTART_MS = 90_000;
const WORKER = 'apps/historical-sync-worker/dist/main.js';

interface Worker {
  readonly process: ChildProcess;
  readonly exited: Promise<unknown>;
  output: string;
}

const databases: TestDatabase[] = [];
const folders: string[] = [];
let worker: Worker | undefined;

afterAll(async () => {
  if (worker && worker.process.exitCode === null && worker.process.signalCode === null) {
    worker.process.kill('SIGKILL');
    await worker.exited;
  }
  await Promise.all(databases.map((database) => database.drop()));
  await Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true })));
});

/** A database and a memory folder with the archive stored and its job pending. */
async function aPlace(
  archive: Buffer,
): Promise<{ database: TestDatabase; folder: string; blobs: BlobStore; job: SyncJob }> {
  const database = await aDatabase(workerMigrations);
  databases.push(database);
  const folder = await mkdtemp(join(tmpdir(), 'crash-'));
  folders.push(folder);
  const blobs = new BlobStore(database.app);
  const blob = await blobs.put(TENANT, 'mail', [archive] as never);
  const job = await database.app.transaction(TENANT, (tx) =>
    startSyncJob(tx, { tenant: TENANT, integration: 'mbox', importId: blob.id, bytesTotal: blob.size }),
  );
  return { database, folder, blobs, job };
}

async function startWorker(database: TestDatabase, folder: string): Promise<Worker> {
  const port = await freePort();
  const child = spawn(process.execPath, [WORKER], {
    env: {
      PATH: process.env['PATH'],
      ATOMO_MODE: 'embedded',
      DATABASE_URL: database.url,
      REDIS_URL: redisTestUrl(),
      MEMORY_URI: folder,
      WORKER_PORT: String(port),
      LOG_LEVEL: 'warn',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const started: Worker = { process: child, exited: once(child, 'exit'), output: '' };
  for (const stream of [child.stdout, child.stderr])
    stream!.on('data', (bytes) => (started.output = `${started.output}${String(bytes)}`.slice(-10_000)));
  return started;
}

test(
  `a worker killed ${KILLS} times at random moments of ${MAILS} mails ends with what an undisturbed one has (SEED=${SEED})`,
  async () => {
    if (!existsSync(WORKER)) throw new Error(`${WORKER} is missing: build first (npm run build).`);
    const random = mulberry32(SEED);
    const archive = gzipSync(aMailbox(MAILS));

    const calm = await aPlace(archive);
    const claimed = (await calm.database.app.transaction(TENANT, (tx) => claimSyncJob(tx, calm.job.id, 'calm')))!;
    const index = { store: new SemanticStore({ uri: calm.folder }), embedder: localHashEmbedder };
    await runImportSlice(
      { database: calm.database.app, blobs: calm.blobs, index, onChunk: () => undefined },
      claimed.job,
      claimed.claim,
      new AbortController().signal,
    );
    const expected = await figuresOf((sql) => calm.database.asOwner(sql));
    expect(expected).toMatchObject({ quarantined: MAILS / 50, 'waiting for the index': 0 });

    const wild = await aPlace(archive);
    await (await aRedis()).quit();
    const look = () => wild.database.app.transaction(TENANT, (tx) => findSyncJob(tx, wild.job.id)) as Promise<SyncJob>;
    const moments = Array.from({ length: KILLS }, () => Math.floor(random() * MAILS * 0.95)).toSorted((a, b) => a - b);
    const killedAt: number[] = [];
    worker = await startWorker(wild.database, wild.folder);
    for (const moment of moments) {
      const epochBefore = killedAt.length;
      const job = await eventually(
        `${moment} messages read\n${worker.output}`,
        async () => {
          if (worker!.process.exitCode !== null) throw new Error(`the worker ended: ${worker!.output}`);
          const seen = await look();
          // Also for an early moment the worker must have come to work, or the kill would hit nothing.
          return (seen.recordsProcessed >= moment && (await epochOf(wild.database)) > epochBefore) ||
            seen.status === 'completed'
            ? seen
            : null;
        },
        RESTART_MS,
      );
      if (job.status === 'completed') break;
      await new Promise((resolve) => setTimeout(resolve, random() * JITTER_MS));
      worker.process.kill('SIGKILL');
      await worker.exited;
      killedAt.push((await look()).recordsProcessed);
      worker = await startWorker(wild.database, wild.folder);
    }
    const done = await eventually(
      'the job to be complete',
      async () => ((await look()).status === 'completed' ? look() : null),
      RESTART_MS,
    );
    process.stdout.write(
      `SEED=${SEED}: killed at ${killedAt.join(', ')} of ${MAILS} messages, claimed ${await epochOf(wild.database)} times\n`,
    );
    expect(done).toMatchObject({ recordsProcessed: MAILS, lastError: null });

    expect(await figuresOf((sql) => wild.database.asOwner(sql))).toEqual(expected);
    const records = await wild.database.asOwner<{ id: string }>('select id from memory_records');
    expect(
      await wild.database.asOwner(
        'select used::int, (select count(*)::int from quota_reservations) as open from quota_balances',
      ),
    ).toEqual([{ used: records.length, open: 0 }]);
    expect(await indexedIds(join(wild.folder, TENANT))).toEqual(records.map(({ id }) => id).toSorted());

    worker.process.kill('SIGTERM');
    expect(await worker.exited).toEqual([0, null]);
  },
  (KILLS + 2) * RESTART_MS,
);

async function epochOf(database: TestDatabase): Promise<number> {
  const [row] = await database.asOwner<{ epoch: string }>('select epoch from historical_sync_jobs');
  return Number(row!.epoch);
}

/** A small generator whose runs can be repeated from their seed. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
