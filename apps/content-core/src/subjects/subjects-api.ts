import { GraphQLID, GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { apiError, isUuid } from '@atomo-cc/kernel';
import { modelStream } from '@atomo-cc/events';
import { listErasures, type Erasure } from '@atomo-cc/event-store';
import type { ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  connectionOf,
  connectionType,
  DateTimeScalar,
  decodeCursor,
  encodeCursor,
  pageSize,
  type ApiContext,
  type ApiPart,
  required,
} from '../api/index.js';
import type { RecordCommands } from '../models/index.js';

/** The name of the list's order; a cursor of another list is refused. */
const ORDER = 'subjectErasures';
/** Characters of the reason; it stays in the log. */
const MAX_REASON_CHARS = 1_000;

const SubjectErasure = new GraphQLObjectType<Erasure>({
  name: 'SubjectErasure',
  description: 'A record whose personal data is taken from everything that is kept.',
  fields: {
    id: { type: required.id },
    model: { type: required.string, resolve: ({ subject }) => subject.slice(0, subject.indexOf('-')) },
    recordId: { type: required.id, resolve: ({ subject }) => subject.slice(subject.indexOf('-') + 1) },
    version: {
      type: new GraphQLNonNull(GraphQLInt),
      description: 'The version that it made. What was written later stays.',
    },
    requestedBy: { type: required.string, description: 'user:<id>. The reason is in auditLog and events.' },
    requestedAt: { type: new GraphQLNonNull(DateTimeScalar) },
    completedAt: {
      type: DateTimeScalar,
      description: 'When nothing was left anywhere. Null: the record is empty already, other places follow.',
    },
    attempts: { type: new GraphQLNonNull(GraphQLInt), description: 'How often it was begun.' },
    lastError: {
      type: GraphQLString,
      description: 'The code of what stopped the last attempt; it is tried again by itself. Null where nothing did.',
    },
  },
});

const SubjectErasureConnection = connectionType('SubjectErasure', SubjectErasure, 'A page of erasures, newest first.');

interface EraseArguments {
  readonly model: string;
  readonly id: string;
  readonly reason: string;
  readonly expectedVersion?: number | null;
  readonly idempotencyKey?: string | null;
}

interface ListArguments {
  readonly model?: string | null;
  readonly id?: string | null;
  readonly first?: number | null;
  readonly after?: string | null;
}

/**
 * The fields by which an Admin erases what is known of a person.
 * @param onRequested told after each commit, so that it is carried out at once
 */
export function subjectsApi(
  schema: SchemaDefinition,
  database: AppDatabase,
  commands: RecordCommands,
  onRequested: () => void,
): ApiPart {
  const list = (tenant: ApiContext['principal']['tenantId'], page: Parameters<typeof listErasures>[1]) =>
    database.transaction(tenant, (tx) => listErasures(tx, page));
  return {
    query: {
      subjectErasures: {
        type: new GraphQLNonNull(SubjectErasureConnection),
        description: 'The erasures of your tenant, newest first, and how they stand. For an Admin.',
        args: {
          model: { type: GraphQLString, description: 'With id: those of this record alone.' },
          id: { type: GraphQLID, description: 'With model: those of this record alone.' },
          first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
          after: { type: GraphQLString, description: 'The endCursor of the page before.' },
        },
        resolve: async (_source, args: ListArguments, { principal }: ApiContext) => {
          const size = pageSize(args.first);
          const after = args.after ? idIn(args.after) : null;
          const subject = args.model && args.id ? modelStream(args.model, args.id) : null;
          const found = await list(principal.tenantId, { subject, after, limit: size + 1 });
          return connectionOf(found, size, ({ id }) => encodeCursor(ORDER, [id]), after === null);
        },
      },
    },
    mutation: {
      eraseSubject: {
        type: new GraphQLNonNull(SubjectErasure),
        description:
          'Takes what is personal from a record, for good: from its row at once; then, behind the answer, from its past, its events, what projections and errors kept of it, and from the memory what its e-mail addresses wrote and what others wrote of them. The record stays, with null in its personal fields. What is written about it later is kept. For an Admin.',
        args: {
          model: { type: required.string, description: 'The name of its model.' },
          id: { type: required.id },
          reason: { type: required.string, description: 'Why, for the audit log. It stays: name nobody in it.' },
          expectedVersion: {
            type: GraphQLInt,
            description:
              'The version that was looked at. If the record is at another by now: CONFLICT, and nothing is changed.',
          },
          idempotencyKey: {
            type: GraphQLString,
            description:
              'Chosen by you, one for each command. Sending a command again with its key answers what it did the first time.',
          },
        },
        resolve: async (_source, args: EraseArguments, context: ApiContext) => {
          const model = modelOf(schema, args.model);
          if (!isUuid(args.id)) throw apiError('NOT_FOUND', `There is no ${model.name} with this id.`);
          await commands.erase({
            model,
            id: args.id,
            reason: reasonOf(args.reason),
            expectedVersion: args.expectedVersion ?? null,
            idempotencyKey: args.idempotencyKey ?? null,
            context,
          });
          onRequested();
          const subject = modelStream(model.name, args.id);
          const [erasure] = await list(context.principal.tenantId, { subject, after: null, limit: 1 });
          return erasure;
        },
      },
    },
  };
}

/** @throws CodedError VALIDATION_ERROR */
function modelOf(schema: SchemaDefinition, name: string): ModelDefinition {
  const model = schema.models.find((each) => each.name === name);
  if (model) return model;
  const names = schema.models.map((each) => each.name).join(', ');
  throw apiError('VALIDATION_ERROR', `model must be one of ${names}.`, { field: 'model' });
}

/** @throws CodedError VALIDATION_ERROR */
function reasonOf(said: string): string {
  const reason = said.trim();
  if (reason.length > 0 && reason.length <= MAX_REASON_CHARS && !reason.includes('\0') && reason.isWellFormed())
    return reason;
  throw apiError('VALIDATION_ERROR', `reason has 1 to ${MAX_REASON_CHARS} characters.`, { field: 'reason' });
}

/** @throws CodedError VALIDATION_ERROR */
function idIn(cursor: string): string {
  const [id, ...rest] = decodeCursor(ORDER, cursor);
  if (typeof id === 'string' && isUuid(id) && rest.length === 0) return id;
  throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
}
