import { createHash } from 'node:crypto';
import {
  COLUMN_TYPES,
  columnOf,
  conditionSql,
  fieldNamed,
  isDemanded,
  linkColumnOf,
  linksOf,
  linkTableOf,
  snakeCase,
  sqlLiteral,
  type CheckDefinition,
  type Condition,
  type FieldDefinition,
  type ModelDefinition,
  type SchemaDefinition,
  type UniqueDefinition,
} from '@atomo-cc/schema';
import { LINK_COLUMN_TYPE } from './model-columns.js';

/** Columns of every record, in whichever table; they are nobody's field. */
export const OWN_COLUMNS = 'tenant_id id version created_at updated_at deleted_at valid_from valid_to'.split(' ');
/** Changes of type that keep every value exactly as it was: from, to. */
const WIDENING = ['int numeric', 'int double precision', 'int text', 'numeric text', 'uuid text', 'boolean text'];
/** Characters of a name before its hash: with the hash and a number behind it, 63 bytes are not exceeded. */
const MAX_READABLE = 48;

/** An index as the database has it. `columns` are those of the key. */
export interface IndexState {
  readonly name: string;
  readonly columns: readonly string[];
  readonly isUnique: boolean;
  readonly isPartial: boolean;
}

/** A table as the database has it. Types are written as in `COLUMN_TYPES`. */
export interface TableState {
  readonly table: string;
  readonly columns: Readonly<Record<string, string>>;
  /** Without the one of the primary key. */
  readonly indexes: readonly IndexState[];
  /** Names of the check constraints. */
  readonly checks: readonly string[];
  /** What the last change left there about itself, null where there was none. */
  readonly note: SchemaNote | null;
}

/** The rules of a field that narrow what its column may hold, and that the column itself does not tell. */
interface FieldRules {
  readonly type: string;
  readonly required: boolean;
  readonly maxLength: number | null;
  readonly min: number | null;
  readonly max: number | null;
  readonly scale: number | null;
  readonly values: readonly string[] | null;
}

/**
 * What was declared when a model's table was last changed, kept at the table: what is not there any more although it was,
 * somebody else has taken away; and a rule that was wider may be broken by rows.
 */
export interface SchemaNote {
  readonly version: 1;
  readonly columns: Readonly<Record<string, FieldRules>>;
  readonly uniques: readonly string[];
  readonly indexes: readonly (readonly string[])[];
  readonly checks: readonly string[];
}

/** How rows stand in the way of a step, or what it takes from them. */
export interface Danger {
  /** The table to be looked at, and SQL that answers `rows`, their number, and `ids`, some of them. */
  readonly table: string;
  readonly sql: string;
  /** What becomes of those rows, as the end of a sentence. */
  readonly loss: string;
  /** `drop:Contact.phone`: the step is taken when it is allowed by this name. Null: no permission helps, the rows must change. */
  readonly allow: string | null;
  /** False: `apply` takes the step unasked. */
  readonly isAsked: boolean;
}

/** One change that brings the database to what is declared. */
export interface SchemaStep {
  /** `Contact.phone`, `Contact`, or the name of a table. */
  readonly what: string;
  /** What is done, as a sentence without its end. */
  readonly says: string;
  /** What a starting service does: take the step, stop because it needs it but must not take it, or go on without it. */
  readonly atBoot: 'take' | 'stop' | 'leave';
  readonly create?: NewTable;
  readonly statements: readonly string[];
  /** An index that must not stand under a name of another table; its statement has `$name` where its name belongs. */
  readonly index?: string;
  /** Takes a moment whatever the rows are, and later steps speak of its result. */
  readonly isRename?: boolean;
  /** Run besides where no row stands in the way. */
  readonly unlessBroken?: readonly string[];
  /** Null: no row can stand in the way. It is void as well where there are no such rows. */
  readonly danger: Danger | null;
}

/** A table that is to be made. */
export interface NewTable {
  readonly kind: 'rows' | 'history' | 'links';
  readonly model: ModelDefinition;
  readonly table: string;
}

/** What is to be done, and what somebody else than Atomo has changed. */
export interface SchemaDiff {
  readonly steps: readonly SchemaStep[];
  readonly drift: readonly string[];
}

/** The table of a model's history: `history_contact`. */
export function historyTable(model: ModelDefinition): string {
  return model.table.replace(/^model_/, 'history_');
}

