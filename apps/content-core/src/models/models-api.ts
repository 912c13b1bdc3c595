import {
  GraphQLEnumType,
  GraphQLID,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLString,
  type GraphQLFieldConfigMap,
} from 'graphql';
import { apiError, isUuid } from '@atomo-cc/kernel';
import { accessOfRole, ADMIN, type ModelDefinition, type SchemaDefinition } from '@atomo-cc/schema';
import { Fence, type EventCodec } from '@atomo-cc/event-store';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import {
  DateTimeScalar,
  decodeCursor,
  encodeCursor,
  MAX_PAGE,
  mergeSelections,
  pageSize,
  READS_TEXT,
  selectionAt,
  selectionOf,
} from '../api/index.js';
import type { ApiContext, ApiPart, RolePart, Selection, TextReader } from '../api/index.js';
import { changedField, type ChangesOptions } from './changes.js';
import { RecordCommands, type CommandAnswer, type CommittedRecord, type RecordCommandsOptions } from './commands.js';
import { MAX_RECORDS_PER_COMMAND } from './deletion.js';
import { readAsOf, readHistory, valuesAtVersion, type LogReading } from './history.js';
import { historyPage, versionOf } from './history-types.js';
import { ModelTypes } from './model-types.js';
import {
  compileAggregate,
  compileGet,
  compileGetAgain,
  compileList,
  orderName,
  type Deleted,
  type OrderBy,
  type Where,
} from './query-compiler.js';
import { readerOf, seesSome, type Reader } from './record-access.js';

/** How the models' records are written and read where the log is sealed. */
export interface ModelsApiOptions extends LogReading, Pick<RecordCommandsOptions, 'onAppended'> {
  readonly codec?: EventCodec;
  /** How subscribers are told of changes; by a fence of its own and without hints unless given. */
  readonly changes?: ChangesOptions;
}

/** The typed fields that a schema's models add to the API of each role; every read of records is one SQL statement. */
export function modelsApi(schema: SchemaDefinition, database: AppDatabase, log: ModelsApiOptions = {}): RolePart {
  const commands = new RecordCommands(schema, database, log);
  const changes = log.changes ?? { fence: new Fence() };
  return (role) => partOf(schema, role, database, commands, changes, log);
}

