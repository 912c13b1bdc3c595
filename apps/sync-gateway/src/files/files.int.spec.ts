import { createHash } from 'node:crypto';
import { type Ack, CONTENT_LIMIT, type FileList, type FileView } from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { TestGateway } from '../testing/index.js';

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

const hash = (content: string) => `sha256:${createHash('sha256').update(content).digest('hex')}`;
const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string;
const refused = (code: string) => ({ success: false, error: { code, message: expect.any(String) as string } });

/** A store, a key that may do everything, and two clients of it. */
async function aPair() {
  const store = await gateway.aStore();
  const { key } = await store.aKey();
  const [writer, reader] = await Promise.all([gateway.connect(key), gateway.connect(key, 'auth')]);
  return { store, key, writer, reader };
}

describe('the socket events', () => {
  it('carry all fields of protocol 1 and the position in the log', async () => {
    const { writer, reader } = await aPair();

    expect(await writer.send('created-file', { path: 'Notes/Idea.MD' })).toEqual({
      success: true,
      hash: hash(''),
      seq: 1,
    });
    expect(await writer.send('modified-file', { path: 'Notes/Idea.MD', content: 'é' })).toEqual({
      success: true,
      hash: hash('é'),
      seq: 2,
    });
    expect(await writer.send('modified-file', { path: 'pic.png', content: 'AAEC' })).toMatchObject({ seq: 3 });
    expect(await writer.send('renamed-file', { oldPath: 'pic.png', newPath: 'img/pic' })).toEqual({
      success: true,
      seq: 4,
    });
    expect(await writer.send('deleted-file', { path: 'Notes/Idea.MD' })).toEqual({ success: true, seq: 5 });

    const note = { path: 'Notes/Idea.MD', isBinary: false, extension: 'md' };
    expect(await reader.take(5)).toEqual([
      ['file-created', { ...note, content: '', hash: hash(''), size: 0, createdAt: ISO, seq: 1 }],
      ['file-modified', { ...note, content: 'é', hash: hash('é'), size: 2, updatedAt: ISO, seq: 2 }],
      [
        'file-created',
        {
          path: 'pic.png',
          content: 'AAEC',
          hash: hash('AAEC'),
          size: 4,
          isBinary: true,
          extension: 'png',
          createdAt: ISO,
          seq: 3,
        },
      ],
      [
        'file-renamed',
        {
          oldPath: 'pic.png',
          newPath: 'img/pic',
          content: 'AAEC',
          hash: hash('AAEC'),
          size: 4,
          // Its content still is base64, whatever it is called now.
          isBinary: true,
          extension: null,
          updatedAt: ISO,
          seq: 4,
        },
      ],
      ['file-deleted', { path: 'Notes/Idea.MD', deletedAt: ISO, seq: 5 }],
    ]);
    // The sender hears nothing of its own changes.
    expect(writer.heard).toEqual([]);
  });

  it('leave an existing file alone on created-file, and take a missing one as deleted', async () => {
    const { key, writer, reader } = await aPair();
    await writer.send('modified-file', { path: 'a.md', content: 'text' });

    expect(await writer.send('created-file', { path: 'a.md' })).toEqual({ success: true, hash: hash('text'), seq: 1 });
    expect(await writer.send('deleted-file', { path: 'gone.md' })).toEqual({ success: true, seq: 1 });

    expect((await gateway.file(key, 'a.md')).body.content).toBe('text');
    await writer.send('modified-file', { path: 'b.md', content: '' });
    expect((await reader.take(2)).map(([, { seq }]) => seq)).toEqual([1, 2]);
  });

  it('write the log with the hashes before and after, and the key that did it', async () => {
    const { store, writer } = await aPair();
    await writer.send('modified-file', { path: 'a.md', content: 'one' });
    await writer.send('modified-file', { path: 'a.md', content: 'two' });
    await writer.send('renamed-file', { oldPath: 'a.md', newPath: 'b.md' });
    await writer.send('deleted-file', { path: 'b.md' });

    const rows = await database.asOwner(
      `select seq::int, op, path, old_path, content_hash as hash, old_content_hash as old_hash, byte_size::int as size,
              exists (select 1 from api_keys k where k.id = actor and k.store_id = c.store_id) as by_key
       from store_changes c where store_id = $1 order by seq`,
      [store.id],
    );

    expect(rows).toEqual([
      { seq: 1, op: 'create', path: 'a.md', old_path: null, hash: hash('one'), old_hash: null, size: 3, by_key: true },
      {
        seq: 2,
        op: 'modify',
        path: 'a.md',
        old_path: null,
        hash: hash('two'),
        old_hash: hash('one'),
        size: 3,
        by_key: true,
      },
      {
        seq: 3,
        op: 'rename',
        path: 'b.md',
        old_path: 'a.md',
        hash: hash('two'),
        old_hash: hash('two'),
        size: 3,
        by_key: true,
      },
      { seq: 4, op: 'delete', path: 'b.md', old_path: null, hash: null, old_hash: hash('two'), size: 0, by_key: true },
    ]);
  });

  it('live through a missing ack and junk of every kind (defect 1)', async () => {
    const { key, writer, reader } = await aPair();
    let deep: unknown = 'x';
    for (let level = 0; level < 1_000; level += 1) deep = [deep];
    const junk: unknown[][] = [
      [],
      [null],
      [1],
      ['text'],
      [[]],
      [[{ path: 'a.md' }]],
      [{}],
      [{ path: null, content: null, oldPath: null, newPath: null }],
      [{ path: { toString: 'x' }, oldPath: [], newPath: [], content: 'x' }],
      [{ path: deep, content: deep, oldPath: deep, newPath: deep }],
      [JSON.parse('{"__proto__": {"path": "a.md"}, "constructor": {"prototype": {"path": "a.md"}}}')],
      [{ path: Buffer.from('a.md'), content: Buffer.from('x') }],
      [{ path: 'a.md', content: 'x' }, { path: 'b.md' }, 3],
      [{ path: 'x'.repeat(2_000_000), content: 'x', oldPath: 'x'.repeat(2_000_000), newPath: 'y' }],
    ];
    for (const event of ['created-file', 'modified-file', 'deleted-file', 'renamed-file']) {
      for (const payload of junk) {
        writer.socket.emit(event, ...payload);
        expect(await writer.send(event, ...payload)).toMatchObject(refused('VALIDATION_ERROR'));
      }
    }
    // Events that mean something to an event emitter or to Nest.
    for (const event of ['error', 'exception', 'message', 'constructor', '__proto__'])
      writer.socket.emit(event, { a: 1 });
    writer.socket.emit('modified-file', { path: 'quiet.md', content: 'no ack wanted' });

    expect((await reader.take(1))[0]![1]).toMatchObject({ path: 'quiet.md' });
    // Nothing was echoed back.
    expect(writer.heard).toEqual([]);
    expect((await gateway.list(key)).total).toBe(1);
  });

  it('let every client that goes by seq end with what the server has (defect 2)', async () => {
    const { store, key } = await aPair();
    const replicas = await Promise.all(
      Array.from({ length: 8 }, async (_, index) => {
        const client = await gateway.connect((await store.aKey()).key);
        const mine: [number, string][] = [];
        return { client, index, mine };
      }),
    );
    const rounds = 5;
    await Promise.all(
      replicas.flatMap(({ client, index, mine }) =>
        Array.from({ length: rounds }, async (_, round) => {
          const content = `${index}/${round}`;
          const ack = await client.send('modified-file', { path: 'same.md', content });
          mine.push([(ack as { seq: number }).seq, content]);
        }),
      ),
    );

    const total = replicas.length * rounds;
    const truth = (await gateway.file(key, 'same.md')).body;
    const seqs: number[] = [];
    for (const { client, mine } of replicas) {
      const heard = (await client.take(total - rounds)).map(([, p]) => [p['seq'], p['content']] as [number, string]);
      // Each client learns of each change exactly once, by its ack or by a broadcast, and broadcasts come in order.
      expect(heard.map(([seq]) => seq)).toEqual(heard.map(([seq]) => seq).toSorted((a, b) => a - b));
      const all = [...mine, ...heard].toSorted(([a], [b]) => a - b);
      expect(all.map(([seq]) => seq)).toEqual(Array.from({ length: total }, (_, place) => place + 1));
      expect(all.at(-1)).toEqual([truth.seq, truth.content]);
      seqs.push(...mine.map(([seq]) => seq));
    }
    expect(new Set(seqs).size).toBe(total);
  });

  it('show a write-only key nothing, and let it write (defect 3)', async () => {
    const { store, writer, reader } = await aPair();
    const dropBox = await gateway.connect((await store.aKey('write')).key);

    await writer.send('modified-file', { path: 'secret.md', content: 'top secret' });
    expect(await dropBox.send('modified-file', { path: 'drop.md', content: 'x' })).toMatchObject({ success: true });
    // When the reader has both, the drop box would have had them too.
    await reader.take(2);
    await dropBox.send('deleted-file', { path: 'nothing.md' });

    expect(dropBox.heard).toEqual([]);
  });

  it('let a read-only key change nothing', async () => {
    const { store, key } = await aPair();
    const readOnly = await store.aKey('read');
    const client = await gateway.connect(readOnly.key);
    for (const event of ['created-file', 'modified-file', 'deleted-file', 'renamed-file']) {
      expect(await client.send(event, { path: 'a', content: '', oldPath: 'a', newPath: 'b' })).toMatchObject(
        refused('FORBIDDEN'),
      );
    }
    for (const [method, path, body] of [
      ['POST', '', { path: 'a', content: '' }],
      ['PUT', '', { path: 'a', content: '' }],
      ['PATCH', '', { path: 'a', newPath: 'b' }],
      ['DELETE', '?path=a', undefined],
      ['DELETE', '/all', undefined],
    ] as const) {
      const answer = await gateway.call(method, `/api/v1/files${path}`, readOnly.key, body);
      expect(answer).toMatchObject({ status: 403, body: { error: { code: 'FORBIDDEN' } } });
    }
    expect((await gateway.list(key)).total).toBe(0);
  });

  it('create one new path from many sides at once without a fault (defect 5)', async () => {
    const { key, writer, reader } = await aPair();
    const sides = Array.from({ length: 40 }, async (_, side): Promise<[string, Ack | number]> => {
      const path = `new-${side % 4}.md`;
      if (side % 2 === 0)
        return ['socket', await (side % 4 ? writer : reader).send('modified-file', { path, content: `${side}` })];
      return ['rest', (await gateway.call('PUT', '/api/v1/files', key, { path, content: `${side}` })).status];
    });

    for (const [via, answer] of await Promise.all(sides)) {
      if (via === 'rest') expect(answer).toBe(200);
      else expect(answer).toMatchObject({ success: true });
    }
    expect((await gateway.list(key)).total).toBe(4);
  });
});

