import { uuidv5, type TenantId } from '@atomo-cc/kernel';

/** The kinds of things the graph knows. */
export const NODE_TYPES = ['message', 'person', 'address', 'thread'] as const;
/** A kind of node. */
export type NodeType = (typeof NODE_TYPES)[number];

/** The kinds of relations: who sent, which address a person uses, whom a message addressed, what it replied to, its thread. */
export const EDGE_TYPES = ['sent', 'uses', 'addressed', 'replied_to', 'in_thread'] as const;
/** A kind of edge. */
export type EdgeType = (typeof EDGE_TYPES)[number];

// Every id follows from what the thing is, so a repeated or concurrent import meets its own rows. A line feed separates
// the parts because no header, and so no id or address, can hold one.

/** The id of the record of a source's message. */
export function recordId(tenant: TenantId, source: string, messageId: string): string {
  return uuidv5(tenant, `record\n${source}\n${messageId}`);
}

/** The id of a node: one per tenant, type and key (a message's id, an address in lower case, a thread's key). */
export function nodeId(tenant: TenantId, type: NodeType, key: string): string {
  return uuidv5(tenant, `node\n${type}\n${key}`);
}

/** The id of an edge: one per type between two nodes. */
export function edgeId(tenant: TenantId, type: EdgeType, source: string, target: string): string {
  return uuidv5(tenant, `edge\n${type}\n${source}\n${target}`);
}
