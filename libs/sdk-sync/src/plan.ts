import { pathFault, pathKey, syncPath, type PathKey } from '@atomo-cc/sync-protocol';
import type { AgreedFile, Intent, RemoteFile, Scan } from './ports.js';

/** A file of this device: `path` is the name in the form that is sent, `disk` the name as the file system gives it. */
export interface LocalFile {
  readonly path: string;
  readonly disk: string;
  readonly hash: string;
  readonly size: number;
}

/** A file that is not synced, and why. */
export interface Refused {
  readonly path: string;
  readonly reason: string;
}

/** The files of this device by key, and what nothing may be concluded about. */
export interface LocalTree {
  readonly files: ReadonlyMap<PathKey, LocalFile>;
  readonly refused: readonly Refused[];
  /** True for files that may be there although they were not seen. */
  isBlocked(key: PathKey): boolean;
}

/** What is to be done about one file. `expected` is the hash that must still be on disk; null: nothing may be there. */
export type Action =
  | { readonly do: 'adopt'; readonly key: PathKey; readonly disk: string; readonly remote: RemoteFile }
  | { readonly do: 'forget'; readonly key: PathKey }
  | {
      readonly do: 'download';
      readonly key: PathKey;
      readonly disk: string;
      readonly expected: string | null;
      readonly remote: RemoteFile;
      readonly isRestored: boolean;
    }
  | { readonly do: 'remove'; readonly key: PathKey; readonly disk: string; readonly expected: string }
  | {
      readonly do: 'move';
      readonly key: PathKey;
      readonly toKey: PathKey;
      readonly local: LocalFile;
      readonly remote: RemoteFile;
      readonly base: AgreedFile | null;
    }
  | {
      readonly do: 'merge';
      readonly key: PathKey;
      readonly base: string | null;
      readonly local: LocalFile;
      readonly remote: RemoteFile;
    }
  | {
      readonly do: 'put';
      readonly key: PathKey;
      /** As the store has it, whose folders may be in another case. */
      readonly path: string;
      readonly local: LocalFile;
      readonly baseHash: string | null;
    }
  | { readonly do: 'delete'; readonly key: PathKey; readonly path: string; readonly baseHash: string }
  | {
      readonly do: 'rename';
      readonly key: PathKey;
      readonly toKey: PathKey;
      readonly path: string;
      readonly newPath: string;
      readonly baseHash: string;
      /** What this device holds, for a refusal to be remembered with. */
      readonly hash: string;
    };

/** What a client knows when it decides. */
export interface Knowledge {
  readonly base: ReadonlyMap<PathKey, AgreedFile>;
  readonly remote: ReadonlyMap<PathKey, RemoteFile>;
  readonly intents: ReadonlyMap<PathKey, Intent>;
}

/** The key of a path that came from the server or from a journal. @throws CodedError VALIDATION_ERROR */
export function keyOf(path: string): PathKey {
  return pathKey(syncPath(path));
}

/**
 * Sorts what was found on disk. Of names that differ only in case or Unicode form one is the file, the one that the store
 * knows if it knows one; the others are refused, as is every name that not all devices can store.
 */
export function localTree(scan: Scan, { base, remote }: Pick<Knowledge, 'base' | 'remote'>): LocalTree {
  const files = new Map<PathKey, LocalFile>();
  const refused: Refused[] = [];
  for (const { disk, hash, size } of [...scan.files].sort((a, b) => (a.disk < b.disk ? -1 : 1))) {
    const fault = pathFault(disk);
    if (fault) {
      refused.push({ path: disk, reason: `The path ${fault.message}.` });
      continue;
    }
    const path = disk.normalize('NFC');
    const key = keyOf(path);
    const file = { path, disk, hash, size };
    const other = files.get(key);
    if (!other) {
      files.set(key, file);
      continue;
    }
    const name = (remote.get(key) ?? base.get(key))?.path;
    const [kept, refusedFile] = path === name ? [file, other] : [other, file];
    files.set(key, kept);
    const reason = `The name is taken by ${kept.path}: other devices cannot tell them apart. Rename one of them.`;
    refused.push({ path: refusedFile.disk, reason });
  }
  const blockedFiles = new Set<PathKey>();
  const blockedFolders: string[] = [];
  for (const { disk, reason, isFolder } of scan.blocked) {
    refused.push({ path: disk, reason });
    if (isFolder && disk === '') blockedFolders.push('');
    if (pathFault(disk)) continue;
    const key = keyOf(disk);
    blockedFiles.add(key);
    if (isFolder) blockedFolders.push(`${key}/`);
  }
  const isBlocked = (key: PathKey) => blockedFiles.has(key) || blockedFolders.some((folder) => key.startsWith(folder));
  return { files, refused, isBlocked };
}

/**
 * Compares three trees: what this device has, what the store has, and what both had when they last met. The last one tells a
 * deleted file from one that was never here, and a file that only one side changed from a conflict, however long ago it was.
 * Each file gets at most one action; who carries them out asks again until there is none.
 */
