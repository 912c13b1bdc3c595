import { constants } from 'node:fs';
import fs from 'node:fs/promises';
import path from 'node:path';
import type { Stats } from 'node:fs';
import ignore, { type Ignore } from 'ignore';
import { hashOf } from '../content.js';
import { clientError } from '../errors.js';
import type { LocalFiles, LocalOutcome, Scan } from '../ports.js';
import type { Seen } from './sqlite-journal.js';

/** Everything of this client within the folder: journal, files under way, trash. Never synced. */
export const STATE_FOLDER = '.atomo-sync';
/** Patterns of what is not synced, as in a .gitignore. The file itself is synced. */
export const IGNORE_FILE = '.atomoignore';
/** What nobody wants on another device, whatever the ignore file says. */
const ALWAYS_IGNORED = [
  STATE_FOLDER,
  '.git',
  'node_modules',
  '.trash',
  '.DS_Store',
  'Thumbs.db',
  'desktop.ini',
  '.obsidian/workspace*.json',
  '*.tmp',
  '~$*',
];
/**
 * A file that was changed this shortly before its hash was taken is read again next time: a second write within the same tick
 * of the file system's clock would not show in its times.
 */
const UNSETTLED_MS = 2_000;
/** Files read at once in a scan. */
const READERS = 8;
/** Files brought to the disk at once. */
const FLUSHES = 32;

/** Where the hashes of unchanged files are kept. */
export interface SeenFiles {
  seen(): Map<string, Seen>;
  setSeen(changed: ReadonlyMap<string, Seen | null>): void;
}

/** A real folder. What is no ordinary file is skipped with its reason; nothing outside of the folder is ever touched. */
export class DiskFolder implements LocalFiles {
  readonly #seen: Map<string, Seen>;
  /** Files and folders whose change may be in the memory of the system only. */
  readonly #unflushed = new Set<string>();
  #ignore: Ignore;
  /** Which folder this was when it was opened. */
  #identity = '';

  private constructor(
    /** Absolute, without symbolic links. */
    readonly root: string,
    readonly excluded: readonly string[],
    readonly hashes: SeenFiles,
  ) {
    this.#seen = hashes.seen();
    this.#ignore = this.#rules('');
  }

