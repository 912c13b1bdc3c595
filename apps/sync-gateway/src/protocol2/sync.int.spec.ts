import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import {
  type Changes,
  type Conflicts,
  type DigestAnswer,
  digestOf,
  digestTerm,
  EMPTY_DIGEST,
  EMPTY_HASH,
  type OpResult,
  PART_LIMIT_BYTES,
  type Ready,
  type SnapshotLine,
  type SyncPath,
  type TrashedFile,
  type Version,
} from '@atomo-cc/sync-protocol';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, hashOf, putOf, TestGateway } from '../testing/index.js';

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url);
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string;
const NOTHING = EMPTY_DIGEST;

async function aPair() {
  const store = await gateway.aStore();
  const { key, id: keyId } = await store.aKey();
  const [laptop, phone] = await Promise.all([
    Device2.connect(gateway, key, { device: 'laptop' }),
    Device2.connect(gateway, key, { device: 'phone' }),
  ]);
  return { store, key, keyId, laptop, phone };
}

/** A client that has begun to read a snapshot and takes no more until it is told to. */
class PausedSnapshot {
  private constructor(private readonly response: IncomingMessage) {}

  static async open(url: string, key: string): Promise<PausedSnapshot> {
    const [response] = (await once(get(`${url}/api/v2/snapshot`, { headers: { 'x-api-key': key } }), 'response')) as [
      IncomingMessage,
    ];
    return new PausedSnapshot(response);
  }

  /** The whole lines that come until the stream ends or is cut. */
  async rest(): Promise<SnapshotLine[]> {
    let text = '';
    this.response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
    this.response.on('error', () => undefined);
    await new Promise((resolve) => this.response.once('close', resolve));
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as SnapshotLine);
  }

  close(): void {
    this.response.destroy();
  }
}

const rest = <Body>(method: string, path: string, key: string, body?: unknown) =>
  gateway.call<Body>(method, `/api/v2${path}`, key, body);

