import { GraphQLBoolean, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { type Secret, SECRET_KINDS, type Secrets } from '@atomo-cc/access';
import { apiError, type TenantId } from '@atomo-cc/kernel';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { type ApiContext, type ApiPart, byOf, DateTimeScalar } from '../api/index.js';

const string = new GraphQLNonNull(GraphQLString);

const SecretType = new GraphQLObjectType<Secret>({
  name: 'TenantSecret',
  description: 'A secret of your tenant: a token of a provider, the key of an endpoint. Its value is never told.',
  fields: {
    name: { type: string, description: 'What it is for, and if there are several which: slack/team-a.' },
    kind: { type: string, description: `What it is for: ${SECRET_KINDS.join(', ')}.` },
    hint: { type: GraphQLString, description: 'The last 4 characters of the value; null for one of fewer than 16.' },
    setBy: { type: string, description: 'Who set it last.' },
    createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
    updatedAt: { type: new GraphQLNonNull(DateTimeScalar), description: 'When it was last set.' },
    usedAt: { type: DateTimeScalar, description: 'When a worker last used this value; true to the minute.' },
  },
});

const reason = { type: GraphQLString, description: 'Why, for the audit log.' };
const name = { type: string, description: 'What it is for, and if there are several which: openai, slack/team-a.' };

/**
 * The fields by which an Admin sets, lists and removes the secrets of the own tenant. None of them answers a value.
 * @param onAppended told after each change
 */
export function secretsApi(secrets: Secrets, database: AppDatabase, onAppended: (tenant: TenantId) => void): ApiPart {
  return {
    query: {
      secrets: {
        type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(SecretType))),
        description: 'The secrets of your tenant by their names, without their values. For an Admin.',
        resolve: (_source, _args, { principal }: ApiContext) => secrets.list(database, principal.tenantId),
      },
    },
    mutation: {
      setSecret: {
        type: new GraphQLNonNull(SecretType),
        description: 'Sets a secret, in place of the one of this name if there is one. For an Admin.',
        args: {
          name,
          value: { type: string, description: 'Pass it as a variable. It is stored encrypted and never told again.' },
          reason,
        },
        resolve: async (_source, args: SetArguments, context: ApiContext) => {
          const { tenantId } = context.principal;
          const secret = await secrets.set(database, tenantId, args.name, args.value, byOf(context, args.reason));
          onAppended(tenantId);
          return secret;
        },
      },
      removeSecret: {
        type: new GraphQLNonNull(GraphQLBoolean),
        description: 'Removes a secret: who needs it goes on without from its next use. For an Admin.',
        args: { name, reason },
        resolve: async (_source, args: Omit<SetArguments, 'value'>, context: ApiContext) => {
          const { tenantId } = context.principal;
          if (!(await secrets.remove(database, tenantId, args.name, byOf(context, args.reason)))) {
            throw apiError('NOT_FOUND', 'There is no secret of this name.');
          }
          onAppended(tenantId);
          return true;
        },
      },
    },
  };
}

interface SetArguments {
  readonly name: string;
  readonly value: string;
  readonly reason?: string | null;
}
