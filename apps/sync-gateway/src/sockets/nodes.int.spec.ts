import { digestOf, digestTerm } from '@atomo-cc/sync-protocol';
import { aCable, aDatabase, eventually, redisTestUrl, type Cable, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, putOf, TestGateway } from '../testing/index.js';

let database: TestDatabase;
/** To Redis, which itself is shared with other tests. */
let link: Cable;
let here: TestGateway;
let there: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  link = await aCable(redisTestUrl());
  here = await TestGateway.start(database.url, { redisUrl: link.url });
  there = await TestGateway.start(database.url);
});

afterAll(async () => {
  await Promise.all([here.stop(), there.stop()]);
  await link.close();
  await database.drop();
});

/** A store with a client on each node, between which broadcasts are known to pass. */
async function aPair() {
  const store = await here.aStore();
  const issued = await store.aKey();
  const [near, far] = await Promise.all([here.connect(issued.key), there.connect(issued.key)]);
  // A node reads the stream from where it stands when it asks first: write until it was heard.
  await eventually('the nodes hear each other', async () => {
    await near.send('modified-file', { path: 'ping.md', content: 'x' });
    await far.send('modified-file', { path: 'pong.md', content: 'x' });
    return near.heard.length > 0 && far.heard.length > 0;
  });
  const paths = (client: typeof near) => client.heard.map(({ payload }) => payload['path']);
  const settled = async (path: string) => {
    // Each hears in order: who has heard the last one will hear no earlier one any more.
    await near.send('modified-file', { path, content: 'x' });
    await far.send('modified-file', { path: `far ${path}`, content: 'x' });
    await eventually(`${path} is heard`, () => paths(far).includes(path) && paths(near).includes(`far ${path}`));
    near.heard.length = 0;
    far.heard.length = 0;
  };
  await settled('settled.md');
  return { store, issued, near, far };
}

describe('two nodes', () => {
  it('tell each other of every change once', async () => {
    const { near, far, issued } = await aPair();
    for (const content of ['1', '2', '3']) await near.send('modified-file', { path: 'a.md', content });
    await there.call('PUT', '/api/v1/files', issued.key, { path: 'b.md', content: '' });
    await near.send('deleted-file', { path: 'a.md' });

    expect((await far.take(5)).map(([event]) => event).toSorted()).toEqual([
      'file-created',
      'file-created',
      'file-deleted',
      'file-modified',
      'file-modified',
    ]);
    expect((await near.take(1))[0]![1]).toMatchObject({ path: 'b.md' });
    expect([near.heard, far.heard]).toEqual([[], []]);
  });

  it('pass on a file too long for Redis by reading the row', async () => {
    const { near, far } = await aPair();
    const content = 'long '.repeat(100_000);
    await near.send('modified-file', { path: 'long.md', content });
    const [event, payload] = (await far.take(1))[0]!;
    expect([event, payload['content'] === content]).toEqual(['file-created', true]);
    await near.send('renamed-file', { oldPath: 'long.md', newPath: 'longer.md' });
    expect((await far.take(1))[0]).toMatchObject(['file-renamed', { oldPath: 'long.md', newPath: 'longer.md' }]);
    expect([near.heard, far.heard]).toEqual([[], []]);
  });

  it('cut a key revoked on the other within 5 s, also when it only listens', async () => {
    const { store, issued, near, far } = await aPair();
    const from = performance.now();
    const cut = Promise.all([near.disconnected(), far.disconnected()]);
    await here.admin('DELETE', `/stores/${store.id}/keys/${issued.id}`);
    await cut;
    expect(performance.now() - from).toBeLessThan(5_000);
    await eventually(
      'the other node refuses the key',
      async () => (await there.file(issued.key, 'ping.md')).status === 401,
      5_000,
    );
  });

  it('number the changes of a store in the order in which they become visible, without a gap (defect 22)', async () => {
    const { store, issued, near, far } = await aPair();
    const seen: number[] = [];
    let isWriting = true;
    const tail = async () => {
      const rows = await database.asOwner<{ seq: string }>(
        'select seq from store_changes where store_id = $1 and seq > $2 order by seq',
        [store.id, seen.at(-1) ?? 0],
      );
      seen.push(...rows.map(({ seq }) => Number(seq)));
    };
    const tailing = (async () => {
      while (isWriting) await tail();
    })();
    const writes = [near, far].flatMap((client, side) =>
      Array.from({ length: 100 }, (_, index) =>
        client.send('modified-file', { path: `${index % 7}.md`, content: `${side} ${index}` }),
      ),
    );
    // A refusal between them takes no number and harms no neighbour.
    const refusals = Array.from({ length: 10 }, () =>
      there.call('POST', '/api/v1/files', issued.key, { path: 'settled.md', content: '' }),
    );
    const acks = await Promise.all(writes);
    expect((await Promise.all(refusals)).map(({ status }) => status)).toEqual(Array(10).fill(409));
    isWriting = false;
    await tailing;
    await tail();

    expect(acks.filter((ack) => !ack.success)).toEqual([]);
    expect(seen).toEqual(Array.from({ length: seen.length }, (_, index) => index + 1));
    const [row] = await database.asOwner(
      'select head_seq::int, file_count::int, total_bytes::int from stores where id = $1',
      [store.id],
    );
    const [sums] = await database.asOwner(
      'select count(*)::int as file_count, sum(size)::int as total_bytes from store_files where store_id = $1',
      [store.id],
    );
    expect(row).toEqual({ head_seq: seen.length, ...sums });
    // And the last change both clients know of is what the store has.
    for (const [client, own] of [
      [near, acks.slice(0, 100)],
      [far, acks.slice(100)],
    ] as const) {
      const heard = (await client.take(100)).map(([, { seq }]) => seq);
      const answered = own.map((ack) => ack.success && ack.seq);
      expect([...heard, ...answered].toSorted((a, b) => Number(a) - Number(b))).toEqual(seen.slice(-200));
    }
  });

  it('go on while Redis is away, and lose nothing', async () => {
    const { store, issued, near, far } = await aPair();
    const beside = await here.connect((await store.aKey('read')).key);
    link.cut();

    expect(await near.send('modified-file', { path: 'alone.md', content: 'x' })).toMatchObject({ success: true });
    expect((await beside.take(1))[0]![1]).toMatchObject({ path: 'alone.md' });
    expect((await there.file(issued.key, 'alone.md')).status).toBe(200);
    expect(await here.call('GET', '/health/ready')).toMatchObject({ status: 200 });
    // The other node looks for itself, within 2 s, while Redis still is away.
    expect((await far.take(1))[0]![1]).toMatchObject({ path: 'alone.md' });

    link.mend();
    await far.send('modified-file', { path: 'again.md', content: '' });
    await near.take(1);
  });
});

