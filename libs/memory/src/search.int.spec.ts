import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DEFAULT_TENANT_ID, tenantId, type TenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { localHashEmbedder } from './embedder.js';
import { graphNode, graphNodes, type GraphNode } from './graph-reading.js';
import { nodeId } from './ids.js';
import { indexPending, optimiseIndex } from './indexer.js';
import { ingestMessages } from './ingest.js';
import { memoryMigrations } from './migrations.js';
import type { SourceMessage } from './message.js';
import { MAX_QUERY_CHARS, SEARCH_MODES, searchMemory, type SearchMode } from './search.js';
import { SemanticStore } from './semantic-store.js';

const TENANT = DEFAULT_TENANT_ID;
const OTHER_TENANT = tenantId('00000000-0000-7000-8000-0000000000ff');
const LIST = { address: 'list@example.org', name: 'The list' };
const ADA = { address: 'ada@example.org', name: 'Ada Lovelace' };
const BOB = { address: 'bob@example.org', name: 'Bob' };

let db: TestDatabase;
let folder: string;
let store: SemanticStore;

function aMessage(messageId: string, subject: string, text: string, more: Partial<SourceMessage> = {}): SourceMessage {
  return {
    messageId,
    inReplyTo: null,
    references: [],
    from: ADA,
    to: [LIST],
    cc: [],
    listAddress: LIST.address,
    subject,
    sentAt: new Date(Date.UTC(2020, 0, 1, 0, messageId.charCodeAt(0))),
    text,
    truncated: false,
    attachments: [],
    contentHash: text,
    ...more,
  };
}

const MAIL = [
  aMessage('pg', 'Postgres on the Mac', 'How do I connect to a database server from R?'),
  aMessage('pg2', 'Re: Postgres on the Mac', 'Use the RPostgres package.', {
    from: BOB,
    cc: [ADA, BOB],
    inReplyTo: 'pg',
  }),
  aMessage('pg3', 'Re: Postgres on the Mac', 'It compiles at last, thank you.', { inReplyTo: 'pg2' }),
  aMessage('oracle', 'Oracle client', 'The Oracle instant client needs a library path. Postgres does not.'),
  aMessage('lunch', 'Lunch', 'Pizza at noon in the usual place?', { from: BOB }),
  aMessage('dates', 'Dates', 'Time zones are lost in the Postgres driver.', {
    from: BOB,
    to: [ADA],
    listAddress: null,
  }),
];

beforeAll(async () => {
  db = await aDatabase(memoryMigrations);
  folder = await mkdtemp(join(tmpdir(), 'memory-'));
  store = new SemanticStore({ uri: folder });
  await fill(TENANT, MAIL);
  await fill(OTHER_TENANT, [aMessage('secret', 'Postgres password', 'Postgres secret of the other tenant')]);
});
afterAll(async () => {
  await store.close();
  await rm(folder, { recursive: true });
  await db.drop();
});

async function fill(tenant: TenantId, messages: SourceMessage[]): Promise<void> {
  await db.app.transaction(tenant, (tx) => ingestMessages(tx, { tenant, jobId: 'job', source: 'inbox', messages }));
  await indexPending({ db: db.app, store, embedder: localHashEmbedder, tenant });
  await optimiseIndex({ db: db.app, store, embedder: localHashEmbedder, tenant });
}

function search(query: string, mode: SearchMode = 'HYBRID', limit = 10, tenant: TenantId = TENANT) {
  return searchMemory(db.app, store, localHashEmbedder, { tenant, query, mode, limit });
}

it.each(SEARCH_MODES)(
  '%s finds the thread, one hit of each thread first, with snippet, people and reasons',
  async (mode) => {
    const hits = await search('connecting to postgres from R', mode);
    const [first] = hits;
    expect(first).toMatchObject({
      score: expect.any(Number),
      snippet: 'How do I connect to a database server from R?',
      record: {
        subject: 'Postgres on the Mac',
        threadSubject: 'Postgres on the Mac',
        source: 'inbox',
        messageId: 'pg',
      },
      people: [{ id: nodeId(TENANT, 'person', ADA.address), name: ADA.name, address: ADA.address, role: 'from' }],
    });
    expect(first!.record.sentAt).toEqual(MAIL[0]!.sentAt);
    expect(first!.matched.map((one) => one.retriever)).toEqual(
      { KEYWORD: ['text'], VECTOR: ['vector'], HYBRID: ['text', 'vector', 'thread'] }[mode],
    );
    const threads = hits.map((hit) => hit.record.threadId);
    const distinct = new Set(threads).size;
    expect(new Set(threads.slice(0, distinct)).size).toBe(distinct);
    expect(hits.map((hit) => hit.score)[0]).toBeLessThanOrEqual(1);
  },
);

