import type { PathKey } from '@atomo-cc/sync-protocol';
import type { Cursor, Journal, JournalState, JournalWrite, PushOp } from '../ports.js';

/** A journal that outlives its client, as a file would; `turn` before and after each commit is where a crash can fall. */
export class MemoryJournal implements Journal {
  #state = { cursor: null, base: new Map(), remote: new Map(), intents: new Map() } as {
    -readonly [Key in Exclude<keyof JournalState, 'outbox'>]: JournalState[Key] extends ReadonlyMap<infer K, infer V>
      ? Map<K, V>
      : JournalState[Key];
  };
  readonly #outbox = new Map<string, PushOp>();
  readonly #texts = new Map<string, Uint8Array>();

  constructor(readonly turn: () => Promise<void> = () => Promise.resolve()) {}

  async load(): Promise<JournalState> {
    const { cursor, base, remote, intents } = this.#state;
    return Promise.resolve({
      cursor,
      base: new Map(base),
      remote: new Map(remote),
      intents: new Map(intents),
      outbox: [...this.#outbox.values()],
    });
  }

  async commit(writes: readonly JournalWrite[]): Promise<void> {
    await this.turn();
    for (const write of writes) {
      if (write.to === 'cursor') this.#state.cursor = write.cursor;
      else if (write.to === 'text') this.#texts.set(write.hash, write.content);
      else if (write.to === 'outbox') {
        // Written again it comes last.
        this.#outbox.delete(write.opId);
        put(this.#outbox, write.opId, write.entry);
      } else if (write.to === 'base') put(this.#state.base, write.key, write.entry);
      else if (write.to === 'remote') put(this.#state.remote, write.key, write.entry);
      else put(this.#state.intents, write.key, write.entry);
    }
    await this.turn();
  }

  /** What a client would go on from. */
  get cursor(): Cursor | null {
    return this.#state.cursor;
  }

  /** What the client believes of the store about this file is lost. */
  damage(key: PathKey): void {
    this.#state.remote.delete(key);
  }

  async text(hash: string): Promise<Uint8Array | null> {
    await this.turn();
    return this.#texts.get(hash) ?? null;
  }
}

function put<Key, Value>(map: Map<Key, Value>, key: Key, value: Value | null): void {
  if (value === null) map.delete(key);
  else map.set(key, value);
}
