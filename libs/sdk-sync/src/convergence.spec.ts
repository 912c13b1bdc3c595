import fc from 'fast-check';
import { hashOf, textOf } from './content.js';
import { keyOf, localTree } from './plan.js';
import type { ConflictPolicy } from './merge.js';
import { ModelDevice } from './testing/model-device.js';
import type { NameRules } from './testing/model-folder.js';
import { ModelStore } from './testing/model-store.js';

/** How many worlds, how long each, and where the series begins: for long runs by hand. */
const RUNS = Number(process.env['SYNC_MODEL_RUNS'] ?? 200);
const STEPS = Number(process.env['SYNC_MODEL_STEPS'] ?? 250);
const SEED = Number(process.env['SYNC_MODEL_SEED'] ?? Date.now() % 2 ** 31);

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
const POLICIES: ConflictPolicy[] = ['copy', 'copy', 'markers', 'mine', 'theirs'];
const RULES: NameRules[] = ['exact', 'ignores-case', 'decomposes'];

/** One decision of the world: what happens next, to whom, and how. */
type Decision = readonly [what: number, who: number, how: number];

class World {
  readonly store = new ModelStore((page) => this.devices.forEach((device) => device.inbox.push(page)));
  readonly devices: ModelDevice[] = [];
  readonly typed: string[] = [];
  /** Tokens that a user took away on purpose, or that went with a database that was lost. */
  readonly excused = new Set<string>();
  #now = 1_800_000_000_000;

  constructor(policies: readonly ConflictPolicy[]) {
    policies.forEach((onConflict, index) => {
      this.devices.push(
        new ModelDevice(this.store, {
          device: `device ${index}`,
          onConflict,
          massDelete: 'allow',
          rules: RULES[index % RULES.length]!,
          clock: { now: () => (this.#now += 1) },
        }),
      );
    });
  }

  async decide([what, who, how]: Decision): Promise<void> {
    const device = this.devices[who % this.devices.length]!;
    const kind = what % 100;
    if (kind < 55) await device.step();
    else if (kind < 78) this.edit(device, how);
    else if (kind < 81) device.isOnline = false;
    else if (kind < 86) device.reconnect();
    else if (kind < 90) await device.crash();
    else if (kind < 97) this.deliver(device, how);
    else if (kind < 98) this.store.prune();
    else if (how % 6 === 0) this.restart(how);
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

  restart(how: number): void {
    this.store.restart(how % 4 < 2);
    const kept = this.kept();
    for (const token of this.typed) if (!kept.has(token)) this.excused.add(token);
  }

  edit({ folder }: ModelDevice, how: number): void {
    const path = PATHS[how % PATHS.length]!;
    const way = Math.floor(how / 16) % 12;
    const pick = Math.floor(how / 256);
    const name = folder.diskName(path);
    const old = name === undefined ? undefined : folder.files.get(name);
    if (way >= 9 && old) {
      if (way === 9) {
        this.excuse(old);
        folder.files.delete(name!);
        return;
      }
      const to = way === 10 ? PATHS[pick % PATHS.length]! : swapCase(path);
      const there = folder.diskName(to);
      if (there !== undefined && there !== name) return;
      folder.files.delete(name!);
      folder.put(to, old);
      return;
    }
    const token = `t${this.typed.length}q`;
    this.typed.push(token);
    const text = old ? textOf(old) : '';
    if (path.endsWith('.bin') || text === null) {
      if (old) this.excuse(old);
      folder.put(path, Buffer.from(`\0${token} `));
      return;
    }
    const lines = text.split('\n');
    const line = pick % lines.length;
    if (way < 4) lines.splice(line, 0, token);
    else if (way < 7) lines[line] = insertWord(lines[line]!, token, pick);
    else if (way === 7) lines.push(`${token} ${'long '.repeat(50)}`);
    else {
      this.excuse(Buffer.from(lines[line]!));
      lines[line] = token;
    }
    folder.put(path, Buffer.from(lines.join('\n')));
  }

  excuse(content: Uint8Array): void {
    for (const token of tokensIn(content)) this.excused.add(token);
  }

  /** All tokens that somebody can still find. */
  kept(): Set<string> {
    const contents = [
      ...this.store.blobs.values(),
      ...this.devices.flatMap(({ folder }) => [...folder.files.values(), ...folder.trash]),
    ];
    return new Set(contents.flatMap(tokensIn));
  }

  /** Everything works again; the devices sync until nothing moves any more. */
  async heal(): Promise<void> {
    for (let pass = 0, quiet = 0; quiet < 2; pass++) {
      if (pass > 30)
        throw new Error(`does not come to rest: ${JSON.stringify(this.devices.map((each) => each.events.slice(-6)))}`);
      const before = this.picture();
      for (const device of this.devices) {
        device.reconnect();
        await device.sync();
      }
      quiet = this.picture() === before ? quiet + 1 : 0;
    }
  }

  picture(): string {
    return JSON.stringify([
      this.store.epoch,
      this.store.seq,
      this.devices.map((each) => [...each.folder.files.keys()]),
    ]);
  }

  get steps(): number {
    return this.devices.reduce((sum, device) => sum + device.steps, 0);
  }
}

function expectConvergence(world: World): void {
  const names = (files: Iterable<readonly [string, { path: string; hash: string }]>) =>
    [...files].map(([key, { path, hash }]) => `${key} as ${path.split('/').at(-1)} ${hash}`).sort();
  const live = names(world.store.files);
  for (const device of world.devices) {
    expect(device.failure).toBeUndefined();
    expect(device.report?.isSettled).toBe(true);
    const files = [...device.folder.files].filter(([disk]) => !device.folder.isIgnored(disk));
    const scan = {
      blocked: [],
      files: files.map(([disk, content]) => ({ disk, hash: hashOf(content), size: content.length })),
    };
    const tree = localTree(scan, { base: world.store.files, remote: world.store.files });
    expect(names(tree.files)).toEqual(live);
    expect(world.store.files.has(keyOf('private/p.md'))).toBe(false);
  }
  const kept = world.kept();
  expect(world.typed.filter((token) => !kept.has(token) && !world.excused.has(token))).toEqual([]);
  if (world.devices.some((device) => device.options.onConflict === 'markers')) return;
  // No edit was merged twice.
  for (const { hash } of world.store.files.values()) {
    const found = tokensIn(world.store.blobs.get(hash)!);
    expect(found.filter((token, index) => found.indexOf(token) !== index)).toEqual([]);
  }
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

describe('devices that edit, move, lose connection and crash at any step', () => {
  it(`all end with the same files and every token that was typed (seed ${SEED}, ${RUNS} runs)`, async () => {
    let steps = 0;
    let typed = 0;
    const decision = fc.tuple(fc.nat(99), fc.nat(9), fc.nat(1 << 20));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...POLICIES), { minLength: 2, maxLength: 4 }),
        fc.array(decision, { maxLength: STEPS, size: 'max' }),
        async (policies, decisions) => {
          const world = new World(policies);
          for (const each of decisions) {
            await world.decide(each);
            steps += 1;
          }
          const before = world.steps;
          await world.heal();
          steps += world.steps - before;
          typed += world.typed.length;
          expectConvergence(world);
        },
      ),
      { numRuns: RUNS, seed: SEED, endOnFailure: process.env['SYNC_MODEL_SHRINK'] === 'no' },
    );
    if (process.env['SYNC_MODEL_RUNS']) process.stdout.write(`${steps} steps, ${typed} tokens, seed ${SEED}\n`);
  }, 3_600_000);
});
