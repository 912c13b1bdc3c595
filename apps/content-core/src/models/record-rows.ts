import type { TenantId } from '@atomo-cc/kernel';
import { modelStream } from '@atomo-cc/events';
import {
  COLUMN_TYPES,
  columnOf,
  inputName,
  linksOf,
  linkTableOf,
  modelNamed,
  type FieldValue,
  type LinkRelation,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { intArray, textArray, type Tx } from '@atomo-cc/platform/postgres';
import { ARRAY_TYPES, columnArray } from './model-columns.js';
import { LINK_COLUMNS } from './query-compiler.js';
import { PURGED } from './record-states.js';
import type { RecordState } from './record.js';

/** A record in the course of a transaction: as it is after the commands before, and the row that will be written for it. */
export interface Working {
  readonly model: ModelDefinition;
  readonly id: string;
  state: RecordState | null;
  isChanged: boolean;
  /** What is personal is taken from it. */
  isErased: boolean;
  /** The relations whose links change, by the names under which they are written. */
  changedLinks: Set<string>;
  /** Before the transaction; 0 for a record that it creates. */
  readonly versionBefore: number;
  /** Both null for a record that the transaction creates; otherwise as they were before it. */
  readonly createdAt: string | null;
  readonly updatedAt: string | null;
  /** When it was deleted, before the transaction; null also for what is purged. */
  readonly deletedAt: string | null;
}

/** Of a record of which the database has nothing, and that is not changed yet. */
const UNTOUCHED = {
  state: null,
  isChanged: false,
  isErased: false,
  versionBefore: 0,
  createdAt: null,
  updatedAt: null,
  deletedAt: null,
};

/** The record among those of the transaction; a new one is added to them. */
export function workingOn(records: Map<string, Working>, { model, id }: RecordName): Working {
  const name = modelStream(model.name, id);
  let working = records.get(name);
  if (!working) {
    working = { ...UNTOUCHED, changedLinks: new Set(), model, id };
    records.set(name, working);
  }
  return working;
}

/** A record that another one is to refer to. */
export interface Reference {
  readonly path: string;
  readonly target: ModelDefinition;
  readonly id: string;
  /** What a fault calls the id. */
  readonly said: string;
}

/** What a record refers to by these values: the records it belongs to, and those it is linked to. */
export function referencesOf(schema: SchemaDefinition, model: ModelDefinition, values: RecordValues): Reference[] {
  const references: Reference[] = [];
  for (const field of model.fields) {
    if (field.type !== 'relation') continue;
    const id = (values[inputName(field)] ?? null) as string | null;
    if (id === null) continue;
    references.push({ path: inputName(field), target: modelNamed(schema, field.target!), id, said: 'this id' });
  }
  for (const { input: path, target: name } of linksOf(model)) {
    const target = modelNamed(schema, name);
    for (const id of (values[path] ?? []) as readonly string[]) {
      references.push({ path, target, id, said: `the id ${id}` });
    }
  }
  return references;
}

/** A record, by its model and id. */
export interface RecordName {
  readonly model: ModelDefinition;
  readonly id: string;
}

/**
 * Reads records that are to be changed, deleted ones too, under a lock that holds until the commit; by the names of their
 * streams. Those of one model are locked in the order of their ids.
 * @param purpose with `go` nobody can begin to refer to them meanwhile; `look` locks nothing
 */
export async function lockRecords(
  tx: Tx,
  schema: SchemaDefinition,
  names: readonly RecordName[],
  purpose: 'change' | 'go' | 'look',
): Promise<Map<string, Working>> {
  if (names.length === 0) return new Map();
  const found = await Promise.all(
    schema.models.map(async (model) => {
      const ids = names.filter((name) => name.model === model);
      if (ids.length === 0) return [];
      const wanted = [textArray(ids.map(({ id }) => id))];
      const { links, ...statements } = statementsOf(model);
      const read = { change: statements.lockToChange, go: statements.lockToGo, look: statements.lookAt }[purpose];
      const [rows, ...linked] = await Promise.all([
        tx.prepared<{ row: LockedRow }>(read, wanted),
        // Behind the lock, in a statement of their own: that of the lock sees what was there before it waited.
        ...links.map((link) => tx.prepared<{ owner: string; targets: string[] }>(link.read, wanted)),
      ]);
      const targetsOf = linked.map((lists) => new Map(lists.map(({ owner, targets }) => [owner, targets])));
      return rows.map(({ row }) => {
        const own = links.map(({ input }, n) => [input, targetsOf[n]!.get(row.id)?.toSorted() ?? []] as const);
        return workingFrom(model, row, Object.fromEntries(own));
      });
    }),
  );
  return new Map(found.flat().map((working) => [modelStream(working.model.name, working.id), working]));
}

type LockedRow = Record<string, FieldValue> & {
  id: string;
  version: number;
  created_at: string;
  updated_at: string;
  deleted_at: string | null;
};

function valuesFrom(model: ModelDefinition, row: LockedRow): RecordValues {
  return Object.fromEntries(model.fields.map((field) => [inputName(field), row[columnOf(field)] ?? null]));
}

function workingFrom(model: ModelDefinition, row: LockedRow, links: RecordValues): Working {
  return {
    model,
    id: row.id,
    state: { version: row.version, values: { ...valuesFrom(model, row), ...links }, gone: goneBy(row.deleted_at) },
    isChanged: false,
    isErased: false,
    changedLinks: new Set(),
    versionBefore: row.version,
    createdAt: new Date(row.created_at).toISOString(),
    updatedAt: new Date(row.updated_at).toISOString(),
    deletedAt: goneBy(row.deleted_at) === 'deleted' ? new Date(row.deleted_at!).toISOString() : null,
  };
}

function goneBy(deletedAt: string | null): 'deleted' | 'purged' | null {
  if (deletedAt === null) return null;
  return deletedAt === PURGED ? 'purged' : 'deleted';
}

/** A record that is referred to, and whether it takes its values to say whether the caller may see it. */
export interface WantedReference extends Pick<Reference, 'target' | 'id'> {
  readonly needsRow: boolean;
}

/**
 * Those of the records referred to that are there, by their streams, under a lock that keeps them from going while they are
 * written about; with their values where one needs them.
 */
export async function lockReferences(
  tx: Tx,
  schema: SchemaDefinition,
  wanted: readonly WantedReference[],
): Promise<Map<string, RecordValues>> {
  if (wanted.length === 0) return new Map();
  const found = await Promise.all(
    schema.models.map(async (model): Promise<[string, RecordValues][]> => {
      const ofModel = wanted.filter(({ target }) => target === model);
      if (ofModel.length === 0) return [];
      const ids = [textArray(ofModel.map(({ id }) => id))];
      const { lockReferences: lock, lockReferredRecords } = statementsOf(model);
      if (ofModel.some(({ needsRow }) => needsRow)) {
        const rows = await tx.prepared<{ row: LockedRow }>(lockReferredRecords, ids);
        return rows.map(({ row }) => [modelStream(model.name, row.id), valuesFrom(model, row)]);
      }
      const rows = await tx.prepared<{ id: string }>(lock, ids);
      return rows.map(({ id }) => [modelStream(model.name, id), {}]);
    }),
  );
  return new Map(found.flat());
}

/** The inline projection: the records as they are after the batch become the rows that readers see. */
export function sendRows(tx: Tx, tenant: TenantId, records: ReadonlyMap<string, Working>, now: Date): void {
  const changed = new Map<ModelDefinition, Working[]>();
  for (const working of records.values()) {
    if (!working.isChanged) continue;
    const ofModel = changed.get(working.model);
    if (ofModel) ofModel.push(working);
    else changed.set(working.model, [working]);
  }
  for (const [model, all] of changed) {
    sendLinks(tx, tenant, model, all);
    const rows = sendGone(tx, tenant, model, all, now);
    if (rows.length === 0) continue;
    tx.send(statementsOf(model).writeRows, [
      tenant,
      now,
      textArray(rows.map(({ id }) => id)),
      intArray(rows.map(({ state }) => state!.version)),
      ...model.fields.map((field) => {
        const name = inputName(field);
        return columnArray(
          field,
          rows.map(({ state }) => state!.values[name] ?? null),
        );
      }),
    ]);
  }
}

/**
 * Of records that the batch takes away the rows stay, and say when that was; what is purged has no value left, and what is erased while
 * it is deleted stays so. Answers the others.
 */
function sendGone(
  tx: Tx,
  tenant: TenantId,
  model: ModelDefinition,
  rows: readonly Working[],
  now: Date,
): readonly Working[] {
  if (!rows.some(({ state }) => state!.gone)) return rows;
  const { deleteRows, purgeRows, eraseRows } = statementsOf(model);
  const kindOf = ({ state, isErased }: Working) => (state!.gone && isErased ? 'erased' : state!.gone);
  for (const [kind, statement] of [
    ['deleted', deleteRows] as const,
    ['purged', purgeRows] as const,
    ['erased', eraseRows] as const,
  ]) {
    const own = rows.filter((row) => kindOf(row) === kind);
    if (own.length === 0) continue;
    const versions = intArray(own.map(({ state }) => state!.version));
    tx.send(statement, [tenant, now, textArray(own.map(({ id }) => id)), versions]);
  }
  return rows.filter(({ state }) => !state!.gone);
}

/** The links of records as they are after the batch, where it changes them. */
function sendLinks(tx: Tx, tenant: TenantId, model: ModelDefinition, rows: readonly Working[]): void {
  for (const { input, remove, add } of statementsOf(model).links) {
    const changed = rows.filter(({ changedLinks }) => changedLinks.has(input));
    if (changed.length === 0) continue;
    const targets = changed.map(({ state }) => `{${((state!.values[input] ?? []) as readonly string[]).join(',')}}`);
    const lists = [tenant, textArray(changed.map(({ id }) => id)), textArray(targets)];
    if (changed.some(({ versionBefore }) => versionBefore > 0)) tx.send(remove, lists);
    tx.send(add, lists);
  }
}

/** How the links of one relation are read and written. */
interface LinkStatements {
  readonly input: string;
  readonly read: string;
  readonly remove: string;
  readonly add: string;
}

interface ModelStatements {
  readonly lockToChange: string;
  readonly lockToGo: string;
  readonly lookAt: string;
  readonly lockReferences: string;
  readonly lockReferredRecords: string;
  readonly writeRows: string;
  readonly deleteRows: string;
  readonly purgeRows: string;
  readonly eraseRows: string;
  readonly links: readonly LinkStatements[];
}

/** The texts of each model, made once: the same text is the same prepared statement. */
const modelStatements = new WeakMap<ModelDefinition, ModelStatements>();

function statementsOf(model: ModelDefinition): ModelStatements {
  let statements = modelStatements.get(model);
  if (!statements) modelStatements.set(model, (statements = makeStatements(model)));
  return statements;
}

function makeStatements(model: ModelDefinition): ModelStatements {
  const columns = model.fields.map((field) => `"${columnOf(field)}"`);
  const arrays = model.fields.map(({ type }, n) => `$${n + 5}::${ARRAY_TYPES[type] ?? 'text[]'}`);
  const cast = model.fields.map((field, n) => `r.${columns[n]}::${COLUMN_TYPES[field.type]}`);
  // JSON's numbers have fewer digits than a decimal may have.
  const exact = model.fields.filter(({ type }) => type === 'decimal').map(columnOf);
  const texts = exact.map((column) => `'${column}', r."${column}"::text`).join(', ');
  const row = texts ? `to_jsonb(r) || jsonb_build_object(${texts})` : 'to_jsonb(r)';
  const lock = `select ${row} as row from ${model.table} r where id = any($1::text[]::uuid[]) order by id`;
  const isReferred = `where id = any($1::text[]::uuid[]) and deleted_at is null order by id for key share`;
  const gone = `update ${model.table} t set version = r.version, updated_at = $2::timestamptz`;
  const went = `from unnest($3::text[], $4::int[]) as r (id, version)
    where t.tenant_id = $1 and t.id = r.id::uuid and t.version < r.version`;
  return {
    // The row as JSON, because the driver would turn a calendar day into a moment of this machine's time zone. `no key`
    // because who refers to this record holds a key share on it: two records that come to refer to each other at the same
    // time would otherwise deadlock.
    lockToChange: `${lock} for no key update`,
    // Against that key share: who is about to refer to it waits, and then finds that it is gone.
    lockToGo: `${lock} for update`,
    lookAt: lock,
    lockReferences: `select id from ${model.table} ${isReferred}`,
    lockReferredRecords: `select ${row} as row from ${model.table} r ${isReferred}`,
    writeRows: `
      insert into ${model.table} as t (${['tenant_id', 'id', 'version', 'created_at', 'updated_at', ...columns].join(', ')})
      select ${['$1', 'r.id::uuid', 'r.version', '$2::timestamptz', '$2::timestamptz', ...cast].join(', ')}
      from unnest(${['$3::text[]', '$4::int[]', ...arrays].join(', ')}) as r (${['id', 'version', ...columns].join(', ')})
      order by r.id
      on conflict (tenant_id, id) do update set version = excluded.version, updated_at = excluded.updated_at, deleted_at = null
        ${columns.map((column) => `, ${column} = excluded.${column}`).join('')}
      where t.version < excluded.version`,
    deleteRows: `${gone}, deleted_at = $2::timestamptz ${went}`,
    purgeRows: `${gone}, deleted_at = '${PURGED}'${columns.map((column) => `, ${column} = null`).join('')} ${went}`,
    eraseRows: `${gone}${model.fields.map((field, n) => (field.pii === null ? '' : `, ${columns[n]} = null`)).join('')} ${went}`,
    links: linksOf(model).map((relation) => linkStatements(linkTableOf(model, relation), relation)),
  };
}

function linkStatements(table: string, { input }: LinkRelation): LinkStatements {
  const { owner, target } = LINK_COLUMNS;
  const lists = 'unnest($2::text[], $3::text[]) as w (owner, targets)';
  return {
    input,
    read: `select ${owner} as owner, array_agg(${target}::text) as targets from ${table}
      where ${owner} = any($1::text[]::uuid[]) group by ${owner}`,
    remove: `delete from ${table} l using ${lists}
      where l.tenant_id = $1 and l.${owner} = w.owner::uuid and l.${target} <> all (w.targets::uuid[])`,
    add: `insert into ${table} (tenant_id, ${owner}, ${target})
      select $1, w.owner::uuid, t.id from ${lists} cross join unnest(w.targets::uuid[]) as t (id)
      order by 2, 3 on conflict do nothing`,
  };
}
