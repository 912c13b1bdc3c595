import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import multipart from '@fastify/multipart';
import { accessEntities, accessMigrations, openAccess, setLimit } from '@atomo-cc/access';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { DEFAULT_TENANT_ID, uuidv7, type TenantId } from '@atomo-cc/kernel';
import { blobMigrations, BlobStore } from '@atomo-cc/platform/blobs';
import { startService, type RunningService } from '@atomo-cc/platform/lifecycle';
import { AppDatabase, openSystemDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues, Outbox1700000002000, OutboxRelay } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { progressChannel } from '@atomo-cc/queues';
import { describeSchema } from '@atomo-cc/schema';
import { claimSyncJob, commitChunk, completeSyncJob, quarantine, syncJobMigrations } from '@atomo-cc/sync-jobs';
import { aDatabase, aRedis, eventually, type TestDatabase } from '@atomo-cc/testing';
import { AppModule } from '../app.module.js';
import { anApi, SHOP, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { SubjectExport } from '../subjects/index.js';
import { Imports } from './imports.js';
import { ProgressFeed } from './progress-feed.js';
import { syncJobsApi } from './sync-jobs-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;
const MBOX = Buffer.from('From ada@example.com Mon Mar  3 08:15:00 2003\nFrom: ada@example.com\n\nHello\n');
const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };
const migrations = [
  Outbox1700000002000,
  ...blobMigrations,
  ...accessMigrations,
  ...eventStoreMigrations,
  ...syncJobMigrations,
];

const codec = new EventCodec(new SubjectKeys('the encryption key of these tests'), ATOMO_EVENTS);

let database: TestDatabase;
let command: Redis;
let subscriber: Redis;
let queues: JobQueues;
let relay: OutboxRelay;
let imports: Imports;
let api: TestApi;
let service: RunningService;
let system: SystemDatabase;
let token: string;

