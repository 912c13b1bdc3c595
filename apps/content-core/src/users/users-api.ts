import {
  GraphQLBoolean,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
} from 'graphql';
import { type Accounts, type By, requirePerson, type User } from '@atomo-cc/access';
import { apiError, isUuid, type TenantId, type UserId } from '@atomo-cc/kernel';
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
const ORDER = 'users';

const UserType = new GraphQLObjectType<User>({
  name: 'User',
  description: 'A person who may log in.',
  fields: {
    id: { type: required.id },
    email: { type: required.string, description: 'The login, in lower case.' },
    name: { type: required.string },
    role: { type: required.string, description: 'Admin, or a role that the schema declares.' },
    createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
    disabledAt: { type: DateTimeScalar, description: 'Since when they may not log in; null for who may.' },
  },
});

const UserConnection = connectionType('User', UserType);

const CreateUserInput = new GraphQLInputObjectType({
  name: 'CreateUserInput',
  fields: {
    email: { type: required.string, description: 'An address has one user only, whatever the tenant.' },
    role: { type: required.string, description: 'Admin, or a role that the schema declares.' },
    name: { type: GraphQLString, description: 'The part of the address before the @ unless given.' },
    password: { type: required.string, description: 'From 8 characters on.' },
  },
});

const UpdateUserInput = new GraphQLInputObjectType({
  name: 'UpdateUserInput',
  description: 'What is left out, or null, stays.',
  fields: {
    role: { type: GraphQLString },
    name: { type: GraphQLString },
    disabled: { type: GraphQLBoolean, description: 'true keeps them from logging in and ends their sessions.' },
  },
});

const reason = { type: GraphQLString, description: 'Why, for the audit log.' };

/** The person who changes users. A token may not: who steals one must not be able to make a login and stay. @throws CodedError FORBIDDEN */
function personOf(context: ApiContext, why: string | null | undefined): By {
  requirePerson(context.principal);
  return byOf(context, why);
}

/**
 * The fields by which an Admin manages the users of the own tenant. A changed role, and the end of sessions, holds within 5 s
 * everywhere, for open sockets and subscriptions too.
 * @param onAppended told after each change
 */
export function usersApi(accounts: Accounts, onAppended: (tenant: TenantId) => void): ApiPart {
  const changed = async (context: ApiContext, work: Promise<User>): Promise<User> => {
    const user = await work;
    onAppended(context.principal.tenantId);
    return user;
  };
  const user = new GraphQLNonNull(UserType);
  return {
    query: {
      users: {
        type: new GraphQLNonNull(UserConnection),
        description: 'The users of your tenant, by their addresses. For an Admin.',
        args: {
          first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
          after: { type: GraphQLString, description: 'The endCursor of the page before.' },
        },
        resolve: async (_source, args: { first?: number | null; after?: string | null }, { principal }: ApiContext) => {
          const size = pageSize(args.first);
          const after = args.after ? emailIn(args.after) : null;
          const users = await accounts.list(principal.tenantId, { after, limit: size + 1 });
          return connectionOf(users, size, ({ email }) => encodeCursor(ORDER, [email]), after === null);
        },
      },
    },
    mutation: {
      createUser: {
        type: user,
        description: 'Makes a user of your tenant. For an Admin who has logged in.',
        args: { input: { type: new GraphQLNonNull(CreateUserInput) }, reason },
        resolve: (_source, { input, reason: why }: CreateArguments, context: ApiContext) => {
          const account = { ...input, name: input.name ?? undefined };
          return changed(context, accounts.create(context.principal.tenantId, account, personOf(context, why)));
        },
      },
      updateUser: {
        type: user,
        description:
          'Gives a user another role or name, or shuts them out. The last Admin stays one. For an Admin who has logged in.',
        args: { id: { type: required.id }, input: { type: new GraphQLNonNull(UpdateUserInput) }, reason },
        resolve: (_source, { id, input, reason: why }: UpdateArguments, context: ApiContext) => {
          const { role, name, disabled } = input;
          const change = { role: role ?? undefined, name: name ?? undefined, disabled: disabled ?? undefined };
          const { tenantId } = context.principal;
          return changed(context, accounts.update(tenantId, userIdOf(id), change, personOf(context, why)));
        },
      },
      deleteUser: {
        type: user,
        description:
          'Removes a user and ends their sessions. What they did stays in the log. For an Admin who has logged in.',
        args: { id: { type: required.id }, reason },
        resolve: (_source, { id, reason: why }: UserArguments, context: ApiContext) =>
          changed(context, accounts.delete(context.principal.tenantId, userIdOf(id), personOf(context, why))),
      },
      resetPassword: {
        type: user,
        description: 'Gives a user another password and ends their sessions. For an Admin who has logged in.',
        args: { id: { type: required.id }, password: { type: required.string }, reason },
        resolve: (
          _source,
          { id, password, reason: why }: UserArguments & { password: string },
          context: ApiContext,
        ) => {
          const { tenantId } = context.principal;
          return changed(context, accounts.update(tenantId, userIdOf(id), { password }, personOf(context, why)));
        },
      },
    },
  };
}

interface UserArguments {
  readonly id: string;
  readonly reason?: string | null;
}

interface CreateArguments {
  readonly input: {
    readonly email: string;
    readonly role: string;
    readonly name?: string | null;
    readonly password: string;
  };
  readonly reason?: string | null;
}

interface UpdateArguments extends UserArguments {
  readonly input: { readonly role?: string | null; readonly name?: string | null; readonly disabled?: boolean | null };
}

/** @throws CodedError NOT_FOUND for what is no id, as for one that nobody has */
function userIdOf(id: string): UserId {
  if (isUuid(id)) return id as UserId;
  throw apiError('NOT_FOUND', 'There is no user of this id.');
}

/** @throws CodedError VALIDATION_ERROR */
function emailIn(cursor: string): string {
  const [email, ...rest] = decodeCursor(ORDER, cursor);
  if (typeof email === 'string' && rest.length === 0 && !email.includes('\0')) return email;
  throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
}
