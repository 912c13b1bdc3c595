import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from '@lancedb/lancedb';
import { DEFAULT_TENANT_ID, tenantId, type TenantId } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { localHashEmbedder, type Embedder } from './embedder.js';
import { indexPending, optimiseIndex, rebuildIndex } from './indexer.js';
import { ingestMessages } from './ingest.js';
import { memoryMigrations } from './migrations.js';
import type { SourceMessage } from './message.js';
import { SemanticStore } from './semantic-store.js';

const TENANT = DEFAULT_TENANT_ID;
const OTHER_TENANT = tenantId('00000000-0000-7000-8000-0000000000ff');

let db: TestDatabase;
let folder: string;
let store: SemanticStore;
beforeAll(async () => {
  db = await aDatabase(memoryMigrations);
});
afterAll(() => db.drop());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'memory-'));
  store = new SemanticStore({ uri: folder });
});
afterEach(async () => {
  await store.close();
  await rm(folder, { recursive: true });
  await db.asOwner('truncate memory_records, graph_nodes cascade');
});

function aMessage(messageId: string, text = `The text of ${messageId}.`): SourceMessage {
  return {
    messageId,
    inReplyTo: null,
    references: [],
    from: { address: 'ada@example.org', name: 'Ada' },
    to: [],
    cc: [],
    listAddress: null,
    subject: `About ${messageId}`,
    sentAt: new Date('2020-01-01T10:00:00Z'),
    text,
    truncated: false,
    attachments: [],
    contentHash: text,
  };
}

function ingest(messages: SourceMessage[], tenant: TenantId = TENANT) {
  return db.app.transaction(tenant, (tx) => ingestMessages(tx, { tenant, jobId: 'job', source: 'inbox', messages }));
}

function target(more: { embedder?: Embedder; tenant?: TenantId; store?: SemanticStore } = {}) {
  return { db: db.app, store, embedder: localHashEmbedder, tenant: TENANT, ...more };
}

/** The local embedder, with a step before it answers. */
function embedderThat(before: () => Promise<void> | void): Embedder {
  return {
    ...localHashEmbedder,
    embed: async (texts) => {
      await before();
      return localHashEmbedder.embed(texts);
    },
  };
}

it('indexes what is queued in batches, with one embedding call each, and says when more waits', async () => {
  await ingest(['a', 'b', 'c'].map((id) => aMessage(id)));
  let calls = 0;
  const embedder = embedderThat(() => {
    calls += 1;
  });
  expect(await indexPending(target({ embedder }), { limit: 2 })).toEqual({ indexed: 2, pending: true, busy: false });
  expect(await indexPending(target({ embedder }), { limit: 2 })).toEqual({ indexed: 1, pending: false, busy: false });
  expect(await indexPending(target({ embedder }))).toEqual({ indexed: 0, pending: false, busy: false });
  expect([calls, await store.count(TENANT)]).toEqual([2, 3]);
});

it('repeats, without duplicates, what a process had committed to LanceDB when it died', async () => {
  await ingest(['a', 'b'].map((id) => aMessage(id)));
  const dying = new SemanticStore({ uri: folder });
  const write = dying.write.bind(dying);
  dying.write = async (...parameters) => {
    await write(...parameters);
    throw new Error('killed');
  };
  await expect(indexPending(target({ store: dying }))).rejects.toThrow('killed');
  expect(await store.count(TENANT)).toBe(2);
  expect(await indexPending(target())).toEqual({ indexed: 2, pending: false, busy: false });
  expect(await store.count(TENANT)).toBe(2);
  await dying.close();
});

it('lets one process write a tenant and tells the other so', async () => {
  await ingest([aMessage('a')]);
  await ingest([aMessage('a')], OTHER_TENANT);
  let meanwhile: unknown[] = [];
  const embedder = embedderThat(async () => {
    meanwhile = [
      await indexPending(target()),
      await rebuildIndex(target()),
      await optimiseIndex(target()),
      await indexPending(target({ tenant: OTHER_TENANT })),
    ];
  });
  expect(await indexPending(target({ embedder }))).toMatchObject({ indexed: 1, busy: false });
  expect(meanwhile).toEqual([
    { indexed: 0, pending: true, busy: true },
    null,
    false,
    { indexed: 1, pending: false, busy: false },
  ]);
});

it('does not write when the connection that held the lock was lost meanwhile', async () => {
  await ingest([aMessage('a')]);
  const embedder = embedderThat(async () => {
    await db.asOwner(
      `select pg_terminate_backend(pid, 5000) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()
         and database = (select oid from pg_database where datname = current_database())`,
    );
  });
  await expect(indexPending(target({ embedder }))).rejects.toThrow(/terminat|connection|released/i);
  expect(await store.count(TENANT)).toBe(0);
  expect(await indexPending(target())).toMatchObject({ indexed: 1 });
});

it('keeps a record queued that changes while its old text is embedded', async () => {
  await ingest([aMessage('a', 'old words')]);
  const embedder = embedderThat(async () => {
    await ingest([aMessage('a', 'new words')]);
  });
  expect(await indexPending(target({ embedder }))).toEqual({ indexed: 1, pending: true, busy: false });
  expect(await indexPending(target())).toMatchObject({ indexed: 1, pending: false });
  expect(await store.searchText(TENANT, 'old', 5)).toEqual([]);
  expect(await store.searchText(TENANT, 'new', 5)).toHaveLength(1);
});

