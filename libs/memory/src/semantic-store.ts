import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  connect,
  Index,
  MatchQuery,
  BooleanQuery,
  Occur,
  Session,
  type Connection,
  type Table,
} from '@lancedb/lancedb';
import { Field, FixedSizeList, Float32, Schema, TimestampMillisecond, Utf8 } from 'apache-arrow';
import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { Embedder } from './embedder.js';

/** The one table of a tenant's folder. */
const TABLE = 'records';
/** Where the table's schema keeps the name of the embedder that made its vectors. */
const EMBEDDER_KEY = 'atomo.embedder';
/**
 * Below this many rows a scan of all vectors is exact and takes milliseconds; an index would cost recall and a build.
 * Above, IVF_FLAT: it builds in seconds where IVF_PQ and HNSW take minutes on two cores.
 */
export const VECTOR_INDEX_ROWS = 20_000;
/** Rows per IVF partition: about the square root of a million, the largest table meant for one machine. */
const ROWS_PER_PARTITION = 1_000;
/**
 * The share of partitions that a query reads. Hashed features cluster badly: of 100,000 mails 0.4 found 91 % of the ten
 * nearest, 0.75 all of them, both in 10 ms.
 */
const PROBED_SHARE = 0.75;
/** The index is trained anew when the table has grown by this factor since. */
const RETRAIN_GROWTH = 4;
/** Commits before a compaction is worth its while; the vendor's rule for write-heavy tables. */
export const COMMITS_PER_OPTIMISE = 20;
/**
 * A compaction writes the whole table anew, so it also waits until the table has grown by this share: otherwise a long
 * import would write each row once for every 20 commits that follow it. Until then new rows are searched without index.
 */
const GROWTH_PER_OPTIMISE = 0.25;
/** But never more commits than this without one: each query opens a file per commit. */
const MOST_COMMITS_PER_OPTIMISE = 100;
/** Old versions are kept as long as a reader may still be in one: a query that began before takes seconds. */
const KEEP_VERSIONS_MS = 60_000;
/** LanceDB's caches for all tenants of a process; by default it takes 6 GiB and 1 GiB, more than a worker's machine has. */
const INDEX_CACHE_BYTES = 256 * 1024 * 1024;
const METADATA_CACHE_BYTES = 64 * 1024 * 1024;
/** Tables held open; the least recently used is closed. */
const MAX_OPEN_TABLES = 64;
/** A match in the subject counts so many times one in the text, tried on a real mailing list. */
const SUBJECT_BOOST = 3;
const AUTHOR_BOOST = 1.5;

/** One record as the index holds it. */
export interface IndexedRow {
  readonly id: string;
  readonly subject: string;
  readonly text: string;
  readonly author: string;
  readonly sentAt: Date;
  readonly vector: Float32Array;
}

/** A record found, best first. `score` grows with likeness: cosine for vectors, BM25 for full text. */
export interface Found {
  readonly id: string;
  readonly score: number;
}

/** Where LanceDB is and how it is read. */
export interface SemanticStoreOptions {
  /** A folder, or s3://bucket/prefix. */
  readonly uri: string;
  /** LanceDB's storage options, such as awsEndpoint, awsRegion, awsAccessKeyId, awsSecretAccessKey. */
  readonly storageOptions?: Readonly<Record<string, string>>;
  /** Up to how many rows vectors are compared one by one; {@link VECTOR_INDEX_ROWS} unless a test needs the index early. */
  readonly exactUpToRows?: number;
  /** After how many seconds a reader looks for commits of other processes. 0, the default, looks at every read. */
  readonly readConsistencySeconds?: number;
}

interface OpenTable {
  readonly connection: Connection;
  readonly table: Table;
}

/**
 * Vectors and full text of all tenants, one folder each, so that no query can meet another tenant's rows. A projection of
 * Postgres: it may be lost and is then rebuilt. Any number of processes may read; only who holds the tenant's index lock
 * may write (indexer.ts), because concurrent merges of one key leave it twice.
 */
