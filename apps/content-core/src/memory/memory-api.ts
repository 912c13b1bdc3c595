import {
  GraphQLEnumType,
  GraphQLFloat,
  GraphQLID,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  type GraphQLOutputType,
} from 'graphql';
import { isUuid } from '@atomo-cc/kernel';
import {
  graphNode,
  graphNodes,
  MAX_GRAPH_PAGE,
  NODE_TYPES,
  SEARCH_MODES,
  searchMemory,
  type Embedder,
  type GraphPage,
  type MemoryHit,
  type NodeType,
  type SearchMode,
  type SemanticStore,
} from '@atomo-cc/memory';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { DEFAULT_PAGE, PageInfo, pageSize } from '../api/index.js';
import type { ApiContext, ApiPart } from '../api/index.js';
import { DateTimeScalar, JsonScalar } from '../api/index.js';

/** What memory is read from. */
export interface MemoryReader {
  readonly database: AppDatabase;
  readonly store: SemanticStore;
  readonly embedder: Embedder;
}

const some = <Type extends GraphQLOutputType>(type: Type) => ({ type: new GraphQLNonNull(type) });
const listOf = (type: GraphQLOutputType) => some(new GraphQLList(new GraphQLNonNull(type)));

const Person = new GraphQLObjectType({
  name: 'MemoryPerson',
  fields: {
    id: some(GraphQLID),
    name: some(GraphQLString),
    address: some(GraphQLString),
    role: { ...some(GraphQLString), description: 'from, to or cc.' },
  },
});

const MemoryRecord = new GraphQLObjectType({
  name: 'MemoryRecord',
  description: 'A message in memory.',
  fields: {
    id: some(GraphQLID),
    subject: some(GraphQLString),
    sentAt: some(DateTimeScalar),
    threadId: some(GraphQLID),
    threadSubject: { ...some(GraphQLString), description: 'The subject of the message that began the thread.' },
    source: some(GraphQLString),
    messageId: some(GraphQLString),
  },
});

const Match = new GraphQLObjectType({
  name: 'MemoryMatch',
  description: 'Which search found the record, and at which place.',
  fields: { retriever: some(GraphQLString), rank: some(GraphQLInt) },
});

const Hit = new GraphQLObjectType<MemoryHit>({
  name: 'MemoryHit',
  fields: {
    score: {
      ...some(GraphQLFloat),
      description: 'Compares hits of one answer only: 1 is what every search put first.',
    },
    snippet: { ...some(GraphQLString), description: 'The passage that holds most of the words asked for.' },
    record: some(MemoryRecord),
    people: listOf(Person),
    matched: listOf(Match),
  },
});

const Answer = new GraphQLObjectType({
  name: 'MemorySearchResult',
  fields: {
    hits: listOf(Hit),
    embedder: {
      ...some(GraphQLString),
      description: 'What made the vectors; local-… needs no key, and knows words but no meanings.',
    },
  },
});

const Node = new GraphQLObjectType({
  name: 'GraphNode',
  description: 'A message, a thread, a person or an address.',
  fields: {
    id: some(GraphQLID),
    type: some(GraphQLString),
    key: { ...some(GraphQLString), description: 'What identifies it among its type, such as the address.' },
    name: some(GraphQLString),
    properties: some(JsonScalar),
  },
});

const Edge = new GraphQLObjectType({
  name: 'GraphEdge',
  fields: {
    id: some(GraphQLID),
    type: { ...some(GraphQLString), description: 'sent, addressed, replied_to, in_thread or uses.' },
    direction: { ...some(GraphQLString), description: 'out when the node that was asked for is its source.' },
    node: some(Node),
    validAt: { ...some(DateTimeScalar), description: 'When it became true: the time of the message.' },
    invalidAt: { type: DateTimeScalar },
    recordedAt: some(DateTimeScalar),
    properties: some(JsonScalar),
  },
});

const NodePage = new GraphQLObjectType({
  name: 'GraphNodeConnection',
  fields: { nodes: listOf(Node), pageInfo: some(PageInfo) },
});
const EdgePage = new GraphQLObjectType({
  name: 'GraphEdgeConnection',
  fields: { nodes: listOf(Edge), pageInfo: some(PageInfo) },
});
const NodeWithEdges = new GraphQLObjectType({
  name: 'GraphNodeWithEdges',
  fields: { node: some(Node), edges: some(EdgePage) },
});

const SearchInputType = new GraphQLInputObjectType({
  name: 'MemorySearchInput',
  fields: {
    query: { type: new GraphQLNonNull(GraphQLString) },
    mode: {
      type: new GraphQLEnumType({
        name: 'MemorySearchMode',
        values: Object.fromEntries(SEARCH_MODES.map((mode) => [mode, {}])),
      }),
      defaultValue: 'HYBRID',
    },
    limit: { type: GraphQLInt, defaultValue: 10 },
  },
});

const paging = { first: { type: GraphQLInt }, after: { type: GraphQLString } };

/** The API of memory: search, and a look at the graph. */
export function memoryApi({ database, store, embedder }: MemoryReader): ApiPart {
  return {
    query: {
      memorySearch: {
        type: new GraphQLNonNull(Answer),
        description: "Searches the team's messages by words, by likeness, or by both and the graph.",
        args: { input: { type: new GraphQLNonNull(SearchInputType) } },
        resolve: async (
          _source,
          { input }: { input: { query: string; mode: SearchMode; limit: number } },
          { principal }: ApiContext,
        ) => ({
          hits: await searchMemory(database, store, embedder, { tenant: principal.tenantId, ...input }),
          embedder: embedder.name,
        }),
      },
      graphNodes: {
        type: new GraphQLNonNull(NodePage),
        args: {
          type: {
            type: new GraphQLEnumType({
              name: 'GraphNodeType',
              values: Object.fromEntries(NODE_TYPES.map((type) => [type, {}])),
            }),
          },
          query: { type: GraphQLString, description: 'Part of the name or key.' },
          ...paging,
        },
        resolve: (
          _source,
          args: { type?: NodeType | null; query?: string | null; first?: number | null; after?: string | null },
          { principal }: ApiContext,
        ) =>
          database.transaction(principal.tenantId, async (tx) =>
            pageOf(
              await graphNodes(tx, { ...given({ type: args.type, query: args.query }), ...page(args) }),
              args.after,
            ),
          ),
      },
      graphNode: {
        type: NodeWithEdges,
        args: { id: { type: new GraphQLNonNull(GraphQLID) }, ...paging },
        resolve: async (
          _source,
          args: { id: string; first?: number | null; after?: string | null },
          { principal }: ApiContext,
        ) => {
          if (!isUuid(args.id)) return null;
          const found = await database.transaction(principal.tenantId, (tx) => graphNode(tx, args.id, page(args)));
          return found && { node: found.node, edges: pageOf(found.edges, args.after) };
        },
      },
    },
  };
}

/** What was really given, because an absent option and one that is undefined are two things to the callee. */
function given<Given extends object>(options: Given): { [Name in keyof Given]?: NonNullable<Given[Name]> } {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== null && value !== undefined),
  ) as never;
}

function page(args: { first?: number | null; after?: string | null }): { first: number; after?: string } {
  return { first: pageSize(args.first ?? DEFAULT_PAGE, MAX_GRAPH_PAGE), ...given({ after: args.after }) };
}

function pageOf(found: GraphPage<unknown>, after: string | null | undefined) {
  return {
    nodes: found.items,
    pageInfo: {
      hasNextPage: found.hasNextPage,
      hasPreviousPage: Boolean(after),
      startCursor: null,
      endCursor: found.endCursor,
    },
  };
}