/** The records among which a unique index holds: what is deleted keeps its values, and they are free for others meanwhile. */
const THERE = '"deleted_at" is null';

/** The name of the index that holds records apart: `uq_contact_email_1a2b3c4d`. It changes with fields and condition. */
export function uniqueName(model: ModelDefinition, unique: UniqueDefinition): string {
  const columns = columnsOf(model, unique.fields);
  return named(`uq_${snakeCase(model.name)}_${columns.join('_')}`, [
    ...columns,
    predicateOf(model, unique.where) ?? '',
    THERE,
  ]);
}

/** The name of the constraint that holds a check: `ck_contact_amount_1a2b3c4d`. It changes with the condition. */
export function checkName(model: ModelDefinition, check: CheckDefinition): string {
  return named(`ck_${snakeCase(model.name)}_${snakeCase(check.field)}`, [predicateOf(model, check.condition)!]);
}

/** The name that was declared of one that stands in the database: an index that had to make way has a number behind it. */
export function declaredName(name: string): string {
  return name.replace(/__\d+$/, '');
}

/**
 * The checks that the database holds too. Those about a person are the commands' alone: when someone is forgotten, fields are
 * emptied, and no rule may stand against that.
 */
export function heldChecks(model: ModelDefinition): readonly CheckDefinition[] {
  return model.checks.filter(({ condition }) =>
    fieldsIn(condition).every((name) => fieldNamed(model, name).pii === null),
  );
}

/** The keys of the plain indexes of a model's rows, behind the tenant: relations, and what is declared. */
export function plainIndexes(model: ModelDefinition): readonly (readonly string[])[] {
  const relations = model.fields.filter(({ type }) => type === 'relation').map((field) => [columnOf(field)]);
  const keys = [...relations, ...model.indexes.map((fields) => columnsOf(model, fields))];
  return [...new Map(keys.map((key) => [key.join(), key])).values()];
}

/** What a model's table is to say about itself. */
export function noteOf(model: ModelDefinition): SchemaNote {
  return {
    version: 1,
    columns: Object.fromEntries(model.fields.map((field) => [columnOf(field), rulesOf(field)])),
    uniques: model.uniques.map((unique) => uniqueName(model, unique)),
    indexes: plainIndexes(model),
    checks: heldChecks(model).map((check) => checkName(model, check)),
  };
}

/** The tables of a model by the table of its rows: history, and those of builds that stand beside. */
export function familyOf(table: string): RegExp {
  return new RegExp(`^(${table}|${table.replace(/^model_/, 'history_')})(__b\\d+)?$`);
}

/**
 * Compares what is declared with what is there, and answers the steps from the one to the other, in the order in which they
 * are to be taken. Decides nothing about rows: what depends on them says so in `danger`.
 * @param tables every table of models, histories, builds and links in the database
 */
export function diffSchema(schema: SchemaDefinition, tables: readonly TableState[]): SchemaDiff {
  const parts = schema.models.map((model) =>
    diffModel(
      model,
      tables.filter(({ table }) => familyOf(model.table).test(table)),
    ),
  );
  const links = schema.models.flatMap((model) => linksOf(model).map((relation) => linkTableOf(model, relation)));
  return {
    steps: [
      ...schema.models.flatMap((model) => createdLinks(model, tables)),
      ...parts.flatMap(({ steps }) => steps),
      ...leftOver(schema, tables, links),
    ],
    drift: parts.flatMap(({ drift }) => drift),
  };
}

function diffModel(model: ModelDefinition, found: readonly TableState[]): SchemaDiff {
  const { renames, steps: renaming } = renamesOf(model, found);
  const tables = found.map((table) => renamed(table, renames));
  const live = tables.find(({ table }) => table === model.table);
  const history = tables.find(({ table }) => table === historyTable(model));
  const steps: SchemaStep[] = [
    ...(live ? [] : [created('rows', model, model.table)]),
    ...(history ? [] : [created('history', model, historyTable(model))]),
    ...renaming,
    // Ahead of the columns: no type is changed under a condition that was made for the one before. Of builds that stand beside too.
    ...tables.filter(({ table }) => !table.startsWith('history_')).flatMap((table) => droppedKeys(model, table)),
    ...columnSteps(model, tables, live),
    ...addedColumnSteps(model, tables),
    ...keySteps(model, live),
  ];
  return { steps, drift: live ? driftOf(model, live) : [] };
}

