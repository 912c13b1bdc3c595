import type { PathKey } from '@atomo-cc/sync-protocol';

/** Where a client stands in the store's log. Sequences of two epochs are not comparable. */
export interface Cursor {
  readonly epoch: string;
  readonly seq: number;
}

/** A live file of the store. `hash` is `sha256:` and 64 hex digits of its bytes; `seq` its last change. */
export interface RemoteFile {
  readonly path: string;
  readonly fileId: string;
  readonly hash: string;
  readonly size: number;
  readonly seq: number;
}

/** One change of the store's log. A rename carries what the file holds after it. */
export type Change =
  | ({ readonly op: 'put'; readonly content?: Uint8Array } & RemoteFile)
  | ({ readonly op: 'rename'; readonly oldPath: string; readonly content?: Uint8Array } & RemoteFile)
  | { readonly op: 'delete'; readonly path: string; readonly seq: number };

/** The whole log after `from` up to and including `through`, as far as this client may see it. */
export interface ChangePage {
  readonly epoch: string;
  readonly from: number;
  readonly through: number;
  readonly more: boolean;
  readonly changes: readonly Change[];
}

/** The cursor is of no use any more: the log began anew, forgot that far back, or shows this key other files than before. */
export interface Resync {
  readonly resync: 'EPOCH' | 'FLOOR' | 'SCOPE';
}

/** A live file of a snapshot; small ones may bring their content along. */
export interface SnapshotFile extends RemoteFile {
  readonly content?: Uint8Array;
}

/** One change that the server carries out whole or refuses. `baseHash` is what must be there now; null: nothing may be. */
export interface PushOp {
  readonly opId: string;
  readonly op: 'put' | 'delete' | 'rename';
  readonly path: string;
  readonly newPath?: string;
  readonly baseHash: string | null;
  readonly hash?: string;
  readonly size?: number;
  /** The bytes of a put that are sent along; without them the server has them already (`upload`). */
  readonly content?: Uint8Array;
  /** The hashes of the parts in which they were uploaded. */
  readonly parts?: readonly string[];
}

/** Why the server did not do something. */
export interface PushFault {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs?: number;
}

/** What became of an operation. A refusal is an answer: it is not sent again as it was. */
export type PushResult =
  | { readonly opId: string; readonly success: true; readonly seq: number; readonly fileId?: string }
  | { readonly opId: string; readonly success: false; readonly error: PushFault };

/** What the server allows, in bytes; `opsPerPush` is a number of operations. */
export interface ServerLimits {
  readonly inlineBytes: number;
  readonly maxFileBytes: number;
  readonly opsPerPush: number;
  /** The inline contents of one push together. */
  readonly pushBytes: number;
}

/** A digest of the live files at `seq` (`digestOf` of sync-protocol). */
export interface StoreDigest extends Cursor {
  readonly digest: string;
}

/**
 * The store, over any transport. Every call throws a CodedError: SYNC_OFFLINE when it may work later, another code of
 * `SYNC_CLIENT_ERRORS` when a person has to do something.
 */