export class SemanticStore {
  private readonly open = new Map<TenantId, Promise<OpenTable | null>>();
  private readonly unoptimised = new Map<TenantId, { commits: number; rows: number }>();
  private readonly session = new Session(BigInt(INDEX_CACHE_BYTES), BigInt(METADATA_CACHE_BYTES));

  constructor(private readonly options: SemanticStoreOptions) {}

  /**
   * Writes rows in one commit; a row with a known id replaces it.
   * @throws CodedError MEMORY_EMBEDDER_CHANGED, MEMORY_STORE_FAILED
   */
  async write(tenant: TenantId, embedder: Embedder, rows: readonly IndexedRow[]): Promise<void> {
    // mergeInsert inserts a key that is twice in its input twice.
    const unique = [...new Map(rows.map((row) => [row.id, row])).values()];
    if (unique.length === 0) return;
    await this.guard(async () => {
      const table = (await this.table(tenant, embedder)) ?? (await this.create(tenant, embedder, 'create'));
      await table
        .mergeInsert('id')
        .whenMatchedUpdateAll()
        .whenNotMatchedInsertAll()
        .execute(unique.map(({ sentAt, ...row }) => ({ ...row, sent_at: sentAt })));
      const { commits, rows: before } = this.unoptimised.get(tenant) ?? { commits: 0, rows: 0 };
      this.unoptimised.set(tenant, { commits: commits + 1, rows: before + unique.length });
    });
  }

  /** True when enough has been written since the last {@link optimise} of this process to be worth one. */
  async isOptimiseDue(tenant: TenantId): Promise<boolean> {
    const { commits, rows } = this.unoptimised.get(tenant) ?? { commits: 0, rows: 0 };
    if (commits < COMMITS_PER_OPTIMISE) return false;
    return commits >= MOST_COMMITS_PER_OPTIMISE || rows >= GROWTH_PER_OPTIMISE * (await this.count(tenant));
  }

  /** Compacts the files, takes new rows into the indices, drops old versions, and builds the vector index when it is time. */
  async optimise(tenant: TenantId, embedder: Embedder): Promise<void> {
    await this.guard(async () => {
      const table = await this.table(tenant, embedder);
      if (!table) return;
      await table.optimize({ cleanupOlderThan: new Date(Date.now() - KEEP_VERSIONS_MS) });
      this.unoptimised.delete(tenant);
      const rows = await table.countRows();
      if (rows <= this.exactUpTo) return;
      // The index's name tells how many partitions it was trained with; LanceDB does not.
      const former = (await table.listIndices()).find((one) => one.columns.includes('vector'));
      const partitions = Math.ceil(rows / ROWS_PER_PARTITION);
      if (former && partitions < Number(former.name.split('_').at(-1)) * RETRAIN_GROWTH) return;
      await this.indexVectors(table, partitions);
      if (former) await table.dropIndex(former.name);
    });
  }

  /** Takes rows out of what readers see. Their bytes stay in the files until {@link rewrite}. */
  async removeRows(tenant: TenantId, ids: readonly string[]): Promise<void> {
    await this.guard(async () => {
      const table = await this.table(tenant, null);
      await table?.delete(`id in (${ids.map((id) => `'${id}'`).join(', ')})`);
    });
  }

  /**
   * Writes every row into new files and all indices from them. A deleted row stays in its file, and its words in the index, as long as a
   * compaction finds the file too good to be written anew; LanceDB offers no way to ask for one. An update of all rows does not
   * ask. Readers see the same before and after; the former files stay until {@link dropFormerVersions}.
   */
  async rewrite(tenant: TenantId): Promise<void> {
    await this.guard(async () => {
      const table = await this.table(tenant, null);
      if (!table) return;
      await table.update({ valuesSql: { id: 'id' } });
      await indexWords(table);
      const rows = await table.countRows();
      const former = (await table.listIndices()).find((one) => one.columns.includes('vector'));
      if (!former) return;
      const partitions = Math.ceil(rows / ROWS_PER_PARTITION);
      if (rows > this.exactUpTo) await this.indexVectors(table, partitions);
      if (rows <= this.exactUpTo || former.name !== vectorIndex(partitions)) await table.dropIndex(former.name);
    });
  }

