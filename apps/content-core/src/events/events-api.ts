import { GraphQLInt, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { apiError } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { Fence, readEvents, type EventCodec } from '@atomo-cc/event-store';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { connectionOf, connectionType, decodeCursor, encodeCursor, pageSize } from '../api/index.js';
import type { ApiContext, ApiPart } from '../api/index.js';
import { DateTimeScalar, JsonScalar } from '../api/index.js';

/** The name of the log's only order; a cursor of another list is refused. */
const ORDER = 'events';

/** Names that one question may list: far more than anyone picks by hand, and few enough for one statement. */
const MAX_NAMES = 50;
/** Types of event that one question may list: all those of a schema with 150 models. */
const MAX_TYPES = 1_000;
/** Of an actor, an action, a stream or a field: the longest that the log itself writes stays far below it. */
const MAX_NAME_CHARS = 300;

const EventType = new GraphQLObjectType<RecordedEvent>({
  name: 'Event',
  description: 'Something that happened, as the log keeps it for ever.',
  fields: {
    position: {
      type: new GraphQLNonNull(GraphQLString),
      description: 'The place in the log; later events have greater ones.',
      resolve: ({ position }) => String(position),
    },
    stream: { type: new GraphQLNonNull(GraphQLString), description: 'The record it happened to: Contact-<id>.' },
    streamVersion: { type: new GraphQLNonNull(GraphQLInt), description: "The record's version after it." },
    type: { type: new GraphQLNonNull(GraphQLString), description: 'Contact.created, Contact.updated and their kin.' },
    data: {
      type: new GraphQLNonNull(JsonScalar),
      description: 'Personal fields of a subject that was erased are null.',
    },
    metadata: { type: new GraphQLNonNull(JsonScalar), description: 'Who did it, and in which request.' },
    recordedAt: { type: new GraphQLNonNull(DateTimeScalar) },
  },
});

const EventConnection = connectionType('Event', EventType);

/**
 * The field that lists what happened, opened and in today's shape, in the order of the log, up to the mark before which nothing can still
 * appear.
 */
export function eventsApi(database: AppDatabase, codec: EventCodec): ApiPart {
  const fence = new Fence();
  return {
    query: {
      events: {
        type: new GraphQLNonNull(EventConnection),
        description: 'What happened, oldest first.',
        args: {
          after: { type: GraphQLString, description: 'The endCursor of the page before.' },
          first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
          types: {
            type: new GraphQLList(new GraphQLNonNull(GraphQLString)),
            description: 'Only events of these types.',
          },
          stream: { type: GraphQLString, description: 'Only what happened to this record: Contact-<id>.' },
        },
        resolve: async (_source, args: EventArguments, context: ApiContext) => {
          const size = pageSize(args.first);
          checkNames('types', args.types, MAX_TYPES);
          checkNames('stream', args.stream);
          const { tenantId } = context.principal;
          const after = args.after ? positionOf(ORDER, args.after) : 0n;
          const events = await database.transaction(tenantId, async (tx) => {
            const settled = await fence.advance(tx);
            return codec.decode(tx, await readEvents(tx, tenantId, { ...args, after, settled, limit: size + 1 }));
          });
          return connectionOf(events, size, (event) => encodeCursor(ORDER, [String(event.position)]), !args.after);
        },
      },
    },
  };
}

/** The position that a cursor of a list in the order of the log stands for. @throws CodedError VALIDATION_ERROR */
export function positionOf(order: string, cursor: string): bigint {
  const [position, ...rest] = decodeCursor(order, cursor);
  // Eighteen digits fit Postgres' bigint whatever they are.
  const isOurs = typeof position === 'string' && /^\d{1,18}$/.test(position) && rest.length === 0;
  if (!isOurs)
    throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
  return BigInt(position);
}

/** What a search of the log is asked for by name: one name, or a list of them. @throws CodedError VALIDATION_ERROR naming the argument */
export function checkNames(
  argument: string,
  given: string | readonly string[] | null | undefined,
  max: number = MAX_NAMES,
): void {
  const names = typeof given === 'string' ? [given] : (given ?? []);
  if (names.length > max) throw apiError('VALIDATION_ERROR', `${argument} lists more than ${max}.`);
  for (const name of names) {
    if (name === '' || name.length > MAX_NAME_CHARS || name.includes('\0') || !name.isWellFormed()) {
      throw apiError(
        'VALIDATION_ERROR',
        `${argument}: a name has 1 to ${MAX_NAME_CHARS} characters, none of them NUL.`,
      );
    }
  }
}

interface EventArguments {
  first?: number | null;
  after?: string | null;
  types?: readonly string[] | null;
  stream?: string | null;
}
