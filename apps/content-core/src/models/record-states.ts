import { kindOf, MODEL_EVENT_VERSIONS, modelStream, type RecordedEvent } from '@atomo-cc/events';
import type { StateFold, StateToKeep } from '@atomo-cc/event-store';
import { textArray } from '@atomo-cc/platform/postgres';
import {
  COLUMN_TYPES,
  columnOf,
  inputName,
  isCalendarDate,
  linkColumnOf,
  linksOf,
  type FieldType,
  type FieldValue,
  type ModelDefinition,
} from '@atomo-cc/schema';
import { ARRAY_TYPES, columnArray, LINK_COLUMN_TYPE } from './model-columns.js';

/**
 * A record as the log tells it: its values by the names under which they are written, and beside them `createdAt`, `updatedAt`
 * and, while it is deleted, `deletedAt` (ISO 8601, or PURGED), which no field may be called.
 */
export type RecordFacts = Readonly<Record<string, FieldValue>>;

/**
 * The time at which a purged record was deleted, in place of a moment: ahead of all, so that it is none of those which may be
 * restored. Its row stays, without values, so that nothing is written about it again.
 */
export const PURGED = '-infinity';

/** From an event: when the record was deleted, null where it is there; undefined where the event leaves that as it was. */
export function deletedAtOf(
  event: Pick<RecordedEvent, 'type' | 'recordedAt'>,
): Date | typeof PURGED | null | undefined {
  const kind = kindOf(event);
  if (kind === 'erased') return undefined;
  return kind === 'purged' ? PURGED : kind === 'deleted' ? event.recordedAt : null;
}

/** How a record follows from its events. A value that no event gave is absent. */
export const recordFold: StateFold<RecordFacts> = {
  shape: 1,
  evolve: (facts, event) => {
    // Something else that happened to the record is no change of its values.
    if (!Object.hasOwn(MODEL_EVENT_VERSIONS, kindOf(event))) return facts ?? {};
    const at = event.recordedAt.toISOString();
    const { deletedAt: _deletedAt, ...there } = facts ?? {};
    const times = { createdAt: there['createdAt'] ?? at, updatedAt: at };
    switch (kindOf(event)) {
      case 'purged':
        return { ...times, deletedAt: PURGED };
      case 'deleted':
        return { ...there, ...times, deletedAt: at };
      case 'erased':
        return { ...facts, ...(event.data as Record<string, FieldValue>), ...times };
      default:
        return { ...there, ...(event.data as Record<string, FieldValue>), ...times };
    }
  },
};

/**
 * A record's facts, each value in the type that its field has today: what was written when it had another one is read as the tables
 * read theirs anew when that changed, and is absent where it cannot be. The same object where all are of today's types.
 */
export function factsOfToday(model: ModelDefinition, facts: RecordFacts): RecordFacts {
  let today: Record<string, FieldValue> | undefined;
  for (const field of model.fields) {
    const name = inputName(field);
    const value = facts[name] ?? null;
    const read = value === null ? null : readAnew(field.type, value);
    if (read !== value) (today ??= { ...facts })[name] = read;
  }
  return today ?? facts;
}

/** What Postgres takes for a boolean, in small letters. */
const BOOLEANS: Readonly<Record<string, boolean>> = Object.fromEntries([
  ...['t', 'true', 'y', 'yes', 'on', '1'].map((word) => [word, true]),
  ...['f', 'false', 'n', 'no', 'off', '0'].map((word) => [word, false]),
]);

function readAnew(type: FieldType, value: Exclude<FieldValue, null>): FieldValue {
  if (type === 'json') return value;
  if (type === 'geoPoint') return typeof value === 'object' && !Array.isArray(value) ? value : null;
  if (type === 'blocks') return Array.isArray(value) ? value : null;
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  switch (type) {
    case 'boolean':
      return typeof value === 'boolean' ? value : (BOOLEANS[text.trim().toLowerCase()] ?? null);
    case 'integer': {
      const whole = Math.round(numberIn(text));
      return Math.abs(whole) < 2 ** 31 ? whole : null;
    }
    case 'number':
      return typeof value === 'number' ? value : Number.isFinite(numberIn(text)) ? numberIn(text) : null;
    case 'decimal':
      return Number.isFinite(numberIn(text)) ? text : null;
    case 'date': {
      const day = text.slice(0, 10);
      return isCalendarDate(day) ? day : null;
    }
    case 'datetime': {
      const isMoment = isCalendarDate(text.slice(0, 10)) && !Number.isNaN(Date.parse(text));
      return isMoment ? new Date(text).toISOString() : null;
    }
    default:
      return text;
  }
}

