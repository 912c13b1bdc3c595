import { GraphQLBoolean, GraphQLFloat, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { QUOTAS, type Standing, standingsOf } from '@atomo-cc/access';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { type ApiContext, type ApiPart, DateTimeScalar } from '../api/index.js';

const string = new GraphQLNonNull(GraphQLString);

const Quota = new GraphQLObjectType<Standing>({
  name: 'TenantQuota',
  description: 'Something that plans limit, and how your tenant stands with it.',
  fields: {
    name: { type: string, description: 'What is limited.', resolve: ({ quota }) => quota },
    unit: { type: string, description: 'What the numbers count.', resolve: ({ quota }) => QUOTAS[quota].unit },
    reason: { type: string, description: 'Why there is a limit.', resolve: ({ quota }) => QUOTAS[quota].reason },
    // Whole numbers to 2^53: bytes exceed an Int.
    limit: { type: GraphQLFloat, description: 'How much there may be; null: no limit.' },
    isOwn: {
      type: new GraphQLNonNull(GraphQLBoolean),
      description: 'Whether the limit was set for your tenant, whatever the plan says.',
    },
    used: { type: GraphQLFloat, description: 'How much of it there is, or was used this month; null of a rate.' },
    reserved: { type: new GraphQLNonNull(GraphQLFloat), description: 'Set aside for work that is under way.' },
    renewsAt: {
      type: DateTimeScalar,
      description: 'When all of it is free again; null: it does not come back by itself.',
    },
  },
});

const TenantPlan = new GraphQLObjectType<Awaited<ReturnType<typeof standingsOf>>>({
  name: 'TenantPlan',
  description: 'The plan of a tenant, with what it limits.',
  fields: {
    name: { type: string, description: 'free, solo, team or enterprise.', resolve: ({ plan }) => plan },
    quotas: {
      type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(Quota))),
      description: 'Everything that plans limit.',
      resolve: ({ standings }) => standings,
    },
  },
});

/** The field by which an Admin sees the plan of the own tenant and how much of it is used. */
export function planApi(database: AppDatabase): ApiPart {
  return {
    query: {
      tenantPlan: {
        type: new GraphQLNonNull(TenantPlan),
        description: 'The plan of your tenant and how much of it is used. For an Admin.',
        resolve: (_source, _args, { principal: { tenantId } }: ApiContext) =>
          database.transaction(tenantId, (tx) => standingsOf(tx, tenantId)),
      },
    },
  };
}
