import { apiError, isUuid, type CodedError } from '@atomo-cc/kernel';
import {
  COLUMN_TYPES,
  blocksViewOf,
  columnOf,
  conditionSql,
  expressionSql,
  inputName,
  isCalendarDate,
  linkColumnOf,
  linksOf,
  linkTableOf,
  modelNamed,
  sqlLiteral,
  type ComputedDefinition,
  type FieldDefinition,
  type LinkRelation,
  type ModelDefinition,
  type RelationDefinition,
  type Scalar,
} from '@atomo-cc/schema';
import { argumentsOf, pageSize, type Selection } from '../api/index.js';
import { isPlaceOperator, placeCondition } from './places.js';
import type { Reader } from './record-access.js';
import { PURGED } from './record-states.js';
import { historyTable } from './schema-diff.js';

/** One statement with its parameters. */
export interface CompiledQuery {
  readonly text: string;
  readonly parameters: readonly unknown[];
}

/** A condition as the API takes it: `{and: [...], name: {contains: 'x'}}`. */
export type Where = Readonly<Record<string, unknown>>;
/** One key of an order, `{name: 'ASC'}`. */
export type OrderBy = Readonly<Record<string, 'ASC' | 'DESC'>>;

/** Whether deleted records are read: not, too, or alone. `ANY` reads what is purged as well, of which no value is left. */
export type Deleted = 'EXCLUDE' | 'INCLUDE' | 'ONLY' | 'ANY';

/** The condition on when a record was deleted; what is purged bears PURGED, which is ahead of all moments. */
const DELETED: Readonly<Record<Exclude<Deleted, 'ANY'>, (column: string) => string>> = {
  EXCLUDE: (column) => `${column} is null`,
  INCLUDE: (column) => `(${column} > '${PURGED}') is not false`,
  ONLY: (column) => `${column} > '${PURGED}'`,
};

/** What a list is compiled from. */
export interface ListQuery {
  readonly where: Where | null;
  readonly orderBy: readonly OrderBy[];
  /** The key values behind which the page starts, as many as `orderKeys` has. */
  readonly after: readonly unknown[] | null;
  /** The key values ahead of which it ends. */
  readonly before?: readonly unknown[] | null;
  /** Reads the end of the list instead of its beginning; the rows come in the list's order either way. */
  readonly fromEnd?: boolean;
  /** How many rows to read: the page's size and one more, which tells whether there is a next page. */
  readonly limit: number;
  /** Whether all rows come as one, their texts with commas between them: then `limit` is the page's size, and nothing else is told. */
  readonly isJoined?: boolean;
  /** What to read of each record. */
  readonly node: Selection;
  readonly withTotal: boolean;
  /** Whether the keys of the rows are needed, which cursors are made of. */
  readonly withKeys: boolean;
  /** EXCLUDE unless given; below the records it is always that. */
  readonly deleted?: Deleted;
  /** The time as of which all is read, ISO 8601; null or absent for now. */
  readonly asOf?: string | null;
}

/** What groups of records are compiled from. */
export interface AggregateQuery {
  readonly where: Where | null;
  /** The fields whose values make a group, by their input names; none makes one group of all. */
  readonly groupBy: readonly string[];
  readonly limit: number;
  /** What to read of each group: `count`, and `sum avg min max` with the fields below them. */
  readonly node: Selection;
  readonly deleted?: Deleted;
  readonly asOf?: string | null;
}

/** Nested conditions that no honest caller reaches; each level costs planning time. */
const MAX_WHERE_DEPTH = 10;
/** Members of an `in` list or conditions in an `and` or `or`; beyond, the query is a job for a batch. */
const MAX_WHERE_WIDTH = 1_000;
/** Values of a whole query. Planning time grows with them, and Postgres' protocol counts parameters in 16 bits. */
const MAX_PARAMETERS = 2_000;
/** Conditions on other records in a whole query: each may look at every record of two tables. */
const MAX_RELATION_CONDITIONS = 20;
/** Words of one search: each is looked for in all texts of a record. */
const MAX_SEARCH_WORDS = 10;
/** Relations read in a whole query, a sub-select each. A function of Postgres takes 100 arguments, and one of ours two for each. */
const MAX_RELATIONS = 50;
/** Records below the records of a page, if every list were full: some megabytes of an answer that is held in memory whole. */
const MAX_NESTED_RECORDS = 10_000;
/** Fields that groups are made of; with more of them nearly every record is a group of its own. */
const MAX_GROUP_FIELDS = 5;

/** A refusal that names the limit, in its sentence and in `extensions.limit`. */
function tooComplex(limit: string, max: number, message: string): CodedError {
  return apiError('QUERY_TOO_COMPLEX', `${message} (${limit}: ${max})`, { limit, max });
}

/** The ends of a link in a table of `linkTableOf`, beside `tenant_id`: a relation may link a model with itself. */
export const LINK_COLUMNS = { owner: 'owner_id', target: 'target_id' } as const;

/** One statement in the making: its values, its names, and what it has cost so far. */
class Statement {
  readonly values: unknown[] = [];
  private aliases = 0;
  private relations = 0;
  private conditions = 0;
  private records = 0;

  /** Adds a value and answers its place, `$3`. @throws CodedError QUERY_TOO_COMPLEX */
  add(value: unknown): string {
    if (this.values.length === MAX_PARAMETERS) {
      throw tooComplex('MAX_PARAMETERS', MAX_PARAMETERS, 'The query compares with too many values. Ask in several.');
    }
    this.values.push(value);
    return `$${this.values.length}`;
  }

