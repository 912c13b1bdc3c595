import type { TenantId } from '@atomo-cc/kernel';
import { SYSTEM_ROLE, type Tx } from './database.js';
import { changeTables } from './migrate.js';

/** Rows deleted in one transaction: so that an interruption costs little, and nobody waits long for a lock. */
const ROWS_PER_DELETE = 20_000;

/**
 * The tables that hold rows of tenants, found in the catalogue so that none can be forgotten: each before those that its foreign
 * keys point to, so that what refers to a row goes before it.
 */
export async function tenantTables(tx: Tx): Promise<string[]> {
  const tables = await tx.query<{ name: string; refers_to: string[] }>(
    `select c.oid::regclass::text as name,
            array(select distinct f.confrelid::regclass::text from pg_constraint f
                  where f.conrelid = c.oid and f.contype = 'f' and f.confrelid <> c.oid) as refers_to
     from pg_class c
     join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
     where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace = current_schema()::regnamespace
     order by 1`,
  );
  const left = new Map(tables.map((table) => [table.name, table]));
  const ordered: string[] = [];
  while (left.size > 0) {
    const names = [...left.keys()];
    const free = names.filter((name) => ![...left.values()].some((other) => other.refers_to.includes(name)));
    // Tables that refer to each other in a circle would need their constraints deferred; Atomo has none.
    if (free.length === 0) throw new Error(`tables refer to each other in a circle: ${names.join(', ')}`);
    for (const name of free) left.delete(name);
    ordered.push(...free);
  }
  return ordered;
}

/**
 * Deletes all rows of a tenant from every table that has any, with the owner's rights, in transactions of limited size: after an
 * interruption it is called again. It goes over the tables until a round finds nothing, so that what was written meanwhile is
 * deleted too. The log is no exception: the right to delete from it is given to the system role inside each transaction and taken
 * back before its end, so that it never is anybody's.
 * @param url of the tables' owner
 * @param options.except tables that are left as they are
 * @param options.onDeleted told after each transaction
 * @returns rows deleted
 */
export async function deleteTenantRows(
  url: string,
  tenant: TenantId,
  options: { readonly except?: readonly string[]; readonly onDeleted?: (table: string, rows: number) => void } = {},
): Promise<number> {
  let total = 0;
  for (let isOver = false; !isOver;) {
    const deleted = new Map<string, number>();
    await changeTables(url, async (tx) => {
      deleted.clear();
      const tables = (await tenantTables(tx)).filter((table) => !options.except?.includes(table));
      let left = ROWS_PER_DELETE;
      for (const table of tables) {
        if (left <= 0) return;
        const rows = await deleteSome(tx, table, tenant, left);
        if (rows > 0) deleted.set(table, rows);
        left -= rows;
      }
    });
    for (const [table, rows] of deleted) {
      options.onDeleted?.(table, rows);
      total += rows;
    }
    isOver = deleted.size === 0;
  }
  return total;
}

async function deleteSome(tx: Tx, table: string, tenant: TenantId, limit: number): Promise<number> {
  const [may] = await tx.query<{ select: boolean; delete: boolean }>(
    `select has_table_privilege($1, $2, 'select') as select, has_table_privilege($1, $2, 'delete') as delete`,
    [SYSTEM_ROLE, table],
  );
  const lacking = (['select', 'delete'] as const).filter((right) => !may![right]).join(', ');
  if (lacking) await tx.execute(`grant ${lacking} on ${table} to ${SYSTEM_ROLE}`);
  // Row-level security is forced for the owner as well; the system role's policy lets it see the rows.
  await tx.execute(`set local role ${SYSTEM_ROLE}`);
  const rows = await tx.execute(
    `delete from ${table} where ctid = any(array(select ctid from ${table} where tenant_id = $1 limit $2))`,
    [tenant, limit],
  );
  await tx.execute('reset role');
  if (lacking) await tx.execute(`revoke ${lacking} on ${table} from ${SYSTEM_ROLE}`);
  return rows;
}