  /** Removes all files but those of the newest version. Who reads an older one at this moment fails. */
  async dropFormerVersions(tenant: TenantId): Promise<void> {
    await this.guard(async () => {
      await (await this.table(tenant, null))?.optimize({ cleanupOlderThan: new Date(), deleteUnverified: true });
    });
  }

  private get exactUpTo(): number {
    return this.options.exactUpToRows ?? VECTOR_INDEX_ROWS;
  }

  private async indexVectors(table: Table, partitions: number): Promise<void> {
    const config = Index.ivfFlat({ distanceType: 'cosine', numPartitions: partitions });
    await table.createIndex('vector', { config, name: vectorIndex(partitions) });
  }

  /** Empties the tenant's table and makes it ready for this embedder. Readers see it empty at once. */
  async clear(tenant: TenantId, embedder: Embedder): Promise<void> {
    await this.guard(async () => {
      // Overwriting makes a new version of the same table, which open readers follow; dropping would leave them a ruin.
      await this.create(tenant, embedder, 'overwrite');
    });
  }

  /** Rows in the tenant's table; 0 when there is none. */
  async count(tenant: TenantId): Promise<number> {
    return this.guard(async () => (await this.table(tenant, null))?.countRows() ?? 0);
  }

  /**
   * The records whose vectors are nearest.
   * @throws CodedError MEMORY_EMBEDDER_CHANGED, MEMORY_STORE_FAILED
   */
  async searchVector(tenant: TenantId, embedder: Embedder, vector: Float32Array, limit: number): Promise<Found[]> {
    return this.guard(async () => {
      const table = await this.table(tenant, embedder);
      if (!table) return [];
      const partitions = Math.ceil((await table.countRows()) / ROWS_PER_PARTITION);
      const rows: { id: string; _distance: number }[] = await table
        .query()
        .nearestTo(vector)
        .distanceType('cosine')
        .nprobes(Math.max(1, Math.ceil(partitions * PROBED_SHARE)))
        .select(['id', '_distance'])
        .limit(limit)
        .toArray();
      return rows.map((row) => ({ id: row.id, score: 1 - row._distance }));
    });
  }

  /**
   * The records that hold most and the rarest of the words, by BM25 over subject, author and text.
   * @param words plain words; they are matched, never parsed as a query
   * @throws CodedError MEMORY_STORE_FAILED
   */
  async searchText(tenant: TenantId, words: string, limit: number): Promise<Found[]> {
    return this.guard(async () => {
      const table = await this.table(tenant, null);
      if (!table) return [];
      const query = new BooleanQuery([
        [Occur.Should, new MatchQuery(words, 'subject', { boost: SUBJECT_BOOST })],
        [Occur.Should, new MatchQuery(words, 'author', { boost: AUTHOR_BOOST })],
        [Occur.Should, new MatchQuery(words, 'text')],
      ]);
      const rows: { id: string; _score: number }[] = await table
        .query()
        .fullTextSearch(query)
        .select(['id', '_score'])
        .limit(limit)
        .toArray();
      return rows.map((row) => ({ id: row.id, score: row._score }));
    });
  }