/** A connection below Socket.IO's client, which would not send what these tests send. */
async function aRawSocket(key: string, hello = '40'): Promise<WebSocket> {
  const raw = new WebSocket(`${gateway.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket&apiKey=${key}`);
  const next = () =>
    new Promise<string>((resolve) =>
      raw.addEventListener('message', ({ data }) => resolve(String(data)), { once: true }),
    );
  await new Promise((resolve) => raw.addEventListener('open', resolve, { once: true }));
  const opened = next();
  const closed = new Promise((resolve) => raw.addEventListener('close', resolve, { once: true }));
  raw.send(hello);
  await Promise.race([opened, closed]);
  return raw;
}

describe('a frame', () => {
  it('of no sense or endless depth ends at most its own connection', async () => {
    const { key, writer, reader } = await aPair();
    const nest = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
    const frames = [
      `42["modified-file",${nest(1_000_000)}]`,
      `420["modified-file",{"path":${nest(100_000)},"content":""}]`,
      '420["modified-file",{"path":"a","content":"\\ud800","__proto__":{"x":1}}]',
      '42["connect",{}]',
      '42["disconnect"]',
      '42["error",{"message":"x"}]',
      '42[]',
      '42{}',
      '42["modified-file"',
      '43999["x"]',
      '451-["modified-file",{"_placeholder":true,"num":9}]',
      '459999999-["modified-file"]',
      '44{"message":"x"}',
      '40/other,{}',
      '41',
      '9',
      '',
    ];
    for (const frame of frames) {
      const raw = await aRawSocket(key);
      raw.send(frame);
      raw.send(new Uint8Array(100));
      raw.close();
    }
    for (const hello of ['40null', '40[]', '40"x"', '40{"apiKey":{"a":1}}', '40{"__proto__":null}', '40{']) {
      (await aRawSocket(key, hello)).close();
    }
    expect(await writer.send('modified-file', { path: 'alive.md', content: '' })).toMatchObject({ success: true });
    expect((await reader.take(1))[0]![1]).toMatchObject({ path: 'alive.md' });
  });
});