  /** A name for rows that no other has: names made of the path would be cut at 63 bytes, and then be the same. */
  alias(): string {
    this.aliases += 1;
    return `r${this.aliases}`;
  }

  /** Counts a relation that is read, and the records it may bring along. @throws CodedError QUERY_TOO_COMPLEX */
  readRelation(records: number): void {
    this.relations += 1;
    this.records += records;
    if (this.relations > MAX_RELATIONS)
      throw tooComplex('MAX_RELATIONS', MAX_RELATIONS, 'The query reads too many relations. Ask in several queries.');
    if (this.records > MAX_NESTED_RECORDS) {
      const message = 'The query may answer too many records in its nested lists. Ask for fewer with first.';
      throw tooComplex('MAX_NESTED_RECORDS', MAX_NESTED_RECORDS, message);
    }
  }

  /** Counts a condition on other records. @throws CodedError QUERY_TOO_COMPLEX */
  askRelation(): void {
    this.conditions += 1;
    if (this.conditions > MAX_RELATION_CONDITIONS) {
      const message = 'where has too many conditions on related records. Ask in several queries.';
      throw tooComplex('MAX_RELATION_CONDITIONS', MAX_RELATION_CONDITIONS, message);
    }
  }
}

/** What is read: the records of a tenant that the reader may see, as they are, or as they were. */
class Source {
  private readonly tenant: string;
  private readonly at: string | null;
  /** Aliases of rows of histories in a statement that is about now. */
  private readonly past = new Set<string>();
  private readonly rules = new Map<string, (alias: string) => string>();

  /** @param asOf ISO 8601; null for now */
  constructor(
    private readonly reader: Reader,
    readonly statement: Statement,
    asOf: string | null,
  ) {
    this.tenant = statement.add(reader.tenant);
    this.at = asOf === null ? null : `${statement.add(asOf)}::timestamptz`;
  }

  /** Whether a rule stands in the statement, which may depend on who asks. */
  get isRuled(): boolean {
    return this.rules.size > 0;
  }

  /** A name for rows of a history in a statement that is about now. */
  pastAlias(): string {
    const alias = this.statement.alias();
    this.past.add(alias);
    return alias;
  }

  /**
   * A model as the reader may read it: fields that may not be read are no fields of it.
   * @throws CodedError VALIDATION_ERROR where it may not be read at all, the same as where there is none
   */
  model(name: string): ModelDefinition {
    const model = this.reader.access.reads({ name });
    if (!model) throw apiError('VALIDATION_ERROR', `There is no ${name} to read.`);
    return model;
  }

  /** The table to read many records from. */
  table(model: ModelDefinition): string {
    return this.at === null ? model.table : historyTable(model);
  }

  /** The condition that leaves one row of each record, also of those that may not be seen, or are deleted. */
  all(alias: string): string {
    const own = `${alias}.tenant_id = ${this.tenant}`;
    return this.at === null ? own : `${own} and ${alias}.valid_from <= ${this.at} and ${alias}.valid_to > ${this.at}`;
  }

  /** The condition that leaves one row of each record that may be seen: to be set before any other. Of the past, today's rules say which. */
  rows(model: ModelDefinition, alias: string, deleted: Deleted = 'EXCLUDE'): string {
    const rule = this.rule(model, alias);
    const there = deleted === 'ANY' ? '' : ` and ${DELETED[deleted](`${alias}.deleted_at`)}`;
    return rule === null ? `${this.all(alias)}${there}` : `${this.all(alias)}${there} and ${rule}`;
  }

  /** A model with the fields that only rules and computed fields may look at too. */
  whole({ name }: ModelDefinition): ModelDefinition {
    return modelNamed(this.reader.access.schema, name);
  }

  /** What a row must meet to be seen, by the rules of its model; null: nothing. */
  private rule(model: ModelDefinition, alias: string): string | null {
    const { access, userId } = this.reader;
    const where = access.right(model, 'read')!.where;
    if (where === null) return null;
    let rule = this.rules.get(model.name);
    if (!rule) {
      const whole = this.whole(model);
      const caller = { id: userId, role: access.role };
      let asker: string | undefined;
      // What the schema says stands in the text: a planner that does not know it plans every execution anew. Who asks has a place.
      const value = (given: Scalar | readonly Scalar[]) =>
        given === userId ? (asker ??= this.statement.add(given)) : sqlLiteral(given);
      rule = (of) => conditionSql(whole, where, { column: (field) => `${of}."${columnOf(field)}"`, value, caller });
      this.rules.set(model.name, rule);
    }
    return `(${rule(alias)})`;
  }

  /**
   * A sub-select of the one record with that id. Of a record's history it is the newest row that begins early enough: the
   * index leads straight to it, however many versions there are.
   */
  one(model: ModelDefinition, id: string, deleted: Deleted = 'EXCLUDE'): string {
    const of = this.statement.alias();
    const rule = this.rule(model, of);
    const there = deleted === 'ANY' ? 'true' : DELETED[deleted](`${of}.deleted_at`);
    const may = rule === null ? there : `${there} and ${rule}`;
    const from = `select * from ${this.table(model)} ${of} where ${of}.tenant_id = ${this.tenant} and ${of}.id = ${id}`;
    if (this.at === null) return `${from} and ${may}`;
    const newest = `${from} and valid_from <= ${this.at} order by valid_from desc, version desc limit 1`;
    return `select * from (${newest}) ${of} where ${may}`;
  }

