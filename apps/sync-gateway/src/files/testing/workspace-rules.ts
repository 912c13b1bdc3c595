import { isCodedError, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { StoreOp, StoreRules, Verdict } from '@atomo-cc/sdk-sync/testing';
import { type ContentHash, digestOf, type PathKey, type SyncPath } from '@atomo-cc/sync-protocol';
import { expectedBase } from '../preconditions.js';
import { type Author, type FileNow, type Intent, Workspace } from '../workspace.js';
import type { Logged } from '../../log/index.js';

const AUTHOR: Author = { keyId: uuidv7(), device: null, opId: uuidv7(), canRead: true };
const ROOM = 2 ** 40;

/** The gateway's own decisions, with memory in the place of Postgres. */
export class WorkspaceRules implements StoreRules {
  #digest = 0n;

  constructor(private readonly files = new Map<PathKey, FileNow>()) {}

  copy(): WorkspaceRules {
    const copy = new WorkspaceRules(new Map(this.files));
    copy.#digest = this.#digest;
    return copy;
  }

  /** What the gateway would say of its live files; it adds this up change by change. */
  get digest(): string {
    return digestOf([this.#digest]);
  }

  decide(op: StoreOp, head: number): Verdict {
    const at = new Date();
    const workspace = new Workspace('t' as TenantId, 's', head, at, ROOM, new Map(this.files));
    try {
      const { changes, file } = workspace.decide(AUTHOR, intentOf(op));
      // What is written is what is dirty, and the changes.
      for (const key of workspace.dirty) this.files.set(key, workspace.files.get(key)!);
      this.#digest ^= workspace.grown.digest;
      return { changes: changes.map(told), fileId: file?.id ?? changes[0]?.fileId };
    } catch (error) {
      if (!isCodedError(error)) throw error;
      return { fault: { code: error.code, message: error.message } };
    }
  }
}

function intentOf(op: StoreOp): Intent {
  const [path, newPath] = [op.path as SyncPath, op.newPath as SyncPath];
  const expected = expectedBase(op.baseHash as ContentHash | null | undefined);
  switch (op.op) {
    case 'put': {
      const content = { hash: op.hash as ContentHash, size: op.size!, carried: null, bytes: null, store: null };
      return { kind: 'put', path, content, existing: 'overwrite', expected };
    }
    case 'delete':
      return { kind: 'delete', path, expected };
    case 'rename':
      return { kind: 'rename', from: path, to: newPath, expected };
    case 'delete-folder':
      return { kind: 'delete-folder', folder: path };
    case 'rename-folder':
      return { kind: 'rename-folder', from: path, to: newPath };
  }
}

function told({ op, path, oldPath, fileId, hash, size, seq }: Logged) {
  if (op === 'delete') return { op, path, seq };
  const file = { path, fileId, hash: hash!, size, seq };
  return op === 'rename' ? { op, oldPath: oldPath!, ...file } : { op: 'put' as const, ...file };
}
