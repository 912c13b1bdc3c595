import { MODEL_EVENT_VERSIONS, modelStream, type ModelEventKind, type RecordedEvent } from '@atomo-cc/events';
import type { StateFold, StateToKeep } from '@atomo-cc/event-store';
import { columnOf, inputName, type FieldValue, type ModelDefinition } from '@atomo-cc/schema';
import { ARRAY_TYPES, COLUMN_TYPES, columnArray } from './model-columns.js';

/**
 * A record as the log tells it: its values by the names under which they are written, and beside them `createdAt` and
 * `updatedAt` (ISO 8601), which no field may be called.
 */
export type RecordFacts = Readonly<Record<string, FieldValue>>;

/** How a record follows from its events. A value that no event gave is absent. */
export const recordFold: StateFold<RecordFacts> = {
  shape: 1,
  evolve: (facts, event) => {
    // Something else that happened to the record is no change of its values.
    if (!Object.hasOwn(MODEL_EVENT_VERSIONS, kindOf(event))) return facts ?? {};
    const at = event.recordedAt.toISOString();
    return { createdAt: at, ...facts, ...(event.data as Record<string, FieldValue>), updatedAt: at };
  },
};

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

/** What kind of event a model's event is. */
export function kindOf({ type }: RecordedEvent): ModelEventKind {
  return type.slice(type.lastIndexOf('.') + 1) as ModelEventKind;
}

/** The id of the record that a model's event is about. */
export function recordIdOf(model: ModelDefinition, { stream }: RecordedEvent): string {
  return stream.slice(model.name.length + 1);
}

/**
 * Where the columns of `from` have their values, and where `base` does: `mask` holds a 1 for each field, in the order of the
 * model's fields, whose value is in `from`.
 */
export function maskedColumns(model: ModelDefinition, from: string, base: string): string {
  return model.fields
    .map((field, n) => {
      const column = `"${columnOf(field)}"`;
      return `, case when substr(${from}.mask, ${n + 1}, 1) = '1' then ${from}.${column}::${COLUMN_TYPES[field.type]} else ${base}.${column} end`;
    })
    .join('');
}

/** A 1 for each field of the model that `values` has, or for all. */
export function maskOf(names: readonly string[], values: RecordFacts, isWhole: boolean): string {
  let mask = '';
  for (const name of names) mask += isWhole || values[name] !== undefined ? '1' : '0';
  return mask;
}

/** The values of records as parameters, one for each field of the model, in their order. */
export function columnArrays(model: ModelDefinition, records: readonly { readonly values: RecordFacts }[]): unknown[] {
  return model.fields.map((field) => {
    const name = inputName(field);
    return columnArray(
      field,
      records.map(({ values }) => values[name] ?? null),
    );
  });
}

/** The model's columns, for an insert: `, "name", "email"`. */
export function namedColumns(model: ModelDefinition): string {
  return model.fields.map((field) => `, "${columnOf(field)}"`).join('');
}

/** The parameters of {@link columnArrays}, from `$first` on: `, $8::text[], $9::boolean[]`. */
export function arrayPlaces(model: ModelDefinition, first: number): string {
  return model.fields.map(({ type }, n) => `, $${first + n}::${ARRAY_TYPES[type] ?? 'text[]'}`).join('');
}