describe('a rename', () => {
  it('never destroys what is at the target (defects 6 and 7)', async () => {
    const { key, writer } = await aPair();
    await writer.send('modified-file', { path: 'precious.md', content: 'precious' });
    await writer.send('modified-file', { path: 'other.md', content: 'other' });

    for (const oldPath of ['missing.md', 'other.md']) {
      expect(await writer.send('renamed-file', { oldPath, newPath: 'precious.md' })).toMatchObject(refused('CONFLICT'));
      const answer = await gateway.call('PATCH', '/api/v1/files', key, { path: oldPath, newPath: 'precious.md' });
      expect(answer).toMatchObject({
        status: 409,
        body: { error: { code: 'CONFLICT', details: { existingPath: 'precious.md' } } },
      });
    }

    expect((await gateway.file(key, 'precious.md')).body.content).toBe('precious');
    expect((await gateway.file(key, 'other.md')).body.content).toBe('other');
  });

  it('makes an empty file of a missing source, as protocol 1 does, when the target is free', async () => {
    const { key, writer, reader } = await aPair();
    expect(await writer.send('renamed-file', { oldPath: 'missing.md', newPath: 'new.md' })).toEqual({
      success: true,
      seq: 1,
    });
    expect((await reader.take(1))[0]).toMatchObject(['file-created', { path: 'new.md', content: '' }]);
    expect((await gateway.file(key, 'new.md')).body.content).toBe('');
  });

  it('leaves a tombstone at the old path, and can go there and back (defect 8)', async () => {
    const { key, writer } = await aPair();
    await writer.send('modified-file', { path: 'a.md', content: 'text' });
    await writer.send('renamed-file', { oldPath: 'a.md', newPath: 'b.md' });
    const state = async () =>
      (await gateway.list(key, 'include_deleted=true')).files.map(({ path, expiresAt }) => [
        path,
        expiresAt !== undefined,
      ]);

    expect(await state()).toEqual([
      ['a.md', true],
      ['b.md', false],
    ]);
    await writer.send('renamed-file', { oldPath: 'b.md', newPath: 'a.md' });
    expect(await state()).toEqual([
      ['a.md', false],
      ['b.md', true],
    ]);
    expect((await gateway.file(key, 'a.md')).body.content).toBe('text');
  });

  it('may change the case alone', async () => {
    const { key, writer } = await aPair();
    await writer.send('modified-file', { path: 'case.md', content: 'text' });
    expect(await writer.send('renamed-file', { oldPath: 'case.md', newPath: 'Case.md' })).toMatchObject({
      success: true,
    });
    expect((await gateway.list(key, 'include_deleted=true')).files.map(({ path }) => path)).toEqual(['Case.md']);
  });
});

