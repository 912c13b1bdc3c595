import { apiError, CodedError, isCodedError, uuidv7, type TenantId } from '@atomo-cc/kernel';
import type { Principal } from '@atomo-cc/access';
import { kindOf, modelStream, type EventMetadata, type NewEvent } from '@atomo-cc/events';
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
  requestErasure,
  sendAppend,
  storageFault,
  type EventCodec,
  type KeptAnswer,
  type StateToKeep,
  type StreamAppend,
} from '@atomo-cc/event-store';
import {
  ADMIN,
  checkRecord,
  linksOf,
  validateInput,
  type InputFault,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { fateOf, sqlState, type AppDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { currentTraceparent, withoutSpan, withSpan } from '@atomo-cc/platform/telemetry';
import type { ApiContext } from '../api/index.js';
import { CommandSpans } from './command-spans.js';
import {
  MAX_RECORDS_PER_COMMAND,
  planDeletion,
  planReturn,
  tooMany,
  type Plan,
  type RecordChange,
} from './deletion.js';
import { compileMatching, type Where } from './query-compiler.js';
import { changeRefusal, maySee, readerOf, seesSome, toldRefusal, type Reader } from './record-access.js';
import {
  lockRecords,
  lockReferences,
  referencesOf,
  sendRows,
  workingOn,
  type WantedReference,
  type Working,
} from './record-rows.js';
import { personalFields, PURGED, recordToKeep } from './record-states.js';
import { decideCreate, decideErased, decideUpdate, evolve, recordEvent, type RecordState } from './record.js';
import { placeOfTaken, violationOf } from './violations.js';

/** What someone wants done to one record. */
export interface RecordCommand {
  readonly kind: 'create' | 'update' | 'restore' | 'delete' | 'purge' | 'erase' | ManyKind;
  readonly model: ModelDefinition;
  /** Of the record; a new one gets its id before the command waits for its turn, so that trying again makes no second. */
  readonly id: string;
  readonly input: Readonly<Record<string, unknown>>;
  /** Null: whatever version the record is at. */
  readonly expectedVersion: number | null;
  /** Of `restore` alone, unless it only brings back what was deleted: the version whose values the input has. */
  readonly restoredVersion?: number;
  /** Why, for the log; of `erase` alone. */
  readonly reason?: string;
  readonly idempotencyKey: string | null;
  readonly context: ApiContext;
}

/** What may be done to many records at once. */
type ManyKind = 'createMany' | 'updateMany' | 'deleteMany';

/** What someone wants done to many records, all or none. */
export interface ManyCommand {
  readonly model: ModelDefinition;
  readonly idempotencyKey: string | null;
  readonly context: ApiContext;
}

/** A record as a command has left it. */
export interface CommittedRecord extends RecordState {
  readonly id: string;
  /** Null where it is there, and where it is purged. */
  readonly deletedAt: string | null;
  /** As the API writes moments: `2026-11-21T07:25:18.123Z`. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

/** What a command answers: the record as it was committed, or null when the command was a repeat and must be read. */
export interface CommandAnswer {
  readonly id: string;
  readonly record: CommittedRecord | null;
}

/** What the log keeps sealed is written by this. */
type CommandCodec = Pick<EventCodec, 'encode' | 'sealState' | 'renewKey'>;

/** What commands are carried out with. */
export interface RecordCommandsOptions {
  /** Seals what is personal in events; rows keep what the commands decided. */
  readonly codec?: CommandCodec;
  /** Told after a commit that has appended something. Nobody waits for it, and its errors are its own. */
  readonly onAppended?: (tenant: TenantId) => unknown;
  /** For measurements; the defaults of GroupCommit otherwise. */
  readonly maxBatch?: number;
  readonly maxInFlight?: number;
}

/** A command with what is known of it before its transaction. */
interface Submitted extends RecordCommand {
  /** Of a command about many records: those that are made, or which are meant. */
  readonly many?: { readonly creates: readonly Submitted[] } | { readonly where: Where };
  readonly values: RecordValues;
  readonly faults: readonly InputFault[];
  /** Empty without an idempotency key. */
  readonly fingerprint: string;
}

/** A command took effect (now, or when its idempotency key was first used), or it was refused and changed nothing. */
type Outcome = CommandAnswer | { readonly many: readonly CommandAnswer[] } | { readonly refused: CodedError };

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
      // They lock what refers to their records, which those that share a transaction with them may be about to write.
      isAlone: ({ kind }) => kind !== 'create' && kind !== 'update',
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
   * Brings a deleted record back, with the values of an older version if one is given; or gives those to one that is there. All
   * under today's rules, and told in an event of its own; where nothing differs, nothing is appended.
   * @param command `values` are those of `version`, by the names under which fields are written; fields it lacks stay
   * @throws CodedError as `update`
   */
  restore(
    command: Omit<RecordCommand, 'kind' | 'input' | 'restoredVersion'> & {
      readonly earlier: { readonly version: number; readonly values: RecordValues } | null;
    },
  ): Promise<CommandAnswer> {
    const { earlier, ...rest } = command;
    const restored = earlier ? { restoredVersion: earlier.version } : {};
    return this.submit({ ...rest, kind: 'restore', input: earlier?.values ?? {}, ...restored });
  }

  /**
   * Deletes a record, and does with what refers to it as `onDelete` says, all in one transaction with an event for each record. It
   * can be restored, unless its model keeps nothing of deleted records: then it is purged.
   * @throws CodedError NOT_FOUND; CONFLICT for another version, and with `details.references` where something that must not
   * lose it refers to it; QUERY_TOO_COMPLEX where more than MAX_RECORDS_PER_COMMAND would change; RATE_LIMITED
   */
  delete(command: Omit<RecordCommand, 'kind' | 'input' | 'restoredVersion'>): Promise<CommandAnswer> {
    return this.submit({ ...command, kind: 'delete', input: {} });
  }

  /**
   * Takes a record's values out of its row, and as soon as the history has the event out of that, with the key of what is
   * personal in its events. It is as if deleted, and stays so. What would go with it when it is deleted is purged too.
   * @throws CodedError as `delete`
   */
  purge(command: Omit<RecordCommand, 'kind' | 'input' | 'restoredVersion'>): Promise<CommandAnswer> {
    return this.submit({ ...command, kind: 'purge', input: {} });
  }

  /**
   * Takes what is personal from a record, deleted or not, in its row at once; for the rest, the past and all that was sealed under its
   * key, an erasure is written down in the same transaction, which is carried out behind it. The record stays, and what is written
   * about it later is sealed under a key of its own.
   * @throws CodedError NOT_FOUND; FORBIDDEN; VALIDATION_ERROR where nothing of its model is personal; CONFLICT for another version
   */
  erase(
    command: Omit<RecordCommand, 'kind' | 'input' | 'restoredVersion'> & { readonly reason: string },
  ): Promise<CommandAnswer> {
    return this.submit({ ...command, kind: 'erase', input: {} });
  }

  /**
   * Creates many records in one transaction, all or none; each has its event. The answers are in the order of the inputs.
   * @throws CodedError as `create`, with the place of the input in the paths of faults and in `details.index`; QUERY_TOO_COMPLEX for
   * more than MAX_RECORDS_PER_COMMAND
   */
  createMany(
    command: ManyCommand & { readonly inputs: readonly RecordCommand['input'][] },
  ): Promise<readonly CommandAnswer[]> {
    const { inputs, ...of } = command;
    return this.submitMany({ ...of, kind: 'createMany', input: { inputs } }, () => {
      if (inputs.length > MAX_RECORDS_PER_COMMAND) throw tooMany();
      const each = { ...of, kind: 'create', expectedVersion: null, idempotencyKey: null, fingerprint: '' } as const;
      return {
        creates: inputs.map((input) => ({ ...each, id: uuidv7(), input, ...validateInput(of.model, input, 'create') })),
      };
    });
  }

  /**
   * Changes all records that a condition holds of, as `update` changes one, all or none.
   * @throws CodedError as `update`, with the record in `details.id`; QUERY_TOO_COMPLEX for more than MAX_RECORDS_PER_COMMAND
   */
  updateMany(
    command: ManyCommand & { readonly where: Where; readonly input: RecordCommand['input'] },
  ): Promise<readonly CommandAnswer[]> {
    const { where, input, ...of } = command;
    return this.submitMany({ ...of, kind: 'updateMany', input: { where, input } }, () => ({ where }), input);
  }

  /**
   * Deletes all records that a condition holds of, as `delete` deletes one, all or none; what refers to one of them is no
   * hindrance where it goes as well.
   * @throws CodedError as `delete`, with the record in `details.id`
   */
  deleteMany(command: ManyCommand & { readonly where: Where }): Promise<readonly CommandAnswer[]> {
    const { where, ...of } = command;
    return this.submitMany({ ...of, kind: 'deleteMany', input: { where } }, () => ({ where }));
  }

  private async submitMany(
    command: ManyCommand & Pick<RecordCommand, 'kind' | 'input'>,
    manyOf: () => NonNullable<Submitted['many']>,
    input: RecordCommand['input'] = {},
  ): Promise<readonly CommandAnswer[]> {
    const { kind, model } = command;
    const attributes = { 'atomo.command': kind, 'atomo.model': model.name };
    return withSpan(`${kind} ${model.name}`, { attributes }, async () => {
      const traceparent = currentTraceparent();
      const context = traceparent ? { ...command.context, traceparent } : command.context;
      const whole = { ...command, context, id: uuidv7(), expectedVersion: null };
      const fingerprint = fingerprintBy(whole);
      const outcome = await this.send({
        ...whole,
        input,
        ...validateInput(model, input, 'update'),
        fingerprint,
        many: manyOf(),
      });
      return 'many' in outcome ? outcome.many : [];
    });
  }

  private submit(command: RecordCommand): Promise<CommandAnswer> {
    const attributes = { 'atomo.command': command.kind, 'atomo.model': command.model.name };
    return withSpan(`${command.kind} ${command.model.name}`, { attributes }, () => {
      const traceparent = currentTraceparent();
      return this.commit(traceparent ? { ...command, context: { ...command.context, traceparent } } : command);
    });
  }

  private async commit(command: RecordCommand): Promise<CommandAnswer> {
    const outcome = await this.send({
      ...command,
      fingerprint: fingerprintBy(command),
      ...validateInput(command.model, command.input, command.kind === 'create' ? 'create' : 'update'),
    });
    return outcome as CommandAnswer;
  }

  private async send(submitted: Submitted): Promise<Exclude<Outcome, { readonly refused: CodedError }>> {
    const { model, context, idempotencyKey: key } = submitted;
    const told = (error: unknown) => {
      const said = toldAs(error, key);
      return isCodedError(said) ? toldRefusal(readerOf(this.schema, context.principal), model, said) : said;
    };
    const outcome = await this.group.submit(context.principal.tenantId, submitted).catch((error: unknown) => {
      throw told(error);
    });
    // Of many records it is told already, before the places of the inputs were put ahead of the names of fields.
    if ('refused' in outcome) throw submitted.many ? toldAs(outcome.refused, key) : told(outcome.refused);
    return outcome;
  }
}

/** @throws CodedError VALIDATION_ERROR for a key that cannot be kept */
function fingerprintBy(command: RecordCommand): string {
  const key = command.idempotencyKey;
  if (key === null) return '';
  if (key === '' || key.length > MAX_IDEMPOTENCY_KEY || key.includes('\0') || !key.isWellFormed()) {
    throw apiError(
      'VALIDATION_ERROR',
      `An idempotencyKey has 1 to ${MAX_IDEMPOTENCY_KEY} characters, none of them NUL.`,
    );
  }
  return fingerprintOf(saidBy(command));
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
  codec: CommandCodec | undefined,
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
      const refused = violation && (await refusedInput(database, schema, tenant, commands, { error, violation }));
      if (refused) return { outcomes: [{ refused }], hasAppended: false };
      if (violation) throw violation;
      if (run === MAX_RUNS || fateOf(error) !== null || !mayPass(error)) throw error;
    }
  }
}

