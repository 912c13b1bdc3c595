import { apiError, type TenantId } from '@atomo-cc/kernel';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import type { Embedder } from './embedder.js';
import { nodeId } from './ids.js';
import type { RecipientRole } from './message.js';
import { fuse, spread, type Fused, type RankedList, type Retriever } from './ranking.js';
import type { SemanticStore } from './semantic-store.js';
import { snippetOf } from './snippet.js';
import { isStopWord, wordsOf } from './words.js';

/** How to search: by likeness of vectors, by words, or by both and the graph. */
export const SEARCH_MODES = ['HYBRID', 'VECTOR', 'KEYWORD'] as const;
/** A way to search. */
export type SearchMode = (typeof SEARCH_MODES)[number];

/** Longest query in characters: a long paragraph. Whoever has more to say has no question. */
export const MAX_QUERY_CHARS = 1_000;
/** Most hits of one search; what comes later is rarely right, and each hit is read whole for its snippet. */
export const MAX_HITS = 100;
/** Words of a query that are looked up; each costs a list of postings. */
const MAX_QUERY_WORDS = 64;
/** How deep each retriever looks, per hit asked for: spreading over threads needs more than it shows. */
const CANDIDATES_PER_HIT = 5;
const MIN_CANDIDATES = 60;
/** The best records whose threads the graph retriever follows, and what it takes of each thread. */
const SEEDS = 10;
const MAX_NEIGHBOURS_PER_THREAD = 20;
/** People whom a query may name; more share a mere first name, and say nothing. */
const MAX_NAMED_PEOPLE = 20;
/** Hits of one thread among the first; tried on a real mailing list, see the README. */
const HITS_PER_THREAD = 1;
/** What each retriever counts in the fusion; tried on a real mailing list, see the README. */
const WEIGHTS: Readonly<Record<Retriever, number>> = { text: 1, vector: 0.5, thread: 0.3, person: 0.2 };
/** Text of a hit that is fetched for its snippet. */
const MAX_SNIPPET_SOURCE_CHARS = 50_000;

/** What to search for. */
export interface SearchInput {
  readonly tenant: TenantId;
  readonly query: string;
  readonly mode: SearchMode;
  /** 1 to {@link MAX_HITS}. */
  readonly limit: number;
}

/** A person of a hit; `id` is the graph's node. A mailing list is not a person. */
export interface HitPerson {
  readonly id: string;
  readonly name: string;
  readonly address: string;
  readonly role: 'from' | Exclude<RecipientRole, 'list'>;
}

/** A record that answers the query. */
export interface MemoryHit {
  /** 1 for what all retrievers put first, falling with rank; it is no probability and compares within one answer only. */
  readonly score: number;
  /** The passage of about 200 characters that holds most of the query's words. */
  readonly snippet: string;
  readonly record: {
    readonly id: string;
    readonly subject: string;
    readonly sentAt: Date;
    readonly threadId: string;
    readonly threadSubject: string;
    readonly source: string;
    readonly messageId: string;
  };
  readonly people: readonly HitPerson[];
  /** Which retrievers found it, and at which place. */
  readonly matched: Fused['matched'];
}

/**
 * Searches one tenant's memory. The retrievers see that tenant only; what the index still has but Postgres no longer does
 * is left out. Each thread shows its best hit first; further ones follow only when threads run out.
 * @throws CodedError VALIDATION_ERROR for a query or limit out of bounds, MEMORY_EMBEDDER_CHANGED, MEMORY_STORE_FAILED
 */
export async function searchMemory(
  db: AppDatabase,
  store: SemanticStore,
  embedder: Embedder,
  input: SearchInput,
): Promise<MemoryHit[]> {
  const { tenant, mode, limit } = input;
  const query = checkQuery(input);
  const words = [...new Set(wordsOf(query))].slice(0, MAX_QUERY_WORDS);
  const depth = Math.max(MIN_CANDIDATES, limit * CANDIDATES_PER_HIT);

  const byText = async (): Promise<RankedList> => {
    const found = await store.searchText(tenant, words.join(' '), depth);
    return { retriever: 'text', weight: WEIGHTS.text, ids: found.map((one) => one.id) };
  };
  const byVector = async (): Promise<RankedList> => {
    const [vector] = await embedder.embed([query]);
    // A vector of nothing is as near to anything as to anything else.
    if (!vector?.some((value) => value !== 0)) return { retriever: 'vector', weight: WEIGHTS.vector, ids: [] };
    const found = await store.searchVector(tenant, embedder, vector, depth);
    return { retriever: 'vector', weight: WEIGHTS.vector, ids: found.map((one) => one.id) };
  };
  const lists = await Promise.all([
    ...(mode === 'VECTOR' ? [] : [byText()]),
    ...(mode === 'KEYWORD' ? [] : [byVector()]),
  ]);
  const direct = fuse(lists);
  if (direct.length === 0) return [];

  return db.transaction(tenant, async (tx) => {
    const around = await surroundings(tx, tenant, direct, mode === 'HYBRID');
    const graph =
      mode === 'HYBRID' ? [byThread(direct, around), await byPerson(tx, tenant, words, direct, around)] : [];
    const threads = new Map(around.map((row) => [row.id, row.thread_id]));
    // What Postgres no longer has is not in `threads`.
    const fused = (graph.length > 0 ? fuse([...lists, ...graph]) : direct).filter((one) => threads.has(one.id));
    const chosen = spread(fused, (one) => threads.get(one.id)!, HITS_PER_THREAD).slice(0, limit);
    return readHits(tx, tenant, query, chosen);
  });
}

