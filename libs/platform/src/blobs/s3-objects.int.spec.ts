import { createHash, randomBytes } from 'node:crypto';
import type { TenantId } from '@atomo-cc/kernel';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { blobMigrations, BlobStore, openBlobStore } from './blobs.js';
import { openS3Objects } from './s3-objects.js';
import { FakeS3, type Fault } from './testing/index.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const MIB = 1024 * 1024;
const PART = 8 * MIB;
const coded = (code: string) => expect.objectContaining({ code });

let database: TestDatabase;
let s3: FakeS3;
let store: BlobStore;
const environment = process.env;

beforeAll(async () => {
  database = await aDatabase(blobMigrations, { poolSize: 3 });
  s3 = await FakeS3.start('a-bucket');
  process.env = { ...environment, AWS_ACCESS_KEY_ID: s3.accessKeyId, AWS_SECRET_ACCESS_KEY: 'any' };
  store = await openBlobStore(s3.url('blobs'), database.app);
});

afterEach(() => s3.reset());

afterAll(async () => {
  store?.close();
  process.env = environment;
  await Promise.all([database?.drop(), s3?.stop()]);
});

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function readAll(from: BlobStore, id: string, at?: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of from.read(A, id, at)) parts.push(part);
  return Buffer.concat(parts);
}

const rows = async () => (await database.asOwner('select 1 from blobs')).length;

describe('writing', () => {
  it('takes one request for what fits into a part, and parts for the rest', async () => {
    await store.put(A, 'x', once(randomBytes(PART)));
    expect(s3.requests.map(({ operation }) => operation)).toEqual(['PutObject']);
    s3.reset();
    await store.put(A, 'x', once(randomBytes(2 * PART + 1)));
    expect(s3.requests.map(({ operation }) => operation).sort()).toEqual(
      ['CompleteMultipartUpload', 'CreateMultipartUpload', 'UploadPart', 'UploadPart', 'UploadPart'].sort(),
    );
  });

  it('keeps the object under prefix, tenant and id', async () => {
    const { id } = await store.put(A, 'x', once(randomBytes(10)));
    expect([...s3.objects.keys()]).toContain(`a-bucket/blobs/${A}/${id}`);
  });

  it.each<[string, Fault]>([
    ['a part', { operation: 'UploadPart', status: 503, code: 'SlowDown', times: 3 }],
    ['a connection', { operation: 'UploadPart', breakAfter: -1, times: 2 }],
    ['the start', { operation: 'CreateMultipartUpload', status: 500, times: 2 }],
    ['the end', { operation: 'CompleteMultipartUpload', status: 500, times: 2 }],
  ])('tries %s again that fails for a while', async (_what, fault) => {
    s3.fail(fault);
    const bytes = randomBytes(2 * PART);
    const { id } = await store.put(A, 'x', once(bytes));
    expect((await readAll(store, id)).equals(bytes)).toBe(true);
  });

  it.each<[string, string, Fault]>([
    ['a part', 'BLOBS_UNAVAILABLE', { operation: 'UploadPart', status: 503, code: 'SlowDown', times: 100 }],
    ['a part', 'BLOBS_NOT_PERMITTED', { operation: 'UploadPart', status: 403, code: 'AccessDenied', times: 100 }],
    ['the start', 'BLOBS_NOT_PERMITTED', { operation: 'CreateMultipartUpload', status: 403, code: 'AccessDenied' }],
    ['the end', 'BLOBS_UNAVAILABLE', { operation: 'CompleteMultipartUpload', status: 500, times: 100 }],
    ['the answer', 'BLOBS_UNAVAILABLE', { operation: 'CompleteMultipartUpload', isLost: true }],
  ])('leaves nothing when %s fails for good (%s)', async (_what, code, fault) => {
    const before = { rows: await rows(), objects: s3.objects.size };
    s3.fail(fault);
    let isEnded = false;
    async function* endless() {
      try {
        for (let sent = 0; sent < 3 * PART; sent += MIB) yield randomBytes(MIB);
      } finally {
        isEnded = true;
      }
    }
    await expect(store.put(A, 'x', endless())).rejects.toEqual(coded(code));
    expect({ rows: await rows(), objects: s3.objects.size }).toEqual(before);
    expect([...s3.unfinished]).toEqual([]);
    expect(isEnded).toBe(true);
  });

  it('stops to take from the source soon after a part was refused', async () => {
    s3.fail({ operation: 'UploadPart', status: 403, code: 'AccessDenied', times: 100 });
    let taken = 0;
    async function* long() {
      for (; taken < 30 * PART; taken += MIB) yield randomBytes(MIB);
    }
    await expect(store.put(A, 'x', long())).rejects.toEqual(coded('BLOBS_NOT_PERMITTED'));
    expect(taken).toBeLessThanOrEqual(6 * PART);
  });

  it("tells the source's fault even when the multipart upload cannot be aborted", async () => {
    s3.fail({ operation: 'AbortMultipartUpload', status: 500, times: 100 });
    async function* failing() {
      yield randomBytes(2 * PART + 1);
      throw new Error('the upload broke off');
    }
    await expect(store.put(A, 'x', failing())).rejects.toThrow('the upload broke off');
    s3.unfinished.clear();
  });

  it('leaves a blob whose object could not be removed, to be removed again', async () => {
    const { id } = await store.put(A, 'x', once(randomBytes(10)));
    s3.fail({ operation: 'DeleteObject', status: 500, times: 4 });
    await expect(store.delete(A, id)).rejects.toEqual(coded('BLOBS_UNAVAILABLE'));
    expect(await store.find(A, id)).toMatchObject({ id });
    await store.delete(A, id);
    await expect(store.find(A, id)).rejects.toEqual(coded('NOT_FOUND'));
  });

  it('removes a blob whose object is gone, also where that is an error', async () => {
    const { id } = await store.put(A, 'x', once(randomBytes(10)));
    s3.fail({ operation: 'DeleteObject', status: 404, code: 'NoSuchKey' });
    await store.delete(A, id);
    await expect(store.find(A, id)).rejects.toEqual(coded('NOT_FOUND'));
  });
});