it('names all people of a hit with their role, and no list', async () => {
  const [hit] = await search('RPostgres package', 'KEYWORD', 1);
  expect(hit!.people.map(({ address, role }) => [address, role])).toEqual([
    [BOB.address, 'from'],
    [ADA.address, 'cc'],
  ]);
});

it('finds by a person’s name, and puts what the named person wrote first', async () => {
  expect((await search('lovelace', 'KEYWORD', 3)).map((hit) => hit.people[0]!.name)).toEqual(Array(3).fill(ADA.name));
  const [named] = await search('postgres bob', 'HYBRID', 5);
  expect(named!.people[0]!.name).toBe(BOB.name);
  expect(named!.matched.map((one) => one.retriever)).toContain('person');
});

it('brings along replies that lack the words, behind the rest', async () => {
  const hits = await search('oracle mac', 'HYBRID', 10);
  expect(hits.at(-1)!.matched.length).toBeGreaterThan(0);
  expect(hits.map((hit) => hit.record.messageId)).toContain('pg3');
});

it.each(SEARCH_MODES)('%s never sees another tenant', async (mode) => {
  const ids = (await search('postgres secret password of the other tenant', mode, 100)).map(
    (hit) => hit.record.messageId,
  );
  expect(ids).not.toContain('secret');
  const other = await search('postgres', mode, 100, OTHER_TENANT);
  expect(other.map((hit) => hit.record.messageId)).toEqual(['secret']);
  expect(await search('postgres', mode, 100, tenantId('00000000-0000-7000-8000-00000000dead'))).toEqual([]);
});

it('drops what LanceDB has and Postgres has not', async () => {
  await fill(TENANT, [aMessage('gone', 'Zeppelin', 'The zeppelin has left.')]);
  expect((await search('zeppelin', 'KEYWORD')).map((hit) => hit.record.messageId)).toEqual(['gone']);
  await db.asOwner(`delete from memory_records where message_id = 'gone'`);
  expect(await search('zeppelin', 'KEYWORD')).toEqual([]);
  // Nor does it take the place of one that is there.
  expect((await search('the zeppelin has left, pizza', 'KEYWORD', 1)).map((hit) => hit.record.messageId)).toEqual([
    'lunch',
  ]);
});

it.each([
  ['"postgres" AND (oracle OR *)^2 ~ subject:mac -x +y'],
  [`'; drop table memory_records; --`],
  [`postgres' OR tenant_id <> '' --`],
  ['postgres \\ % _ { } [ ] < > $1 ${x} `'],
  ['"unclosed'],
  ['postgres\u0000nul \ud800 surrogate'],
  ['the of and'],
  ['東京 Größe 🎉'],
  ['1'],
  ['x'.repeat(MAX_QUERY_CHARS)],
  ['word '.repeat(MAX_QUERY_CHARS / 5)],
])('takes %j as plain words', async (query) => {
  for (const mode of SEARCH_MODES) expect(Array.isArray(await search(query, mode, 3))).toBe(true);
});

it.each([
  ['', 5, 'HYBRID', 'query'],
  [' \n\t', 5, 'HYBRID', 'query'],
  ['?!… "" () --', 5, 'KEYWORD', 'query'],
  ['🎉', 5, 'VECTOR', 'query'],
  ['x'.repeat(MAX_QUERY_CHARS + 1), 5, 'HYBRID', 'query'],
  ['x', 0, 'HYBRID', 'limit'],
  ['x', 101, 'HYBRID', 'limit'],
  ['x', 1.5, 'HYBRID', 'limit'],
  ['x', Number.NaN, 'HYBRID', 'limit'],
  ['x', 5, 'FUZZY', 'mode'],
  [undefined, 5, 'HYBRID', 'query'],
])('refuses query %j, limit %d, mode %s', async (query, limit, mode, field) => {
  await expect(search(query as string, mode as SearchMode, limit)).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    details: { field },
  });
});

