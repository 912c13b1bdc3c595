import {
  GraphQLBoolean,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
} from 'graphql';
import {
  orderTenant,
  outcomeOf,
  pageOfTenants,
  readTenant,
  requirePerson,
  type Tenant,
  type TenantWork,
} from '@atomo-cc/access';
import { apiError, DEFAULT_TENANT_ID, isUuid, type TenantId, tenantId } from '@atomo-cc/kernel';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  type ApiContext,
  type ApiPart,
  byOf,
  connectionOf,
  connectionType,
  DateTimeScalar,
  decodeCursor,
  encodeCursor,
  pageSize,
  required,
} from '../api/index.js';

/** The name of the list's order; a cursor of another list is refused. */
const ORDER = 'tenants';

const TenantType = new GraphQLObjectType<Tenant>({
  name: 'Tenant',
  description: 'Whoever shares nothing with the others.',
  fields: {
    id: { type: required.id },
    name: { type: required.string },
    slug: { type: required.string, description: 'A second, readable name; no other tenant has it.' },
    plan: { type: required.string, description: 'free, solo, team or enterprise.' },
    isSuspended: {
      type: new GraphQLNonNull(GraphQLBoolean),
      description: 'Whether nobody of it gets in.',
      resolve: ({ suspendedAt }) => suspendedAt !== null,
    },
    createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
  },
});

const TenantConnection = connectionType('Tenant', TenantType, 'A page of tenants, oldest first.');

const FirstAdminInput = new GraphQLInputObjectType({
  name: 'FirstAdminInput',
  description: 'The user by whom a tenant gets all others.',
  fields: {
    email: { type: required.string, description: 'An address has one user only, whatever the tenant.' },
    name: { type: GraphQLString, description: 'The part of the address before the @ unless given.' },
    password: { type: required.string, description: 'From 8 characters on. Pass it as a variable.' },
  },
});

const CreateTenantInput = new GraphQLInputObjectType({
  name: 'CreateTenantInput',
  fields: {
    name: { type: required.string },
    slug: { type: GraphQLString, description: 'A readable name such as acme-europe; made of the name unless given.' },
    plan: { type: GraphQLString, description: 'free, solo, team or enterprise; free unless given.' },
    admin: { type: new GraphQLNonNull(FirstAdminInput) },
  },
});

const reason = { type: GraphQLString, description: 'Why, for the audit log.' };
const id = { type: required.id };
const WHO = 'For an Admin of the default tenant who has logged in.';

interface TenantArguments {
  readonly id: string;
  readonly reason?: string | null;
}

interface CreateArguments {
  readonly input: {
    readonly name: string;
    readonly slug?: string | null;
    readonly plan?: string | null;
    readonly admin: { readonly email: string; readonly name?: string | null; readonly password: string };
  };
  readonly reason?: string | null;
}

/**
 * The fields by which Admins of the default tenant, the operator's own, manage all tenants. They write orders, which a background
 * part carries out with rights that no request has, and answer how that ended.
 * @param onOrdered told after each commit, so that it is carried out at once
 */
