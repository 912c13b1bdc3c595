import { apiError, CodedError, isCodedError, uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { Principal } from '@atomo-cc/access';
import { modelStream, type EventMetadata, type NewEvent } from '@atomo-cc/events';
import {
  APPEND_ERRORS,
  findAnswers,
  fingerprintOf,
  GroupCommit,
  isAnswerTaken,
  isSnapshotDue,
  isStreamTaken,
  keepAnswers,
  keepSnapshots,
  MAX_EVENT_BYTES,
  MAX_IDEMPOTENCY_KEY,
  refusalOf,
  sendAppend,
  storageFault,
  type EventCodec,
  type KeptAnswer,
  type StateToKeep,
  type StreamAppend,
} from '@atomo-cc/event-store';
import {
  checkRecord,
  columnOf,
  inputName,
  linksOf,
  linkTableOf,
  modelNamed,
  validateInput,
  type FieldValue,
  type InputFault,
  type LinkRelation,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { fateOf, intArray, sqlState, textArray, type AppDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { currentTraceparent, withoutSpan, withSpan } from '@atomo-cc/platform/telemetry';
import type { ApiContext } from '../api/index.js';
import { CommandSpans } from './command-spans.js';
import { ARRAY_TYPES, COLUMN_TYPES, columnArray } from './model-columns.js';
import { LINK_COLUMNS } from './query-compiler.js';
import { changeRefusal, maySee, readerOf, seesSome, toldRefusal } from './record-access.js';
import { recordToKeep } from './record-states.js';
import { decideCreate, decideUpdate, evolve, type RecordState } from './record.js';
import { violationOf } from './violations.js';

/** What someone wants done to one record. */
export interface RecordCommand {
  readonly kind: 'create' | 'update' | 'restore';
  readonly model: ModelDefinition;
  /** Of the record; a new one gets its id before the command waits for its turn, so that trying again makes no second. */
  readonly id: string;
  readonly input: Readonly<Record<string, unknown>>;
  /** Null: whatever version the record is at. */
  readonly expectedVersion: number | null;
  /** Of `restore` alone: the version whose values the input has. */
  readonly restoredVersion?: number;
  readonly idempotencyKey: string | null;
  readonly context: ApiContext;
}

/** A record as a command has left it. */
export interface CommittedRecord extends RecordState {
  readonly id: string;
  /** As the API writes moments: `2026-11-21T07:25:18.123Z`. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

/** What a command answers: the record as it was committed, or null when the command was a repeat and must be read. */
export interface CommandAnswer {
  readonly id: string;
  readonly record: CommittedRecord | null;
}

/** What commands are carried out with. */
export interface RecordCommandsOptions {
  /** Seals what is personal in events; rows keep what the commands decided. */
  readonly codec?: Pick<EventCodec, 'encode' | 'sealState'>;
  /** Told after a commit that has appended something. Nobody waits for it, and its errors are its own. */
  readonly onAppended?: (tenant: TenantId) => unknown;
  /** For measurements; the defaults of GroupCommit otherwise. */
  readonly maxBatch?: number;
  readonly maxInFlight?: number;
}

/** A command with what is known of it before its transaction. */
interface Submitted extends RecordCommand {
  readonly values: RecordValues;
  readonly faults: readonly InputFault[];
  /** Empty without an idempotency key. */
  readonly fingerprint: string;
}

/** A command took effect (now, or when its idempotency key was first used), or it was refused and changed nothing. */
type Outcome = CommandAnswer | { readonly refused: CodedError };

/**
 * SQLSTATE classes of errors that a statement was refused with while the connection lives: the transaction is rolled back.
 * Data exceptions, broken constraints, rollbacks such as deadlocks (but 40003, which says that nobody knows), syntax and
 * access, program limits, and the timeouts of statements and locks (57014, 55P03).
 */
const ROLLED_BACK = /^(22|23|40(?!003)|42|54|55|57014)/;

/** Runs of a batch that meets keys of other processes, or waits for each other with theirs: each run finds what was committed before it. */
const MAX_RUNS = 5;

/** Carries out commands on records; those that arrive together share a transaction. */
export class RecordCommands {
  private readonly group: GroupCommit<Submitted, Outcome>;

  constructor(
    private readonly schema: SchemaDefinition,
    database: AppDatabase,
    options: RecordCommandsOptions = {},
  ) {
    const { codec, onAppended, ...limits } = options;
    this.group = new GroupCommit({
      ...limits,
      commit: async (tenant, commands) => {
        // A transaction serves many: it is no part of the request that happened to begin it.
        const { outcomes, hasAppended } = await withoutSpan(() =>
          commitBatch(database, schema, tenant as TenantId, commands, codec),
        );
        if (hasAppended && onAppended) void (async () => onAppended(tenant as TenantId))().catch(() => undefined);
        return outcomes;
      },
      streamsOf: ({ model, id }) => [modelStream(model.name, id)],
      isRolledBack: (error) =>
        fateOf(error) === null && (isCodedError(error) || ROLLED_BACK.test(sqlState(error) ?? '')),
    });
  }

  /**
   * Creates a record and answers it once event and row are committed.
   * @throws CodedError VALIDATION_ERROR with every broken rule in `details.faults`, CONFLICT, RATE_LIMITED, INTERNAL_ERROR that says
   * whether it was written when storage failed
   */
  create(command: Omit<RecordCommand, 'kind' | 'id' | 'expectedVersion' | 'restoredVersion'>): Promise<CommandAnswer> {
    return this.submit({ ...command, kind: 'create', id: uuidv7(), expectedVersion: null });
  }

  /**
   * Changes a record. A change that changes nothing appends nothing and leaves the version as it is.
   * @throws CodedError NOT_FOUND, VALIDATION_ERROR, CONFLICT with the current version in `details.currentVersion`, RATE_LIMITED
   */
  update(command: Omit<RecordCommand, 'kind' | 'restoredVersion'>): Promise<CommandAnswer> {
    return this.submit({ ...command, kind: 'update' });
  }

  /**
   * Gives a record the values again that it had at an older version, under today's rules, and says so in its own event. Where
   * nothing differs, nothing is appended.
   * @param command `values` are those of `version`, by the names under which fields are written; fields it lacks stay
   * @throws CodedError as `update`
   */
  restore(
    command: Omit<RecordCommand, 'kind' | 'input' | 'restoredVersion'> & {
      readonly version: number;
      readonly values: RecordValues;
    },
  ): Promise<CommandAnswer> {
    const { version, values, ...rest } = command;
    return this.submit({ ...rest, kind: 'restore', input: values, restoredVersion: version });
  }

  private submit(command: RecordCommand): Promise<CommandAnswer> {
    const attributes = { 'atomo.command': command.kind, 'atomo.model': command.model.name };
    return withSpan(`${command.kind} ${command.model.name}`, { attributes }, () => {
      const traceparent = currentTraceparent();
      return this.commit(traceparent ? { ...command, context: { ...command.context, traceparent } } : command);
    });
  }

  private async commit(command: RecordCommand): Promise<CommandAnswer> {
    const key = command.idempotencyKey;
    if (key !== null && (key === '' || key.length > MAX_IDEMPOTENCY_KEY || key.includes('\0') || !key.isWellFormed())) {
      throw apiError(
        'VALIDATION_ERROR',
        `An idempotencyKey has 1 to ${MAX_IDEMPOTENCY_KEY} characters, none of them NUL.`,
      );
    }
    const submitted: Submitted = {
      ...command,
      ...validateInput(command.model, command.input, command.kind === 'create' ? 'create' : 'update'),
      fingerprint: key === null ? '' : fingerprintOf(saidBy(command)),
    };
    const { model, context } = command;
    const told = (error: unknown) => {
      const said = toldAs(error, key);
      return isCodedError(said) ? toldRefusal(readerOf(this.schema, context.principal), model, said) : said;
    };
    const outcome = await this.group.submit(context.principal.tenantId, submitted).catch((error: unknown) => {
      throw told(error);
    });
    if ('refused' in outcome) throw told(outcome.refused);
    return outcome;
  }
}

/**
 * What the API tells of an error of the event store. Of storage that fails, whether the command was written: its caller has
 * to know what to do next. Why it fails is for the log, as the cause.
 */
function toldAs(error: unknown, key: string | null): unknown {
  const fault = storageFault(error);
  if (fault) {
    const said = fault.code === 'LOG_OUTCOME_UNKNOWN' ? outcomeUnknown(key) : NOTHING_WRITTEN[fault.code];
    return new CodedError('INTERNAL_ERROR', said!, undefined, { cause: fault });
  }
  if (!isCodedError(error)) return error;
  if (error.code === 'WRITES_OVERLOADED') return apiError('RATE_LIMITED', error.message);
  return Object.hasOwn(APPEND_ERRORS, error.code) ? apiError('VALIDATION_ERROR', error.message) : error;
}

const NOTHING_WRITTEN: Readonly<Record<string, string>> = {
  LOG_STORAGE_FULL: 'No room or resources in the database; nothing was written. Try again later.',
  DATABASE_UNREACHABLE: 'The database does not answer; nothing was written. Try again later.',
};

function outcomeUnknown(key: string | null): string {
  return key === null
    ? 'It is open whether it was written. Look whether it took effect before you send it again.'
    : 'It is open whether it was written. Send it again with the same idempotencyKey: it takes effect once.';
}

/** A record in the course of a batch: as it is after the commands before, and the row that will be written for it. */
interface Working {
  readonly model: ModelDefinition;
  readonly id: string;
  state: RecordState | null;
  isChanged: boolean;
  /** The relations whose links the batch changes, by the names under which they are written. */
  changedLinks: Set<string>;
  /** Before the batch; 0 for a record that the batch creates. */
  readonly versionBefore: number;
  /** Both null for a record that the batch creates; otherwise as they were before it. */
  readonly createdAt: string | null;
  readonly updatedAt: string | null;
}

interface Batch {
  readonly outcomes: readonly Outcome[];
  readonly hasAppended: boolean;
}

/**
 * Runs commands in a transaction. Where another process commits a command with the same idempotency key at the same time,
 * this one ends after it with an error, and finds the other's answer when it is run again. A row that the database refuses
 * fails the batch with what its caller is told; the group then finds out whose it is.
 */
async function commitBatch(
  database: AppDatabase,
  schema: SchemaDefinition,
  tenant: TenantId,
  commands: readonly Submitted[],
  codec: Pick<EventCodec, 'encode' | 'sealState'> | undefined,
): Promise<Batch> {
  for (let run = 1; ; run += 1) {
    const spans = CommandSpans.of(commands);
    try {
      const batch = await database.transaction(tenant, (tx) => runBatch(tx, schema, tenant, commands, codec, spans));
      spans?.ended();
      return batch;
    } catch (error) {
      spans?.ended(error);
      // Only who appends past these commands begins the stream of a new record before its own command does.
      if (isStreamTaken(error)) throw apiError('CONFLICT', 'A new record has the id of one that is there already.');
      const violation = violationOf(schema, error);
      if (violation) throw violation;
      if (run === MAX_RUNS || fateOf(error) !== null || !mayPass(error)) throw error;
    }
  }
}

/** SQLSTATE of a transaction that Postgres has ended because it and another one waited for each other. */
const DEADLOCK = '40P01';

/** Whether the same commands may go through when they are run again at once. */
function mayPass(error: unknown): boolean {
  // Values that are unique are taken in the order of the rows, which two batches may have in another order.
  return isAnswerTaken(error) || sqlState(error) === DEADLOCK;
}

/**
 * Runs commands in their order within one transaction. However many they are, the statements are few: the records and the
 * references of each model are read at once, the events appended at once, and the rows of each model written at once; and
 * they wait for one another only where one needs the answer of the other. Locks are taken in the order of models and ids, so
 * two batches wait for each other instead of deadlocking.
 */
async function runBatch(
  tx: Tx,
  schema: SchemaDefinition,
  tenant: TenantId,
  commands: readonly Submitted[],
  codec: Pick<EventCodec, 'encode' | 'sealState'> | undefined,
  spans: CommandSpans | null,
): Promise<Batch> {
  const keys = new Set(commands.flatMap(({ idempotencyKey }) => idempotencyKey ?? []));
  const [answers, records, references] = await Promise.all([
    findAnswers(tx, tenant, [...keys]),
    lockRecords(tx, schema, commands),
    lockReferences(tx, schema, commands),
  ]);

  const appends: StreamAppend[] = [];
  const kept: KeptAnswer[] = [];
  const outcomes = commands.map((command): Decided => {
    const { idempotencyKey: key, fingerprint } = command;
    const answer = key === null ? undefined : answers.get(key);
    if (answer) {
      return answer.fingerprint === fingerprint
        ? { id: answer.recordId, record: null }
        : { refused: KEY_USED_OTHERWISE };
    }
    const working = workingOn(records, command);
    const refused = refusal(schema, command, working, references);
    if (refused) return { refused };
    const before = working.state;
    const events = decide(command, before);
    const tooMuch = isLarge(events) ? events.map(refusalOf).find((fault) => fault !== null) : undefined;
    if (tooMuch) return { refused: tooMuch };
    if (events.length > 0) {
      const stream = modelStream(working.model.name, working.id);
      appends.push({
        stream,
        expected: before?.version ?? 0,
        events,
        metadata: metadataOf(command, spans?.append(command)),
      });
      working.state = events.reduce<RecordState | null>(evolve, before);
      working.isChanged = true;
      for (const { input } of linksOf(working.model)) {
        if (events.some(({ data }) => Object.hasOwn(data, input))) working.changedLinks.add(input);
      }
    }
    const state = working.state!;
    if (key !== null) {
      const own = { key, fingerprint, recordId: working.id, version: state.version };
      answers.set(key, own);
      kept.push(own);
    }
    return { working, state, updatedAt: working.isChanged ? null : working.updatedAt };
  });

  spans?.decided(outcomes);
  let now: Date | null = null;
  if (appends.length > 0) {
    const result = await sendAppend(tx, tenant, codec ? await codec.encode(tx, tenant, appends) : appends);
    // Only who appends past these commands gets here: the record's row was locked before its version was read.
    if (!result.ok) throw apiError('CONFLICT', `${result.stream} is at version ${result.currentVersion} by now.`);
    now = result.recordedAt;
    sendRows(tx, tenant, records, now);
    await keepSnapshots(tx, tenant, snapshotsDue(records, now), codec);
  }
  keepAnswers(tx, tenant, kept);
  const at = now?.toISOString() ?? null;
  return { outcomes: outcomes.map((decided) => outcomeOf(decided, at)), hasAppended: appends.length > 0 };
}

/** The states that spare who reads long streams the way from their beginning. */
function snapshotsDue(records: ReadonlyMap<string, Working>, now: Date): StateToKeep[] {
  const due: StateToKeep[] = [];
  for (const { model, id, state, isChanged, versionBefore, createdAt } of records.values()) {
    if (!isChanged || !isSnapshotDue(versionBefore, state!.version)) continue;
    const at = now.toISOString();
    due.push(recordToKeep(model, id, state!.version, { ...state!.values, createdAt: createdAt ?? at, updatedAt: at }));
  }
  return due;
}

/** An outcome, but for the time of the commit. */
type Decided = Outcome | { readonly working: Working; readonly state: RecordState; readonly updatedAt: string | null };

/** @param now the time of the batch's events, which is that of all records it has changed */
function outcomeOf(decided: Decided, now: string | null): Outcome {
  if (!('working' in decided)) return decided;
  const { working, state, updatedAt } = decided;
  const { id, createdAt } = working;
  const { version, values } = state;
  return { id, record: { id, version, values, createdAt: createdAt ?? now!, updatedAt: updatedAt ?? now! } };
}

function decide(command: Submitted, state: RecordState | null): readonly NewEvent[] {
  const { kind, model, id, values } = command;
  if (kind === 'create') return decideCreate(model, id, values);
  return decideUpdate(model, id, state!, values, kind === 'restore' ? 'restored' : 'updated');
}

/** True where an event may be larger than the log takes: every character as the longest escape, and the names as short. */
function isLarge(events: readonly NewEvent[]): boolean {
  let characters = 0;
  for (const { data } of events) {
    for (const value of Object.values(data)) characters += typeof value === 'string' ? value.length : 0;
  }
  return characters * LONGEST_ESCAPE > MAX_EVENT_BYTES / 2;
}

/** `\u001f`: what JSON makes of a control character. */
const LONGEST_ESCAPE = 6;

const KEY_USED_OTHERWISE = apiError(
  'CONFLICT',
  'This idempotencyKey was used for another command. Use a new one for each command, and the same only to repeat it.',
);

/** What makes a command the same command when it is repeated: a new record's id is not part of it. */
function saidBy({ kind, model, id, input, expectedVersion, restoredVersion, context }: RecordCommand): unknown {
  const said = kind === 'restore' ? restoredVersion : input;
  return [kind, model.name, kind === 'create' ? null : id, said, expectedVersion, callerOf(context.principal)];
}

/** A person by the bare id, as it stands in the fingerprints of commands that were answered before there were tokens. */
function callerOf({ userId, actor }: Principal): string {
  return userId ?? actor;
}

/** @param traceparent of the span that appends, so that what follows from the events is its child */
function metadataOf({ context, restoredVersion }: RecordCommand, traceparent: string | undefined): EventMetadata {
  const { principal, requestId, address } = context;
  return {
    actor: principal.actor,
    correlationId: requestId,
    causationId: requestId,
    ...(address !== undefined && { address }),
    ...(traceparent !== undefined && { traceparent }),
    ...(restoredVersion !== undefined && { restoredVersion }),
  };
}

/** Of a record that the batch has not changed, and of which the database has nothing. */
const UNTOUCHED = { isChanged: false, createdAt: null, updatedAt: null } as const;

function workingOn(records: Map<string, Working>, { model, id }: RecordCommand): Working {
  const name = modelStream(model.name, id);
  let working = records.get(name);
  if (!working) {
    working = { ...UNTOUCHED, changedLinks: new Set(), model, id, state: null, versionBefore: 0 };
    records.set(name, working);
  }
  return working;
}

/** Why a command cannot take effect, or null. */
function refusal(
  schema: SchemaDefinition,
  command: Submitted,
  working: Working,
  references: ReadonlyMap<string, RecordValues>,
): CodedError | null {
  const { model, kind, expectedVersion, values, faults, input } = command;
  const reader = readerOf(schema, command.context.principal);
  // Whoever may not see a record is told what they are told of one that is not there.
  const state = working.state && maySee(reader, model, working.state.values) ? working.state : null;
  const missing = referencesOf(schema, model, values).filter(({ target, id }) => {
    const found = references.get(modelStream(target.name, id));
    return !found || !maySee(reader, target, found);
  });
  // A new record was checked with its input; of another the whole is known only here.
  const broken = kind === 'create' || !state ? [] : checkRecord(model, { ...state.values, ...values });
  const all = [
    ...faults,
    ...broken,
    ...missing.map(({ path, target, said }) => ({
      path,
      message: `${path}: there is no ${target.name} with ${said}.`,
    })),
  ];
  if (all.length > 0) return apiError('VALIDATION_ERROR', all.map((fault) => fault.message).join(' '), { faults: all });
  if (kind !== 'create' && !state) return apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
  const refused = changeRefusal(reader, {
    operation: kind === 'create' ? 'create' : 'update',
    model,
    before: state && state.values,
    after: { ...state?.values, ...values },
    given: Object.keys(input),
  });
  if (refused || kind === 'create') return refused;
  if (expectedVersion === null || expectedVersion === state!.version) return null;
  if (!reader.access.readsOwn(model, 'version'))
    return apiError('CONFLICT', `The ${model.name} is at another version by now. Read it again, then decide.`);
  const currentVersion = state!.version;
  const message = `The ${model.name} is at version ${currentVersion} by now. Read it again, then decide.`;
  return apiError('CONFLICT', message, { currentVersion });
}

/** A record that another one is to refer to. */
interface Reference {
  readonly path: string;
  readonly target: ModelDefinition;
  readonly id: string;
  /** What a fault calls the id. */
  readonly said: string;
}

function referencesOf(schema: SchemaDefinition, model: ModelDefinition, values: RecordValues): Reference[] {
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

/** Reads the records that are to be changed, under a lock that holds until the commit. */
async function lockRecords(
  tx: Tx,
  schema: SchemaDefinition,
  commands: readonly Submitted[],
): Promise<Map<string, Working>> {
  const found = await Promise.all(
    schema.models.map(async (model) => {
      const ids = commands.filter((command) => command.kind !== 'create' && command.model === model);
      if (ids.length === 0) return [];
      const wanted = [textArray(ids.map(({ id }) => id))];
      const { lockRecords: lock, links } = statementsOf(model);
      const [rows, ...linked] = await Promise.all([
        tx.prepared<{ row: LockedRow }>(lock, wanted),
        // Behind the lock, in a statement of their own: that of the lock sees what was there before it waited.
        ...links.map(({ read }) => tx.prepared<{ owner: string; targets: string[] }>(read, wanted)),
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

type LockedRow = Record<string, FieldValue> & { id: string; version: number; created_at: string; updated_at: string };

function valuesFrom(model: ModelDefinition, row: LockedRow): RecordValues {
  return Object.fromEntries(model.fields.map((field) => [inputName(field), row[columnOf(field)] ?? null]));
}

function workingFrom(model: ModelDefinition, row: LockedRow, links: RecordValues): Working {
  return {
    model,
    id: row.id,
    state: { version: row.version, values: { ...valuesFrom(model, row), ...links } },
    isChanged: false,
    changedLinks: new Set(),
    versionBefore: row.version,
    createdAt: new Date(row.created_at).toISOString(),
    updatedAt: new Date(row.updated_at).toISOString(),
  };
}

/**
 * The records referred to that exist, under a lock that keeps them from going while they are written about; with their values
 * where it takes those to say whether a caller may see them.
 */
async function lockReferences(
  tx: Tx,
  schema: SchemaDefinition,
  commands: readonly Submitted[],
): Promise<Map<string, RecordValues>> {
  const wanted = commands.flatMap(({ model, values, context }) => {
    const references = referencesOf(schema, model, values);
    if (references.length === 0) return [];
    const reader = readerOf(schema, context.principal);
    return references.map(({ target, id }) => ({ target, id, needsRow: seesSome(reader, target) }));
  });
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
function sendRows(tx: Tx, tenant: TenantId, records: ReadonlyMap<string, Working>, now: Date): void {
  const changed = new Map<ModelDefinition, Working[]>();
  for (const working of records.values()) {
    if (!working.isChanged) continue;
    const ofModel = changed.get(working.model);
    if (ofModel) ofModel.push(working);
    else changed.set(working.model, [working]);
  }
  for (const [model, rows] of changed) {
    sendLinks(tx, tenant, model, rows);
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

/** The links of records as they are after the batch, where it changes them. */
function sendLinks(tx: Tx, tenant: TenantId, model: ModelDefinition, rows: readonly Working[]): void {
  for (const { input, remove, add } of statementsOf(model).links) {
    const changed = rows.filter(({ changedLinks }) => changedLinks.has(input));
    if (changed.length === 0) continue;
    const targets = changed.map(({ state }) => `{${(state!.values[input] as readonly string[]).join(',')}}`);
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
  readonly lockRecords: string;
  readonly lockReferences: string;
  readonly lockReferredRecords: string;
  readonly writeRows: string;
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
  return {
    // The row as JSON, because the driver would turn a calendar day into a moment of this machine's time zone. `no key`
    // because who refers to this record holds a key share on it: two records that come to refer to each other at the same
    // time would otherwise deadlock.
    lockRecords: `select ${row} as row from ${model.table} r where id = any($1::text[]::uuid[]) order by id for no key update`,
    lockReferredRecords: `select ${row} as row from ${model.table} r where id = any($1::text[]::uuid[]) order by id for key share`,
    lockReferences: `select id from ${model.table} where id = any($1::text[]::uuid[]) order by id for key share`,
    writeRows: `
      insert into ${model.table} as t (${['tenant_id', 'id', 'version', 'created_at', 'updated_at', ...columns].join(', ')})
      select ${['$1', 'r.id::uuid', 'r.version', '$2::timestamptz', '$2::timestamptz', ...cast].join(', ')}
      from unnest(${['$3::text[]', '$4::int[]', ...arrays].join(', ')}) as r (${['id', 'version', ...columns].join(', ')})
      order by r.id
      on conflict (tenant_id, id) do update set version = excluded.version, updated_at = excluded.updated_at
        ${columns.map((column) => `, ${column} = excluded.${column}`).join('')}
      where t.version < excluded.version`,
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
