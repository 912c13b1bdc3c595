import { connect } from '@lancedb/lancedb';

/**
 * An mbox of `count` messages in threads of five by forty authors; every fiftieth has no sender and is quarantined. The same
 * arguments give the same bytes.
 */
export function aMailbox(count: number, name = 'list'): Buffer {
  const mails = Array.from({ length: count }, (_, n) => {
    const root = n - (n % 5);
    const author = `author${n % 40}@${name}.example`;
    return [
      `From ${author} Mon Mar  3 08:15:00 2003`,
      ...(n % 50 === 49 ? [] : [`From: Author ${n % 40} <${author}>`]),
      `To: reader${n % 7}@${name}.example`,
      `Subject: ${n === root ? '' : 'Re: '}Topic ${root} of ${name}`,
      `Date: ${new Date(Date.UTC(2003, 2, 3, 0, n)).toUTCString()}`,
      `Message-ID: <m${n}@${name}.example>`,
      ...(n === root ? [] : [`In-Reply-To: <m${root}@${name}.example>`]),
      '',
      `This is message number ${n} about topic ${root}; ${'pears and barrels '.repeat(1 + (n % 9))}.`,
      '',
      '',
    ].join('\n');
  });
  return Buffer.from(mails.join(''));
}

/** What memory and the job tables hold, to compare one run with another; ids, times and epochs left out. */
const FIGURES_SQL = `select
  (select count(*)::int from memory_records) as records,
  (select count(distinct message_id)::int from memory_records) as messages,
  (select count(*)::int from graph_nodes) as nodes,
  (select count(*)::int from graph_edges) as edges,
  (select count(*)::int from graph_edge_evidence) as evidence,
  (select count(*)::int from memory_index_queue) as "waiting for the index",
  (select count(*)::int from quarantined_records) as quarantined,
  (select md5(string_agg(message_id || subject || text || coalesce(in_reply_to, ''), '' order by message_id)) from memory_records) as contents,
  (select json_agg(row_to_json(j)) from (
     select status, bytes_processed, records_processed, records_new, records_changed, records_unchanged, records_quarantined,
            people, threads, replies, entities_extracted, relationships_extracted, error_count
     from historical_sync_jobs order by id) j) as jobs`;

/** The figures of a database, asked for as its owner. */
export async function figuresOf(
  asOwner: (sql: string) => Promise<Record<string, unknown>[]>,
): Promise<Record<string, unknown>> {
  return (await asOwner(FIGURES_SQL))[0]!;
}

/** The record ids that stand in the LanceDB folder, sorted; one that stands there twice is listed twice. */
export async function indexedIds(folder: string): Promise<string[]> {
  const database = await connect(folder);
  const ids: string[] = [];
  for (const name of await database.tableNames()) {
    const table = await database.openTable(name);
    const rows = (await table.query().select(['id']).toArray()) as { id: string }[];
    ids.push(...rows.map(({ id }) => String(id)));
  }
  database.close();
  return ids.toSorted();
}