  /** Opens a folder; what a crash left under way is brought to its end first. */
  static async open(root: string, excluded: readonly string[], hashes: SeenFiles): Promise<DiskFolder> {
    const folder = new DiskFolder(await fs.realpath(root), excluded, hashes);
    await fs.mkdir(folder.#state('under-way'), { recursive: true });
    await fs.mkdir(folder.#state('trash'), { recursive: true });
    await folder.#finishReplacements();
    folder.#identity = await folder.#look();
    return folder;
  }

  isIgnored(name: string): boolean {
    return this.#ignore.ignores(name);
  }

  /** @throws CodedError SYNC_FOLDER_UNUSABLE: it is not there, or is another one, as where a disk was taken away */
  async scan(): Promise<Scan> {
    this.#ignore = this.#rules(await fs.readFile(this.#on(IGNORE_FILE), 'utf8').catch(() => ''));
    const found: { disk: string; stat: Stats }[] = [];
    const blocked: Scan['blocked'][number][] = [];
    await this.#walk('', found, blocked);
    // A folder that vanishes looks like one whose files were all deleted.
    if ((await this.#look()) !== this.#identity) {
      throw clientError(
        'SYNC_FOLDER_UNUSABLE',
        `${this.root} is gone, or is not the folder it was. Nothing is deleted in the store; start again when it is back.`,
      );
    }
    const changed = new Map<string, Seen | null>();
    const files: Scan['files'][number][] = [];
    const queue = found.values();
    const read = async () => {
      for (const { disk, stat } of queue) {
        const look = lookOf(stat);
        const known = this.#seen.get(disk);
        if (known?.stat === look) {
          files.push({ disk, hash: known.hash, size: stat.size });
          continue;
        }
        const taken = await this.#hash(disk);
        if (typeof taken === 'string') blocked.push({ disk, reason: taken, isFolder: false });
        else if (taken) {
          files.push({ disk, hash: taken.hash, size: taken.size });
          if (taken.seen) changed.set(disk, taken.seen);
          else if (known) changed.set(disk, null);
        }
      }
    };
    await Promise.all(Array.from({ length: READERS }, read));
    const there = new Set(found.map(({ disk }) => disk));
    for (const disk of this.#seen.keys()) if (!there.has(disk)) changed.set(disk, null);
    for (const [disk, seen] of changed) {
      if (seen) this.#seen.set(disk, seen);
      else this.#seen.delete(disk);
    }
    if (changed.size > 0) this.hashes.setSeen(changed);
    return { files, blocked };
  }

  async read(disk: string): Promise<Uint8Array | null> {
    return this.#read(this.#on(disk));
  }

  async write(disk: string, content: Uint8Array, expected: string | null): Promise<LocalOutcome> {
    const target = this.#on(disk);
    return this.#tried(async () => {
      const way = await this.#open(path.dirname(target));
      if (way) return way;
      // What replaces something is on disk before it does. A new file may come later, by `flush`.
      const fresh = await this.#underWay(content, expected !== null);
      try {
        if (expected === null) {
          if (isFolder(await fs.lstat(target).catch(() => null))) return FOLDER_THERE;
          // A hard link is made only where nothing is.
          await fs.link(fresh, target).catch(async (error: NodeJS.ErrnoException) => {
            if (!LINKLESS.has(error.code ?? '')) throw error;
            await fs.copyFile(fresh, target, constants.COPYFILE_EXCL);
          });
          this.#unflushed.add(target).add(path.dirname(target));
          return DONE;
        }
        return await this.#replace(target, fresh, expected);
      } finally {
        await fs.rm(fresh, { force: true });
      }
    });
  }

  async remove(disk: string, expected: string): Promise<LocalOutcome> {
    const target = this.#on(disk);
    return this.#tried(async () => {
      const content = await this.#read(target);
      if (!content || hashOf(content) !== expected) return CHANGED;
      const trashed = await this.#trashed(disk);
      await fs.rename(target, trashed);
      // What was written in the moment between is in the trash now: it comes back, and is an edit.
      const moved = await this.#read(trashed);
      if (moved && hashOf(moved) !== expected) {
        await fs.link(trashed, target).catch(() => undefined);
        return CHANGED;
      }
      this.#unflushed.add(path.dirname(target)).add(path.dirname(trashed));
      await this.#prune(path.dirname(target));
      return DONE;
    });
  }

