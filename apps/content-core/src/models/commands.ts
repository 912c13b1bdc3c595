import { apiError, uuidv7 } from '@atomo-cc/kernel';
import { modelStream, type EventMetadata, type RecordedEvent } from '@atomo-cc/events';
import { append, type ExpectedVersion } from '@atomo-cc/event-store';
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
import type { Tx } from '@atomo-cc/platform/postgres';
import type { ApiContext } from '../api/index.js';
import { decideCreate, decideUpdate, type RecordState } from './record.js';

/**
 * Creates a record: validate, decide, append the event, write the read row, all in the caller's transaction.
 * @returns the new id
 * @throws CodedError VALIDATION_ERROR with every broken rule in `details.faults`
 */
export async function createRecord(
  tx: Tx,
  schema: SchemaDefinition,
  model: ModelDefinition,
  input: Readonly<Record<string, unknown>>,
  context: ApiContext,
): Promise<string> {
  const values = await checkInput(tx, schema, model, input, 'create');
  const id = uuidv7();
  const events = await appendOne(tx, model, id, 'none', decideCreate(model, values), context);
  for (const event of events) await writeRow(tx, model, id, event);
  return id;
}

/**
 * Changes a record. A change that changes nothing appends nothing and leaves the version as it is.
 * @throws CodedError NOT_FOUND, VALIDATION_ERROR, CONFLICT with the current version in `details.currentVersion`
 */
export async function updateRecord(
  tx: Tx,
  schema: SchemaDefinition,
  model: ModelDefinition,
  id: string,
  input: Readonly<Record<string, unknown>>,
  expectedVersion: number | null,
  context: ApiContext,
): Promise<void> {
  const values = await checkInput(tx, schema, model, input, 'update');
  const state = await lockRecord(tx, model, id);
  if (!state) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
  if (expectedVersion !== null && expectedVersion !== state.version) throw conflict(model, state.version);
  const decided = decideUpdate(model, state, values);
  if (decided.length === 0) return;
  const events = await appendOne(tx, model, id, state.version, decided, context);
  for (const event of events) await writeRow(tx, model, id, event);
}

async function checkInput(
  tx: Tx,
  schema: SchemaDefinition,
  model: ModelDefinition,
  input: Readonly<Record<string, unknown>>,
  mode: 'create' | 'update',
): Promise<RecordValues> {
  const { values, faults } = validateInput(model, input, mode);
  const all = [...faults, ...(await missingReferences(tx, schema, model, values))];
  if (all.length > 0) {
    throw apiError('VALIDATION_ERROR', all.map((fault) => fault.message).join(' '), { faults: all });
  }
  return values;
}

/** References are checked under a lock on the other record, so that it cannot go while this one is written. */
async function missingReferences(tx: Tx, schema: SchemaDefinition, model: ModelDefinition, values: RecordValues) {
  const faults: { path: string; message: string }[] = [];
  for (const field of model.fields) {
    const value = values[inputName(field)];
    if (field.type !== 'relation' || value === undefined || value === null) continue;
    const target = modelNamed(schema, field.target!);
    const found = await tx.query(`select 1 from ${target.table} where id = $1 for key share`, [value]);
    if (found.length === 0) {
      faults.push({ path: inputName(field), message: `${inputName(field)}: there is no ${target.name} with this id.` });
    }
  }
  return faults;
}

async function lockRecord(tx: Tx, model: ModelDefinition, id: string): Promise<RecordState | null> {
  // The row as JSON, because the driver would turn a calendar day into a moment of this machine's time zone. `no key`
  // because who refers to this record holds a key share on it: two records that come to refer to each other at the same
  // time would otherwise deadlock.
  const [found] = await tx.query<{ row: Record<string, FieldValue> & { version: number } }>(
    `select to_jsonb(r) as row from ${model.table} r where id = $1 for no key update`,
    [id],
  );
  if (!found) return null;
  const values = Object.fromEntries(
    model.fields.map((field) => [inputName(field), found.row[columnOf(field)] ?? null]),
  );
  return { version: found.row.version, values };
}

async function appendOne(
  tx: Tx,
  model: ModelDefinition,
  id: string,
  expected: ExpectedVersion,
  events: ReturnType<typeof decideCreate>,
  context: ApiContext,
): Promise<readonly RecordedEvent[]> {
  const metadata: EventMetadata = {
    actor: `user:${context.principal.userId}`,
    correlationId: context.requestId,
    causationId: context.requestId,
  };
  const appends = [{ stream: modelStream(model.name, id), expected, events }];
  const result = await append(tx, context.principal.tenantId, appends, metadata);
  if (!result.ok) throw conflict(model, result.currentVersion);
  return result.events;
}

function conflict(model: ModelDefinition, currentVersion: number) {
  return apiError('CONFLICT', `The ${model.name} is at version ${currentVersion} by now. Read it again, then decide.`, {
    currentVersion,
  });
}

/** The inline projection: what the event says becomes the row that readers see. */
async function writeRow(tx: Tx, model: ModelDefinition, id: string, event: RecordedEvent): Promise<void> {
  const given = model.fields.filter((field) => Object.hasOwn(event.data, inputName(field)));
  const values = given.map((field) => event.data[inputName(field)]);
  if (event.streamVersion === 1) {
    const columns = given.map((field) => `, "${columnOf(field)}"`).join('');
    const places = given.map((_, index) => `, $${index + 4}`).join('');
    await tx.execute(
      `insert into ${model.table} (tenant_id, id, version, created_at, updated_at${columns})
       values ($1, $2, 1, $3, $3${places})`,
      [event.tenant, id, event.recordedAt, ...values],
    );
  } else {
    const sets = given.map((field, index) => `, "${columnOf(field)}" = $${index + 4}`).join('');
    await tx.execute(`update ${model.table} set version = $2, updated_at = $3${sets} where id = $1`, [
      id,
      event.streamVersion,
      event.recordedAt,
      ...values,
    ]);
  }
}
