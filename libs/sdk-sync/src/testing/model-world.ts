import { hashOf, textOf } from '../content.js';
import type { ConflictPolicy } from '../merge.js';
import { keyOf, localTree } from '../plan.js';
import { ModelDevice } from './model-device.js';
import type { NameRules } from './model-folder.js';
import { ModelStore, type StoreOp, type StoreRules } from './model-store.js';

const PATHS = [
  'a.md',
  'b.md',
  'B.md',
  'notes/c.md',
  'notes/C.md',
  'résumé.md',
  'x/y/z.md',
  'image.bin',
  'private/p.md',
];
const FOLDERS = ['notes', 'x', 'x/y', 'Notes'];
const RULES: NameRules[] = ['exact', 'ignores-case', 'decomposes'];
/** Passes over all devices until nothing moves any more; more than that is a quarrel without end. */
const PASSES = 30;

/** One decision of the world: what happens next (0 to 99), to whom, and how. */
export type Decision = readonly [what: number, who: number, how: number];

/**
 * Devices, a store, users who type tokens and a network and machines that fail, one decision after the other. The same
 * decisions make the same world.
 */
export class ModelWorld {
  readonly store: ModelStore;
  readonly devices: ModelDevice[];
  readonly typed: string[] = [];
  /** Tokens that a user took away on purpose, or that went with a database that was lost or a history that was over. */
  readonly excused = new Set<string>();
  #now = 1_800_000_000_000;
  #ops = 0;
  /** Decisions, and at rest the steps that the devices took to get there. */
  steps = 0;