function checkQuery({ query, mode, limit }: SearchInput): string {
  const refuse = (message: string, field: string) => apiError('VALIDATION_ERROR', message, { field });
  if (!SEARCH_MODES.includes(mode)) throw refuse(`mode must be one of ${SEARCH_MODES.join(', ')}.`, 'mode');
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_HITS) {
    throw refuse(`limit must be a whole number from 1 to ${MAX_HITS}.`, 'limit');
  }
  if (typeof query !== 'string' || query.trim() === '')
    throw refuse('The query is empty: say what to look for.', 'query');
  if (query.length > MAX_QUERY_CHARS) {
    throw refuse(`The query has ${query.length} characters; at most ${MAX_QUERY_CHARS} are taken.`, 'query');
  }
  if (!/[\p{L}\p{N}]/u.test(query)) throw refuse('The query has no letter or digit: say what to look for.', 'query');
  return query.toWellFormed().trim();
}

interface Surrounding {
  id: string;
  thread_id: string;
  author_address: string;
}

/** The candidates that Postgres has and, if asked for, the other messages in the threads of the best. */
async function surroundings(
  tx: Tx,
  tenant: TenantId,
  direct: readonly Fused[],
  neighbours: boolean,
): Promise<Surrounding[]> {
  const ids = direct.map((one) => one.id);
  return tx.query<Surrounding>(
    `with candidates as (
       select id, thread_id, author_address from memory_records where tenant_id = $1 and id = any($2::uuid[])
     ), neighbours as (
       select n.* from (select distinct thread_id from candidates where id = any($3::uuid[])) t
       cross join lateral (
         select r.id, r.thread_id, r.author_address from memory_records r
         where r.tenant_id = $1 and r.thread_id = t.thread_id order by r.sent_at, r.id limit $4
       ) n
     )
     select * from candidates union select * from neighbours`,
    [tenant, ids, neighbours ? ids.slice(0, SEEDS) : [], MAX_NEIGHBOURS_PER_THREAD],
  );
}

/**
 * The best hit of each thread in the order of the threads, then the other messages of the first of these threads: a reply
 * often answers without a word of the question. Threads go by their best hit, not by the sum, which would favour long ones.
 */
function byThread(direct: readonly Fused[], around: readonly Surrounding[]): RankedList {
  const scores = new Map(direct.map((one) => [one.id, one.score]));
  const scoreOf = (id: string) => scores.get(id) ?? 0;
  const threads = [...Map.groupBy(around, (row) => row.thread_id).values()]
    .map((rows) => rows.map((row) => row.id).toSorted((left, right) => scoreOf(right) - scoreOf(left)))
    .toSorted(([left], [right]) => scoreOf(right!) - scoreOf(left!));
  const ids = [...threads.map(([best]) => best!), ...threads.slice(0, SEEDS).flatMap(([, ...others]) => others)];
  return { retriever: 'thread', weight: WEIGHTS.thread, ids };
}

/** Of the direct hits those by people whom the query names, in their order. */
async function byPerson(
  tx: Tx,
  tenant: TenantId,
  words: readonly string[],
  direct: readonly Fused[],
  around: readonly Surrounding[],
): Promise<RankedList> {
  const names = words.filter((word) => word.length > 2 && !isStopWord(word));
  const rows = await tx.query<{ node_id: string }>(
    `select node_id from graph_person_words where tenant_id = $1 and word = any($2::text[])
     group by node_id order by count(*) desc, node_id limit $3`,
    [tenant, names, MAX_NAMED_PEOPLE + 1],
  );
  const people = new Set(rows.length > MAX_NAMED_PEOPLE ? [] : rows.map((row) => row.node_id));
  const authors = new Map(around.map((row) => [row.id, nodeId(tenant, 'person', row.author_address)]));
  const ids = direct.map((one) => one.id).filter((id) => people.has(authors.get(id) ?? ''));
  return { retriever: 'person', weight: WEIGHTS.person, ids };
}

interface HitRow {
  id: string;
  subject: string;
  text: string;
  sent_at: Date;
  thread_id: string;
  thread_subject: string;
  source: string;
  message_id: string;
  people: HitPerson[];
}

async function readHits(tx: Tx, tenant: TenantId, query: string, chosen: readonly Fused[]): Promise<MemoryHit[]> {
  const rows = await tx.query<HitRow>(
    `select r.id, r.subject, left(r.text, $3) as text, r.sent_at, r.thread_id, t.name as thread_subject, r.source, r.message_id,
            coalesce(p.people, '[]') as people
     from memory_records r
     join graph_nodes t on t.id = r.thread_id
     left join lateral (
       select json_agg(json_build_object('id', n.id, 'name', n.name, 'address', n.key, 'role', m.role) order by m.place) as people
       from (
         select 0 as place, r.author_address as address, 'from' as role
         union all
         select place, value ->> 'address', value ->> 'role' from jsonb_array_elements(r.recipients) with ordinality as e (value, place)
         where value ->> 'address' <> r.author_address -- who copies himself is its sender
       ) m
       join graph_nodes n on n.tenant_id = $1 and n.type = 'person' and n.key = m.address
     ) p on true
     where r.tenant_id = $1 and r.id = any($2::uuid[])`,
    [tenant, chosen.map((one) => one.id), MAX_SNIPPET_SOURCE_CHARS],
  );
  const byId = new Map(rows.map((row) => [row.id, row]));
  return chosen.flatMap(({ id, score, matched }) => {
    const row = byId.get(id);
    if (!row) return [];
    const record = {
      id,
      subject: row.subject,
      sentAt: row.sent_at,
      threadId: row.thread_id,
      threadSubject: row.thread_subject,
      source: row.source,
      messageId: row.message_id,
    };
    return [{ score, snippet: snippetOf(row.text, query), record, people: row.people, matched }];
  });
}
