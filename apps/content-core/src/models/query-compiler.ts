import { apiError, isUuid, type TenantId } from '@atomo-cc/kernel';
import {
  columnOf,
  inputName,
  isCalendarDate,
  modelNamed,
  type FieldDefinition,
  type ModelDefinition,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import type { Selection } from '../api/index.js';
import { historyTable } from './model-tables.js';

/** One statement with its parameters. */
export interface CompiledQuery {
  readonly text: string;
  readonly parameters: readonly unknown[];
}

/** A condition as the API takes it: `{and: [...], name: {contains: 'x'}}`. */
export type Where = Readonly<Record<string, unknown>>;
/** One key of an order, `{name: 'ASC'}`. */
export type OrderBy = Readonly<Record<string, 'ASC' | 'DESC'>>;

/** What a list is compiled from. */
export interface ListQuery {
  readonly where: Where | null;
  readonly orderBy: readonly OrderBy[];
  /** The key values behind which the page starts, as many as `orderKeys` has. */
  readonly after: readonly unknown[] | null;
  /** How many rows to read: the page's size and one more, which tells whether there is a next page. */
  readonly limit: number;
  /** What to read of each record. */
  readonly node: Selection;
  readonly withTotal: boolean;
  /** The time as of which all is read, ISO 8601; null or absent for now. */
  readonly asOf?: string | null;
}

/** Nested conditions that no honest caller reaches; each level costs planning time. */
const MAX_WHERE_DEPTH = 10;
/** Members of an `in` list or conditions in an `and` or `or`; beyond, the query is a job for a batch. */
const MAX_WHERE_WIDTH = 1_000;
/** Values of a whole query. Planning time grows with them, and Postgres' protocol counts parameters in 16 bits. */
const MAX_PARAMETERS = 2_000;

class Parameters {
  readonly values: unknown[] = [];

  /** Adds a value and answers its place, `$3`. @throws CodedError QUERY_TOO_COMPLEX */
  add(value: unknown): string {
    if (this.values.length === MAX_PARAMETERS) {
      throw apiError(
        'QUERY_TOO_COMPLEX',
        `where compares with more than ${MAX_PARAMETERS} values. Ask in several queries.`,
      );
    }
    this.values.push(value);
    return `$${this.values.length}`;
  }
}

/** What is read: the records as they are, or as they were. */
class Source {
  /** @param at the place of the time's parameter; null for now */
  constructor(
    readonly schema: SchemaDefinition,
    private readonly at: string | null,
  ) {}

  /** The table to read many records from. */
  table(model: ModelDefinition): string {
    return this.at === null ? model.table : historyTable(model);
  }

  /** A condition that leaves one row of each record that existed: to be set before any other. */
  valid(): string {
    return this.at === null ? '' : `valid_from <= ${this.at} and valid_to > ${this.at} and `;
  }

  /**
   * A sub-select of the one record that `key` finds. Of a record's history it is the newest row that begins early enough: the
   * index leads straight to it, however many versions there are.
   */
  one(model: ModelDefinition, key: string): string {
    const from = `select * from ${this.table(model)} where ${key}`;
    if (this.at === null) return from;
    return `${from} and valid_from <= ${this.at} order by valid_from desc, version desc limit 1`;
  }
}

/** Adds the time, where one is given, and answers what is to be read. @param asOf ISO 8601 */
function sourceOf(schema: SchemaDefinition, asOf: string | null, parameters: Parameters): Source {
  return new Source(schema, asOf === null ? null : `${parameters.add(asOf)}::timestamptz`);
}

/**
 * One record as JSON in column `node`: one statement whatever the nesting. No row: there is none, or none this tenant may see.
 * @param asOf the time at which it and the records that it belongs to are read, ISO 8601; null for now
 */
export function compileGet(
  schema: SchemaDefinition,
  model: ModelDefinition,
  tenant: TenantId,
  id: string,
  selection: Selection,
  asOf: string | null = null,
): CompiledQuery {
  const parameters = new Parameters();
  const source = sourceOf(schema, asOf, parameters);
  const from = source.one(model, `tenant_id = ${parameters.add(tenant)} and id = ${parameters.add(id)}`);
  const text = `select ${record(source, model, 't', selection)} as node from (${from}) t`;
  return { text, parameters: parameters.values };
}

/**
 * A page of records: one row with `rows`, a JSON list of `{node, key}` in order, and `total` if asked for. The page goes on
 * behind a key instead of skipping rows, so page one hundred costs what page one costs and nobody sees a record twice
 * because another was added meanwhile.
 * @throws CodedError VALIDATION_ERROR
 */
export function compileList(
  schema: SchemaDefinition,
  model: ModelDefinition,
  tenant: TenantId,
  query: ListQuery,
): CompiledQuery {
  const parameters = new Parameters();
  const source = sourceOf(schema, query.asOf ?? null, parameters);
  const table = source.table(model);
  const keys = orderKeys(model, query.orderBy);
  const filter = `tenant_id = ${parameters.add(tenant)} and ${source.valid()}${condition(model, query.where, parameters, 0)}`;
  const after = query.after ? `and (${behind(keys, query.after, parameters)})` : '';
  const order = keys.map((key) => `${key.column} ${key.direction} nulls last`).join(', ');
  const page = `select * from ${table} where ${filter} ${after} order by ${order} limit ${parameters.add(query.limit)}`;
  const key = `json_build_array(${keys.map((each) => `t.${each.column}`).join(', ')})`;
  const rows = `select coalesce(json_agg(json_build_object('node', ${record(source, model, 't', query.node)}, 'key', ${key}) order by ${keys
    .map((each) => `t.${each.column} ${each.direction} nulls last`)
    .join(', ')}), '[]') from (${page}) t`;
  const total = query.withTotal ? `, (select count(*)::int from ${table} where ${filter}) as total` : '';
  return { text: `select (${rows}) as rows${total}`, parameters: parameters.values };
}

/** What happened to a record, as far as it decides whether a subscriber is told. */
export interface ChangedRecord {
  readonly id: string;
  /** The version that the change made. */
  readonly version: number;
  /** Whether the change can have taken the record out of the condition. */
  readonly mayLeave: boolean;
}

/**
 * The records of some changes as they are now: one row with `nodes`, the JSON of those that match by their ids, and `untold`,
 * the places (from 1) of the changes that are nothing to whom the condition is of: their record does not match, and did not
 * before the change. That is looked up in the history; where it is not there yet, the change is told rather than lost.
 * @throws CodedError VALIDATION_ERROR, QUERY_TOO_COMPLEX
 */
export function compileChanged(
  schema: SchemaDefinition,
  model: ModelDefinition,
  tenant: TenantId,
  where: Where | null,
  selection: Selection,
  changes: readonly ChangedRecord[],
): CompiledQuery {
  const parameters = new Parameters();
  const own = parameters.add(tenant);
  const ids = parameters.add(changes.map(({ id }) => id));
  const versions = parameters.add(changes.map(({ version }) => version));
  const leaving = parameters.add(changes.map(({ mayLeave }) => mayLeave));
  const matches = condition(model, where, parameters, 0);
  const text = `with matching as (select * from ${model.table} where tenant_id = ${own} and id = any(${ids}::uuid[]) and (${matches}))
select coalesce((select json_object_agg(t.id, ${record(new Source(schema, null), model, 't', selection)}) from matching t), '{}') as nodes,
  coalesce((select json_agg(c.place)
    from unnest(${ids}::uuid[], ${versions}::int[], ${leaving}::boolean[]) with ordinality as c (id, version, may_leave, place)
    where not exists (select 1 from matching m where m.id = c.id)
      and (not c.may_leave or exists (select 1 from ${historyTable(model)} h
        where h.tenant_id = ${own} and h.id = c.id and h.version = c.version - 1 and ((${matches}) is not true)))), '[]') as untold`;
  return { text, parameters: parameters.values };
}

/** What a cursor of this order is good for; a cursor of another order is refused. */
export function orderName(model: ModelDefinition, orderBy: readonly OrderBy[], asOf: string | null = null): string {
  const keys = orderKeys(model, orderBy).map((key) => `${key.column} ${key.direction}`);
  // Pages of one list are of one time: without it the second page would silently go on with the records as they are now.
  return [model.name, ...keys, ...(asOf === null ? [] : [asOf])].join(',');
}

interface OrderKey {
  readonly column: string;
  readonly type: Column['type'];
  readonly direction: 'asc' | 'desc';
}

/** The keys of an order, up to the id, which is added where it was not asked for: no two records are equal, and none is told apart by a key behind it. */
function orderKeys(model: ModelDefinition, orderBy: readonly OrderBy[]): OrderKey[] {
  const keys: OrderKey[] = [];
  for (const entry of orderBy) {
    const names = Object.keys(entry);
    if (names.length !== 1) {
      throw apiError(
        'VALIDATION_ERROR',
        'Each entry of orderBy names exactly one field: [{name: ASC}, {createdAt: DESC}].',
      );
    }
    const { column, type } = columnNamed(model, names[0]!);
    const direction = entry[names[0]!] === 'DESC' ? 'desc' : 'asc';
    if (!keys.some((key) => key.column === `"${column}"`)) keys.push({ column: `"${column}"`, type, direction });
    if (type === 'id') return keys;
  }
  return [...keys, { column: '"id"', type: 'id', direction: 'asc' }];
}

/** "Comes behind this key" with nulls last: (a is behind) or (a is equal and b is behind) or … */
function behind(keys: readonly OrderKey[], after: readonly unknown[], parameters: Parameters): string {
  const isOurs =
    after.length === keys.length &&
    keys.every(({ type, column }, index) =>
      after[index] === null ? !OWN_COLUMNS.includes(column) : isKeyValue(type, after[index]),
    );
  if (!isOurs)
    throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
  const places = after.map((value) => parameters.add(value));
  const alternatives = keys.flatMap((key, index) => {
    // Nothing but an equal key comes behind a null.
    if (after[index] === null) return [];
    const further = `${key.column} ${key.direction === 'asc' ? '>' : '<'} ${places[index]}`;
    // No index leads to an alternative, so a column that is never null must not have one: by id, a page begins where it begins.
    const beyond = OWN_COLUMNS.includes(key.column) ? further : `(${further} or ${key.column} is null)`;
    return [
      [...keys.slice(0, index).map((equal, i) => `${equal.column} is not distinct from ${places[i]}`), beyond].join(
        ' and ',
      ),
    ];
  });
  return alternatives.map((alternative) => `(${alternative})`).join(' or ') || 'false';
}

/** Of every record, and never without a value. */
const OWN_COLUMNS = ['"id"', '"version"', '"created_at"', '"updated_at"'];

/** True for what Postgres can read as the column's type: a cursor comes back from outside and may have been forged. */
function isKeyValue(type: Column['type'], value: unknown): boolean {
  switch (type) {
    case 'id':
    case 'relation':
    case 'file':
      return isUuid(value);
    case 'number':
    case 'decimal':
      return typeof value === 'number';
    case 'integer':
      return Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;
    case 'boolean':
      return typeof value === 'boolean';
    case 'date':
      return isCalendarDate(value);
    case 'datetime':
      return (
        typeof value === 'string' &&
        /T\d{2}:\d{2}:\d{2}(\.\d{1,6})?[+-]\d{2}:\d{2}$/.test(value) &&
        isCalendarDate(value.slice(0, 10)) &&
        !Number.isNaN(Date.parse(value))
      );
    default:
      return typeof value === 'string' && isStorable(value);
  }
}

function isStorable(value: string): boolean {
  return !value.includes('\0') && value.isWellFormed();
}

interface Column {
  readonly column: string;
  readonly type: FieldDefinition['type'] | 'id';
}

function columnNamed(model: ModelDefinition, name: string): Column {
  if (name === 'id') return { column: 'id', type: 'id' };
  if (name === 'version') return { column: 'version', type: 'integer' };
  if (name === 'createdAt') return { column: 'created_at', type: 'datetime' };
  if (name === 'updatedAt') return { column: 'updated_at', type: 'datetime' };
  const field = model.fields.find((candidate) => inputName(candidate) === name);
  if (!field) throw apiError('VALIDATION_ERROR', `${model.name} has no field ${name}.`);
  return { column: columnOf(field), type: field.type };
}

function condition(model: ModelDefinition, where: Where | null, parameters: Parameters, depth: number): string {
  if (depth > MAX_WHERE_DEPTH)
    throw apiError('QUERY_TOO_COMPLEX', `where is nested deeper than ${MAX_WHERE_DEPTH} levels.`);
  const all = Object.entries(where ?? {}).flatMap(([name, value]) => {
    if (value === null || value === undefined) return [];
    if (name === 'and' || name === 'or') {
      const parts = bounded(value as Where[]).map((part) => condition(model, part, parameters, depth + 1));
      if (name === 'and') return parts;
      // An empty list of alternatives offers none.
      return [parts.length === 0 ? 'false' : `(${parts.map((part) => `(${part})`).join(' or ')})`];
    }
    if (name === 'not') return [`((${condition(model, value as Where, parameters, depth + 1)}) is not true)`];
    const column = columnNamed(model, name);
    return Object.entries(value as Where).map(([operator, operand]) =>
      comparison(column, operator, operand, parameters),
    );
  });
  return all.length === 0 ? 'true' : all.map((part) => `(${part})`).join(' and ');
}

function bounded<Member>(list: readonly Member[]): readonly Member[] {
  if (list.length > MAX_WHERE_WIDTH) {
    throw apiError(
      'QUERY_TOO_COMPLEX',
      `A list in where has ${list.length} members; at most ${MAX_WHERE_WIDTH} are allowed.`,
    );
  }
  return list;
}

const COMPARISONS: Readonly<Record<string, string>> = { gt: '>', gte: '>=', lt: '<', lte: '<=' };

function comparison({ column, type }: Column, operator: string, operand: unknown, parameters: Parameters): string {
  const name = `"${column}"`;
  if (operator === 'isNull' && typeof operand === 'boolean') return operand ? `${name} is null` : `${name} is not null`;
  if (operand === null) {
    // `equals: null` says what `isNull: true` says; for the others SQL's answer would be "unknown", which helps nobody.
    if (operator === 'equals') return `${name} is null`;
    if (operator === 'not') return `${name} is not null`;
    throw apiError('VALIDATION_ERROR', `${operator}: null compares with nothing. Use isNull: true or isNull: false.`);
  }
  switch (operator) {
    case 'equals':
      return `${name} = ${parameters.add(checked(type, operand))}`;
    case 'not':
      return `${name} is distinct from ${parameters.add(checked(type, operand))}`;
    case 'in':
    case 'notIn': {
      const members = bounded(operand as unknown[]).map((member) => checked(type, member));
      const place = parameters.add(members);
      const sql = `${name} = any(${place}::${ARRAY_TYPES[type] ?? 'text'}[])`;
      return operator === 'in' ? sql : `(${sql}) is not true`;
    }
    case 'contains':
      return `${name} ilike ${parameters.add(`%${escapeLike(operand)}%`)}`;
    case 'startsWith':
      return `${name} ilike ${parameters.add(`${escapeLike(operand)}%`)}`;
    case 'endsWith':
      return `${name} ilike ${parameters.add(`%${escapeLike(operand)}`)}`;
    default:
      if (!Object.hasOwn(COMPARISONS, operator))
        throw apiError('VALIDATION_ERROR', `There is no operator ${operator}.`);
      return `${name} ${COMPARISONS[operator]} ${parameters.add(checked(type, operand))}`;
  }
}

const ARRAY_TYPES: Readonly<Partial<Record<Column['type'], string>>> = {
  id: 'uuid',
  relation: 'uuid',
  file: 'uuid',
  number: 'double precision',
  decimal: 'numeric',
  integer: 'int',
  date: 'date',
  datetime: 'timestamptz',
  boolean: 'boolean',
};

/** A value that Postgres can read as the column's type; ids are the only ones GraphQL's own types let through unchecked. */
function checked(type: Column['type'], value: unknown): unknown {
  if ((type === 'id' || type === 'relation' || type === 'file') && !isUuid(value)) {
    throw apiError('VALIDATION_ERROR', `${JSON.stringify(value)} is no id.`);
  }
  if (type === 'decimal' && !/^-?\d{1,100}(\.\d{1,100})?$/.test(String(value))) {
    throw apiError('VALIDATION_ERROR', `${JSON.stringify(value)} is no decimal number.`);
  }
  if (typeof value === 'string' && !isStorable(value)) {
    throw apiError('VALIDATION_ERROR', 'A value in where has a NUL character or half a surrogate pair.');
  }
  return value;
}

function escapeLike(operand: unknown): string {
  return (checked('text', operand) as string).replaceAll(/[\\%_]/g, (character) => `\\${character}`);
}

/** The JSON of one record: the fields asked for, and the records it belongs to from lateral sub-selects. */
function record(source: Source, model: ModelDefinition, table: string, selection: Selection): string {
  const columns = [...selection].flatMap(([name, below]) => {
    const relation = model.fields.find((field) => field.type === 'relation' && field.name === name);
    if (relation) {
      const target = modelNamed(source.schema, relation.target!);
      const inner = `${table}_${name}`;
      const from = source.one(target, `tenant_id = ${table}.tenant_id and id = ${table}."${columnOf(relation)}"`);
      return [`(select ${record(source, target, inner, below)} from (${from}) ${inner}) as "${name}"`];
    }
    if (name.startsWith('__')) return [];
    const { column, type } = columnNamed(model, name);
    const value = `${table}."${column}"`;
    const read = type === 'datetime' ? utc(value) : type === 'decimal' ? `${value}::text` : value;
    return [`${read} as "${name}"`];
  });
  // row_to_json of a sub-select, because json_build_object takes a hundred arguments at most.
  return columns.length === 0 ? `'{}'::json` : `(select row_to_json(x) from (select ${columns.join(', ')}) x)`;
}

function utc(value: string): string {
  return `to_char(${value} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
}
