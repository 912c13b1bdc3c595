import type { Tx } from '@atomo-cc/platform/postgres';
import type { IndexState, SchemaNote, TableState } from './schema-diff.js';

/** Types that Postgres tells in more words than they are declared in. */
const SHORT_TYPES: Readonly<Record<string, string>> = { integer: 'int', 'timestamp with time zone': 'timestamptz' };

/** The tables of models, histories, builds and links as the database has them. Needs no right but to connect. */
export async function readTables(tx: Tx): Promise<TableState[]> {
  const rows = await tx.query<{
    table: string;
    columns: Record<string, string> | null;
    indexes: IndexState[] | null;
    checks: string[] | null;
    note: string | null;
  }>(
    `select c.relname::text as table, obj_description(c.oid, 'pg_class') as note,
       (select jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
       (select jsonb_agg(jsonb_build_object(
           'name', i.relname, 'isUnique', x.indisunique, 'isPartial', x.indpred is not null,
           'columns', (select jsonb_agg(coalesce(a.attname::text, '(expression)') order by k.n)
                       from unnest(x.indkey::int2[]) with ordinality k (attnum, n)
                       left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                       where k.n <= x.indnkeyatts)) order by i.relname)
        from pg_index x join pg_class i on i.oid = x.indexrelid
        where x.indrelid = c.oid and not x.indisprimary and x.indisvalid) as indexes,
       (select jsonb_agg(k.conname order by k.conname) from pg_constraint k
        where k.conrelid = c.oid and k.contype = 'c') as checks
     from pg_class c
     where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname ~ '^(model|history|link)_'
     order by c.relname`,
  );
  return rows.map(({ table, columns, indexes, checks, note }) => ({
    table,
    columns: Object.fromEntries(
      Object.entries(columns ?? {}).map(([column, type]) => [column, SHORT_TYPES[type] ?? type]),
    ),
    indexes: indexes ?? [],
    checks: checks ?? [],
    note: readNote(note),
  }));
}

/** A comment of somebody else's, or of another version, is no note. */
function readNote(comment: string | null): SchemaNote | null {
  try {
    const note = JSON.parse(comment ?? 'null') as SchemaNote | null;
    return note?.version === 1 ? note : null;
  } catch {
    return null;
  }
}
