import { apiError, isCodedError, uuidv7, type CodedError, type TenantId } from '@atomo-cc/kernel';
import { modelStream, type EventMetadata, type NewEvent, type RecordedEvent } from '@atomo-cc/events';
import {
  append,
  type EventCodec,
  findAnswers,
  fingerprintOf,
  GroupCommit,
  isAnswerTaken,
  keepAnswers,
  MAX_IDEMPOTENCY_KEY,
  type KeptAnswer,
} from '@atomo-cc/event-store';
import {
  columnOf,
  inputName,
  modelNamed,
  validateInput,
  type FieldValue,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { sqlState, type AppDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { currentTraceparent, withoutSpan, withSpan } from '@atomo-cc/platform/telemetry';
import type { ApiContext } from '../api/index.js';
import { CommandSpans } from './command-spans.js';
import { COLUMN_TYPES } from './model-tables.js';
import { decideCreate, decideUpdate, evolve, type RecordState } from './record.js';

/** What someone wants done to one record. */
export interface RecordCommand {
  readonly kind: 'create' | 'update';
  readonly model: ModelDefinition;
  /** Of the record; a new one gets its id before the command waits for its turn, so that trying again makes no second. */
  readonly id: string;
  readonly input: Readonly<Record<string, unknown>>;
  /** Null: whatever version the record is at. */
  readonly expectedVersion: number | null;
  readonly idempotencyKey: string | null;
  readonly context: ApiContext;
}

/** A command took effect (now, or when its idempotency key was first used), or it was refused and changed nothing. */
type Outcome = { readonly id: string } | { readonly refused: CodedError };

/**
 * SQLSTATE classes of errors that a statement was refused with while the connection lives: the transaction is rolled back.
 * Data exceptions, broken constraints, rollbacks such as deadlocks, syntax and access, program limits, and the timeouts of
 * statements and locks (57014, 55P03).
 */
const ROLLED_BACK = /^(22|23|40|42|54|55|57014)/;

/** Runs of a batch that meets keys of other processes: each run finds those that were committed before it. */
const MAX_RUNS = 5;

/** Carries out commands on records; those that arrive together share a transaction. */
export class RecordCommands {
  private readonly group: GroupCommit<RecordCommand, Outcome>;

  /** @param options the codec seals personal fields; limits are for measurements, the defaults of GroupCommit otherwise */
  constructor(
    schema: SchemaDefinition,
    database: AppDatabase,
    { codec, ...limits }: { maxBatch?: number; maxInFlight?: number; codec?: EventCodec } = {},
  ) {
    this.group = new GroupCommit({
      ...limits,
      // A transaction serves many: it is no part of the request that happened to begin it.
      commit: (tenant, commands) =>
        withoutSpan(() => commitBatch(database, schema, codec, tenant as TenantId, commands)),
      streamsOf: ({ model, id }) => [modelStream(model.name, id)],
      isRolledBack: (error) => isCodedError(error) || ROLLED_BACK.test(sqlState(error) ?? ''),
    });
  }

  /**
   * Creates a record and answers its id once event and row are committed.
   * @throws CodedError VALIDATION_ERROR with every broken rule in `details.faults`, CONFLICT, RATE_LIMITED
   */
  create(command: Omit<RecordCommand, 'kind' | 'id' | 'expectedVersion'>): Promise<string> {
    return this.submit({ ...command, kind: 'create', id: uuidv7(), expectedVersion: null });
  }

  /**
   * Changes a record. A change that changes nothing appends nothing and leaves the version as it is.
   * @throws CodedError NOT_FOUND, VALIDATION_ERROR, CONFLICT with the current version in `details.currentVersion`, RATE_LIMITED
   */
  async update(command: Omit<RecordCommand, 'kind'>): Promise<string> {
    return this.submit({ ...command, kind: 'update' });
  }

  private submit(command: RecordCommand): Promise<string> {
    const attributes = { 'atomo.command': command.kind, 'atomo.model': command.model.name };
    return withSpan(`${command.kind} ${command.model.name}`, { attributes }, () => {
      const traceparent = currentTraceparent();
      return this.commit(traceparent ? { ...command, context: { ...command.context, traceparent } } : command);
    });
  }

  private async commit(command: RecordCommand): Promise<string> {
    const key = command.idempotencyKey;
    if (key !== null && (key === '' || key.length > MAX_IDEMPOTENCY_KEY || key.includes('\0') || !key.isWellFormed())) {
      throw apiError(
        'VALIDATION_ERROR',
        `An idempotencyKey has 1 to ${MAX_IDEMPOTENCY_KEY} characters, none of them NUL.`,
      );
    }
    const outcome = await this.group.submit(command.context.principal.tenantId, command).catch((error: unknown) => {
      throw isCodedError(error) && error.code === 'WRITES_OVERLOADED' ? apiError('RATE_LIMITED', error.message) : error;
    });
    if ('refused' in outcome) throw outcome.refused;
    return outcome.id;
  }
}

/** A record in the course of a batch: as it is after the commands before, and the row that will be written for it. */
interface Working {
  readonly model: ModelDefinition;
  readonly id: string;
  state: RecordState | null;
  isChanged: boolean;
}

/**
 * Runs commands in a transaction. Where another process commits a command with the same idempotency key at the same time,
 * this one ends after it with an error, and finds the other's answer when it is run again.
 */
async function commitBatch(
  database: AppDatabase,
  schema: SchemaDefinition,
  codec: EventCodec | undefined,
  tenant: TenantId,
  commands: readonly RecordCommand[],
): Promise<Outcome[]> {
  for (let run = 1; ; run += 1) {
    const spans = CommandSpans.of(commands);
    try {
      const outcomes = await database.transaction(tenant, (tx) => runBatch(tx, schema, codec, tenant, commands, spans));
      spans?.ended();
      return outcomes;
    } catch (error) {
      spans?.ended(error);
      if (run === MAX_RUNS || !isAnswerTaken(error)) throw error;
    }
  }
}

/**
 * Runs commands in their order within one transaction. However many they are, the statements are few: the records and the
 * references of each model are read at once, the events appended at once, and the rows of each model written at once.
 * Locks are taken in the order of models and ids, so two batches wait for each other instead of deadlocking.
 */
async function runBatch(
  tx: Tx,
  schema: SchemaDefinition,
  codec: EventCodec | undefined,
  tenant: TenantId,
  commands: readonly RecordCommand[],
  spans: CommandSpans | null,
): Promise<Outcome[]> {
  const answers = await findAnswers(tx, tenant, [
    ...new Set(commands.flatMap(({ idempotencyKey }) => idempotencyKey ?? [])),
  ]);
  const checked = commands.map((command) => validateInput(command.model, command.input, command.kind));
  const records = await lockRecords(tx, schema, commands);
  const references = await lockReferences(tx, schema, commands, checked);

  const proposals: { events: readonly NewEvent[]; working: Working; expected: number; metadata: EventMetadata }[] = [];
  const kept: KeptAnswer[] = [];
  const outcomes = commands.map((command, index): Outcome => {
    const { idempotencyKey: key } = command;
    const fingerprint = key === null ? '' : fingerprintOf(saidBy(command));
    const answer = key === null ? undefined : answers.get(key);
    if (answer) return answer.fingerprint === fingerprint ? { id: answer.recordId } : { refused: KEY_USED_OTHERWISE };

    const working = workingOn(records, command);
    const { values, faults } = checked[index]!;
    const refused = refusal(schema, command, working, values, faults, references);
    if (refused) return { refused };
    const before = working.state;
    const events =
      command.kind === 'create'
        ? decideCreate(command.model, working.id, values)
        : decideUpdate(command.model, working.id, before!, values);
    if (events.length > 0) {
      const metadata = metadataOf(command.context, spans?.append(command));
      proposals.push({ events, working, expected: before?.version ?? 0, metadata });
      working.state = events.reduce<RecordState | null>(evolve, before);
      working.isChanged = true;
    }
    if (key !== null) {
      const own = { key, fingerprint, recordId: working.id, version: working.state!.version };
      answers.set(key, own);
      kept.push(own);
    }
    return { id: working.id };
  });

  spans?.decided(outcomes);
  if (proposals.length > 0) {
    const appends = proposals.map(({ events, working, expected, metadata }) => {
      return { stream: modelStream(working.model.name, working.id), expected, events, metadata };
    });
    const result = await append(tx, tenant, codec ? await codec.encode(tx, tenant, appends) : appends);
    // Only who appends past these commands gets here: the record's row was locked before its version was read.
    if (!result.ok) throw apiError('CONFLICT', `${result.stream} is at version ${result.currentVersion} by now.`);
    await writeRows(tx, tenant, records, result.events);
  }
  await keepAnswers(tx, tenant, kept);
  return outcomes;
}

const KEY_USED_OTHERWISE = apiError(
  'CONFLICT',
  'This idempotencyKey was used for another command. Use a new one for each command, and the same only to repeat it.',
);

/** What makes a command the same command when it is repeated: a new record's id is not part of it. */
function saidBy({ kind, model, id, input, expectedVersion, context }: RecordCommand): unknown {
  return [kind, model.name, kind === 'update' ? id : null, input, expectedVersion, context.principal.userId];
}

/** @param traceparent of the span that appends, so that what follows from the events is its child */
function metadataOf({ principal, requestId, address }: ApiContext, traceparent: string | undefined): EventMetadata {
  return {
    actor: `user:${principal.userId}`,
    correlationId: requestId,
    causationId: requestId,
    ...(address !== undefined && { address }),
    ...(traceparent !== undefined && { traceparent }),
  };
}

function workingOn(records: Map<string, Working>, { model, id }: RecordCommand): Working {
  const name = modelStream(model.name, id);
  let working = records.get(name);
  if (!working) records.set(name, (working = { model, id, state: null, isChanged: false }));
  return working;
}

/** Why a command cannot take effect, or null. */
function refusal(
  schema: SchemaDefinition,
  command: RecordCommand,
  { state }: Working,
  values: RecordValues,
  faults: readonly { path: string; message: string }[],
  references: ReadonlySet<string>,
): CodedError | null {
  const { model, kind, expectedVersion } = command;
  const missing = referencesOf(schema, model, values).filter(
    ({ target, id }) => !references.has(modelStream(target.name, id)),
  );
  const all = [
    ...faults,
    ...missing.map(({ path, target }) => ({ path, message: `${path}: there is no ${target.name} with this id.` })),
  ];
  if (all.length > 0) return apiError('VALIDATION_ERROR', all.map((fault) => fault.message).join(' '), { faults: all });
  if (kind === 'create') return null;
  if (!state) return apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
  if (expectedVersion === null || expectedVersion === state.version) return null;
  return apiError('CONFLICT', `The ${model.name} is at version ${state.version} by now. Read it again, then decide.`, {
    currentVersion: state.version,
  });
}

function referencesOf(schema: SchemaDefinition, model: ModelDefinition, values: RecordValues) {
  return model.fields.flatMap((field) => {
    const id = values[inputName(field)];
    if (field.type !== 'relation' || id === undefined || id === null) return [];
    return [{ path: inputName(field), target: modelNamed(schema, field.target!), id: id as string }];
  });
}

/** Reads the records that are to be changed, under a lock that holds until the commit. */
async function lockRecords(
  tx: Tx,
  schema: SchemaDefinition,
  commands: readonly RecordCommand[],
): Promise<Map<string, Working>> {
  const records = new Map<string, Working>();
  for (const model of schema.models) {
    const ids = commands.filter((command) => command.kind === 'update' && command.model === model).map(({ id }) => id);
    if (ids.length === 0) continue;
    // The row as JSON, because the driver would turn a calendar day into a moment of this machine's time zone. `no key`
    // because who refers to this record holds a key share on it: two records that come to refer to each other at the same
    // time would otherwise deadlock.
    const rows = await tx.query<{ row: Record<string, FieldValue> & { id: string; version: number } }>(
      `select to_jsonb(r) as row from ${model.table} r where id = any($1) order by id for no key update`,
      [ids],
    );
    for (const { row } of rows) {
      const values = Object.fromEntries(model.fields.map((field) => [inputName(field), row[columnOf(field)] ?? null]));
      const state = { version: row.version, values };
      records.set(modelStream(model.name, row.id), { model, id: row.id, state, isChanged: false });
    }
  }
  return records;
}

/** The records referred to that exist, under a lock that keeps them from going while they are written about. */
async function lockReferences(
  tx: Tx,
  schema: SchemaDefinition,
  commands: readonly RecordCommand[],
  checked: readonly { values: RecordValues }[],
): Promise<Set<string>> {
  const wanted = commands.flatMap(({ model }, index) => referencesOf(schema, model, checked[index]!.values));
  const found = new Set<string>();
  for (const model of schema.models) {
    const ids = wanted.filter(({ target }) => target === model).map(({ id }) => id);
    if (ids.length === 0) continue;
    const rows = await tx.query<{ id: string }>(
      `select id from ${model.table} where id = any($1) order by id for key share`,
      [ids],
    );
    for (const { id } of rows) found.add(modelStream(model.name, id));
  }
  return found;
}

/** The inline projection: the records as they are after the batch become the rows that readers see. */
async function writeRows(
  tx: Tx,
  tenant: TenantId,
  records: ReadonlyMap<string, Working>,
  events: readonly RecordedEvent[],
): Promise<void> {
  const recordedAt = new Map(events.map((event) => [event.stream, event.recordedAt]));
  const changed = [...records.values()].filter(({ isChanged }) => isChanged);
  for (const model of new Set(changed.map((working) => working.model))) {
    const columns = model.fields.map(columnOf);
    const rows = changed
      .filter((working) => working.model === model)
      .map(({ id, state }) => ({
        id,
        version: state!.version,
        at: recordedAt.get(modelStream(model.name, id)),
        ...Object.fromEntries(model.fields.map((field) => [columnOf(field), state!.values[inputName(field)] ?? null])),
      }));
    const named = columns.map((column) => `, "${column}"`).join('');
    const typed = model.fields.map((field) => `, "${columnOf(field)}" ${COLUMN_TYPES[field.type]}`).join('');
    const taken = columns.map((column) => `, "${column}" = excluded."${column}"`).join('');
    await tx.execute(
      `insert into ${model.table} as t (tenant_id, id, version, created_at, updated_at${named})
       select $1, r.id, r.version, r.at, r.at${columns.map((column) => `, r."${column}"`).join('')}
       from jsonb_to_recordset($2::jsonb) as r (id uuid, version int, at timestamptz${typed})
       order by r.id
       on conflict (tenant_id, id) do update set version = excluded.version, updated_at = excluded.updated_at${taken}
       where t.version < excluded.version`,
      [tenant, JSON.stringify(rows)],
    );
  }
}