beforeAll(async () => {
  database = await aDatabase(migrations);
  for (const [n, tenant] of SHOP_TENANTS.entries())
    await database.asOwner(`insert into tenants (id, name, slug, plan) values ($1, $2, $2, 'enterprise')`, [
      tenant,
      `shop${n}`,
    ]);
  subscriber = await aRedis('blocking');
  command = await aRedis('command');
  queues = new JobQueues(command);
  relay = new OutboxRelay(database.system, queues, () => undefined);
  imports = new Imports(database.app, new BlobStore(database.app), relay, command);
  api = await anApi([syncJobsApi(imports, new ProgressFeed(subscriber))]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  service = await startService({
    name: 'test',
    module: AppModule.with({
      auth: { access: openAccess(system, { secret: 'a secret of this test' }), admin: ADMIN },
      schema: SHOP,
      imports,
      exports: new SubjectExport(SHOP, database.app, codec),
    }),
    provide: [
      { provide: AppDatabase, useValue: database.app },
      { provide: SystemDatabase, useValue: system },
    ],
    config: { HOST: '127.0.0.1', LOG_LEVEL: 'silent', ATOMO_SUPERVISOR: '' },
    port: 0,
    configure: async (app) =>
      void (await app.register(multipart as never, { limits: { fileSize: Infinity, files: 1, fields: 8 } })),
  });
  const login = await fetch(`${service.url}/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ADMIN),
  });
  token = ((await login.json()) as { accessToken: string }).accessToken;
});

afterAll(async () => {
  await service?.stop();
  await api?.close();
  await relay?.stop();
  await queues?.close();
  command?.disconnect();
  subscriber?.disconnect();
  await system?.close();
  await database?.drop();
});

beforeEach(async () => {
  for (const table of ['outbox', 'quarantined_records', 'historical_sync_jobs', 'blob_pieces', 'blobs'])
    await database.asOwner(`delete from ${table}`);
});

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
const stored = () =>
  database.asOwner<{ size: string | null; tenant_id: string; name: string }>('select size, tenant_id, name from blobs');

describe('what is taken for mail', () => {
  test.each<[string, Buffer]>([
    ['an mbox', MBOX],
    ['an mbox behind empty lines', Buffer.concat([Buffer.from('\r\n\n'), MBOX])],
    ['an mbox behind a byte order mark', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), MBOX])],
    ['a gzipped mbox', gzipSync(MBOX)],
    ['one message', Buffer.from('Subject: hello\r\nFrom: ada@example.com\r\n\r\nHello')],
    ['one message without blanks', Buffer.from('Subject:hello\nFrom:ada@example.com\n\nHello')],
    ['one message with folding', Buffer.from('Received:\r\n from x by y\r\n\r\nHello')],
    ['a short one', Buffer.from('From a')],
  ])('%s, whatever the pieces it comes in', async (_name, bytes) => {
    for (const size of [1, 3, 63, 64, 65, 1_000]) {
      const blob = await imports.store(OURS, 'mail', pieces(bytes, size));
      expect(blob.size).toBe(bytes.length);
      const read: Buffer[] = [];
      for await (const piece of new BlobStore(database.app).read(OURS, blob.id)) read.push(piece);
      expect(Buffer.concat(read).equals(bytes)).toBe(true);
    }
  });

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['a zip', Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(200)])],
    ['a PNG', Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(200)])],
    ['a PDF', Buffer.from(`%PDF-1.7\n${'x'.repeat(200)}`)],
    ['JSON', Buffer.from('{"from": "ada@example.com", "subject": "a name of a field is no bracket"}')],
    ['prose', Buffer.from('dear diary, today I wrote: nothing. '.repeat(5))],
    ['blanks', Buffer.from(' '.repeat(200))],
    ['half a gzip mark', Buffer.from([0x1f])],
  ])('%s is refused with a code, and nothing stays', async (_name, bytes) => {
    for (const size of [1, 64, 1_000]) {
      await expect(imports.store(OURS, 'upload.bin', pieces(bytes, size))).rejects.toMatchObject({
        code: 'VALIDATION_ERROR',
        message: expect.stringContaining('upload.bin'),
      });
    }
    expect(await stored()).toEqual([]);
    expect(await database.asOwner('select 1 from blob_pieces')).toEqual([]);
  });
});

describe('the quota of uploads', () => {
  const mib = (n: number) => Buffer.concat([MBOX, Buffer.alloc(n * 1024 * 1024, 'x')]);
  const limit = (amount: number | 'plan') =>
    setLimit(system, OURS, `uploadedBytes=${amount}`, { actor: 'operator:ada' });
  const ledger = () =>
    database.asOwner<{ used: number; reserved: number }>(
      `select used::int, reserved::int from quota_balances where tenant_id = $1 and quota = 'uploadedBytes'`,
      [OURS],
    );
  beforeEach(() => database.asOwner('delete from quota_balances'));
  afterEach(() => limit('plan'));

  test('what is stored counts, and an upload beyond it is refused, stored and counted not at all', async () => {
    const first = mib(1);
    await limit(2 * first.length + 5);
    await imports.store(OURS, 'a', pieces(first, 65_536));
    expect(await ledger()).toEqual([{ used: first.length, reserved: 0 }]);
    await expect(imports.store(OURS, 'b', pieces(mib(2), 65_536))).rejects.toMatchObject({
      code: 'RATE_LIMITED',
      details: {
        quota: 'uploadedBytes',
        limit: 2 * first.length + 5,
        used: first.length,
        retryAfterSeconds: expect.any(Number),
      },
    });
    await expect(imports.store(OURS, 'c', pieces(Buffer.alloc(2_000, '%'), 100))).rejects.toMatchObject({
      code: 'VALIDATION_ERROR',
    });
    expect(await ledger()).toEqual([{ used: first.length, reserved: 0 }]);
    expect((await stored()).map(({ name }) => name)).toEqual(['a']);
    await imports.store(OURS, 'd', pieces(first, 65_536));
    expect(await ledger()).toEqual([{ used: 2 * first.length, reserved: 0 }]);
  });

  test('of many at once no more are taken than there is room for', async () => {
    await limit(3 * MBOX.length);
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, () => imports.store(OURS, 'a', pieces(MBOX, 10))),
    );
    const count = results.filter(({ status }) => status === 'fulfilled').length;
    expect(count).toBeGreaterThan(0);
    expect(count).toBeLessThanOrEqual(3);
    expect(await ledger()).toEqual([{ used: count * MBOX.length, reserved: 0 }]);
    expect(await stored()).toHaveLength(count);
  });
});

async function upload(form: FormData, headers: Record<string, string> = { authorization: `Bearer ${token}` }) {
  const response = await fetch(`${service.url}/api/imports`, { method: 'POST', headers, body: form });
  return {
    status: response.status,
    body: (await response.json()) as { jobId: string; importId: string; error: { code: string; message: string } },
  };
}
function formOf(bytes: Uint8Array, name = 'mail.mbox'): FormData {
  const form = new FormData();
  form.set('file', new File([bytes as never], name));
  return form;
}
const get = async (path: string) => {
  const response = await fetch(`${service.url}${path}`, { headers: { authorization: `Bearer ${token}` } });
  return { status: response.status, body: (await response.json()) as Record<string, Json> };
};

describe('POST /api/imports', () => {
  test('stores the file, starts its job, and answers 202', async () => {
    const { status, body } = await upload(formOf(MBOX));
    expect(status).toBe(202);
    expect(await stored()).toEqual([{ size: String(MBOX.length), tenant_id: DEFAULT_TENANT_ID, name: 'mail.mbox' }]);
    const job = await get(`/api/historical-sync/${body.jobId}`);
    expect(job).toMatchObject({
      status: 200,
      body: { id: body.jobId, importId: body.importId, status: 'pending', bytesTotal: MBOX.length, bytesProcessed: 0 },
    });
    expect(job.body).not.toHaveProperty('tenantId');
    expect(job.body).not.toHaveProperty('checkpoint');
    await eventually('the slice to reach the queue', async () => (await queues.depths())[0]!.waiting === 1);
  });

  test('takes a file larger than the limit of other bodies', async () => {
    const big = Buffer.concat([MBOX, Buffer.alloc(3 * 1024 * 1024, 'x')]);
    expect((await upload(formOf(big))).status).toBe(202);
    expect(await stored()).toMatchObject([{ size: String(big.length) }]);
  });

  test('fields before the file do not matter', async () => {
    const form = new FormData();
    form.set('note', 'from my old machine');
    form.set('file', new File([MBOX], 'mail.mbox'));
    expect((await upload(form)).status).toBe(202);
  });

  test.each<[string, () => Promise<{ status: number; body: unknown }>]>([
    ['a form without a file', () => upload(Object.assign(new FormData(), {}) as FormData)],
    [
      'a form with a field only',
      async () => {
        const form = new FormData();
        form.set('file', 'no file');
        return upload(form);
      },
    ],
    [
      'JSON',
      async () => {
        const response = await fetch(`${service.url}/api/imports`, {
          method: 'POST',
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
          body: '{}',
        });
        return { status: response.status, body: await response.json() };
      },
    ],
    [
      'bytes',
      async () => {
        const response = await fetch(`${service.url}/api/imports`, {
          method: 'POST',
          headers: { authorization: `Bearer ${token}`, 'content-type': 'application/octet-stream' },
          body: MBOX,
        });
        return { status: response.status, body: await response.json() };
      },
    ],
    [
      'nothing',
      async () => {
        const response = await fetch(`${service.url}/api/imports`, {
          method: 'POST',
          headers: { authorization: `Bearer ${token}` },
        });
        return { status: response.status, body: await response.json() };
      },
    ],
    ['an empty file', () => upload(formOf(new Uint8Array()))],
    ['a picture', () => upload(formOf(Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), 'me.png'))],
    [
      'a big picture',
      () =>
        upload(
          formOf(Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), Buffer.alloc(8 * 1024 * 1024)]), 'me.png'),
        ),
    ],
  ])('with %s is a coded 400, and nothing is stored', async (_name, send) => {
    expect(await send()).toMatchObject({ status: 400, body: { error: { code: 'VALIDATION_ERROR' } } });
    expect(await stored()).toEqual([]);
    expect(await database.asOwner('select 1 from historical_sync_jobs')).toEqual([]);
  });

  test('without a token is 401 and nothing is stored', async () => {
    expect(await upload(formOf(MBOX), {})).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHENTICATED' } } });
    expect(await stored()).toEqual([]);
  });

  test('a name that no text can hold is no fault of ours', async () => {
    const body = Buffer.concat([
      Buffer.from(
        '--b\r\nContent-Disposition: form-data; name="file"; filename*=UTF-8\'\'ma%00il\r\nContent-Type: application/mbox\r\n\r\n',
      ),
      MBOX,
      Buffer.from('\r\n--b--\r\n'),
    ]);
    const response = await fetch(`${service.url}/api/imports`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'multipart/form-data; boundary=b' },
      body,
    });
    expect(response.status).toBeLessThan(500);
  });

  test('an upload that breaks off leaves nothing behind', async () => {
    const { port, hostname } = new URL(service.url);
    const socket = connect(Number(port), hostname);
    const head = '--b\r\nContent-Disposition: form-data; name="file"; filename="mail.mbox"\r\n\r\n';
    socket.write(
      `POST /api/imports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000000\r\n\r\n${head}`,
    );
    socket.write(MBOX);
    socket.write(Buffer.alloc(5 * 1024 * 1024, 'x'));
    await eventually('the upload to begin', async () => (await stored()).length === 1);
    socket.destroy();
    await eventually('nothing to be stored', async () => (await stored()).length === 0);
    expect(await database.asOwner('select 1 from historical_sync_jobs')).toEqual([]);
  });

  test('so does one whose last boundary is missing', async () => {
    const body = Buffer.concat([
      Buffer.from('--b\r\nContent-Disposition: form-data; name="file"; filename="mail.mbox"\r\n\r\n'),
      MBOX,
    ]);
    const response = await fetch(`${service.url}/api/imports`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'multipart/form-data; boundary=b' },
      body,
    });
    expect(response.status).toBe(400);
    expect(await stored()).toEqual([]);
  });
});

describe('GET /api/historical-sync/:id', () => {
  test.each([
    ['an id nobody has', uuidv7()],
    ['no id', 'x'],
    ['an injection', "' or true --"],
  ])('%s is 404', async (_name, id) => {
    expect(await get(`/api/historical-sync/${encodeURIComponent(id)}`)).toMatchObject({
      status: 404,
      body: { error: { code: 'NOT_FOUND' } },
    });
  });

  test('the job of another tenant is 404', async () => {
    const job = await aJob(THEIRS);
    expect(await get(`/api/historical-sync/${job}`)).toMatchObject({
      status: 404,
      body: { error: { code: 'NOT_FOUND' } },
    });
  });

  test('without a token is 401', async () => {
    expect((await fetch(`${service.url}/api/historical-sync/${uuidv7()}`)).status).toBe(401);
  });
});

async function aJob(tenant: TenantId = OURS): Promise<string> {
  const blob = await imports.store(tenant, 'mail', pieces(MBOX, 1_000));
  return (await imports.start(tenant, blob.id)).id;
}
const NOTHING = {
  recordsNew: 0,
  recordsChanged: 0,
  recordsUnchanged: 0,
  recordsQuarantined: 0,
  people: 0,
  threads: 0,
  replies: 0,
  nodes: 0,
  edges: 0,
};
/** Does with the job's row what a worker does. */
async function work(id: string, records: number, end = false, tenant = OURS): Promise<void> {
  await database.app.transaction(tenant, async (tx) => {
    const { claim, job } = (await claimSyncJob(tx, id, 'test'))!;
    await quarantine(tx, claim, job.importId, [{ offset: 7, code: 'MAIL_NO_SENDER', reason: 'no sender' }]);
    await commitChunk(tx, claim, {
      checkpoint: { offset: records },
      bytesProcessed: 1,
      counts: { ...NOTHING, recordsNew: records },
    });
    if (end) await completeSyncJob(tx, claim);
  });
}

describe('the GraphQL side', () => {
  const STATUS =
    'query ($id: ID!) { historicalSyncJob(id: $id) { id status recordsNew progressPercentage quarantined { offset code reason } lastError { code } startedAt } }';
  const steer = (move: string, id: string, tenant = OURS) =>
    api.ask(`mutation ($id: ID!) { ${move}HistoricalSync(id: $id) { id status } }`, { id }, tenant);

  test('starts a job of an upload, and shows where it stands', async () => {
    const blob = await imports.store(OURS, 'mail', pieces(MBOX, 1_000));
    const { startHistoricalSync } = await api.data(
      'mutation ($id: ID!) { startHistoricalSync(importId: $id) { id status importId } }',
      { id: blob.id },
    );
    expect(startHistoricalSync).toMatchObject({ status: 'pending', importId: blob.id });
    const { id } = startHistoricalSync;
    await work(id, 3);
    expect((await api.data(STATUS, { id })).historicalSyncJob).toMatchObject({
      status: 'running',
      recordsNew: 3,
      progressPercentage: expect.any(Number),
      quarantined: [{ offset: 7, code: 'MAIL_NO_SENDER', reason: 'no sender' }],
      lastError: null,
      startedAt: expect.any(String),
    });
  });

  test('an upload that is not there, not whole, or another tenant’s starts nothing', async () => {
    const theirs = await imports.store(THEIRS, 'mail', pieces(MBOX, 1_000));
    const half = uuidv7();
    await database.asOwner(`insert into blobs (id, tenant_id, name) values ($1, $2, 'half')`, [half, OURS]);
    for (const id of [uuidv7(), 'x', half, theirs.id]) {
      const { errors } = await api.ask('mutation ($id: ID!) { startHistoricalSync(importId: $id) { id } }', { id });
      expect(errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);
    }
    expect(await database.asOwner('select 1 from historical_sync_jobs')).toEqual([]);
  });

  test('pauses, resumes and cancels', async () => {
    const id = await aJob();
    for (const [move, status] of [
      ['pause', 'paused'],
      ['resume', 'pending'],
      ['cancel', 'cancelled'],
    ] as const) {
      expect(await steer(move, id)).toMatchObject({ data: { [`${move}HistoricalSync`]: { id, status } } });
    }
  });

  test.each<[string, string, readonly string[]]>([
    ['pause', 'paused', ['pause']],
    ['resume', 'pending', []],
    ['pause', 'cancelled', ['cancel']],
    ['resume', 'cancelled', ['cancel']],
    ['cancel', 'cancelled', ['cancel']],
  ])('to %s a %s job is a conflict that says so, and changes nothing', async (move, status, before) => {
    const id = await aJob();
    for (const step of before) await steer(step, id);
    const { errors } = await steer(move, id);
    expect(errors).toMatchObject([
      { message: expect.stringContaining(status), extensions: { code: 'CONFLICT', state: status, move } },
    ]);
    expect((await api.data(STATUS, { id })).historicalSyncJob.status).toBe(status);
  });

  test.each(['pause', 'resume', 'cancel'])('to %s a completed job is a conflict', async (move) => {
    const id = await aJob();
    await work(id, 1, true);
    expect((await steer(move, id)).errors).toMatchObject([{ extensions: { code: 'CONFLICT', state: 'completed' } }]);
  });

  test('another tenant neither sees nor steers nor lists nor follows a job', async () => {
    const id = await aJob();
    expect((await api.data(STATUS, { id }, THEIRS)).historicalSyncJob).toBeNull();
    expect((await api.data('{ historicalSyncJobs { nodes { id } } }', {}, THEIRS)).historicalSyncJobs.nodes).toEqual(
      [],
    );
    for (const move of ['pause', 'resume', 'cancel'])
      expect((await steer(move, id, THEIRS)).errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);
    expect((await steer('pause', 'x')).errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);
    await expect(follow(id, THEIRS).next()).rejects.toBeDefined();
    expect((await api.data(STATUS, { id })).historicalSyncJob.status).toBe('pending');
  });

  test('lists jobs newest first, in pages', async () => {
    const ids = [await aJob(), await aJob(), await aJob()].toReversed();
    const LIST =
      'query ($after: String) { historicalSyncJobs(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }';
    const one = (await api.data(LIST)).historicalSyncJobs;
    const two = (await api.data(LIST, { after: one.pageInfo.endCursor })).historicalSyncJobs;
    expect(
      [one, two].map(({ nodes, pageInfo }) => [nodes.map((node: { id: string }) => node.id), pageInfo.hasNextPage]),
    ).toEqual([
      [ids.slice(0, 2), true],
      [ids.slice(2), false],
    ]);
    for (const after of [
      'x',
      Buffer.from('["historicalSyncJobs","x"]').toString('base64url'),
      Buffer.from('["events","1"]').toString('base64url'),
    ]) {
      expect((await api.ask(LIST, { after })).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
    }
  });
});

/** Follows a job's progress by the subscription, through a real socket. */
function follow(id: string, tenant = OURS): AsyncGenerator<Json> {
  const { createClient } = jest.requireActual<typeof import('graphql-ws')>('graphql-ws');
  const { WebSocket } = jest.requireActual<typeof import('ws')>('ws');
  const client = createClient({
    url: api.url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${tenant}` },
    retryAttempts: 0,
  });
  const results = client.iterate({
    query: 'subscription ($id: ID!) { historicalSyncProgress(id: $id) { status recordsProcessed } }',
    variables: { id },
  });
  return (async function* () {
    try {
      for await (const { data, errors } of results) {
        if (errors) throw new Error(JSON.stringify(errors));
        yield data!['historicalSyncProgress'];
      }
    } finally {
      await client.dispose();
    }
  })();
}