describe('a path', () => {
  it('outside the rules is refused everywhere (defect 9)', async () => {
    const { key, writer } = await aPair();
    const bad = ['../../etc/passwd', '/abs', 'a//b', './x', 'a/../b', 'C\\x', 'CON', 'trail/', 'space ', ''];
    for (const path of bad) {
      expect(await writer.send('created-file', { path })).toMatchObject(refused('VALIDATION_ERROR'));
      expect(await writer.send('renamed-file', { oldPath: 'a', newPath: path })).toMatchObject(
        refused('VALIDATION_ERROR'),
      );
      for (const method of ['POST', 'PUT']) {
        const answer = await gateway.call(method, '/api/v1/files', key, { path, content: '' });
        expect(answer).toMatchObject({
          status: 400,
          body: { error: { code: 'VALIDATION_ERROR', details: { field: 'path' } } },
        });
      }
    }
    expect((await gateway.list(key)).total).toBe(0);
  });

  it('has one file whatever its Unicode form or case, and a refusal names the file in the way (defect 10)', async () => {
    const { key, writer, reader } = await aPair();
    await writer.send('modified-file', { path: 'Cafe\u0301.md', content: 'one' });
    await writer.send('modified-file', { path: 'Caf\u00e9.md', content: 'two' });
    expect((await reader.take(2)).map(([event, { path }]) => [event, path])).toEqual([
      ['file-created', 'Caf\u00e9.md'],
      ['file-modified', 'Caf\u00e9.md'],
    ]);

    const ack = await writer.send('modified-file', { path: 'CAF\u00c9.md', content: 'three' });
    expect(ack).toMatchObject(refused('CONFLICT'));
    expect(ack).toMatchObject({ error: { message: expect.stringContaining('Caf\u00e9.md') as string } });
    expect((await gateway.list(key)).files.map(({ path }) => path)).toEqual(['Caf\u00e9.md']);

    // A deleted file is in nobody's way.
    await writer.send('deleted-file', { path: 'Caf\u00e9.md' });
    expect(await writer.send('modified-file', { path: 'CAF\u00c9.md', content: 'three' })).toMatchObject({
      success: true,
    });
  });
});

