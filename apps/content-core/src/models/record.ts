import { kindOf, modelEvent, modelStream, type ModelEventKind, type NewEvent } from '@atomo-cc/events';
import { inputName, isSameValue, type FieldValue, type ModelDefinition, type RecordValues } from '@atomo-cc/schema';

/** A record as commands see it. */
export interface RecordState {
  readonly version: number;
  readonly values: RecordValues;
  /** Null or absent: it is there. `deleted` may be restored; of `purged` there is nothing left. */
  readonly gone?: 'deleted' | 'purged' | null;
}

/** A new record: one event with the values that were given. */
export function decideCreate(model: ModelDefinition, id: string, values: RecordValues): readonly NewEvent[] {
  return [recordEvent(model, id, 'created', values)];
}

/** A changed or restored record: one event with what really changes, or none when nothing does. */
export function decideUpdate(
  model: ModelDefinition,
  id: string,
  state: RecordState,
  values: RecordValues,
  kind: 'updated' | 'restored' = 'updated',
): readonly NewEvent[] {
  const fields = new Map(model.fields.map((field) => [inputName(field), field]));
  // What is no field is a list of links, of which a record that says none has none.
  const isChanged = (name: string, value: FieldValue) => {
    const field = fields.get(name);
    return !isSameValue(field ?? { type: 'json' }, state.values[name] ?? (field ? null : []), value);
  };
  const changed = Object.entries(values).filter(([name, value]) => isChanged(name, value));
  return changed.length === 0 ? [] : [recordEvent(model, id, kind, Object.fromEntries(changed))];
}

/** What happened to a record. Those of its values that are personal are about the record itself, also when they are empty. */
export function recordEvent(model: ModelDefinition, id: string, kind: ModelEventKind, values: RecordValues): NewEvent {
  const event = modelEvent(model.name, kind, values);
  let fields: string[] | undefined;
  for (const field of model.fields) {
    if (field.pii !== null && Object.hasOwn(values, inputName(field))) (fields ??= []).push(inputName(field));
  }
  return fields ? { ...event, personal: { subject: modelStream(model.name, id), fields } } : event;
}

/**
 * A record that is deleted: one event that says so and no more, because the record keeps its values.
 * @param kind `purged` takes the values out of everything that is computed from the log
 */
export function decideGone(model: ModelDefinition, id: string, kind: 'deleted' | 'purged'): readonly NewEvent[] {
  return [recordEvent(model, id, kind, {})];
}

/** A record whose personal values are taken from it, in the log as everywhere: one event that names them, each with null. */
export function decideErased(model: ModelDefinition): readonly NewEvent[] {
  const personal = model.fields.filter(({ pii }) => pii !== null).map((field) => [inputName(field), null] as const);
  return [modelEvent(model.name, 'erased', Object.fromEntries(personal))];
}

/** The record after an event. */
export function evolve(state: RecordState | null, event: Pick<NewEvent, 'type' | 'data'>): RecordState {
  const changed = event.data as Record<string, FieldValue>;
  const version = (state?.version ?? 0) + 1;
  switch (kindOf(event)) {
    case 'purged':
      return { version, values: {}, gone: 'purged' };
    case 'deleted':
      return { version, values: { ...state?.values }, gone: 'deleted' };
    case 'erased':
      return { version, values: { ...state?.values, ...changed }, gone: state?.gone ?? null };
    default:
      return { version, values: { ...state?.values, ...changed } };
  }
}