  /**
   * The condition that ties a record to those of a list relation: `r2` is one of the notes of `r1`. Of a time, the links are
   * those that stand in the history of the record that owns them.
   */
  ties(model: ModelDefinition, relation: RelationDefinition, record: string, other: string): string {
    const target = this.model(relation.target);
    if (relation.via !== null) return `${other}."${relationColumn(target, relation.via)}" = ${record}.id`;
    const link = this.statement.alias();
    if (relation.through !== null) {
      const through = this.model(relation.through.model);
      const ends = [relation.through.from, relation.through.to].map((name) => relationColumn(through, name));
      const isTied = `${link}."${ends[0]}" = ${record}.id and ${link}."${ends[1]}" = ${other}.id`;
      return `exists (select 1 from ${this.table(through)} ${link} where ${this.rows(through, link)} and ${isTied})`;
    }
    const owning = linksOf(target).find(({ name }) => name === relation.inverseOf);
    const [owner, linked] = owning ? [other, record] : [record, other];
    if (this.at !== null || this.past.has(owner))
      return `${linked}.id = any(${owner}."${linkColumnOf(owning ?? (relation as LinkRelation))}")`;
    const table = owning ? linkTableOf(target, owning) : linkTableOf(model, relation);
    const isTied = `${link}.${LINK_COLUMNS.owner} = ${owner}.id and ${link}.${LINK_COLUMNS.target} = ${linked}.id`;
    return `exists (select 1 from ${table} ${link} where ${link}.tenant_id = ${this.tenant} and ${isTied})`;
  }
}

function relationColumn(model: ModelDefinition, name: string): string {
  return columnOf(model.fields.find((field) => field.name === name)!);
}

/**
 * One record as the text of its JSON in column `node`: one statement whatever the nesting. No row: there is none, or none this tenant may see.
 * @param asOf the time at which it and the records that it belongs to are read, ISO 8601; null for now
 * @param deleted whether it is read also, or only, where it is deleted
 */
export function compileGet(
  reader: Reader,
  { name }: Pick<ModelDefinition, 'name'>,
  id: string,
  selection: Selection,
  asOf: string | null = null,
  deleted: Deleted = 'EXCLUDE',
): CompiledQuery & { readonly isRuled: boolean } {
  const statement = new Statement();
  const source = new Source(reader, statement, asOf);
  const model = source.model(name);
  const alias = statement.alias();
  const from = source.one(model, statement.add(id), deleted);
  const { columns, joins } = record(source, model, alias, selection, 1);
  const text = jsonRows(columns, `(${from}) ${alias}${joins}`);
  return { text, parameters: statement.values, isRuled: source.isRuled };
}

/** What compileGetAgain has made, by selection and the model as a role may read it. */
const textsOfGets = new WeakMap<Selection, WeakMap<ModelDefinition, string>>();

/**
 * As compileGet of what is there now. Of a selection that is asked for again and again the text is made once for all who have the same
 * role, unless a rule looks at the records, where it may depend on who asks.
 */
export function compileGetAgain(
  reader: Reader,
  model: Pick<ModelDefinition, 'name'>,
  id: string,
  selection: Selection,
): CompiledQuery {
  const readable = reader.access.reads(model);
  const known = readable && textsOfGets.get(selection)?.get(readable);
  if (known) return { text: known, parameters: [reader.tenant, id] };
  const { isRuled, ...made } = compileGet(reader, model, id, selection);
  if (readable && !isRuled && made.parameters.length === 2) {
    if (!textsOfGets.has(selection)) textsOfGets.set(selection, new WeakMap());
    textsOfGets.get(selection)!.set(readable, made.text);
  }
  return made;
}

/** Rows with the text of an object in column `node`. The planner does less for it than for an object that is made for each row. */
function jsonRows(columns: readonly string[], from: string): string {
  if (columns.length === 0) return `select '{}' as node from ${from}`;
  return `select row_to_json(x)::text as node from (select ${columns.join(', ')} from ${from}) x`;
}

/**
 * A page of records: a row each, in order, with the text of its JSON in `node`, that of its key's in `key` if asked for, and the
 * `total` of the list if asked for: then there is a row without a `node` where the page is empty. The page goes on behind a key
 * instead of skipping rows, so page one hundred costs what page one costs and nobody sees a record twice because another was
 * added meanwhile.
 * @throws CodedError VALIDATION_ERROR, QUERY_TOO_COMPLEX
 */
