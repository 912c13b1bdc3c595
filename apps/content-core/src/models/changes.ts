import {
  GraphQLEnumType,
  GraphQLID,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  type GraphQLFieldConfig,
  type GraphQLInputObjectType,
} from 'graphql';
import { setTimeout as pause } from 'node:timers/promises';
import { apiError, type TenantId } from '@atomo-cc/kernel';
import { kindOf, MODEL_EVENT_VERSIONS, modelStream, type ModelEventKind, type RecordedEvent } from '@atomo-cc/events';
import { fieldNames, stateAt, subscribe, type AppendHints, type Fence } from '@atomo-cc/event-store';
import {
  conditionFields,
  fieldNamed,
  inputName,
  linksOf,
  modelNamed,
  type Condition,
  type ModelDefinition,
} from '@atomo-cc/schema';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { selectionAt, selectionOf, type ApiContext, type Selection } from '../api/index.js';
import type { LogReading } from './history.js';
import { compileChanged, searchedFields, type Where } from './query-compiler.js';
import { maySee, type Reader } from './record-access.js';
import { factsOfToday, modelEventTypes, recordFold, recordIdOf } from './record-states.js';

/** The most payloads that wait for one subscriber: a page of events with their records. The next is read when it is taken. */
export const CHANGES_PAGE = 100;
/** A subscriber that does not take a payload within this time is cut, and what waits for it is let go. */
export const STALLED_MS = 10_000;
/** How long to wait before the mark is looked at again where an append that was open at the process' start holds it up. */
const START_LOOK_MS = 20;

/** How changes are followed. */
export interface ChangesOptions {
  /** Of the same database; one serves all subscriptions of a process. */
  readonly fence: Fence;
  /** Without them the log is looked at once a second. */
  readonly hints?: AppendHints;
  /** STALLED_MS unless given. */
  readonly stalledMs?: number;
}

/** What a subscriber is told of one event. */
interface Change {
  readonly position: string;
  readonly type: string;
  readonly id: string;
  readonly version: number;
  /** Those that the subscriber may read. */
  readonly changedFields: readonly string[];
  /** As it is when it is read; null when it does not match. */
  readonly record: object | null;
}

const RecordChangeType = new GraphQLEnumType({
  name: 'RecordChangeType',
  values: Object.fromEntries(Object.keys(MODEL_EVENT_VERSIONS).map((kind) => [kind.toUpperCase(), {}])),
});

/** Events after which no condition holds of the record. */
const GOING: readonly ModelEventKind[] = ['deleted', 'purged'];

/** Events after which nobody can tell what the record was. */
const UNKNOWN_BEFORE: readonly string[] = ['PURGED', 'ERASED'];

/** Names that a payload has for itself; a model that is called so has its record under `record`. */
const OWN_NAMES = ['position', 'type', 'id', 'version', 'changedFields'];

/**
 * The field `contactChanged` of a model: its changes behind a position and then those that come, in the order of the log,
 * each once. A record is read as it is now, in one statement for a page of events. One that does not match `where` is left
 * out, except that a change which took it out of `where` is told, with null for the record. What the subscriber may not see, by the
 * rules of the role that they subscribed with, matches nothing.
 * @param model as the role may read it
 * @param types those of the model's records and of its conditions
 */
export function changedField(
  model: ModelDefinition,
  database: AppDatabase,
  types: { readonly record: GraphQLObjectType; readonly where: GraphQLInputObjectType; readonly hasVersion: boolean },
  readerFor: (context: ApiContext) => Reader,
  options: ChangesOptions,
  log: LogReading,
): GraphQLFieldConfig<unknown, ApiContext> {
  const name = OWN_NAMES.includes(model.singular) ? 'record' : model.singular;
  const payload = new GraphQLObjectType<Change>({
    name: `${model.name}Change`,
    description: `Something that happened to a ${model.name}.`,
    fields: {
      position: {
        type: new GraphQLNonNull(GraphQLString),
        description: 'The place in the log. Subscribe with it as `after` to go on behind this change.',
      },
      type: { type: new GraphQLNonNull(RecordChangeType) },
      id: { type: new GraphQLNonNull(GraphQLID) },
      ...(types.hasVersion && {
        version: { type: new GraphQLNonNull(GraphQLInt), description: 'The version that the change made.' },
      }),
      changedFields: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(GraphQLString))),
        description: 'The names under which the changed fields are written.',
      },
      [name]: {
        type: types.record,
        description: `The ${model.name} as it is now, maybe at a later version than the change. Null: it no longer matches \`where\`.`,
        resolve: ({ record }: Change) => record,
      },
    },
  });
  return {
    type: new GraphQLNonNull(payload),
    description: `Each change of a ${model.name} that matches \`where\` now, or that did before the change.`,
    args: {
      where: { type: types.where },
      after: {
        type: GraphQLString,
        description: 'The position of the last payload you have: all changes behind it come, then new ones. "0": all.',
      },
    },
    subscribe: async (_source, args: { where?: Where | null; after?: string | null }, context, info) => {
      const reader = readerFor(context);
      const where = args.where ?? null;
      const query = { reader, model, where, selection: selectionAt(selectionOf(info), name), log };
      // A condition that is refused is refused now, not at the first change.
      compileChanged(reader, model, where, query.selection, []);
      const after =
        typeof args.after === 'string' ? positionIn(args.after) : await startOf(database, reader.tenant, options.fence);
      return new ChangeFeed(database, query, after, options);
    },
    resolve: (change) => change,
  };
}