  /**
   * Removes all that is kept of a tenant, with its folder where that is on a local disk. Only for a tenant that nothing writes for
   * any more. Again for one of which nothing is left changes nothing.
   * @throws CodedError MEMORY_STORE_FAILED
   */
  async remove(tenant: TenantId): Promise<void> {
    await this.guard(async () => {
      const former = this.open.get(tenant);
      this.open.delete(tenant);
      this.unoptimised.delete(tenant);
      if (former) closeTable(await former.catch(() => null));
      const connection = await this.connect(tenant);
      try {
        await connection.dropAllTables();
      } finally {
        connection.close();
      }
      const { uri } = this.options;
      // Of a local folder LanceDB leaves the empty one; on object storage there are no folders.
      const folder = uri.startsWith('file://') ? fileURLToPath(uri) : uri;
      if (!/^[a-z0-9+-]+:\/\//i.test(folder)) await rm(path.join(folder, tenant), { recursive: true, force: true });
    });
  }

  /** Closes all tables. */
  async close(): Promise<void> {
    const opened = [...this.open.values()];
    this.open.clear();
    for (const one of await Promise.all(opened.map((opening) => opening.catch(() => null)))) closeTable(one);
  }

  /** The tenant's table, or null when there is none; checks the embedder unless null is given. */
  private async table(tenant: TenantId, embedder: Embedder | null): Promise<Table | null> {
    const opening = this.open.get(tenant) ?? this.openTable(tenant);
    this.open.delete(tenant);
    this.open.set(tenant, opening); // the last one in is the last to go
    this.closeEldest();
    let opened: OpenTable | null;
    try {
      opened = await opening;
    } catch (error) {
      this.open.delete(tenant);
      throw error;
    }
    if (!opened) {
      this.open.delete(tenant); // another process may create it any time
      return null;
    }
    if (embedder) {
      // Read every time: another process may have rebuilt the table since. It costs a quarter of a millisecond.
      const name = (await opened.table.schema()).metadata.get(EMBEDDER_KEY);
      if (name !== embedder.name) {
        throw new CodedError(
          'MEMORY_EMBEDDER_CHANGED',
          `The index of this tenant was written with the embedder "${name}", not "${embedder.name}". Rebuild the index, or configure "${name}" again.`,
        );
      }
    }
    return opened.table;
  }

  private async openTable(tenant: TenantId): Promise<OpenTable | null> {
    const connection = await this.connect(tenant);
    try {
      return { connection, table: await connection.openTable(TABLE) };
    } catch (error) {
      connection.close();
      if (/was not found|not found:/i.test(String(error))) return null;
      throw error;
    }
  }

  private async create(tenant: TenantId, embedder: Embedder, mode: 'create' | 'overwrite'): Promise<Table> {
    const connection = await this.connect(tenant);
    const schema = new Schema(
      [
        new Field('id', new Utf8(), false),
        new Field('subject', new Utf8(), false),
        new Field('text', new Utf8(), false),
        new Field('author', new Utf8(), false),
        new Field('sent_at', new TimestampMillisecond(), false),
        new Field('vector', new FixedSizeList(embedder.dimensions, new Field('item', new Float32(), true)), false),
      ],
      new Map([[EMBEDDER_KEY, embedder.name]]),
    );
    const table = await connection.createEmptyTable(TABLE, schema, { mode });
    await indexWords(table);
    const former = this.open.get(tenant);
    this.open.set(tenant, Promise.resolve({ connection, table }));
    this.closeEldest();
    if (former) closeTable(await former.catch(() => null));
    this.unoptimised.delete(tenant);
    return table;
  }

  private connect(tenant: TenantId): Promise<Connection> {
    return connect(`${this.options.uri.replace(/\/+$/, '')}/${tenant}`, {
      readConsistencyInterval: this.options.readConsistencySeconds ?? 0,
      session: this.session,
      ...(this.options.storageOptions ? { storageOptions: { ...this.options.storageOptions } } : {}),
    });
  }

  private closeEldest(): void {
    if (this.open.size <= MAX_OPEN_TABLES) return;
    const [tenant, opening] = this.open.entries().next().value!;
    this.open.delete(tenant);
    void opening.then(closeTable, () => undefined);
  }

  /** Translates the vendor's failures once. */
  private async guard<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      if (isCodedError(error)) throw error;
      throw new CodedError(
        'MEMORY_STORE_FAILED',
        'The memory index could not be read or written; see the log.',
        undefined,
        {
          cause: error,
        },
      );
    }
  }
}

/** The name of an index that was trained with so many partitions. */
function vectorIndex(partitions: number): string {
  return `vector_${partitions}`;
}

/** Makes the full-text indices, in the place of those that are there. */
async function indexWords(table: Table): Promise<void> {
  for (const column of ['subject', 'author', 'text']) {
    await table.createIndex(column, {
      config: Index.fts({
        language: 'English',
        lowercase: true,
        stem: true,
        // Of names, "Will" and "May" must be found.
        removeStopWords: column !== 'author',
        asciiFolding: true,
        withPosition: false, // phrases are not offered
      }),
    });
  }
}

function closeTable(opened: OpenTable | null): void {
  opened?.connection.close();
}