export function tenantsApi(database: AppDatabase, onOrdered: () => void): ApiPart {
  const tenant = new GraphQLNonNull(TenantType);
  const read = async (wanted: TenantId): Promise<Tenant> => {
    const found = await database.transaction(DEFAULT_TENANT_ID, (tx) => readTenant(tx, wanted));
    return found ?? noTenant();
  };
  const order = async (
    context: ApiContext,
    why: string | null | undefined,
    work: () => TenantWork,
  ): Promise<Tenant> => {
    requireOperator(context);
    const person = requirePerson(context.principal);
    const number = await orderTenant(database, person, work(), byOf(context, why));
    onOrdered();
    return read(await outcomeOf(database, person.tenantId, number));
  };
  return {
    query: {
      tenants: {
        type: new GraphQLNonNull(TenantConnection),
        description: 'All tenants, oldest first. For an Admin of the default tenant.',
        args: {
          first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
          after: { type: GraphQLString, description: 'The endCursor of the page before.' },
        },
        resolve: async (_source, args: { first?: number | null; after?: string | null }, context: ApiContext) => {
          requireOperator(context);
          const size = pageSize(args.first);
          const after = args.after ? idIn(args.after) : null;
          const found = await database.transaction(DEFAULT_TENANT_ID, (tx) =>
            pageOfTenants(tx, { after, limit: size + 1 }),
          );
          return connectionOf(found, size, (each) => encodeCursor(ORDER, [each.id]), after === null);
        },
      },
      tenant: {
        type: tenant,
        description: 'A tenant. For an Admin of the default tenant.',
        args: { id },
        resolve: (_source, args: TenantArguments, context: ApiContext) => {
          requireOperator(context);
          return read(idOf(args.id));
        },
      },
    },
    mutation: {
      createTenant: {
        type: tenant,
        description: `Makes a tenant and its first Admin. ${WHO}`,
        args: { input: { type: new GraphQLNonNull(CreateTenantInput) }, reason },
        resolve: (_source, { input, reason: why }: CreateArguments, context: ApiContext) =>
          order(context, why, () => ({
            action: 'create',
            tenant: { name: input.name, slug: input.slug ?? undefined, plan: input.plan ?? undefined },
            admin: { ...input.admin, name: input.admin.name ?? undefined },
          })),
      },
      suspendTenant: {
        type: tenant,
        description: `Shuts everybody of a tenant out, within 5 seconds everywhere; what belongs to them stays. ${WHO}`,
        args: { id, reason },
        resolve: (_source, args: TenantArguments, context: ApiContext) =>
          order(context, args.reason, () => ({ action: 'suspend', tenant: idOf(args.id) })),
      },
      resumeTenant: {
        type: tenant,
        description: `Lets the people and programs of a suspended tenant in again. ${WHO}`,
        args: { id, reason },
        resolve: (_source, args: TenantArguments, context: ApiContext) =>
          order(context, args.reason, () => ({ action: 'resume', tenant: idOf(args.id) })),
      },
      setTenantPlan: {
        type: tenant,
        description: `Puts a tenant on another plan. ${WHO}`,
        args: { id, plan: { type: required.string, description: 'free, solo, team or enterprise.' }, reason },
        resolve: (_source, args: TenantArguments & { plan: string }, context: ApiContext) =>
          order(context, args.reason, () => ({ action: 'plan', tenant: idOf(args.id), plan: args.plan })),
      },
      setTenantLimit: {
        type: tenant,
        description: `Sets a limit for one tenant, whatever its plan says. ${WHO}`,
        args: {
          id,
          quota: { type: required.string, description: 'What is limited: a name of tenantPlan.' },
          limit: {
            type: required.string,
            description: 'A whole number from 0 on; none: no limit; plan: that of the plan again.',
          },
          reason,
        },
        resolve: (_source, args: TenantArguments & { quota: string; limit: string }, context: ApiContext) =>
          order(context, args.reason, () => ({
            action: 'limit',
            tenant: idOf(args.id),
            setting: `${args.quota}=${args.limit}`,
          })),
      },
    },
  };
}

/** @throws CodedError FORBIDDEN to whoever is of a tenant that is not the operator's */
function requireOperator({ principal }: ApiContext): void {
  if (principal.tenantId !== DEFAULT_TENANT_ID)
    throw apiError('FORBIDDEN', 'This is for Admins of the default tenant, who run this installation.');
}

/** @throws CodedError NOT_FOUND for what is no id, as for one that nobody has */
function idOf(word: string): TenantId {
  return isUuid(word) ? tenantId(word) : noTenant();
}

function noTenant(): never {
  throw apiError('NOT_FOUND', 'There is no tenant of this id.');
}

/** @throws CodedError VALIDATION_ERROR */
function idIn(cursor: string): string {
  const [after, ...rest] = decodeCursor(ORDER, cursor);
  if (typeof after === 'string' && isUuid(after) && rest.length === 0) return after;
  throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
}
