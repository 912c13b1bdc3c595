import {
  columnOf,
  type FieldDefinition,
  type FieldValue,
  type ModelDefinition,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import {
  booleanArray,
  changeTables,
  doubleArray,
  intArray,
  jsonArray,
  tenantTable,
  textArray,
  type Tx,
} from '@atomo-cc/platform/postgres';

/** The type of the column that holds a field. */
export const COLUMN_TYPES: Readonly<Record<FieldDefinition['type'], string>> = {
  text: 'text',
  richText: 'text',
  email: 'text',
  url: 'text',
  slug: 'text',
  integer: 'int',
  decimal: 'numeric',
  number: 'double precision',
  boolean: 'boolean',
  date: 'date',
  datetime: 'timestamptz',
  json: 'jsonb',
  enum: 'text',
  file: 'uuid',
  geoPoint: 'jsonb',
  blocks: 'jsonb',
  relation: 'uuid',
};

/** The types of parameters that hold a column's values; what is not listed comes as `text[]` and is cast. */
export const ARRAY_TYPES: Readonly<Partial<Record<FieldDefinition['type'], string>>> = {
  number: 'double precision[]',
  integer: 'int[]',
  boolean: 'boolean[]',
  json: 'jsonb[]',
  geoPoint: 'jsonb[]',
  blocks: 'jsonb[]',
};

/**
 * A column's values as a parameter of its array type. Where one is of another kind than the field (it was written when the
 * field had another type), the array is one of texts, and Postgres reads them as the column's type or refuses them.
 */
export function columnArray(field: FieldDefinition, values: readonly FieldValue[]): Buffer | (string | null)[] {
  switch (field.type) {
    case 'json':
    case 'geoPoint':
    case 'blocks':
      return jsonArray(values.map((value) => (value === null ? null : JSON.stringify(value))));
    case 'number':
      return values.every(isOrNull(isNumber)) ? doubleArray(values) : texts(values);
    case 'integer':
      return values.every(isOrNull(isInteger)) ? intArray(values) : texts(values);
    case 'boolean':
      return values.every(isOrNull(isBoolean)) ? booleanArray(values) : texts(values);
    default:
      return values.every(isOrNull(isText)) ? textArray(values) : texts(values);
  }
}

const isNumber = (value: FieldValue): value is number => typeof value === 'number';
const isInteger = (value: FieldValue): value is number =>
  Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;
const isBoolean = (value: FieldValue): value is boolean => typeof value === 'boolean';
const isText = (value: FieldValue): value is string => typeof value === 'string';
const isOrNull =
  <Kind extends FieldValue>(is: (value: FieldValue) => value is Kind) =>
  (value: FieldValue): value is Kind | null =>
    value === null || is(value);

function texts(values: readonly FieldValue[]): (string | null)[] {
  return values.map((value) => (value === null || typeof value === 'string' ? value : JSON.stringify(value)));
}

/** The table of a model's history: `history_contact`. */
export function historyTable(model: ModelDefinition): string {
  return model.table.replace(/^model_/, 'history_');
}

/**
 * Gives every model the table of its read rows and that of its history. Additive only: tables and columns that are missing
 * are made, nothing is changed or dropped. A column that comes later holds null in the rows that are there. Columns may be
 * null even where the model demands a value, because rows older than the demand lack it; the command is what checks the demand.
 */
export async function createModelTables(databaseUrl: string, schema: SchemaDefinition): Promise<void> {
  await changeTables(databaseUrl, async (tx) => {
    for (const model of schema.models) {
      await createModelTable(tx, model);
      await createHistoryTable(tx, model);
    }
  });
}

/**
 * Makes the table of a model's read rows under any name, or adds the columns that it lacks. Needs the owner's rights.
 * @param table the physical name: a rebuilt table stands beside the one that is read, until they change their names
 */
export async function createModelTable(tx: Tx, model: ModelDefinition, table: string = model.table): Promise<void> {
  await createTable(tx, model, table, {
    columns: 'version int not null, created_at timestamptz not null, updated_at timestamptz not null',
    key: 'tenant_id, id',
    // Commands write these rows, and they run under the application's role.
    app: 'select, insert, update',
  });
}

/**
 * Makes the table of a model's history under any name, or adds the columns that it lacks. Needs the owner's rights.
 *
 * The key is what a record's state at some time is found by: the newest row of the record that begins at or before it, one
 * step down the index however many versions there are. No index has `valid_to`, and pages are left half empty: every row is
 * closed once, and finds room for that on its own page (a heap-only update), which moves no index entry. With fuller pages
 * three in four do not, and the table gets no smaller, because the closed rows then lie elsewhere.
 */
export async function createHistoryTable(
  tx: Tx,
  model: ModelDefinition,
  table: string = historyTable(model),
): Promise<void> {
  await createTable(tx, model, table, {
    columns: `version int not null, valid_from timestamptz not null, valid_to timestamptz not null,
       created_at timestamptz not null, updated_at timestamptz not null`,
    key: 'tenant_id, id, valid_from, version',
    // Only the projection writes history.
    app: 'select',
    storage: 'with (fillfactor = 50)',
  });
}

interface TableShape {
  readonly columns: string;
  readonly key: string;
  readonly app: string;
  readonly storage?: string;
}

async function createTable(tx: Tx, model: ModelDefinition, table: string, shape: TableShape): Promise<void> {
  const [existing] = await tx.query<{ columns: string[] | null }>(
    `select array_agg(attname::text) as columns from pg_attribute
     where attrelid = to_regclass($1) and attnum > 0 and not attisdropped`,
    [`public.${table}`],
  );
  if (!existing?.columns) {
    await tx.execute(
      `create table ${table} (tenant_id uuid not null, id uuid not null, ${shape.columns}, primary key (${shape.key}))
       ${shape.storage ?? ''}`,
    );
    const grants = { app: shape.app, system: 'select, insert, update, delete' };
    for (const statement of tenantTable(table, grants)) await tx.execute(statement);
  }
  for (const field of model.fields) {
    const column = columnOf(field);
    if (existing?.columns?.includes(column)) continue;
    await tx.execute(`alter table ${table} add column "${column}" ${COLUMN_TYPES[field.type]}`);
    if (field.type === 'relation') await tx.execute(`create index on ${table} (tenant_id, "${column}")`);
  }
}