describe('two nodes and protocol 2', () => {
  it('feed every device without a gap, also those that come while others write, and with Redis cut in between', async () => {
    const store = await here.aStore();
    const { key } = await store.aKey();
    const writers = await Promise.all(
      [here, there].map((node, side) => Device2.connect(node, key, { device: `writer-${side}` })),
    );
    const { epoch } = writers[0]!.ready;
    const readers: Device2[] = [];
    const total = 2 * 60 * 5;
    const write = async (device: Device2, side: number) => {
      for (let round = 0; round < 60; round += 1) {
        const done = await device.push(
          ...Array.from({ length: 5 }, (_, n) => putOf(`${side}/${n}.md`, `${side} ${round}`)),
        );
        expect(done.every(({ success }) => success)).toBe(true);
        if (round === 20 && side === 0) link.cut();
        if (round === 40 && side === 0) link.mend();
        // Comes in the middle of it all, from the beginning of the log.
        if (round % 12 === 0) {
          readers.push(await Device2.connect(side === 0 ? there : here, key, { cursor: { epoch, seq: 0 } }));
        }
      }
    };
    await Promise.all(writers.map(write));
    const all = Array.from({ length: total }, (_, place) => place + 1);
    const heard = await Promise.all([...readers, ...writers].map((device) => device.changes(total)));
    for (const changes of heard) expect(changes.map(({ seq }) => seq)).toEqual(all);
    // And what they come to is what the store says it holds.
    const files = new Map(heard[0]!.map(({ path, hash }) => [path, hash!]));
    const digest = digestOf([...files].map(([path, hash]) => digestTerm(path, hash)));
    expect(await readers[0]!.ask('digest')).toMatchObject({ seq: total, digest, count: 10 });
  }, 60_000);

  it('show devices to each other', async () => {
    const { key } = await (await here.aStore()).aKey();
    const [near, far] = await Promise.all([
      Device2.connect(here, key, { device: 'near' }),
      Device2.connect(there, key, { device: 'far' }),
    ]);
    await eventually('the other node hears', async () => {
      await near.ask('presence:set', { state: { file: 'a.md' } });
      return far.heard.some(({ event }) => event === 'presence');
    });
    expect(await far.ask('presence:list')).toMatchObject({ present: [{ deviceId: 'near', state: { file: 'a.md' } }] });
  });
});

describe('a stop', () => {
  it('acks what was accepted, then ends the sockets, soon', async () => {
    const node = await TestGateway.start(database.url);
    const { key } = await (await node.aStore()).aKey();
    const client = await node.connect(key);
    await client.send('created-file', { path: 'first.md' });
    const acks = Array.from({ length: 200 }, (_, index) =>
      client.send('modified-file', { path: `${index}.md`, content: 'x' }),
    );
    await Promise.race(acks);
    const cut = client.disconnected();
    const from = performance.now();

    await node.stop();

    // Far from the minutes that a stop may take at the most.
    expect(performance.now() - from).toBeLessThan(10_000);
    await cut;
    const answers = await Promise.allSettled(acks);
    const acked = answers.filter((answer) => answer.status === 'fulfilled' && answer.value.success).length;
    const stored = await database.asOwner(
      `select 1 from store_changes where path <> 'first.md' and actor = (select id from api_keys where key_hash = encode(sha256($1), 'hex'))`,
      [key],
    );
    expect(acked).toBeGreaterThan(0);
    // What is in the log was acked: nobody has to guess.
    expect(stored).toHaveLength(acked);
  });
});
