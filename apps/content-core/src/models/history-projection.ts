import type { TenantId } from '@atomo-cc/kernel';
import { kindOf, modelStream, type RecordedEvent } from '@atomo-cc/events';
import { destroySubjectKey, readStream, type EventOpener, type Projection } from '@atomo-cc/event-store';
import type { FieldValue, ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import { booleanArray, intArray, textArray, timestampArray, type Tx } from '@atomo-cc/platform/postgres';
import { createHistoryTable } from './model-tables.js';
import {
  arrayPlaces,
  columnArrays,
  deletedAtOf,
  historyColumns,
  maskedColumns,
  maskedDeletion,
  maskOf,
  modelEventTypes,
  namedColumns,
  personalFields,
  type PURGED,
  recordIdOf,
  rowColumns,
  type RecordFacts,
  type StoredColumn,
} from './record-states.js';
import { historyTable, OWN_COLUMNS } from './schema-diff.js';

/** The projection that answers about times in the past. */
export const HISTORY = 'history';

/**
 * Characters of values that one statement writes. Each row of a record repeats what the batch gave it so far, so a long text
 * beside a field that changes often would otherwise fill the memory.
 */
const MAX_WRITE_CHARS = 8 * 1024 * 1024;
/** Events of one record that are read at once when its history is written anew. */
const REBUILD_PAGE = 500;

/**
 * What every record was like at every time: a row for each version in `history_<model>`, valid from when it was recorded to
 * when the next one was; of the newest `valid_to` is infinity. Where a clock was set back, a version begins no earlier than
 * the one before it, so ranges never overlap and are never negative: a version that was valid for no time has an empty
 * one, and the newest wins.
 *
 * An event that comes after later ones of its record (a dead letter that is retried) changes all rows behind it: the record's
 * history is then written anew from the log. Until then the later rows lack what it says. One that is there already changes
 * nothing.
 *
 * A record that is purged loses its values at all its versions, its snapshots, and the key under which the log keeps what is
 * personal in its events: from then on that reads as null, wherever it is asked for.
 * @param codec of the log, for the records whose history is written anew
 */
export function historyProjection(schema: SchemaDefinition, codec?: EventOpener): Projection {
  const models = new Map(
    schema.models.flatMap((model) => Object.keys(modelEventTypes(model)).map((type) => [type, model] as const)),
  );
  return {
    name: HISTORY,
    version: 1,
    mode: 'async',
    shards: 1,
    eventTypes: Object.assign({}, ...schema.models.map(modelEventTypes)),
    tables: schema.models.map((model) => ({
      name: historyTable(model),
      create: (tx, physicalName) => createHistoryTable(tx, model, physicalName),
    })),
    async apply(batch, tx, target) {
      const ofModels = new Map<ModelDefinition, RecordedEvent[]>(schema.models.map((model) => [model, []]));
      for (const event of batch) ofModels.get(models.get(event.type)!)?.push(event);
      for (const [model, events] of ofModels) {
        if (events.length === 0) continue;
        const writer = new HistoryWriter(tx, model, target.table(historyTable(model)), codec);
        await writer.apply(events);
      }
    },
  };
}

/**
 * Empties the personal fields of one record in its rows, or its history, up to a version. So are columns of fields that are declared no
 * longer, whatever they were. The events behind them are read as null once the subject's key is gone, so what is applied later does not
 * bring them back. Needs the system role.
 * @param table the physical name, of any build
 */
export async function erasePersonal(
  tx: Tx,
  model: ModelDefinition,
  table: string,
  { tenant, id, version }: { readonly tenant: TenantId; readonly id: string; readonly version: number },
): Promise<void> {
  const personal = personalFields(model);
  const known = [...OWN_COLUMNS, ...historyColumns(model).map(({ column }) => column)];
  const written = rowColumns(model).flatMap(({ name, column }) => (personal.includes(name) ? [column] : []));
  const columns = await tx.query<{ name: string }>(
    `select attname as name from pg_attribute
     where attrelid = $1::regclass and attnum > 0 and not attisdropped and not attnotnull and attgenerated = ''`,
    [table],
  );
  const undeclared = columns.map(({ name }) => name).filter((name) => !known.includes(name));
  // Nobody writes what is declared no longer, so whatever stands there is of before.
  for (const [names, upTo] of [[written, version] as const, [undeclared, null] as const]) {
    if (names.length === 0) continue;
    const set = names.map((name) => `"${name}" = null`).join(', ');
    await tx.execute(
      `update ${table} set ${set} where tenant_id = $1 and id = $2 and ($3::int is null or version <= $3)`,
      [tenant, id, upTo],
    );
  }
}

async function emptyColumns(
  tx: Tx,
  table: string,
  columns: readonly StoredColumn[],
  records: readonly { readonly tenant: TenantId; readonly id: string }[],
): Promise<void> {
  if (columns.length === 0 || records.length === 0) return;
  const set = columns.map(({ column }) => `"${column}" = null`).join(', ');
  await tx.execute(
    `update ${table} h set ${set} from unnest($1::text[]::uuid[], $2::text[]::uuid[]) as w (tenant, id)
     where h.tenant_id = w.tenant and h.id = w.id`,
    [textArray(records.map(({ tenant }) => tenant)), textArray(records.map(({ id }) => id))],
  );
}

/** When a record was deleted; null where it is there. */
type Deleted = Date | typeof PURGED | null;

/** A row that is to be inserted. */
interface HistoryRow {
  readonly tenant: TenantId;
  readonly id: string;
  readonly version: number;
  readonly from: Date;
  to: Date | 'infinity';
  readonly at: Date;
  readonly created: Date | null;
  /** Undefined: as the base has it. */
  readonly deleted: Deleted | undefined;
  /** The values are all there are. */
  readonly isWhole: boolean;
  /** The row that is the newest in the table: what this one takes over from, and whether it is the one that closes it. */
  readonly base: { readonly version: number; readonly from: Date | null } | null;
  readonly closes: boolean;
  readonly values: RecordFacts;
}

/** A record in the course of a batch. */
interface Tip {
  /** Of the newest row, written or not; 0 before the first. */
  version: number;
  from: Date | null;
  /** The newest row that is written. */
  base: { readonly version: number; readonly from: Date } | null;
  /** What the rows that are not written yet say on top of the base. */
  values: RecordFacts;
  deleted: Deleted | undefined;
  createdAt: Date | null;
  pending: HistoryRow | null;
}

/** Writes the events of one model. */
class HistoryWriter {
  private tips = new Map<string, Tip>();
  private rows: HistoryRow[] = [];
  private readonly purged: { readonly tenant: TenantId; readonly id: string }[] = [];
  private chars = 0;
  private readonly columns: readonly StoredColumn[];

  constructor(
    private readonly tx: Tx,
    private readonly model: ModelDefinition,
    private readonly table: string,
    private readonly codec: EventOpener | undefined,
  ) {
    this.columns = historyColumns(model);
  }

  async apply(events: readonly RecordedEvent[]): Promise<void> {
    await this.loadTips(events);
    const late = new Map<string, RecordedEvent[]>();
    for (const event of events) {
      const key = event.stream + event.tenant;
      const tip = this.tips.get(key)!;
      if (event.streamVersion > tip.version) await this.add(event, tip);
      else if (late.has(key)) late.get(key)!.push(event);
      else late.set(key, [event]);
    }
    await this.flush();
    for (const missed of late.values()) await this.writeAnew(missed);
    await this.erasePurged();
  }

  private async erasePurged(): Promise<void> {
    await emptyColumns(this.tx, this.table, this.columns, this.purged);
    for (const { tenant, id } of this.purged) {
      const stream = modelStream(this.model.name, id);
      await this.tx.execute('delete from stream_snapshots where tenant_id = $1 and stream = $2', [tenant, stream]);
      await destroySubjectKey(this.tx, tenant, stream);
    }
  }

  /** The newest rows of the records, in one statement. */
  private async loadTips(events: readonly RecordedEvent[]): Promise<void> {
    const tenants: string[] = [];
    const ids: string[] = [];
    for (const event of events) {
      const key = event.stream + event.tenant;
      if (this.tips.has(key)) continue;
      this.tips.set(key, newTip());
      tenants.push(event.tenant);
      ids.push(recordIdOf(this.model, event));
    }
    const rows = await this.tx.prepared<{ tenant: string; id: string; version: number; from: Date }>(
      `select w.tenant, w.id, h.version, h.valid_from as from
       from unnest($1::text[]::uuid[], $2::text[]::uuid[]) as w (tenant, id)
       cross join lateral (
         select version, valid_from from ${this.table} where tenant_id = w.tenant and id = w.id
         order by valid_from desc, version desc limit 1
       ) h`,
      [textArray(tenants), textArray(ids)],
    );
    for (const { tenant, id, version, from } of rows) {
      const tip = this.tips.get(modelStream(this.model.name, id) + tenant)!;
      tip.version = version;
      tip.from = from;
      tip.base = { version, from };
    }
  }

  private async add(event: RecordedEvent, tip: Tip): Promise<void> {
    const at = event.recordedAt;
    const from = tip.from && tip.from > at ? tip.from : at;
    if (kindOf(event) === 'created') tip.createdAt = at;
    const isPurged = kindOf(event) === 'purged';
    tip.values = isPurged ? {} : { ...tip.values, ...(event.data as RecordFacts) };
    const deleted = deletedAtOf(event);
    if (deleted !== undefined) tip.deleted = deleted;
    if (isPurged) this.purged.push({ tenant: event.tenant, id: recordIdOf(this.model, event) });
    const row: HistoryRow = {
      tenant: event.tenant,
      id: recordIdOf(this.model, event),
      version: event.streamVersion,
      from,
      to: 'infinity',
      at,
      created: tip.createdAt,
      deleted: tip.deleted,
      isWhole: isPurged || tip.createdAt !== null,
      base: tip.base,
      closes: tip.base !== null && tip.pending === null,
      values: tip.values,
    };
    if (tip.pending) tip.pending.to = from;
    tip.pending = row;
    tip.version = event.streamVersion;
    tip.from = from;
    this.rows.push(row);
    for (const name in tip.values) this.chars += lengthOf(tip.values[name]!);
    if (this.chars > MAX_WRITE_CHARS) await this.flush();
  }

  /** Writes the rows that are not written yet. */
  private async flush(): Promise<void> {
    if (this.rows.length === 0) return;
    const begun = this.rows.filter(({ base }) => base === null);
    const added = this.rows.filter(({ base }) => base !== null);
    this.rows = [];
    this.chars = 0;
    if (begun.length > 0) await this.begin(begun);
    if (added.length > 0) await this.extend(added);
    for (const tip of this.tips.values()) {
      if (!tip.pending) continue;
      tip.base = { version: tip.version, from: tip.from! };
      Object.assign(tip, { pending: null, values: {}, deleted: undefined, createdAt: null });
    }
  }

  /** Inserts rows of records that have none in the table: nothing is taken over, so nothing is looked for, and it is planned once. */
  private async begin(rows: readonly HistoryRow[]): Promise<void> {
    await this.tx.prepared(
      `insert into ${this.table}
         (tenant_id, id, version, valid_from, valid_to, created_at, updated_at, deleted_at${namedColumns(this.columns)})
       select n.tenant, n.id, n.version, n.f, n.t, n.created, n.at, n.deleted${this.columns.map(({ column, type }) => `, n."${column}"::${type}`).join('')}
       from unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::int[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
           $7::timestamptz[], $8::timestamptz[]${arrayPlaces(this.columns, 9)})
         as n (tenant, id, version, f, t, at, created, deleted${namedColumns(this.columns)})`,
      [
        textArray(rows.map(({ tenant }) => tenant)),
        textArray(rows.map(({ id }) => id)),
        intArray(rows.map(({ version }) => version)),
        timestampArray(rows.map(({ from }) => from)),
        timestampArray(rows.map(({ to }) => to)),
        timestampArray(rows.map(({ at }) => at)),
        timestampArray(rows.map(({ created, at }) => created ?? at)),
        timestampArray(rows.map(({ deleted }) => deleted ?? null)),
        ...columnArrays(this.columns, rows),
      ],
    );
  }

  /** Closes the rows that are the newest of their records in the table and inserts what came after them, in one statement. */
  private async extend(rows: readonly HistoryRow[]): Promise<void> {
    // The insert does not see what the update beside it does, and needs nothing of it.
    await this.tx.execute(
      `with n as materialized (
         select * from unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::int[], $4::timestamptz[], $5::timestamptz[],
             $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::int[], $10::boolean[], $11::timestamptz[], $12::text[]${arrayPlaces(this.columns, 13)})
           as n (tenant, id, version, f, t, at, created, bf, bv, closes, deleted, mask${namedColumns(this.columns)})
       ), closed as (
         update ${this.table} h set valid_to = n.f from n
         where n.closes and h.tenant_id = n.tenant and h.id = n.id and h.valid_from = n.bf and h.version = n.bv
       )
       insert into ${this.table}
         (tenant_id, id, version, valid_from, valid_to, created_at, updated_at, deleted_at${namedColumns(this.columns)})
       select n.tenant, n.id, n.version, n.f, n.t, coalesce(n.created, b.created_at, n.at), n.at, ${maskedDeletion(this.columns, 'n', 'b')}${maskedColumns(this.columns, 'n', 'b')}
       from n left join ${this.table} b
         on b.tenant_id = n.tenant and b.id = n.id and b.valid_from = n.bf and b.version = n.bv`,
      [
        textArray(rows.map(({ tenant }) => tenant)),
        textArray(rows.map(({ id }) => id)),
        intArray(rows.map(({ version }) => version)),
        timestampArray(rows.map(({ from }) => from)),
        timestampArray(rows.map(({ to }) => to)),
        timestampArray(rows.map(({ at }) => at)),
        timestampArray(rows.map(({ created }) => created)),
        timestampArray(rows.map(({ base }) => base?.from ?? null)),
        intArray(rows.map(({ base }) => base?.version ?? null)),
        booleanArray(rows.map(({ closes }) => closes)),
        timestampArray(rows.map(({ deleted }) => deleted ?? null)),
        textArray(rows.map((row) => maskOf(this.columns, row))),
        ...columnArrays(this.columns, rows),
      ],
    );
  }

  /** Writes the whole history of one record anew from the log, unless the events are in it. */
  private async writeAnew(missed: readonly RecordedEvent[]): Promise<void> {
    const { tenant, stream } = missed[0]!;
    const key = stream + tenant;
    const record = [tenant, recordIdOf(this.model, missed[0]!)];
    const versions = missed.map(({ streamVersion }) => streamVersion);
    const [found] = await this.tx.query<{ rows: number }>(
      `select count(distinct version)::int as rows from ${this.table}
       where tenant_id = $1 and id = $2 and version = any($3)`,
      [...record, versions],
    );
    if (found!.rows === new Set(versions).size) return;
    const upTo = this.tips.get(key)!.version;
    await this.tx.execute(`delete from ${this.table} where tenant_id = $1 and id = $2`, record);
    this.tips = new Map([[key, newTip()]]);
    for (let from = 1; from <= upTo; from += REBUILD_PAGE) {
      const limit = Math.min(REBUILD_PAGE, upTo - from + 1);
      const stored = await readStream(this.tx, tenant, stream, { from, limit });
      const open = this.codec ? await this.codec.decode(this.tx, stored) : stored;
      const own = open.filter(({ type }) => Object.hasOwn(modelEventTypes(this.model), type));
      for (const event of own) await this.add(event, this.tips.get(key)!);
      await this.flush();
    }
  }
}

function newTip(): Tip {
  return { version: 0, from: null, base: null, values: {}, deleted: undefined, createdAt: null, pending: null };
}

/** Roughly the characters of a value: what is neither text nor a document is short. */
function lengthOf(value: FieldValue): number {
  if (typeof value === 'string') return value.length;
  return typeof value === 'object' && value !== null ? JSON.stringify(value).length : 8;
}
