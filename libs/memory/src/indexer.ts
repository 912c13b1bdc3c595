import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import type { Embedder } from './embedder.js';
import type { SemanticStore } from './semantic-store.js';

/** Records of one embedding call and one commit. Most embedding services take 2,048 inputs; 500 mails are a few MB. */
export const INDEX_BATCH = 500;
/** Text of one record that is indexed; what lies behind it is found through its beginning. The record keeps all. */
const MAX_INDEXED_CHARS = 50_000;
/** Text of one record that is embedded: 1,000 tokens, which every embedding model takes; longer blurs what it is about. */
const MAX_EMBEDDED_CHARS = 4_000;
/** How often the subject stands before the text that is embedded; tried on a real mailing list. */
const SUBJECT_REPEATS = 4;

/** What indexing needs. */
export interface IndexTarget {
  readonly db: AppDatabase;
  readonly store: SemanticStore;
  readonly embedder: Embedder;
  readonly tenant: TenantId;
}

/** What one round of indexing did. */
export interface IndexRound {
  /** Records now in the index. */
  readonly indexed: number;
  /** Records still queued. */
  readonly pending: boolean;
  /** Another process is writing this tenant's index; nothing was done. Wait, then call again. */
  readonly busy: boolean;
}

/**
 * Brings up to `limit` queued records into the index: one embedding call, one commit. Only one process per tenant does it
 * at a time. When it dies between LanceDB's commit and Postgres', the next one merges the same records again.
 * @throws CodedError MEMORY_EMBEDDER_CHANGED, MEMORY_EMBEDDING_BROKEN, MEMORY_STORE_FAILED, and what the embedder throws;
 *   the records stay queued
 */
export async function indexPending(
  { db, store, embedder, tenant }: IndexTarget,
  options: { limit?: number; signal?: AbortSignal } = {},
): Promise<IndexRound> {
  return asOnlyWriter<IndexRound>(db, tenant, { indexed: 0, pending: true, busy: true }, async (tx) => {
    const rows = await tx.query<QueuedRow>(
      `select q.position, r.id, r.subject, left(r.text, $3) as text, r.author_name, r.author_address, r.sent_at
       from memory_index_queue q join memory_records r on r.id = q.record_id
       where q.tenant_id = $1 order by q.position limit $2`,
      [tenant, options.limit ?? INDEX_BATCH, MAX_INDEXED_CHARS],
    );
    if (rows.length === 0) return { indexed: 0, pending: false, busy: false };

    const vectors = await embedder.embed(rows.map(embeddedText), options.signal);
    if (vectors.length !== rows.length || vectors.some((vector) => vector.length !== embedder.dimensions)) {
      throw new CodedError(
        'MEMORY_EMBEDDING_BROKEN',
        `The embedder "${embedder.name}" promises ${rows.length} vectors of ${embedder.dimensions} numbers and answered otherwise. Check the endpoint and its model.`,
      );
    }
    options.signal?.throwIfAborted();
    // The lock goes with its connection. Embedding may have taken long: who lost the one meanwhile must not write.
    await tx.query('select');
    await store.write(
      tenant,
      embedder,
      rows.map((row, index) => ({
        id: row.id,
        subject: row.subject,
        text: row.text,
        author: `${row.author_name ?? ''} ${row.author_address}`.trim(),
        sentAt: row.sent_at,
        vector: vectors[index]!,
      })),
    );
    // By position: a record that was queued again meanwhile has a new one, and stays.
    await tx.execute(`delete from memory_index_queue where tenant_id = $1 and position = any($2::bigint[])`, [
      tenant,
      rows.map((row) => row.position),
    ]);
    if (await store.isOptimiseDue(tenant)) await store.optimise(tenant, embedder);
    const [rest] = await tx.query(`select from memory_index_queue where tenant_id = $1 limit 1`, [tenant]);
    return { indexed: rows.length, pending: rest !== undefined, busy: false };
  });
}

/**
 * Compacts the index and brings its indices up to date; to be called when a job ends.
 * @returns false when another process is writing; its own end will do it
 */
export async function optimiseIndex({ db, store, embedder, tenant }: IndexTarget): Promise<boolean> {
  return asOnlyWriter<boolean>(db, tenant, false, async () => {
    await store.optimise(tenant, embedder);
    return true;
  });
}

/**
 * Empties the index and queues every record for it; {@link indexPending} then fills it again. Searches find less until then.
 * @returns how many records were queued, or null when another process is writing
 */
export async function rebuildIndex({ db, store, embedder, tenant }: IndexTarget): Promise<number | null> {
  return asOnlyWriter(db, tenant, null, async (tx) => {
    await store.clear(tenant, embedder);
    return tx.execute(
      `insert into memory_index_queue (record_id, tenant_id) select id, tenant_id from memory_records where tenant_id = $1 order by id
       on conflict (record_id) do update set position = default`,
      [tenant],
    );
  });
}

interface QueuedRow {
  position: string;
  id: string;
  subject: string;
  text: string;
  author_name: string | null;
  author_address: string;
  sent_at: Date;
}

/** Runs `work` in one transaction under the tenant's index lock, or answers `otherwise` when another process holds it. */
export async function asOnlyWriter<Result>(
  db: AppDatabase,
  tenant: TenantId,
  otherwise: Result,
  work: (tx: Tx) => Promise<Result>,
): Promise<Result> {
  return db.transaction(tenant, async (tx) => {
    const [lock] = await tx.query<{ taken: boolean }>(
      `select pg_try_advisory_xact_lock(hashtextextended('memory index ' || $1, 0)) as taken`,
      [tenant],
    );
    return lock?.taken ? work(tx) : otherwise;
  });
}

/** The subject weighs more than the text, and of the text what the author wrote more than what is quoted. */
function embeddedText(row: QueuedRow): string {
  const own = row.text.replaceAll(/^[ \t]*>.*$/gm, '').trim();
  const body = own === '' ? row.text : own;
  return `${`${row.subject}\n`.repeat(SUBJECT_REPEATS)}${body}`.slice(0, MAX_EMBEDDED_CHARS).toWellFormed();
}
