import { apiError, isUuid } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { NODE_TYPES, type EdgeType, type NodeType } from './ids.js';

/** Most nodes or edges of one page. */
export const MAX_GRAPH_PAGE = 100;
/** Longest text that names are searched for. */
const MAX_NAME_QUERY_CHARS = 200;

/** A node as the API shows it. */
export interface GraphNode {
  readonly id: string;
  readonly type: NodeType;
  /** What identifies it among its type: a message's id, an address, a thread's root. */
  readonly key: string;
  readonly name: string;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** An edge, seen from one of its nodes. */
export interface GraphEdge {
  readonly id: string;
  readonly type: EdgeType;
  /** `out` when the node that was asked for is its source. */
  readonly direction: 'out' | 'in';
  /** The node at its other end. */
  readonly node: GraphNode;
  readonly validAt: Date;
  readonly invalidAt: Date | null;
  readonly recordedAt: Date;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** A page; `endCursor` continues it as `after`, and is null on an empty page. */
export interface GraphPage<Item> {
  readonly items: readonly Item[];
  readonly endCursor: string | null;
  readonly hasNextPage: boolean;
}

/** Which nodes: of a type, with a text in name or key. */
export interface GraphNodesInput {
  readonly type?: NodeType;
  readonly query?: string;
  /** 1 to {@link MAX_GRAPH_PAGE}. */
  readonly first: number;
  readonly after?: string;
}

/**
 * The transaction's tenant's nodes, by name. A query reads the tenant's nodes one after the other until the page is full.
 * @throws CodedError VALIDATION_ERROR
 */
export async function graphNodes(
  tx: Tx,
  { type, query, first, after }: GraphNodesInput,
): Promise<GraphPage<GraphNode>> {
  checkFirst(first);
  if (type !== undefined && !NODE_TYPES.includes(type)) {
    throw apiError('VALIDATION_ERROR', `type must be one of ${NODE_TYPES.join(', ')}.`, { field: 'type' });
  }
  if (query !== undefined && query.length > MAX_NAME_QUERY_CHARS) {
    throw apiError('VALIDATION_ERROR', `query takes at most ${MAX_NAME_QUERY_CHARS} characters.`, { field: 'query' });
  }
  const text = storable(query ?? '').trim();
  const [name, id] = after === undefined ? [null, null] : readCursor(after);
  const rows = await tx.query<GraphNode>(
    `select id, type, key, name, properties from graph_nodes
     where tenant_id = current_setting('app.tenant_id')::uuid
       ${type === undefined ? '' : 'and type = $5'}
       and ($1::text is null or (name, id) > ($1::text collate "C", $2::uuid))
       and ($3 = '' or name ilike $3 or key ilike $3)
     order by name, id limit $4`,
    [
      name,
      id,
      text === '' ? '' : `%${text.replaceAll(/[\\%_]/g, String.raw`\$&`)}%`,
      first + 1,
      ...(type === undefined ? [] : [type]),
    ],
  );
  return page(rows, first, (node) => [node.name, node.id]);
}

/**
 * One node with a page of its living edges, newest first; null when the transaction's tenant has no such node.
 * @throws CodedError VALIDATION_ERROR
 */
export async function graphNode(
  tx: Tx,
  id: string,
  edges: { first: number; after?: string } = { first: 50 },
): Promise<{ node: GraphNode; edges: GraphPage<GraphEdge> } | null> {
  checkFirst(edges.first);
  if (!isUuid(id)) throw apiError('VALIDATION_ERROR', 'id must be the UUID of a node.', { field: 'id' });
  const [node] = await tx.query<GraphNode>(
    `select id, type, key, name, properties from graph_nodes where tenant_id = current_setting('app.tenant_id')::uuid and id = $1`,
    [id],
  );
  if (!node) return null;
  const [at, edge] = edges.after === undefined ? [null, null] : readCursor(edges.after);
  // Postgres refuses what is no time with an error of its own, so it is looked at first.
  if (at !== null && (!/^\d{4}(?:-\d\d){2}T(?:\d\d:){2}\d\d\.\d{6}Z$/.test(at) || Number.isNaN(Date.parse(at))))
    throw brokenCursor();
  // Each side is cut before they are joined, so a person with 100,000 messages costs two short index scans.
  const side = (mine: string, other: string, direction: string) => `(
     select e.id, e.type, '${direction}' as direction, e.valid_at, e.invalid_at, e.recorded_at, e.properties, e.${other} as other_id,
            to_char(e.valid_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as place
     from graph_edges e
     where e.${mine} = $1 and e.expired_at is null and ($2::timestamptz is null or (e.valid_at, e.id) < ($2::timestamptz, $3::uuid))
     order by e.valid_at desc, e.id desc limit $4)`;
  const rows = await tx.query<{
    id: string;
    type: EdgeType;
    direction: 'out' | 'in';
    valid_at: Date;
    invalid_at: Date | null;
    recorded_at: Date;
    properties: Record<string, unknown>;
    place: string;
    node: GraphNode;
  }>(
    `select e.*, json_build_object('id', n.id, 'type', n.type, 'key', n.key, 'name', n.name, 'properties', n.properties) as node
     from (select * from (${side('source_id', 'target_id', 'out')} union all ${side('target_id', 'source_id', 'in')}) both_sides
           order by valid_at desc, id desc limit $4) e
     join graph_nodes n on n.id = e.other_id
     order by e.valid_at desc, e.id desc`,
    [id, at, edge, edges.first + 1],
  );
  const { items, ...rest } = page(rows, edges.first, (row) => [row.place, row.id]);
  return {
    node,
    edges: {
      ...rest,
      items: items.map((row) => ({
        id: row.id,
        type: row.type,
        direction: row.direction,
        node: row.node,
        validAt: row.valid_at,
        invalidAt: row.invalid_at,
        recordedAt: row.recorded_at,
        properties: row.properties,
      })),
    },
  };
}

function page<Item>(rows: readonly Item[], first: number, place: (item: Item) => [string, string]): GraphPage<Item> {
  const items = rows.slice(0, first);
  const last = items.at(-1);
  return {
    items,
    endCursor: last === undefined ? null : Buffer.from(JSON.stringify(place(last))).toString('base64url'),
    hasNextPage: rows.length > first,
  };
}

function checkFirst(first: number): void {
  if (!Number.isInteger(first) || first < 1 || first > MAX_GRAPH_PAGE) {
    throw apiError('VALIDATION_ERROR', `first must be a whole number from 1 to ${MAX_GRAPH_PAGE}.`, { field: 'first' });
  }
}

function readCursor(cursor: string): [string, string] {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (Array.isArray(parsed) && parsed.length === 2 && typeof parsed[0] === 'string' && isUuid(parsed[1])) {
      return [storable(parsed[0]), parsed[1]];
    }
  } catch {
    // falls through to the coded error
  }
  throw brokenCursor();
}

function brokenCursor() {
  return apiError('VALIDATION_ERROR', 'after must be the endCursor of a former page.', { field: 'after' });
}

/** Postgres takes neither NUL nor half a surrogate pair. */
function storable(text: string): string {
  return text.replaceAll('\u0000', '\uFFFD').toWellFormed();
}
