import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { drawMessage, GraphDraft, MAX_NODE_NAME_CHARS } from './graph.js';
import { readForgotten, withoutForgotten } from './forgotten.js';
import { nodeId, recordId, type EdgeType, type NodeType } from './ids.js';
import { recipientsOf, type SourceMessage } from './message.js';
import { threadKeys, type ThreadMember } from './threads.js';
import { wordsOf } from './words.js';

/** Messages of one call: all of them are in memory as one JSON parameter, and hold the tenant's graph meanwhile. */
export const MAX_CHUNK = 1_000;
/** Versions of one message whose hashes are remembered. Copies of a mail differ by their way (list, direct, sent box); more are edits. */
const MAX_REMEMBERED_VERSIONS = 20;

/** Which messages of whom, from where. */
export interface IngestInput {
  readonly tenant: TenantId;
  /** The job that brings them; kept as the job of first sight. */
  readonly jobId: string;
  /** The mailbox or archive: the same message of two sources is two records and one node. */
  readonly source: string;
  readonly messages: readonly SourceMessage[];
}

/**
 * What one call changed. Records are counted by message handed over, so the three sum up to them. The others are net: a
 * thread that merged into another is taken off again, so that sums over all calls equal what the graph holds.
 */
export interface IngestCounts {
  recordsNew: number;
  recordsUnchanged: number;
  recordsChanged: number;
  people: number;
  threads: number;
  replies: number;
  nodes: number;
  edges: number;
}

interface Classified {
  /** The newest version of each new or changed record, by record id. */
  readonly written: ReadonlyMap<string, { message: SourceMessage; hashes: string[] }>;
  readonly changedIds: readonly string[];
  readonly counts: Pick<IngestCounts, 'recordsNew' | 'recordsUnchanged' | 'recordsChanged'>;
}

/**
 * Writes messages as records, draws them into the graph and queues them for the index, in the caller's transaction and in
 * about fifteen statements whatever their number. Ingesting the same again changes nothing; neither order nor the
 * grouping into calls matters for the graph.
 * @throws CodedError MEMORY_CHUNK_TOO_LARGE above {@link MAX_CHUNK} messages
 */
export async function ingestMessages(tx: Tx, input: IngestInput): Promise<IngestCounts> {
  const { tenant, messages } = input;
  if (messages.length > MAX_CHUNK) {
    throw new CodedError(
      'MEMORY_CHUNK_TOO_LARGE',
      `${messages.length} messages at once; at most ${MAX_CHUNK} are taken.`,
    );
  }
  const tally = new Tally();
  const glance = await classify(tx, input);
  if (glance.written.size === 0) return { ...tally.counts, ...glance.counts };

  // One writer per tenant's graph until commit. A message may join the threads of two other chunks, and a list known to
  // one chunk unmakes a person of another: each must see the other's rows, which row locks alone cannot give. It is
  // taken before any row is written, so who waits for it holds nothing that its holder could want.
  await holdGraph(tx, tenant);
  const { written, changedIds, counts } = await classify(tx, input);
  if (written.size === 0) return { ...tally.counts, ...counts };

  const draft = new GraphDraft(tenant);
  const moves = await drawThreads(tx, tenant, written, draft);
  await writeRecords(tx, input, written, moves.threads);
  await moveRecords(tx, tenant, moves, tally);
  if (changedIds.length > 0) await withdrawEvidence(tx, tenant, changedIds, tally);

  const lists = await listAddresses(tx, tenant, written);
  await unmakePeople(tx, tenant, lists.fresh, tally);
  for (const [id, { message }] of written) drawMessage(draft, message, id, lists.all);

  await writeNodes(tx, tenant, draft, tally);
  await writeEdges(tx, tenant, draft, tally);
  await settleThreads(tx, tenant, moves.touchedThreads, tally);
  await tx.execute(
    `insert into memory_index_queue (record_id, tenant_id) select unnest($2::uuid[]), $1::uuid
     on conflict (record_id) do update set position = default`,
    [tenant, [...written.keys()].toSorted()],
  );
  return { ...tally.counts, ...counts };
}