/** NaN for what is no number. */
function numberIn(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text);
}

/** A record's state as `keepSnapshots` takes it; its personal fields are sealed under the record's own key. */
export function recordToKeep(model: ModelDefinition, id: string, version: number, facts: RecordFacts): StateToKeep {
  const stream = modelStream(model.name, id);
  const fields = personalFields(model).filter((name) => Object.hasOwn(facts, name));
  const personal = fields.length > 0 ? { personal: { subject: stream, fields } } : {};
  return { stream, version, shape: recordFold.shape, state: facts, ...personal };
}

/** The names of the fields that tell something about a person. */
export function personalFields(model: ModelDefinition): string[] {
  return model.fields.filter(({ pii }) => pii !== null).map(inputName);
}

/** The types of a model's events, each with the versions of its shape. */
export function modelEventTypes(model: ModelDefinition): Record<string, readonly number[]> {
  return Object.fromEntries(
    Object.entries(MODEL_EVENT_VERSIONS).map(([kind, newest]) => [
      `${model.name}.${kind}`,
      Array.from({ length: newest }, (_, n) => n + 1),
    ]),
  );
}

/** The id of the record that a model's event is about. */
export function recordIdOf(model: ModelDefinition, { stream }: RecordedEvent): string {
  return stream.slice(model.name.length + 1);
}

/** A column of a table with what a record's events say. */
export interface StoredColumn {
  /** The name under which it is written. */
  readonly name: string;
  readonly column: string;
  /** What its parameter, an array, is cast to, and then its values. */
  readonly arrayType: string;
  readonly type: string;
  /** The parameter. */
  array(values: readonly FieldValue[]): unknown;
}

/** The columns of a model's read rows: its fields. */
export function rowColumns(model: ModelDefinition): readonly StoredColumn[] {
  return model.fields.map((field) => ({
    name: inputName(field),
    column: columnOf(field),
    arrayType: ARRAY_TYPES[field.type] ?? 'text[]',
    type: COLUMN_TYPES[field.type],
    array: (values) => columnArray(field, values),
  }));
}

/** The columns of a model's history: its fields, and the ids that it was linked to. */
export function historyColumns(model: ModelDefinition): readonly StoredColumn[] {
  const links = linksOf(model).map((relation): StoredColumn => ({
    name: relation.input,
    column: linkColumnOf(relation),
    arrayType: 'text[]',
    type: LINK_COLUMN_TYPE,
    array: (values) =>
      textArray(values.map((ids) => (ids === null ? null : `{${(ids as readonly string[]).join(',')}}`))),
  }));
  return [...rowColumns(model), ...links];
}

/**
 * Where the columns of `from` have their values, and where `base` does: `mask` holds a 1 for each column, in their order,
 * whose value is in `from`.
 */
export function maskedColumns(columns: readonly StoredColumn[], from: string, base: string): string {
  return columns
    .map(
      ({ column, type }, n) =>
        `, case when substr(${from}.mask, ${n + 1}, 1) = '1' then ${from}."${column}"::${type} else ${base}."${column}" end`,
    )
    .join('');
}

/** As {@link maskedColumns}, of the time of deletion: the mask's last place is for it. */
export function maskedDeletion(columns: readonly StoredColumn[], from: string, base: string): string {
  return `case when substr(${from}.mask, ${columns.length + 1}, 1) = '1' then ${from}.deleted else ${base}.deleted_at end`;
}

/** A 1 for each column that `values` has, or for all; and one where it is known when the record was deleted, or that it is not. */
export function maskOf(
  columns: readonly StoredColumn[],
  record: { readonly values: RecordFacts; readonly isWhole: boolean; readonly deleted: unknown },
): string {
  let mask = '';
  for (const { name } of columns) mask += record.isWhole || record.values[name] !== undefined ? '1' : '0';
  return `${mask}${record.deleted === undefined ? '0' : '1'}`;
}

/** The values of records as parameters, one for each column, in their order. */
export function columnArrays(
  columns: readonly StoredColumn[],
  records: readonly { readonly values: RecordFacts }[],
): unknown[] {
  return columns.map((column) => column.array(records.map(({ values }) => values[column.name] ?? null)));
}

/** The columns, for an insert: `, "name", "email"`. */
export function namedColumns(columns: readonly StoredColumn[]): string {
  return columns.map(({ column }) => `, "${column}"`).join('');
}

/** The parameters of {@link columnArrays}, from `$first` on: `, $8::text[], $9::boolean[]`. */
export function arrayPlaces(columns: readonly StoredColumn[], first: number): string {
  return columns.map(({ arrayType }, n) => `, $${first + n}::${arrayType}`).join('');
}