function created(kind: NewTable['kind'], model: ModelDefinition, table: string): SchemaStep {
  const says = `make table ${table}`;
  return { what: model.name, says, atBoot: 'take', create: { kind, model, table }, statements: [], danger: null };
}

function createdLinks(model: ModelDefinition, tables: readonly TableState[]): SchemaStep[] {
  return linksOf(model)
    .map((relation) => linkTableOf(model, relation))
    .filter((name) => !tables.some(({ table }) => table === name))
    .map((name) => created('links', model, name));
}

/**
 * Columns that are no field's and that tables made by older versions lack: when a record was deleted (see PURGED), and in a
 * history the ids that it was linked to.
 */
export function addedColumns(
  model: ModelDefinition,
  kind: 'rows' | 'history',
): readonly (readonly [column: string, type: string])[] {
  const links = linksOf(model).map((relation) => [linkColumnOf(relation), LINK_COLUMN_TYPE] as const);
  return [['deleted_at', 'timestamptz'], ...(kind === 'history' ? links : [])];
}

function addedColumnSteps(model: ModelDefinition, tables: readonly TableState[]): SchemaStep[] {
  const lacking = tables.flatMap(({ table, columns }) =>
    addedColumns(model, table.startsWith('history_') ? 'history' : 'rows')
      .filter(([column]) => columns[column] === undefined)
      .map(([column, type]) => ({ table, column, type })),
  );
  return lacking.map(({ table, column, type }) => ({
    what: model.name,
    says: `add column ${column} (${type}) to ${table}`,
    atBoot: 'take',
    statements: [`alter table ${table} add column "${column}" ${type}`],
    danger: null,
  }));
}

/** The renames that are still to be done, with their steps: the newest former name that the table has is the one. */
function renamesOf(model: ModelDefinition, tables: readonly TableState[]) {
  const live = tables.find(({ table }) => table === model.table);
  const renames: { from: string; to: string }[] = [];
  const steps: SchemaStep[] = [];
  for (const field of model.fields) {
    const to = columnOf(field);
    const former = field.formerly.find((name) => live?.columns[columnOf({ ...field, name })] !== undefined);
    if (!live || live.columns[to] !== undefined || former === undefined) continue;
    const from = columnOf({ ...field, name: former });
    renames.push({ from, to });
    steps.push({
      what: `${model.name}.${former}`,
      says: `rename it to ${field.name}, with its values and those of its past`,
      atBoot: 'take',
      isRename: true,
      statements: tables
        .filter(({ columns }) => columns[from] !== undefined && columns[to] === undefined)
        .map(({ table }) => `alter table ${table} rename column "${from}" to "${to}"`),
      danger: null,
    });
  }
  return { renames, steps };
}

function renamed(state: TableState, renames: readonly { from: string; to: string }[]): TableState {
  const name = (column: string) => renames.find(({ from }) => from === column)?.to ?? column;
  const keys = <Value>(record: Readonly<Record<string, Value>>) =>
    Object.fromEntries(Object.entries(record).map(([column, value]) => [name(column), value]));
  return {
    ...state,
    columns: keys(state.columns),
    indexes: state.indexes.map((index) => ({ ...index, columns: index.columns.map(name) })),
    note: state.note && {
      ...state.note,
      columns: keys(state.note.columns),
      indexes: state.note.indexes.map((columns) => columns.map(name)),
    },
  };
}