  /** @param rules how the store decides; left out, as the model of protocol 2 does */
  constructor(policies: readonly ConflictPolicy[], rules?: StoreRules) {
    this.store = new ModelStore((page) => this.devices.forEach((device) => device.inbox.push(page)), rules);
    this.devices = policies.map(
      (onConflict, index) =>
        new ModelDevice(this.store, {
          device: `device ${index}`,
          onConflict,
          massDelete: 'allow',
          rules: RULES[index % RULES.length]!,
          clock: { now: () => (this.#now += 1) },
        }),
    );
  }

  async decide([what, who, how]: Decision): Promise<void> {
    this.steps += 1;
    const device = this.devices[who % this.devices.length]!;
    if (what < 54) await device.step();
    else if (what < 75) this.edit(device, how);
    else if (what < 78) device.isOnline = false;
    else if (what < 83) device.reconnect();
    else if (what < 86) await device.crash();
    else if (what < 88) await this.cutPower(device, how);
    else if (what < 94) this.deliver(device, how);
    else if (what < 97) this.writeElsewhere(how);
    else if (what < 98) this.restartGateway(how);
    else if (what < 99) this.forget(how);
    else if (how % 6 === 0) this.loseDatabase(how);
    else this.store.backUp();
  }

  /** A page arrives: any that was sent, in any order, perhaps not for the last time, perhaps never. */
  deliver(device: ModelDevice, how: number): void {
    if (device.inbox.length === 0) return;
    const index = how % device.inbox.length;
    const fate = Math.floor(how / 7) % 4;
    if (fate > 0) device.deliver(device.inbox[index]!);
    if (fate !== 3) device.inbox.splice(index, 1);
  }

  /** Every connection ends, with what is under way on it; who comes back at once finds the same store. */
  restartGateway(how: number): void {
    const isBack = bitsOf(how);
    for (const device of this.devices) {
      device.isOnline = false;
      device.inbox.length = 0;
      if (isBack()) device.reconnect();
    }
  }

  forget(how: number): void {
    if (how % 4 > 0) return this.store.prune();
    // A device may still have such a content, and take it away later for a good reason.
    for (const content of this.store.expire()) this.#excuse(content);
  }

  loseDatabase(how: number): void {
    this.store.restart(how % 4 < 2);
    this.#excuseLost();
    for (const { folder, isRunning } of this.devices) if (isRunning) folder.isStale = true;
  }

  /** What was typed in the last moments may be gone, but not once the store has it. */
  async cutPower(device: ModelDevice, how: number): Promise<void> {
    const stored = new Set([...this.store.blobs.values()].flatMap(tokensIn));
    for (const content of await device.powerCut(bitsOf(how))) {
      for (const token of tokensIn(content)) if (!stored.has(token)) this.excused.add(token);
    }
  }

  /** What a user does in a device's folder, at any moment. */
  edit({ folder }: ModelDevice, how: number): void {
    const path = PATHS[how % PATHS.length]!;
    const way = Math.floor(how / 16) % 13;
    const pick = Math.floor(how / 256);
    const name = folder.diskName(path);
    const old = name === undefined ? undefined : folder.files.get(name);
    if (way === 12) return this.#moveFolder(folder, pick);
    if (way >= 9 && old) {
      if (way === 9) {
        this.#excuse(old);
        folder.delete(name!);
        return;
      }
      const to = way === 10 ? PATHS[pick % PATHS.length]! : swapCase(path);
      const there = folder.diskName(to);
      if (there !== undefined && there !== name) return;
      folder.rename(name!, to);
      return;
    }
    const text = old ? textOf(old) : '';
    if (path.endsWith('.bin') || text === null) {
      if (old) this.#excuse(old);
      folder.put(path, Buffer.from(`\0${this.#token()} `));
      return;
    }
    const token = this.#token();
    const lines = text.split('\n');
    const line = pick % lines.length;
    if (way < 4) lines.splice(line, 0, token);
    else if (way < 7) lines[line] = insertWord(lines[line]!, token, pick);
    else if (way === 7) lines.push(`${token} ${'long '.repeat(50)}`);
    else {
      this.#excuse(Buffer.from(lines[line]!));
      lines[line] = token;
    }
    folder.put(path, Buffer.from(lines.join('\n')));
  }

  /** All files below a folder at once, where that overwrites nothing. */
  #moveFolder(folder: ModelDevice['folder'], pick: number): void {
    const from = FOLDERS[pick % FOLDERS.length]!;
    const to = FOLDERS[Math.floor(pick / FOLDERS.length) % FOLDERS.length]!;
    if (from === to || to.startsWith(`${from}/`)) return;
    const below = [...folder.files].filter(([name]) => name.startsWith(`${from}/`));
    for (const [name] of below) {
      const moved = `${to}${name.slice(from.length)}`;
      if (![name, undefined].includes(folder.diskName(moved))) continue;
      folder.rename(name, moved);
    }
  }

  /** A client without memory, as those of protocol 1 and REST are: the last one wins, and folders move as a whole. */
  writeElsewhere(how: number): void {
    const path = PATHS[how % (PATHS.length - 1)]!;
    const pick = Math.floor(how / 256);
    const folder = FOLDERS[pick % FOLDERS.length]!;
    const op = (wanted: Omit<StoreOp, 'opId'>) => {
      const before = new Set([...this.store.files.values()].map(({ hash }) => hash));
      const { success } = this.store.push({ opId: `elsewhere-${(this.#ops += 1)}`, ...wanted });
      for (const { hash } of this.store.files.values()) before.delete(hash);
      // What it replaced or deleted it meant to.
      for (const hash of before) this.#excuse(this.store.blobs.get(hash)!);
      return success;
    };
    const way = Math.floor(how / 16) % 8;
    if (way < 4) {
      // In the words of who is there: another case of a name that is taken is refused.
      const content = Buffer.from(`${this.#token()}\n${pick % 3 === 0 ? 'and more\n' : ''}`);
      const wanted = { op: 'put', path, hash: hashOf(content), size: content.length, content } as const;
      if (!op(wanted)) this.#excuse(content);
    } else if (way < 5) op({ op: 'delete', path });
    else if (way < 6) op({ op: 'rename', path, newPath: PATHS[pick % (PATHS.length - 1)]! });
    else if (way < 7) op({ op: 'rename-folder', path: folder, newPath: FOLDERS[(pick + 1) % FOLDERS.length]! });
    else op({ op: 'delete-folder', path: folder });
  }

  /** Everything works again; the devices sync until nothing moves any more. @throws Error when they never come to rest */
  async heal(): Promise<void> {
    const before = this.#deviceSteps();
    for (let pass = 0, quiet = 0; quiet < 2; pass++) {
      if (pass > PASSES) {
        const last = this.devices.map((each) => each.events.slice(-6));
        throw new Error(`does not come to rest: ${JSON.stringify(last)}`);
      }
      const picture = this.#picture();
      for (const device of this.devices) {
        device.reconnect();
        await device.sync();
      }
      quiet = this.#picture() === picture ? quiet + 1 : 0;
    }
    this.steps += this.#deviceSteps() - before;
  }

  /** What is wrong with a world at rest; nothing should be. */
  faults(): string[] {
    const faults: string[] = [];
    for (const { folder } of this.devices) for (const content of folder.removedWhileStale) this.#excuse(content);
    const names = (files: Iterable<readonly [string, { path: string; hash: string }]>) =>
      [...files].map(([key, { path, hash }]) => `${key} as ${path.split('/').at(-1)} ${hash.slice(0, 15)}`).sort();
    const live = names(this.store.files).join('\n');
    for (const device of this.devices) {
      const { device: name } = device.options;
      if (device.failure) faults.push(`${name} failed: ${String((device.failure as Error).stack ?? device.failure)}`);
      if (!device.report?.isSettled) faults.push(`${name} is not settled`);
      const files = [...device.folder.files].filter(([disk]) => !device.folder.isIgnored(disk));
      const scan = {
        blocked: [],
        files: files.map(([disk, content]) => ({ disk, hash: hashOf(content), size: content.length })),
      };
      const tree = localTree(scan, { base: this.store.files, remote: this.store.files });
      const own = names(tree.files).join('\n');
      if (own !== live) faults.push(`${name} has\n${own}\nand the store has\n${live}`);
    }
    if (this.store.files.has(keyOf('private/p.md'))) faults.push('an ignored file was sent');
    for (const { events, options } of this.devices) {
      if (events.some(({ what }) => what === 'repaired')) faults.push(`${options.device} was wrong about the store`);
    }
    const isDecidedForOneSide = this.devices.some(({ options }) => ['mine', 'theirs'].includes(options.onConflict));
    // Where no policy gives a side up, history and trash are for what users themselves took away.
    const kept = isDecidedForOneSide ? this.#kept() : this.#live();
    for (const token of this.typed) {
      if (!kept.has(token) && !this.excused.has(token)) faults.push(`the token ${token} is lost`);
    }
    if (this.devices.some((device) => device.options.onConflict === 'markers')) return faults;
    for (const { path, hash } of this.store.files.values()) {
      const found = tokensIn(this.store.blobs.get(hash)!);
      const twice = found.filter((token, index) => found.indexOf(token) !== index);
      if (twice.length > 0) faults.push(`${path} has ${twice.join()} twice: an edit was merged twice`);
    }
    return faults;
  }

  #token(): string {
    const token = `t${this.typed.length}q`;
    this.typed.push(token);
    return token;
  }