describe('a connection', () => {
  it('is told first where the store stands, what it may do and what is taken at once', async () => {
    const store = await gateway.aStore();
    const { key, id } = await store.aKey();
    const device = await Device2.connect(gateway, key);
    expect(device.ready).toEqual({
      protocol: 2,
      storeId: store.id,
      epoch: expect.any(String) as string,
      head: 0,
      floor: 0,
      serverTime: ISO,
      key: { id, permissions: ['read', 'write'], prefixes: [], expiresAt: null },
      limits: {
        inlineBytes: 262_144,
        partBytes: 4_194_304,
        fileBytes: 1_073_741_824,
        pathChars: 1_000,
        pushOps: 100,
        pushBytes: 4_194_304,
        pageItems: 1_000,
        ackWindow: 1_000,
        opsPerSecond: 1_000,
        quotaBytes: 10_737_418_240,
      },
      usedBytes: 0,
      digest: NOTHING,
      count: 0,
    } satisfies Ready);
    expect(await rest('GET', '/session', key)).toMatchObject({ status: 200, body: { storeId: store.id, head: 0 } });
  });

  it('of another protocol, or with a handshake that breaks a rule, is refused with a reason', async () => {
    const { key } = await (await gateway.aStore()).aKey();
    const refused = async (auth: object) =>
      gateway.connectWith({ apiKey: key, ...auth }).then(
        () => null,
        (error: Error & { data?: unknown }) => [error.message, (error.data as { code?: string })?.code],
      );
    expect(await refused({ protocol: 3 })).toEqual(['UNSUPPORTED_PROTOCOL', 'UNSUPPORTED_PROTOCOL']);
    expect(await refused({ protocol: 2 })).toEqual(['VALIDATION_ERROR', 'VALIDATION_ERROR']);
    expect(await refused({ protocol: 2, device: { id: 'x' }, cursor: { epoch: 1 } })).toEqual([
      'VALIDATION_ERROR',
      'VALIDATION_ERROR',
    ]);
  });

  it('with a cursor is given what happened since, without a gap, and then what happens (defect 21)', async () => {
    const { key, laptop } = await aPair();
    const { epoch } = laptop.ready;
    for (let at = 0; at < 12; at += 1)
      await laptop.push(...Array.from({ length: 100 }, (_, i) => putOf(`${i}.md`, `${at} ${i}`)));
    const back = await Device2.connect(gateway, key, { cursor: { epoch, seq: 7 } });
    await laptop.op(putOf('last.md', 'x'));
    const heard = await back.changes(1_201);
    expect(heard.map(({ seq }) => seq)).toEqual(Array.from({ length: 1_194 }, (_, place) => place + 8));
    // Nothing new costs one event.
    const again = await Device2.connect(gateway, key, { cursor: { epoch, seq: 1_201 } });
    expect(again.ready).toMatchObject({ head: 1_201, count: 101 });
    await laptop.op(putOf('last.md', 'y'));
    expect((await again.changes(1_202)).map(({ seq }) => seq)).toEqual([1_202]);
  });

  it('that acks is sent no more than the window beyond its ack, hears of the rest, and goes on where it has pulled to', async () => {
    const { key, laptop, phone } = await aPair();
    const { epoch } = phone.ready;
    const other = await Device2.connect(gateway, key);
    await phone.ask('ack', { epoch, through: 0 });
    const push = async (count: number) => {
      for (let at = 0; at < count; at += 100)
        await laptop.push(...Array.from({ length: 100 }, (_, place) => putOf(`${place}.md`, `${count} ${at}`)));
    };
    const sent = () => {
      const pieces = phone.heard.flatMap(({ event, payload }) =>
        event === 'changes' ? [payload as unknown as Changes] : [],
      );
      return pieces.at(-1)?.through ?? 0;
    };
    await push(2_000);
    // Who does not ack was sent all of it by now, and so was this one what it is ever sent.
    await other.changes(2_000);
    await phone.ask('digest');
    expect([sent() >= 1_000, sent() < 1_500]).toEqual([true, true]);
    expect(phone.heard.at(-1)).toEqual({ event: 'head', payload: { epoch, seq: 2_000 } });
    const from = sent();
    await phone.ask('ack', { epoch, through: from });
    await eventually('the rest has come', () => sent() === 2_000);
    const pieces = phone.heard.flatMap(({ event, payload }) =>
      event === 'changes' ? [payload as unknown as Changes] : [],
    );
    expect(pieces.flatMap(({ changes }) => changes.map(({ seq }) => seq))).toEqual(
      Array.from({ length: 2_000 }, (_, place) => place + 1),
    );

    // An ack that is lost stops nothing: of what comes then it hears, pulls it, and is not sent it again.
    await push(1_500);
    await eventually('it waits', () => phone.heard.at(-1)?.event === 'head');
    await phone.ask('ack', { epoch, through: 3_500 });
    phone.heard.length = 0;
    await laptop.op(putOf('last.md', 'x'));
    expect(await phone.changes(3_501)).toMatchObject([{ seq: 3_501 }]);
    expect(phone.heard).toEqual([]);
  });

  it('with a cursor of another epoch or from before the log is told to read a snapshot', async () => {
    const { store, key, laptop } = await aPair();
    for (const text of ['1', '2', '3']) await laptop.op(putOf('a.md', text));
    const resync = async (cursor: { epoch: string; seq: number }) =>
      (await (await Device2.connect(gateway, key, { cursor })).take(1))[0];

    const { epoch } = laptop.ready;
    const told = (reason: string) => ['resync', { reason, epoch, head: 3 }];
    expect(await resync({ epoch: randomUUID(), seq: 3 })).toEqual(told('EPOCH'));
    expect(await resync({ epoch, seq: 4 })).toEqual(told('EPOCH'));
    await database.asOwner('update stores set floor_seq = 2 where id = $1', [store.id]);
    expect(await resync({ epoch, seq: 1 })).toEqual(told('FLOOR'));
    for (const from of [1, 4]) {
      await expect(laptop.ask('pull', { epoch, from })).rejects.toMatchObject({
        code: 'RESYNC_REQUIRED',
        retryable: false,
      });
      expect(await rest('GET', `/changes?epoch=${epoch}&from=${from}`, key)).toMatchObject({
        status: 410,
        body: { error: { code: 'RESYNC_REQUIRED' } },
      });
    }
  });
});

