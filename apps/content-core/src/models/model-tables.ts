import { columnOf, type FieldDefinition, type ModelDefinition, type SchemaDefinition } from '@atomo-cc/schema';
import { changeTables, tenantTable, type Tx } from '@atomo-cc/platform/postgres';

/** The type of the column that holds a field. */
export const COLUMN_TYPES: Readonly<Record<FieldDefinition['type'], string>> = {
  text: 'text',
  email: 'text',
  number: 'double precision',
  boolean: 'boolean',
  date: 'date',
  enum: 'text',
  relation: 'uuid',
};

/**
 * Gives every model the table of its read rows. Additive only: tables and columns that are missing are made, nothing is
 * changed or dropped. Columns may be null even where the model demands a value, because rows older than the demand lack it;
 * the command is what checks the demand.
 */
export async function createModelTables(databaseUrl: string, schema: SchemaDefinition): Promise<void> {
  await changeTables(databaseUrl, async (tx) => {
    for (const model of schema.models) await createModelTable(tx, model);
  });
}

async function createModelTable(tx: Tx, model: ModelDefinition): Promise<void> {
  const [existing] = await tx.query<{ columns: string[] | null }>(
    `select array_agg(attname::text) as columns from pg_attribute
     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped`,
    [`public.${model.table}`],
  );
  if (!existing?.columns) {
    await tx.execute(
      `create table ${model.table} (
         tenant_id uuid not null,
         id uuid not null,
         version int not null,
         created_at timestamptz not null,
         updated_at timestamptz not null,
         primary key (tenant_id, id)
       )`,
    );
    const grants = { app: 'select, insert, update', system: 'select, insert, update, delete' };
    for (const statement of tenantTable(model.table, grants)) await tx.execute(statement);
  }
  for (const field of model.fields) {
    const column = columnOf(field);
    if (existing?.columns?.includes(column)) continue;
    await tx.execute(`alter table ${model.table} add column "${column}" ${COLUMN_TYPES[field.type]}`);
    if (field.type === 'relation') await tx.execute(`create index on ${model.table} (tenant_id, "${column}")`);
  }
}