describe('the progress subscription', () => {
  const subscribers = async (id: string) =>
    Number(((await command.pubsub('NUMSUB', progressChannel(id))) as [string, number])[1]);

  test('shows the job, each change at its hint, and ends with the job', async () => {
    const id = await aJob();
    const progress = follow(id);
    expect((await progress.next()).value).toEqual({ status: 'pending', recordsProcessed: 0 });
    await eventually('the feed to listen', async () => (await subscribers(id)) === 1);
    await work(id, 5);
    await command.publish(progressChannel(id), '');
    expect((await progress.next()).value).toEqual({ status: 'running', recordsProcessed: 5 });
    await work(id, 2, true);
    await command.publish(progressChannel(id), '');
    expect((await progress.next()).value).toEqual({ status: 'completed', recordsProcessed: 7 });
    expect((await progress.next()).done).toBe(true);
    await eventually('nobody to listen', async () => (await subscribers(id)) === 0);
  });

  test('finds a change without a hint', async () => {
    const id = await aJob();
    const progress = follow(id);
    await progress.next();
    await work(id, 5);
    expect((await progress.next()).value).toEqual({ status: 'running', recordsProcessed: 5 });
    await progress.return(undefined);
    await eventually('nobody to listen', async () => (await subscribers(id)) === 0);
  });

  test('steering is seen at once', async () => {
    const id = await aJob();
    const progress = follow(id);
    await progress.next();
    await api.data('mutation ($id: ID!) { pauseHistoricalSync(id: $id) { id } }', { id });
    expect((await progress.next()).value).toEqual({ status: 'paused', recordsProcessed: 0 });
    await api.data('mutation ($id: ID!) { cancelHistoricalSync(id: $id) { id } }', { id });
    expect((await progress.next()).value).toEqual({ status: 'cancelled', recordsProcessed: 0 });
    expect((await progress.next()).done).toBe(true);
  });
});