describe('an operation', () => {
  it('tells its position, reaches its own device and the others, and carries what is needed', async () => {
    const { keyId, laptop, phone } = await aPair();
    const opId = randomUUID();
    const done = await laptop.op(putOf('Notes/é.md', 'one', { opId, baseHash: null }));
    expect(done).toEqual({
      opId,
      success: true,
      seq: 1,
      changes: 1,
      fileId: expect.any(String) as string,
      hash: hashOf('one'),
    });
    const { fileId } = done as { fileId: string };
    await laptop.op(putOf('Notes/é.md', 'two', { baseHash: hashOf('one') }));
    await laptop.op({ op: 'rename', path: 'Notes/é.md', newPath: 'b.md', baseHash: hashOf('two') });
    await laptop.op({ op: 'delete', path: 'b.md', baseHash: hashOf('two') });

    const by = { fileId, keyId, device: 'laptop', opId: expect.any(String) as string, at: ISO };
    const [one, two] = [hashOf('one'), hashOf('two')];
    const expected = [
      { ...by, seq: 1, op: 'put', path: 'Notes/é.md', hash: one, size: 3, oldHash: null, inline: 'b25l', opId },
      { ...by, seq: 2, op: 'put', path: 'Notes/é.md', hash: two, size: 3, oldHash: one, inline: 'dHdv' },
      { ...by, seq: 3, op: 'rename', path: 'b.md', oldPath: 'Notes/é.md', hash: two, size: 3, oldHash: two },
      { ...by, seq: 4, op: 'delete', path: 'b.md', hash: null, size: 0, oldHash: two },
    ];
    for (const device of [laptop, phone]) expect(await device.changes(4)).toEqual(expected);
  });

  it('sent again, alone, at once or over REST, answers the same and takes effect once', async () => {
    const { key, laptop, phone } = await aPair();
    const op = putOf('a.md', 'one', { opId: randomUUID() });
    const answers = await Promise.all([
      laptop.op(op),
      phone.op(op),
      laptop.op(op),
      rest('POST', '/ops', key, { ops: [op, op] }),
    ]);
    const all = [
      ...answers.slice(0, 3),
      ...(answers[3] as { body: { results: OpResult[] } }).body.results,
    ] as (OpResult & { seq: number })[];
    expect(all.map(({ success, seq }) => [success, seq])).toEqual(all.map(() => [true, 1]));
    expect(all.filter((answer) => !('replayed' in answer))).toHaveLength(1);
    await laptop.op(putOf('a.md', 'two'));
    expect(await laptop.op(op)).toMatchObject({ success: true, seq: 1, replayed: true, hash: hashOf('one') });
    expect(await laptop.op({ ...putOf('a.md', 'three'), opId: op['opId'] })).toMatchObject({
      success: false,
      error: { code: 'OP_ID_REUSED' },
    });
    expect((await laptop.changes(2)).map(({ hash }) => hash)).toEqual([hashOf('one'), hashOf('two')]);
  });

  it('whose precondition does not hold changes nothing, and tells what is there', async () => {
    const { laptop, phone } = await aPair();
    await laptop.op(putOf('a.md', 'one', { baseHash: null }));
    await laptop.op(putOf('a.md', 'two', { baseHash: hashOf('one') }));
    const conflict = (current: unknown) => ({
      success: false,
      error: { code: 'CONFLICT', retryable: false, details: { current } },
    });
    const live = {
      path: 'a.md',
      fileId: expect.any(String) as string,
      hash: hashOf('two'),
      size: 3,
      seq: 2,
      deleted: false,
    };
    for (const op of [
      putOf('a.md', 'mine', { baseHash: hashOf('one') }),
      putOf('a.md', 'mine', { baseHash: null }),
      { op: 'delete', path: 'a.md', baseHash: hashOf('one') },
      { op: 'rename', path: 'a.md', newPath: 'b.md', baseHash: hashOf('one') },
    ]) {
      expect(await phone.op(op)).toMatchObject(conflict(live));
    }
    expect(await phone.op(putOf('new.md', 'mine', { baseHash: hashOf('one') }))).toMatchObject(conflict(null));
    await laptop.op({ op: 'delete', path: 'a.md' });
    expect(await phone.op(putOf('a.md', 'mine', { baseHash: hashOf('two') }))).toMatchObject(
      conflict({ ...live, seq: 3, size: 0, deleted: true }),
    );
    expect(await phone.op(putOf('a.md', 'mine', { baseHash: null }))).toMatchObject({ success: true, seq: 4 });
  });

  it('that finds what it wants is a success without a change, and one without a precondition tells what it overwrote', async () => {
    const { laptop } = await aPair();
    await laptop.op(putOf('a.md', 'one'));
    expect(await laptop.op(putOf('a.md', 'one', { baseHash: hashOf('other') }))).toMatchObject({
      success: true,
      seq: 1,
      changes: 0,
      unchanged: true,
    });
    expect(await laptop.op({ op: 'delete', path: 'none.md', baseHash: hashOf('x') })).toMatchObject({
      success: true,
      unchanged: true,
    });
    expect(await laptop.op(putOf('a.md', 'two'))).toMatchObject({ seq: 2, overwrote: { hash: hashOf('one'), seq: 1 } });
  });

  it('is judged alone: a refusal in the middle of a push harms no neighbour', async () => {
    const { laptop } = await aPair();
    const results = await laptop.push(
      putOf('a.md', 'one'),
      putOf('../x', 'no'),
      { op: 'nonsense' },
      { op: [{ toString: 'no function' }] },
      putOf('A.md', 'collides'),
      { ...putOf('b.md', 'text'), hash: hashOf('other') },
      { op: 'rename', path: 'none', newPath: 'b' },
      putOf('a.md', 'two', { baseHash: hashOf('one') }),
    );
    expect(
      results.map((result) => (result.success ? result.seq : [result.error.code, result.error.details?.['reason']])),
    ).toEqual([
      1,
      ['PATH_INVALID', 'DOT_SEGMENT'],
      ['VALIDATION_ERROR', undefined],
      ['VALIDATION_ERROR', undefined],
      ['PATH_COLLISION', undefined],
      ['HASH_MISMATCH', undefined],
      ['NOT_FOUND', undefined],
      2,
    ]);
    expect(results[4]).toMatchObject({ error: { details: { existingPath: 'a.md' } } });
  });

  it('moves the case of a name, and whole folders, with the identity of every file', async () => {
    const { key, laptop, phone } = await aPair();
    await laptop.push(...['f/a.md', 'f/sub/b.md', 'f2/c.md'].map((path) => putOf(path, path)));
    expect(await laptop.op({ op: 'rename', path: 'f2/c.md', newPath: 'f2/C.md' })).toMatchObject({
      success: true,
      seq: 4,
    });
    expect(await laptop.op({ op: 'rename-folder', path: 'f', newPath: 'G' })).toMatchObject({
      success: true,
      seq: 6,
      changes: 2,
    });
    expect(await laptop.op({ op: 'rename-folder', path: 'G', newPath: 'g' })).toMatchObject({ success: true, seq: 8 });
    expect(await laptop.op({ op: 'rename-folder', path: 'g', newPath: 'g/in' })).toMatchObject({
      error: { code: 'VALIDATION_ERROR' },
    });
    expect(await laptop.op({ op: 'rename-folder', path: 'none', newPath: 'x' })).toMatchObject({
      error: { code: 'NOT_FOUND' },
    });
    await laptop.op(putOf('h/sub/B.md', 'in the way'));
    expect(await laptop.op({ op: 'rename-folder', path: 'g', newPath: 'h' })).toMatchObject({
      error: { code: 'PATH_COLLISION' },
    });
    expect(await laptop.op({ op: 'delete-folder', path: 'g' })).toMatchObject({ success: true, seq: 11, changes: 2 });
    const heard = await phone.changes(11);
    expect(heard.map(({ op, oldPath, path }) => [op, oldPath, path]).slice(3)).toEqual([
      ['rename', 'f2/c.md', 'f2/C.md'],
      ['rename', 'f/a.md', 'G/a.md'],
      ['rename', 'f/sub/b.md', 'G/sub/b.md'],
      ['rename', 'G/a.md', 'g/a.md'],
      ['rename', 'G/sub/b.md', 'g/sub/b.md'],
      ['put', undefined, 'h/sub/B.md'],
      ['delete', undefined, 'g/a.md'],
      ['delete', undefined, 'g/sub/b.md'],
    ]);
    expect(heard[4]!.fileId).toBe(heard[0]!.fileId);
    expect((await gateway.snapshot(key)).files.map(({ path }) => path)).toEqual(['f2/C.md', 'h/sub/B.md']);
  });
});

