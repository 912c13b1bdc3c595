import { setTimeout as pause } from 'node:timers/promises';
import { apiError, type TenantId } from '@atomo-cc/kernel';
import { modelStream, type RecordedEvent } from '@atomo-cc/events';
import { progressAt, readStream, stateAt, type EventOpener, type StateSealer } from '@atomo-cc/event-store';
import {
  inputName,
  linksOf,
  type FieldValue,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { HISTORY } from './history-projection.js';
import { kindOf, modelEventTypes, personalFields, recordFold, type RecordFacts } from './record-states.js';

/** How long an answer about the past waits for the history to catch up; it is usually some milliseconds behind. */
export const HISTORY_WAIT_MS = 2_000;
/** Pauses between looks: the first, and the longest that they double to. */
const LOOK_MS = { first: 5, longest: 100 };

/** How the past is read where the log keeps personal fields sealed. */
export interface LogReading {
  /** Opens events and snapshots. Without one they are taken as they are stored. */
  readonly codec?: EventOpener & Partial<StateSealer>;
  /** Whether a record's personal values that were written up to a time have been erased. Without it none ever were. */
  readonly wasErasedSince?: (tx: Tx, tenant: TenantId, subject: string, since: Date) => Promise<boolean>;
}

/**
 * Reads as of a time, in one transaction with the proof that the history has everything that was committed by then, and
 * waits for that up to HISTORY_WAIT_MS, holding no connection between its looks. Of a time to come the records are as they
 * are now, and `read` is then given null.
 * @throws CodedError RATE_LIMITED when the history does not catch up in time, INTERNAL_ERROR when it cannot
 */
export async function readAsOf<Result>(
  database: AppDatabase,
  schema: SchemaDefinition,
  tenant: TenantId,
  asOf: string,
  read: (tx: Tx, asOf: string | null) => Promise<Result>,
): Promise<Result> {
  const types = schema.models.flatMap((model) => Object.keys(modelEventTypes(model)));
  const deadline = performance.now() + HISTORY_WAIT_MS;
  for (let pauseMs = LOOK_MS.first; ; pauseMs = Math.min(pauseMs * 2, LOOK_MS.longest)) {
    const answer = await database.transaction(tenant, async (tx) => {
      const { isToCome, isBehind, hasFailed } = await progressAt(tx, tenant, HISTORY, new Date(asOf), types);
      if (isToCome) return { result: await read(tx, null) };
      // Waiting does not help, and an answer without the event would be wrong without saying so.
      if (hasFailed) throw apiError('INTERNAL_ERROR', HISTORY_INCOMPLETE);
      return isBehind ? null : { result: await read(tx, asOf) };
    });
    if (answer) return answer.result;
    if (performance.now() >= deadline) {
      throw apiError('RATE_LIMITED', 'The history is behind the time that was asked for. Try again in a few seconds.');
    }
    await pause(pauseMs);
  }
}

const HISTORY_INCOMPLETE =
  'The history lacks something that could not be applied to it, so nothing is answered about that time. An operator has to retry or skip the dead letter of the projection "history".';

/** What one event did to one field. */
export interface FieldChange {
  readonly field: string;
  readonly before: FieldValue;
  readonly after: FieldValue;
}

/** One version of a record: the event that led to it, and what the record was then. */
export interface HistoryEntry {
  readonly version: number;
  readonly type: string;
  readonly action: string;
  readonly recordedAt: Date;
  readonly actor: string;
  readonly requestId: string;
  readonly restoredVersion: number | null;
  readonly changes: readonly FieldChange[];
  readonly record: Readonly<Record<string, unknown>>;
}

/**
 * A record's versions from new to old, below `before`; none for a record that does not exist. It takes two statements, and one
 * more for each page of the events between the nearest snapshot and the oldest version that is asked for.
 */
export async function readHistory(
  tx: Tx,
  tenant: TenantId,
  model: ModelDefinition,
  id: string,
  page: { readonly before: number | null; readonly limit: number },
  { codec }: LogReading,
): Promise<HistoryEntry[]> {
  const stream = modelStream(model.name, id);
  const from = page.before === null ? {} : { from: page.before - 1 };
  const stored = await readStream(tx, tenant, stream, { direction: 'backward', limit: page.limit, ...from });
  const oldest = stored.at(-1)?.streamVersion ?? 1;
  const before = oldest > 1 ? await stateAt(tx, tenant, stream, { version: oldest - 1 }, recordFold, codec) : null;
  let facts: RecordFacts | null = before?.state ?? null;
  const entries: HistoryEntry[] = [];
  for (const event of (codec ? await codec.decode(tx, stored) : stored).toReversed()) {
    const after = recordFold.evolve(facts, event);
    entries.push(entryOf(model, id, event, facts, after));
    facts = after;
  }
  return entries.toReversed();
}

function entryOf(
  model: ModelDefinition,
  id: string,
  event: RecordedEvent,
  before: RecordFacts | null,
  after: RecordFacts,
): HistoryEntry {
  const links = linksOf(model).map(({ input }) => input);
  const names = [...model.fields.map(inputName), ...links];
  // Of a record that never said any, there are no links; of a field there is no value.
  const valueIn = (facts: RecordFacts | null, name: string) => facts?.[name] ?? (links.includes(name) ? [] : null);
  const { metadata, streamVersion: version } = event;
  return {
    version,
    type: event.type,
    action: kindOf(event),
    recordedAt: event.recordedAt,
    actor: metadata.actor,
    requestId: metadata.correlationId,
    restoredVersion: metadata.restoredVersion ?? null,
    // An event names what it changed, also where its values were erased since; that a new record lacks a value is no change.
    changes: names
      .filter((name) => Object.hasOwn(event.data, name) && (before !== null || after[name] !== null))
      .map((field) => ({ field, before: valueIn(before, field), after: valueIn(after, field) })),
    record: {
      id,
      version,
      createdAt: after['createdAt'],
      updatedAt: after['updatedAt'],
      ...Object.fromEntries(names.map((name) => [name, valueIn(after, name)])),
    },
  };
}

/**
 * The values that bring a record back to a version: all of them, but two kinds that stay as they are now. A personal value
 * that was erased since is not known any more, and emptying what was written later would be a second loss. A field that is
 * demanded today and had no value then cannot be emptied.
 * @throws CodedError NOT_FOUND; VALIDATION_ERROR for a version that the record never had, naming those it has
 */
export async function valuesAtVersion(
  tx: Tx,
  tenant: TenantId,
  model: ModelDefinition,
  id: string,
  version: number,
  { codec, wasErasedSince }: LogReading,
): Promise<RecordValues> {
  const stream = modelStream(model.name, id);
  const [newest] = await readStream(tx, tenant, stream, { direction: 'backward', limit: 1 });
  if (!newest) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
  const last = newest.streamVersion;
  const then = version < 1 || version > last ? null : await stateAt(tx, tenant, stream, { version }, recordFold, codec);
  if (!then) {
    const versions = last === 1 ? 'version 1 only' : `versions 1 to ${last}`;
    const faults = [
      { path: 'version', message: `version ${version} is none of this ${model.name}: it has ${versions}.` },
    ];
    throw apiError('VALIDATION_ERROR', faults[0]!.message, { faults, versions: { first: 1, last } });
  }
  const personal = new Set(personalFields(model));
  const isErased = personal.size > 0 && ((await wasErasedSince?.(tx, tenant, stream, then.since)) ?? false);
  const values: Record<string, FieldValue> = {};
  for (const field of model.fields) {
    const name = inputName(field);
    const value = then.state[name] ?? null;
    if (value === null && (field.required || (isErased && personal.has(name)))) continue;
    values[name] = value;
  }
  for (const { input } of linksOf(model)) values[input] = then.state[input] ?? [];
  return values;
}