  async move(disk: string, to: string, expected: string): Promise<LocalOutcome> {
    const [from, target] = [this.#on(disk), this.#on(to)];
    return this.#tried(async () => {
      const content = await this.#read(from);
      if (!content || hashOf(content) !== expected) return CHANGED;
      const way = await this.#open(path.dirname(target));
      if (way) return way;
      const [there, here] = [await fs.lstat(target).catch(() => null), await fs.lstat(from)];
      if (isFolder(there)) return FOLDER_THERE;
      // On a disk that ignores case the target of a change of case is the file itself.
      if (there && (there.ino !== here.ino || there.dev !== here.dev)) return CHANGED;
      await fs.rename(from, target);
      this.#unflushed.add(path.dirname(target)).add(path.dirname(from));
      await this.#prune(path.dirname(from));
      return DONE;
    });
  }

  rely(disk: string): void {
    const place = this.#on(disk);
    this.#unflushed.add(place).add(path.dirname(place));
  }

  async flush(): Promise<void> {
    const places = [...this.#unflushed].values();
    this.#unflushed.clear();
    // Side by side they share the commits of the file system's own journal.
    const lane = async () => {
      for (const place of places) await flushed(place);
    };
    await Promise.all(Array.from({ length: FLUSHES }, lane));
  }

  async keep(disk: string, content: Uint8Array): Promise<void> {
    const place = await this.#trashed(disk);
    await this.#written(place, content, true);
    await flushed(path.dirname(place));
  }

  // ── one file ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Puts `fresh` in the place of `target`. The old file gets a second name first, so that a write that comes between the look
   * and the rename is not lost: it is found under that name and comes back as a file beside the new one.
   */
  async #replace(target: string, fresh: string, expected: string): Promise<LocalOutcome> {
    const content = await this.#read(target);
    if (!content || hashOf(content) !== expected) return CHANGED;
    const old = `${fresh}.old`;
    const disk = path.relative(this.root, target);
    await fs.chmod(fresh, (await fs.lstat(target)).mode).catch(() => undefined);
    await fs.writeFile(`${old}.json`, JSON.stringify({ disk, expected }), { flush: true });
    const isLinked = await fs.link(target, old).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (LINKLESS.has(error.code ?? '')) return false;
        throw error;
      },
    );
    await fs.rename(fresh, target);
    this.#unflushed.add(path.dirname(target));
    if (isLinked) await this.#rescue(old, disk, expected);
    await fs.rm(`${old}.json`, { force: true });
    return DONE;
  }

  /** A replaced file is thrown away when it holds what was expected, else it is put beside the new one. */
  async #rescue(old: string, disk: string, expected: string): Promise<void> {
    const content = await this.#read(old);
    if (content && hashOf(content) !== expected) {
      const { dir, name, ext } = path.parse(disk);
      await fs.link(old, this.#on(path.join(dir, `${name} (rescued ${hashOf(content).slice(7, 15)})${ext}`)));
    }
    await fs.rm(old, { force: true });
  }

  /** After a crash. */
  async #finishReplacements(): Promise<void> {
    for (const name of await fs.readdir(this.#state('under-way'))) {
      const file = path.join(this.#state('under-way'), name);
      if (name.endsWith('.old.json')) {
        const said = JSON.parse((await fs.readFile(file, 'utf8')) || 'null') as {
          disk: string;
          expected: string;
        } | null;
        const old = file.slice(0, -'.json'.length);
        if (said) await this.#rescue(old, said.disk, said.expected).catch(() => undefined);
      }
    }
    for (const name of await fs.readdir(this.#state('under-way'))) {
      await fs.rm(path.join(this.#state('under-way'), name), { force: true });
    }
  }

  async #underWay(content: Uint8Array, flush: boolean): Promise<string> {
    const file = path.join(this.#state('under-way'), `${process.pid}-${(count += 1)}`);
    await this.#written(file, content, flush);
    return file;
  }

  /** Leaves nothing where there was no room for all of it. */
  async #written(file: string, content: Uint8Array, flush: boolean): Promise<void> {
    try {
      await fs.writeFile(file, content, { flush });
    } catch (error) {
      await fs.rm(file, { force: true });
      throw this.#fault(error);
    }
  }

  #fault(error: unknown): unknown {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
    return clientError('SYNC_DISK_FULL', `The disk of ${this.root} is full (${code}); free some space`, error);
  }

  /** What tells this folder from another one of the same name; the client's own folder in it does not move elsewhere. */
  async #look(): Promise<string> {
    const stat = await fs.lstat(this.#state('')).catch(() => null);
    return stat ? `${stat.dev} ${stat.ino}` : '';
  }

  /** Null when it is not there, or is no ordinary file. Symbolic links are not followed. */
  async #read(file: string): Promise<Buffer | null> {
    let handle: fs.FileHandle | undefined;
    try {
      handle = await fs.open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      return (await handle.stat()).isFile() ? await handle.readFile() : null;
    } catch (error) {
      if (['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')) {
        return null;
      }
      throw error;
    } finally {
      await handle?.close();
    }
  }

  /** The hash, or why there is none; undefined when the file is gone. */
  async #hash(disk: string): Promise<{ hash: string; size: number; seen: Seen | null } | string | undefined> {
    try {
      const before = await fs.lstat(this.#on(disk));
      const content = await this.#read(this.#on(disk));
      if (!content) return undefined;
      const stat = lookOf(await fs.lstat(this.#on(disk)));
      const hash = hashOf(content);
      const isSettled = stat === lookOf(before) && Date.now() - Math.max(before.mtimeMs, before.ctimeMs) > UNSETTLED_MS;
      return { hash, size: content.length, seen: isSettled ? { stat, hash } : null };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      return code === 'ENOENT' ? undefined : `It cannot be read (${code}).`;
    }
  }

  // ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  async #walk(
    folder: string,
    found: { disk: string; stat: Stats }[],
    blocked: Scan['blocked'][number][],
  ): Promise<void> {
    let names: string[];
    try {
      names = await fs.readdir(this.#on(folder));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' && folder !== '') return;
      blocked.push({ disk: folder, reason: `The folder cannot be read (${code}).`, isFolder: true });
      return;
    }
    for (const name of names.sort()) {
      const disk = folder === '' ? name : `${folder}/${name}`;
      let stat: Stats;
      try {
        stat = await fs.lstat(this.#on(disk));
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== 'ENOENT') blocked.push({ disk, reason: `It cannot be looked at (${code}).`, isFolder: true });
        continue;
      }
      if (this.#ignore.ignores(stat.isDirectory() ? `${disk}/` : disk)) continue;
      if (stat.isDirectory()) await this.#walk(disk, found, blocked);
      else if (stat.isFile()) found.push({ disk, stat });
      else {
        const kind = stat.isSymbolicLink() ? 'a symbolic link' : 'no ordinary file';
        blocked.push({ disk, reason: `It is ${kind}; only files and folders are synced.`, isFolder: true });
      }
    }
  }

  /** Makes a folder inside of the root; refused where a file or a symbolic link is in the way. */
  async #open(folder: string): Promise<LocalOutcome | null> {
    let way = this.root;
    for (const name of path.relative(this.root, folder).split(path.sep).filter(Boolean)) {
      way = path.join(way, name);
      const stat = await fs.lstat(way).catch(() => null);
      if (stat?.isDirectory()) continue;
      if (stat) return { outcome: 'refused', reason: `${path.relative(this.root, way)} is there and is no folder.` };
      await fs.mkdir(way).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
      this.#unflushed.add(path.dirname(way));
    }
    return null;
  }

  /** Folders that became empty go too. */
  async #prune(folder: string): Promise<void> {
    for (let each = folder; each !== this.root && each.startsWith(this.root); each = path.dirname(each)) {
      try {
        await fs.rmdir(each);
      } catch {
        return;
      }
    }
  }

  async #trashed(disk: string): Promise<string> {
    const { name, ext } = path.parse(disk);
    const stamp = new Date().toISOString().replaceAll(':', '-');
    const file = path.join(this.#state('trash'), `${stamp}-${(count += 1)} ${name.slice(0, 100)}${ext.slice(0, 20)}`);
    await fs.mkdir(path.dirname(file), { recursive: true });
    return file;
  }

  /** What the file system cannot do is told as a reason; a full or vanished disk ends the sync. */
  async #tried(work: () => Promise<LocalOutcome>): Promise<LocalOutcome> {
    try {
      return await work();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST' || code === 'ENOENT') return CHANGED;
      if (code !== undefined && REFUSED_BY_DISK.has(code)) {
        return { outcome: 'refused', reason: `This device cannot store it (${code}).` };
      }
      throw this.#fault(error);
    }
  }

  /** The place of a name. Names were checked before; a server that got around that still does not get out of the folder. */
  #on(disk: string): string {
    const place = path.resolve(this.root, disk);
    if (place !== this.root && !place.startsWith(this.root + path.sep))
      throw new Error('a path leads out of the folder');
    return place;
  }

  #state(part: string): string {
    return path.join(this.root, STATE_FOLDER, part);
  }

  #rules(ignoreFile: string): Ignore {
    return ignore({ allowRelativePaths: true })
      .add(ALWAYS_IGNORED)
      .add(ignoreFile)
      .add([...this.excluded])
      .add(STATE_FOLDER);
  }
}