export function compileList(
  reader: Reader,
  { name: modelName }: Pick<ModelDefinition, 'name'>,
  query: ListQuery,
): CompiledQuery {
  const statement = new Statement();
  const source = new Source(reader, statement, query.asOf ?? null);
  const model = source.model(modelName);
  const alias = statement.alias();
  const from = `from ${source.table(model)} ${alias}`;
  const keys = orderKeys(source, model, query.orderBy);
  const filter = `${source.rows(model, alias, query.deleted)} and ${condition(source, model, alias, query.where, 0)}`;
  const ahead = query.before ? ` and (${beyond(keys, alias, query.before, statement, 'ahead').join(' or ')})` : '';
  const order = orderSql(keys, alias, query.fromEnd);
  const limit = `order by ${order} limit ${Math.trunc(query.limit)}`;
  const behind = query.after
    ? beyond(keys, alias, query.after, statement, 'behind').map((range) => ` and (${range})`)
    : [''];
  // Each is a range of an index; what all of them are together is none.
  const ranges = behind.map((bound) => `select ${alias}.* ${from} where ${filter}${ahead}${bound} ${limit}`);
  const page =
    ranges.length === 1
      ? ranges[0]!
      : `select * from (${ranges.map((range) => `(${range})`).join(' union all ')}) ${alias} ${limit}`;
  // One row more than the page's was read only to see whether there is one.
  const shown = query.isJoined ? query.limit : Math.max(query.limit - 1, 1);
  const { columns, joins } = record(source, model, alias, query.node, shown);
  const rows = `(${page}) ${alias}${joins} order by ${orderSql(keys, alias)}`;
  let text = jsonRows(columns, rows);
  if (query.isJoined) text = `select string_agg(p.node, ',') as node from (${text}) p`;
  if (query.withKeys) {
    // A decimal as text: JSON's numbers have not its digits.
    const values = keys.map(({ sql, type }) => `${sql(alias)}${type === 'decimal' ? '::text' : ''}`);
    text = `select ${object(columns)}::text as node, json_build_array(${values.join(', ')})::text as key from ${rows}`;
  }
  if (query.withTotal)
    text = `select p.*, t.total from (select count(*)::int as total ${from} where ${filter}) t left join lateral (${text}) p on true`;
  return { text, parameters: statement.values };
}

/** The kinds of field that can be added up. */
const NUMERIC: readonly Column['type'][] = ['integer', 'decimal', 'number'];
/** The kinds of field whose values are no single thing: there is no order of them, and no group shares one. */
const STRUCTURED: readonly Column['type'][] = ['json', 'geoPoint', 'blocks'];

/** Whether the values of a field, or a computed one, can be added up. */
export function isNumeric({ type }: Pick<Column, 'type'>): boolean {
  return NUMERIC.includes(type);
}

/** Whether records can be grouped by a field, or a computed one. */
export function isGroupable({ type }: Pick<Column, 'type'>): boolean {
  return !STRUCTURED.includes(type);
}

/**
 * Groups of records, largest first: a row each with JSON in column `group`, whose names are paths: `count`, `group.stage`, `sum.amount`.
 * @throws CodedError VALIDATION_ERROR, QUERY_TOO_COMPLEX
 */
export function compileAggregate(
  reader: Reader,
  { name: modelName }: Pick<ModelDefinition, 'name'>,
  query: AggregateQuery,
): CompiledQuery {
  const names = [...new Set(query.groupBy)];
  if (names.length > MAX_GROUP_FIELDS)
    throw tooComplex('MAX_GROUP_FIELDS', MAX_GROUP_FIELDS, 'groupBy names too many fields.');
  const statement = new Statement();
  const source = new Source(reader, statement, query.asOf ?? null);
  const model = source.model(modelName);
  const alias = statement.alias();
  const groups = names.map((name) => {
    const column = valueNamed(model, name);
    if (!column || !isGroupable(column))
      throw apiError('VALIDATION_ERROR', `${model.name} cannot be grouped by ${name}.`);
    const value = valueSql(source, model, column, alias);
    return { value, sql: `${readable(value, column.type)} as "group.${name}"` };
  });
  const measures = AGGREGATES.flatMap((measure) =>
    [...(query.node.get(measure)?.keys() ?? [])].flatMap((name) => {
      if (name.startsWith('__')) return [];
      const column = valueNamed(model, name);
      if (!column || !isNumeric(column))
        throw apiError('VALIDATION_ERROR', `${model.name} has no numeric field ${name}.`);
      const value = `${measure}(${valueSql(source, model, column, alias)})`;
      return [`${column.type === 'decimal' ? `${value}::text` : value} as "${measure}.${name}"`];
    }),
  );
  const columns = ['count(*)::int as count', ...groups.map(({ sql }) => sql), ...measures].join(', ');
  const by = groups.map(({ value }) => value);
  const filter = `${source.rows(model, alias, query.deleted)} and ${condition(source, model, alias, query.where, 0)}`;
  const grouped = by.length === 0 ? '' : ` group by ${by.join(', ')}`;
  const order = ['count(*) desc', ...by.map((value) => `${value} nulls last`)].join(', ');
  const inner = `select ${columns} from ${source.table(model)} ${alias} where ${filter}${grouped} order by ${order}`;
  const text = `select row_to_json(x) as "group" from (${inner} limit ${statement.add(query.limit)}) x`;
  return { text, parameters: statement.values };
}

/**
 * The ids of the records that a condition holds of and that the reader may see, in their order, each locked against other
 * changes: of a row that another command changed meanwhile it is asked again. `limit` rows at most.
 * @throws CodedError VALIDATION_ERROR, QUERY_TOO_COMPLEX
 */
export function compileMatching(
  reader: Reader,
  { name }: Pick<ModelDefinition, 'name'>,
  where: Where | null,
  limit: number,
): CompiledQuery {
  const statement = new Statement();
  const source = new Source(reader, statement, null);
  const model = source.model(name);
  const alias = statement.alias();
  const filter = `${source.rows(model, alias)} and ${condition(source, model, alias, where, 0)}`;
  const text = `select ${alias}.id from ${model.table} ${alias} where ${filter}
order by ${alias}.id limit ${statement.add(limit)} for no key update of ${alias}`;
  return { text, parameters: statement.values };
}

/** What happened to a record, as far as it decides whether a subscriber is told. */
export interface ChangedRecord {
  readonly id: string;
  /** The version that the change made; 0 where what was before it must not be looked for. */
  readonly version: number;
  /** Whether the change can have taken the record out of the condition. */
  readonly mayLeave: boolean;
}

