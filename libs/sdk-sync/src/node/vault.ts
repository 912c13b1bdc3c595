import { constants } from 'node:fs';
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { watch } from 'chokidar';
import { backoffMs, isCodedError, sleep, systemClock, uuidv7 } from '@atomo-cc/kernel';
import { SyncEngine, type EngineOptions, type SyncReport } from '../engine.js';
import { clientError } from '../errors.js';
import { GatewayServer, session } from '../gateway.js';
import { DiskFolder, STATE_FOLDER } from './disk-folder.js';
import { SqliteJournal } from './sqlite-journal.js';

/** An edit is looked at when the folder has been quiet for this long; editors write a file in several steps. */
const QUIET_MS = 300;
/** A folder that is never quiet is looked at this often. */
const LOUD_MS = 2_000;
/** Watchers miss events, on network disks above all: so often the folder and the store are compared unasked. */
const COMPARE_MS = 5 * 60_000;
/** Between attempts to reach a gateway that does not answer. */
const RETRY = { firstMs: 1_000, maxMs: 60_000 } as const;
const SQLITE_BUSY = 5;

/** Which folder, which store, and how. */
export interface VaultOptions extends Pick<EngineOptions, 'onConflict' | 'massDelete'> {
  readonly folder: string;
  /** The address of the gateway. */
  readonly server: string;
  /** A key of the store. */
  readonly key: string;
  /** The store's id, for who wants to be sure; the key alone decides. */
  readonly store?: string;
  /** Patterns of files to leave alone, besides those of the ignore file. */
  readonly exclude: readonly string[];
  /** Stands in the names of conflict copies and in the store's log. */
  readonly device?: string;
}

/** What a user wants to see while it runs. */
export interface VaultListener extends Pick<EngineOptions, 'onEvent' | 'onProgress'> {
  /** A sync came to its end. */
  onSynced?(report: SyncReport): void;
  /** Nothing goes on: the gateway does not answer, or the disk is full. `reason` is a sentence. Told once. */
  onStandstill?(why: Standstill, reason: string): void;
  /** It goes on. */
  onGoingOn?(why: Standstill): void;
}

/** What a client waits for by itself. */
export type Standstill = 'offline' | 'full';

const STANDSTILLS: Readonly<Record<string, Standstill>> = { SYNC_OFFLINE: 'offline', SYNC_DISK_FULL: 'full' };

/** A real folder and a store that are kept the same. Everything it has to remember is in STATE_FOLDER within the folder. */
export class Vault {
  #report: SyncReport | null = null;
  #isClosed = false;
  #running: Promise<void> = Promise.resolve();

  private constructor(
    readonly engine: SyncEngine,
    readonly folder: DiskFolder,
    private readonly journal: SqliteJournal,
    private readonly server: GatewayServer,
    private readonly halts: Halts,
    private readonly bell: Bell,
  ) {}

  /**
   * Opens the folder and asks the gateway who it is.
   * @throws CodedError of SYNC_CLIENT_ERRORS
   */
  static async open(options: VaultOptions, listener: VaultListener = {}): Promise<Vault> {
    const root = await usableFolder(options.folder);
    const ready = await session({ url: options.server, key: options.key });
    if (!ready.key.permissions.includes('read')) {
      throw clientError('SYNC_KEY_REFUSED', 'The API key may not read the store; a folder cannot be synced with it.');
    }
    const journal = openJournal(root);
    try {
      const bound = journal.fact('store') ?? options.store ?? ready.storeId;
      if (bound !== ready.storeId || (options.store ?? bound) !== bound) {
        throw clientError(
          'SYNC_OTHER_STORE',
          `The key opens store ${ready.storeId}, and this folder is synced with ${bound}. ` +
            `Use a key of that store, or delete ${STATE_FOLDER} in the folder to begin anew.`,
        );
      }
      journal.setFact('store', ready.storeId);
      const id = journal.fact('device') ?? uuidv7();
      journal.setFact('device', id);
      const device = options.device ?? os.hostname();
      const folder = await DiskFolder.open(root, options.exclude, journal);
      const bell = new Bell();
      const halts = new Halts(listener);
      const server = new GatewayServer({ url: options.server, key: options.key, device: { id, name: device } }, ready, {
        cursor: () => engine.cursor,
        changes: (page) => {
          engine.receive(page);
          bell.ring();
        },
        head: (head) => {
          engine.hear(head);
          bell.ring();
        },
        connected: () => {
          halts.end('offline');
          engine.askServer();
          bell.ring();
        },
        disconnected: () => halts.begin('offline', 'The connection is lost; connecting again.'),
        refused: () => bell.ring(),
      });
      const engine: SyncEngine = await SyncEngine.open(
        { server, files: folder, journal, clock: systemClock },
        { ...options, ...listener, device },
      );
      const scope = journal.fact('scope');
      if (scope === null) journal.setFact('scope', server.scope);
      else if (scope !== server.scope) engine.rescope();
      server.open();
      return new Vault(engine, folder, journal, server, halts, bell);
    } catch (error) {
      journal.close();
      throw error;
    }
  }

  /** Whether the key lets this folder change the store. */
  get canWrite(): boolean {
    return this.server.canWrite;
  }

  /** How the last sync ended. */
  get report(): SyncReport | null {
    return this.#report;
  }

