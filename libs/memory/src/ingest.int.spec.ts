import { DEFAULT_TENANT_ID, tenantId, type TenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { ingestMessages, MAX_CHUNK, type IngestCounts } from './ingest.js';
import { memoryMigrations } from './migrations.js';
import type { SourceMessage } from './message.js';

const OTHER_TENANT = tenantId('00000000-0000-7000-8000-0000000000ff');
const LIST = 'list@lists.example';

let db: TestDatabase;
beforeAll(async () => {
  db = await aDatabase(memoryMigrations);
});
afterAll(() => db.drop());
afterEach(() => db.asOwner('truncate memory_records, graph_nodes cascade'));

function aMessage(messageId: string, more: Partial<SourceMessage> = {}): SourceMessage {
  return {
    messageId,
    inReplyTo: null,
    references: [],
    from: { address: 'ada@example.org', name: 'Ada' },
    to: [{ address: 'bob@example.org', name: 'Bob' }],
    cc: [],
    listAddress: null,
    subject: `About ${messageId}`,
    sentAt: new Date('2020-01-01T10:00:00Z'),
    text: `The text of ${messageId}.`,
    truncated: false,
    attachments: [],
    contentHash: `hash of ${messageId} ${JSON.stringify(more)}`,
    ...more,
  };
}

function ingest(
  messages: SourceMessage[],
  source = 'inbox',
  tenant: TenantId = DEFAULT_TENANT_ID,
): Promise<IngestCounts> {
  return db.app.transaction(tenant, (tx) => ingestMessages(tx, { tenant, jobId: 'job', source, messages }));
}

/** Everything that the graph says, free of ids and times of writing, in one order. */
async function dump(): Promise<string[]> {
  const rows = await db.asOwner<{ line: string }>(
    `select format('node %s %s %s %s', type, key, name, properties) as line from graph_nodes
     union all
     select format('edge %s %s > %s %s at %s until %s by %s', e.type, s.key, t.key, e.properties, e.valid_at at time zone 'UTC', e.expired_at is not null,
       (select string_agg(format('%s/%s', r.source, r.message_id), ' ' order by r.id) from graph_edge_evidence v join memory_records r on r.id = v.record_id where v.edge_id = e.id))
     from graph_edges e join graph_nodes s on s.id = e.source_id join graph_nodes t on t.id = e.target_id
     union all
     select format('record %s %s in %s', r.source, r.message_id, n.key) from memory_records r join graph_nodes n on n.id = r.thread_id
     union all
     select format('word %s %s', w.word, n.key) from graph_person_words w join graph_nodes n on n.id = w.node_id`,
  );
  return rows.map((row) => row.line).toSorted();
}

async function edgesOf(type: string): Promise<string[]> {
  const rows = await db.asOwner<{ line: string }>(
    `select format('%s > %s', s.key, t.key) as line from graph_edges e join graph_nodes s on s.id = e.source_id
     join graph_nodes t on t.id = e.target_id where e.type = $1 and e.expired_at is null`,
    [type],
  );
  return rows.map((row) => row.line).toSorted();
}

it('draws sender, recipients, list, thread and reply of a message, each with its own time and evidence', async () => {
  const at = new Date('2011-05-06T07:08:09Z');
  const counts = await ingest([
    aMessage('question', { to: [{ address: LIST, name: 'The list' }], listAddress: LIST, sentAt: at }),
    aMessage('answer', {
      inReplyTo: 'question',
      from: { address: 'bob@example.org', name: 'Bob' },
      to: [{ address: 'ada@example.org', name: 'Ada L.' }],
      cc: [{ address: LIST, name: null }],
    }),
  ]);
  expect(counts).toEqual({
    recordsNew: 2,
    recordsUnchanged: 0,
    recordsChanged: 0,
    people: 2,
    threads: 1,
    replies: 1,
    nodes: 8,
    edges: 2 + 2 + 3 + 1 + 2,
  });
  expect(await edgesOf('sent')).toEqual(['ada@example.org > question', 'bob@example.org > answer']);
  expect(await edgesOf('addressed')).toEqual(['answer > ada@example.org', `answer > ${LIST}`, `question > ${LIST}`]);
  expect(await edgesOf('replied_to')).toEqual(['answer > question']);
  expect(await edgesOf('in_thread')).toEqual(['answer > question', 'question > question']);
  const lines = await dump();
  expect(lines).toContain(`node person ada@example.org Ada {}`); // her own name beats what Bob calls her
  expect(lines).toContain('node thread question About question {}');
  expect(lines).toContain(`edge sent ada@example.org > question {} at 2011-05-06 07:08:09 until f by inbox/question`);
  expect(lines).toContain(
    `edge addressed answer > ${LIST} {"as": "list"} at 2020-01-01 10:00:00 until f by inbox/answer`,
  );
  expect(lines.some((line) => line.startsWith(`node person ${LIST}`))).toBe(false);
});

it('changes nothing when the same comes again', async () => {
  const messages = [aMessage('a'), aMessage('b', { inReplyTo: 'a' })];
  await ingest(messages);
  const before = await dump();
  expect(await ingest(messages)).toEqual({
    recordsNew: 0,
    recordsUnchanged: 2,
    recordsChanged: 0,
    people: 0,
    threads: 0,
    replies: 0,
    nodes: 0,
    edges: 0,
  });
  expect(await dump()).toEqual(before);
});

it('rewrites a changed message, lets go of what it no longer says, and knows both versions from then on', async () => {
  const former = aMessage('a', { inReplyTo: 'root', to: [{ address: 'bob@example.org', name: 'Bob' }] });
  const latter = aMessage('a', { subject: 'New', text: 'new', to: [{ address: 'cleo@example.org', name: 'Cleo' }] });
  await ingest([aMessage('root'), former]);
  const counts = await ingest([latter]);
  expect(counts).toMatchObject({ recordsNew: 0, recordsChanged: 1, replies: -1, people: 1, threads: 1 });
  expect(await edgesOf('replied_to')).toEqual([]);
  expect(await edgesOf('addressed')).toEqual(['a > cleo@example.org', 'root > bob@example.org']);
  expect(await db.asOwner(`select subject, text from memory_records where message_id = 'a'`)).toEqual([
    { subject: 'New', text: 'new' },
  ]);
  expect(await ingest([former, latter])).toMatchObject({ recordsUnchanged: 2, recordsChanged: 0, edges: 0 });
  const back = await ingest([{ ...former, contentHash: 'a third version' }]);
  expect(back).toMatchObject({ recordsChanged: 1, replies: 1, threads: -1 });
  expect(await edgesOf('replied_to')).toEqual(['a > root']);
});

it('keeps an edge as long as another record says it', async () => {
  await ingest([aMessage('a')], 'inbox');
  await ingest([aMessage('a')], 'archive');
  await ingest([aMessage('a', { from: { address: 'eve@example.org', name: 'Eve' } })], 'inbox');
  expect(await edgesOf('sent')).toEqual(['ada@example.org > a', 'eve@example.org > a']);
  await ingest([aMessage('a', { from: { address: 'eve@example.org', name: 'Eve' } })], 'archive');
  expect(await edgesOf('sent')).toEqual(['eve@example.org > a']);
});

it('moves a whole subtree, and its edge, when the missing parent arrives', async () => {
  await ingest([aMessage('c', { inReplyTo: 'b' }), aMessage('d', { inReplyTo: 'c' }), aMessage('a')]);
  expect(await edgesOf('in_thread')).toEqual(['a > a', 'c > b', 'd > b']);
  expect(await ingest([aMessage('b', { inReplyTo: 'a' })])).toMatchObject({ threads: -1, replies: 2 });
  expect(await edgesOf('in_thread')).toEqual(['a > a', 'b > a', 'c > a', 'd > a']);
  expect(await edgesOf('replied_to')).toEqual(['b > a', 'c > b', 'd > c']);
});

it('takes an address for a list, not a person, whichever message says so first', async () => {
  await ingest([aMessage('before', { to: [{ address: LIST, name: 'L' }] })]);
  expect(await ingest([aMessage('names it', { listAddress: LIST })])).toMatchObject({ people: 0, nodes: 3 });
  await ingest([aMessage('after', { to: [{ address: LIST, name: 'L' }] })]);
  expect(await edgesOf('uses')).toEqual(['ada@example.org > ada@example.org', 'bob@example.org > bob@example.org']);
});

it('refuses a chunk that is too large', async () => {
  const messages = Array.from({ length: MAX_CHUNK + 1 }, (_, index) => aMessage(`m${index}`));
  await expect(ingest(messages)).rejects.toMatchObject({ code: 'MEMORY_CHUNK_TOO_LARGE' });
});

it('keeps tenants apart', async () => {
  await ingest([aMessage('a')]);
  expect(await ingest([aMessage('b', { inReplyTo: 'a' })], 'inbox', OTHER_TENANT)).toMatchObject({
    people: 2,
    replies: 0,
  });
  const seen = await db.app.transaction(OTHER_TENANT, (tx) => tx.query(`select message_id from memory_records`));
  expect(seen).toEqual([{ message_id: 'b' }]);
});

it('queues what is new or changed for the index, and nothing else', async () => {
  await ingest([aMessage('a'), aMessage('b')]);
  await db.asOwner('delete from memory_index_queue');
  await ingest([aMessage('a'), aMessage('b', { text: 'other' })]);
  expect(
    await db.asOwner(`select r.message_id from memory_index_queue q join memory_records r on r.id = q.record_id`),
  ).toEqual([{ message_id: 'b' }]);
});

/** A small seeded generator (mulberry32), so that a failure can be repeated. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Mail as wild as it comes: loops, missing parents, lists named by some messages only, names that change, two mailboxes. */
function wildMail(below: (limit: number) => number, size: number): { source: string; message: SourceMessage }[] {
  const people = ['ada', 'bob', 'cleo', 'dan', 'list'];
  const someone = () => {
    const who = people[below(people.length)]!;
    return { address: `${who}@example.org`, name: below(3) === 0 ? null : `${who} ${below(3)}` };
  };
  return Array.from({ length: size }, (_, index) => {
    const id = `m${below(4) === 0 ? below(size) : index}`;
    const references = Array.from({ length: below(3) }, () => `m${below(size + 5)}`);
    const message = aMessage(id, {
      from: someone(),
      to: Array.from({ length: below(3) }, someone),
      cc: Array.from({ length: below(2) }, someone),
      inReplyTo: below(4) === 0 ? null : `m${below(size + 5)}`,
      references,
      listAddress: below(4) === 0 ? 'list@example.org' : null,
      sentAt: new Date(Date.UTC(2020, 0, 1 + below(300))),
      subject: `${'Re: '.repeat(below(3))}topic ${below(9)}`,
    });
    return { source: below(3) === 0 ? 'archive' : 'inbox', message };
  });
}

const SEEDS = [Number(process.env['SEED'] ?? Date.now() % 1_000_000), 1, 2, 3];

it.each(SEEDS)('makes the same graph whatever the order and the chunks (SEED=%i)', async (seed) => {
  const below = generator(seed);
  const wild = wildMail(below, 40);
  // Versions of one message are told apart by arrival, so here each message of a source has one.
  const mail = [...new Map(wild.map((one) => [`${one.source} ${one.message.messageId}`, one])).values()];
  let expected: { graph: string[]; counts: Record<string, number> } | undefined;
  for (let round = 0; round < 6; round += 1) {
    const order = [...mail];
    for (let last = order.length - 1; round > 0 && last > 0; last -= 1) {
      const other = below(last + 1);
      [order[last], order[other]] = [order[other]!, order[last]!];
    }
    await db.asOwner('truncate memory_records, graph_nodes cascade');
    const counts: Record<string, number> = {};
    while (order.length > 0) {
      const { source } = order[0]!;
      const size = 1 + below(12);
      const chunk: SourceMessage[] = [];
      while (order[0]?.source === source && chunk.length < size) chunk.push(order.shift()!.message);
      for (const [name, count] of Object.entries(await ingest(chunk, source)))
        counts[name] = (counts[name] ?? 0) + count;
    }
    const graph = await dump();
    expected ??= { graph, counts };
    expect({ graph, counts }).toEqual(expected);
    const [totals] = await db.asOwner(
      `select (select count(*)::int from graph_nodes) as nodes, (select count(*)::int from graph_edges where expired_at is null) as edges,
              (select count(*)::int from graph_nodes where type = 'thread') as threads, (select count(*)::int from graph_nodes where type = 'person') as people,
              (select count(*)::int from graph_edges where type = 'replied_to') as replies`,
    );
    expect(counts).toMatchObject(totals!);
  }
});

it('lets two jobs write one tenant at once, without deadlock or duplicate', async () => {
  const mail = wildMail(generator(7), 120).map((one) => one.message);
  const once = [...new Map(mail.map((message) => [message.messageId, message])).values()];
  const chunks = (list: SourceMessage[]) =>
    Array.from({ length: Math.ceil(list.length / 10) }, (_, index) => list.slice(index * 10, index * 10 + 10));
  const run = async (list: SourceMessage[]) => {
    let sum = 0;
    for (const chunk of chunks(list)) sum += (await ingest(chunk)).recordsNew;
    return sum;
  };
  await run(once);
  const expected = await dump();
  await db.asOwner('truncate memory_records, graph_nodes cascade');
  const added = await Promise.all([run(once), run(once.toReversed()), run(once)]);
  expect(added.reduce((sum, count) => sum + count, 0)).toBe(once.length);
  expect(await dump()).toEqual(expected);
});
