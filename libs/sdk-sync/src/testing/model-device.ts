import type { Clock } from '@atomo-cc/kernel';
import { SyncEngine, type EngineOptions, type SyncEvent, type SyncReport } from '../engine.js';
import { clientError } from '../errors.js';
import type { ChangePage, Cursor, SyncServer } from '../ports.js';
import { MemoryJournal } from './memory-journal.js';
import { ModelFolder, type NameRules } from './model-folder.js';
import type { ModelStore } from './model-store.js';

/** What ends a client in the middle of what it does. */
class Crash extends Error {}

/** So many changes come in one page, so that pages end between changes that belong together. */
const PAGE = 3;

/**
 * A client that does one thing at a time and only when it is its turn, so that a test decides what happens between any two of
 * its steps: every call of a port is a step, those to the server two (there and back).
 */
export class ModelDevice {
  readonly folder: ModelFolder;
  readonly inbox: ChangePage[] = [];
  readonly events: SyncEvent[] = [];
  isOnline = true;
  steps = 0;
  report: SyncReport | undefined;
  readonly journal: MemoryJournal;
  #life = 0;
  #engine: SyncEngine | undefined;
  #waiting: { go: () => void; crash: (error: Crash) => void } | undefined;
  #stopped: (() => void) | undefined;
  #isRunning = false;

  constructor(
    readonly store: ModelStore,
    readonly options: Omit<EngineOptions, 'onEvent'> & { readonly rules: NameRules; readonly clock: Clock },
  ) {
    const turn = () => this.#turn();
    this.folder = new ModelFolder(options.rules, turn);
    this.journal = new MemoryJournal(turn);
  }

  /** One step further: begins a sync when none runs. Settles when the client waits for its next turn. */
  async step(): Promise<void> {
    this.steps += 1;
    const stopped = new Promise<void>((resolve) => (this.#stopped = resolve));
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting.go();
    else void this.#run();
    await stopped;
  }

  /** Syncs to the end without anything in between. @throws what the sync throws */
  async sync(): Promise<SyncReport | undefined> {
    do await this.step();
    while (this.#isRunning);
    return this.report;
  }

  get isRunning(): boolean {
    return this.#isRunning;
  }

  /**
   * The machine is gone at once. What the journal committed stays; of what was done in the folder and not flushed some is not
   * on disk: what `isLost` says of each, in turn. Answers what users had written of it.
   */
  async powerCut(isLost: () => boolean): Promise<Uint8Array[]> {
    await this.crash();
    return this.folder.powerCut(isLost);
  }

  /** The client is gone at once; its folder and its journal stay. */
  async crash(): Promise<void> {
    this.#life += 1;
    this.#engine = undefined;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (!waiting) return;
    const stopped = new Promise<void>((resolve) => (this.#stopped = resolve));
    waiting.crash(new Crash());
    await stopped;
  }

  /** A page that was sent to this device arrives. */
  deliver(page: ChangePage): void {
    this.#engine?.receive(page);
  }

  /** The connection is back. */
  reconnect(): void {
    this.isOnline = true;
    this.#engine?.askServer();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    try {
      this.#engine ??= await SyncEngine.open(
        { server: this.#server(), files: this.folder, journal: this.journal, clock: this.options.clock },
        { ...this.options, onEvent: (event) => this.events.push(event) },
      );
      this.report = await this.#engine.sync();
    } catch (error) {
      this.report = undefined;
      const isExpected = error instanceof Crash || (error as { code?: string }).code === 'SYNC_OFFLINE';
      if (!isExpected) this.failure = error;
    } finally {
      this.#isRunning = false;
      this.folder.isStale = false;
      this.#stopped?.();
    }
  }

  failure: unknown;
  /** The last position that the server was told of. */
  acked: Cursor | null = null;

  async #turn(): Promise<void> {
    const life = this.#life;
    await new Promise<void>((go, crash) => {
      this.#waiting = { go, crash };
      this.#stopped?.();
    });
    if (life !== this.#life) throw new Crash();
  }

  #server(): SyncServer {
    const call = async <Answer>(carryOut: () => Answer): Promise<Answer> => {
      await this.#turn();
      this.#reach();
      const answer = carryOut();
      await this.#turn();
      this.#reach();
      return answer;
    };
    const { store } = this;
    return {
      limits: () => ({ inlineBytes: 200, maxFileBytes: 10_000, opsPerPush: 3, pushBytes: 1_000 }),
      pull: (cursor) => call(() => store.pull(cursor, PAGE)),
      snapshot: async (take) => {
        const { files, ...cursor } = await call(() => store.snapshot());
        for (const file of files) take(file);
        return cursor;
      },
      fetch: (hashes) =>
        call(
          () =>
            new Map(
              hashes.flatMap((hash) => {
                const content = store.content(hash);
                return content ? [[hash, content] as const] : [];
              }),
            ),
        ),
      upload: (hash, content) =>
        call(() => {
          store.uploads.set(hash, content);
          return { parts: [hash] };
        }),
      push: async (ops) => {
        const results = [];
        await this.#turn();
        for (const op of ops) {
          this.#reach();
          results.push(store.push(op));
          await this.#turn();
        }
        this.#reach();
        return results;
      },
      digest: () => call(() => store.digest()),
      applied: (cursor) => {
        // Of what is not in the journal a crash would leave nothing but this word.
        if (this.journal.cursor !== cursor) this.failure = new Error('acked what is not in the journal');
        this.acked = cursor;
      },
    };
  }

  #reach(): void {
    if (!this.isOnline) throw clientError('SYNC_OFFLINE', 'no connection');
  }
}
