import { sleep, type TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { MAX_NODE_NAME_CHARS } from './graph.js';
import { nodeId } from './ids.js';
import { asOnlyWriter, indexPending, type IndexTarget } from './indexer.js';
import { holdGraph, settleThreads, Tally, withdrawEvidence } from './ingest.js';
import { FORGOTTEN_WORDS } from './forgotten.js';
import type { Recipient, SourceMessage } from './message.js';
import { wordsOf } from './words.js';

/** Records that are looked through, changed or removed in one transaction, which holds the tenant's graph meanwhile. */
const PAGE = 500;
/** How often to ask again for the index while somebody else writes it. */
const BUSY_MS = 100;
/** How long readers who began before have to leave the versions of the index that are removed: a search takes a fraction of it. */
const READERS_LEAVE_MS = 5_000;
/** Characters of what is looked for; what is shorter is in every text, what is longer in none. */
const [MIN_TERM_CHARS, MAX_TERM_CHARS] = [3, 200];
/** Digits that make a number somebody's own, such as that of a telephone. */
const MIN_OWN_DIGITS = 6;
/** Who is to be forgotten. */
export interface Forgotten {
  /** E-mail addresses, in lower case. */
  readonly addresses: readonly string[];
  /** What else is known of them: names, numbers. */
  readonly values: readonly string[];
}

/**
 * Makes a tenant's memory forget somebody. What they wrote is removed: records, their nodes and edges, vectors and full text. From what
 * others wrote, they are taken out as recipients, and out of subject and text: their addresses, the names of two or more words by which
 * mail knows those, and numbers of theirs everywhere; words of those names, and other values, in the threads that they took part in. The rest of others' mail
 * stays. Of the index no file of before is left.
 *
 * Mail of before this moment, of theirs or to them, does not come in again by another import; what they write later does. Every step
 * may be repeated: who dies in the middle is followed by a call with the same.
 * @param options.readersLeaveMs how long files of before are kept for readers who have begun to read them
 * @throws CodedError MEMORY_EMBEDDER_CHANGED, MEMORY_EMBEDDING_BROKEN, MEMORY_STORE_FAILED, and what the embedder throws
 */
export async function forgetPerson(
  target: IndexTarget,
  { addresses, values }: Forgotten,
  options: { readonly readersLeaveMs?: number } = {},
): Promise<void> {
  const { db, store, tenant } = target;
  if (addresses.length === 0 && values.length === 0) return;
  await db.transaction(tenant, async (tx) => {
    await holdGraph(tx, tenant);
    await tx.execute(
      `insert into memory_forgotten as f (tenant_id, person, until) select $1, unnest($2::uuid[]), clock_timestamp()
       on conflict (tenant_id, person) do update set until = excluded.until`,
      [tenant, addresses.map((address) => nodeId(tenant, 'person', address)).toSorted()],
    );
  });
  const names = await db.transaction(tenant, (tx) => namesOf(tx, tenant, addresses));
  // Before what they wrote is removed: the names, and which threads were theirs, are read from it.
  await takeOut(target, new Redaction(addresses, names, values));
  const isChanged = await remove(target, addresses);
  // Also where nothing is found any more: it may have been removed by a call that died before this.
  await untilOurs(() => settleIndex(target));
  if (!isChanged && (await store.count(tenant)) === 0) return;
  await untilOurs(() =>
    asOnlyWriter<boolean>(db, tenant, false, async () => {
      await store.rewrite(tenant);
      return true;
    }),
  );
  await sleep(options.readersLeaveMs ?? READERS_LEAVE_MS);
  await untilOurs(() =>
    asOnlyWriter<boolean>(db, tenant, false, async () => {
      await store.dropFormerVersions(tenant);
      return true;
    }),
  );
}

/** Repeats what answers false while another process writes the index. */
async function untilOurs(work: () => Promise<boolean>): Promise<void> {
  while (!(await work())) await sleep(BUSY_MS);
}

/** True once all that is queued is in the index; false while somebody else writes it. */
async function settleIndex(target: IndexTarget): Promise<boolean> {
  for (;;) {
    const { pending, busy } = await indexPending(target);
    if (!pending) return true;
    if (busy) return false;
  }
}

/** By which names mail knows these addresses. */
async function namesOf(tx: Tx, tenant: TenantId, addresses: readonly string[]): Promise<string[]> {
  const rows = await tx.query<{ name: string }>(
    `select name from graph_nodes where tenant_id = $1 and id = any($2::uuid[])
     union select author_name from memory_records where tenant_id = $1 and author_address = any($3::text[])
     union select value ->> 'name' from memory_records r cross join jsonb_array_elements(r.recipients)
       where r.tenant_id = $1 and value ->> 'address' = any($3::text[])`,
    [tenant, addresses.map((address) => nodeId(tenant, 'person', address)), addresses],
  );
  return rows.map(({ name }) => name).filter((name) => name && !addresses.includes(name));
}

interface RecordRow {
  readonly id: string;
  readonly message_id: string;
  readonly thread_id: string;
  readonly author_address: string;
  readonly subject: string;
  readonly text: string;
  readonly author_name: string | null;
  readonly recipients: readonly Recipient[];
  readonly attachments: SourceMessage['attachments'];
  readonly list_address: string | null;
  readonly in_reply_to: string | null;
  readonly reference_ids: readonly string[];
}

const TEXTS = `id, message_id, thread_id, author_address, subject, text, author_name, recipients, attachments, list_address, in_reply_to, reference_ids`;

/** Takes somebody out of what others wrote, page by page; each page is queued for the index in its transaction. */
async function takeOut({ db, tenant }: IndexTarget, redaction: Redaction): Promise<void> {
  const threads = await db.transaction(tenant, async (tx) => {
    const rows = await tx.query<{ thread_id: string }>(
      `select distinct thread_id from memory_records r where tenant_id = $1 and (author_address = any($2::text[])
         or exists (select from jsonb_array_elements(r.recipients) where value ->> 'address' = any($2::text[])))`,
      [tenant, redaction.addresses],
    );
    return rows.map((row) => row.thread_id);
  });
  const patterns = redaction.patterns();
  for (let after: string | null = '00000000-0000-0000-0000-000000000000'; after !== null;) {
    const from: string = after;
    after = await db.transaction(tenant, async (tx) => {
      await holdGraph(tx, tenant);
      const rows = await tx.query<RecordRow>(
        `select ${TEXTS} from memory_records r
         where tenant_id = $1 and id > $2 and author_address <> all($3::text[])
           and (thread_id = any($4::uuid[]) or concat_ws(' ', subject, text, author_name, recipients, attachments, list_address,
                in_reply_to, reference_ids::text) ilike any($5::text[]))
         order by id limit $6`,
        [tenant, from, redaction.addresses, threads, patterns, PAGE],
      );
      const own = new Set(threads);
      const changed = rows.flatMap((row) => redaction.of(row, own.has(row.thread_id)) ?? []);
      await rewriteRecords(tx, tenant, changed);
      return rows.length < PAGE ? null : rows.at(-1)!.id;
    });
  }
  await db.transaction(tenant, async (tx) => {
    await holdGraph(tx, tenant);
    await rewriteNodes(tx, tenant, redaction, patterns);
  });
}

async function rewriteRecords(tx: Tx, tenant: TenantId, changed: readonly RecordRow[]): Promise<void> {
  if (changed.length === 0) return;
  const rows = changed.map((row) => ({ ...row, node: nodeId(tenant, 'message', row.message_id) }));
  await tx.execute(
    `update memory_records r set subject = g.subject, text = g.text, author_name = g.author_name, recipients = g.recipients,
       attachments = g.attachments, list_address = g.list_address, in_reply_to = g.in_reply_to, reference_ids = g.reference_ids, updated_at = now()
     from json_to_recordset($2::json) as g (id uuid, subject text, text text, author_name text, recipients jsonb, attachments jsonb,
       list_address text, in_reply_to text, reference_ids text[])
     where r.tenant_id = $1 and r.id = g.id`,
    [tenant, JSON.stringify(rows)],
  );
  await tx.execute(
    `update graph_nodes n set name = left(g.subject, $3), updated_at = now()
     from json_to_recordset($2::json) as g (node uuid, subject text)
     where n.tenant_id = $1 and n.id = g.node and n.name <> left(g.subject, $3)`,
    [tenant, JSON.stringify(rows), MAX_NODE_NAME_CHARS],
  );
  await settleThreads(tx, tenant, new Set(rows.map((row) => row.thread_id)), new Tally());
  await tx.execute(
    `insert into memory_index_queue (record_id, tenant_id) select unnest($2::uuid[]), $1::uuid
     on conflict (record_id) do update set position = default`,
    [tenant, rows.map(({ id }) => id)],
  );
}

/** The names of messages and threads are subjects; who bears the name under another address is called by that. */
async function rewriteNodes(
  tx: Tx,
  tenant: TenantId,
  redaction: Redaction,
  patterns: readonly string[],
): Promise<void> {
  const nodes = await tx.query<{ id: string; type: string; key: string; name: string }>(
    `select id, type, key, name from graph_nodes where tenant_id = $1 and (name ilike any($2::text[]) or key ilike any($2::text[]))
       and id <> all($3::uuid[])`,
    [tenant, patterns, redaction.nodes(tenant)],
  );
  for (const { id, type, key, name } of nodes) {
    const isPerson = type === 'person';
    const redacted = isPerson ? (redaction.global(name) === name ? name : key) : redaction.global(name);
    // What replies to a thread is found by its key; that of a thread which bears an address is given up.
    const freed = type === 'thread' && !redaction.isFreeOf(key) ? `erased:${id}` : key;
    if (redacted === name && freed === key) continue;
    await tx.execute(
      `update graph_nodes set name = $3, name_rank = case when $4 then '' else name_rank end, key = $5, updated_at = now()
       where tenant_id = $1 and id = $2`,
      [tenant, id, redacted, isPerson, freed],
    );
    if (!isPerson) continue;
    const words = new Set([...wordsOf(key.split('@')[0]!), ...wordsOf(key), key]);
    await tx.execute('delete from graph_person_words where node_id = $1 and word <> all($2::text[])', [id, [...words]]);
  }
}

/** Removes what they wrote, from the index first, and last their nodes. Answers whether there was anything. */
async function remove({ db, store, tenant }: IndexTarget, addresses: readonly string[]): Promise<boolean> {
  let isChanged = false;
  for (let isLeft = true; isLeft;) {
    await untilOurs(() =>
      asOnlyWriter<boolean>(db, tenant, false, async (tx) => {
        await holdGraph(tx, tenant);
        const rows = await tx.query<{ id: string; message_id: string; thread_id: string }>(
          `select id, message_id, thread_id from memory_records where tenant_id = $1 and author_address = any($2::text[]) limit $3`,
          [tenant, addresses, PAGE],
        );
        isLeft = rows.length === PAGE;
        if (rows.length > 0) {
          isChanged = true;
          const ids = rows.map(({ id }) => id);
          await store.removeRows(tenant, ids);
          const tally = new Tally();
          await withdrawEvidence(tx, tenant, ids, tally);
          await tx.execute('delete from memory_records where tenant_id = $1 and id = any($2::uuid[])', [tenant, ids]);
          await tx.execute(
            `delete from graph_nodes n where tenant_id = $1 and id = any($2::uuid[])
               and not exists (select from memory_records r where r.tenant_id = $1 and r.message_id = n.key)`,
            [tenant, rows.map((row) => nodeId(tenant, 'message', row.message_id))],
          );
          await settleThreads(tx, tenant, new Set(rows.map((row) => row.thread_id)), tally);
        }
        if (!isLeft) {
          const nodes = (['person', 'address'] as const).flatMap((type) =>
            addresses.map((address) => nodeId(tenant, type, address)),
          );
          const gone = await tx.execute('delete from graph_nodes where tenant_id = $1 and id = any($2::uuid[])', [
            tenant,
            nodes,
          ]);
          isChanged ||= gone > 0;
        }
        return true;
      }),
    );
  }
  return isChanged;
}

/** What is taken out of texts, and what is left of them. */
export class Redaction {
  /** Of the words that are taken out everywhere. */
  private readonly everywhere: RegExp | null;
  /** Of those that are so in their threads alone; in these letters, so that who is called Will takes no verb along. */
  private readonly inThreads: RegExp | null;
  private readonly terms: readonly string[];

  constructor(
    readonly addresses: readonly string[],
    names: readonly string[],
    values: readonly string[],
  ) {
    const fits = (term: string) => term.length >= MIN_TERM_CHARS && term.length <= MAX_TERM_CHARS;
    const [all, others] = [[...names, ...values].map((term) => term.trim()).filter(fits), [] as string[]];
    const known = new Set(names.map((name) => name.trim()));
    const terms: string[] = [];
    for (const term of new Set(all)) {
      const isNumber = !isDate(term) && (term.match(/\d/g)?.length ?? 0) >= MIN_OWN_DIGITS;
      if (isNumber || (known.has(term) && /\s/.test(term))) terms.push(term);
      else if (!isDate(term)) others.push(term);
      if (known.has(term)) others.push(...term.split(/[\s,]+/).filter(fits));
    }
    this.terms = terms;
    const bounded = addresses.map(
      (address) => `(?<![\\p{L}\\p{N}._%+-])${escaped(address)}(?![\\p{L}\\p{N}-]|\\.[\\p{L}\\p{N}])`,
    );
    this.everywhere = oneOf([...bounded, ...terms.map(whole)], 'giu');
    this.inThreads = oneOf(others.map(whole), 'gu');
  }

  /** For `ilike any`: each text that has a term is matched by one of these. */
  patterns(): string[] {
    return [...this.addresses, ...this.terms].map(
      (term) => `%${term.replaceAll(/[\\%_]/g, String.raw`\$&`).replaceAll(/\s+/g, '%')}%`,
    );
  }

  /** A text without what is taken out everywhere. */
  global(text: string): string {
    return this.everywhere ? text.replaceAll(this.everywhere, FORGOTTEN_WORDS) : text;
  }

  /** Whether the id of a message has none of the addresses in it, not even as a part: some programs make ids of them. */
  isFreeOf(id: string): boolean {
    const small = id.toLowerCase();
    return !this.addresses.some((address) => small.includes(address));
  }

  /** The nodes of the addresses, which go as a whole. */
  nodes(tenant: TenantId): string[] {
    return (['person', 'address'] as const).flatMap((type) =>
      this.addresses.map((address) => nodeId(tenant, type, address)),
    );
  }

  /** A record without them, or null where they are not in it. */
  of(row: RecordRow, isTheirThread: boolean): RecordRow | null {
    const text = (given: string) => {
      const cleaned = this.global(given);
      return isTheirThread && this.inThreads ? cleaned.replaceAll(this.inThreads, FORGOTTEN_WORDS) : cleaned;
    };
    const isClean = (given: string) => text(given) === given;
    const name = (given: string | null) => (given === null || isClean(given) ? given : null);
    const cleaned: RecordRow = {
      ...row,
      subject: text(row.subject),
      text: text(row.text),
      author_name: name(row.author_name),
      recipients: row.recipients
        .filter(({ address }) => !this.addresses.includes(address))
        .map((recipient) => ({ ...recipient, name: name(recipient.name) })),
      attachments: row.attachments.map((attachment) => ({
        ...attachment,
        filename: attachment.filename === null ? null : text(attachment.filename),
      })),
      list_address: row.list_address !== null && this.addresses.includes(row.list_address) ? null : row.list_address,
      in_reply_to: row.in_reply_to !== null && this.isFreeOf(row.in_reply_to) ? row.in_reply_to : null,
      reference_ids: row.reference_ids.filter((reference) => this.isFreeOf(reference)),
    };
    return JSON.stringify(cleaned) === JSON.stringify(row) ? null : cleaned;
  }
}

/** A birthday is a day like any other in the mail of others. */
function isDate(term: string): boolean {
  return /^\d{4}-\d{2}-\d{2}(?:T|$)/.test(term);
}

function whole(term: string): string {
  return `(?<![\\p{L}\\p{N}])${term.split(/\s+/).map(escaped).join('\\s+')}(?![\\p{L}\\p{N}])`;
}

function oneOf(sources: readonly string[], flags: string): RegExp | null {
  // The longest first: what a shorter one takes out would hide the longer.
  const ordered = sources.toSorted((a, b) => b.length - a.length);
  return ordered.length === 0 ? null : new RegExp(ordered.join('|'), flags);
}

function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\/]/g, String.raw`\$&`);
}