function columnSteps(
  model: ModelDefinition,
  tables: readonly TableState[],
  live: TableState | undefined,
): SchemaStep[] {
  const steps: SchemaStep[] = [];
  const declared = new Set([...OWN_COLUMNS, ...model.fields.map(columnOf)]);
  const left = Object.keys(live?.columns ?? {}).filter((column) => !declared.has(column));
  for (const field of model.fields) {
    const column = columnOf(field);
    const what = `${model.name}.${field.name}`;
    const type = COLUMN_TYPES[field.type];
    const lacking = tables.filter(({ columns }) => columns[column] === undefined);
    if (lacking.length > 0) {
      const isNew = live?.columns[column] === undefined;
      const meant = isNew ? left.filter((old) => live?.columns[old] === type) : [];
      steps.push({
        what,
        says: `add column ${column} (${type}) to ${lacking.map(({ table }) => table).join(', ')}`,
        atBoot: 'take',
        statements: lacking.flatMap(({ table }) => [
          `alter table ${table} add column "${column}" ${type}`,
          // The live rows get theirs by name; history and builds are found by their relations too.
          ...(field.type === 'relation' && table !== model.table
            ? [`create index on ${table} (tenant_id, "${column}")`]
            : []),
        ]),
        danger:
          live && meant.length > 0
            ? {
                table: live.table,
                sql: rowsWhere(live.table, meant.map((old) => `"${old}" is not null`).join(' or ')),
                loss: `hold values in ${meant.join(', ')}, which may be this field's old name: say formerly('${camelCase(meant[0]!)}') of it in the schema if it is, or allow a new column`,
                allow: `add:${what}`,
                isAsked: true,
              }
            : null,
      });
      if (isNew && live && isDemanded(field)) steps.push(demanded(what, live.table, 'true'));
    }
    const other = tables.filter(({ columns }) => (columns[column] ?? type) !== type);
    if (other.length > 0) steps.push(typeStep(what, column, type, other));
    const before = live?.note?.columns[column];
    if (live && before && live.columns[column] === type)
      steps.push(...narrowed(what, live.table, column, before, field));
  }
  for (const column of left) {
    const what = `${model.name}.${camelCase(column)}`;
    const having = tables.filter(({ columns }) => columns[column] !== undefined);
    steps.push({
      what,
      says: `drop column ${column} of ${having.map(({ table }) => table).join(', ')}`,
      atBoot: 'leave',
      statements: having.map(({ table }) => `alter table ${table} drop column "${column}"`),
      danger: {
        table: model.table,
        sql: valuesIn(having, column),
        loss: 'lose its value; the log keeps what events say of it',
        allow: `drop:${what}`,
        isAsked: true,
      },
    });
  }
  return steps;
}

function demanded(what: string, table: string, broken: string): SchemaStep {
  return {
    what,
    says: 'demand a value',
    atBoot: 'take',
    statements: [],
    danger: {
      table,
      sql: rowsWhere(table, broken),
      loss: 'have none, and there is no default: they keep none until somebody gives them one',
      allow: `require:${what}`,
      isAsked: true,
    },
  };
}

function typeStep(what: string, column: string, type: string, tables: readonly TableState[]): SchemaStep {
  const [{ table, columns }] = tables as readonly [TableState, ...TableState[]];
  const from = columns[column]!;
  const isWider = tables.every((each) => WIDENING.includes(`${each.columns[column]} ${type}`));
  return {
    what,
    says: `change its type from ${from} to ${type} in ${tables.map((each) => each.table).join(', ')}`,
    atBoot: 'stop',
    statements: tables.map(
      (each) =>
        `alter table ${each.table} alter column "${column}" type ${type} using ${castOf(column, each.columns[column]!, type)}`,
    ),
    danger: {
      table,
      sql: valuesIn(tables, column),
      loss: isWider
        ? 'are written anew, every value as it was; the table is locked meanwhile'
        : `are read anew as ${type}: what does not fit is rounded, or stops the change as a whole`,
      allow: `type:${what}`,
      isAsked: !isWider,
    },
  };
}

