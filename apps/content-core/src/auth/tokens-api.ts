import {
  GraphQLBoolean,
  GraphQLEnumType,
  GraphQLID,
  GraphQLInputObjectType,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
} from 'graphql';
import { type ApiToken, type ApiTokens, requirePerson, type Scope, SCOPES } from '@atomo-cc/access';
import { apiError } from '@atomo-cc/kernel';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { type ApiContext, type ApiPart, byOf, DateTimeScalar } from '../api/index.js';

const ScopeType = new GraphQLEnumType({
  name: 'ApiTokenScope',
  description: 'read: queries, subscriptions and GET. write: mutations and all else.',
  values: Object.fromEntries(SCOPES.map((scope) => [scope, {}])),
});

const scopes = new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(ScopeType)));

const ApiTokenType = new GraphQLObjectType<ApiToken>({
  name: 'ApiToken',
  description: 'A token for a machine. It is sent as a person sends theirs: Authorization: Bearer …',
  fields: {
    id: { type: new GraphQLNonNull(GraphQLID) },
    name: { type: new GraphQLNonNull(GraphQLString) },
    prefix: { type: new GraphQLNonNull(GraphQLString), description: 'The beginning of the token, to know it by.' },
    role: { type: new GraphQLNonNull(GraphQLString), description: 'It may do what this role may.' },
    scopes: { type: scopes, description: 'And of that only this.' },
    createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
    expiresAt: { type: DateTimeScalar, description: 'null: it holds until it is revoked.' },
    lastUsedAt: { type: DateTimeScalar, description: 'True to the minute.' },
  },
});

const CreatedApiToken = new GraphQLObjectType({
  name: 'CreatedApiToken',
  fields: {
    token: { type: new GraphQLNonNull(GraphQLString), description: 'The token. It is shown this once only.' },
    apiToken: { type: new GraphQLNonNull(ApiTokenType) },
  },
});

const reason = { type: GraphQLString, description: 'Why, for the audit log.' };

const CreateApiTokenInput = new GraphQLInputObjectType({
  name: 'CreateApiTokenInput',
  fields: {
    name: { type: new GraphQLNonNull(GraphQLString), description: 'What it is for.' },
    role: { type: new GraphQLNonNull(GraphQLString), description: 'Admin, or a role that the schema declares.' },
    scopes: { type: scopes },
    expiresAt: { type: DateTimeScalar, description: 'null: it holds until it is revoked.' },
  },
});

interface CreateArguments {
  readonly input: {
    readonly name: string;
    readonly role: string;
    readonly scopes: readonly Scope[];
    readonly expiresAt?: string | null;
  };
  readonly reason?: string | null;
}

interface RevokeArguments {
  readonly id: string;
  readonly reason?: string | null;
}

/**
 * The fields by which an Admin makes, lists and revokes the tokens of the own tenant, since `mayUse` names nobody else. A token can make none: who steals one
 * must not be able to stay.
 */
export function tokensApi(tokens: ApiTokens, database: AppDatabase, roles: readonly string[]): ApiPart {
  return {
    query: {
      apiTokens: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(ApiTokenType))),
        description: 'The tokens for machines that hold, newest first. For an Admin.',
        resolve: (_source, _args, { principal }: ApiContext) => tokens.list(database, principal),
      },
    },
    mutation: {
      createApiToken: {
        type: new GraphQLNonNull(CreatedApiToken),
        description: 'Makes a token for a machine. For an Admin who has logged in.',
        args: { input: { type: new GraphQLNonNull(CreateApiTokenInput) }, reason },
        resolve: (_source, { input, reason: why }: CreateArguments, context: ApiContext) => {
          const expiresAt = input.expiresAt ? new Date(input.expiresAt) : null;
          const person = requirePerson(context.principal);
          return tokens.create(database, person, { ...input, expiresAt }, roles, byOf(context, why));
        },
      },
      revokeApiToken: {
        type: new GraphQLNonNull(GraphQLBoolean),
        description: 'Revokes a token: within 5 seconds everywhere, open subscriptions included. For an Admin.',
        args: { id: { type: new GraphQLNonNull(GraphQLID) }, reason },
        resolve: async (_source, { id, reason: why }: RevokeArguments, context: ApiContext) => {
          const isRevoked = await tokens.revoke(database, context.principal, id, byOf(context, why));
          if (!isRevoked) throw apiError('NOT_FOUND', 'There is no such token, or it was revoked.');
          return true;
        },
      },
    },
  };
}