describe('a content', () => {
  it('of more than 1 MiB goes through REST (defect 11)', async () => {
    const { key } = await aPair();
    const content = 'x'.repeat(1_500_000);
    expect(await gateway.call('PUT', '/api/v1/files', key, { path: 'big.md', content })).toMatchObject({ status: 200 });
    expect((await gateway.file(key, 'big.md')).body.hash).toBe(hash(content));
  });

  it('of the documented maximum goes through sockets and REST, and one more is refused, not cut off (defect 12)', async () => {
    const { key, writer, reader } = await aPair();
    const longest = '\u20ac'.repeat(CONTENT_LIMIT);
    expect(await writer.send('modified-file', { path: 'max.md', content: longest })).toMatchObject({
      hash: hash(longest),
    });
    expect((await reader.take(1))[0]![1]['size']).toBe(3 * CONTENT_LIMIT);
    expect(await gateway.call('PUT', '/api/v1/files', key, { path: 'max.md', content: longest })).toMatchObject({
      status: 200,
    });
    // The others have it too, so what follows does not wait behind it.
    await Promise.all([reader.take(1), writer.take(1)]);

    const tooLong = 'x'.repeat(CONTENT_LIMIT + 1);
    expect(await writer.send('modified-file', { path: 'over.md', content: tooLong })).toMatchObject(
      refused('VALIDATION_ERROR'),
    );
    expect(await gateway.call('PUT', '/api/v1/files', key, { path: 'over.md', content: tooLong })).toMatchObject({
      status: 400,
    });
    const answer = await gateway.call('PUT', '/api/v1/files', key, {
      path: 'over.md',
      content: 'x'.repeat(32 * 1024 * 1024),
    });
    expect(answer).toMatchObject({ status: 413, body: { error: { code: 'VALIDATION_ERROR' } } });
    expect(writer.socket.connected).toBe(true);
  }, 60_000);

  it('with U+0000 or half a surrogate pair is refused (defect 15)', async () => {
    const { key, writer } = await aPair();
    for (const content of ['a\0b', 'a\ud800b', '\udc00']) {
      expect(await writer.send('modified-file', { path: 'a.md', content })).toMatchObject(refused('VALIDATION_ERROR'));
      const answer = await gateway.call('POST', '/api/v1/files', key, { path: 'a.md', content });
      expect(answer).toMatchObject({
        status: 400,
        body: { error: { code: 'VALIDATION_ERROR', details: { field: 'content' } } },
      });
    }
    expect(await writer.send('modified-file', { path: 'a.md', content: '\ud83d\ude00' })).toMatchObject({
      success: true,
    });
  });
});