it('leaves everything queued when the embedder breaks its promise or fails', async () => {
  await ingest([aMessage('a')]);
  const short: Embedder = { ...localHashEmbedder, embed: async () => [new Float32Array(3)] };
  await expect(indexPending(target({ embedder: short }))).rejects.toMatchObject({ code: 'MEMORY_EMBEDDING_BROKEN' });
  const silent: Embedder = { ...localHashEmbedder, embed: async () => [] };
  await expect(indexPending(target({ embedder: silent }))).rejects.toMatchObject({ code: 'MEMORY_EMBEDDING_BROKEN' });
  const stopped = AbortSignal.abort(new Error('stop'));
  await expect(indexPending(target(), { signal: stopped })).rejects.toThrow('stop');
  expect(await store.count(TENANT)).toBe(0);
  expect(await indexPending(target())).toMatchObject({ indexed: 1 });
});

it('refuses another embedder until the index is rebuilt', async () => {
  await ingest([aMessage('a'), aMessage('b')]);
  await indexPending(target());
  const other: Embedder = {
    name: 'other-2',
    dimensions: 2,
    embed: async (texts) => texts.map(() => Float32Array.of(1, 0)),
  };
  await ingest([aMessage('c')]);
  await expect(indexPending(target({ embedder: other }))).rejects.toMatchObject({ code: 'MEMORY_EMBEDDER_CHANGED' });
  const reader = new SemanticStore({ uri: folder });
  expect(await reader.count(TENANT)).toBe(2);
  expect(await rebuildIndex(target({ embedder: other }))).toBe(3);
  expect(await reader.count(TENANT)).toBe(0);
  expect(await indexPending(target({ embedder: other }))).toEqual({ indexed: 3, pending: false, busy: false });
  // A reader that was open before follows, and refuses the former embedder.
  expect(await reader.searchVector(TENANT, other, Float32Array.of(1, 0), 5)).toHaveLength(3);
  await expect(reader.searchVector(TENANT, localHashEmbedder, new Float32Array(384), 5)).rejects.toMatchObject({
    code: 'MEMORY_EMBEDDER_CHANGED',
  });
  await reader.close();
});

it('shows another process what was written since, also before the first row', async () => {
  const reader = new SemanticStore({ uri: folder });
  expect(await reader.count(TENANT)).toBe(0);
  expect(await reader.searchText(TENANT, 'text', 5)).toEqual([]);
  await ingest([aMessage('a')]);
  await indexPending(target());
  expect(await reader.searchText(TENANT, 'text', 5)).toHaveLength(1);
  await ingest([aMessage('b')]);
  await indexPending(target());
  await optimiseIndex(target());
  expect(await reader.searchText(TENANT, 'text', 5)).toHaveLength(2);
  await reader.close();
});

it('writes a key once that comes twice in a batch, and goes on after many commits and an optimise', async () => {
  const [vector] = await localHashEmbedder.embed(['x']);
  const row = { id: 'one', subject: 's', author: 'a', sentAt: new Date(), vector: vector! };
  await store.write(TENANT, localHashEmbedder, [
    { ...row, text: 'former' },
    { ...row, text: 'latter' },
  ]);
  expect(await store.searchText(TENANT, 'former latter', 5)).toHaveLength(1);
  for (let commit = 0; commit < 25; commit += 1) {
    await store.write(TENANT, localHashEmbedder, [{ ...row, text: `version${commit}` }]);
    if (await store.isOptimiseDue(TENANT)) await store.optimise(TENANT, localHashEmbedder);
  }
  expect(await store.count(TENANT)).toBe(1);
  expect(await store.searchText(TENANT, 'version24', 5)).toHaveLength(1);
  expect(await store.searchText(TENANT, 'version23', 5)).toEqual([]);
});

it('builds a vector index for a large table, whose answers are nearly the exact ones, also for rows that came later', async () => {
  const indexed = new SemanticStore({ uri: folder, exactUpToRows: 1_000 });
  const texts = Array.from(
    { length: 2_400 },
    (_, index) => `subject ${index % 7} word${index % 211} other${index % 97} item${index}`,
  );
  const vectors = await localHashEmbedder.embed(texts);
  const rows = texts.map((text, index) => ({
    id: `${index}`,
    subject: '',
    text,
    author: '',
    sentAt: new Date(),
    vector: vectors[index]!,
  }));
  await indexed.write(TENANT, localHashEmbedder, rows.slice(0, 2_000));
  await indexed.optimise(TENANT, localHashEmbedder);
  await indexed.write(TENANT, localHashEmbedder, rows.slice(2_000));
  const nearness = (left: Float32Array, right: Float32Array) =>
    left.reduce((sum, value, at) => sum + value * right[at]!, 0);
  let right = 0;
  for (let query = 0; query < 2_400; query += 100) {
    const found = await indexed.searchVector(TENANT, localHashEmbedder, vectors[query]!, 10);
    expect(found[0]!.id).toBe(`${query}`);
    // By likeness, not by id: several rows may be equally near.
    const tenth = vectors.map((vector) => nearness(vector, vectors[query]!)).toSorted((a, b) => b - a)[9]!;
    right += found.filter((one) => one.score >= tenth - 1e-4).length;
  }
  expect(right / 240).toBeGreaterThanOrEqual(0.95);
  const table = await connect(join(folder, TENANT)).then((connection) => connection.openTable('records'));
  expect((await table.listIndices()).map((index) => index.name)).toContain('vector_2');
  await indexed.close();
});

it('names the store as the fault when the folder cannot be used', async () => {
  const broken = new SemanticStore({ uri: '/dev/null/nowhere' });
  await expect(
    broken.write(TENANT, localHashEmbedder, [
      { id: 'a', subject: '', text: '', author: '', sentAt: new Date(), vector: new Float32Array(384) },
    ]),
  ).rejects.toMatchObject({ code: 'MEMORY_STORE_FAILED' });
});