export function plan(known: Knowledge, local: LocalTree, isIgnored: (path: string) => boolean): Action[] {
  const { base, remote, intents } = known;
  const actions: Action[] = [];
  const settled = new Set<PathKey>();
  const isFree = (key: PathKey) => !settled.has(key) && !local.isBlocked(key);
  const settle = (action: Action) => {
    settled.add(action.key);
    if ('toKey' in action) settled.add(action.toKey);
    actions.push(action);
  };

  for (const action of [...remoteMoves(known, local, isIgnored), ...localMoves(known, local, isIgnored)]) {
    if (isFree(action.key) && isFree(action.toKey)) settle(action);
  }
  for (const key of new Set([...base.keys(), ...remote.keys(), ...local.files.keys()])) {
    if (!isFree(key)) continue;
    const [was, here, there] = [base.get(key), local.files.get(key), remote.get(key)];
    if (isIgnored((here ?? there ?? was)!.path)) {
      if (was) settle({ do: 'forget', key });
      continue;
    }
    const action = decide(key, was, here, there, intents.get(key));
    if (action) settle(action);
  }
  return actions;
}

function decide(
  key: PathKey,
  was: AgreedFile | undefined,
  here: LocalFile | undefined,
  there: RemoteFile | undefined,
  intent: Intent | undefined,
): Action | null {
  if (here && there) {
    if (intent?.hash === here.hash) return { do: 'adopt', key, disk: here.disk, remote: intent.remote };
    // Made on both sides: an empty file, as a new note is, has nothing to lose.
    if (!was && here.hash !== there.hash) {
      if (there.size === 0) return { do: 'put', key, path: there.path, local: here, baseHash: there.hash };
      if (here.size === 0) {
        return { do: 'download', key, disk: here.disk, expected: here.hash, remote: there, isRestored: false };
      }
    }
    const isHereChanged = here.hash !== was?.hash;
    const isThereChanged = there.hash !== was?.hash;
    if (here.hash !== there.hash && isHereChanged && isThereChanged) {
      return { do: 'merge', key, base: was?.hash ?? null, local: here, remote: there };
    }
    if (nameOf(here.path) !== nameOf(there.path)) {
      // The name differs in case only.
      if (was && nameOf(was.path) === nameOf(there.path)) {
        const { hash } = here;
        return {
          do: 'rename',
          key,
          toKey: key,
          path: there.path,
          newPath: here.path,
          baseHash: there.hash,
          hash,
        };
      }
      return { do: 'move', key, toKey: key, local: here, remote: there, base: was ?? null };
    }
    if (here.hash === there.hash)
      return isSame(was, there) ? null : { do: 'adopt', key, disk: here.disk, remote: there };
    if (isThereChanged) {
      return { do: 'download', key, disk: here.disk, expected: here.hash, remote: there, isRestored: false };
    }
    return { do: 'put', key, path: there.path, local: here, baseHash: there.hash };
  }
  if (here) {
    // Gone from the store: unchanged it goes here too; changed it stays, and comes to the store as a new file.
    if (was?.hash === here.hash) return { do: 'remove', key, disk: here.disk, expected: here.hash };
    return was ? { do: 'forget', key } : { do: 'put', key, path: here.path, local: here, baseHash: null };
  }
  if (there) {
    if (was?.hash === there.hash) return { do: 'delete', key, path: there.path, baseHash: there.hash };
    return { do: 'download', key, disk: there.path, expected: null, remote: there, isRestored: was !== undefined };
  }
  return was ? { do: 'forget', key } : null;
}

function isSame(was: AgreedFile | undefined, there: RemoteFile): boolean {
  return was?.hash === there.hash && was.path === there.path && was.fileId === there.fileId;
}

type Move = Extract<Action, { toKey: PathKey }>;

/** Files that another device renamed: they move here too, with what was changed here meanwhile. */
function remoteMoves({ base, remote }: Knowledge, local: LocalTree, isIgnored: (path: string) => boolean): Move[] {
  const gone = [...base].filter(([key, was]) => was.fileId !== null && !remote.has(key) && local.files.has(key));
  if (gone.length === 0) return [];
  const byId = new Map([...remote].map(([key, there]) => [there.fileId, { key, there }]));
  return gone.flatMap(([key, was]) => {
    const found = byId.get(was.fileId!);
    if (!found || base.has(found.key) || local.files.has(found.key) || isIgnored(found.there.path)) return [];
    const here = local.files.get(key)!;
    return [{ do: 'move', key, toKey: found.key, local: here, remote: found.there, base: was }];
  });
}

/** Files that were renamed here, also while no client ran: gone at one path, and new with the same bytes at another. */
function localMoves({ base, remote }: Knowledge, local: LocalTree, isIgnored: (path: string) => boolean): Move[] {
  const gone = new Map<string, PathKey[]>();
  for (const [key, was] of base) {
    // Empty files are all alike: that would be guessing.
    if (was.size === 0 || local.files.has(key) || local.isBlocked(key)) continue;
    if (!remote.has(key) || isIgnored(was.path)) continue;
    gone.set(was.hash, [...(gone.get(was.hash) ?? []), key]);
  }
  if (gone.size === 0) return [];
  const moves: Move[] = [];
  for (const [toKey, { path, hash }] of local.files) {
    if (base.has(toKey) || remote.has(toKey)) continue;
    const candidates = gone.get(hash) ?? [];
    const best = candidates.find((key) => nameOf(key) === nameOf(toKey)) ?? candidates[0];
    if (best === undefined) continue;
    candidates.splice(candidates.indexOf(best), 1);
    const there = remote.get(best)!;
    moves.push({ do: 'rename', key: best, toKey, path: there.path, newPath: path, baseHash: there.hash, hash });
  }
  return moves;
}

/**
 * The last segment. Folders are not compared in their letters' case: where a file system has one folder for two of the
 * store's, two such devices would rename its files to and fro for ever.
 */
function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