describe('the REST routes', () => {
  it('create strictly, store, move, read and delete, and tell every socket of the store', async () => {
    const { key, writer, reader } = await aPair();
    const view = { path: 'a.md', size: 3, isBinary: false, extension: 'md', createdAt: ISO, updatedAt: ISO };

    const created = await gateway.call<FileView>('POST', '/api/v1/files', key, { path: 'a.md', content: 'one' });
    expect(created).toEqual({ status: 201, body: { ...view, hash: hash('one'), seq: 1 } });
    expect(await gateway.call('POST', '/api/v1/files', key, { path: 'a.md', content: 'x' })).toMatchObject({
      status: 409,
      body: { error: { code: 'CONFLICT' } },
    });
    expect(await gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content: 'two' })).toEqual({
      status: 200,
      body: { ...view, hash: hash('two'), seq: 2 },
    });
    expect(await gateway.call('PATCH', '/api/v1/files', key, { path: 'a.md', newPath: 'b.md' })).toMatchObject({
      status: 200,
      body: { path: 'b.md', seq: 3 },
    });
    expect(await gateway.file(key, 'b.md')).toEqual({
      status: 200,
      body: { ...view, path: 'b.md', hash: hash('two'), seq: 3, content: 'two' },
    });
    expect(await gateway.call('DELETE', '/api/v1/files?path=b.md', key)).toEqual({ status: 204, body: '' });
    expect(await gateway.call('DELETE', '/api/v1/files?path=b.md', key)).toEqual({ status: 204, body: '' });
    expect(await gateway.file(key, 'b.md')).toMatchObject({ status: 404, body: { error: { code: 'NOT_FOUND' } } });
    expect(await gateway.file(key, 'a.md')).toMatchObject({ status: 404 });

    for (const client of [writer, reader]) {
      expect((await client.take(4)).map(([event, { seq }]) => [event, seq])).toEqual([
        ['file-created', 1],
        ['file-modified', 2],
        ['file-renamed', 3],
        ['file-deleted', 4],
      ]);
    }
  });

  it('name what a file holds by its ETag, send it only to those who do not have it, and write only what they expect', async () => {
    const { store, key } = await aPair();
    const file = '/api/v1/files?path=a.md';
    const put = (content: string, conditions: Record<string, string> = {}) =>
      gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content }, conditions);
    const [one, two] = [`"${hash('one')}"`, `"${hash('two')}"`];
    const current = { path: 'a.md', hash: hash('one'), deleted: false };
    const failed = (what: unknown) => ({
      status: 412,
      body: { error: { code: 'CONFLICT', message: expect.any(String) as string, details: { current: what } } },
    });

    expect(await put('one', { 'if-match': '*' })).toMatchObject(failed(null));
    const made = await put('one', { 'if-none-match': '*' });
    expect([made.status, made.headers.get('etag')]).toEqual([200, one]);
    expect(await put('x', { 'if-none-match': '*' })).toMatchObject(failed(current));
    for (const known of [one, `"x", W/${one}`, '*']) {
      const same = await gateway.call('GET', file, key, undefined, { 'if-none-match': known });
      expect([known, same.status, same.body, same.headers.get('etag')]).toEqual([known, 304, '', one]);
    }
    const other = await gateway.call('GET', file, key, undefined, { 'if-none-match': two });
    expect([other.status, other.headers.get('etag'), other.headers.get('cache-control')]).toEqual([
      200,
      one,
      'private, no-cache',
    ]);

    for (const wrong of [two, `W/${one}`]) expect(await put('x', { 'if-match': wrong })).toMatchObject(failed(current));
    const gone = (conditions: Record<string, string>) => gateway.call('DELETE', file, key, undefined, conditions);
    const moved = (conditions: Record<string, string>, path = 'a.md') =>
      gateway.call('PATCH', '/api/v1/files', key, { path, newPath: 'b.md' }, conditions);
    expect(await gone({ 'if-match': two })).toMatchObject(failed(current));
    expect(await moved({ 'if-match': two })).toMatchObject(failed(current));
    expect(await moved({ 'if-match': '*' }, 'none.md')).toMatchObject(failed(null));
    expect(await gone({ 'if-match': hash('one') })).toMatchObject({ status: 400 });
    // Who may not read is told no more than that it is not so.
    const { key: drop } = await store.aKey('write');
    const blind = await gateway.call('PUT', '/api/v1/files', drop, { path: 'a.md', content: 'x' }, { 'if-match': two });
    expect([blind.status, JSON.stringify(blind.body)]).toEqual([412, expect.not.stringMatching(/current|sha256/)]);
    // None of it has changed anything.
    expect((await gateway.file(key, 'a.md')).body).toMatchObject({ content: 'one', seq: 1 });

    expect(await put('two', { 'if-match': `${two}, ${one}`, 'if-none-match': two })).toMatchObject({ status: 200 });
    const away = await moved({ 'if-match': two });
    expect([away.status, away.headers.get('etag')]).toEqual([200, two]);
    expect((await put('new', { 'if-match': two })).body).toMatchObject({
      error: { details: { current: { hash: null, deleted: true } } },
    });
    expect((await gateway.call('DELETE', '/api/v1/files?path=b.md', key, undefined, { 'if-match': two })).status).toBe(
      204,
    );
    // What is gone already is as it was wanted.
    expect((await gateway.call('DELETE', '/api/v1/files?path=b.md', key, undefined, { 'if-match': two })).status).toBe(
      204,
    );
  });

  it('tell of every file that DELETE /files/all deletes (defect 13)', async () => {
    const { store, key, reader } = await aPair();
    for (const path of ['b.md', 'a.md', 'c.md'])
      await gateway.call('PUT', '/api/v1/files', key, { path, content: path });
    await reader.take(3);

    expect(await gateway.call('DELETE', '/api/v1/files/all', key)).toEqual({
      status: 200,
      body: { deleted: 3, seq: 6 },
    });

    expect((await reader.take(3)).map(([event, { path, seq }]) => [event, path, seq])).toEqual([
      ['file-deleted', 'a.md', 4],
      ['file-deleted', 'b.md', 5],
      ['file-deleted', 'c.md', 6],
    ]);
    expect(await gateway.call('DELETE', '/api/v1/files/all', key)).toMatchObject({ body: { deleted: 0 } });
    expect((await gateway.list(key)).total).toBe(0);
    expect(await gateway.admin('GET', `/stores/${store.id}`)).toMatchObject({ fileCount: 0, totalSize: 0 });
  });

  it('skip no file between pages when clients ask for tombstones, as those of protocol 1 do (defect 14)', async () => {
    const { key } = await aPair();
    const paths = Array.from({ length: 30 }, (_, index) => `pg/${String(index).padStart(2, '0')}.md`);
    for (const path of paths) await gateway.call('PUT', '/api/v1/files', key, { path, content: path });
    const page = async (offset: number) =>
      (await gateway.call<FileList>('GET', `/api/v1/files?limit=10&offset=${offset}&include_deleted=true`, key)).body;

    const seen = [await page(0)];
    await gateway.call('DELETE', `/api/v1/files?path=${paths[3]!}`, key);
    await gateway.call('PATCH', '/api/v1/files', key, { path: paths[5], newPath: 'zz.md' });
    seen.push(await page(10), await page(20));

    expect(seen.flatMap(({ files }) => files.map(({ path }) => path)).slice(0, 30)).toEqual(paths);
    expect(seen.map(({ total }) => total)).toEqual([30, 31, 31]);
  });

  it('filter lists, and take % and _ as themselves (defect 22)', async () => {
    const { key } = await aPair();
    const files = {
      '100%.md': 'Alpha',
      'a_b.md': '50% off',
      'axb.md': 'beta',
      'p/x.txt': 'alpha',
      'p/y.png': 'YWxwaGE=',
    };
    for (const [path, content] of Object.entries(files))
      await gateway.call('PUT', '/api/v1/files', key, { path, content });
    await gateway.call('DELETE', '/api/v1/files?path=p/x.txt', key);
    const paths = async (query: string) => (await gateway.list(key, query)).files.map(({ path }) => path);

    expect(await paths('')).toEqual(['100%.md', 'a_b.md', 'axb.md', 'p/y.png']);
    expect(await paths('path=a_')).toEqual(['a_b.md']);
    expect(await paths('path=p/&include_deleted=1')).toEqual(['p/x.txt', 'p/y.png']);
    expect(await paths('path_contains=_')).toEqual(['a_b.md']);
    expect(await paths('path_contains=%25')).toEqual(['100%.md']);
    expect(await paths('content_contains=%25')).toEqual(['a_b.md']);
    expect(await paths('content_contains=ALPHA')).toEqual(['100%.md']);
    expect(await paths('extension=png,%20TXT')).toEqual(['p/y.png']);
    expect(await paths('is_binary=true')).toEqual(['p/y.png']);
    const page = await gateway.call('GET', '/api/v1/files?limit=2&offset=1', key);
    expect(page.body).toMatchObject({ total: 4, limit: 2, offset: 1, files: [{ path: 'a_b.md' }, { path: 'axb.md' }] });
    expect(await gateway.call('GET', '/api/v1/files?offset=99', key)).toMatchObject({ body: { total: 4, files: [] } });
    for (const bad of [
      'limit=0',
      'limit=1001',
      'limit=x',
      'offset=-1',
      'is_binary=maybe',
      'extension=%00',
      'limit=1&limit=2',
    ]) {
      expect(await gateway.call('GET', `/api/v1/files?${bad}`, key)).toMatchObject({
        status: 400,
        body: { error: { code: 'VALIDATION_ERROR' } },
      });
    }
  });

  it('answer malformed requests and unknown addresses with a code', async () => {
    const { key } = await aPair();
    for (const body of ['{', '[]', 'null', '"x"', '{"path":"a","__proto__":{"content":"x"}}']) {
      expect(await gateway.call('PUT', '/api/v1/files', key, body)).toMatchObject({
        status: 400,
        body: { error: { code: 'VALIDATION_ERROR' } },
      });
    }
    for (const [address, more] of [
      ['/api/v1/files/%', {}],
      ['/api/v2/blobs/%FF', { retryable: false }],
    ] as const) {
      const { status, body } = await gateway.call<{ error: object }>('GET', address, key);
      expect([address, status, Object.keys(body.error)]).toEqual([
        address,
        400,
        ['code', 'message', ...Object.keys(more)],
      ]);
    }
    expect(await gateway.call('GET', '/api/v1/nothing', key)).toMatchObject({
      status: 404,
      body: { error: { code: 'NOT_FOUND' } },
    });
    for (const bad of [undefined, 'nonsense', 'sk_store_000000_' + 'x'.repeat(32)]) {
      expect(await gateway.call('GET', '/api/v1/files', bad)).toMatchObject({
        status: 401,
        body: { error: { code: 'UNAUTHORIZED' } },
      });
    }
    expect(await gateway.call('GET', '/health')).toMatchObject({
      status: 200,
      body: { status: 'healthy', database: 'connected' },
    });
  });

  it('let pages of any origin in, because Obsidian asks from app://obsidian.md', async () => {
    const response = await fetch(`${gateway.url}/api/v1/files`, {
      method: 'OPTIONS',
      headers: {
        origin: 'app://obsidian.md',
        'access-control-request-method': 'PUT',
        'access-control-request-headers': 'x-api-key',
      },
    });
    expect(response.status).toBe(204);
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
    expect(response.headers.get('access-control-allow-methods')).toContain('PUT');
    expect(response.headers.get('access-control-allow-headers')?.toLowerCase()).toContain('x-api-key');
  });
});
