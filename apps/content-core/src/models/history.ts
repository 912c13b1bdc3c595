import { setTimeout as pause } from 'node:timers/promises';
import { apiError, type TenantId } from '@atomo-cc/kernel';
import { kindOf, modelStream, type RecordedEvent } from '@atomo-cc/events';
import { lastSteps, progressAt, readStream, stateAt, type EventOpener, type StateSealer } from '@atomo-cc/event-store';
import {
  inputName,
  linksOf,
  modelNamed,
  type FieldValue,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { HISTORY } from './history-projection.js';
import { compileGet } from './query-compiler.js';
import { maySee, seesSome, type Reader } from './record-access.js';
import {
  factsOfToday,
  modelEventTypes,
  personalFields,
  PURGED,
  recordFold,
  type RecordFacts,
} from './record-states.js';

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

/** Versions of a record that the reader may not see and that one request looks through; the window in which it comes to them is looked at whole. */
const MAX_HIDDEN_VERSIONS = 1_000;

/**
 * A record's versions from new to old, below `before`; none for a record that does not exist. One statement, as `lastSteps` is;
 * where a rule hides versions, one more for each window that is looked through until the page is full.
 *
 * One that is purged has its versions without their values: the log still has those that are not personal, and they are shown no more.
 *
 * A version is shown to whom today's rules would show the record as it was then, and what a field was before it where they would
 * show the version before. `lookedTo` is the version down to which it was looked, where versions that are not shown used up what a
 * request may look through: the page goes on below it.
 */
export async function readHistory(
  tx: Tx,
  reader: Reader,
  model: ModelDefinition,
  id: string,
  page: { readonly before: number | null; readonly limit: number },
  { codec }: LogReading,
): Promise<{ readonly entries: readonly HistoryEntry[]; readonly lookedTo: number | null }> {
  const stream = modelStream(model.name, id);
  // Rules look at fields too that the reader may not read.
  const whole = modelNamed(reader.access.schema, model.name);
  const entries: HistoryEntry[] = [];
  let { before: below } = page;
  for (let looked = 0; looked <= MAX_HIDDEN_VERSIONS;) {
    const window = { below, atLeast: page.limit };
    const { steps, newestType } = await lastSteps(tx, reader.tenant, stream, window, recordFold, codec);
    // Nothing comes behind it.
    const isPurged = newestType !== null && kindOf({ type: newestType }) === 'purged';
    for (const { event, before, after } of steps) {
      if (!maySee(reader, model, factsOfToday(whole, after))) continue;
      const known = before && maySee(reader, model, factsOfToday(whole, before)) ? before : {};
      const [was, is] = isPurged ? [before && {}, timesOf(after)] : [before && known, after];
      entries.push(entryOf(model, id, event, was, is));
      if (entries.length === page.limit) return { entries, lookedTo: null };
    }
    below = steps.at(-1)?.event.streamVersion ?? 1;
    if (below === 1) return { entries, lookedTo: null };
    looked += steps.length;
  }
  return { entries, lookedTo: below };
}

function timesOf({ createdAt, updatedAt, deletedAt }: RecordFacts): RecordFacts {
  return { createdAt: createdAt!, updatedAt: updatedAt!, ...(deletedAt !== undefined && { deletedAt }) };
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
  const today = factsOfToday(model, after);
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
      deletedAt: after['deletedAt'] === PURGED ? null : (after['deletedAt'] ?? null),
      ...Object.fromEntries(names.map((name) => [name, valueIn(today, name)])),
    },
  };
}

/**
 * The values that bring a record back to a version: all of them, but three kinds that stay as they are now. A personal value
 * that was erased since is not known any more, and emptying what was written later would be a second loss. A field that is
 * demanded today and had no value then cannot be emptied. And what the caller may not update, they cannot bring back either.
 * @throws CodedError NOT_FOUND; FORBIDDEN for a version that the caller may not see; VALIDATION_ERROR for a version that the record never had, naming those it has
 */
export async function valuesAtVersion(
  tx: Tx,
  reader: Reader,
  model: ModelDefinition,
  id: string,
  version: number,
  { codec, wasErasedSince }: LogReading,
): Promise<RecordValues> {
  const { tenant, access } = reader;
  const stream = modelStream(model.name, id);
  const [newest] = (await isSeen(tx, reader, model, id))
    ? await readStream(tx, tenant, stream, { direction: 'backward', limit: 1 })
    : [];
  if (!newest || kindOf(newest) === 'purged') throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
  const last = newest.streamVersion;
  const then = version < 1 || version > last ? null : await stateAt(tx, tenant, stream, { version }, recordFold, codec);
  if (!then) {
    const versions = last === 1 ? 'version 1 only' : `versions 1 to ${last}`;
    const faults = [
      { path: 'version', message: `version ${version} is none of this ${model.name}: it has ${versions}.` },
    ];
    throw apiError('VALIDATION_ERROR', faults[0]!.message, { faults, versions: { first: 1, last } });
  }
  const today = factsOfToday(modelNamed(access.schema, model.name), then.state);
  if (!maySee(reader, model, today))
    throw apiError('FORBIDDEN', `You may not see version ${version} of this ${model.name}.`);
  const written = access.writes(model, 'update');
  const personal = new Set(personalFields(model));
  const isErased = personal.size > 0 && ((await wasErasedSince?.(tx, tenant, stream, then.since)) ?? false);
  const values: Record<string, FieldValue> = {};
  for (const field of model.fields) {
    const name = inputName(field);
    // What cannot be read in today's type stays as it was, and is refused by its name: nothing is emptied unasked.
    const value = today[name] ?? then.state[name] ?? null;
    if (!written.has(name)) continue;
    if (value === null && (field.required || (isErased && personal.has(name)))) continue;
    values[name] = value;
  }
  for (const { input } of linksOf(model)) {
    if (written.has(input)) values[input] = then.state[input] ?? [];
  }
  return values;
}

/** Whether the record as it is now may be seen. A statement only where a rule looks at it. */
async function isSeen(tx: Tx, reader: Reader, model: ModelDefinition, id: string): Promise<boolean> {
  if (!reader.access.reads(model)) return false;
  if (!seesSome(reader, model)) return true;
  const { text, parameters } = compileGet(reader, model, id, new Map(), null, 'INCLUDE');
  return (await tx.query(text, parameters)).length > 0;
}
