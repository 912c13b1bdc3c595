import { GraphQLInt, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { apiError } from '@atomo-cc/kernel';
import {
  Fence,
  readAudit,
  readChanges,
  type AuditEntry,
  type EventDecoder,
  type FieldChange,
} from '@atomo-cc/event-store';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  connectionOf,
  connectionType,
  DateTimeScalar,
  encodeCursor,
  JsonScalar,
  mergeSelections,
  pageSize,
  selectionAt,
  selectionOf,
  type ApiContext,
  type ApiPart,
} from '../api/index.js';
import { checkNames, positionOf } from './events-api.js';

/** The name of the audit log's order; a cursor of another list is refused. */
const ORDER = 'auditLog';

/** An entry with what its event changed, where that was asked for. */
interface AuditNode extends AuditEntry {
  readonly changes: readonly FieldChange[];
}

const AuditChange = new GraphQLObjectType<FieldChange>({
  name: 'AuditChange',
  description: 'What an event made of one field.',
  fields: {
    field: { type: new GraphQLNonNull(GraphQLString) },
    before: {
      type: JsonScalar,
      description: "The value until then; null also when there was none, or when the subject's data were erased.",
    },
    after: { type: JsonScalar, description: "The value from then on; null also when the subject's data were erased." },
  },
});

const AuditEntryType = new GraphQLObjectType<AuditNode>({
  name: 'AuditEntry',
  description: 'Who did what, when and to what. One entry for each event.',
  fields: {
    at: { type: new GraphQLNonNull(DateTimeScalar), description: 'When it was recorded.' },
    actor: {
      type: new GraphQLNonNull(GraphQLString),
      description: 'user:<id>, token:<id>, key:<id>, operator:<login name> or system:<part>.',
    },
    action: { type: new GraphQLNonNull(GraphQLString), description: 'The type of the event: Contact.updated.' },
    stream: { type: new GraphQLNonNull(GraphQLString), description: 'What it happened to: Contact-<id>, user-<id>.' },
    streamVersion: { type: new GraphQLNonNull(GraphQLInt), description: "The record's version after it." },
    fields: {
      type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(GraphQLString))),
      description: 'The names of the fields that were written.',
    },
    address: { type: GraphQLString, description: 'The network address that the request came from, where it is known.' },
    requestId: {
      type: GraphQLString,
      description: 'One id for everything that the request set off: the x-request-id of its answer.',
    },
    reason: { type: GraphQLString, description: 'Why, in the words of who did it, where they were asked.' },
    changes: {
      type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(AuditChange))),
      description: 'The values before and after, read from the events only when asked for.',
    },
  },
});

const AuditConnection = connectionType('Audit', AuditEntryType);

const names = new GraphQLList(new GraphQLNonNull(GraphQLString));

/**
 * The field that lists who did what, newest first, up to the settled mark.
 * @param decoder makes stored events readable for `changes`; without one, sealed values read as null
 */
export function auditApi(database: AppDatabase, decoder: EventDecoder | null = null): ApiPart {
  const fence = new Fence();
  return {
    query: {
      auditLog: {
        type: new GraphQLNonNull(AuditConnection),
        description:
          'Who did what, newest first. A question for rare entries may answer a page with fewer than asked for, or none: ' +
          'while hasNextPage is true, go on with endCursor.',
        args: {
          first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
          after: { type: GraphQLString, description: 'The endCursor of the page before.' },
          actor: { type: GraphQLString, description: 'Only what this actor did: user:<id>.' },
          actions: { type: names, description: 'Only events of these types: Contact.updated.' },
          stream: { type: GraphQLString, description: 'Only what happened to this record: Contact-<id>.' },
          fields: { type: names, description: 'Only entries that name at least one of these fields.' },
          from: { type: DateTimeScalar, description: 'Only entries of this moment or later.' },
          to: { type: DateTimeScalar, description: 'Only entries before this moment.' },
        },
        resolve: async (_source, args: AuditArguments, context: ApiContext, info) => {
          const size = pageSize(args.first);
          checkArguments(args);
          const { tenantId } = context.principal;
          const after = args.after ? positionOf(ORDER, args.after) : null;
          const selection = selectionOf(info);
          const node = mergeSelections(selectionAt(selection, 'nodes'), selectionAt(selection, 'edges', 'node'));
          return database.transaction(tenantId, async (tx) => {
            const settled = await fence.advance(tx);
            const { from, to, ...names } = args;
            const page = await readAudit(tx, tenantId, {
              ...names,
              from: from ? new Date(from) : null,
              to: to ? new Date(to) : null,
              after,
              settled,
              limit: size + 1,
            });
            const shown = page.entries.slice(0, size);
            const changes = node.has('changes') ? await readChanges(tx, tenantId, shown, decoder) : null;
            const nodes = page.entries.map((entry) => ({ ...entry, changes: changes?.get(entry.position) ?? [] }));
            const connection = connectionOf(nodes, size, ({ position }) => cursorOf(position), after === null);
            if (page.lookedTo === null || page.entries.length > size) return connection;
            const pageInfo = { ...connection.pageInfo, hasNextPage: true, endCursor: cursorOf(page.lookedTo) };
            return { ...connection, pageInfo };
          });
        },
      },
    },
  };
}

interface AuditArguments {
  first?: number | null;
  after?: string | null;
  actor?: string | null;
  actions?: readonly string[] | null;
  stream?: string | null;
  fields?: readonly string[] | null;
  from?: string | null;
  to?: string | null;
}

/** @throws CodedError VALIDATION_ERROR naming the argument */
function checkArguments(args: AuditArguments): void {
  for (const name of ['actor', 'stream', 'actions', 'fields'] as const) checkNames(name, args[name]);
  if (args.from && args.to && args.from >= args.to) {
    throw apiError('VALIDATION_ERROR', 'from is not before to; to itself is left out.');
  }
}

function cursorOf(position: bigint): string {
  return encodeCursor(ORDER, [String(position)]);
}
