import { createHash, randomBytes } from 'node:crypto';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { Blobs1700000003000, BlobStore } from './blobs.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const PIECE = 256 * 1024;
const MIB = 1024 * 1024;
const NOT_FOUND = expect.objectContaining({ code: 'NOT_FOUND' });

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(30_000);

let database: TestDatabase;
let store: BlobStore;

beforeAll(async () => {
  database = await aDatabase([Blobs1700000003000], { poolSize: 3 });
  store = new BlobStore(database.app);
});

afterAll(() => database?.drop());

async function* inChunksOf(size: number, bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function readAll(tenant: TenantId, id: string, from?: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of store.read(tenant, id, from)) parts.push(part);
  return Buffer.concat(parts);
}

const rows = async () => {
  const [counted] = await database.asOwner<{ blobs: number; pieces: number }>(
    'select (select count(*)::int from blobs) as blobs, (select count(*)::int from blob_pieces) as pieces',
  );
  return counted!;
};

// The first test: what others leave to be collected would hide what this one holds.
it('memory stays bounded however long the stream is', async () => {
  const SIZE = 64 * MIB;
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
    if (Math.floor((passed + bytes) / (3 * MIB)) > Math.floor(passed / (3 * MIB))) peak = Math.max(peak, used());
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
  // A batch is 4 MiB of bytes, and their text on the wire twice that, in several copies; some 25 MiB were seen.
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
  ])('of %i bytes, which came in chunks of %i, is read as it was', async (size, chunk) => {
    const bytes = randomBytes(size);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const blob = await store.put(A, 'mail.mbox', inChunksOf(chunk, bytes));
    expect(blob).toEqual({ id: blob.id, name: 'mail.mbox', size, sha256 });
    expect(await store.find(A, blob.id)).toEqual(blob);
    expect((await readAll(A, blob.id)).equals(bytes)).toBe(true);
  });

  it('is read from any offset, behind its end too', async () => {
    const bytes = randomBytes(17 * PIECE + 100);
    const { id } = await store.put(A, 'x', inChunksOf(70_001, bytes));
    const offsets = [
      0,
      1,
      PIECE - 1,
      PIECE,
      PIECE + 1,
      16 * PIECE,
      17 * PIECE,
      17 * PIECE + 99,
      bytes.length,
      bytes.length + 5,
      30 * PIECE,
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
    const before = await rows();
    const { id } = await store.put(A, 'x', inChunksOf(PIECE, randomBytes(3 * PIECE)));
    await store.delete(A, id);
    expect(await rows()).toEqual(before);
    await expect(store.find(A, id)).rejects.toEqual(NOT_FOUND);
    await expect(readAll(A, id)).rejects.toEqual(NOT_FOUND);
  });

  it("whose source fails leaves nothing, and the fault is the source's", async () => {
    const before = await rows();
    async function* failing() {
      yield randomBytes(20 * PIECE);
      throw new Error('the upload broke off');
    }
    await expect(store.put(A, 'x', failing())).rejects.toThrow('the upload broke off');
    expect(await rows()).toEqual(before);
  });

  it('is not to be found before it is whole', async () => {
    let id = '';
    async function* watched() {
      yield randomBytes(17 * PIECE);
      [{ id }] = (await database.asOwner<{ id: string }>('select id from blobs order by id desc limit 1')) as [
        { id: string },
      ];
      await expect(store.find(A, id)).rejects.toEqual(NOT_FOUND);
      await expect(readAll(A, id)).rejects.toEqual(NOT_FOUND);
      yield Buffer.from('end');
    }
    await store.put(A, 'x', watched());
    expect(await store.find(A, id)).toMatchObject({ size: 17 * PIECE + 3 });
  });

  it('that vanishes while it is read is an error, not an end', async () => {
    const { id } = await store.put(A, 'x', inChunksOf(MIB, randomBytes(40 * PIECE)));
    const reading = store.read(A, id);
    await reading.next();
    await store.delete(A, id);
    await expect(
      (async () => {
        for await (const part of reading) expect(part.length).toBe(PIECE);
      })(),
    ).rejects.toEqual(NOT_FOUND);
  });

  it('that never was is NOT_FOUND', async () => {
    await expect(store.find(A, uuidv7())).rejects.toEqual(NOT_FOUND);
    await expect(readAll(A, uuidv7())).rejects.toEqual(NOT_FOUND);
  });
});
