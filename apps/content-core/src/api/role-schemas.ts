import {
  GraphQLError,
  GraphQLID,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLSchema,
  GraphQLString,
  Kind,
  type DocumentNode,
  type GraphQLFieldConfigMap,
} from 'graphql';
import { mayUse, type Principal } from '@atomo-cc/access';
import { fillInDocs } from './field-docs.js';
import type { ApiContext, ApiPart, RolePart } from './part.js';
import { JsonScalar } from './scalars.js';

/**
 * The API of each role: a GraphQL schema that has what the role may use, and nothing else. What is not in it cannot be asked for,
 * is not described by introspection, and is not suggested by the answer to a faulty document. Built when a role first asks.
 */
export class RoleSchemas {
  private readonly built = new Map<string, GraphQLSchema>();

  /**
   * @param parts of all features. What a part is a function for is decided by the part; of the others `mayUse` says who may.
   * @param roles that are declared; all others have one schema together, so that names from outside cannot fill the memory
   */
  constructor(
    private readonly parts: readonly (ApiPart | RolePart)[],
    private readonly roles: readonly string[],
  ) {}

  /** The schema of a role. */
  of(role: string): GraphQLSchema {
    const name = this.roles.includes(role) ? role : '';
    let schema = this.built.get(name);
    if (!schema) this.built.set(name, (schema = this.build(name)));
    return schema;
  }

  private build(role: string): GraphQLSchema {
    const parts = [ME, ...this.parts].map((part) => (typeof part === 'function' ? part(role) : usableBy(role, part)));
    const type = (kind: 'query' | 'mutation' | 'subscription', name: string) => {
      const fields = Object.assign({}, ...parts.map((part) => part[kind] ?? {}));
      // A type without fields makes the whole schema invalid.
      return Object.keys(fields).length === 0 ? null : new GraphQLObjectType({ name, fields });
    };
    const schema = new GraphQLSchema({
      query: type('query', 'Query'),
      mutation: type('mutation', 'Mutation'),
      subscription: type('subscription', 'Subscription'),
      types: [JsonScalar],
      extensions: { forbidden: new Set(parts.flatMap(({ forbidden }) => forbidden ?? [])) },
    });
    return fillInDocs(schema);
  }
}

function usableBy(role: string, { query, mutation, subscription }: ApiPart): ApiPart {
  const usable = (fields: GraphQLFieldConfigMap<unknown, ApiContext> = {}) =>
    Object.fromEntries(Object.entries(fields).filter(([name]) => mayUse(role, name)));
  const names = Object.keys({ ...query, ...mutation, ...subscription });
  // What the platform offers is in its documentation, and no secret.
  const forbidden = names.filter((name) => !mayUse(role, name));
  return { query: usable(query), mutation: usable(mutation), subscription: usable(subscription), forbidden };
}

/** What a document asks for that the schema of a role lacks as a whole: an operation that the role may know of, or all of a kind. */
export function lackingIn(schema: GraphQLSchema, document: DocumentNode): GraphQLError | null {
  const forbidden = schema.extensions['forbidden'] as ReadonlySet<string>;
  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue;
    for (const node of definition.selectionSet.selections) {
      if (node.kind !== Kind.FIELD || !forbidden.has(node.name.value)) continue;
      const extensions = { code: 'FORBIDDEN' };
      return new GraphQLError(`You may not use ${node.name.value}.`, { nodes: [node], extensions });
    }
    // Validation lets it pass, and whoever executes it fails.
    if (!schema.getRootType(definition.operation))
      return new GraphQLError(`There is no ${definition.operation} that you may use.`, { nodes: [definition] });
  }
  return null;
}

const Me = new GraphQLObjectType<Principal>({
  name: 'Me',
  description: 'Who is asking.',
  fields: {
    id: {
      type: GraphQLID,
      description: 'Of your user; null of a token of a machine.',
      resolve: ({ userId }) => userId,
    },
    role: { type: new GraphQLNonNull(GraphQLString), description: 'What you may do follows from it.' },
  },
});

const ME: ApiPart = {
  query: {
    me: {
      type: new GraphQLNonNull(Me),
      description: 'You, as your access token says.',
      resolve: (_source, _args, { principal }) => principal,
    },
  },
};