/**
 * The records of some changes as they are now: one row with `nodes`, the JSON of those that match by their ids, and `untold`,
 * the places (from 1) of the changes that are nothing to whom the condition is of: their record does not match, and did not
 * before the change. That is looked up in the history; where it is not there yet, the change is told rather than lost, and its
 * place is in `unproven`: whether the reader may have seen the record then is to be decided from the log.
 * @throws CodedError VALIDATION_ERROR, QUERY_TOO_COMPLEX
 */
export function compileChanged(
  reader: Reader,
  { name }: Pick<ModelDefinition, 'name'>,
  where: Where | null,
  selection: Selection,
  changes: readonly ChangedRecord[],
): CompiledQuery {
  const statement = new Statement();
  const source = new Source(reader, statement, null);
  const model = source.model(name);
  const ids = statement.add(changes.map(({ id }) => id));
  const versions = statement.add(changes.map(({ version }) => version));
  const leaving = statement.add(changes.map(({ mayLeave }) => mayLeave));
  const [now, matching, before] = [statement.alias(), statement.alias(), source.pastAlias()];
  const matches = (alias: string) => `${source.rows(model, alias)} and ${condition(source, model, alias, where, 0)}`;
  const { columns, joins } = record(source, model, matching, selection, changes.length);
  const then = `from ${historyTable(model)} ${before}
        where ${source.all(before)} and ${before}.id = c.id and ${before}.version = c.version - 1`;
  const missed = (isUntold: string) => `coalesce((select json_agg(c.place)
    from unnest(${ids}::uuid[], ${versions}::int[], ${leaving}::boolean[]) with ordinality as c (id, version, may_leave, place)
    where not exists (select 1 from matching m where m.id = c.id) and (${isUntold})), '[]')`;
  const text = `with matching as (select ${now}.* from ${model.table} ${now} where ${now}.id = any(${ids}::uuid[]) and ${matches(now)})
select coalesce((select json_object_agg(${matching}.id, ${object(columns)}) from matching ${matching}${joins}), '{}') as nodes,
  ${missed(`not c.may_leave or exists (select 1 ${then} and ((${matches(before)}) is not true))`)} as untold,
  ${missed(`c.may_leave and not exists (select 1 ${then})`)} as unproven`;
  return { text, parameters: statement.values };
}

/** What is calculated over a group, under the names of Postgres' functions. */
export const AGGREGATES = ['sum', 'avg', 'min', 'max'] as const;

/** What a cursor of this order is good for; a cursor of another order is refused. */
export function orderName(model: ModelDefinition, orderBy: readonly OrderBy[], asOf: string | null = null): string {
  const keys = orderedBy(model, orderBy).map(({ name, direction }) => `${name} ${direction}`);
  // Pages of one list are of one time: without it the second page would silently go on with the records as they are now.
  return [model.name, ...keys, ...(asOf === null ? [] : [asOf])].join(',');
}

interface Ordered extends Column {
  readonly direction: 'asc' | 'desc';
}

/** A key of an order in a statement. */
interface OrderKey extends Ordered {
  /** Its value in the rows of an alias. */
  readonly sql: (alias: string) => string;
}

function orderKeys(source: Source, model: ModelDefinition, orderBy: readonly OrderBy[]): OrderKey[] {
  return orderedBy(model, orderBy).map((key) => ({ ...key, sql: (alias) => valueSql(source, model, key, alias) }));
}

/** The keys of an order, up to the id, which is added where it was not asked for: no two records are equal, and none is told apart by a key behind it. */
function orderedBy(model: ModelDefinition, orderBy: readonly OrderBy[]): Ordered[] {
  const keys: Ordered[] = [];
  for (const entry of orderBy) {
    const names = Object.keys(entry);
    if (names.length !== 1) {
      throw apiError(
        'VALIDATION_ERROR',
        'Each entry of orderBy names exactly one field: [{name: ASC}, {createdAt: DESC}].',
      );
    }
    const column = columnNamed(model, names[0]!);
    const direction = entry[names[0]!] === 'DESC' ? 'desc' : 'asc';
    if (!keys.some(({ name }) => name === column.name)) keys.push({ ...column, direction });
    if (column.type === 'id') return keys;
  }
  return [...keys, { ...columnNamed(model, 'id'), direction: 'asc' }];
}

/** @param isReversed for the end of the list first */
function orderSql(keys: readonly OrderKey[], alias: string, isReversed = false): string {
  return keys
    .map(({ name, sql, direction }) => {
      // Where there are no nulls it is not said where they go, so that an index serves read backwards too.
      if (OWN_COLUMNS.includes(name)) return `${sql(alias)} ${(direction === 'asc') === isReversed ? 'desc' : 'asc'}`;
      if (!isReversed) return `${sql(alias)} ${direction} nulls last`;
      return `${sql(alias)} ${direction === 'asc' ? 'desc' : 'asc'} nulls first`;
    })
    .join(', ');
}

/**
 * "Comes behind this key" (or ahead of it) with nulls last, as conditions of which one holds. Each is a range of an index that
 * has the columns in this order, as far as the order has one direction; where it has not: (a is behind) or (a is equal and b is
 * behind) or …
 */