describe('reading', () => {
  const bytes = randomBytes(2 * PART + 12_345);
  let id: string;

  beforeAll(async () => {
    ({ id } = await store.put(A, 'x', once(bytes)));
    s3.reset();
  });

  it('asks for a range at a time, from where it shall begin', async () => {
    expect((await readAll(store, id, 7)).equals(bytes.subarray(7))).toBe(true);
    expect(s3.requests.map(({ range }) => range)).toEqual([
      `bytes=7-${PART + 6}`,
      `bytes=${PART + 7}-${2 * PART + 6}`,
      `bytes=${2 * PART + 7}-${bytes.length - 1}`,
    ]);
  });

  it('goes on where a body broke off, again and again', async () => {
    for (const breakAfter of [1, 100_000, 0, 0, PART - 5, 3]) s3.fail({ operation: 'GetObject', breakAfter });
    const read = await readAll(store, id, 11);
    expect(createHash('sha256').update(read).digest('hex')).toBe(
      createHash('sha256').update(bytes.subarray(11)).digest('hex'),
    );
    expect(s3.requests.length).toBe(7);
  });

  it('gives up when no body brings a byte', async () => {
    s3.fail({ operation: 'GetObject', breakAfter: 0, times: 100 });
    await expect(readAll(store, id)).rejects.toEqual(coded('BLOBS_UNAVAILABLE'));
    expect(s3.requests.length).toBe(5);
  });

  it.each<[string, Fault]>([
    ['NOT_FOUND', { operation: 'GetObject', status: 404, code: 'NoSuchKey' }],
    ['NOT_FOUND', { operation: 'GetObject', status: 416, code: 'InvalidRange' }],
    ['BLOBS_NOT_PERMITTED', { operation: 'GetObject', status: 403, code: 'AccessDenied' }],
    ['BLOBS_NOT_PERMITTED', { operation: 'GetObject', status: 404, code: 'NoSuchBucket' }],
    ['BLOBS_UNAVAILABLE', { operation: 'GetObject', status: 500, times: 100 }],
    ['BLOBS_UNAVAILABLE', { operation: 'GetObject', breakAfter: -1, times: 100 }],
    ['BLOBS_UNAVAILABLE', { operation: 'GetObject', ignoreRange: true }],
  ])('says %s for %j', async (code, fault) => {
    s3.fail(fault);
    await expect(readAll(store, id, 1)).rejects.toEqual(coded(code));
  });

  it('does not take an object that became shorter for the whole', async () => {
    const { id } = await store.put(A, 'x', once(randomBytes(1_000)));
    const [key, stored] = [...s3.objects].find(([key]) => key.endsWith(id))!;
    s3.objects.set(key, { ...stored, size: 600 });
    await expect(readAll(store, id)).rejects.toEqual(coded('NOT_FOUND'));
  });

  it('lets the connection go when the reader stops', async () => {
    for (let round = 0; round < 60; round += 1) {
      // More rounds than the client has connections: one that is kept would make the last ones wait for ever.
      for await (const part of store.read(A, id)) if (part.length > 0) break;
    }
    expect(s3.requests.length).toBe(60);
  });
});

