import { pathKey, syncPath } from '@atomo-cc/sync-protocol';
import { hashOf } from '../content.js';
import type { LocalFiles, LocalOutcome, Scan } from '../ports.js';

/** What the file system of a device does to names. */
export type NameRules = 'exact' | 'ignores-case' | 'decomposes';

/** A folder in memory, with the file system's view of names: `A.md` may be `a.md`, and é may come back as two characters. */
export class ModelFolder implements LocalFiles {
  readonly files = new Map<string, Uint8Array>();
  /** What `keep` was asked to keep. What `remove` takes away is in the store's history, and is not kept here. */
  readonly trash: Uint8Array[] = [];
  /** How to take back what the client did and a power cut may undo, and whether it still can be: a user's work is not undone. */
  #unflushed: { readonly canUndo: () => boolean; readonly undo: () => void }[] = [];

  constructor(
    readonly rules: NameRules,
    /** Waits for this device's turn; everything that follows happens at once. */
    readonly turn: () => Promise<void>,
  ) {}

  /** The name under which the file system has this path, if it has it. */
  diskName(path: string): string | undefined {
    if (this.files.has(path)) return path;
    if (this.rules === 'exact') return undefined;
    return [...this.files.keys()].find((name) => this.#alike(name, path));
  }

  #alike(a: string, b: string): boolean {
    if (this.rules === 'decomposes') return a.normalize('NFC') === b.normalize('NFC');
    return pathKey(syncPath(a)) === pathKey(syncPath(b));
  }

  /** A user's own writing, at once. */
  put(path: string, content: Uint8Array): void {
    const name = this.diskName(path) ?? (this.rules === 'decomposes' ? path.normalize('NFD') : path);
    this.files.set(name, content);
  }

  /** Loses some of what was done since the last flush; none of it hangs on what came before. */
  powerCut(isLost: () => boolean): void {
    for (const { canUndo, undo } of this.#unflushed.reverse()) if (isLost() && canUndo()) undo();
    this.#unflushed = [];
  }

  /** First the names, then what they hold; meanwhile a user goes on, as with a real folder. */
  async scan(): Promise<Scan> {
    await this.turn();
    const names = [...this.files.keys()].filter((disk) => !this.isIgnored(disk));
    const files: Scan['files'][number][] = [];
    for (const [place, disk] of names.entries()) {
      if (place === names.length >> 1) await this.turn();
      const content = this.files.get(disk);
      if (content) files.push({ disk, hash: hashOf(content), size: content.length });
    }
    return { files, blocked: [] };
  }

  async read(disk: string): Promise<Uint8Array | null> {
    await this.turn();
    return this.#at(disk) ?? null;
  }

  async write(disk: string, content: Uint8Array, expected: string | null): Promise<LocalOutcome> {
    await this.turn();
    if (!this.#is(disk, expected)) return { outcome: 'changed' };
    const was = this.#at(disk);
    this.put(disk, content);
    const name = this.diskName(disk)!;
    this.#done(name, content, () => (was ? this.files.set(name, was) : this.files.delete(name)));
    return { outcome: 'done' };
  }

  async remove(disk: string, expected: string): Promise<LocalOutcome> {
    await this.turn();
    if (!this.#is(disk, expected)) return { outcome: 'changed' };
    const name = this.diskName(disk)!;
    const was = this.files.get(name)!;
    this.files.delete(name);
    this.#done(name, undefined, () => this.files.set(name, was));
    return { outcome: 'done' };
  }

  async move(disk: string, to: string, expected: string): Promise<LocalOutcome> {
    await this.turn();
    if (!this.#is(disk, expected)) return { outcome: 'changed' };
    const name = this.diskName(disk)!;
    const other = this.diskName(to);
    if (other !== undefined && other !== name) return { outcome: 'changed' };
    const content = this.files.get(name)!;
    this.files.delete(name);
    this.put(to, content);
    const moved = this.diskName(to)!;
    this.#done(moved, content, () => {
      if (moved !== name && this.diskName(name) !== undefined && this.diskName(name) !== moved) return;
      this.files.delete(moved);
      this.files.set(name, content);
    });
    return { outcome: 'done' };
  }

  async flush(): Promise<void> {
    await this.turn();
    this.#unflushed = [];
  }

  async keep(_disk: string, content: Uint8Array): Promise<void> {
    await this.turn();
    this.trash.push(content);
  }

  isIgnored(path: string): boolean {
    return path.startsWith('private/');
  }

  /** Remembers what was done: `name` holds `content` now. */
  #done(name: string, content: Uint8Array | undefined, undo: () => void): void {
    this.#unflushed.push({ canUndo: () => this.#at(name) === content, undo });
  }

  #at(disk: string): Uint8Array | undefined {
    const name = this.diskName(disk);
    return name === undefined ? undefined : this.files.get(name);
  }

  #is(disk: string, expected: string | null): boolean {
    const content = this.#at(disk);
    return content ? hashOf(content) === expected : expected === null;
  }
}
