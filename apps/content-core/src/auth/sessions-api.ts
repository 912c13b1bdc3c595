import { GraphQLBoolean, GraphQLID, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { type OwnSession, requirePerson, type Sessions } from '@atomo-cc/access';
import { apiError } from '@atomo-cc/kernel';
import { type ApiContext, type ApiPart, byOf, DateTimeScalar } from '../api/index.js';

const SessionType = new GraphQLObjectType<OwnSession>({
  name: 'Session',
  description: 'A login of yours.',
  fields: {
    id: { type: new GraphQLNonNull(GraphQLID) },
    createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
    refreshedAt: {
      type: new GraphQLNonNull(DateTimeScalar),
      description: 'When it got new tokens last; one in use does every 15 minutes.',
    },
    expiresAt: { type: new GraphQLNonNull(DateTimeScalar), description: 'When it ends unless it is refreshed before.' },
    address: { type: GraphQLString, description: 'The network address of the login.' },
    userAgent: { type: GraphQLString, description: 'The program of the login, as it called itself.' },
    isCurrent: { type: new GraphQLNonNull(GraphQLBoolean), description: 'True for the session that asks.' },
  },
});

/** What people see and do of their own sessions. */
export function sessionsApi(sessions: Sessions): ApiPart {
  return {
    query: {
      sessions: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(SessionType))),
        description: 'Your sessions, newest first.',
        resolve: (_source, _args, { principal }: ApiContext) => sessions.list(requirePerson(principal)),
      },
    },
    mutation: {
      revokeSession: {
        type: new GraphQLNonNull(GraphQLBoolean),
        description: 'Ends a session of yours: at once on this node, within 5 seconds on others.',
        args: { id: { type: new GraphQLNonNull(GraphQLID) } },
        resolve: async (_source, { id }: { id: string }, context: ApiContext) => {
          const isEnded = await sessions.revoke(requirePerson(context.principal), id, byOf(context));
          if (!isEnded) throw apiError('NOT_FOUND', 'You have no such session, or it has ended.');
          return true;
        },
      },
    },
  };
}
