import type { TenantId } from '@atomo-cc/kernel';
import { kindOf, modelStream, type RecordedEvent } from '@atomo-cc/events';
import {
  stateAt,
  type EventOpener,
  type Projection,
  type ProjectionTarget,
  type StateSealer,
} from '@atomo-cc/event-store';
import {
  columnOf,
  linksOf,
  linkTableOf,
  snakeCase,
  type LinkRelation,
  type ModelDefinition,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { intArray, textArray, timestampArray, type Tx } from '@atomo-cc/platform/postgres';
import { historyProjection } from './history-projection.js';
import { completeModelTable, createLinkTable, createModelTable } from './model-tables.js';
import { LINK_COLUMNS } from './query-compiler.js';
import {
  arrayPlaces,
  columnArrays,
  deletedAtOf,
  maskedColumns,
  maskedDeletion,
  maskOf,
  modelEventTypes,
  namedColumns,
  PURGED,
  recordFold,
  recordIdOf,
  rowColumns,
  type RecordFacts,
} from './record-states.js';

/** All that is computed from the events of a schema's models: the read rows of each, and their history. */
export function projectionsOf(
  schema: SchemaDefinition,
  codec: EventOpener & Partial<StateSealer>,
): readonly Projection[] {
  return [...schema.models.map((model) => rowProjection(model, codec)), historyProjection(schema, codec)];
}

/** What a record's events of one batch come to. */
interface Folded {
  readonly tenant: TenantId;
  readonly id: string;
  version: number;
  /** Null: the first event is elsewhere. */
  createdAt: Date | null;
  updatedAt: Date;
  /** Undefined: as the table has it. */
  deletedAt: Date | typeof PURGED | null | undefined;
  /** The values are all there are: what is not among them is empty. */
  isWhole: boolean;
  values: RecordFacts;
}

/**
 * The read rows of a model and its links, computed from the log: row for row what the commands write in their own transactions. The live
 * tables are written by the commands; this fills another one, for a rebuild. One writer a table.
 *
 * An event that comes after later ones of its record (a dead letter that is retried) cannot be laid over the row, which has
 * the later values. The record is then folded anew from the log, up to the version that the row is at.
 * @param codec of the log, for the records that are folded anew
 */
export function rowProjection(model: ModelDefinition, codec?: EventOpener & Partial<StateSealer>): Projection {
  return {
    name: `rows-${snakeCase(model.name).replaceAll('_', '-')}`,
    version: 1,
    mode: 'inline',
    eventTypes: modelEventTypes(model),
    tables: [
      {
        name: model.table,
        create: (tx, physicalName) => createModelTable(tx, model, physicalName),
        complete: (tx, physicalName) => completeModelTable(tx, model, physicalName),
      },
      ...linksOf(model).map((relation) => ({
        name: linkTableOf(model, relation),
        ownedBy: { table: model.table, column: LINK_COLUMNS.owner },
        create: createLinkTable,
      })),
    ],
    async apply(batch, tx, target) {
      const records = fold(model, batch);
      if (records.size === 0) return;
      const late = await upsert(tx, model, target, [...records.values()], '<');
      for (const record of late) await foldAnew(tx, model, target, record, codec);
    },
  };
}

function keyOf(tenant: string, id: string): string {
  return `${tenant} ${id}`;
}

function fold(model: ModelDefinition, batch: readonly RecordedEvent[]): Map<string, Folded> {
  const records = new Map<string, Folded>();
  const own = modelEventTypes(model);
  for (const event of batch) {
    if (!Object.hasOwn(own, event.type)) continue;
    const id = recordIdOf(model, event);
    const key = keyOf(event.tenant, id);
    const isFirst = kindOf(event) === 'created';
    const isPurged = kindOf(event) === 'purged';
    const record = records.get(key);
    if (record) {
      record.version = event.streamVersion;
      record.updatedAt = event.recordedAt;
      record.deletedAt = keptUnlessSaid(record.deletedAt, deletedAtOf(event));
      record.values = isPurged ? {} : { ...record.values, ...(event.data as RecordFacts) };
      record.isWhole ||= isPurged;
      continue;
    }
    records.set(key, {
      tenant: event.tenant,
      id,
      version: event.streamVersion,
      createdAt: isFirst ? event.recordedAt : null,
      updatedAt: event.recordedAt,
      deletedAt: deletedAtOf(event),
      isWhole: isFirst || isPurged,
      values: event.data as RecordFacts,
    });
  }
  return records;
}

function keptUnlessSaid<Value>(known: Value, said: Value | undefined): Value {
  return said === undefined ? known : said;
}

/** Where the tables of a build are. */
type Tables = Pick<ProjectionTarget, 'table'>;

/** Writes the records, with their links, that the table has at a lower version, or not at all, and answers the others. */
async function upsert(
  tx: Tx,
  model: ModelDefinition,
  target: Tables,
  records: readonly Folded[],
  guard: '<' | '<=',
): Promise<Folded[]> {
  const table = target.table(model.table);
  const stored = rowColumns(model);
  const columns = namedColumns(stored);
  const taken = model.fields.map((field) => `, "${columnOf(field)}" = excluded."${columnOf(field)}"`).join('');
  const left = await tx.query<{ n: number }>(
    `with r as materialized (
       select * from unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[], $7::text[]${arrayPlaces(stored, 8)})
         with ordinality as r (tenant, id, version, created, updated, deleted, mask${columns}, n)
     ), written as (
       insert into ${table} as t (tenant_id, id, version, created_at, updated_at, deleted_at${columns})
       select r.tenant, r.id, r.version, coalesce(r.created, b.created_at, r.updated), r.updated, ${maskedDeletion(stored, 'r', 'b')}${maskedColumns(stored, 'r', 'b')}
       from r left join ${table} b on b.tenant_id = r.tenant and b.id = r.id
       order by r.tenant, r.id
       on conflict (tenant_id, id) do update
         set version = excluded.version, created_at = excluded.created_at, updated_at = excluded.updated_at,
           deleted_at = excluded.deleted_at${taken}
         where t.version ${guard} excluded.version
       returning t.tenant_id, t.id
     )
     select r.n::int from r where (r.tenant, r.id) not in (select tenant_id, id from written)`,
    [
      textArray(records.map(({ tenant }) => tenant)),
      textArray(records.map(({ id }) => id)),
      intArray(records.map(({ version }) => version)),
      timestampArray(records.map(({ createdAt }) => createdAt)),
      timestampArray(records.map(({ updatedAt }) => updatedAt)),
      timestampArray(records.map(({ deletedAt }) => deletedAt ?? null)),
      textArray(
        records.map(({ values, isWhole, deletedAt }) => maskOf(stored, { values, isWhole, deleted: deletedAt })),
      ),
      ...columnArrays(stored, records),
    ],
  );
  const late = new Set(left.map(({ n }) => records[n - 1]!));
  const written = late.size === 0 ? records : records.filter((record) => !late.has(record));
  for (const relation of linksOf(model)) {
    await replaceLinks(tx, relation, target.table(linkTableOf(model, relation)), written);
  }
  return [...late];
}

/** Gives the records that say something of their links these and no others. */
async function replaceLinks(tx: Tx, { input }: LinkRelation, table: string, records: readonly Folded[]): Promise<void> {
  const telling = records.filter(({ values, isWhole }) => isWhole || values[input] !== undefined);
  if (telling.length === 0) return;
  const owners = [textArray(telling.map(({ tenant }) => tenant)), textArray(telling.map(({ id }) => id))];
  await tx.execute(
    `delete from ${table} l using unnest($1::text[]::uuid[], $2::text[]::uuid[]) as w (tenant, owner)
     where l.tenant_id = w.tenant and l.owner_id = w.owner`,
    owners,
  );
  const lists = telling.map(({ values }) => `{${((values[input] ?? []) as readonly string[]).join(',')}}`);
  await tx.execute(
    `insert into ${table} (tenant_id, owner_id, target_id)
     select w.tenant, w.owner, t.target
     from unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::text[]) as w (tenant, owner, targets)
     cross join unnest(w.targets::uuid[]) as t (target)`,
    [...owners, textArray(lists)],
  );
}

async function foldAnew(
  tx: Tx,
  model: ModelDefinition,
  target: Tables,
  { tenant, id }: Folded,
  codec?: EventOpener & Partial<StateSealer>,
): Promise<void> {
  const [row] = await tx.query<{ version: number }>(
    `select version from ${target.table(model.table)} where tenant_id = $1 and id = $2`,
    [tenant, id],
  );
  const version = row!.version;
  const whole = await stateAt(tx, tenant, modelStream(model.name, id), { version }, recordFold, codec);
  if (!whole) return;
  const { createdAt, updatedAt, deletedAt = null, ...values } = whole.state;
  await upsert(
    tx,
    model,
    target,
    [
      {
        tenant,
        id,
        version,
        createdAt: new Date(createdAt as string),
        updatedAt: new Date(updatedAt as string),
        deletedAt: deletedAt === null || deletedAt === PURGED ? deletedAt : new Date(deletedAt as string),
        isWhole: true,
        values,
      },
    ],
    '<=',
  );
}