  /**
   * Makes both sides the same once.
   * @throws CodedError of SYNC_CLIENT_ERRORS, SYNC_OFFLINE included
   */
  async once(): Promise<SyncReport> {
    const running = this.engine.sync().then((done) => {
      this.journal.clearTexts();
      // Not before: a client that ends in between begins with that again.
      if (this.journal.fact('scope') !== this.server.scope) this.journal.setFact('scope', this.server.scope);
      return done;
    });
    this.#running = running.then(
      () => undefined,
      () => undefined,
    );
    const report = await running;
    this.#report = report;
    if (this.server.isConnected) this.halts.end();
    this.halts.listener.onSynced?.(report);
    return report;
  }

  /**
   * Keeps both sides the same until the signal is aborted, offline and online.
   * @throws CodedError of SYNC_CLIENT_ERRORS but SYNC_OFFLINE and SYNC_DISK_FULL
   */
  async watch(signal: AbortSignal): Promise<void> {
    const watcher = watch(this.folder.root, {
      ignoreInitial: true,
      followSymlinks: false,
      ignorePermissionErrors: true,
      ignored: (file) => {
        const name = path.relative(this.folder.root, file);
        return name !== '' && this.folder.isIgnored(name);
      },
    });
    watcher.on('all', () => this.bell.touched());
    // A watcher that cannot go on (too many files for the system) leaves the comparing, which needs none.
    watcher.on('error', () => this.bell.touched());
    try {
      for (let failures = 0; !signal.aborted;) {
        try {
          const { isSettled } = await this.once();
          if (this.server.refusal) throw this.server.refusal;
          failures = 0;
          if (isSettled && !(await this.bell.rung(COMPARE_MS, signal))) this.engine.askServer();
        } catch (error) {
          if (signal.aborted) return;
          const why = isCodedError(error) ? STANDSTILLS[error.code] : undefined;
          if (!why) throw error;
          failures += 1;
          this.halts.begin(why, (error as Error).message);
          await this.bell.rung(backoffMs(failures, RETRY), signal);
        }
      }
    } finally {
      await watcher.close();
    }
  }

  /** Ends the connection and lets go of the folder. A sync that runs ends with SYNC_OFFLINE; the next one goes on there. */
  async close(): Promise<void> {
    this.server.close();
    await this.#running;
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.journal.close();
  }
}

/** Tells once that nothing goes on, and once that it does again. */
class Halts {
  #why: Standstill | null = null;

  constructor(readonly listener: VaultListener) {}

  begin(why: Standstill, reason: string): void {
    if (this.#why === why) return;
    this.#why = why;
    this.listener.onStandstill?.(why, reason);
  }

  /** @param why left out: whatever it was */
  end(why = this.#why): void {
    if (this.#why === null || this.#why !== why) return;
    this.#why = null;
    this.listener.onGoingOn?.(why);
  }
}

/** Wakes the watch: at once for news from the store, after a quiet moment for news from the folder. */
class Bell {
  #ringing = new AbortController();
  #quiet: NodeJS.Timeout | undefined;
  #touchedAt = 0;

  ring(): void {
    clearTimeout(this.#quiet);
    this.#quiet = undefined;
    this.#ringing.abort();
  }

  touched(): void {
    const now = performance.now();
    if (this.#quiet === undefined) this.#touchedAt = now;
    clearTimeout(this.#quiet);
    const left = Math.max(0, this.#touchedAt + LOUD_MS - now);
    this.#quiet = setTimeout(() => this.ring(), Math.min(QUIET_MS, left));
  }

  /** Waits for a ring, also one since the last wait, at most `ms`. False when nobody rang. */
  async rung(ms: number, signal: AbortSignal): Promise<boolean> {
    await sleep(ms, AbortSignal.any([signal, this.#ringing.signal]));
    const isRung = this.#ringing.signal.aborted;
    this.#ringing = new AbortController();
    return isRung;
  }
}

function openJournal(root: string): SqliteJournal {
  try {
    return new SqliteJournal(path.join(root, STATE_FOLDER, 'journal.sqlite'));
  } catch (error) {
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) {
      throw clientError('SYNC_FOLDER_BUSY', `Another client syncs ${root}; stop that one first.`, error);
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw clientError(
      'SYNC_FOLDER_UNUSABLE',
      `The journal in ${root}/${STATE_FOLDER} cannot be used: ${reason}.`,
      error,
    );
  }
}

async function usableFolder(given: string): Promise<string> {
  const unusable = (reason: string, cause?: unknown) =>
    clientError('SYNC_FOLDER_UNUSABLE', `${given} cannot be synced: ${reason}.`, cause);
  let root: string;
  try {
    root = await fs.realpath(given);
    if (!(await fs.stat(root)).isDirectory()) throw unusable('it is no folder');
    await fs.access(root, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    if (isCodedError(error)) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw unusable(code === 'ENOENT' ? 'it is not there' : `it may not be read and written (${code})`, error);
  }
  if (root === path.parse(root).root || root === (await fs.realpath(os.homedir()).catch(() => ''))) {
    throw unusable('it holds the whole system or a whole home; choose a folder in it');
  }
  await fs.mkdir(path.join(root, STATE_FOLDER), { recursive: true, mode: 0o700 });
  return root;
}