/** @throws CodedError VALIDATION_ERROR */
function positionIn(after: string): bigint {
  // Eighteen digits fit Postgres' bigint whatever they are.
  if (!/^\d{1,18}$/.test(after))
    throw apiError('VALIDATION_ERROR', 'after is no position. Pass the position of the last payload you have.');
  return BigInt(after);
}

/**
 * Where one begins who names no place: at the settled mark. Whatever is committed from now on lies behind it, and perhaps
 * some that was committed a moment ago.
 */
async function startOf(database: AppDatabase, tenant: TenantId, fence: Fence): Promise<bigint> {
  for (;;) {
    const start = await database.transaction(tenant, async (tx) => {
      const [found] = await tx.query<{ any: boolean }>(
        'select exists (select 1 from event_log where tenant_id = $1) as any',
        [tenant],
      );
      const settled = await fence.advance(tx);
      // A new fence knows of no mark while an append is open; a log that is empty has no other start.
      return settled > 0n || !found!.any ? settled : null;
    });
    if (start !== null) return start;
    await pause(START_LOOK_MS);
  }
}

interface ChangesQuery {
  readonly reader: Reader;
  readonly model: ModelDefinition;
  readonly where: Where | null;
  readonly selection: Selection;
  readonly log: LogReading;
}

/** One subscriber's changes. It may be left at any moment, also while it waits for an event. */
class ChangeFeed implements AsyncIterableIterator<Change> {
  private readonly pages: AsyncGenerator<RecordedEvent[], void, undefined>;
  private readonly filterFields: ReadonlySet<string>;
  private readonly hasRule: boolean;
  private readonly stalledMs: number;
  private waiting: Change[] = [];
  private told: string;
  private stall: NodeJS.Timeout | undefined;
  private state: 'open' | 'cut' | 'over' = 'open';

  constructor(
    private readonly database: AppDatabase,
    private readonly query: ChangesQuery,
    after: bigint,
    options: ChangesOptions,
  ) {
    const { fence, hints } = options;
    const rule = query.reader.access.right(query.model, 'read')?.where ?? null;
    this.hasRule = rule !== null;
    this.filterFields = new Set([
      ...fieldsOf(query.reader, query.model, query.where),
      ...(rule ? ruleFields(query.reader, query.model, rule) : []),
    ]);
    this.stalledMs = options.stalledMs ?? STALLED_MS;
    this.told = String(after);
    const types = Object.keys(modelEventTypes(query.model));
    this.pages = subscribe({
      database,
      fence,
      tenant: query.reader.tenant,
      after,
      types,
      pageSize: CHANGES_PAGE,
      ...(hints && { hints }),
    });
  }

  /** @throws CodedError RATE_LIMITED when it was cut; else what the database throws. Subscribe again, behind the last payload */
  async next(): Promise<IteratorResult<Change, undefined>> {
    clearTimeout(this.stall);
    if (this.state === 'cut') {
      this.state = 'over';
      throw apiError(
        'RATE_LIMITED',
        `No payload was taken for ${this.stalledMs} ms. Subscribe again with the position of the last payload as after.`,
        { after: this.told },
      );
    }
    try {
      while (this.waiting.length === 0) {
        const page = await this.pages.next();
        if (page.done) return { value: undefined, done: true };
        this.waiting = await this.read(page.value);
        if (this.state !== 'open') return { value: undefined, done: true };
      }
    } catch (error) {
      await this.return();
      throw error;
    }
    const change = this.waiting.shift()!;
    this.told = change.position;
    this.stall = setTimeout(() => this.cut(), this.stalledMs).unref();
    return { value: change, done: false };
  }