/** A violation by records that were to be made together, with the place of the input that it is about; null where that is not known. */
async function refusedInput(
  database: AppDatabase,
  schema: SchemaDefinition,
  tenant: TenantId,
  [command, ...others]: readonly Submitted[],
  { error, violation }: { readonly error: unknown; readonly violation: CodedError },
): Promise<CodedError | null> {
  if (!command?.many || !('creates' in command.many) || others.length > 0) return null;
  const { model, context, many } = command;
  const records = many.creates.map(({ values }) => values);
  const index = await database.transaction(tenant, (tx) => placeOfTaken(tx, model, error, records));
  return index === null ? null : placed(toldRefusal(readerOf(schema, context.principal), model, violation), { index });
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
  codec: CommandCodec | undefined,
  spans: CommandSpans | null,
): Promise<Batch> {
  const [first] = commands;
  if (commands.length === 1 && isAlone(first!)) return runAlone(tx, schema, tenant, first!, codec, spans);
  const keys = new Set(commands.flatMap(({ idempotencyKey }) => idempotencyKey ?? []));
  const [answers, records, references] = await Promise.all([
    findAnswers(tx, tenant, [...keys]),
    lockRecords(
      tx,
      schema,
      commands.filter(({ kind }) => kind !== 'create'),
      'change',
    ),
    lockReferences(tx, schema, wantedBy(schema, commands)),
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
      change(working, events);
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
  const at = await write(tx, tenant, { appends, records, kept }, codec);
  return { outcomes: outcomes.map((decided) => outcomeOf(decided, at)), hasAppended: appends.length > 0 };
}

/** What a transaction is to write. */
interface Changes {
  readonly appends: readonly StreamAppend[];
  readonly records: ReadonlyMap<string, Working>;
  readonly kept: readonly KeptAnswer[];
}

/** Writes events, rows, snapshots and answers; answers the time of the events, null where there are none. */
async function write(
  tx: Tx,
  tenant: TenantId,
  { appends, records, kept }: Changes,
  codec: CommandCodec | undefined,
): Promise<string | null> {
  let now: Date | null = null;
  if (appends.length > 0) {
    const result = await sendAppend(tx, tenant, appends, codec);
    // Only who appends past these commands gets here: the record's row was locked before its version was read.
    if (!result.ok) throw apiError('CONFLICT', `${result.stream} is at version ${result.currentVersion} by now.`);
    now = result.recordedAt;
    sendRows(tx, tenant, records, now);
    await keepSnapshots(tx, tenant, snapshotsDue(records, now), codec);
  }
  keepAnswers(tx, tenant, kept);
  return now?.toISOString() ?? null;
}

function change(working: Working, events: readonly NewEvent[]): void {
  working.state = events.reduce<RecordState | null>(evolve, working.state);
  working.isChanged = true;
  working.isErased = events.some((event) => kindOf(event) === 'erased');
  const isPurged = working.state!.gone === 'purged';
  for (const { input } of linksOf(working.model)) {
    if (isPurged || events.some(({ data }) => Object.hasOwn(data, input))) working.changedLinks.add(input);
  }
}

/** Whether a command has a transaction of its own, because what it changes besides its record is known only there. */
function isAlone({ kind }: RecordCommand): boolean {
  return kind !== 'create' && kind !== 'update';
}

/** Runs one command that looks further than its record. */
async function runAlone(
  tx: Tx,
  schema: SchemaDefinition,
  tenant: TenantId,
  command: Submitted,
  codec: CommandCodec | undefined,
  spans: CommandSpans | null,
): Promise<Batch> {
  const ended = (outcome: Outcome): Batch => {
    spans?.decided([outcome]);
    return { outcomes: [outcome], hasAppended: false };
  };
  const { id, idempotencyKey: key, fingerprint, many } = command;
  const answer = key === null ? undefined : (await findAnswers(tx, tenant, [key])).get(key);
  if (answer && answer.fingerprint !== fingerprint) return ended({ refused: KEY_USED_OTHERWISE });
  if (answer) return ended(many ? await repeatedMany(tx, tenant, answer) : { id: answer.recordId, record: null });
  if (many) {
    const done = await decideMany(tx, schema, command, many);
    if ('refused' in done) return ended(done);
    const metadata = metadataOf(command, done.changes.length > 0 ? spans?.append(command) : undefined);
    const { appends, records } = applied(done.changes, metadata);
    spans?.decided([{}]);
    const at = await write(tx, tenant, { appends, records, kept: keptOfMany(command, done.workings) }, codec);
    const answers = done.workings.map((working) => {
      const { state, isChanged, updatedAt } = working;
      return outcomeOf({ working, state: state!, updatedAt: isChanged ? null : updatedAt }, at) as CommandAnswer;
    });
    return { outcomes: [{ many: answers }], hasAppended: appends.length > 0 };
  }
  const purpose = command.kind === 'restore' || command.kind === 'erase' ? 'change' : 'go';
  const found = await lockRecords(tx, schema, [command], purpose);
  const working = workingOn(found, command);
  const plan = await planOf(tx, schema, command, working);
  if ('refused' in plan) return ended(plan);
  const metadata = metadataOf(command, plan.length > 0 ? spans?.append(command) : undefined);
  const { appends, records } = applied(plan, metadata);
  const state = working.state!;
  const decided = { working, state, updatedAt: working.isChanged ? null : working.updatedAt };
  spans?.decided([decided]);
  const kept = key === null ? [] : [{ key, fingerprint, recordId: id, version: state.version }];
  if (command.kind === 'erase') {
    const subject = modelStream(command.model.name, id);
    // Under the record's lock, so that nobody writes about it meanwhile: who comes later finds the next key.
    const generation = codec ? await codec.renewKey(tx, tenant, subject) : 0;
    const { actor: requestedBy } = command.context.principal;
    await requestErasure(tx, { tenant, subject, version: state.version, generation, requestedBy });
  }
  const at = await write(tx, tenant, { appends, records, kept }, codec);
  return { outcomes: [outcomeOf(decided, at)], hasAppended: appends.length > 0 };
}

function applied(changes: readonly RecordChange[], metadata: EventMetadata): Pick<Changes, 'appends' | 'records'> {
  const appends: StreamAppend[] = [];
  const records = new Map<string, Working>();
  for (const { working, events } of changes) {
    const stream = modelStream(working.model.name, working.id);
    records.set(stream, working);
    appends.push({ stream, expected: working.versionBefore, events, metadata });
    change(working, events);
  }
  return { appends, records };
}

/** What a command about many records comes to: the records it is about, and all that changes. */
type Many =
  | { readonly workings: readonly Working[]; readonly changes: readonly RecordChange[] }
  | { readonly refused: CodedError };

async function decideMany(
  tx: Tx,
  schema: SchemaDefinition,
  command: Submitted,
  many: NonNullable<Submitted['many']>,
): Promise<Many> {
  const { kind, model } = command;
  const reader = readerOf(schema, command.context.principal);
  const refusedAt = (error: CodedError, place: { readonly index: number } | { readonly id: string }): Many => ({
    refused: placed(toldRefusal(reader, model, error), place),
  });
  let each: readonly Submitted[];
  if ('creates' in many) each = many.creates;
  else {
    if (!reader.access.right(model, kind === 'deleteMany' ? 'delete' : 'update'))
      return { refused: apiError('FORBIDDEN', `You may not do this to a ${model.name}.`) };
    const { text, parameters } = compileMatching(reader, model, many.where, MAX_RECORDS_PER_COMMAND + 1);
    const rows = await tx.query<{ id: string }>(text, parameters);
    if (rows.length > MAX_RECORDS_PER_COMMAND) return { refused: tooMany() };
    const one = kind === 'deleteMany' ? ('delete' as const) : ('update' as const);
    each = rows.map(({ id }) => ({ ...command, kind: one, id }));
  }
  if (valueSize(each) > MAX_VALUES_PER_COMMAND) return { refused: tooMuch() };
  const existing = 'creates' in many ? [] : each;
  const [records, references] = await Promise.all([
    lockRecords(tx, schema, existing, kind === 'deleteMany' ? 'go' : 'change'),
    lockReferences(tx, schema, wantedBy(schema, each)),
  ]);
  const workings = each.map((one) => workingOn(records, one));
  if (kind === 'deleteMany') {
    for (const working of workings) {
      const refused = goingRefusal(reader, { ...command, kind: 'delete' }, working.state!.values);
      if (refused) return refusedAt(refused, { id: working.id });
    }
    const plan = await planDeletion(tx, schema, reader, workings, 'deleted');
    return 'refused' in plan ? plan : { workings, changes: plan };
  }
  const changes: RecordChange[] = [];
  for (const [index, one] of each.entries()) {
    const working = workings[index]!;
    const place = 'creates' in many ? { index } : { id: one.id };
    const refused = refusal(schema, one, working, references);
    if (refused) return refusedAt(refused, place);
    const events = decide(one, working.state);
    const unstorable = isLarge(events) ? events.map(refusalOf).find((fault) => fault !== null) : undefined;
    if (unstorable) return refusedAt(apiError('VALIDATION_ERROR', unstorable.message), place);
    if (events.length > 0) changes.push({ working, events });
  }
  return { workings, changes };
}

/** Characters of values that one command writes, of all its records: what is held in memory several times until the commit. */
const MAX_VALUES_PER_COMMAND = 32 * 1024 * 1024;

function valueSize(each: readonly Submitted[]): number {
  // All changes have the same values; new records have their own.
  const sizes = new Map<RecordValues, number>();
  let size = 0;
  for (const { values } of each) {
    if (!sizes.has(values)) sizes.set(values, JSON.stringify(values).length);
    size += sizes.get(values)!;
  }
  return size;
}

function tooMuch(): CodedError {
  return apiError(
    'QUERY_TOO_COMPLEX',
    `The command writes more than ${MAX_VALUES_PER_COMMAND} characters of values. Do it in several. (MAX_VALUES_PER_COMMAND: ${MAX_VALUES_PER_COMMAND})`,
    { limit: 'MAX_VALUES_PER_COMMAND', max: MAX_VALUES_PER_COMMAND },
  );
}

/** A refusal of one of many: which it was, and its faults by the places of the inputs. */
function placed(error: CodedError, place: { readonly index: number } | { readonly id: string }): CodedError {
  const { faults, ...details } = (error.details ?? {}) as { faults?: readonly InputFault[] };
  const ahead = 'index' in place ? `inputs.${place.index}` : '';
  const path = (fault: InputFault) => [ahead, fault.path].filter(Boolean).join('.');
  const said = 'index' in place ? `${ahead}: ${error.message}` : error.message;
  return new CodedError(error.code, said, {
    ...details,
    ...place,
    ...(faults && { faults: faults.map((fault) => ({ ...fault, path: path(fault) })) }),
  });
}

/**
 * The keys under which the records of a command about many are kept beside its own: longer than a caller's key may be, so that
 * nobody else has them.
 */
function partKeys(key: string, count: number): string[] {
  return Array.from({ length: count }, (_, n) => `${key.padEnd(MAX_IDEMPOTENCY_KEY)} ${n}`);
}

function keptOfMany({ idempotencyKey: key, fingerprint, id }: Submitted, workings: readonly Working[]): KeptAnswer[] {
  if (key === null) return [];
  const parts = partKeys(key, workings.length);
  const own = { key, fingerprint, recordId: id, version: workings.length };
  return [
    own,
    ...workings.map((working, n) => ({
      key: parts[n]!,
      fingerprint: '',
      recordId: working.id,
      version: working.state!.version,
    })),
  ];
}

async function repeatedMany(tx: Tx, tenant: TenantId, { key, version: count }: KeptAnswer): Promise<Outcome> {
  const keys = partKeys(key, count);
  const parts = await findAnswers(tx, tenant, keys);
  return { many: keys.map((part) => ({ id: parts.get(part)!.recordId, record: null })) };
}

/** What commands refer to, and whether its values are needed to say whether their callers may see it. */
function wantedBy(schema: SchemaDefinition, commands: readonly Submitted[]): WantedReference[] {
  return commands.flatMap(({ model, values, context }) => {
    const references = referencesOf(schema, model, values);
    if (references.length === 0) return [];
    const reader = readerOf(schema, context.principal);
    return references.map(({ target, id }) => ({ target, id, needsRow: seesSome(reader, target) }));
  });
}

async function planOf(tx: Tx, schema: SchemaDefinition, command: Submitted, working: Working): Promise<Plan> {
  const { kind, model, id } = command;
  const reader = readerOf(schema, command.context.principal);
  const { state } = working;
  if (!state || state.gone === 'purged' || !maySee(reader, model, state.values)) return { refused: notFound(model) };
  if (kind === 'erase') {
    const refused = erasureRefusal(reader, command) ?? versionRefusal(reader, command, state);
    return refused ? { refused } : [{ working, events: decideErased(model) }];
  }
  if (kind !== 'restore') {
    if (state.gone && kind === 'delete') return { refused: notFound(model) };
    const refused = goingRefusal(reader, command, state.values) ?? versionRefusal(reader, command, state);
    return refused ? { refused } : planDeletion(tx, schema, reader, [working], kind === 'purge' ? 'purged' : 'deleted');
  }
  const given = await withoutErased(tx, reader, command);
  const { values, there } = await planReturn(tx, schema, reader, working, given);
  const whole = state.gone ? { ...state.values, ...values } : values;
  const refused = refusal(schema, { ...command, values: whole }, working, there);
  if (refused) return { refused };
  const events = decideUpdate(model, id, state, values, 'restored');
  const isBack = state.gone && events.length === 0;
  const all = isBack ? [recordEvent(model, id, 'restored', {})] : events;
  return all.length === 0 ? [] : [{ working, events: all }];
}

/** Rules are declared about deleting; to purge is Admin's alone. */
function goingRefusal(reader: Reader, { kind, model }: Submitted, before: RecordValues): CodedError | null {
  if (kind === 'purge' && reader.access.role !== ADMIN)
    return apiError('FORBIDDEN', `You may not purge a ${model.name}.`);
  return changeRefusal(reader, { operation: 'delete', model, before, after: null, given: [] });
}

/** Like what the platform has beside the models: rules say nothing of it. */
function erasureRefusal({ access }: Reader, { model }: Submitted): CodedError | null {
  if (access.role !== ADMIN) return apiError('FORBIDDEN', `You may not erase a ${model.name}.`);
  if (personalFields(model).length > 0) return null;
  return apiError(
    'VALIDATION_ERROR',
    `Nothing of a ${model.name} is declared personal, so there is nothing to erase. To take all its values away, purge it.`,
  );
}

/**
 * The values of an older version, without what was erased since: they were read before the record was locked, and its key may still be
 * there.
 */
async function withoutErased(
  tx: Tx,
  { tenant }: Reader,
  { model, id, values, restoredVersion }: Submitted,
): Promise<RecordValues> {
  const personal = personalFields(model).filter((name) => Object.hasOwn(values, name));
  if (restoredVersion === undefined || personal.length === 0) return values;
  const [erased] = await tx.query(
    'select 1 from event_log where tenant_id = $1 and stream = $2 and stream_version > $3 and type = $4 limit 1',
    [tenant, modelStream(model.name, id), restoredVersion, `${model.name}.erased`],
  );
  if (!erased) return values;
  return Object.fromEntries(Object.entries(values).filter(([name]) => !personal.includes(name)));
}

function notFound({ name }: ModelDefinition): CodedError {
  return apiError('NOT_FOUND', `There is no ${name} with this id.`);
}

/** The states that spare who reads long streams the way from their beginning. */
function snapshotsDue(records: ReadonlyMap<string, Working>, now: Date): StateToKeep[] {
  const due: StateToKeep[] = [];
  for (const { model, id, state, isChanged, isErased, versionBefore, createdAt, deletedAt } of records.values()) {
    if (!isChanged || !isSnapshotDue(versionBefore, state!.version)) continue;
    const at = now.toISOString();
    const since = isErased ? deletedAt : at;
    const deleted = state!.gone ? { deletedAt: state!.gone === 'purged' ? PURGED : since } : {};
    const facts = { ...state!.values, createdAt: createdAt ?? at, updatedAt: at, ...deleted };
    due.push(recordToKeep(model, id, state!.version, facts));
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
  const { version, values, gone } = state;
  const isDeletedNow = working.isChanged && !working.isErased;
  const deletedAt = gone === 'deleted' ? (isDeletedNow ? now! : working.deletedAt) : null;
  return { id, record: { id, version, values, createdAt: createdAt ?? now!, updatedAt: updatedAt ?? now!, deletedAt } };
}

function decide(command: Submitted, state: RecordState | null): readonly NewEvent[] {
  const { kind, model, id, values } = command;
  if (kind === 'create') return decideCreate(model, id, values);
  return decideUpdate(model, id, state!, values);
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
  const said = kind === 'restore' ? (restoredVersion ?? null) : input;
  const isNew = kind === 'create' || kind.endsWith('Many');
  return [kind, model.name, isNew ? null : id, said, expectedVersion, callerOf(context.principal)];
}

/** A person by the bare id, as it stands in the fingerprints of commands that were answered before there were tokens. */
function callerOf({ userId, actor }: Principal): string {
  return userId ?? actor;
}

/** @param traceparent of the span that appends, so that what follows from the events is its child */
function metadataOf(
  { context, restoredVersion, reason }: RecordCommand,
  traceparent: string | undefined,
): EventMetadata {
  const { principal, requestId, address } = context;
  return {
    actor: principal.actor,
    correlationId: requestId,
    causationId: requestId,
    ...(address !== undefined && { address }),
    ...(traceparent !== undefined && { traceparent }),
    ...(reason !== undefined && { reason }),
    ...(restoredVersion !== undefined && { restoredVersion }),
  };
}

/** Why a command cannot take effect, or null. */
function refusal(
  schema: SchemaDefinition,
  command: Submitted,
  working: Working,
  references: ReadonlyMap<string, RecordValues>,
): CodedError | null {
  const { model, kind, values, faults, input } = command;
  const reader = readerOf(schema, command.context.principal);
  const isThere = working.state && (!working.state.gone || kind === 'restore');
  // Whoever may not see a record is told what they are told of one that is not there.
  const state = isThere && maySee(reader, model, working.state!.values) ? working.state : null;
  const missing = referencesOf(schema, model, values).filter(({ target, id, path }) => {
    const found = references.get(modelStream(target.name, id));
    // What a record that comes back refers to by itself, its caller need not see.
    return !found || ((kind !== 'restore' || Object.hasOwn(input, path)) && !maySee(reader, target, found));
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
  if (kind !== 'create' && !state) return notFound(model);
  const given = Object.keys(input);
  const before = state && state.values;
  const after = { ...before, ...values };
  const refused =
    (state?.gone ? changeRefusal(reader, { operation: 'delete', model, before, after: null, given: [] }) : null) ??
    (state?.gone && given.length === 0
      ? null
      : changeRefusal(reader, { operation: kind === 'create' ? 'create' : 'update', model, before, after, given }));
  if (refused || kind === 'create') return refused;
  return versionRefusal(reader, command, state!);
}

function versionRefusal(
  { access }: Reader,
  { model, expectedVersion }: Submitted,
  { version: currentVersion }: RecordState,
): CodedError | null {
  if (expectedVersion === null || expectedVersion === currentVersion) return null;
  if (!access.readsOwn(model, 'version'))
    return apiError('CONFLICT', `The ${model.name} is at another version by now. Read it again, then decide.`);
  const message = `The ${model.name} is at version ${currentVersion} by now. Read it again, then decide.`;
  return apiError('CONFLICT', message, { currentVersion });
}
