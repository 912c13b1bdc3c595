import { pathKey, syncPath } from '@atomo-cc/sync-protocol';
import { hashOf } from '../content.js';
import type { LocalFiles, LocalOutcome, Scan } from '../ports.js';

/** What the file system of a device does to names. */
export type NameRules = 'exact' | 'ignores-case' | 'decomposes';

/** Something that was done to one name and may be lost in a power cut, and how to take it back. */
interface Doing {
  readonly by: 'client' | 'user';
  readonly name: string;
  /** What was there before and is there since. */
  readonly was: Uint8Array | undefined;
  readonly is: Uint8Array | undefined;
  readonly undo: () => void;
}

/** A folder in memory, with the file system's view of names: `A.md` may be `a.md`, and é may come back as two characters. */
export class ModelFolder implements LocalFiles {
  readonly files = new Map<string, Uint8Array>();
  /** What `keep` was asked to keep. What `remove` takes away is in the store's history, and is not kept here. */
  readonly trash: Uint8Array[] = [];
  /** The database was lost while the client was at work: until it hears of that, what it removes may be in no history. */
  isStale = false;
  /** What was removed meanwhile; a real folder has it in its trash. */
  readonly removedWhileStale: Uint8Array[] = [];
  #unflushed: Doing[] = [];
  #relied = new Set<string>();

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

  /** A user's own writing, at once. Editors do not wait until it is on disk. */
  put(path: string, content: Uint8Array): void {
    this.#put('user', path, content);
  }

  /** A user moves a file to where nothing else is. */
  rename(name: string, to: string): void {
    this.#rename('user', name, to);
  }

  /** A user deletes a file. */
  delete(name: string): void {
    this.#delete('user', name);
  }

  /**
   * Loses some of what was done and not flushed; none of it hangs on what came before. Answers what is not in the folder any
   * more of what users wrote.
   */
  powerCut(isLost: () => boolean): Uint8Array[] {
    const lost: Uint8Array[] = [];
    for (const { by, name, is, undo } of this.#unflushed.reverse()) {
      if (!isLost() || this.#at(name) !== is) continue;
      undo();
      if (by === 'user' && is) lost.push(is);
    }
    this.#unflushed = [];
    this.#relied.clear();
    return lost;
  }

  /** What a power cut would leave of what is here, at worst; users' work counts as it is. */
  durable(): Uint8Array[] {
    const written = this.#unflushed.filter(({ by }) => by === 'client');
    const all = [...this.files.values(), ...written.flatMap(({ was }) => (was ? [was] : []))];
    const volatile = new Set(written.map(({ is }) => is));
    return all.filter((content) => !volatile.has(content));
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
    this.#put('client', disk, content);
    return { outcome: 'done' };
  }

  async remove(disk: string, expected: string): Promise<LocalOutcome> {
    await this.turn();
    if (!this.#is(disk, expected)) return { outcome: 'changed' };
    if (this.isStale) this.removedWhileStale.push(this.#at(disk)!);
    this.#delete('client', this.diskName(disk)!);
    return { outcome: 'done' };
  }

  async move(disk: string, to: string, expected: string): Promise<LocalOutcome> {
    await this.turn();
    if (!this.#is(disk, expected)) return { outcome: 'changed' };
    const name = this.diskName(disk)!;
    const other = this.diskName(to);
    if (other !== undefined && other !== name) return { outcome: 'changed' };
    this.#rename('client', name, to);
    return { outcome: 'done' };
  }

  rely(disk: string): void {
    this.#relied.add(disk);
  }

  async flush(): Promise<void> {
    await this.turn();
    // Under whichever name it was written: what is flushed is the file.
    const flushed = new Set([...this.#relied].map((disk) => this.#at(disk)));
    this.#unflushed = this.#unflushed.filter(
      ({ by, name, is }) => by === 'user' && !this.#isRelied(name) && !(is && flushed.has(is)),
    );
    this.#relied.clear();
  }

  async keep(_disk: string, content: Uint8Array): Promise<void> {
    await this.turn();
    this.trash.push(content);
  }

  isIgnored(path: string): boolean {
    return path.startsWith('private/');
  }

  #put(by: Doing['by'], path: string, content: Uint8Array): void {
    const name = this.diskName(path) ?? (this.rules === 'decomposes' ? path.normalize('NFD') : path);
    const was = this.files.get(name);
    this.files.set(name, content);
    // The file may have got another spelling of its name since; it is still one file.
    const undo = () => {
      const now = this.diskName(name) ?? name;
      if (was) this.files.set(now, was);
      else this.files.delete(now);
    };
    this.#unflushed.push({ by, name, was, is: content, undo });
  }

  #delete(by: Doing['by'], name: string): void {
    const was = this.files.get(name)!;
    this.files.delete(name);
    this.#unflushed.push({ by, name, was, is: undefined, undo: () => this.files.set(name, was) });
  }

  #rename(by: Doing['by'], from: string, to: string): void {
    const content = this.files.get(from)!;
    this.files.delete(from);
    const name = this.rules === 'decomposes' ? to.normalize('NFD') : to;
    this.files.set(name, content);
    const undo = () => {
      const now = this.diskName(name) ?? name;
      const there = this.diskName(from);
      if (there !== undefined && there !== now) return;
      this.files.delete(now);
      this.files.set(from, content);
    };
    this.#unflushed.push({ by, name, was: content, is: content, undo });
  }

  #isRelied(name: string): boolean {
    return [...this.#relied].some((disk) => this.diskName(disk) === name || disk === name);
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