function partOf(
  schema: SchemaDefinition,
  role: string,
  database: AppDatabase,
  commands: RecordCommands,
  changes: ChangesOptions,
  log: ModelsApiOptions,
): ApiPart {
  const access = accessOfRole(schema, role);
  const types = new ModelTypes(access);
  const query: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  const mutation: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  const subscription: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  // Of the role that the documents were checked for, also where the caller has got another one meanwhile.
  const readerFor = ({ principal }: ApiContext): Reader => readerOf(schema, { ...principal, role });

  for (const model of access.readable.models) {
    const hasVersion = access.readsOwn(model, 'version');
    const trash = types.readsDeleted(model) ? { deleted } : {};
    const found = { record: types.record(model), where: types.where(model), hasVersion };
    subscription[`${model.singular}Changed`] = changedField(model, database, found, readerFor, changes, log);
    query[model.singular] = {
      type: types.record(model),
      description: `The ${model.name} with this id, or null.`,
      args: { id: { type: new GraphQLNonNull(GraphQLID) }, asOf, ...trash },
      resolve: (_source, { id, asOf: time, deleted: which }: GetArguments, context, info) =>
        isUuid(id) ? readRecord(database, readerFor(context), model, id, selectionOf(info), time, which) : null,
      extensions: {
        [READS_TEXT]: (async (args, context, selection) => {
          const { id, asOf: time, deleted: which } = args as unknown as GetArguments;
          if (!isUuid(id)) return 'null';
          return (await readRecordText(database, readerFor(context), model, id, selection, time, which)) ?? 'null';
        }) satisfies TextReader,
      },
    };
    query[model.plural] = {
      type: new GraphQLNonNull(types.connection(model)),
      description: `A page of ${model.plural}, oldest first unless ordered otherwise.`,
      args: {
        where: { type: types.where(model) },
        orderBy: { type: new GraphQLList(new GraphQLNonNull(types.order(model))) },
        first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
        after: {
          type: GraphQLString,
          description: 'Only what comes behind this cursor, such as the endCursor of a page.',
        },
        last: { type: GraphQLInt, description: 'How many from the end instead, 1 to 100; not beside first.' },
        before: {
          type: GraphQLString,
          description: 'Only what comes ahead of this cursor, such as the startCursor of a page.',
        },
        asOf,
        ...trash,
      },
      resolve: (_source, args: ListArguments, context, info) =>
        readPage(database, readerFor(context), model, args, selectionOf(info)).then(pageObject),
      extensions: {
        [READS_TEXT]: (async (args, context, selection) => {
          // Both have what either asks for.
          if (selection.has('nodes') && selectionAt(selection, 'edges').has('node')) return null;
          return pageText(model, selection, await readPage(database, readerFor(context), model, args, selection, true));
        }) satisfies TextReader,
      },
    };
    const groupField = types.groupField(model);
    query[`${model.singular}Aggregate`] = {
      type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(types.aggregate(model)))),
      description: `Groups of ${model.plural}, largest first; one group of all unless grouped by something.`,
      args: {
        where: { type: types.where(model) },
        ...(groupField && { groupBy: { type: new GraphQLList(new GraphQLNonNull(groupField)) } }),
        first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
        asOf,
        ...trash,
      },
      resolve: (_source, args: AggregateArguments, context, info) =>
        readGroups(database, readerFor(context), model, args, selectionOf(info)),
    };
    query[`${model.singular}History`] = {
      type: new GraphQLNonNull(types.history(model)),
      description: `The versions of the ${model.name} with this id, newest first; none if there is no such ${model.name}.`,
      args: {
        id: { type: new GraphQLNonNull(GraphQLID) },
        first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
        after: { type: GraphQLString, description: 'The endCursor of the page before.' },
      },
      resolve: async (_source, args: { id: string; first?: number | null; after?: string | null }, context) => {
        const size = pageSize(args.first);
        const page = { before: args.after ? versionOf(model, args.after) : null, limit: size + 1 };
        const reader = readerFor(context);
        const looked = isUuid(args.id)
          ? await database.transaction(reader.tenant, (tx) => readHistory(tx, reader, model, args.id, page, log))
          : { entries: [], lookedTo: null };
        return historyPage(model, looked, size, !args.after);
      },
    };
  }

  for (const model of schema.models) {
    const readable = access.reads(model);
    const record = readable ? types.record(readable) : types.receipt(model);
    // Where a rule looks at the records themselves, a record may be written so that its writer sees it no more.
    const isSeen = !readable || access.right(model, 'read')!.where === null;
    const answer = { type: isSeen ? new GraphQLNonNull(record) : record };
    const unseen = isSeen ? '' : 'Null when you may not see the record as it is then.';
    const knowsVersion = access.readsOwn(model, 'version');
    const lookedAt = knowsVersion ? { expectedVersion } : {};
    const creates = types.input(model, 'create');
    if (creates) {
      mutation[`create${model.name}`] = {
        ...answer,
        description: `Makes a new ${model.name}. ${unseen}`,
        args: { input: { type: new GraphQLNonNull(creates) }, idempotencyKey },
        resolve: async (_source, args: CommandArguments, context, info) => {
          const made = await commands.create({ ...commandOf(args), model, context });
          return answerCommand(database, readerFor(context), model, made, selectionOf(info));
        },
      };
    }
    const updates = types.input(model, 'update');
    if (updates)
      mutation[`update${model.name}`] = {
        ...answer,
        description: `Changes the given fields of the ${model.name} with this id; null empties a field. ${unseen}`,
        args: {
          id: { type: new GraphQLNonNull(GraphQLID) },
          input: { type: new GraphQLNonNull(updates) },
          ...lookedAt,
          idempotencyKey,
        },
        resolve: async (
          _source,
          args: CommandArguments & { id: string; expectedVersion?: number | null },
          context,
          info,
        ) => {
          if (!isUuid(args.id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
          const seen = args.expectedVersion ?? null;
          const changed = await commands.update({
            ...commandOf(args),
            model,
            id: args.id,
            expectedVersion: seen,
            context,
          });
          return answerCommand(database, readerFor(context), model, changed, selectionOf(info));
        },
      };
    const mayDelete = access.right(model, 'delete') !== null;
    const earlier =
      updates && knowsVersion
        ? 'the values of that version again, as a new version; a value that was erased since, one that is required and was not there then, and one that you may not update, stays as it is.'
        : null;
    const again = 'Brings a deleted record back, without what it was linked to and is gone.';
    const version = { description: 'The version whose values it gets again.' };
    if (mayDelete || earlier)
      mutation[`restore${model.name}`] = {
        ...answer,
        description: [
          ...(mayDelete ? [again] : []),
          ...(earlier ? [`${mayDelete ? 'With a version, deleted or not, it gets' : 'It gets'} ${earlier}`] : []),
          unseen,
        ].join(' '),
        args: {
          id: { type: new GraphQLNonNull(GraphQLID) },
          ...(earlier && { version: { ...version, type: mayDelete ? GraphQLInt : new GraphQLNonNull(GraphQLInt) } }),
          ...lookedAt,
          idempotencyKey,
        },
        resolve: async (_source, args: RestoreArguments, context, info) => {
          if (!isUuid(args.id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
          const reader = readerFor(context);
          const then = args.version ?? null;
          const valuesOf = (version: number) =>
            database.transaction(reader.tenant, (tx) => valuesAtVersion(tx, reader, model, args.id, version, log));
          const restored = await commands.restore({
            model,
            id: args.id,
            earlier: then === null ? null : { version: then, values: await valuesOf(then) },
            expectedVersion: args.expectedVersion ?? null,
            idempotencyKey: args.idempotencyKey ?? null,
            context,
          });
          return answerCommand(database, readerFor(context), model, restored, selectionOf(info));
        },
      };
    const goes = (kind: 'delete' | 'purge', description: string): Field => ({
      ...answer,
      description: `${description} ${unseen}`,
      args: { id: { type: new GraphQLNonNull(GraphQLID) }, ...lookedAt, idempotencyKey },
      resolve: async (_source, { id, expectedVersion: seen, idempotencyKey: key }: GoneArguments, context, info) => {
        if (!isUuid(id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
        const command = { model, id, expectedVersion: seen ?? null, idempotencyKey: key ?? null, context };
        const gone = await commands[kind](command);
        return answerCommand(database, readerFor(context), model, gone, selectionOf(info));
      },
    });
    const isKept = model.softDelete
      ? 'It can be restored until it is purged.'
      : `A deleted ${model.name} is not kept: this purges it.`;
    if (mayDelete)
      mutation[`delete${model.name}`] = goes(
        'delete',
        `Deletes the ${model.name}, and does with what refers to it as the schema says. ${isKept}`,
      );
    const plural = capital(model.plural);
    const batch = new GraphQLNonNull(types.batch(model, record));
    const all = `All or none, an event each, ${MAX_RECORDS_PER_COMMAND} records at most.`;
    const answered = async (
      many: Promise<readonly CommandAnswer[]>,
      context: ApiContext,
      selection: Selection,
    ): Promise<unknown> => {
      const answers = await many;
      const nodes = selection.has('nodes')
        ? await answerMany(database, readerFor(context), model, answers, selectionAt(selection, 'nodes'))
        : [];
      return { count: answers.length, nodes };
    };
    const ofMany = (context: ApiContext, key: string | null | undefined) => ({
      model,
      context,
      idempotencyKey: key ?? null,
    });
    if (creates)
      mutation[`create${plural}`] = {
        type: batch,
        description: `Creates many ${model.plural}. ${all} A fault has the place of its input in its path, \`inputs.3.name\`.`,
        args: { inputs: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(creates))) }, idempotencyKey },
        resolve: (_source, { inputs, idempotencyKey: key }: ManyArguments, context, info) =>
          answered(commands.createMany({ ...ofMany(context, key), inputs: inputs! }), context, selectionOf(info)),
      };
    const meant = readable && { type: new GraphQLNonNull(types.where(readable)), description: '{} means all.' };
    if (updates && meant)
      mutation[`update${plural}`] = {
        type: batch,
        description: `Changes the given fields of all ${model.plural} that match; null empties a field. ${all}`,
        args: { where: meant, input: { type: new GraphQLNonNull(updates) }, idempotencyKey },
        resolve: (_source, { where, input, idempotencyKey: key }: ManyArguments, context, info) =>
          answered(
            commands.updateMany({ ...ofMany(context, key), where: where!, input: input! }),
            context,
            selectionOf(info),
          ),
      };
    if (mayDelete && meant)
      mutation[`delete${plural}`] = {
        type: batch,
        description: `Deletes all ${model.plural} that match, as delete${model.name} does one. ${all} What goes along counts as well, but is not in the answer.`,
        args: { where: meant, idempotencyKey },
        resolve: (_source, { where, idempotencyKey: key }: ManyArguments, context, info) =>
          answered(commands.deleteMany({ ...ofMany(context, key), where: where! }), context, selectionOf(info)),
      };
    if (role === ADMIN)
      mutation[`purge${model.name}`] = goes(
        'purge',
        `Takes the values of the ${model.name} out of what is read, now and as of earlier times, for good, and makes what is personal in its events unreadable. It need not be deleted before.`,
      );
  }
  const forbidden = access.readable.models
    .flatMap(({ name, plural }) => mutationsOf(name, plural))
    .filter((name) => !Object.hasOwn(mutation, name));
  return { query, mutation, subscription, forbidden };
}

/** The mutations that a model may have: who knows of the model knows of them. */
function mutationsOf(name: string, plural: string): string[] {
  const many = capital(plural);
  const ofOne = ['create', 'update', 'delete', 'restore', 'purge'].map((verb) => `${verb}${name}`);
  return [...ofOne, ...['create', 'update', 'delete'].map((verb) => `${verb}${many}`)];
}

/** The argument with which records are read as they were. */
const asOf = {
  type: DateTimeScalar,
  description:
    'Reads everything as it was at this time, also the records below; now unless given, or if it is to come.',
};

interface ManyArguments {
  readonly inputs?: readonly Record<string, unknown>[];
  readonly where?: Where;
  readonly input?: Record<string, unknown>;
  readonly idempotencyKey?: string | null;
}

function capital(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

type Field = GraphQLFieldConfigMap<unknown, ApiContext>[string];

/** The argument by which deleted records are read. */
const deleted = {
  type: new GraphQLEnumType({
    name: 'DeletedRecords',
    values: {
      EXCLUDE: { description: 'Only records that are there.' },
      INCLUDE: { description: 'Deleted ones too.' },
      ONLY: { description: 'Only deleted ones.' },
    },
  }),
  description:
    'EXCLUDE unless given. It is about these records: those below are never deleted ones. Purged ones are no more.',
};

/** The argument that holds a command to what its caller has seen. */
const expectedVersion = {
  type: GraphQLInt,
  description: 'The version that was looked at. If the record is at another by now: CONFLICT, and nothing is changed.',
};

interface GetArguments {
  readonly id: string;
  readonly asOf?: string | null;
  readonly deleted?: Deleted | null;
}

interface GoneArguments {
  readonly id: string;
  readonly expectedVersion?: number | null;
  readonly idempotencyKey?: string | null;
}

interface RestoreArguments {
  readonly id: string;
  readonly version?: number | null;
  readonly expectedVersion?: number | null;
  readonly idempotencyKey?: string | null;
}

/** The argument with which a command may be sent again without taking effect again. */
const idempotencyKey = {
  type: GraphQLString,
  description:
    'Chosen by you, one for each command. Sending a command again with its key answers what it did the first time.',
};

interface CommandArguments {
  input: Record<string, unknown>;
  idempotencyKey?: string | null;
}

function commandOf({ input, idempotencyKey: key }: CommandArguments) {
  return { input, idempotencyKey: key ?? null };
}

interface ListArguments {
  where?: Where | null;
  orderBy?: readonly OrderBy[] | null;
  first?: number | null;
  after?: string | null;
  last?: number | null;
  before?: string | null;
  asOf?: string | null;
  deleted?: Deleted | null;
}

interface AggregateArguments {
  where?: Where | null;
  groupBy?: readonly string[] | null;
  first?: number | null;
  asOf?: string | null;
  deleted?: Deleted | null;
}

/** Reads as of a time, or now. `read` is given the time, or null for now. */
function readAt<Result>(
  database: AppDatabase,
  { access, tenant }: Reader,
  time: string | null | undefined,
  read: (tx: Pick<Tx, 'query'>, time: string | null) => Promise<Result>,
): Promise<Result> {
  if (time) return readAsOf(database, access.schema, tenant, time, read);
  // Nothing is asked before, so it needs no transaction that is held open.
  return read({ query: (text, parameters) => database.read(tenant, text, parameters) }, null);
}

/** What a mutation answers: the record as the command has left it, or what is read where its own fields are not enough. */
function answerCommand(
  database: AppDatabase,
  reader: Reader,
  model: ModelDefinition,
  { id, record }: CommandAnswer,
  selection: Selection,
): unknown {
  if (!reader.access.reads(model)) return { id };
  // Also a record that the command, or one after it, has deleted.
  if (!record || !isEnough(reader, model, [{ id, record }], selection))
    return readRecord(database, reader, model, id, selection, null, 'ANY');
  return nodeOf(record);
}

/** The records of many as the command has left them, or as they are read, in one statement, where that is not enough. */
async function answerMany(
  database: AppDatabase,
  reader: Reader,
  model: ModelDefinition,
  answers: readonly CommandAnswer[],
  selection: Selection,
): Promise<unknown> {
  if (!isEnough(reader, model, answers, selection) && answers.length > 0) {
    const ids = answers.map(({ id }) => id);
    const { text, parameters } = compileList(reader, model, {
      where: { id: { in: ids } },
      orderBy: [],
      after: null,
      limit: ids.length + 1,
      node: mergeSelections(selection, new Map([['id', new Map()]])),
      withTotal: false,
      withKeys: false,
      deleted: 'ANY',
    });
    const rows = await database.read<{ node: string }>(reader.tenant, text, parameters);
    const byId = new Map(rows.map(({ node }) => JSON.parse(node) as { id: string }).map((node) => [node.id, node]));
    return ids.map((id) => byId.get(id) ?? null);
  }
  return answers.map(({ id, record }) => (record && reader.access.reads(model) ? nodeOf(record) : { id }));
}

function nodeOf({ id, version, createdAt, updatedAt, deletedAt, values }: CommittedRecord): object {
  return { ...values, id, version, createdAt, updatedAt, deletedAt };
}

/** Whether what commands have left is all that is asked for, and may be seen whatever it is. */
function isEnough(
  reader: Reader,
  model: ModelDefinition,
  answers: readonly CommandAnswer[],
  selection: Selection,
): boolean {
  if (!reader.access.reads(model)) return true;
  const further = [...model.fields.filter(({ type }) => type === 'relation'), ...model.relations, ...model.computed];
  const asksBeyond = further.some(({ name }) => selection.has(name));
  return !asksBeyond && !seesSome(reader, model) && answers.every(({ record }) => record !== null);
}

async function readRecord(...of: Parameters<typeof readRecordText>): Promise<unknown> {
  const text = await readRecordText(...of);
  return text === null ? null : (JSON.parse(text) as unknown);
}

/** The JSON of a record, or null. */
async function readRecordText(
  database: AppDatabase,
  reader: Reader,
  model: ModelDefinition,
  id: string,
  selection: Selection,
  asOfTime?: string | null,
  which?: Deleted | null,
): Promise<string | null> {
  const [row] = await readAt(database, reader, asOfTime, (tx, time) => {
    const { text, parameters } =
      time === null && !which
        ? compileGetAgain(reader, model, id, selection)
        : compileGet(reader, model, id, selection, time, which ?? 'EXCLUDE');
    return tx.query<{ node: string }>(text, parameters);
  });
  return row?.node ?? null;
}

/** A page as it is read. */
interface Page {
  /** The JSON of each record. */
  readonly nodes: readonly string[];
  /** As many where they are asked for, else none. */
  readonly cursors: readonly string[];
  readonly pageInfo: Readonly<Record<string, unknown>>;
  /** Undefined unless asked for. */
  readonly totalCount: number | undefined;
}

function pageObject({ nodes, cursors, pageInfo, totalCount }: Page) {
  const records = nodes.map((node) => JSON.parse(node) as object);
  const edges = records.map((node, at) => ({ node, cursor: cursors[at] }));
  return { nodes: records, edges, pageInfo, totalCount };
}

/** The JSON of what a selection asks for of a page, and no more. */
function pageText(
  model: ModelDefinition,
  selection: Selection,
  { nodes, cursors, pageInfo, totalCount }: Page,
): string {
  const objectOf = (fields: Selection, type: string, valueOf: (name: string) => string) =>
    `{${[...fields.keys()].map((name) => `"${name}":${name === '__typename' ? `"${type}"` : valueOf(name)}`).join(',')}}`;
  return objectOf(selection, `${model.name}Connection`, (name) => {
    const below = selectionAt(selection, name);
    switch (name) {
      case 'nodes':
        return `[${nodes.join(',')}]`;
      case 'edges':
        return `[${nodes.map((node, at) => objectOf(below, `${model.name}Edge`, (of) => (of === 'node' ? node : `"${cursors[at]}"`))).join(',')}]`;
      case 'pageInfo':
        return objectOf(below, 'PageInfo', (of) => JSON.stringify(pageInfo[of]));
      default:
        return String(totalCount);
    }
  });
}

/** What a page may be asked for so that its records can come as one text. */
const PLAIN_PAGE: ReadonlySet<string> = new Set(['nodes', '__typename']);

/** @param isText whether the nodes may come as one text, with commas between them, where nothing else is asked for */
async function readPage(
  database: AppDatabase,
  reader: Reader,
  model: ModelDefinition,
  args: ListArguments,
  selection: Selection,
  isText = false,
): Promise<Page> {
  const { after = null, before = null, last = null } = args;
  const fromEnd = last !== null;
  if (fromEnd && typeof args.first === 'number')
    throw apiError('VALIDATION_ERROR', 'A page is the first or the last of a list: give first or last, not both.');
  const size = fromEnd ? pageSize(last, MAX_PAGE, 'last') : pageSize(args.first);
  const orderBy = args.orderBy ?? [];
  const order = orderName(model, orderBy, args.asOf ?? null);
  const pageInfo = selectionAt(selection, 'pageInfo');
  const withKeys =
    selectionAt(selection, 'edges').has('cursor') || pageInfo.has('startCursor') || pageInfo.has('endCursor');
  // Nothing else than the records is asked for: neither where each ends, nor whether there are more.
  const isJoined = isText && selection.has('nodes') && [...selection.keys()].every((name) => PLAIN_PAGE.has(name));
  const list = {
    where: args.where ?? null,
    orderBy,
    after: after === null ? null : decodeCursor(order, after),
    before: before === null ? null : decodeCursor(order, before),
    fromEnd,
    limit: isJoined ? size : size + 1,
    isJoined,
    node: mergeSelections(selectionAt(selection, 'nodes'), selectionAt(selection, 'edges', 'node')),
    withTotal: selection.has('totalCount'),
    withKeys,
    deleted: args.deleted ?? 'EXCLUDE',
  };
  const rows = await readAt(database, reader, args.asOf, (tx, time) => {
    const { text, parameters } = compileList(reader, model, { ...list, asOf: time });
    return tx.query<{ node: string | null; key?: string; total?: number }>(text, parameters);
  });
  // The total has a row of its own where nothing is on the page.
  const found = rows.filter(({ node }) => node !== null);
  const isMore = found.length > size;
  const onPage = fromEnd ? found.slice(-size) : found.slice(0, size);
  const cursors = withKeys ? onPage.map(({ key }) => encodeCursor(order, JSON.parse(key!) as unknown[])) : [];
  return {
    nodes: onPage.map(({ node }) => node!),
    cursors,
    pageInfo: {
      hasNextPage: before !== null || (!fromEnd && isMore),
      hasPreviousPage: after !== null || (fromEnd && isMore),
      startCursor: cursors[0] ?? null,
      endCursor: cursors.at(-1) ?? null,
    },
    totalCount: rows[0]?.total,
  };
}

/** SQLSTATE of a result that its type cannot hold. */
const OUT_OF_RANGE = '22003';

async function readGroups(
  database: AppDatabase,
  reader: Reader,
  model: ModelDefinition,
  { where = null, groupBy, first, asOf: time, deleted: which }: AggregateArguments,
  selection: Selection,
) {
  const query = { where, groupBy: groupBy ?? [], limit: pageSize(first), node: selection, deleted: which ?? 'EXCLUDE' };
  const rows = await readAt(database, reader, time, async (tx, at) => {
    const { text, parameters } = compileAggregate(reader, model, { ...query, asOf: at });
    return tx.query<{ group: Readonly<Record<string, unknown>> }>(text, parameters);
  }).catch((error: unknown) => {
    if ((error as { code?: unknown }).code !== OUT_OF_RANGE) throw error;
    throw apiError('VALIDATION_ERROR', 'A sum is larger than a Float can be. Narrow the condition, or ask without it.');
  });
  return rows.map(({ group: row }) => {
    const answer: Record<string, Record<string, unknown>> = { group: {}, sum: {}, avg: {}, min: {}, max: {} };
    for (const [path, value] of Object.entries(row)) {
      const [part, name] = path.split('.') as [string, string?];
      if (name !== undefined) answer[part]![name] = value;
    }
    return { ...answer, count: row['count'] };
  });
}