describe('the graph, read for the API', () => {
  const read = <Result>(work: Parameters<typeof db.app.transaction<Result>>[1], tenant = TENANT) =>
    db.app.transaction(tenant, work);

  it('pages through nodes by name without gap or repetition', async () => {
    const seen: GraphNode[] = [];
    let after: string | undefined;
    do {
      const page = await read((tx) => graphNodes(tx, { first: 3, ...(after === undefined ? {} : { after }) }));
      expect(page.items.length).toBeLessThanOrEqual(3);
      seen.push(...page.items);
      after = page.hasNextPage ? page.endCursor! : undefined;
    } while (after !== undefined);
    const [{ count }] = (await db.asOwner<{ count: number }>(
      `select count(*)::int from graph_nodes where tenant_id = $1`,
      [TENANT],
    )) as [{ count: number }];
    expect(new Set(seen.map((node) => node.id)).size).toBe(count);
    expect(seen.length).toBe(count);
  });

  it('filters by type and by a text, which is never a pattern', async () => {
    const people = await read((tx) => graphNodes(tx, { type: 'person', first: 10 }));
    expect(people.items.map((node) => node.name)).toEqual([ADA.name, BOB.name]);
    expect(people).toMatchObject({ hasNextPage: false });
    const found = await read((tx) => graphNodes(tx, { query: 'LOVELACE', first: 10 }));
    expect(found.items.map((node) => node.key)).toEqual([ADA.address]);
    expect((await read((tx) => graphNodes(tx, { query: '%\u0000', first: 10 }))).items).toEqual([]);
    expect(
      (await read((tx) => graphNodes(tx, { first: 10 }), tenantId('00000000-0000-7000-8000-00000000dead'))).items,
    ).toEqual([]);
  });

  it('shows a node with its edges, newest first, page by page', async () => {
    const id = nodeId(TENANT, 'message', 'pg2');
    const all = await read((tx) => graphNode(tx, id, { first: 100 }));
    expect(all!.node).toMatchObject({ type: 'message', key: 'pg2', name: 'Re: Postgres on the Mac' });
    expect(all!.edges.items.map((edge) => `${edge.direction} ${edge.type} ${edge.node.key}`).toSorted()).toEqual([
      'in replied_to pg3',
      'in sent bob@example.org',
      'out addressed ada@example.org',
      'out addressed bob@example.org',
      'out addressed list@example.org',
      'out in_thread pg',
      'out replied_to pg',
    ]);
    const paged: string[] = [];
    let after: string | undefined;
    do {
      const page = await read((tx) => graphNode(tx, id, { first: 2, ...(after === undefined ? {} : { after }) }));
      paged.push(...page!.edges.items.map((edge) => edge.id));
      after = page!.edges.hasNextPage ? page!.edges.endCursor! : undefined;
    } while (after !== undefined);
    expect(paged).toEqual(all!.edges.items.map((edge) => edge.id));
    expect(await read((tx) => graphNode(tx, id), OTHER_TENANT)).toBeNull();
  });

  it.each([
    [{ first: 0 }],
    [{ first: 101 }],
    [{ first: 1, after: 'nonsense' }],
    [{ first: 1, after: Buffer.from('["a","b"]').toString('base64url') }],
    [{ first: 1, type: 'table' }],
    [{ first: 1, query: 'x'.repeat(201) }],
  ])('refuses %j', async (input) => {
    const asked = read((tx) => graphNodes(tx, input as Parameters<typeof graphNodes>[1]));
    await expect(asked).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
  });

  it('refuses an id or cursor that is none', async () => {
    const id = nodeId(TENANT, 'message', 'pg');
    await expect(read((tx) => graphNode(tx, `${id}' or true`))).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
    for (const at of ['yesterday?', '5', '2020-99-01T00:00:00.000000Z']) {
      const after = Buffer.from(JSON.stringify([at, id])).toString('base64url');
      const asked = read((tx) => graphNode(tx, id, { first: 1, after }));
      await expect(asked).rejects.toMatchObject({ code: 'VALIDATION_ERROR' });
    }
  });
});
