/** What decides a message's thread. */
export interface ThreadMember {
  readonly messageId: string;
  /** The message it replies to, present or not. */
  readonly inReplyTo: string | null;
  /** The first of its References: by RFC 5322 §3.6.4 the root of its thread. */
  readonly firstReference: string | null;
}

/**
 * The thread key of each member. A message whose parent is present has its parent's key; a root has the first of its
 * references, else the parent that it misses, else its own id, so that siblings whose parent was never kept meet.
 * A loop of replies (forged or broken mail) is cut at its smallest message id. The answer depends on the set alone, never
 * on the order in which it came.
 * @param settled the keys of parents that are present but no members
 */
export function threadKeys(
  members: readonly ThreadMember[],
  settled: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  const byId = new Map(members.map((member) => [member.messageId, member]));
  const keys = new Map<string, string>();
  for (const member of members) {
    const path: ThreadMember[] = [];
    const onPath = new Set<string>();
    let current = member;
    let key: string | undefined;
    while (key === undefined) {
      const known = keys.get(current.messageId);
      if (known !== undefined) {
        key = known;
        break;
      }
      path.push(current);
      onPath.add(current.messageId);
      const parentId = current.inReplyTo === current.messageId ? null : current.inReplyTo;
      const parent = parentId === null ? undefined : byId.get(parentId);
      if (parent && onPath.has(parent.messageId)) {
        const loop = path.slice(path.indexOf(parent)).map((one) => one.messageId);
        key = loop.reduce((least, one) => (one < least ? one : least));
      } else if (parent) {
        current = parent;
      } else {
        key = (parentId !== null ? settled.get(parentId) : undefined) ?? rootKey(current, parentId);
      }
    }
    for (const one of path) keys.set(one.messageId, key);
  }
  return keys;
}

function rootKey(root: ThreadMember, parentId: string | null): string {
  return root.firstReference ?? parentId ?? root.messageId;
}