/** Waits until nobody else writes the tenant's graph, and keeps others from it until the commit. */
export async function holdGraph(tx: Tx, tenant: TenantId): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock(hashtextextended('memory graph ' || $1, 0))`, [tenant]);
}

/**
 * Tells new, changed and unchanged apart. A version seen before is unchanged, so archives that hold two copies of a mail settle; and so
 * is what somebody wrote who was forgotten since.
 */
async function classify(tx: Tx, { tenant, source, messages }: IngestInput): Promise<Classified> {
  const forgotten = await readForgotten(tx, tenant);
  const ids = messages.map((message) => recordId(tenant, source, message.messageId));
  const stored = await tx.query<{ id: string; content_hashes: string[] }>(
    `select id, content_hashes from memory_records where tenant_id = $1 and id = any($2::uuid[])`,
    [tenant, [...new Set(ids)]],
  );
  const hashes = new Map(stored.map((row) => [row.id, row.content_hashes]));
  const written = new Map<string, { message: SourceMessage; hashes: string[] }>();
  const counts = { recordsNew: 0, recordsUnchanged: 0, recordsChanged: 0 };
  for (const [index, message] of messages.entries()) {
    const id = ids[index]!;
    const seen = hashes.get(id);
    const admitted = withoutForgotten(tenant, message, forgotten);
    if (!admitted || seen?.includes(message.contentHash)) {
      counts.recordsUnchanged += 1;
      continue;
    }
    if (seen) counts.recordsChanged += 1;
    else counts.recordsNew += 1;
    const remembered = [...(seen ?? []), message.contentHash].slice(-MAX_REMEMBERED_VERSIONS);
    hashes.set(id, remembered);
    written.set(id, { message: admitted, hashes: remembered });
  }
  const before = new Set(stored.map((row) => row.id));
  return { written, changedIds: [...written.keys()].filter((id) => before.has(id)), counts };
}

async function writeRecords(
  tx: Tx,
  { tenant, jobId, source }: IngestInput,
  written: Classified['written'],
  threads: ReadonlyMap<string, string>,
): Promise<void> {
  const rows = [...written].toSorted(byKey).map(([id, { message, hashes }]) => ({
    id,
    message_id: message.messageId,
    subject: message.subject,
    text: message.text,
    truncated: message.truncated,
    author_name: message.from.name,
    author_address: message.from.address,
    recipients: recipientsOf(message),
    attachments: message.attachments,
    list_address: message.listAddress,
    sent_at: message.sentAt,
    content_hash: message.contentHash,
    content_hashes: hashes,
    in_reply_to: message.inReplyTo,
    reference_ids: message.references,
    thread_id: threads.get(id),
  }));
  await tx.execute(
    `insert into memory_records as r (tenant_id, kind, source, first_job_id, id, message_id, subject, text, truncated,
       author_name, author_address, recipients, attachments, list_address, sent_at, content_hash, content_hashes,
       in_reply_to, reference_ids, thread_id)
     select $1::uuid, 'message', $2::text, $3::text, g.* from json_to_recordset($4::json) as g (id uuid, message_id text, subject text, text text,
       truncated boolean, author_name text, author_address text, recipients jsonb, attachments jsonb, list_address text,
       sent_at timestamptz, content_hash text, content_hashes text[], in_reply_to text, reference_ids text[], thread_id uuid)
     on conflict (id) do update set subject = excluded.subject, text = excluded.text, truncated = excluded.truncated,
       author_name = excluded.author_name, author_address = excluded.author_address, recipients = excluded.recipients,
       attachments = excluded.attachments, list_address = excluded.list_address, sent_at = excluded.sent_at,
       content_hash = excluded.content_hash, content_hashes = excluded.content_hashes, in_reply_to = excluded.in_reply_to,
       reference_ids = excluded.reference_ids, thread_id = excluded.thread_id, updated_at = now()`,
    [tenant, source, jobId, JSON.stringify(rows)],
  );
}

/** Takes back what the former version of changed records said; an edge that no other record says expires. */
export async function withdrawEvidence(
  tx: Tx,
  tenant: TenantId,
  changedIds: readonly string[],
  tally: Tally,
): Promise<void> {
  const expired = await tx.query<{ type: EdgeType }>(
    `with gone as (delete from graph_edge_evidence where tenant_id = $1 and record_id = any($2::uuid[]) returning edge_id)
     update graph_edges e set expired_at = now()
     where e.id in (select edge_id from gone) and e.expired_at is null
       and not exists (select from graph_edge_evidence o where o.edge_id = e.id and o.record_id <> all($2::uuid[]))
     returning e.type`,
    [tenant, changedIds],
  );
  for (const { type } of expired) tally.edge(type, -1);
}

/** The mailing lists among the addresses of these messages, and those of them that were not known as lists before. */
async function listAddresses(
  tx: Tx,
  tenant: TenantId,
  written: Classified['written'],
): Promise<{ all: ReadonlySet<string>; fresh: readonly string[] }> {
  const addresses = new Set<string>();
  const named = new Set<string>();
  for (const { message } of written.values()) {
    addresses.add(message.from.address);
    for (const { address } of recipientsOf(message)) addresses.add(address);
    if (message.listAddress !== null) named.add(message.listAddress);
  }
  const rows = await tx.query<{ key: string }>(
    `select key from graph_nodes where tenant_id = $1 and id = any($2::uuid[]) and properties @> '{"list": true}'`,
    [tenant, [...addresses].map((address) => nodeId(tenant, 'address', address))],
  );
  const known = new Set(rows.map((row) => row.key));
  return { all: new Set([...known, ...named]), fresh: [...named].filter((address) => !known.has(address)) };
}

/** Removes the persons made of addresses that turn out to be mailing lists, with their edges. */
async function unmakePeople(tx: Tx, tenant: TenantId, lists: readonly string[], tally: Tally): Promise<void> {
  if (lists.length === 0) return;
  const [people, addresses] = (['person', 'address'] as const).map((type) =>
    lists.map((address) => nodeId(tenant, type, address)),
  );
  const edges = await tx.query<{ type: EdgeType; expired_at: Date | null }>(
    `delete from graph_edges where source_id = any($2::uuid[]) and tenant_id = $1 returning type, expired_at`,
    [tenant, people],
  );
  for (const edge of edges) if (edge.expired_at === null) tally.edge(edge.type, -1);
  const nodes = await tx.execute(`delete from graph_nodes where tenant_id = $1 and id = any($2::uuid[])`, [
    tenant,
    people,
  ]);
  tally.node('person', -nodes);
  await tx.execute(
    `update graph_edges set properties = '{"as": "list"}' where tenant_id = $1 and target_id = any($2::uuid[]) and type = 'addressed'`,
    [tenant, addresses],
  );
}

interface Moves {
  /** Thread nodes of the written records, by record id. */
  readonly threads: ReadonlyMap<string, string>;
  /** Other records whose thread became another. */
  readonly moved: readonly { readonly recordId: string; readonly threadNode: string }[];
  /** Message and thread node of all messages that were in another thread before. */
  readonly left: readonly { readonly messageNode: string; readonly threadNode: string }[];
  /** Threads that gained or lost a message, or hold one that changed. */
  readonly touchedThreads: ReadonlySet<string>;
}

interface ThreadRow {
  id: string;
  message_id: string;
  in_reply_to: string | null;
  first_reference: string | null;
  thread_id: string | null;
  sent_at: Date;
}

/**
 * Draws threads and replies of the messages about to be written and of all that descend from them: a parent that arrives
 * takes its whole subtree along, and gets the edges of children that came first.
 */
async function drawThreads(
  tx: Tx,
  tenant: TenantId,
  written: Classified['written'],
  draft: GraphDraft,
): Promise<Moves> {
  const messages = [...written.values()].map(({ message }) => message);
  const writtenIds = new Set(messages.map((message) => message.messageId));
  // union, not union all: it ends on loops of replies. offset 0 keeps Postgres from scanning the tenant: it takes the
  // recursion for far larger than it is, and would hash all records rather than look a hundred up.
  const stored = await tx.query<ThreadRow & { parent_key: string | null }>(
    `with recursive touched (message_id) as (
       select unnest($2::text[]) collate "C"
       union
       select r.message_id from touched t cross join lateral (
         select message_id from memory_records where tenant_id = $1 and in_reply_to = t.message_id offset 0
       ) r
     )
     select r.*, parent.key as parent_key
     from touched t
     cross join lateral (
       select id, message_id, in_reply_to, reference_ids[1] as first_reference, thread_id, sent_at
       from memory_records where tenant_id = $1 and message_id = t.message_id offset 0
     ) r
     left join lateral (
       select n.key from memory_records p join graph_nodes n on n.id = p.thread_id
       where p.tenant_id = $1 and p.message_id = r.in_reply_to limit 1
     ) parent on true`,
    [tenant, [...writtenIds]],
  );
  const parents = await tx.query<{ message_id: string; key: string }>(
    `select p.message_id, n.key from memory_records p join graph_nodes n on n.id = p.thread_id
     where p.tenant_id = $1 and p.message_id = any($2::text[])`,
    [tenant, [...new Set(messages.map((message) => message.inReplyTo))].filter((id) => id !== null)],
  );

  const former = new Map(stored.map((row) => [row.id, row.thread_id]));
  const rows: ThreadRow[] = stored.filter((row) => !written.has(row.id));
  for (const [id, { message }] of written) {
    rows.push({
      id,
      message_id: message.messageId,
      in_reply_to: message.inReplyTo,
      first_reference: message.references[0] ?? null,
      thread_id: former.get(id) ?? null,
      sent_at: message.sentAt,
    });
  }
  const settled = new Map(parents.map((row) => [row.message_id, row.key]));
  for (const row of stored)
    if (row.in_reply_to !== null && row.parent_key !== null) settled.set(row.in_reply_to, row.parent_key);
  // Where several sources have a message, the one with the smallest record id says what its parent is.
  const members = new Map<string, ThreadMember>();
  for (const row of rows.toSorted((left, right) => (left.id < right.id ? -1 : 1))) {
    if (members.has(row.message_id)) continue;
    members.set(row.message_id, {
      messageId: row.message_id,
      inReplyTo: row.in_reply_to,
      firstReference: row.first_reference,
    });
  }
  const keys = threadKeys([...members.values()], settled);

  const threads = new Map<string, string>();
  const moved: { recordId: string; threadNode: string }[] = [];
  const left = new Map<string, { messageNode: string; threadNode: string }>();
  const touchedThreads = new Set<string>();
  for (const row of rows) {
    const isWritten = written.has(row.id);
    const messageNode = nodeId(tenant, 'message', row.message_id);
    const threadNode = draft.node('thread', keys.get(row.message_id)!, '', '');
    if (isWritten) threads.set(row.id, threadNode);
    if (isWritten || row.thread_id !== threadNode) {
      touchedThreads.add(threadNode);
      draft.edge('in_thread', messageNode, threadNode, row.sent_at, row.id);
    }
    if (row.thread_id !== null && row.thread_id !== threadNode) {
      touchedThreads.add(row.thread_id);
      left.set(messageNode, { messageNode, threadNode });
      if (!isWritten) moved.push({ recordId: row.id, threadNode });
    }
    const parent = row.in_reply_to;
    if (parent === null || parent === row.message_id || (!isWritten && !writtenIds.has(parent))) continue;
    if (members.has(parent) || settled.has(parent)) {
      draft.edge('replied_to', messageNode, nodeId(tenant, 'message', parent), row.sent_at, row.id);
    }
  }
  return { threads, moved, left: [...left.values()], touchedThreads };
}

/** Gives records that were there before their new threads, and takes messages out of their former ones. */
async function moveRecords(tx: Tx, tenant: TenantId, { moved, left }: Moves, tally: Tally): Promise<void> {
  if (moved.length > 0) {
    await tx.execute(
      `update memory_records r set thread_id = m.thread_node
       from unnest($2::uuid[], $3::uuid[]) as m (record_id, thread_node) where r.tenant_id = $1 and r.id = m.record_id`,
      [tenant, moved.map((one) => one.recordId), moved.map((one) => one.threadNode)],
    );
  }
  if (left.length === 0) return;
  const gone = await tx.query<{ expired_at: Date | null }>(
    `delete from graph_edges e using unnest($2::uuid[], $3::uuid[]) as m (message_node, thread_node)
     where e.tenant_id = $1 and e.type = 'in_thread' and e.source_id = m.message_node and e.target_id <> m.thread_node
     returning e.expired_at`,
    [tenant, left.map((one) => one.messageNode), left.map((one) => one.threadNode)],
  );
  for (const edge of gone) if (edge.expired_at === null) tally.edge('in_thread', -1);
}

async function writeNodes(tx: Tx, tenant: TenantId, draft: GraphDraft, tally: Tally): Promise<void> {
  const rows = [...draft.nodes].toSorted(byKey).map(([, node]) => ({ ...node, name_rank: node.nameRank }));
  const done = await tx.query<{ id: string; type: NodeType; name: string; is_new: boolean }>(
    `with given as (
       select * from json_to_recordset($2::json) as g (id uuid, type text, key text, name text, name_rank text, properties jsonb)
     ), before as (
       select id from graph_nodes where tenant_id = $1 and id = any($3::uuid[])
     ), done as (
       insert into graph_nodes as n (tenant_id, id, type, key, name, name_rank, properties)
       select $1::uuid, * from given
       on conflict (id) do update set
         name = case when excluded.name_rank > '' and excluded.name_rank >= n.name_rank then excluded.name else n.name end,
         name_rank = greatest(excluded.name_rank, n.name_rank),
         properties = case when excluded.name_rank >= n.name_rank then n.properties || excluded.properties
                           else excluded.properties || n.properties end,
         updated_at = now()
       where excluded.name_rank > n.name_rank or not n.properties @> excluded.properties
         or (excluded.name_rank > '' and excluded.name_rank = n.name_rank and excluded.name <> n.name)
       returning id, type, name
     )
     select done.*, before.id is null as is_new from done left join before using (id)`,
    // The ids once more by themselves: joined with the JSON, fresh tables are scanned whole, their statistics being stale.
    [tenant, JSON.stringify(rows), rows.map((row) => row.id)],
  );
  for (const row of done) if (row.is_new) tally.node(row.type, 1);

  const words = done
    .filter((row) => row.type === 'person')
    .flatMap((row) => {
      const address = draft.nodes.get(row.id)!.key;
      const terms = new Set([...wordsOf(row.name), ...wordsOf(address.split('@')[0]!), address]);
      return [...terms].map((word) => ({ word: word.slice(0, MAX_NODE_NAME_CHARS), id: row.id }));
    });
  if (words.length === 0) return;
  const people = [...new Set(words.map((word) => word.id))];
  // Words that a former name had and the present one has not go; the others stay as they are.
  await tx.execute(
    `with given as (select unnest($2::text[]) collate "C" as word, unnest($3::uuid[]) as id), gone as (
       delete from graph_person_words w where w.node_id = any($4::uuid[])
         and not exists (select from given g where g.word = w.word and g.id = w.node_id)
     )
     insert into graph_person_words (tenant_id, word, node_id) select distinct $1::uuid, word, id from given order by word, id
     on conflict do nothing`,
    [tenant, words.map((one) => one.word), words.map((one) => one.id), people],
  );
}

async function writeEdges(tx: Tx, tenant: TenantId, draft: GraphDraft, tally: Tally): Promise<void> {
  const rows = [...draft.edges].toSorted(byKey).map(([, edge]) => ({
    id: edge.id,
    type: edge.type,
    source_id: edge.sourceId,
    target_id: edge.targetId,
    valid_at: edge.validAt,
    properties: edge.properties,
  }));
  // An edge that had expired begins anew; one that lives takes the earliest time, and of two properties always the same.
  const added = await tx.query<{ type: EdgeType; count: number }>(
    `with given as (
       select * from json_to_recordset($2::json)
         as g (id uuid, type text, source_id uuid, target_id uuid, valid_at timestamptz, properties jsonb)
     ), living as (
       select id from graph_edges where tenant_id = $1 and id = any($3::uuid[]) and expired_at is null
     ), done as (
       insert into graph_edges as e (tenant_id, id, type, source_id, target_id, valid_at, properties)
       select $1::uuid, * from given
       on conflict (id) do update set
         valid_at = case when e.expired_at is null then least(e.valid_at, excluded.valid_at) else excluded.valid_at end,
         properties = case when e.expired_at is null then least(e.properties, excluded.properties) else excluded.properties end,
         recorded_at = case when e.expired_at is null then e.recorded_at else now() end,
         expired_at = null
       where e.expired_at is not null or excluded.valid_at < e.valid_at or excluded.properties < e.properties
       returning id, type
     )
     select type, count(*)::int as count from done where id not in (select id from living) group by type`,
    [tenant, JSON.stringify(rows), rows.map((row) => row.id)],
  );
  for (const { type, count } of added) tally.edge(type, count);

  const evidence = [...draft.evidence].toSorted(byKey).map(([, pair]) => pair);
  await tx.execute(
    `insert into graph_edge_evidence (tenant_id, edge_id, record_id)
     select $1::uuid, * from unnest($2::uuid[], $3::uuid[]) on conflict do nothing`,
    [tenant, evidence.map((pair) => pair.edgeId), evidence.map((pair) => pair.recordId)],
  );
}

/** Removes threads that lost their last message, and names the others by the subject of their earliest. */
export async function settleThreads(
  tx: Tx,
  tenant: TenantId,
  threads: ReadonlySet<string>,
  tally: Tally,
): Promise<void> {
  if (threads.size === 0) return;
  const emptied = await tx.execute(
    `delete from graph_nodes n where n.tenant_id = $1 and n.id = any($2::uuid[])
       and not exists (select from memory_records r where r.tenant_id = $1 and r.thread_id = n.id)`,
    [tenant, [...threads]],
  );
  tally.node('thread', -emptied);
  await tx.execute(
    `update graph_nodes n set name = f.name, updated_at = now()
     from unnest($2::uuid[]) t (id) cross join lateral (
       select left(regexp_replace(r.subject, '^(\\s*(re|fwd?|aw|antw|sv|wg|tr)\\s*(\\[\\d+\\])?:\\s*)+', '', 'i'), $3) as name
       from memory_records r where r.tenant_id = $1 and r.thread_id = t.id order by r.sent_at, r.id limit 1
     ) f
     where n.tenant_id = $1 and n.id = t.id and n.name <> f.name`,
    [tenant, [...threads], MAX_NODE_NAME_CHARS],
  );
}

/** Keeps the net counts of one call. */
export class Tally {
  readonly counts: IngestCounts = {
    recordsNew: 0,
    recordsUnchanged: 0,
    recordsChanged: 0,
    people: 0,
    threads: 0,
    replies: 0,
    nodes: 0,
    edges: 0,
  };

  node(type: NodeType, by: number): void {
    this.counts.nodes += by;
    if (type === 'person') this.counts.people += by;
    if (type === 'thread') this.counts.threads += by;
  }

  edge(type: EdgeType, by: number): void {
    this.counts.edges += by;
    if (type === 'replied_to') this.counts.replies += by;
  }
}

function byKey<Value>([left]: readonly [string, Value], [right]: readonly [string, Value]): number {
  return left < right ? -1 : left > right ? 1 : 0;
}