describe('the rest of REST', () => {
  let AS_ADMIN: Record<string, string>;
  beforeAll(() => (AS_ADMIN = { authorization: `Bearer ${token}` }));
  const schema = (headers: Record<string, string>) => fetch(`${service.url}/meta/schema`, { headers });

  test('the schema is shown to who has logged in, as their role has it', async () => {
    expect((await schema({})).status).toBe(401);
    const response = await schema(AS_ADMIN);
    expect(response.status).toBe(200);
    expect(response.headers.get('cache-control')).toBe('private, no-cache');
    expect(await response.json()).toEqual(JSON.parse(JSON.stringify(describeSchema(SHOP, 'Admin'))));
  });

  test('the schema is sent again only when it is another one', async () => {
    const etag = (await schema(AS_ADMIN)).headers.get('etag')!;
    for (const known of [etag, `"x", W/${etag}`, '*']) {
      const unchanged = await schema({ ...AS_ADMIN, 'if-none-match': known });
      expect([unchanged.status, await unchanged.text()]).toEqual([304, '']);
    }
    expect((await schema({ ...AS_ADMIN, 'if-none-match': '"another"' })).status).toBe(200);
    // Who is nobody learns not even that.
    expect((await schema({ 'if-none-match': etag })).status).toBe(401);
  });
});