describe('another BLOBS_URL', () => {
  it('leaves what is elsewhere on the server, and in Postgres, readable', async () => {
    const inPostgres = await new BlobStore(database.app).put(A, 'x', once(Buffer.from('in rows')));
    const onS3 = await store.put(A, 'x', once(Buffer.from('in an object')));
    const moved = await openBlobStore(s3.url('elsewhere', s3.otherBucket), database.app);
    expect(String(await readAll(moved, inPostgres.id))).toBe('in rows');
    expect(String(await readAll(moved, onS3.id))).toBe('in an object');
    const { id } = await moved.put(A, 'x', once(Buffer.from('in the other bucket')));
    expect([...s3.objects.keys()]).toContain(`a-bucket-2/elsewhere/${A}/${id}`);
    await Promise.all([inPostgres.id, onS3.id].map((id) => moved.delete(A, id)));
    expect([...s3.objects.keys()].join(' ')).not.toContain(onS3.id);
    moved.close();
  });

  it('that is empty tells of uploads on S3 that they cannot be read, and removes none', async () => {
    const { id } = await store.put(A, 'x', once(Buffer.from('in an object')));
    const without = await openBlobStore('', database.app);
    expect(await without.find(A, id)).toMatchObject({ size: 12 });
    await expect(readAll(without, id)).rejects.toEqual(coded('BLOBS_NOT_CONFIGURED'));
    await expect(without.delete(A, id)).rejects.toEqual(coded('BLOBS_NOT_CONFIGURED'));
    expect(String(await readAll(store, id))).toBe('in an object');
  });
});

describe('readiness', () => {
  const pingOf = async (url: string) => {
    const objects = await openS3Objects(url);
    return objects.ping().finally(() => objects.close());
  };

  it.each<[string, string, () => string]>([
    ['BLOBS_NOT_PERMITTED', 'no such bucket', () => s3.url('x', 'no-such-bucket')],
    ['BLOBS_UNAVAILABLE', 'nobody listens', () => 's3://a-bucket?endpoint=http://127.0.0.1:1&region=eu-test-1'],
  ])('says %s when there is %s', async (code, _why, url) => {
    await expect(pingOf(url())).rejects.toEqual(coded(code));
  });

  it('says BLOBS_NOT_PERMITTED for a wrong key, and answers with the right one', async () => {
    process.env['AWS_ACCESS_KEY_ID'] = 'AKIAWRONG';
    await expect(pingOf(s3.url('x'))).rejects.toEqual(coded('BLOBS_NOT_PERMITTED'));
    process.env['AWS_ACCESS_KEY_ID'] = s3.accessKeyId;
    await expect(pingOf(s3.url('x'))).resolves.toBeUndefined();
  });

  it('is asked again each time', async () => {
    s3.fail({ operation: 'HeadBucket', status: 403, code: 'AccessDenied' });
    await expect(store.ping()).rejects.toEqual(coded('BLOBS_NOT_PERMITTED'));
    await eventually('the bucket answers again', () => store.ping().then(() => true));
  });
});

describe('the region', () => {
  const region = async (url: string) => {
    const objects = await openS3Objects(url);
    objects.close();
    return objects;
  };

  it('must be known for AWS itself, and stops the boot', async () => {
    process.env['AWS_CONFIG_FILE'] = '/dev/null';
    await expect(region('s3://a-bucket')).rejects.toEqual(coded('CONFIG_INVALID'));
    process.env['AWS_REGION'] = 'eu-central-1';
    await expect(region('s3://a-bucket')).resolves.toBeDefined();
    delete process.env['AWS_REGION'];
    await expect(region(`s3://a-bucket?endpoint=${s3.endpoint}`)).resolves.toBeDefined();
  });
});
