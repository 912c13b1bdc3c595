import { modelEvent, type NewEvent } from '@atomo-cc/events';
import type { FieldValue, ModelDefinition, RecordValues } from '@atomo-cc/schema';

/** A record as commands see it. */
export interface RecordState {
  readonly version: number;
  readonly values: RecordValues;
}

/** A new record: one event with the values that were given. */
export function decideCreate(model: ModelDefinition, values: RecordValues): readonly NewEvent[] {
  return [modelEvent(model.name, 'created', values)];
}

/** A changed record: one event with what really changes, or none when nothing does. */
export function decideUpdate(model: ModelDefinition, state: RecordState, values: RecordValues): readonly NewEvent[] {
  const changed = Object.entries(values).filter(([name, value]) => (state.values[name] ?? null) !== value);
  return changed.length === 0 ? [] : [modelEvent(model.name, 'updated', Object.fromEntries(changed))];
}

/** The record after an event. */
export function evolve(state: RecordState | null, event: Pick<NewEvent, 'data'>): RecordState {
  const changed = event.data as Record<string, FieldValue>;
  return { version: (state?.version ?? 0) + 1, values: { ...state?.values, ...changed } };
}