describe('what the store holds', () => {
  it('is read as lines, on from where a stream was cut, and the first head with the log gives what the store has now', async () => {
    const { key, laptop } = await aPair();
    const names = Array.from({ length: 50 }, (_, place) => `n${String(place).padStart(2, '0')}.md`);
    await laptop.push(...names.map((path) => putOf(path, path)));
    const first = await gateway.snapshot(key, 'inline=true');
    const read = first.files.slice(0, 20);
    // Meanwhile one moves from the part that is unread to the part that was read, and one goes.
    await laptop.push(
      { op: 'rename', path: 'n45.md', newPath: 'a.md' },
      { op: 'delete', path: 'n30.md' },
      putOf('n01.md', 'new'),
    );
    const rest = await gateway.snapshot(key, `after=${read.at(-1)!.path}`);
    expect([rest.files[0]!.path, rest.files.length, rest.head]).toEqual(['n20.md', 28, 53]);
    const files = new Map([...read, ...rest.files].map((file) => [file.path, file.hash]));
    const { changes, more } = await laptop.ask<Changes>('pull', { epoch: first.epoch, from: first.head });
    for (const { op, path, oldPath, hash } of changes) {
      if (oldPath) files.delete(oldPath);
      if (op === 'delete') files.delete(path);
      else files.set(path, hash!);
    }
    expect(more).toBe(false);
    const truth = await laptop.ask<DigestAnswer>('digest');
    expect(files.size).toBe(truth.count);
    expect(digestOf([...files].map(([path, hash]) => digestTerm(path, hash)))).toBe(truth.digest);
    expect(first.files[0]).toEqual({
      fileId: expect.any(String) as string,
      path: 'n00.md',
      hash: hashOf('n00.md'),
      size: 6,
      seq: 1,
      at: ISO,
      inline: Buffer.from('n00.md').toString('base64'),
    });
  });

  it('comes with small contents while there is room, and to the folder that is asked for', async () => {
    const { key, laptop } = await aPair();
    const large = 'x'.repeat(256 * 1024);
    for (let place = 0; place < 10; place += 1) await laptop.op(putOf(`f/${place}.md`, large.slice(place)));
    await laptop.push(putOf('empty.md', ''), putOf('g.md', 'x'));
    const inlined = (files: readonly { path: string; inline?: string }[]) =>
      files.flatMap(({ path, inline }) => (inline === undefined ? [] : path));
    const { files } = await gateway.snapshot(key, 'inline=true');
    expect(inlined(files)).toEqual(['empty.md', ...Array.from({ length: 8 }, (_, place) => `f/${place}.md`)]);
    expect(files).toHaveLength(12);
    expect(inlined((await gateway.snapshot(key)).files)).toEqual([]);
    expect((await gateway.snapshot(key, 'prefix=F')).files).toHaveLength(10);
    expect((await gateway.snapshot(key, 'prefix=none')).files).toEqual([]);
  });

  it('is read at the pace of its reader, some at a time, and by no key that ended meanwhile', async () => {
    const store = await gateway.aStore();
    const [{ key, id }, { key: other }] = [await store.aKey(), await store.aKey()];
    // Some 19 MB of lines, which no buffer between the two holds.
    await database.asOwner(
      `insert into store_files (tenant_id, store_id, id, path, path_key, content_hash, byte_size, is_binary, digest, seq, size)
       select tenant_id, id, gen_random_uuid(), p, p, $2, 0, false, 0, 0, 0
       from stores, generate_series(1, 16000) n, lateral (select repeat('p', 200) || '/' || repeat('q', 200) || '/' ||
         repeat('r', 200) || '/' || repeat('s', 200) || '/' || lpad(n::text, 6, '0')) as made (p)
       where id = $1`,
      [store.id, EMPTY_HASH],
    );
    const writer = await Device2.connect(gateway, other);
    const [slow, revoked] = [await PausedSnapshot.open(gateway.url, key), await PausedSnapshot.open(gateway.url, key)];
    // While another reads all of it, one that read ahead would have come to its end.
    expect((await gateway.snapshot(other)).files).toHaveLength(16_000);
    // Written after both began, it is there: its page had not been read.
    await writer.op(putOf('z.md', 'last'));
    const lines = await slow.rest();
    expect([lines.length, lines.at(-2), lines.at(-1)]).toMatchObject([16_003, { path: 'z.md' }, { end: true }]);
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${id}`);
    const cut = await revoked.rest();
    expect(cut.length).toBeLessThan(16_000);
    expect(cut.at(-1)).not.toHaveProperty('end');
    // Those who went away hold no place.
    for (let gone = 0; gone < 9; gone += 1) (await PausedSnapshot.open(gateway.url, other)).close();
    await eventually('there is room', async () => (await rest('GET', '/snapshot?after=z', other)).status === 200);
  });

  it('has conflicts as long as the copies of them are there, and each key is told of those that it sees', async () => {
    const { store, key, laptop } = await aPair();
    const { key: inF } = await store.aKeyOf({ prefixes: ['f'], permissions: ['read'] });
    const copies = [
      'a (conflict of my laptop, 3fa9c1d2).md',
      'f/b.c (conflict of phone, 00000000)',
      'f/d (conflict of x, 12345678).md',
    ];
    const others = [
      'a.md',
      'a (conflict of x).md',
      'f (conflict of x, 12345678)/e.md',
      'g (conflict of x, 1234567z).md',
    ];
    await laptop.push(...[...others, ...copies].map((path) => putOf(path, path)));
    const list = async (query = '', by = key) => (await rest<Conflicts>('GET', `/conflicts?${query}`, by)).body;
    const first = await list('limit=2');
    expect(first.conflicts.map(({ path }) => path)).toEqual([copies[2], copies[1]]);
    const last = await list(`limit=2&before=${first.next}`);
    expect(last).toEqual({
      conflicts: [
        {
          fileId: expect.any(String) as string,
          path: copies[0],
          of: 'a.md',
          device: 'my laptop',
          hash: hashOf(copies[0]!),
          size: copies[0]!.length,
          seq: 5,
          at: ISO,
        },
      ],
      next: null,
    });
    expect((await list('', inF)).conflicts.map(({ of, device }) => [of, device])).toEqual([
      ['f/d.md', 'x'],
      ['f/b.c', 'phone'],
    ]);
    // Deleted or renamed, it is settled.
    await laptop.push({ op: 'delete', path: copies[0]! }, { op: 'rename', path: copies[1]!, newPath: 'f/mine.c' });
    expect((await list()).conflicts.map(({ path }) => path)).toEqual([copies[2]]);
  });

  it('comes to a digest, whole and by folder, that every kind of change keeps true', async () => {
    const { laptop } = await aPair();
    await laptop.push(
      ...['a.md', 'f/b.md', 'f/c.md', 'f/g/d.md', 'h/e.md'].map((path) => putOf(path, path)),
      putOf('f/b.md', 'changed'),
      { op: 'rename', path: 'h/e.md', newPath: 'f/E.md' },
      { op: 'rename', path: 'f/E.md', newPath: 'f/e.md' },
      { op: 'delete', path: 'f/c.md' },
      putOf('f/c.md', 'again'),
      putOf('gone.md', 'x'),
      { op: 'delete', path: 'gone.md' },
    );
    const sum = (files: Record<string, string>) => ({
      digest: digestOf(Object.entries(files).map(([path, text]) => digestTerm(path as SyncPath, hashOf(text)))),
      count: Object.keys(files).length,
    });
    const inF = { 'f/b.md': 'changed', 'f/c.md': 'again', 'f/e.md': 'h/e.md' };
    const inG = { 'f/g/d.md': 'f/g/d.md' };
    const { epoch } = laptop.ready;
    expect(await laptop.ask('digest')).toEqual({
      success: true,
      epoch,
      seq: 12,
      ...sum({ 'a.md': 'a.md', ...inF, ...inG }),
      files: sum({ 'a.md': 'a.md' }),
      folders: { f: sum({ ...inF, ...inG }) },
    });
    expect(await laptop.ask('digest', { prefix: 'F' })).toMatchObject({
      ...sum({ ...inF, ...inG }),
      files: sum(inF),
      folders: { g: sum(inG) },
    });
    expect(await laptop.ask('digest', { prefix: 'none' })).toMatchObject({ digest: NOTHING, count: 0, folders: {} });
    // The sum that the store keeps is that of its rows.
    expect(
      (
        await rest<Ready>(
          'GET',
          '/session',
          (
            await gateway.admin<{ key: string }>('POST', `/stores/${laptop.ready.storeId}/keys`, {
              name: 'x',
              permissions: ['read'],
            })
          ).key,
        )
      ).body,
    ).toMatchObject(sum({ 'a.md': 'a.md', ...inF, ...inG }));
  });

  it('is waited for by a long poll, which ends with the first change', async () => {
    const { key, laptop } = await aPair();
    const { epoch } = laptop.ready;
    const waiting = rest<Changes>('GET', `/changes?epoch=${epoch}&from=0&wait=20`, key);
    // A poll that asks for what is there already does not wait.
    await laptop.op(putOf('a.md', 'x'));
    expect((await waiting).body).toMatchObject({ from: 0, through: 1, changes: [{ path: 'a.md' }] });
    expect((await rest<Changes>('GET', `/changes?epoch=${epoch}&from=0&wait=20`, key)).body.through).toBe(1);
    expect((await rest<Changes>('GET', `/changes?epoch=${epoch}&from=1`, key)).body).toEqual({
      epoch,
      from: 1,
      through: 1,
      more: false,
      changes: [],
    });
  });
});

describe('the bytes of a file', () => {
  it('above a part are sent in parts that are missing, verified, and read back whole or in ranges', async () => {
    const { key, laptop, phone } = await aPair();
    const bytes = randomBytes(PART_LIMIT_BYTES + 1_000_000);
    const parts = [bytes.subarray(0, PART_LIMIT_BYTES), bytes.subarray(PART_LIMIT_BYTES)];
    const hashes = parts.map((part) => hashOf(part));
    const put = { op: 'put', path: 'video.mkv', hash: hashOf(bytes), size: bytes.length, parts: hashes };

    expect(await laptop.op(put)).toMatchObject({
      success: false,
      error: { code: 'BLOB_MISSING', retryable: true, details: { missing: hashes } },
    });
    expect(await laptop.ask('missing', { hashes })).toMatchObject({ missing: hashes });
    await laptop.ask('upload', { hash: hashes[0], bytes: parts[0] });
    await expect(laptop.ask('upload', { hash: hashes[1], bytes: parts[0] })).rejects.toMatchObject({
      code: 'HASH_MISMATCH',
    });
    const uploaded = await fetch(`${gateway.url}/api/v2/blobs/${hashes[1]}`, {
      method: 'PUT',
      headers: { 'x-api-key': key, 'content-type': 'application/octet-stream' },
      body: parts[1]!,
    });
    expect(uploaded.status).toBe(204);
    expect(await laptop.ask('missing', { hashes })).toMatchObject({ missing: [] });
    for (const wrong of [{ size: 1 }, { hash: hashes[0] }, { parts: [hashes[1], hashes[0]] }, { parts: [hashes[0]] }]) {
      expect(await laptop.op({ ...put, ...wrong })).toMatchObject({ success: false, error: { code: 'HASH_MISMATCH' } });
    }
    expect(await laptop.op(put)).toMatchObject({ success: true, seq: 1 });
    const [change] = await phone.changes(1);
    expect(change).toMatchObject({ path: 'video.mkv', hash: put.hash, size: bytes.length });
    expect(change).not.toHaveProperty('inline');

    const read = (headers: Record<string, string> = {}) =>
      fetch(`${gateway.url}/api/v2/blobs/${put.hash}`, { headers: { 'x-api-key': key, ...headers } });
    const whole = await read();
    expect([whole.status, whole.headers.get('content-length'), whole.headers.get('etag')]).toEqual([
      200,
      String(bytes.length),
      `"${put.hash}"`,
    ]);
    expect(Buffer.from(await whole.arrayBuffer()).equals(bytes)).toBe(true);
    const across = await read({ range: `bytes=${PART_LIMIT_BYTES - 10}-${PART_LIMIT_BYTES + 9}` });
    expect([across.status, across.headers.get('content-range')]).toEqual([
      206,
      `bytes ${PART_LIMIT_BYTES - 10}-${PART_LIMIT_BYTES + 9}/${bytes.length}`,
    ]);
    expect(
      Buffer.from(await across.arrayBuffer()).equals(bytes.subarray(PART_LIMIT_BYTES - 10, PART_LIMIT_BYTES + 10)),
    ).toBe(true);
    expect((await read({ range: `bytes=${bytes.length}-` })).status).toBe(416);
    expect((await read({ 'if-none-match': `"${put.hash}"` })).status).toBe(304);
    const piece = await laptop.ask<{ bytes: Buffer; size: number }>('download', {
      hash: put.hash,
      from: bytes.length - 5,
    });
    expect([piece.size, Buffer.from(piece.bytes).equals(bytes.subarray(-5))]).toEqual([bytes.length, true]);

    // Known bytes are named, not sent.
    expect(await phone.op({ op: 'put', path: 'copy.mkv', hash: put.hash, size: bytes.length })).toMatchObject({
      success: true,
    });
    // Protocol 1 carries it as base64.
    expect((await gateway.file(key, 'copy.mkv')).body).toMatchObject({
      isBinary: true,
      content: bytes.toString('base64'),
    });
  });

  it('are the same for both protocols, each with its own hash', async () => {
    const { key, laptop } = await aPair();
    const old = await gateway.connect(key);
    const png = Buffer.from([0x89, 0x50, 0, 0xff]);
    await old.send('modified-file', { path: 'a.png', content: png.toString('base64') });
    await old.send('modified-file', { path: 'odd.png', content: 'not base64!' });
    await old.send('modified-file', { path: 'a.md', content: 'é' });
    await laptop.op(putOf('b.md', 'ü'));
    await laptop.op({ op: 'put', path: 'b.heic', hash: hashOf(png), size: 4, inline: png.toString('base64') });
    await laptop.op({ op: 'rename', path: 'b.heic', newPath: 'c.heic' });

    const heard = await laptop.changes(6);
    expect(heard.map(({ path, hash, size }) => [path, hash, size])).toEqual([
      ['a.png', hashOf(png), 4],
      ['odd.png', hashOf('not base64!'), 11],
      ['a.md', hashOf('é'), 2],
      ['b.md', hashOf('ü'), 2],
      ['b.heic', hashOf(png), 4],
      ['c.heic', hashOf(png), 4],
    ]);
    const base64 = { content: png.toString('base64'), hash: hashOf(png.toString('base64')), size: 8, isBinary: true };
    expect(await old.take(3)).toMatchObject([
      ['file-created', { path: 'b.md', content: 'ü', hash: hashOf('ü'), size: 2, isBinary: false }],
      ['file-created', { path: 'b.heic', ...base64 }],
      ['file-renamed', { oldPath: 'b.heic', newPath: 'c.heic', ...base64 }],
    ]);
    for (const [path, expected] of [
      ['a.png', base64],
      ['c.heic', base64],
      ['odd.png', { content: 'not base64!', hash: hashOf('not base64!'), isBinary: true }],
    ] as const) {
      expect((await gateway.file(key, path)).body).toMatchObject(expected);
    }
  });
});

describe('history', () => {
  it('keeps what protocol 1 overwrote and what was deleted, and brings it back', async () => {
    const { key, laptop } = await aPair();
    const old = await gateway.connect(key);
    await old.send('modified-file', { path: 'a.md', content: 'one' });
    await old.send('modified-file', { path: 'a.md', content: 'two' });
    await old.send('renamed-file', { oldPath: 'a.md', newPath: 'b.md' });
    await old.send('deleted-file', { path: 'b.md' });

    const { files } = (await rest<{ files: TrashedFile[] }>('GET', '/trash', key)).body;
    expect(files).toEqual([
      {
        fileId: expect.any(String) as string,
        path: 'b.md',
        hash: hashOf('two'),
        size: 3,
        seq: 4,
        deletedAt: ISO,
        expiresAt: ISO,
      },
    ]);
    const { fileId } = files[0]!;
    const { versions } = (await rest<{ versions: Version[] }>('GET', `/files/${fileId}/versions`, key)).body;
    expect(versions.map(({ seq, op, path, hash, oldHash }) => [seq, op, path, hash, oldHash])).toEqual([
      [4, 'delete', 'b.md', null, hashOf('two')],
      [3, 'rename', 'b.md', hashOf('two'), hashOf('two')],
      [2, 'put', 'a.md', hashOf('two'), hashOf('one')],
      [1, 'put', 'a.md', hashOf('one'), null],
    ]);
    const restore = (body: object) =>
      rest<OpResult>('POST', `/files/${fileId}/restore`, key, { opId: randomUUID(), ...body });
    const once = { opId: randomUUID() };
    expect((await restore(once)).body).toMatchObject({ success: true, seq: 5, hash: hashOf('two'), fileId });
    expect((await restore(once)).body).toMatchObject({ replayed: true, seq: 5 });
    expect((await restore({ hash: hashOf('one') })).body).toMatchObject({ seq: 6, overwrote: { hash: hashOf('two') } });
    expect((await restore({ hash: hashOf('two'), path: 'c.md' })).body).toMatchObject({ seq: 7 });
    expect((await gateway.file(key, 'b.md')).body.content).toBe('one');
    expect((await gateway.file(key, 'c.md')).body.content).toBe('two');
    expect(await restore({ hash: hashOf('three') })).toMatchObject({ status: 404 });
    expect(await rest('GET', `/files/${randomUUID()}/versions`, key)).toMatchObject({ status: 404 });
    expect((await rest<{ files: TrashedFile[] }>('GET', '/trash', key)).body.files).toEqual([]);
    expect((await laptop.changes(7)).at(-1)).toMatchObject({
      path: 'c.md',
      inline: Buffer.from('two').toString('base64'),
    });
  });
});

describe('presence', () => {
  it('shows devices to each other, and takes them back when they go', async () => {
    const { laptop, phone } = await aPair();
    await laptop.ask('presence:set', { state: { file: 'a.md' } });
    const shown = { deviceId: 'laptop', name: 'laptop', state: { file: 'a.md' } };
    expect((await phone.take(1))[0]).toEqual(['presence', shown]);
    expect(await phone.ask('presence:list')).toMatchObject({ present: [shown] });
    laptop.socket.disconnect();
    expect((await phone.take(1))[0]).toEqual(['presence', { ...shown, state: null }]);
    await eventually(
      'the list is empty',
      async () => (await phone.ask<{ present: unknown[] }>('presence:list')).present.length === 0,
    );
  });
});