  async return(): Promise<IteratorResult<Change, undefined>> {
    clearTimeout(this.stall);
    this.state = 'over';
    this.waiting = [];
    await this.pages.return();
    return { value: undefined, done: true };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  private cut(): void {
    this.state = 'cut';
    this.waiting = [];
    this.pages.return().catch(() => undefined);
  }

  private async read(events: readonly RecordedEvent[]): Promise<Change[]> {
    const { reader, model, where, selection } = this.query;
    const readable = new Set([...model.fields.map(inputName), ...linksOf(model).map(({ input }) => input)]);
    const changes = events.map((event) => {
      // The names need no key, also where the values are sealed.
      const changedFields = fieldNames(event.data);
      // Every event changes updatedAt and version.
      const touched = ['updatedAt', 'version', ...changedFields];
      const isFirst = event.streamVersion === 1;
      return {
        position: String(event.position),
        type: kindOf(event).toUpperCase(),
        id: recordIdOf(model, event),
        version: event.streamVersion,
        changedFields: changedFields.filter((name) => readable.has(name)),
        mayLeave:
          !isFirst &&
          (where === null || GOING.includes(kindOf(event)) || touched.some((field) => this.filterFields.has(field))),
      };
    });
    // What a purged or erased record was before is not known any more, so who follows any records is told that it is none of them.
    const known = changes.map((change) => (UNKNOWN_BEFORE.includes(change.type) ? { ...change, version: 0 } : change));
    const { text, parameters } = compileChanged(reader, model, where, selection, known);
    return this.database.transaction(reader.tenant, async (tx) => {
      const [answer] = await tx.query<{ nodes: Record<string, object>; untold: number[]; unproven: number[] }>(
        text,
        parameters,
      );
      const untold = new Set(answer!.untold);
      for (const place of this.hasRule ? answer!.unproven : []) {
        if (!(await this.wasSeen(tx, changes[place - 1]!))) untold.add(place);
      }
      return changes.flatMap(({ mayLeave: _mayLeave, ...change }, index) =>
        untold.has(index + 1) ? [] : [{ ...change, record: answer!.nodes[change.id] ?? null }],
      );
    });
  }

  /** Whether the subscriber may have seen the record before the change: the log knows where the history lags behind it. */
  private async wasSeen(tx: Tx, { id, version }: { readonly id: string; readonly version: number }): Promise<boolean> {
    const { reader, model, log } = this.query;
    if (version === 1) return false;
    const stream = modelStream(model.name, id);
    const before = await stateAt(tx, reader.tenant, stream, { version: version - 1 }, recordFold, log.codec);
    const whole = modelNamed(reader.access.schema, model.name);
    return before !== null && maySee(reader, model, factsOfToday(whole, before.state));
  }
}

/** The fields that a rule looks at, by the names under which they are written. */
function ruleFields({ access }: Reader, { name }: ModelDefinition, rule: Condition): string[] {
  const whole = modelNamed(access.schema, name);
  return conditionFields(rule).map((field) => inputName(fieldNamed(whole, field)));
}

/**
 * The fields that a condition looks at, however deep, by the names under which they are written: those that a computed field is made of
 * too, be they the reader's to read or not.
 */
function fieldsOf({ access }: Reader, model: ModelDefinition, where: Where | null): Set<string> {
  const whole = modelNamed(access.schema, model.name);
  const written = new Map<string, readonly string[]>([
    ['search', searchedFields(model).map(inputName)],
    ...model.fields.map((field) => [field.name, [inputName(field)]] as const),
    ...linksOf(model).map((relation) => [relation.name, [relation.input]] as const),
    ...model.computed.map(({ name, expression }) => {
      const parts = expression.parts.flatMap((part) => ('field' in part ? [part.field] : []));
      return [name, parts.map((part) => inputName(fieldNamed(whole, part)))] as const;
    }),
  ]);
  const fields = new Set<string>();
  const look = (condition: Where | null | undefined): void => {
    for (const [name, value] of Object.entries(condition ?? {})) {
      if (name === 'and' || name === 'or') for (const part of (value as Where[] | null) ?? []) look(part);
      else if (name === 'not') look(value as Where | null);
      else for (const field of written.get(name) ?? [name]) fields.add(field);
    }
  };
  look(where);
  return fields;
}
