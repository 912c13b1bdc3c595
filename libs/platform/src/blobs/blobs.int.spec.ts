import { createHash, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { blobMigrations, openBlobStore, type BlobStore } from './blobs.js';
import { FakeS3 } from './testing/index.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const MIB = 1024 * 1024;
/** The unit of Postgres. */
const PIECE = 256 * 1024;
/** The unit of S3, of parts written and of ranges read. */
const PART = 8 * MIB;
const NOT_FOUND = expect.objectContaining({ code: 'NOT_FOUND' });

let database: TestDatabase;
let s3: FakeS3;
const environment = process.env;

beforeAll(async () => {
  database = await aDatabase(blobMigrations, { poolSize: 3 });
  s3 = await FakeS3.start('a-bucket');
  process.env = { ...environment, AWS_ACCESS_KEY_ID: s3.accessKeyId, AWS_SECRET_ACCESS_KEY: 'any' };
});

afterAll(async () => {
  process.env = environment;
  await Promise.all([database?.drop(), s3?.stop()]);
});

async function* inChunksOf(size: number, bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

describe.each(['Postgres', 'S3'])('blobs on %s', (storage) => {
  let store: BlobStore;

  beforeAll(async () => {
    store = await openBlobStore(storage === 'S3' ? s3.url('some/where') : '', database.app);
  });

  afterAll(() => store?.close());

  async function readAll(tenant: TenantId, id: string, from?: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of store.read(tenant, id, from)) parts.push(part);
    return Buffer.concat(parts);
  }

  const kept = async () => {
    const [counted] = await database.asOwner<{ blobs: number; pieces: number }>(
      'select (select count(*)::int from blobs) as blobs, (select count(*)::int from blob_pieces) as pieces',
    );
    return { ...counted!, objects: s3.objects.size, unfinished: s3.unfinished.size };
  };

  it('answers', async () => {
    await expect(store.ping()).resolves.toBeUndefined();
  });

  // The first test: what others leave to be collected would hide what this one holds.
  it('memory stays bounded however long the stream is', async () => {
    const SIZE = 128 * MIB;
    // What waits for its collection says nothing: it is collected before each look.
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const used = () => {
      collect();
      const { external, heapUsed } = process.memoryUsage();
      return external + heapUsed;
    };
    let peak = 0;
    let passed = 0;
    const look = (bytes: number) => {
      if (Math.floor((passed + bytes) / (11 * MIB)) > Math.floor(passed / (11 * MIB))) peak = Math.max(peak, used());
      passed += bytes;
    };
    async function* generated() {
      for (let sent = 0; sent < SIZE; sent += 64 * 1024) {
        yield Buffer.alloc(64 * 1024, sent % 251);
        look(64 * 1024);
      }
    }
    const before = used();
    const { id, size } = await store.put(A, 'big', generated());
    expect(size).toBe(SIZE);
    let read = 0;
    for await (const part of store.read(A, id)) {
      read += part.length;
      look(part.length);
    }
    expect(read).toBe(SIZE);
    // For Postgres a batch is 4 MiB of bytes, and their text on the wire twice that, in several copies: some 40 MiB were seen.
    // For S3 two parts of 8 MiB are on their way while a third fills and is copied: some 50 MiB, the
    // fake's own included, for any size.
    expect(peak - before).toBeLessThan(SIZE * 0.75);
  }, 60_000);

  describe('a blob', () => {
    it.each([
      [0, 1],
      [1, 1],
      [PIECE - 1, 65_536],
      [PIECE, 65_536],
      [PIECE + 1, 65_537],
      [2 * PIECE, PIECE],
      [16 * PIECE, 3 * MIB],
      [16 * PIECE + 1, 100_003],
      [5 * MIB + 7, 6 * MIB],
      [PART - 1, 65_536],
      [PART, 65_536],
      [PART + 1, 65_537],
      [2 * PART, PART],
      [2 * PART + 1, 9 * MIB],
    ])('of %i bytes, which came in chunks of %i, is read as it was', async (size, chunk) => {
      const bytes = randomBytes(size);
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      const blob = await store.put(A, 'mail.mbox', inChunksOf(chunk, bytes));
      expect(blob).toEqual({ id: blob.id, name: 'mail.mbox', size, sha256 });
      expect(await store.find(A, blob.id)).toEqual(blob);
      expect((await readAll(A, blob.id)).equals(bytes)).toBe(true);
    });

    it('is read from any offset, behind its end too', async () => {
      const bytes = randomBytes(PART + 17 * PIECE + 100);
      const { id } = await store.put(A, 'x', inChunksOf(70_001, bytes));
      const offsets = [
        0,
        1,
        PIECE - 1,
        PIECE,
        PIECE + 1,
        16 * PIECE,
        17 * PIECE,
        PART - 1,
        PART,
        PART + 1,
        bytes.length - 1,
        bytes.length,
        bytes.length + 5,
        3 * PART,
      ];
      for (const from of offsets) expect((await readAll(A, id, from)).equals(bytes.subarray(from))).toBe(true);
    });

    it('is not seen by another tenant, which can neither read nor remove it', async () => {
      const { id } = await store.put(A, 'x', inChunksOf(10, Buffer.from('the text of A')));
      await expect(store.find(B, id)).rejects.toEqual(NOT_FOUND);
      await expect(readAll(B, id)).rejects.toEqual(NOT_FOUND);
      await store.delete(B, id);
      expect(String(await readAll(A, id))).toBe('the text of A');
    });

    it('that is removed takes its bytes along', async () => {
      const before = await kept();
      const { id } = await store.put(A, 'x', inChunksOf(PIECE, randomBytes(3 * PIECE)));
      await store.delete(A, id);
      expect(await kept()).toEqual(before);
      await expect(store.find(A, id)).rejects.toEqual(NOT_FOUND);
      await expect(readAll(A, id)).rejects.toEqual(NOT_FOUND);
    });

    it.each([0, 1, 20 * PIECE, PART, 3 * PART + 1])(
      "whose source fails after %i bytes leaves nothing, and the fault is the source's",
      async (size) => {
        const before = await kept();
        async function* failing() {
          yield randomBytes(size);
          throw new Error('the upload broke off');
        }
        await expect(store.put(A, 'x', failing())).rejects.toThrow('the upload broke off');
        expect(await kept()).toEqual(before);
      },
    );

    it('is not to be found before it is whole', async () => {
      let id = '';
      async function* watched() {
        yield randomBytes(PART + 1);
        [{ id }] = (await database.asOwner<{ id: string }>('select id from blobs order by id desc limit 1')) as [
          { id: string },
        ];
        await expect(store.find(A, id)).rejects.toEqual(NOT_FOUND);
        await expect(readAll(A, id)).rejects.toEqual(NOT_FOUND);
        yield Buffer.from('end');
      }
      await store.put(A, 'x', watched());
      expect(await store.find(A, id)).toMatchObject({ size: PART + 4 });
    });

    it('that vanishes while it is read is an error, not an end', async () => {
      const { id } = await store.put(A, 'x', inChunksOf(MIB, randomBytes(2 * PART)));
      const reading = store.read(A, id);
      await reading.next();
      await store.delete(A, id);
      await expect(
        (async () => {
          for await (const part of reading) expect(part.length).toBeLessThanOrEqual(PIECE);
        })(),
      ).rejects.toEqual(NOT_FOUND);
    });

    it('that never was is NOT_FOUND', async () => {
      await expect(store.find(A, uuidv7())).rejects.toEqual(NOT_FOUND);
      await expect(readAll(A, uuidv7())).rejects.toEqual(NOT_FOUND);
    });

    it('is kept where it should be', async () => {
      const before = await kept();
      await store.put(A, 'x', inChunksOf(10, randomBytes(10)));
      expect(await kept()).toEqual({
        ...before,
        blobs: before.blobs + 1,
        ...(storage === 'S3' ? { objects: before.objects + 1 } : { pieces: before.pieces + 1 }),
      });
    });
  });
});
