import { type Broadcast, type Change, SERVER_EVENTS } from '@atomo-cc/sync-protocol';
import { carriedString, carry } from '../contents/index.js';
import { kindOf, type Logged } from '../log/index.js';

/**
 * What protocol 1 hears of a change, as `view` shows it to a key; null when it cannot carry the file.
 * @param bytes of the file after the change; not needed for a deletion
 */
export function broadcastOf(view: Change, change: Logged, bytes: Buffer): Broadcast | null {
  const { seq, path, at } = view;
  if (view.op === 'delete') return { event: SERVER_EVENTS.deleted, payload: { path, deletedAt: at, seq } };
  if (change.as === null) return null;
  const content = carry(bytes, change.as);
  const carried = change.as === 'text' ? { hash: view.hash!, size: view.size } : carriedString(content, change.as);
  const state = { content, hash: carried.hash, size: carried.size, ...kindOf(path, change.as), seq };
  if (view.op === 'rename') {
    return {
      event: SERVER_EVENTS.renamed,
      payload: { ...state, oldPath: view.oldPath!, newPath: path, updatedAt: at },
    };
  }
  return change.op === 'modify'
    ? { event: SERVER_EVENTS.modified, payload: { ...state, path, updatedAt: at } }
    : { event: SERVER_EVENTS.created, payload: { ...state, path, createdAt: at } };
}
