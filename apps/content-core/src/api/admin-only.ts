import type { GraphQLFieldConfigMap } from 'graphql';
import { ADMIN_ROLE } from '@atomo-cc/access';
import { apiError } from '@atomo-cc/kernel';
import type { ApiContext, ApiPart } from './part.js';

type Fields = GraphQLFieldConfigMap<unknown, ApiContext>;

/** Fields that nobody but an Admin may use: to all others each answers FORBIDDEN, whatever its arguments. */
export function adminOnly({ query, mutation }: Pick<ApiPart, 'query' | 'mutation'>): ApiPart {
  return { ...(query && { query: guarded(query) }), ...(mutation && { mutation: guarded(mutation) }) };
}

function guarded(fields: Fields): Fields {
  const entries = Object.entries(fields).map(([name, field]) => {
    const resolve: typeof field.resolve = (source, args, context, info) => {
      if (context.principal.role !== ADMIN_ROLE) throw apiError('FORBIDDEN', `Only an ${ADMIN_ROLE} may use ${name}.`);
      return field.resolve!(source, args, context, info);
    };
    return [name, { ...field, resolve }] as const;
  });
  return Object.fromEntries(entries);
}