function beyond(
  keys: readonly OrderKey[],
  alias: string,
  bound: readonly unknown[],
  statement: Statement,
  side: 'behind' | 'ahead',
): string[] {
  const isOurs =
    bound.length === keys.length &&
    keys.every(({ type, name }, index) =>
      bound[index] === null ? !OWN_COLUMNS.includes(name) : isKeyValue(type, bound[index]),
    );
  if (!isOurs)
    throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
  const places = bound.map((value) => statement.add(value));
  const columns = keys.map(({ sql }) => sql(alias));
  const operator = ({ direction }: OrderKey) => ((direction === 'asc') === (side === 'behind') ? '>' : '<');
  const equal = (count: number) =>
    columns.slice(0, count).map((column, i) => `${column} is not distinct from ${places[i]}`);
  const nullable = keys.flatMap(({ name }, index) => (OWN_COLUMNS.includes(name) ? [] : [index]));
  if (!bound.includes(null) && keys.every((key) => operator(key) === operator(keys[0]!))) {
    const further = `(${columns.join(', ')}) ${operator(keys[0]!)} (${places.join(', ')})`;
    if (side === 'ahead') return [further];
    const empty = nullable.map((index) =>
      [...columns.slice(0, index).map((column, i) => `${column} = ${places[i]}`), `${columns[index]} is null`].join(
        ' and ',
      ),
    );
    return [further, ...empty];
  }
  const alternatives = keys.flatMap((key, index) => {
    // Nothing but an equal key comes behind a null, and all that has a value comes ahead of it.
    if (bound[index] === null && side === 'behind') return [];
    const compares = `${columns[index]} ${operator(key)} ${places[index]}`;
    const hasNulls = side === 'behind' && nullable.includes(index);
    const further = hasNulls ? `(${compares} or ${columns[index]} is null)` : compares;
    return [[...equal(index), bound[index] === null ? `${columns[index]} is not null` : further].join(' and ')];
  });
  return [alternatives.map((alternative) => `(${alternative})`).join(' or ') || 'false'];
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
      return typeof value === 'number';
    case 'decimal':
      return typeof value === 'string' && DECIMAL.test(value);
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

/** A number with more digits than any field keeps, or product of fields has. */
const DECIMAL = /^-?\d{1,1000}(\.\d{1,1000})?$/;

function isStorable(value: string): boolean {
  return !value.includes('\0') && value.isWellFormed();
}

/** Something of a record that has a value: a field, or what follows from fields. */
interface Column {
  /** The column, `"company_id"`; of a computed field `=profit`, which no column is called. Cursors are bound to it. */
  readonly name: string;
  readonly type: FieldDefinition['type'] | 'id';
  readonly computed: ComputedDefinition | null;
}

const stored = (column: string, type: Column['type']): Column => ({ name: `"${column}"`, type, computed: null });

/** What every record has. */
const OWN_VALUES: ReadonlyMap<string, Column> = new Map([
  ['id', stored('id', 'id')],
  ['version', stored('version', 'integer')],
  ['createdAt', stored('created_at', 'datetime')],
  ['updatedAt', stored('updated_at', 'datetime')],
  ['deletedAt', stored('deleted_at', 'datetime')],
]);

/** One of the model's own values, by the name under which it is written, or computed; null where it has none of this name. */
function valueNamed(model: ModelDefinition, name: string): Column | null {
  const field = model.fields.find((candidate) => inputName(candidate) === name);
  if (field) return stored(columnOf(field), field.type);
  const computed = model.computed.find((candidate) => candidate.name === name);
  return computed ? { name: `=${name}`, type: computed.type, computed } : null;
}

function columnNamed(model: ModelDefinition, name: string): Column {
  const column = OWN_VALUES.get(name) ?? valueNamed(model, name);
  if (!column) throw apiError('VALIDATION_ERROR', `${model.name} has no field ${name}.`);
  return column;
}

/** A value in the rows of an alias. */
function valueSql(source: Source, model: ModelDefinition, { name, computed }: Column, alias: string): string {
  if (!computed) return `${alias}.${name}`;
  // Who may read what is computed need not be allowed to read what it is made of. Its constants stand in the text: the same
  // expression with other places would be another one to Postgres, which no group could be made by.
  return expressionSql(source.whole(model), computed.expression, {
    column: (field) => `${alias}."${columnOf(field)}"`,
    value: sqlLiteral,
  });
}

function condition(source: Source, model: ModelDefinition, alias: string, where: Where | null, depth: number): string {
  if (depth > MAX_WHERE_DEPTH) throw tooComplex('MAX_WHERE_DEPTH', MAX_WHERE_DEPTH, 'where is nested too deeply.');
  const all = Object.entries(where ?? {}).flatMap(([name, value]) => {
    if (value === null || value === undefined) return [];
    if (name === 'and' || name === 'or') {
      const parts = bounded(value as Where[]).map((part) => condition(source, model, alias, part, depth + 1));
      if (name === 'and') return parts;
      // An empty list of alternatives offers none.
      return [parts.length === 0 ? 'false' : `(${parts.map((part) => `(${part})`).join(' or ')})`];
    }
    if (name === 'search') {
      const fields = searchedFields(model);
      if (fields.length > 0) return searchConditions(source, fields, alias, value as unknown as string);
    }
    if (name === 'not') return [`((${condition(source, model, alias, value as Where, depth + 1)}) is not true)`];
    const field = model.fields.find((candidate) => candidate.type === 'relation' && candidate.name === name);
    if (field) return belongsToCondition(source, field, alias, value as Where, depth + 1);
    const relation = model.relations.find((candidate) => candidate.name === name);
    if (relation) return manyCondition(source, model, relation, alias, value as Where, depth + 1);
    const column = columnNamed(model, name);
    const compared = valueSql(source, model, column, alias);
    return Object.entries(value as Where).map(([operator, operand]) =>
      comparison(compared, column.type, operator, operand, source.statement),
    );
  });
  return all.length === 0 ? 'true' : all.map((part) => `(${part})`).join(' and ');
}

/**
 * The fields whose texts `search` looks through: those that the author calls searchable, of those that may be read. None where
 * something of the model has that name itself, whose condition it is then.
 */
export function searchedFields(model: ModelDefinition): readonly FieldDefinition[] {
  const isTaken = [...model.fields, ...model.relations, ...model.computed].some(({ name }) => name === 'search');
  return isTaken ? [] : model.fields.filter(({ searchable }) => searchable);
}

/** All texts in blocks, at any depth, but the words that tell their types. */
const BLOCK_TEXTS = `'strict $.** ? (@.type() == "object").keyvalue() ? (@.key != "type").value ? (@.type() == "string")'`;

/** A condition for each word: it stands in one of the fields. */
function searchConditions(source: Source, fields: readonly FieldDefinition[], alias: string, text: string): string[] {
  const words = [...new Set(text.split(/\s+/u))].filter((word) => word !== '');
  if (words.length > MAX_SEARCH_WORDS)
    throw tooComplex('MAX_SEARCH_WORDS', MAX_SEARCH_WORDS, `The search has ${words.length} words.`);
  // To take blocks apart costs as much as to look at other records.
  if (fields.some(({ type }) => type === 'blocks')) source.statement.askRelation();
  return words.map((word) => {
    const place = source.statement.add(`%${escapeLike(word)}%`);
    const found = fields.map((field) => {
      const column = `${alias}."${columnOf(field)}"`;
      if (field.type !== 'blocks') return `${column} ilike ${place}`;
      const each = source.statement.alias();
      return `exists (select 1 from jsonb_path_query(${column}, ${BLOCK_TEXTS}) ${each} where ${each} #>> '{}' ilike ${place})`;
    });
    return found.join(' or ');
  });
}

/** `is` and `isNot` of the one record that a record belongs to; null stands for none. */
function belongsToCondition(
  source: Source,
  field: FieldDefinition,
  alias: string,
  operators: Where,
  depth: number,
): string[] {
  const id = `${alias}."${columnOf(field)}"`;
  return Object.entries(operators).map(([operator, operand]) => {
    if (operator !== 'is' && operator !== 'isNot') throw unknownOperator(operator);
    if (operand === null) return operator === 'is' ? `${id} is null` : `${id} is not null`;
    source.statement.askRelation();
    const target = source.model(field.target!);
    const other = source.statement.alias();
    const fits = condition(source, target, other, operand as Where, depth);
    const exists = `exists (select 1 from ${source.table(target)} ${other} where ${source.rows(target, other)} and ${other}.id = ${id} and ${fits})`;
    return operator === 'is' ? exists : `not ${exists}`;
  });
}

/** `some`, `every` and `none` of the records of a list relation. Of no records every one fits. */
function manyCondition(
  source: Source,
  model: ModelDefinition,
  relation: RelationDefinition,
  alias: string,
  operators: Where,
  depth: number,
): string[] {
  return Object.entries(operators).map(([operator, operand]) => {
    if (operator !== 'some' && operator !== 'every' && operator !== 'none') throw unknownOperator(operator);
    if (operand === null)
      throw apiError('VALIDATION_ERROR', `${operator}: null fits no record. Use ${operator}: {} for any record.`);
    source.statement.askRelation();
    const target = source.model(relation.target);
    const other = source.statement.alias();
    const tied = `${source.rows(target, other)} and ${source.ties(model, relation, alias, other)}`;
    const fits = `(${condition(source, target, other, operand as Where, depth)})`;
    const exists = `exists (select 1 from ${source.table(target)} ${other} where ${tied} and ${operator === 'every' ? `${fits} is not true` : fits})`;
    return operator === 'some' ? exists : `not ${exists}`;
  });
}

function unknownOperator(operator: string): CodedError {
  return apiError('VALIDATION_ERROR', `There is no operator ${operator}.`);
}

function bounded<Member>(list: readonly Member[]): readonly Member[] {
  if (list.length > MAX_WHERE_WIDTH)
    throw tooComplex('MAX_WHERE_WIDTH', MAX_WHERE_WIDTH, `A list in where has ${list.length} members.`);
  return list;
}

const COMPARISONS: Readonly<Record<string, string>> = { gt: '>', gte: '>=', lt: '<', lte: '<=' };

function comparison(
  name: string,
  type: Column['type'],
  operator: string,
  operand: unknown,
  parameters: Statement,
): string {
  if (operator === 'isNull' && typeof operand === 'boolean') return operand ? `${name} is null` : `${name} is not null`;
  if (operand === null) {
    // `equals: null` says what `isNull: true` says; for the others SQL's answer would be "unknown", which helps nobody.
    if (operator === 'equals') return `${name} is null`;
    if (operator === 'not') return `${name} is not null`;
    throw apiError('VALIDATION_ERROR', `${operator}: null compares with nothing. Use isNull: true or isNull: false.`);
  }
  if (type === 'geoPoint' && isPlaceOperator(operator))
    return placeCondition(name, operator, operand, (value) => parameters.add(value));
  switch (operator) {
    case 'equals':
      return `${name} = ${parameters.add(checked(type, operand))}`;
    case 'not':
      return `${name} is distinct from ${parameters.add(checked(type, operand))}`;
    case 'in':
    case 'notIn': {
      const members = bounded(operand as unknown[]).map((member) => checked(type, member));
      const place = parameters.add(members);
      const sql = `${name} = any(${place}::${type === 'id' ? 'uuid' : COLUMN_TYPES[type]}[])`;
      return operator === 'in' ? sql : `(${sql}) is not true`;
    }
    case 'contains':
      return `${name} ilike ${parameters.add(`%${escapeLike(operand)}%`)}`;
    case 'startsWith':
      return `${name} ilike ${parameters.add(`${escapeLike(operand)}%`)}`;
    case 'endsWith':
      return `${name} ilike ${parameters.add(`%${escapeLike(operand)}`)}`;
    default:
      if (!Object.hasOwn(COMPARISONS, operator)) throw unknownOperator(operator);
      return `${name} ${COMPARISONS[operator]} ${parameters.add(checked(type, operand))}`;
  }
}

/** A value that Postgres can read as the column's type; ids are the only ones GraphQL's own types let through unchecked. */
function checked(type: Column['type'], value: unknown): unknown {
  if ((type === 'id' || type === 'relation' || type === 'file') && !isUuid(value)) {
    throw apiError('VALIDATION_ERROR', `${JSON.stringify(value)} is no id.`);
  }
  if (type === 'decimal' && !DECIMAL.test(String(value))) {
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

/** What is read of a record. */
interface RecordParts {
  /** With the names of the fields. */
  readonly columns: readonly string[];
  /** The records it belongs to, to be set behind its own rows; empty, or with a space ahead. */
  readonly joins: string;
}

/**
 * The fields asked for of a record.
 * @param copies how many such records the answer may have, for what its lists cost
 */
function record(
  source: Source,
  model: ModelDefinition,
  alias: string,
  selection: Selection,
  copies: number,
): RecordParts {
  let joins = '';
  const views = new Map(model.fields.map((field) => [blocksViewOf(model, field), field.name]));
  // What is asked for in both forms is read once.
  const wanted = new Map([...selection].map(([name, below]) => [views.get(name) ?? name, below]));
  const columns = [...wanted].flatMap(([name, below]) => {
    if (name === '__typename') return [`${sqlLiteral(model.name)} as "__typename"`];
    const field = model.fields.find((candidate) => candidate.type === 'relation' && candidate.name === name);
    if (field) {
      source.statement.readRelation(0);
      const target = source.model(field.target!);
      const other = source.statement.alias();
      const from = `(${source.one(target, `${alias}."${columnOf(field)}"`)}) ${other}`;
      const parts = record(source, target, other, below, copies);
      const one = source.statement.alias();
      joins += ` left join lateral (select ${parts.columns.join(', ') || 'true'} from ${from}${parts.joins}) ${one} on true`;
      // Of no record the whole row is null, and so is its JSON.
      return [
        `${parts.columns.length === 0 ? `case when ${one} is not null then '{}'::json end` : `row_to_json(${one})`} as "${name}"`,
      ];
    }
    const relation = model.relations.find((candidate) => candidate.name === name);
    if (relation) return [`${children(source, model, relation, alias, below, copies)} as "${name}"`];
    const column = columnNamed(model, name);
    return [`${readable(valueSql(source, model, column, alias), column.type)} as "${name}"`];
  });
  return { columns, joins };
}

/** An object of columns, as an expression. It is a row's, because json_build_object takes a hundred arguments at most. */
function object(columns: readonly string[]): string {
  return columns.length === 0 ? `'{}'::json` : `(select row_to_json(x) from (select ${columns.join(', ')}) x)`;
}

/** The arguments of a list below a record. */
interface ChildArguments {
  readonly where?: Where | null;
  readonly orderBy?: readonly OrderBy[] | null;
  readonly first?: number | null;
}

/** The lists of one relation as JSON, by the keys of their arguments: under aliases there may be several. */
function children(
  source: Source,
  model: ModelDefinition,
  relation: RelationDefinition,
  alias: string,
  selection: Selection,
  copies: number,
): string {
  const { statement } = source;
  const target = source.model(relation.target);
  const lists = [...selection].map(([key, below]) => {
    const args = argumentsOf(key) as ChildArguments;
    const first = pageSize(args.first);
    const records = copies * first;
    statement.readRelation(below.has('nodes') ? records : 0);
    const other = statement.alias();
    const rows = () => {
      const tied = `${source.rows(target, other)} and ${source.ties(model, relation, alias, other)}`;
      return `from ${source.table(target)} ${other} where ${tied} and ${condition(source, target, other, args.where ?? null, 0)}`;
    };
    const parts: string[] = [];
    const nodes = below.get('nodes');
    if (nodes) {
      const order = orderSql(orderKeys(source, target, args.orderBy ?? []), other);
      const page = `select ${other}.* ${rows()} order by ${order} limit ${Math.trunc(first)}`;
      const { columns, joins } = record(source, target, other, nodes, records);
      parts.push(
        `'nodes', (select coalesce(json_agg(${object(columns)} order by ${order}), '[]') from (${page}) ${other}${joins})`,
      );
    }
    if (below.has('totalCount')) parts.push(`'totalCount', (select count(*)::int ${rows()})`);
    // The key is made of the caller's values, so it is one of them and no part of the statement.
    return `${statement.add(key)}::text, json_build_object(${parts.join(', ')})`;
  });
  return `json_build_object(${lists.join(', ')})`;
}

/** A column as it leaves: moments in UTC with milliseconds, decimals as text. */
function readable(column: string, type: Column['type']): string {
  if (type === 'datetime') return `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;
  return type === 'decimal' ? `${column}::text` : column;
}
