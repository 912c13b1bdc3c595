import { CodedError } from '@atomo-cc/kernel';
import { COLUMN_TYPES, columnOf, sqlLiteral, type ModelDefinition, type SchemaDefinition } from '@atomo-cc/schema';
import { changeTables, sqlState, SYSTEM_ROLE, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import {
  addedColumns,
  diffSchema,
  historyTable,
  keySteps,
  noteOf,
  plainIndexes,
  type Danger,
  type SchemaStep,
  type TableState,
} from './schema-diff.js';
import { readTables } from './table-states.js';

/** What stops a service, or `npm run migrate`, before anything was changed. */
export const MIGRATION_ERRORS = {
  SCHEMA_NEEDS_MIGRATION:
    'The schema needs changes of tables that take something away or that rows stand against. See what they are with npm run migrate -- plan.',
  MIGRATION_REFUSED:
    'The change was not made, and nothing else was: the message tells which rows or permissions it lacks.',
} as const;

/** A step, with the rows that stand in its way or lose by it. */
export interface PlannedStep extends SchemaStep {
  /** Null: it cannot be known before the steps ahead of it are taken. */
  readonly rows: number | null;
  /** Records among them. */
  readonly ids: readonly string[];
  /** Whether it waits for a permission, or for other rows. */
  readonly waits: boolean;
}

/** What was found, and what was done about it. */
export interface MigrationReport {
  readonly steps: readonly PlannedStep[];
  /** Sentences on what somebody else has changed. */
  readonly drift: readonly string[];
  /** Steps that were passed by, because nobody allowed them and nothing needs them. */
  readonly left: readonly PlannedStep[];
}

/** How long a change waits for those who use a table; whoever comes later waits behind it. */
const LOCK_TIMEOUT_MS = 10_000;
/** SQLSTATE of a statement that has waited as long. */
const LOCK_NOT_AVAILABLE = '55P03';

/**
 * Gives every model its tables, and brings those that are there to what is declared, as far as nothing can be lost: missing
 * tables, columns, indexes and constraints are made. Columns may be null even where the model demands a value, because rows
 * older than the demand lack it; the command is what checks the demand. What is declared no longer stays until it is
 * dropped by name. All or nothing; safe to call from many processes at once.
 * @throws CodedError SCHEMA_NEEDS_MIGRATION when a step is needed that may lose something, or that rows stand against;
 * MIGRATION_REFUSED when a table is not let go of
 */
export async function createModelTables(databaseUrl: string, schema: SchemaDefinition): Promise<MigrationReport> {
  return inChange(databaseUrl, async (tx) => {
    const report = await takeSteps(tx, schema, [], 'boot');
    const stopped = report.steps.filter(({ waits }) => waits);
    if (stopped.length === 0) return report;
    throw new CodedError(
      'SCHEMA_NEEDS_MIGRATION',
      `The database does not fit the schema, and bringing it there needs a decision: see npm run migrate -- plan. ${stopped.map(sentenceOf).join(' ')}`,
    );
  });
}

/** What `applyMigration` would do, and what it would wait for. Changes nothing. */
export async function planMigration(
  databaseUrl: string,
  schema: SchemaDefinition,
  allowed: readonly string[] = [],
): Promise<MigrationReport> {
  let report: MigrationReport | undefined;
  const undo = new Error('a plan changes nothing');
  await changeTables(databaseUrl, async (tx) => {
    report = await takeSteps(tx, schema, allowed, 'plan');
    throw undo;
  }).catch((error: unknown) => {
    if (error !== undo) throw error;
  });
  return report!;
}

/**
 * Takes the steps that are safe, or allowed by their names (`drop:Contact.phone`), all in one transaction. Done again it finds nothing to do.
 * @throws CodedError MIGRATION_REFUSED, with nothing changed, when a needed step lacks a permission or rows stand against it
 */
export async function applyMigration(
  databaseUrl: string,
  schema: SchemaDefinition,
  allowed: readonly string[] = [],
): Promise<MigrationReport> {
  return inChange(databaseUrl, async (tx) => {
    const report = await takeSteps(tx, schema, allowed, 'apply');
    const stopped = report.steps.filter(({ waits }) => waits);
    if (stopped.length === 0) return report;
    throw new CodedError('MIGRATION_REFUSED', `Nothing was changed. ${stopped.map(sentenceOf).join(' ')}`);
  });
}

/** The verbs of what steps cost, as they are said of one row. */
const OF_ONE: Readonly<Record<string, string>> = {
  are: 'is',
  break: 'breaks',
  have: 'has',
  hold: 'holds',
  lose: 'loses',
};

/** A step that waits, with what it would cost and how it is allowed. */
export function sentenceOf({ what, says, danger, rows, ids, waits }: PlannedStep): string {
  const said = `${what}: ${says}.`;
  if (!danger) return said;
  const count = rows === null ? 'An unknown number of rows' : rows === 1 ? '1 row' : `${rows} rows`;
  const some = ids.length > 0 && danger.allow === null ? ` (such as ${ids.join(', ')})` : '';
  const loss = rows === 1 ? danger.loss.replace(/^\w+/, (verb) => OF_ONE[verb] ?? verb) : danger.loss;
  const cost = rows === 0 ? '' : ` ${count}${some} ${loss}.`;
  return `${said}${cost}${waits && danger.isAsked && danger.allow ? ` Allow it with --allow ${danger.allow}.` : ''}`;
}

async function inChange<Result>(databaseUrl: string, work: (tx: Tx) => Promise<Result>): Promise<Result> {
  let result: Result | undefined;
  await changeTables(databaseUrl, async (tx) => {
    result = await work(tx);
  }).catch((error: unknown) => {
    if (sqlState(error) !== LOCK_NOT_AVAILABLE) throw error;
    const said = `Nothing was changed: a transaction has kept a table that the change needs for more than ${LOCK_TIMEOUT_MS / 1_000} s. Look for it in pg_stat_activity, then try again.`;
    throw new CodedError('MIGRATION_REFUSED', said, undefined, { cause: error });
  });
  return result!;
}

async function takeSteps(
  tx: Tx,
  schema: SchemaDefinition,
  allowed: readonly string[],
  mode: 'boot' | 'plan' | 'apply',
): Promise<MigrationReport> {
  await tx.query(`select set_config('lock_timeout', $1, true)`, [String(LOCK_TIMEOUT_MS)]);
  const tables = await readTables(tx);
  const diff = diffSchema(schema, tables);
  if (mode !== 'plan') await holdWriters(tx, diff.steps, tables);
  const steps: PlannedStep[] = [];
  const left: PlannedStep[] = [];
  for (const step of diff.steps) {
    const { rows, ids } = step.danger ? await lookAt(tx, step.danger) : { rows: 0, ids: [] };
    const isAllowed = allowed.includes(step.danger?.allow ?? '');
    // Nothing is dropped unasked, also not where no row has it: an older process may be about to write one.
    const isFree = isAllowed || (step.atBoot !== 'leave' && (rows === 0 || !step.danger?.isAsked));
    const planned = {
      ...step,
      rows,
      ids,
      waits: mode === 'boot' ? rows !== 0 && (step.atBoot === 'stop' || !isFree) : !isFree,
    };
    if (step.atBoot === 'leave' && (mode === 'boot' || planned.waits)) {
      left.push({ ...planned, waits: true });
      continue;
    }
    steps.push(planned);
    // A plan renames, and is rolled back: what comes behind speaks of the new names.
    if (!planned.waits && (mode !== 'plan' || step.isRename)) await take(tx, planned);
  }
  if (mode !== 'plan' && !steps.some(({ waits }) => waits)) await writeNotes(tx, schema, tables);
  return { steps, drift: diff.drift, left };
}

/** Nobody writes into a table between the look at its rows and the change that depends on them. */
async function holdWriters(tx: Tx, steps: readonly SchemaStep[], tables: readonly TableState[]): Promise<void> {
  const looked = steps.flatMap(({ atBoot, danger }) => (danger && atBoot !== 'leave' ? [danger.table] : []));
  const there = tables.map(({ table }) => table).filter((table) => looked.includes(table));
  if (there.length > 0) await tx.query(`lock table ${there.sort().join(', ')} in share row exclusive mode`);
}

/** Row-level security holds for the owner too, so it is the system role that sees the rows. */
async function lookAt(tx: Tx, danger: Danger): Promise<{ rows: number | null; ids: readonly string[] }> {
  await tx.query('savepoint look');
  try {
    await tx.query(`set local role ${SYSTEM_ROLE}`);
    const [found] = await tx.query<{ rows: number; ids: string[] | null }>(danger.sql);
    await tx.query('set local role none');
    return { rows: found!.rows, ids: found!.ids ?? [] };
  } catch (error) {
    // A column that only an earlier step makes, or whose type it changes.
    if (!sqlState(error)?.startsWith('42')) throw error;
    await tx.query('rollback to savepoint look');
    return { rows: null, ids: [] };
  }
}

/**
 * SQLSTATE classes of a step that the database refuses for what is in it: values that do not fit, and views, indexes and functions that
 * others have made of a column.
 */
const STANDS_AGAINST = /^(0A|22|2B|42)/;

async function take(tx: Tx, { create, statements, index, unlessBroken = [], rows, what }: PlannedStep): Promise<void> {
  if (create?.kind === 'rows') await createModelTable(tx, create.model, create.table);
  if (create?.kind === 'history') await createHistoryTable(tx, create.model, create.table);
  if (create?.kind === 'links') await createLinkTable(tx, create.table);
  const name = index === undefined ? '' : await freeName(tx, index);
  for (const statement of [...statements, ...(rows === 0 ? unlessBroken : [])]) {
    try {
      await tx.execute(statement.replace('$name', name));
    } catch (error) {
      if (!STANDS_AGAINST.test(sqlState(error) ?? '')) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new CodedError('MIGRATION_REFUSED', `Nothing was changed. ${what}: ${reason}.`, undefined, {
        cause: error,
      });
    }
  }
}

/** The table of a build that retired keeps its indexes under their names; another one then has a number behind it. */
async function freeName(tx: Tx, name: string): Promise<string> {
  const taken = await tx.query<{ name: string }>(
    `select relname::text as name from pg_class
     where relnamespace = 'public'::regnamespace and relname ~ ('^' || $1 || '(__[0-9]+)?$')`,
    [name],
  );
  if (!taken.some((each) => each.name === name)) return name;
  let number = 1;
  while (taken.some((each) => each.name === `${name}__${number}`)) number += 1;
  return `${name}__${number}`;
}

async function writeNotes(tx: Tx, schema: SchemaDefinition, tables: readonly TableState[]): Promise<void> {
  for (const model of schema.models) {
    const note = noteOf(model);
    const before = tables.find(({ table }) => table === model.table)?.note ?? null;
    if (JSON.stringify(before) === JSON.stringify(note)) continue;
    await tx.execute(`comment on table ${model.table} is ${sqlLiteral(JSON.stringify(note))}`);
  }
}

/**
 * Makes the table of a relation's links from record to record, unless it is there; the owner is the one whose model declares it.
 * @param table the physical name, as for the rows
 */
export async function createLinkTable(tx: Tx, table: string): Promise<void> {
  const [found] = await tx.query<{ is: boolean }>('select to_regclass($1) is not null as is', [`public.${table}`]);
  if (found!.is) return;
  await tx.execute(
    `create table ${table} (tenant_id uuid not null, owner_id uuid not null, target_id uuid not null,
       primary key (tenant_id, owner_id, target_id))`,
  );
  await tx.execute(`create index on ${table} (tenant_id, target_id)`);
  const grants = { app: 'select, insert, delete', system: 'select, insert, update, delete' };
  for (const statement of tenantTable(table, grants)) await tx.execute(statement);
}

/**
 * Makes the table of a model's read rows under any name, or adds the columns that it lacks. Needs the owner's rights.
 * @param table the physical name: a rebuilt table stands beside the one that is read, until they change their names
 */
export async function createModelTable(tx: Tx, model: ModelDefinition, table: string = model.table): Promise<void> {
  await createTable(tx, model, table, {
    columns: 'version int not null, created_at timestamptz not null, updated_at timestamptz not null',
    key: 'tenant_id, id',
    more: addedColumns(model, 'rows'),
    // Commands write these rows, and they run under the application's role.
    app: 'select, insert, update',
    indexes: plainIndexes(model),
  });
}

/**
 * Gives a rebuilt table the unique indexes and checks of the live one, right before it takes its place. Not earlier: while the
 * log is applied, a row may hold for a moment what another one held before. Done again it changes nothing.
 */
export async function completeModelTable(tx: Tx, model: ModelDefinition, table: string): Promise<void> {
  const state = (await readTables(tx)).find((each) => each.table === table);
  for (const step of keySteps(model, state)) await take(tx, { ...step, rows: null, ids: [], waits: false });
  await tx.execute(`comment on table ${table} is ${sqlLiteral(JSON.stringify(noteOf(model)))}`);
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
    indexes: model.fields.filter(({ type }) => type === 'relation').map((field) => [columnOf(field)]),
    more: addedColumns(model, 'history'),
    storage: 'with (fillfactor = 50)',
  });
}

interface TableShape {
  readonly columns: string;
  readonly key: string;
  readonly app: string;
  readonly storage?: string;
  /** Columns besides those of the fields, with their types. */
  readonly more: readonly (readonly [column: string, type: string])[];
  /** Keys behind the tenant; Postgres names them, since builds have the same. */
  readonly indexes: readonly (readonly string[])[];
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
  const missing = model.fields.filter((field) => !existing?.columns?.includes(columnOf(field)));
  for (const field of missing) {
    await tx.execute(`alter table ${table} add column "${columnOf(field)}" ${COLUMN_TYPES[field.type]}`);
  }
  for (const [column, type] of shape.more) {
    if (!existing?.columns?.includes(column)) await tx.execute(`alter table ${table} add column "${column}" ${type}`);
  }
  const isNew = (key: readonly string[]) => key.some((column) => missing.some((field) => columnOf(field) === column));
  for (const key of shape.indexes.filter(isNew)) {
    await tx.execute(`create index on ${table} (tenant_id, ${key.map((column) => `"${column}"`).join(', ')})`);
  }
}