function castOf(column: string, from: string, to: string): string {
  const numbers = ['int', 'numeric', 'double precision'];
  // As the log and the API write moments.
  if (from === 'timestamptz' && to === 'text')
    return `to_char("${column}" at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
  if (to === 'jsonb') return `to_jsonb("${column}")`;
  if (from === 'jsonb') return `("${column}" #>> '{}')::${to}`;
  return numbers.includes(from) && numbers.includes(to) ? `"${column}"::${to}` : `"${column}"::text::${to}`;
}

/** Rules that became narrower than the rows were written under. */
function narrowed(
  what: string,
  table: string,
  column: string,
  before: FieldRules,
  field: FieldDefinition,
): SchemaStep[] {
  const steps: SchemaStep[] = [];
  const [now, place] = [rulesOf(field), `"${column}"`];
  if (now.required && !before.required && isDemanded(field)) steps.push(demanded(what, table, `${place} is null`));
  const broken: string[] = [];
  const isTighter = (a: number | null, b: number | null, sign: 1 | -1) =>
    a !== null && (b === null || a * sign < b * sign);
  if (isTighter(now.maxLength, before.maxLength, 1)) broken.push(`char_length(${place}) > ${now.maxLength}`);
  if (isTighter(now.max, before.max, 1)) broken.push(`${place} > ${now.max}`);
  if (isTighter(now.min, before.min, -1)) broken.push(`${place} < ${now.min}`);
  if (isTighter(now.scale, before.scale, 1)) broken.push(`scale(trim_scale(${place})) > ${now.scale}`);
  if (now.values && !before.values?.every((value) => now.values!.includes(value)))
    broken.push(`${place} <> all(${sqlLiteral(now.values)}::text[])`);
  if (broken.length > 0) {
    steps.push({
      what,
      says: 'allow less than before',
      atBoot: 'take',
      statements: [],
      danger: {
        table,
        sql: rowsWhere(table, broken.join(' or ')),
        loss: 'have values that are allowed no longer: they keep them, and are read with them, until the field is next written',
        allow: `narrow:${what}`,
        isAsked: true,
      },
    });
  }
  return steps;
}

/** Keys and checks of ours that a table of rows has and that are declared no longer; indexes that others made stay. */
function droppedKeys(model: ModelDefinition, state: TableState): SchemaStep[] {
  const note = noteOf(model);
  const isKey = (keys: readonly (readonly string[])[], columns: readonly string[]) =>
    keys.some((key) => ['tenant_id', ...key].join() === columns.join());
  const indexes = state.indexes.filter(({ name, columns, isUnique }) =>
    isUnique
      ? name.startsWith('uq_') && !note.uniques.includes(declaredName(name))
      : isKey(state.note?.indexes ?? [], columns) && !isKey(note.indexes, columns),
  );
  const step = (says: string, statement: string): SchemaStep => ({
    what: model.name,
    says,
    atBoot: 'take',
    statements: [statement],
    danger: null,
  });
  return [
    ...indexes.map(({ name }) => step(`drop index ${name}`, `drop index if exists "${name}"`)),
    ...state.checks
      .filter((name) => name.startsWith('ck_') && !note.checks.includes(name))
      .map((name) => step(`drop check ${name}`, `alter table ${state.table} drop constraint if exists "${name}"`)),
  ];
}

/**
 * What a table of a model's rows lacks in indexes and checks.
 * @param live the live table, or one that is about to take its place; undefined for one that is only just made
 */
export function keySteps(model: ModelDefinition, live: TableState | undefined): SchemaStep[] {
  const what = model.name;
  const table = live?.table ?? model.table;
  const steps: SchemaStep[] = [];
  for (const columns of live ? plainIndexes(model) : []) {
    const key = ['tenant_id', ...columns];
    if (live!.indexes.some((index) => !index.isPartial && index.columns.join() === key.join())) continue;
    const name = named(`ix_${snakeCase(model.name)}_${columns.join('_')}`, columns);
    steps.push({
      what,
      says: `make index ${name} on (${columns.join(', ')})`,
      atBoot: 'take',
      index: name,
      statements: [`create index "$name" on ${table} (${key.map(quoted).join(', ')})`],
      danger: null,
    });
  }
  for (const unique of model.uniques) {
    const name = uniqueName(model, unique);
    const columns = columnsOf(model, unique.fields);
    const key = ['tenant_id', ...columns];
    if (
      live?.indexes.some(
        (index) => index.isUnique && declaredName(index.name) === name && index.columns.join() === key.join(),
      )
    )
      continue;
    const where = predicateOf(model, unique.where);
    const among = where ? `${THERE} and (${where})` : THERE;
    const held = [...columns.map((column) => `"${column}" is not null`), among].join(' and ');
    const list = key.map(quoted).join(', ');
    steps.push({
      what: `${what}.${unique.fields.join('+')}`,
      says: `hold it unique in each tenant${where ? ` where ${where}` : ''} (index ${name})`,
      atBoot: 'take',
      index: name,
      statements: [`create unique index "$name" on ${table} (${list}) where ${among}`],
      danger:
        (live && {
          table,
          sql: `select count(*)::int as rows, (array_agg(d.id))[1:${MAX_IDS}] as ids from (
                select id, count(*) over (partition by ${list}) as n from ${table} where ${held}
                order by ${list}, id) d where d.n > 1`,
          loss: 'are alike in it: change them first',
          allow: null,
          isAsked: true,
        }) ||
        null,
    });
  }
  for (const check of heldChecks(model)) {
    const name = checkName(model, check);
    if (live?.checks.includes(name)) continue;
    const condition = predicateOf(model, check.condition)!;
    steps.push({
      what: `${what}.${check.field}`,
      says: `hold the check "${check.message}" (constraint ${name})`,
      atBoot: 'take',
      statements: [`alter table ${table} add constraint "${name}" check (${condition}) not valid`],
      unlessBroken: [`alter table ${table} validate constraint "${name}"`],
      danger: live
        ? {
            table,
            sql: rowsWhere(table, `(${condition}) is false`),
            loss: 'break it: they keep their values, but cannot be changed without correcting them',
            allow: `check:${what}.${check.field}`,
            isAsked: true,
          }
        : null,
    });
  }
  return steps;
}

/** Tables of models and links that are declared no longer. */
function leftOver(schema: SchemaDefinition, tables: readonly TableState[], links: readonly string[]): SchemaStep[] {
  return tables
    .map(({ table }) => table)
    .filter((table) => !/__b\d+$/.test(table))
    .filter((table) =>
      table.startsWith('link_')
        ? !links.includes(table)
        : table.startsWith('model_') && !schema.models.some((model) => model.table === table),
    )
    .map((table) => {
      const family = tables.map((each) => each.table).filter((name) => name === table || familyOf(table).test(name));
      return {
        what: table,
        says: `drop ${family.join(', ')}`,
        atBoot: 'leave',
        statements: family.map((name) => `drop table ${name}`),
        danger: {
          table,
          sql: `select count(*)::int as rows, '{}'::text[] as ids from ${table}`,
          loss: 'are lost; the log keeps their events',
          allow: `drop:${table}`,
          isAsked: true,
        },
      };
    });
}

function driftOf(model: ModelDefinition, live: TableState): string[] {
  const { note } = live;
  if (!note) return [];
  const has = (columns: readonly string[]) =>
    live.indexes.some((index) => index.columns.join() === ['tenant_id', ...columns].join());
  const gone = [
    ...Object.keys(note.columns)
      .filter((column) => live.columns[column] === undefined)
      .map((each) => `column ${each}`),
    ...note.uniques
      .filter((name) => !live.indexes.some((index) => declaredName(index.name) === name))
      .map((each) => `unique index ${each}`),
    ...note.indexes.filter((columns) => !has(columns)).map((each) => `the index on (${each.join(', ')})`),
    ...note.checks.filter((name) => !live.checks.includes(name)).map((each) => `check ${each}`),
  ];
  const changed = Object.entries(note.columns).filter(
    ([column, { type }]) => live.columns[column] !== undefined && live.columns[column] !== type,
  );
  return [
    ...gone.map((each) => `${model.name}: ${each} of ${live.table} was taken away by somebody else.`),
    ...changed.map(
      ([column, { type }]) =>
        `${model.name}: column ${column} of ${live.table} was changed from ${type} to ${live.columns[column]} by somebody else.`,
    ),
  ];
}

/** Ids that are told of the rows in the way: enough to begin with. */
const MAX_IDS = 5;

function rowsWhere(table: string, condition: string): string {
  return `select count(*)::int as rows, (array_agg(id))[1:${MAX_IDS}] as ids from ${table} where ${condition}`;
}

/** Records with a value in any table that has the column: what is no longer in the rows may still be in their history. */
function valuesIn(tables: readonly TableState[], column: string): string {
  const each = tables.map(({ table }) => `select tenant_id, id from ${table} where "${column}" is not null`);
  return `select count(*)::int as rows, '{}'::text[] as ids from (${each.join(' union ')}) v`;
}

function rulesOf(field: FieldDefinition): FieldRules {
  const { required, maxLength, min, max, scale, values } = field;
  return { type: COLUMN_TYPES[field.type], required, maxLength, min, max, scale, values };
}

function columnsOf(model: ModelDefinition, fields: readonly string[]): string[] {
  return fields.map((name) => columnOf(fieldNamed(model, name)));
}

function predicateOf(model: ModelDefinition, condition: Condition | null): string | null {
  return condition && conditionSql(model, condition, { column: (field) => `"${columnOf(field)}"`, value: sqlLiteral });
}

function fieldsIn(condition: Condition): string[] {
  if (!('field' in condition)) return [condition.of].flat().flatMap(fieldsIn);
  const other = 'operand' in condition && 'field' in condition.operand ? [condition.operand.field] : [];
  return [condition.field, ...other];
}

function named(readable: string, parts: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 8);
  return `${readable.slice(0, MAX_READABLE)}_${hash}`;
}

function quoted(column: string): string {
  return column === 'tenant_id' ? column : `"${column}"`;
}

function camelCase(column: string): string {
  return column.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