let count = 0;

const DONE: LocalOutcome = { outcome: 'done' };
const CHANGED: LocalOutcome = { outcome: 'changed' };
/** Looking again would not help: folders are in no scan, so the next plan would be the same. */
const FOLDER_THERE: LocalOutcome = { outcome: 'refused', reason: 'A folder of this name is here.' };
/** File systems without hard links. */
const LINKLESS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV']);
/** What is wrong with one file, and not with the disk. */
const REFUSED_BY_DISK: ReadonlySet<string> = new Set([
  'EACCES',
  'EPERM',
  'ENAMETOOLONG',
  'EINVAL',
  'EILSEQ',
  'ENOTDIR',
  'EISDIR',
  'ENOTEMPTY',
  'EBUSY',
  'ETXTBSY',
  'EXDEV',
]);

function isFolder(stat: Stats | null): boolean {
  return stat?.isDirectory() ?? false;
}

/** A file looks the same when these are the same. */
function lookOf({ size, mtimeMs, ctimeMs, ino }: Stats): string {
  return `${size} ${mtimeMs} ${ctimeMs} ${ino}`;
}

/** A new name is on disk only when its folder is. What is gone by now needs nothing. */
async function flushed(place: string): Promise<void> {
  const handle = await fs
    .open(place, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    .catch(() => null);
  try {
    await handle?.sync();
  } catch (error) {
    // Some file systems cannot do that for folders.
    if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw error;
  } finally {
    await handle?.close();
  }
}
