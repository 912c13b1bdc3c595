import {
  GraphQLBoolean,
  GraphQLEnumType,
  GraphQLFloat,
  GraphQLID,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  type GraphQLFieldConfigMap,
  type GraphQLInputFieldConfigMap,
  type GraphQLInputType,
  type GraphQLOutputType,
  type GraphQLScalarType,
} from 'graphql';
import { apiError, isUuid } from '@atomo-cc/kernel';
import {
  inputName,
  isDemanded,
  type FieldDefinition,
  type ModelDefinition,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { Fence, type EventCodec } from '@atomo-cc/event-store';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { connectionOf, decodeCursor, encodeCursor, PageInfo, pageSize } from '../api/index.js';
import type { ApiContext, ApiPart } from '../api/index.js';
import { DateScalar, DateTimeScalar, JsonScalar } from '../api/index.js';
import { mergeSelections, selectionAt, selectionOf, type Selection } from '../api/index.js';
import { changedField, type ChangesOptions } from './changes.js';
import { RecordCommands, type CommandAnswer, type RecordCommandsOptions } from './commands.js';
import { readAsOf, readHistory, valuesAtVersion, type LogReading } from './history.js';
import { historyConnection, historyPage, versionOf } from './history-types.js';
import { compileGet, compileList, orderName, type OrderBy, type Where } from './query-compiler.js';

/** How the models' records are written and read where the log is sealed. */
export interface ModelsApiOptions extends LogReading, Pick<RecordCommandsOptions, 'onAppended'> {
  readonly codec?: EventCodec;
  /** How subscribers are told of changes; by a fence of its own and without hints unless given. */
  readonly changes?: ChangesOptions;
}

/** The typed fields that a schema's models add to the API; every read of records is one SQL statement. */
export function modelsApi(schema: SchemaDefinition, database: AppDatabase, log: ModelsApiOptions = {}): ApiPart {
  const types = new ModelTypes(schema);
  const commands = new RecordCommands(schema, database, log);
  const query: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  const mutation: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  const subscription: GraphQLFieldConfigMap<unknown, ApiContext> = {};
  const changes = log.changes ?? { fence: new Fence() };

  for (const model of schema.models) {
    const found = { record: types.record(model), where: types.where(model) };
    subscription[`${model.singular}Changed`] = changedField(schema, model, database, found, changes);
    query[model.singular] = {
      type: types.record(model),
      description: `The ${model.name} with this id, or null.`,
      args: { id: { type: new GraphQLNonNull(GraphQLID) }, asOf },
      resolve: (_source, { id, asOf: time }: { id: string; asOf?: string | null }, context, info) =>
        isUuid(id) ? readRecord(database, schema, model, id, selectionOf(info), context, time) : null,
    };
    query[model.plural] = {
      type: new GraphQLNonNull(types.connection(model)),
      description: `A page of ${model.plural}, oldest first unless ordered otherwise.`,
      args: {
        where: { type: types.where(model) },
        orderBy: { type: new GraphQLList(new GraphQLNonNull(types.order(model))) },
        first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
        after: { type: GraphQLString, description: 'The endCursor of the page before.' },
        asOf,
      },
      resolve: (_source, args: ListArguments, context, info) =>
        readPage(database, schema, model, args, context, selectionOf(info)),
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
        const { tenantId } = context.principal;
        const entries = isUuid(args.id)
          ? await database.transaction(tenantId, (tx) => readHistory(tx, tenantId, model, args.id, page, log))
          : [];
        return historyPage(model, entries, size, !args.after);
      },
    };
    mutation[`create${model.name}`] = {
      type: new GraphQLNonNull(types.record(model)),
      args: { input: { type: new GraphQLNonNull(types.input(model, 'create')) }, idempotencyKey },
      resolve: async (_source, args: CommandArguments, context, info) => {
        const made = await commands.create({ ...commandOf(args), model, context });
        return answerCommand(database, schema, model, made, selectionOf(info), context);
      },
    };
    mutation[`update${model.name}`] = {
      type: new GraphQLNonNull(types.record(model)),
      description: 'Changes the fields that are given; null empties a field.',
      args: {
        id: { type: new GraphQLNonNull(GraphQLID) },
        input: { type: new GraphQLNonNull(types.input(model, 'update')) },
        expectedVersion: {
          type: GraphQLInt,
          description:
            'The version the change was made on. If the record is at another by now: CONFLICT, and nothing is changed.',
        },
        idempotencyKey,
      },
      resolve: async (
        _source,
        args: CommandArguments & { id: string; expectedVersion?: number | null },
        context,
        info,
      ) => {
        if (!isUuid(args.id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
        const expectedVersion = args.expectedVersion ?? null;
        const changed = await commands.update({ ...commandOf(args), model, id: args.id, expectedVersion, context });
        return answerCommand(database, schema, model, changed, selectionOf(info), context);
      },
    };
    mutation[`restore${model.name}`] = {
      type: new GraphQLNonNull(types.record(model)),
      description:
        'Gives the fields the values of an earlier version again, as a new version. A value that was erased since, and one that is required and was not there then, stays as it is.',
      args: {
        id: { type: new GraphQLNonNull(GraphQLID) },
        version: { type: new GraphQLNonNull(GraphQLInt), description: 'The version whose values it gets again.' },
        expectedVersion: {
          type: GraphQLInt,
          description:
            'The version that was looked at. If the record is at another by now: CONFLICT, and nothing is changed.',
        },
        idempotencyKey,
      },
      resolve: async (_source, args: RestoreArguments, context, info) => {
        if (!isUuid(args.id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
        const { tenantId } = context.principal;
        const values = await database.transaction(tenantId, (tx) =>
          valuesAtVersion(tx, tenantId, model, args.id, args.version, log),
        );
        const restored = await commands.restore({
          model,
          id: args.id,
          version: args.version,
          values,
          expectedVersion: args.expectedVersion ?? null,
          idempotencyKey: args.idempotencyKey ?? null,
          context,
        });
        return answerCommand(database, schema, model, restored, selectionOf(info), context);
      },
    };
  }
  return { query, mutation, subscription };
}

/** The argument with which records are read as they were. */
const asOf = {
  type: DateTimeScalar,
  description:
    'Reads everything as it was at this time, also the records below; now unless given, or if it is to come.',
};

interface RestoreArguments {
  readonly id: string;
  readonly version: number;
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
  asOf?: string | null;
}

/** Reads as of a time, or now. `read` is given the time, or null for now. */
function readAt<Result>(
  database: AppDatabase,
  schema: SchemaDefinition,
  { principal: { tenantId } }: ApiContext,
  time: string | null | undefined,
  read: (tx: Tx, time: string | null) => Promise<Result>,
): Promise<Result> {
  if (time) return readAsOf(database, schema, tenantId, time, read);
  return database.transaction(tenantId, (tx) => read(tx, null));
}

/** What a mutation answers: the record as the command has left it, or what is read where its own fields are not enough. */
function answerCommand(
  database: AppDatabase,
  schema: SchemaDefinition,
  model: ModelDefinition,
  { id, record }: CommandAnswer,
  selection: Selection,
  context: ApiContext,
): unknown {
  const asksBeyond = model.fields.some(({ type, name }) => type === 'relation' && selection.has(name));
  if (!record || asksBeyond) return readRecord(database, schema, model, id, selection, context);
  const { version, createdAt, updatedAt, values } = record;
  return { ...values, id, version, createdAt, updatedAt };
}

async function readRecord(
  database: AppDatabase,
  schema: SchemaDefinition,
  model: ModelDefinition,
  id: string,
  selection: Selection,
  context: ApiContext,
  asOfTime?: string | null,
): Promise<unknown> {
  const [row] = await readAt(database, schema, context, asOfTime, (tx, time) => {
    const { text, parameters } = compileGet(schema, model, context.principal.tenantId, id, selection, time);
    return tx.query<{ node: unknown }>(text, parameters);
  });
  return row?.node ?? null;
}

async function readPage(
  database: AppDatabase,
  schema: SchemaDefinition,
  model: ModelDefinition,
  args: ListArguments,
  context: ApiContext,
  selection: Selection,
) {
  const size = pageSize(args.first);
  const orderBy = args.orderBy ?? [];
  const order = orderName(model, orderBy, args.asOf ?? null);
  const list = {
    where: args.where ?? null,
    orderBy,
    after: args.after ? decodeCursor(order, args.after) : null,
    limit: size + 1,
    node: mergeSelections(selectionAt(selection, 'nodes'), selectionAt(selection, 'edges', 'node')),
    withTotal: selection.has('totalCount'),
  };
  const [answer] = await readAt(database, schema, context, args.asOf, (tx, time) => {
    const { text, parameters } = compileList(schema, model, context.principal.tenantId, { ...list, asOf: time });
    return tx.query<{ rows: { node: object; key: unknown[] }[]; total?: number }>(text, parameters);
  });
  const page = connectionOf(answer!.rows, size, (row) => encodeCursor(order, row.key), !args.after);
  return {
    nodes: page.nodes.map((row) => row.node),
    edges: page.edges.map(({ node, cursor }) => ({ node: node.node, cursor })),
    pageInfo: page.pageInfo,
    totalCount: answer!.total,
  };
}

/** The fields that every record has. */
const OWN_FIELDS = {
  id: { type: new GraphQLNonNull(GraphQLID) },
  version: { type: new GraphQLNonNull(GraphQLInt), description: 'Grows by one with every change.' },
  createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
  updatedAt: { type: new GraphQLNonNull(DateTimeScalar) },
};

/** The GraphQL types of a schema's models, each made once. */
class ModelTypes {
  private readonly made = new Map<string, unknown>();

  constructor(private readonly schema: SchemaDefinition) {}

  record(model: ModelDefinition): GraphQLObjectType {
    return this.once(
      model.name,
      () =>
        new GraphQLObjectType({
          name: model.name,
          description: model.description,
          fields: () => ({
            ...OWN_FIELDS,
            ...Object.fromEntries(model.fields.flatMap((field) => this.outputFields(model, field))),
          }),
        }),
    );
  }

  history(model: ModelDefinition): GraphQLObjectType {
    return this.once(`${model.name}HistoryConnection`, () =>
      historyConnection(model, () => ({
        ...OWN_FIELDS,
        ...Object.fromEntries(model.fields.map((field) => this.outputFields(model, field)[0]!)),
      })),
    );
  }

  connection(model: ModelDefinition): GraphQLObjectType {
    return this.once(`${model.name}Connection`, () => {
      const record = new GraphQLNonNull(this.record(model));
      const edge = new GraphQLObjectType({
        name: `${model.name}Edge`,
        fields: { node: { type: record }, cursor: { type: new GraphQLNonNull(GraphQLString) } },
      });
      return new GraphQLObjectType({
        name: `${model.name}Connection`,
        description: `A page of ${model.plural}.`,
        fields: {
          nodes: { type: new GraphQLNonNull(new GraphQLList(record)) },
          edges: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(edge))) },
          pageInfo: { type: new GraphQLNonNull(PageInfo) },
          totalCount: { type: new GraphQLNonNull(GraphQLInt), description: 'Counted only when asked for.' },
        },
      });
    });
  }

  input(model: ModelDefinition, mode: 'create' | 'update'): GraphQLInputObjectType {
    return this.once(`${mode === 'create' ? 'Create' : 'Update'}${model.name}Input`, (name) => {
      const fields: GraphQLInputFieldConfigMap = {};
      for (const field of model.fields) {
        const type = this.scalar(model, field);
        const isNeeded = mode === 'create' && isDemanded(field);
        fields[inputName(field)] = {
          type: isNeeded ? new GraphQLNonNull(type) : type,
          description: field.description,
        };
      }
      return new GraphQLInputObjectType({ name, fields });
    });
  }

  where(model: ModelDefinition): GraphQLInputObjectType {
    return this.once(
      `${model.name}Where`,
      (name) =>
        new GraphQLInputObjectType({
          name,
          description: 'All given conditions must hold.',
          fields: (): GraphQLInputFieldConfigMap => ({
            and: { type: new GraphQLList(new GraphQLNonNull(this.where(model))) },
            or: { type: new GraphQLList(new GraphQLNonNull(this.where(model))) },
            not: { type: this.where(model) },
            id: { type: this.filter('ID', GraphQLID, ['equals', 'not', 'in', 'notIn']) },
            createdAt: { type: this.filter('DateTime', DateTimeScalar, ORDERED) },
            updatedAt: { type: this.filter('DateTime', DateTimeScalar, ORDERED) },
            ...Object.fromEntries(
              model.fields.map((field) => [inputName(field), { type: this.fieldFilter(model, field) }]),
            ),
          }),
        }),
    );
  }

  order(model: ModelDefinition): GraphQLInputObjectType {
    return this.once(`${model.name}Order`, (name) => {
      const names = [
        'id',
        'createdAt',
        'updatedAt',
        ...model.fields.filter(({ type }) => !['relation', 'json', 'geoPoint', 'blocks'].includes(type)).map(inputName),
      ];
      return new GraphQLInputObjectType({
        name,
        description: 'Exactly one field an entry. Records without a value come last either way.',
        fields: Object.fromEntries(names.map((field) => [field, { type: this.direction() }])),
      });
    });
  }

  private outputFields(
    model: ModelDefinition,
    field: FieldDefinition,
  ): [string, { type: GraphQLOutputType; description: string | null }][] {
    // A row older than the demand may lack the value, so nothing but the API's own fields is promised to be there.
    const own = [inputName(field), { type: this.scalar(model, field), description: field.description }] as const;
    if (field.type !== 'relation') return [[...own]];
    const target = this.schema.models.find((candidate) => candidate.name === field.target)!;
    return [[...own], [field.name, { type: this.record(target), description: field.description }]];
  }

  private scalar(model: ModelDefinition, field: FieldDefinition): GraphQLScalarType | GraphQLEnumType {
    switch (field.type) {
      case 'text':
      case 'richText':
      case 'email':
      case 'url':
      case 'slug':
      case 'decimal':
        return GraphQLString;
      case 'integer':
        return GraphQLInt;
      case 'number':
        return GraphQLFloat;
      case 'json':
      case 'geoPoint':
      case 'blocks':
        return JsonScalar;
      case 'datetime':
        return DateTimeScalar;
      case 'file':
        return GraphQLID;
      case 'boolean':
        return GraphQLBoolean;
      case 'date':
        return DateScalar;
      case 'relation':
        return GraphQLID;
      case 'enum':
        return this.once(
          `${model.name}${capital(field.name)}`,
          (name) =>
            new GraphQLEnumType({ name, values: Object.fromEntries(field.values!.map((value) => [value, {}])) }),
        );
    }
  }

  private fieldFilter(model: ModelDefinition, field: FieldDefinition): GraphQLInputObjectType {
    switch (field.type) {
      case 'text':
      case 'richText':
      case 'email':
      case 'url':
      case 'slug':
        return this.filter('String', GraphQLString, [...ORDERED, 'contains', 'startsWith', 'endsWith', 'isNull']);
      case 'decimal':
        return this.filter('Decimal', GraphQLString, [...ORDERED, 'isNull']);
      case 'integer':
        return this.filter('Int', GraphQLInt, [...ORDERED, 'isNull']);
      case 'datetime':
        return this.filter('DateTimeField', DateTimeScalar, [...ORDERED, 'isNull']);
      case 'json':
      case 'geoPoint':
      case 'blocks':
        return this.filter('JSON', JsonScalar, ['isNull']);
      case 'file':
        return this.filter('Reference', GraphQLID, ['equals', 'not', 'in', 'notIn', 'isNull']);
      case 'number':
        return this.filter('Float', GraphQLFloat, [...ORDERED, 'isNull']);
      case 'boolean':
        return this.filter('Boolean', GraphQLBoolean, ['equals', 'not', 'isNull']);
      case 'date':
        return this.filter('Date', DateScalar, [...ORDERED, 'isNull']);
      case 'relation':
        return this.filter('Reference', GraphQLID, ['equals', 'not', 'in', 'notIn', 'isNull']);
      case 'enum': {
        const type = this.scalar(model, field);
        return this.filter(type.name, type, ['equals', 'not', 'in', 'notIn', 'isNull']);
      }
    }
  }

  private filter(of: string, type: GraphQLInputType, operators: readonly string[]): GraphQLInputObjectType {
    return this.once(`${of}Filter`, (name) => {
      const typeOf = (operator: string): GraphQLInputType => {
        if (operator === 'isNull') return GraphQLBoolean;
        return operator === 'in' || operator === 'notIn' ? new GraphQLList(new GraphQLNonNull(type)) : type;
      };
      const fields = Object.fromEntries(
        operators.map((operator) => [operator, { type: typeOf(operator), description: OPERATORS[operator] }]),
      );
      return new GraphQLInputObjectType({ name, fields });
    });
  }

  private direction(): GraphQLEnumType {
    return this.once('Direction', (name) => new GraphQLEnumType({ name, values: { ASC: {}, DESC: {} } }));
  }

  private once<Type>(name: string, make: (name: string) => Type): Type {
    if (!this.made.has(name)) this.made.set(name, make(name));
    return this.made.get(name) as Type;
  }
}

const ORDERED = ['equals', 'not', 'in', 'notIn', 'gt', 'gte', 'lt', 'lte'];

const OPERATORS: Readonly<Record<string, string>> = {
  contains: 'Upper and lower case are the same.',
  startsWith: 'Upper and lower case are the same.',
  endsWith: 'Upper and lower case are the same.',
  not: 'Records without a value count as different.',
  notIn: 'Records without a value count as different.',
};

function capital(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
