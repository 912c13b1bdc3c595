import { GraphQLBoolean, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLString } from 'graphql';
import { apiError } from '@atomo-cc/kernel';

/** How many are on a page when the caller does not say, and at most: an answer stays below a megabyte or so. */
export const DEFAULT_PAGE = 20;
/** The most a page may have. */
export const MAX_PAGE = 100;

/** The Relay connection's page facts. */
export const PageInfo = new GraphQLObjectType({
  name: 'PageInfo',
  description: 'Where a page lies in its list.',
  fields: {
    hasNextPage: { type: new GraphQLNonNull(GraphQLBoolean) },
    hasPreviousPage: { type: new GraphQLNonNull(GraphQLBoolean) },
    startCursor: { type: GraphQLString },
    endCursor: { type: GraphQLString },
  },
});

/** The types of a Relay connection, `<name>Connection` and `<name>Edge`: what `connectionOf` answers. */
export function connectionType(name: string, node: GraphQLObjectType, description?: string): GraphQLObjectType {
  const edge = new GraphQLObjectType({
    name: `${name}Edge`,
    fields: { node: { type: new GraphQLNonNull(node) }, cursor: { type: new GraphQLNonNull(GraphQLString) } },
  });
  const listOf = (type: GraphQLObjectType) => new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(type)));
  return new GraphQLObjectType({
    name: `${name}Connection`,
    description,
    fields: {
      nodes: { type: listOf(node) },
      edges: { type: listOf(edge) },
      pageInfo: { type: new GraphQLNonNull(PageInfo) },
    },
  });
}

/**
 * The page size that was asked for.
 * @param name of the argument that it was asked for with
 * @throws CodedError VALIDATION_ERROR
 */
export function pageSize(
  asked: number | null | undefined,
  max: number = MAX_PAGE,
  name: 'first' | 'last' = 'first',
): number {
  const size = asked ?? Math.min(DEFAULT_PAGE, max);
  if (size < 1 || size > max) throw apiError('VALIDATION_ERROR', `${name} is ${size}; it must be from 1 to ${max}.`);
  return size;
}

/** An opaque cursor for a list's key values. `order` ties it to the order it was made for. */
export function encodeCursor(order: string, key: readonly unknown[]): string {
  return Buffer.from(JSON.stringify([order, ...key])).toString('base64url');
}

/** The key values of a cursor. @throws CodedError VALIDATION_ERROR when it is not one of ours, or of another order */
export function decodeCursor(order: string, cursor: string): unknown[] {
  let parts: unknown;
  try {
    parts = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
  } catch {
    parts = null;
  }
  if (!Array.isArray(parts))
    throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
  const [of, ...key] = parts as unknown[];
  if (of !== order)
    throw apiError('VALIDATION_ERROR', 'The cursor belongs to another order or list. Start again without it.');
  return key;
}

/** What a connection answers for rows that were read one beyond the page's size. */
export function connectionOf<Node>(
  rows: readonly Node[],
  size: number,
  cursorOf: (node: Node) => string,
  isFirstPage: boolean,
) {
  const nodes = rows.slice(0, size);
  const edges = nodes.map((node) => ({ node, cursor: cursorOf(node) }));
  return {
    nodes,
    edges,
    pageInfo: {
      hasNextPage: rows.length > size,
      hasPreviousPage: !isFirstPage,
      startCursor: edges[0]?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  };
}