export interface SyncServer {
  limits(): ServerLimits;
  pull(cursor: Cursor): Promise<ChangePage | Resync>;
  /**
   * Hands out the live files, each once. They may be newer than the cursor that it answers; reading the log from there on makes it
   * exact. What was handed out before it throws is of no use.
   * @param withContents whether contents are worth sending along
   */
  snapshot(take: (file: SnapshotFile) => void, withContents: boolean): Promise<Cursor>;
  /** The contents that the server (still) has; the others are left out. */
  fetch(hashes: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>>;
  /** Brings a content to the server, for a put to name its parts; what is there already costs a question. */
  upload(
    hash: string,
    content: Uint8Array,
  ): Promise<{ readonly parts: readonly string[] } | { readonly fault: PushFault }>;
  /** Results in the order of the operations. The same `opId` again answers what the first one did. */
  push(ops: readonly PushOp[]): Promise<readonly PushResult[]>;
  digest(): Promise<StoreDigest>;
  /** Hears where this client stands, each time that its journal has got further. What comes of it is the server's affair. */
  applied(cursor: Cursor): void;
}

/** A file on this device. `disk` is its name as the file system gives it, which may be in another Unicode form. */
export interface ScannedFile {
  readonly disk: string;
  readonly hash: string;
  readonly size: number;
}

/** What is there. Nothing may be concluded about what stands in `blocked` or, for a folder, below it. */
export interface Scan {
  readonly files: readonly ScannedFile[];
  readonly blocked: readonly { readonly disk: string; readonly reason: string; readonly isFolder: boolean }[];
}

/** `changed`: what is there is not what was expected, and nothing was done. `refused`: this device cannot do it. */
export type LocalOutcome =
  | { readonly outcome: 'done' }
  | { readonly outcome: 'changed' }
  | { readonly outcome: 'refused'; readonly reason: string };

/**
 * The folder on this device. Each change names the hash of what it replaces (null: nothing) and does nothing when a user was
 * faster: that is what keeps an edit from being lost, at any moment.
 */
export interface LocalFiles {
  /** Every file that is not ignored. */
  scan(): Promise<Scan>;
  read(disk: string): Promise<Uint8Array | null>;
  /** Readers see the old content or the new one, also after a crash. */
  write(disk: string, content: Uint8Array, expected: string | null): Promise<LocalOutcome>;
  /** To the trash of this device. */
  remove(disk: string, expected: string): Promise<LocalOutcome>;
  /** Nothing is overwritten at `to`, which may differ from `disk` in case only. */
  move(disk: string, to: string, expected: string): Promise<LocalOutcome>;
  /**
   * What is there under this name, whoever wrote it, is to be on disk after the next `flush`: an editor does not see to that, and
   * a file that comes back as it was before would look like an edit.
   */
  rely(disk: string): void;
  /** What was written, removed, moved and relied on so far outlives a power cut when this resolves. */
  flush(): Promise<void>;
  /** Keeps a copy of the content in the trash of this device. */
  keep(disk: string, content: Uint8Array): Promise<void>;
  /** Whether the user wants this path left alone, on this device. */
  isIgnored(path: string): boolean;
}

/** What this device and the store agreed on when they last met, by file. */
export interface AgreedFile {
  readonly path: string;
  readonly fileId: string | null;
  readonly hash: string;
  readonly size: number;
}

/** A merge that is being written: when the file has `hash`, it contains all that `remote` has. */
export interface Intent {
  readonly hash: string;
  readonly remote: RemoteFile;
}

/** One write to the journal; `null` takes the entry away. */
export type JournalWrite =
  | { readonly to: 'cursor'; readonly cursor: Cursor }
  | { readonly to: 'base'; readonly key: PathKey; readonly entry: AgreedFile | null }
  | { readonly to: 'remote'; readonly key: PathKey; readonly entry: RemoteFile | null }
  | { readonly to: 'intent'; readonly key: PathKey; readonly entry: Intent | null }
  | { readonly to: 'outbox'; readonly opId: string; readonly entry: PushOp | null }
  | { readonly to: 'text'; readonly hash: string; readonly content: Uint8Array };

/** Everything a journal remembers, but the texts. */
export interface JournalState {
  readonly cursor: Cursor | null;
  readonly base: ReadonlyMap<PathKey, AgreedFile>;
  readonly remote: ReadonlyMap<PathKey, RemoteFile>;
  readonly intents: ReadonlyMap<PathKey, Intent>;
  /** In the order in which it was written. */
  readonly outbox: readonly PushOp[];
}

/** The durable memory of a client. A batch of writes is kept whole or not at all, and is on disk when `commit` resolves. */
export interface Journal {
  load(): Promise<JournalState>;
  commit(writes: readonly JournalWrite[]): Promise<void>;
  /** A text that `text` kept; null when it is not there (any more). Texts that no base names may be forgotten. */
  text(hash: string): Promise<Uint8Array | null>;
}