  #excuse(content: Uint8Array): void {
    for (const token of tokensIn(content)) this.excused.add(token);
  }

  #excuseLost(): void {
    const contents = this.devices.flatMap(({ folder }) => [...folder.durable(), ...folder.trash]);
    const kept = new Set([...this.store.blobs.values(), ...contents].flatMap(tokensIn));
    for (const token of this.typed) if (!kept.has(token)) this.excused.add(token);
  }

  /** All tokens that somebody can still find. */
  #kept(): Set<string> {
    const trash = this.devices.flatMap(({ folder }) => folder.trash);
    return this.#live().union(new Set([...this.store.blobs.values(), ...trash].flatMap(tokensIn)));
  }

  /** Those that are in files, conflict copies among them. */
  #live(): Set<string> {
    const files = this.devices.flatMap(({ folder }) => [...folder.files.values()]);
    const stored = [...this.store.files.values()].map(({ hash }) => this.store.blobs.get(hash)!);
    return new Set([...files, ...stored].flatMap(tokensIn));
  }

  #picture(): string {
    const { epoch, seq } = this.store;
    return JSON.stringify([epoch, seq, this.devices.map((each) => [...each.folder.files.keys()])]);
  }

  #deviceSteps(): number {
    return this.devices.reduce((sum, device) => sum + device.steps, 0);
  }
}

/** The bits of a number, one after the other and over again. */
function bitsOf(number: number): () => boolean {
  let place = 0;
  return () => ((number >> (place++ % 20)) & 1) === 1;
}

function tokensIn(content: Uint8Array): string[] {
  return Buffer.from(content).toString().match(/t\d+q/g) ?? [];
}

function insertWord(line: string, word: string, pick: number): string {
  const words = line === '' ? [] : line.split(' ');
  words.splice(pick % (words.length + 1), 0, word);
  return words.join(' ');
}

function swapCase(path: string): string {
  const slash = path.lastIndexOf('/') + 1;
  const first = path[slash]!;
  const swapped = first === first.toLowerCase() ? first.toUpperCase() : first.toLowerCase();
  return path.slice(0, slash) + swapped + path.slice(slash + 1);
}
