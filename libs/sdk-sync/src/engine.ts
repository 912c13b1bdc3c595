import { isCodedError, uuidv7, type Clock } from '@atomo-cc/kernel';
import {
  conflictPath,
  digestOf,
  digestTerm,
  type ContentHash,
  type PathKey,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import { bytesOf, hashOf, TEXT_LIMIT_BYTES, textOf } from './content.js';
import { clientError } from './errors.js';
import { mergeTexts, type ConflictPolicy } from './merge.js';
import { keyOf, localTree, plan, type Action, type Refused } from './plan.js';
import type {
  AgreedFile,
  ChangePage,
  Cursor,
  Intent,
  Journal,
  JournalWrite,
  LocalFiles,
  LocalOutcome,
  PushFault,
  PushOp,
  PushResult,
  RemoteFile,
  Resync,
  SnapshotFile,
  SyncServer,
} from './ports.js';

/** More deletions than this in one go need consent. A vanished mount or a wrong script looks like this, a person does not. */
const MASS_DELETE_FILES = 50;
/** So do more than this share of all files, where it is more than a handful. */
const MASS_DELETE_SHARE = 0.2;
const MASS_DELETE_HANDFUL = 5;
/** Each round looks again at everything; a folder that is not settled by then is being written to all the time. */
const MAX_ROUNDS = 40;
/** Files and bytes of one download batch, which is held in memory. */
const DOWNLOAD_FILES = 100;
const DOWNLOAD_BYTES = 8 * 1024 * 1024;
/** Contents that came with changes are kept for the round that needs them, up to this. */
const AT_HAND_BYTES = 32 * 1024 * 1024;
/** What the server refused for good is offered again after this, in case a quota or a right has grown. */
const REFUSAL_HOLD_MS = 5 * 60_000;
/** So often the same file may meet CONFLICT before what this client believes is thrown away and read anew. */
const CONFLICTS_BEFORE_REPAIR = 3;
/** So often the log is asked for a change that was acked; it is there unless the server went back in time. */
const ACK_PULLS = 5;

/** Refusals after which the file is looked at again with what the log says now. */
const LOOK_AGAIN: ReadonlySet<string> = new Set([
  'CONFLICT',
  'PATH_COLLISION',
  'NOT_FOUND',
  'HASH_MISMATCH',
  'BLOB_MISSING',
]);
/** Refusals after which the same operation is sent again, later. */
const TRY_LATER: ReadonlySet<string> = new Set(['RATE_LIMITED', 'INTERNAL_ERROR']);

/** What happened to a file, as it happens. */
export interface SyncEvent {
  readonly what:
    | 'downloaded'
    | 'restored'
    | 'uploaded'
    | 'removed'
    | 'deleted'
    | 'moved'
    | 'renamed'
    | 'merged'
    | 'conflict'
    | 'refused'
    | 'repaired';
  readonly path: string;
  /** Where a renamed file is now, how a conflict ended, or why a file was refused. */
  readonly detail?: string;
}

/** How a sync ended. */
export interface SyncReport {
  /** Files that are not synced, and why. */
  readonly refused: readonly Refused[];
  /** Deletions that wait for consent, because they are many. */
  readonly heldDeletes: readonly string[];
  /** False when the folder changed faster than it could be synced; call again. */
  readonly isSettled: boolean;
}

/** The choices of this device. */
export interface EngineOptions {
  /** Stands in the names of conflict copies. */
  readonly device: string;
  readonly onConflict: ConflictPolicy;
  /** What to do when many files are gone from the folder at once. */
  readonly massDelete: 'ask' | 'allow' | 'restore';
  readonly onEvent?: (event: SyncEvent) => void;
  /** `done` of `total` files of a round. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface Ports {
  readonly server: SyncServer;
  readonly files: LocalFiles;
  readonly journal: Journal;
  readonly clock: Clock;
}

interface Held extends Refused {
  /** The action that was refused; another one is tried at once. */
  readonly what: string;
  readonly until: number;
}

/**
 * Keeps a folder and a store the same. It never trusts a moment: what both had when they last met is in the journal, what the
 * store has is folded from its log, what the folder has is looked up; the plan follows from the three, and each of its steps
 * may be lost, repeated or overtaken by a user without a byte of theirs getting lost.
 *
 * One engine for a folder, one `sync` at a time.
 */
export class SyncEngine {
  readonly #ports: Ports;
  readonly #options: EngineOptions;
  #cursor: Cursor | null;
  readonly #base: Map<PathKey, AgreedFile>;
  readonly #remote: Map<PathKey, RemoteFile>;
  readonly #intents: Map<PathKey, Intent>;
  readonly #outbox: Map<string, PushOp>;
  readonly #held = new Map<PathKey, Held>();
  readonly #conflicts = new Map<PathKey, number>();
  readonly #told = new Set<string>();
  #live: ChangePage[] = [];
  #atHand = new Map<string, Uint8Array>();
  #atHandBytes = 0;
  #isPullDue = true;
  #isScopeNew = false;
  #isUnflushed = false;
  #isDigestDue = true;
  #acked = 0;

  private constructor(ports: Ports, options: EngineOptions, state: Awaited<ReturnType<Journal['load']>>) {
    this.#ports = ports;
    this.#options = options;
    this.#cursor = state.cursor;
    this.#base = new Map(state.base);
    this.#remote = new Map(state.remote);
    this.#intents = new Map(state.intents);
    this.#outbox = new Map(state.outbox.map((op) => [op.opId, op]));
  }

  /** An engine that goes on where its journal stands. */
  static async open(ports: Ports, options: EngineOptions): Promise<SyncEngine> {
    return new SyncEngine(ports, options, await ports.journal.load());
  }

  /** Where this client stands in the log; null before the first sync. */
  get cursor(): Cursor | null {
    return this.#cursor;
  }

  /** Takes changes that the server sent by itself. They may be lost, repeated or in any order; the next `sync` uses them. */
  receive(page: ChangePage): void {
    this.#live.push(page);
  }

  /** The server may have more than it sent: after a new connection, or when it says so. */
  askServer(): void {
    this.#isPullDue = true;
    this.#isDigestDue = true;
  }

  /** The key shows other files than those of before: what is no longer listed may still be there. The next `sync` goes by that. */
  rescope(): void {
    this.#isScopeNew = true;
  }

  /** The server says how far its log goes. */
  hear(head: Cursor): void {
    if (head.epoch !== this.#cursor?.epoch || head.seq > this.#cursor.seq) this.#isPullDue = true;
  }

  /**
   * Makes both sides the same, as far as they let it.
   * @throws CodedError SYNC_OFFLINE, to be called again later; others of SYNC_CLIENT_ERRORS for a person
   */
  async sync(): Promise<SyncReport> {
    const { files, clock } = this.#ports;
    for (const [key, held] of this.#held) if (held.until <= clock.now()) this.#held.delete(key);
    await this.#send([...this.#outbox.values()]);
    let refused: readonly Refused[] = [];
    let heldDeletes: readonly string[] = [];
    for (let round = 0; round < MAX_ROUNDS; round++) {
      await this.#catchUp();
      const local = localTree(await files.scan(), { base: this.#base, remote: this.#remote });
      const known = { base: this.#base, remote: this.#remote, intents: this.#intents };
      const planned = plan(known, local, (path) => files.isIgnored(path));
      const allowed = planned.filter((action) => this.#held.get(action.key)?.what !== nameOf(action));
      const guarded = this.#guard(allowed);
      refused = [...local.refused, ...this.#held.values()];
      heldDeletes = guarded.held;
      if (guarded.actions.length === 0) {
        if (this.#isDigestDue && (await this.#repair())) continue;
        this.#tellRefused(refused);
        return { refused, heldDeletes, isSettled: true };
      }
      await this.#carryOut(guarded.actions);
    }
    return { refused, heldDeletes, isSettled: false };
  }

  /** Many deletions at once are held, or undone, unless the user allowed them. */
  #guard(actions: readonly Action[]): { actions: readonly Action[]; held: string[] } {
    const deletes = actions.filter((action) => action.do === 'delete');
    const isMass =
      deletes.length > MASS_DELETE_FILES ||
      (deletes.length > MASS_DELETE_HANDFUL && deletes.length > this.#base.size * MASS_DELETE_SHARE);
    if (!isMass || this.#options.massDelete === 'allow') return { actions, held: [] };
    const others = actions.filter((action) => action.do !== 'delete');
    if (this.#options.massDelete === 'ask') return { actions: others, held: deletes.map(({ path }) => path) };
    const restored = deletes.map(({ key }): Action => {
      const remote = this.#remote.get(key)!;
      return { do: 'download', key, disk: remote.path, expected: null, remote, isRestored: true };
    });
    return { actions: [...others, ...restored], held: [] };
  }

  // ── what the store has ──────────────────────────────────────────────────────────────────────────────────────────────

  /** Brings the remote tree to the end of the log. */
  async #catchUp(): Promise<void> {
    const { server } = this.#ports;
    if (!this.#cursor) await this.#resync();
    else if (this.#isScopeNew) await this.#resync('SCOPE');
    this.#isScopeNew = false;
    const live = this.#live.sort((a, b) => a.from - b.from);
    this.#live = [];
    for (const page of live) {
      const { epoch, seq } = this.#cursor!;
      if (page.epoch === epoch && page.through <= seq) continue;
      if (page.epoch === epoch && page.from <= seq) await this.#apply(page);
      else this.#isPullDue = true;
      if (page.more) this.#isPullDue = true;
    }
    if (this.#cursor!.seq < this.#acked) this.#isPullDue = true;
    for (let pulls = 0; this.#isPullDue;) {
      const page: ChangePage | Resync = await server.pull(this.#cursor!);
      if ('resync' in page) {
        await this.#resync(page.resync);
        continue;
      }
      if (page.epoch !== this.#cursor!.epoch || page.from > this.#cursor!.seq) {
        await this.#resync('EPOCH');
        continue;
      }
      await this.#apply(page);
      this.#isPullDue = page.more;
      if (page.more || this.#cursor!.seq >= this.#acked) continue;
      this.#isPullDue = true;
      if ((pulls += 1) >= ACK_PULLS) {
        throw clientError('SYNC_OFFLINE', 'The gateway acked a change and does not show it; trying again later.');
      }
    }
  }

  /** Folds a page into the remote tree, together with the cursor. What is older than what is known is passed over. */
  async #apply(page: ChangePage): Promise<void> {
    const seen = this.#cursor!.seq;
    const writes = new Map<PathKey, RemoteFile | null>();
    const at = (key: PathKey) => (writes.has(key) ? writes.get(key) : this.#remote.get(key));
    const isNews = (key: PathKey, seq: number) => (at(key)?.seq ?? -1) <= seq;
    for (const change of page.changes) {
      if (change.seq <= seen) continue;
      const key = this.#keyOfRemote(change.path);
      if (change.op === 'delete') {
        if (key !== null && isNews(key, change.seq)) writes.set(key, null);
        continue;
      }
      if (change.op === 'rename') {
        const oldKey = this.#keyOfRemote(change.oldPath);
        if (oldKey !== null && isNews(oldKey, change.seq)) writes.set(oldKey, null);
      }
      if (key === null || !isNews(key, change.seq)) continue;
      const { path, fileId, hash, size, seq } = change;
      writes.set(key, { path: path.normalize('NFC'), fileId, hash, size, seq });
      if (change.content) this.#keepAtHand(hash, change.content);
    }
    const cursor = { epoch: page.epoch, seq: Math.max(seen, page.through) };
    await this.#commit([
      ...[...writes].map(([key, entry]): JournalWrite => ({ to: 'remote', key, entry })),
      { to: 'cursor', cursor },
    ]);
  }

  /**
   * Reads the whole list anew. In the same epoch a file that is not on it was deleted, however long ago. After a new epoch, or
   * when the key shows other files than before, its absence proves nothing: nothing is removed, and what differs is a conflict.
   */
  async #resync(reason?: Resync['resync']): Promise<void> {
    const remote = new Map<PathKey, RemoteFile>();
    const take = ({ path, fileId, hash, size, seq, content }: SnapshotFile) => {
      const key = this.#keyOfRemote(path);
      if (key === null) return;
      remote.set(key, { path: path.normalize('NFC'), fileId, hash, size, seq });
      if (content) this.#keepAtHand(hash, content);
    };
    // Who has met the store before has most of the contents.
    const { epoch, seq: head } = await this.#ports.server.snapshot(take, this.#base.size === 0);
    const writes: JournalWrite[] = [];
    for (const key of this.#remote.keys()) if (!remote.has(key)) writes.push({ to: 'remote', key, entry: null });
    for (const [key, entry] of remote) writes.push({ to: 'remote', key, entry });
    const isNewEpoch = this.#cursor !== null && this.#cursor.epoch !== epoch;
    if (isNewEpoch) {
      for (const opId of this.#outbox.keys()) writes.push({ to: 'outbox', opId, entry: null });
      this.#acked = 0;
    }
    if (isNewEpoch || reason === 'SCOPE') {
      for (const [key, { hash }] of this.#base) {
        // Of what is listed in the same epoch both still agree on what they had when they last met.
        const isKnown = isNewEpoch ? remote.get(key)?.hash === hash : remote.has(key);
        if (!isKnown) writes.push({ to: 'base', key, entry: null });
      }
      for (const key of this.#intents.keys()) writes.push({ to: 'intent', key, entry: null });
    }
    writes.push({ to: 'cursor', cursor: { epoch, seq: head } });
    await this.#commit(writes);
    // Files of the list may be newer than its cursor.
    this.#isPullDue = true;
  }

  /** Compares the remote tree with the server's digest. True when it was wrong and has been read anew. */
  async #repair(): Promise<boolean> {
    const claimed = await this.#ports.server.digest();
    const { epoch, seq } = this.#cursor!;
    if (claimed.epoch !== epoch || claimed.seq !== seq) {
      // The log went on meanwhile. That is looked at first; the digest stays due.
      this.hear(claimed);
      return this.#isPullDue;
    }
    this.#isDigestDue = false;
    if (claimed.digest === digestOfFiles(this.#remote.values())) return false;
    this.#tell({ what: 'repaired', path: '', detail: 'the list of the store was wrong here and is read anew' });
    await this.#resync();
    return true;
  }

  /** Null for a path that no device may store: a server that sends `../` is not obeyed. */
  #keyOfRemote(path: string): PathKey | null {
    try {
      return keyOf(path);
    } catch (error) {
      if (!isCodedError(error)) throw error;
      this.#tell({ what: 'refused', path, detail: error.message });
      return null;
    }
  }

  #keepAtHand(hash: string, content: Uint8Array): void {
    if (this.#atHandBytes + content.length > AT_HAND_BYTES) return;
    this.#atHand.set(hash, content);
    this.#atHandBytes += content.length;
  }

  // ── what is to be done ──────────────────────────────────────────────────────────────────────────────────────────────

  async #carryOut(actions: readonly Action[]): Promise<void> {
    const all = <Kind extends Action['do']>(kind: Kind) =>
      actions.filter((action): action is Extract<Action, { do: Kind }> => action.do === kind);
    const progress = { done: 0, total: actions.length };
    const step = (count = 1) => this.#options.onProgress?.((progress.done += count), progress.total);

    const known = all('forget').map(({ key }): JournalWrite => ({ to: 'base', key, entry: null }));
    for (const { key, disk, remote } of all('adopt')) {
      this.#rely(disk);
      known.push(...(await this.#meet(key, remote)));
    }
    if (known.length > 0) await this.#commit(known);
    step(all('forget').length + all('adopt').length);
    for (const action of all('move')) {
      await this.#move(action);
      step();
    }
    await this.#remove(all('remove'), step);
    await this.#download(all('download'), step);
    for (const action of all('merge')) {
      await this.#merge(action);
      step();
    }
    await this.#upload([...all('rename'), ...all('delete'), ...all('put')], step);
    this.#atHand = new Map();
    this.#atHandBytes = 0;
  }

  /** The writes after which both sides agree that a file is as `remote` says. */
  async #meet(key: PathKey, remote: RemoteFile, content?: Uint8Array): Promise<JournalWrite[]> {
    const { path, fileId, hash, size } = remote;
    const writes: JournalWrite[] = [{ to: 'base', key, entry: { path, fileId, hash, size } }];
    if (this.#intents.has(key)) writes.push({ to: 'intent', key, entry: null });
    if (content && textOf(content) !== null) writes.push({ to: 'text', hash, content });
    return writes;
  }

  async #move({ key, toKey, local, remote, base }: Extract<Action, { do: 'move' }>): Promise<void> {
    const outcome = await this.#ports.files.move(local.disk, remote.path, local.hash);
    if (!this.#isDone(outcome, toKey, `move:${remote.hash}`, remote.path)) return;
    this.#rely(remote.path);
    const entry = { ...remote, hash: base?.hash ?? local.hash, size: base?.size ?? local.size };
    const writes = await this.#meet(toKey, entry);
    if (key !== toKey) writes.push({ to: 'base', key, entry: null });
    await this.#commit(writes);
    this.#tell({ what: 'moved', path: local.path, detail: remote.path });
  }

  async #remove(actions: readonly Extract<Action, { do: 'remove' }>[], step: () => void): Promise<void> {
    for (const batch of batches(actions, () => 0, DOWNLOAD_FILES, 0)) {
      const removed: typeof batch = [];
      for (const action of batch) {
        const { key, disk, expected } = action;
        const outcome = await this.#ports.files.remove(disk, expected);
        if (this.#isDone(outcome, key, `remove:${expected}`, disk)) removed.push(action);
        step();
      }
      await this.#commit(removed.map(({ key }) => ({ to: 'base', key, entry: null })));
      for (const { disk } of removed) this.#tell({ what: 'removed', path: disk });
    }
  }

  async #download(actions: readonly Extract<Action, { do: 'download' }>[], step: () => void): Promise<void> {
    for (const batch of batches(actions, ({ remote }) => remote.size, DOWNLOAD_FILES, DOWNLOAD_BYTES)) {
      const contents = await this.#contents(batch.map(({ remote }) => remote.hash));
      const writes: JournalWrite[] = [];
      const events: SyncEvent[] = [];
      for (const { key, disk, expected, remote, isRestored } of batch) {
        step();
        const content = contents.get(remote.hash);
        // Changed since, or cleared away: the log will say.
        if (!content) {
          this.#isPullDue = true;
          this.#countConflict(key, `download:${remote.hash}`, remote.path, 'The server does not have its content.');
          continue;
        }
        const outcome = await this.#ports.files.write(disk, content, expected);
        if (!this.#isDone(outcome, key, `download:${remote.hash}`, remote.path)) continue;
        writes.push(...(await this.#meet(key, remote, content)));
        events.push({ what: isRestored ? 'restored' : 'downloaded', path: remote.path });
      }
      if (writes.length > 0) await this.#commit(writes);
      for (const event of events) this.#tell(event);
    }
  }

  /** Contents by hash, each proved to be what was asked for. */
  async #contents(hashes: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>();
    const wanted = new Set<string>();
    for (const hash of hashes) {
      const content = this.#atHand.get(hash);
      if (content) found.set(hash, content);
      else wanted.add(hash);
    }
    if (wanted.size > 0)
      for (const [hash, content] of await this.#ports.server.fetch([...wanted])) found.set(hash, content);
    for (const [hash, content] of found) if (hashOf(content) !== hash) found.delete(hash);
    return found;
  }

  async #merge(action: Extract<Action, { do: 'merge' }>): Promise<void> {
    const { key, local, remote } = action;
    const { files } = this.#ports;
    const policy = this.#options.onConflict;
    const mine = await files.read(local.disk);
    if (!mine || hashOf(mine) !== local.hash) return;
    const theirs = (await this.#contents([remote.hash])).get(remote.hash);
    if (!theirs) {
      this.#isPullDue = true;
      this.#countConflict(key, `merge:${remote.hash}`, local.path, 'The server does not have its content.');
      return;
    }
    const [myText, theirText] = [textOf(mine), textOf(theirs)];
    const baseText = action.base === null ? null : await this.#baseText(action.base);
    // Without a base every line of both would be an insertion: that is a conflict as a whole.
    if (myText !== null && theirText !== null && (baseText !== null || policy === 'markers')) {
      const { text, conflicts } = mergeTexts(baseText ?? '', myText, theirText, policy);
      if (conflicts === 0 || policy !== 'copy') {
        if (conflicts > 0 && policy === 'theirs') await files.keep(local.disk, mine);
        const merged = bytesOf(text);
        const hash = hashOf(merged);
        if (!(await this.#write(action, merged, hash))) return;
        await this.#commit(await this.#meet(key, remote, theirs));
        this.#tell(
          conflicts === 0
            ? { what: 'merged', path: local.path }
            : { what: 'conflict', path: local.path, detail: decided(policy, conflicts) },
        );
        return;
      }
    }
    if (policy === 'mine') {
      this.#rely(local.disk);
      // What the store had stays in its history.
      await this.#commit(await this.#meet(key, remote, theirs));
      this.#tell({ what: 'conflict', path: local.path, detail: decided(policy) });
      return;
    }
    let copy: string | undefined;
    if (policy === 'theirs') await files.keep(local.disk, mine);
    else {
      copy = conflictPath(local.path, this.#options.device, local.hash);
      const outcome = await files.write(copy, mine, null);
      if (outcome.outcome === 'changed') {
        // Made before and not finished, or the user's own file of that name; only the first will do.
        const there = await files.read(copy);
        // Moved away since: the next round has room for it.
        if (!there) return this.#countConflict(key, `merge:${remote.hash}`, local.path, `${copy} is in the way.`);
        if (hashOf(there) !== local.hash)
          return this.#hold(key, `merge:${remote.hash}`, local.path, `${copy} is in the way.`);
        this.#rely(copy);
      } else if (!this.#isDone(outcome, key, `merge:${remote.hash}`, local.path)) return;
      // After a power cut the copy must not be missing where the replacement is there.
      await files.flush();
    }
    const outcome = await files.write(local.disk, theirs, local.hash);
    if (!this.#isDone(outcome, key, `merge:${remote.hash}`, local.path)) return;
    await this.#commit(await this.#meet(key, remote, theirs));
    this.#tell({
      what: 'conflict',
      path: local.path,
      detail: copy ? `what was written here is in ${copy}` : decided(policy),
    });
  }

  /** Writes a merged text so that a crash right after it does not merge the same edits once more. */
  async #write(
    { key, local, remote }: Extract<Action, { do: 'merge' }>,
    merged: Uint8Array,
    hash: string,
  ): Promise<boolean> {
    if (hash === local.hash) {
      this.#rely(local.disk);
      return true;
    }
    await this.#commit([{ to: 'intent', key, entry: { hash, remote } }]);
    const outcome = await this.#ports.files.write(local.disk, merged, local.hash);
    return this.#isDone(outcome, key, `merge:${remote.hash}`, local.path);
  }

  /** The text both sides started from: kept here, or still in the server's history. */
  async #baseText(hash: string): Promise<string | null> {
    const kept = (await this.#ports.journal.text(hash)) ?? (await this.#contents([hash])).get(hash);
    return kept ? textOf(kept) : null;
  }

  // ── what goes to the store ──────────────────────────────────────────────────────────────────────────────────────────

  async #upload(
    actions: readonly Extract<Action, { do: 'put' | 'delete' | 'rename' }>[],
    step: () => void,
  ): Promise<void> {
    const { opsPerPush, pushBytes } = this.#ports.server.limits();
    let ops: PushOp[] = [];
    let bytes = 0;
    for (const action of actions) {
      const op = action.do === 'put' ? await this.#put(action) : operation(action);
      step();
      if (!op) continue;
      const size = op.content?.length ?? 0;
      if (ops.length > 0 && (ops.length >= opsPerPush || bytes + size > pushBytes)) {
        await this.#enqueue(ops);
        [ops, bytes] = [[], 0];
      }
      ops.push(op);
      bytes += size;
    }
    await this.#enqueue(ops);
  }

  /** The operation of a put, its content at the server or in it; null when the file cannot be sent, or not any more. */
  async #put({ key, path, local, baseHash }: Extract<Action, { do: 'put' }>): Promise<PushOp | null> {
    const { files, server } = this.#ports;
    const { inlineBytes, maxFileBytes } = server.limits();
    const what = `put:${local.hash}`;
    if (local.size > maxFileBytes) {
      this.#hold(key, what, local.path, `It is larger than the ${maxFileBytes} bytes that the server takes.`);
      return null;
    }
    const content = await files.read(local.disk);
    if (!content) return null;
    const hash = hashOf(content);
    // Edited since the scan: the next round has it.
    if (hash !== local.hash) return null;
    this.#rely(local.disk);
    const op = { opId: uuidv7(), op: 'put' as const, path, baseHash, hash, size: content.length };
    if (content.length <= inlineBytes) return { ...op, content };
    const uploaded = await server.upload(hash, content);
    if ('parts' in uploaded) return { ...op, parts: uploaded.parts };
    this.#refusedBy(uploaded.fault, key, what, local.path);
    return null;
  }

  /** An operation is on disk before it is sent: after a crash it goes out again under the same id. */
  async #enqueue(ops: readonly PushOp[]): Promise<void> {
    if (ops.length === 0) return;
    await this.#commit(ops.map((entry) => ({ to: 'outbox', opId: entry.opId, entry })));
    await this.#send(ops);
  }

  async #send(ops: readonly PushOp[]): Promise<void> {
    const { opsPerPush, pushBytes } = this.#ports.server.limits();
    for (const batch of batches(ops, (op) => op.content?.length ?? 0, opsPerPush, pushBytes)) {
      const results = await this.#ports.server.push(batch);
      const byId = new Map(results.map((result) => [result.opId, result]));
      const events: SyncEvent[] = [];
      const writes: JournalWrite[] = [];
      const later: PushFault[] = [];
      for (const op of batch) {
        const result = byId.get(op.opId);
        if (!result) continue;
        if (result.success) {
          writes.push(...this.#accepted(op, result));
          events.push(told(op));
          this.#acked = Math.max(this.#acked, result.seq);
        } else if (TRY_LATER.has(result.error.code)) {
          later.push(result.error);
          continue;
        } else this.#refusedBy(result.error, keyOf(op.path), whatOf(op), op.path);
        writes.push({ to: 'outbox', opId: op.opId, entry: null });
      }
      await this.#commit(writes);
      for (const event of events) this.#tell(event);
      if (later.length > 0) throw clientError('SYNC_OFFLINE', later[0]!.message);
    }
  }

  /** What both sides agree on after an ack. The remote tree follows when the log shows the change. */
  #accepted(op: PushOp, result: Extract<PushResult, { success: true }>): JournalWrite[] {
    const key = keyOf(op.path);
    this.#conflicts.delete(key);
    const was = this.#base.get(key);
    if (op.op === 'delete') return [{ to: 'base', key, entry: null }];
    const fileId = result.fileId ?? was?.fileId ?? null;
    if (op.op === 'rename') {
      const toKey = keyOf(op.newPath!);
      const entry = was ? { ...was, fileId, path: op.newPath! } : null;
      const moved: JournalWrite = { to: 'base', key: toKey, entry };
      return key === toKey ? [moved] : [{ to: 'base', key, entry: null }, moved];
    }
    const entry = { path: op.path, fileId, hash: op.hash!, size: op.size! };
    const writes: JournalWrite[] = [{ to: 'base', key, entry }];
    if (op.content && op.content.length <= TEXT_LIMIT_BYTES && textOf(op.content) !== null) {
      writes.push({ to: 'text', hash: op.hash!, content: op.content });
    }
    return writes;
  }

  #refusedBy({ code, message }: PushFault, key: PathKey, what: string, path: string): void {
    if (TRY_LATER.has(code)) throw clientError('SYNC_OFFLINE', message);
    if (!LOOK_AGAIN.has(code)) return this.#hold(key, what, path, message);
    this.#isPullDue = true;
    this.#countConflict(key, what, path, message);
  }

  /** A file that meets the same refusal again and again: perhaps this client is wrong about the store; else it is held. */
  #countConflict(key: PathKey, what: string, path: string, reason: string): void {
    const count = (this.#conflicts.get(key) ?? 0) + 1;
    this.#conflicts.set(key, count);
    if (count === CONFLICTS_BEFORE_REPAIR) this.#isDigestDue = true;
    if (count < 2 * CONFLICTS_BEFORE_REPAIR) return;
    this.#conflicts.delete(key);
    this.#hold(key, what, path, reason);
  }

  // ── bookkeeping ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** What this file holds is about to be written down as agreed on. */
  #rely(disk: string): void {
    this.#ports.files.rely(disk);
    this.#isUnflushed = true;
  }

  #isDone(outcome: LocalOutcome, key: PathKey, what: string, path: string): boolean {
    this.#isUnflushed = true;
    if (outcome.outcome === 'refused') this.#hold(key, what, path, outcome.reason);
    return outcome.outcome === 'done';
  }

  #hold(key: PathKey, what: string, path: string, reason: string): void {
    this.#held.set(key, { what, path, reason, until: this.#ports.clock.now() + REFUSAL_HOLD_MS });
  }

  #tell(event: SyncEvent): void {
    this.#options.onEvent?.(event);
  }

  /** Each refusal is told once. */
  #tellRefused(refused: readonly Refused[]): void {
    for (const { path, reason } of refused) {
      const id = JSON.stringify([path, reason]);
      if (this.#told.has(id)) continue;
      this.#told.add(id);
      this.#tell({ what: 'refused', path, detail: reason });
    }
  }

  /** Memory follows the journal, never the other way round. */
  async #commit(writes: readonly JournalWrite[]): Promise<void> {
    if (writes.length === 0) return;
    // What the journal says of the disk must be true after a power cut too.
    if (this.#isUnflushed) await this.#ports.files.flush();
    this.#isUnflushed = false;
    await this.#ports.journal.commit(writes);
    for (const write of writes) {
      if (write.to === 'cursor') {
        this.#cursor = write.cursor;
        this.#ports.server.applied(write.cursor);
      } else if (write.to === 'base') put(this.#base, write.key, write.entry);
      else if (write.to === 'remote') put(this.#remote, write.key, write.entry);
      else if (write.to === 'intent') put(this.#intents, write.key, write.entry);
      else if (write.to === 'outbox') put(this.#outbox, write.opId, write.entry);
    }
  }
}

/** The digest of live files, as the server makes it. */
export function digestOfFiles(files: Iterable<Pick<RemoteFile, 'path' | 'hash'>>): string {
  return digestOf([...files].map(({ path, hash }) => digestTerm(path as SyncPath, hash as ContentHash)));
}

/** How a conflict ended; `places` when the rest of the text was merged. */
function decided(policy: ConflictPolicy, places?: number): string {
  const where = places === undefined ? '' : places === 1 ? ' in one place' : ` in ${places} places`;
  if (policy === 'markers') return `both versions are in the file${where}, between <<<<<<< and >>>>>>>`;
  return policy === 'mine'
    ? `what was written here holds${where}; the other version is in the store's history`
    : `what was written elsewhere holds${where}; your version is in the trash of this folder`;
}

function put<Key, Value>(map: Map<Key, Value>, key: Key, value: Value | null): void {
  if (value === null) map.delete(key);
  else map.set(key, value);
}

function operation(action: Extract<Action, { do: 'delete' | 'rename' }>): PushOp {
  const { path, baseHash } = action;
  const op = { opId: uuidv7(), op: action.do, path, baseHash };
  return action.do === 'rename' ? { ...op, newPath: action.newPath } : op;
}

/** By what a refused action is known again: another content is another action. */
function nameOf(action: Action): string {
  switch (action.do) {
    case 'put':
      return `put:${action.local.hash}`;
    case 'delete':
      return `delete:${action.baseHash}`;
    case 'rename':
      return `rename:${action.newPath}`;
    case 'remove':
      return `remove:${action.expected}`;
    case 'forget':
      return 'forget';
    case 'adopt':
    case 'move':
    case 'download':
    case 'merge':
      return `${action.do}:${action.remote.hash}`;
  }
}

function whatOf({ op, hash, newPath, baseHash }: PushOp): string {
  return op === 'put' ? `put:${hash}` : op === 'rename' ? `rename:${newPath}` : `delete:${baseHash}`;
}

function told({ op, path, newPath }: PushOp): SyncEvent {
  if (op === 'put') return { what: 'uploaded', path };
  return op === 'delete' ? { what: 'deleted', path } : { what: 'renamed', path, detail: newPath! };
}

/** Groups of at most `count` items and `bytes` bytes; an item that is larger goes alone. */
function* batches<Item>(
  items: readonly Item[],
  sizeOf: (item: Item) => number,
  count: number,
  bytes: number,
): Generator<Item[]> {
  let batch: Item[] = [];
  let size = 0;
  for (const item of items) {
    const added = sizeOf(item);
    if (batch.length > 0 && (batch.length >= count || size + added > bytes)) {
      yield batch;
      [batch, size] = [[], 0];
    }
    batch.push(item);
    size += added;
  }
  if (batch.length > 0) yield batch;
}
