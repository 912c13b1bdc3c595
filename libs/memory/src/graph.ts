import type { TenantId } from '@atomo-cc/kernel';
import { edgeId, nodeId, type EdgeType, type NodeType } from './ids.js';
import { recipientsOf, type SourceMessage } from './message.js';

/** Longest name of a node: a subject's readable part, and within what a Postgres index row holds (2,704 bytes). */
export const MAX_NODE_NAME_CHARS = 200;

/** A node to be written. */
export interface NodeDraft {
  readonly id: string;
  readonly type: NodeType;
  readonly key: string;
  readonly name: string;
  /** Of two names the one with the greater rank wins, whichever came first; empty never replaces a name. */
  readonly nameRank: string;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** An edge to be written. */
export interface EdgeDraft {
  readonly id: string;
  readonly type: EdgeType;
  readonly sourceId: string;
  readonly targetId: string;
  /** When it held in the world: the message's own time. */
  readonly validAt: Date;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** Nodes and edges with the records that say so, each once. */
export class GraphDraft {
  readonly nodes = new Map<string, NodeDraft>();
  readonly edges = new Map<string, EdgeDraft>();
  /** Pairs of edge and record. */
  readonly evidence = new Map<string, { readonly edgeId: string; readonly recordId: string }>();

  constructor(private readonly tenant: TenantId) {}

  /** Adds a node, or gives it the better of two names; answers its id. */
  node(type: NodeType, key: string, name: string, nameRank: string, properties: NodeDraft['properties'] = {}): string {
    const id = nodeId(this.tenant, type, key);
    const draft = { id, type, key, name: cutName(name), nameRank, properties };
    const known = this.nodes.get(id);
    if (!known) this.nodes.set(id, draft);
    else if (nameRank > known.nameRank)
      this.nodes.set(id, { ...draft, properties: { ...known.properties, ...properties } });
    else this.nodes.set(id, { ...known, properties: { ...properties, ...known.properties } });
    return id;
  }

  /** Adds an edge and the record that says so; of several times the earliest holds. */
  edge(
    type: EdgeType,
    sourceId: string,
    targetId: string,
    validAt: Date,
    recordId: string,
    properties: EdgeDraft['properties'] = {},
  ): void {
    const id = edgeId(this.tenant, type, sourceId, targetId);
    const known = this.edges.get(id);
    if (!known || validAt < known.validAt) this.edges.set(id, { id, type, sourceId, targetId, validAt, properties });
    this.evidence.set(`${id}${recordId}`, { edgeId: id, recordId });
  }
}

/**
 * Draws what one message says by itself: the message, its sender and recipients with their addresses, and the edges
 * between them. Threads and replies need the other messages; ingest.ts adds them.
 * @param lists addresses of mailing lists: they get an address but no person
 */
export function drawMessage(
  draft: GraphDraft,
  message: SourceMessage,
  recordId: string,
  lists: ReadonlySet<string>,
): void {
  const at = message.sentAt;
  const rank = `${at.toISOString()} ${recordId}`;
  const messageNode = draft.node('message', message.messageId, message.subject, rank, { sentAt: at.toISOString() });

  /** Draws the address and, unless it is a list, its person. How people call themselves beats how others call them. */
  const draw = (address: string, name: string | null, isSender: boolean) => {
    const isList = lists.has(address);
    const addressNode = draft.node('address', address, address, '', isList ? { list: true } : {});
    if (isList) return { addressNode, person: null };
    const nameRank = name === null ? '' : `${isSender ? 'own' : 'given'} ${rank}`;
    const person = draft.node('person', address, name ?? address, nameRank);
    draft.edge('uses', person, addressNode, at, recordId);
    return { addressNode, person };
  };

  const { person: sender } = draw(message.from.address, message.from.name, true);
  if (sender) draft.edge('sent', sender, messageNode, at, recordId);
  for (const { address, name, role } of recipientsOf(message)) {
    const { addressNode } = draw(address, name, false);
    draft.edge('addressed', messageNode, addressNode, at, recordId, { as: lists.has(address) ? 'list' : role });
  }
}

function cutName(name: string): string {
  // Cutting by code points: half a surrogate pair cannot be stored.
  return name.length <= MAX_NODE_NAME_CHARS ? name : [...name].slice(0, MAX_NODE_NAME_CHARS).join('');
}
