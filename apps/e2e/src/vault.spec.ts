import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { aCable, type Cable } from '@atomo-cc/testing';
import { eventually } from './clients.js';
import { Protocol1Client } from './protocol1-client.js';
import { ROOT, runCommand } from './system.js';
import { theSystem } from './the-system.js';

const SOON_MS = 60_000;
const TEST_MS = 300_000;

describe('npm run vault', () => {
  let url: string;
  let key: string;
  let storeId: string;
  let cable: Cable;
  const roots: string[] = [];
  const running: RunningVault[] = [];

  const admin = async (route: string, body: object): Promise<Record<string, string>> => {
    const response = await fetch(`${url}/api/v1/admin/stores${route}`, {
      method: 'POST',
      headers: { 'x-api-key': 'sk_admin_dev', 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return (await response.json()) as Record<string, string>;
  };
  beforeAll(() => {
    url = theSystem().services['sync-gateway'].url;
  });
  beforeEach(async () => {
    const store = await admin('', { name: 'vault' });
    storeId = store['id']!;
    key = (await admin(`/${storeId}/keys`, { name: 'laptop', permissions: ['read', 'write'] }))['key']!;
    cable = await aCable(url);
  });
  afterEach(async () => {
    await Promise.all(running.splice(0).map((vault) => vault.stop()));
    await cable.close();
    for (const root of roots.splice(0)) fs.rmSync(root, { recursive: true, force: true });
  });

  const aFolder = () => {
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'vault-e2e-'));
    roots.push(root);
    return root;
  };
  const start = async (root: string, device: string, server = url) => {
    const vault = new RunningVault(['sync', root, '--server', server, '--key', key, '--device', device]);
    running.push(vault);
    await eventually(`${device} runs`, () => vault.output.includes('is kept the same'), SOON_MS);
    return vault;
  };
  const once = (root: string, ...more: string[]) =>
    runCommand(
      'npm',
      ['run', 'vault', '--', 'sync', root, '--server', url, '--key', key, '--once', ...more],
      process.env,
    );
  const write = (root: string, name: string, text: string) => {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    fs.writeFileSync(path.join(root, name), text);
  };
  const same = (...sides: (string | Map<string, string>)[]) => {
    const [first, ...others] = sides.map((side) =>
      JSON.stringify(typeof side === 'string' ? filesOf(side) : sorted(side)),
    );
    return others.every((other) => other === first);
  };

  it(
    'keeps two folders equal through edits on both sides, a cut, a change of case, an offline delete and a conflict',
    async () => {
      const [a, b] = [aFolder(), aFolder()];
      write(a, 'Note.md', 'one\ntwo\nthree\n');
      write(a, 'notes/other.md', 'other\n');
      write(a, 'image.bin', '\0binary');
      const first = await start(a, 'laptop');
      let second = await start(b, 'phone', cable.url);
      await eventually('the files arrive', () => filesOf(b)['image.bin'] !== undefined && same(a, b), SOON_MS);

      write(b, 'Note.md', 'one\ntwo\n3\n');
      await eventually('an edit arrives', () => filesOf(a)['Note.md'] === 'one\ntwo\n3\n', SOON_MS);

      fs.renameSync(path.join(a, 'Note.md'), path.join(a, 'note.md'));
      await eventually('a change of case arrives', () => filesOf(b)['note.md'] !== undefined && same(a, b), SOON_MS);

      cable.cut();
      await eventually('the cut is told', () => second.output.includes('offline'), SOON_MS);
      write(a, 'note.md', '1\ntwo\n3\n');
      write(b, 'note.md', 'one\ntwo\n3\nfour\n');
      write(b, 'notes/other.md', 'other, on the phone\n');
      write(a, 'notes/other.md', 'other, on the laptop\n');
      await eventually('the laptop has sent its edits', () => first.count('uploaded') >= 5, SOON_MS);
      cable.mend();
      const merged = () => filesOf(a)['note.md'] === '1\ntwo\n3\nfour\n' && Object.keys(filesOf(a)).length === 4;
      await eventually('both edits are merged', () => merged() && same(a, b), SOON_MS);
      expect(filesOf(a)['notes/other.md']).toBe('other, on the laptop\n');
      const copy = Object.keys(filesOf(a)).find((name) => name.includes('(conflict of phone, '))!;
      expect(filesOf(a)[copy]).toBe('other, on the phone\n');
      expect(second.output).toContain(`CONFLICT      notes/other.md: what was written here is in ${copy}`);

      await second.stop();
      expect(second.output).toContain('Stopped.');
      fs.rmSync(path.join(b, 'image.bin'));
      second = await start(b, 'phone');
      await eventually('an offline delete arrives', () => filesOf(a)['image.bin'] === undefined && same(a, b), SOON_MS);
      expect(fs.readdirSync(path.join(a, '.atomo-sync/trash'))).toHaveLength(1);
    },
    TEST_MS,
  );

  it(
    'shares a store with a client of protocol 1',
    async () => {
      const [plugin, folder] = [new Protocol1Client(url, key), aFolder()];
      plugin.files.set('from the plugin.md', 'hello');
      await plugin.connect();
      const vault = await start(folder, 'laptop');
      await plugin.write('daily.md', 'written by the plugin');
      write(folder, 'task.md', 'written in the folder');
      await eventually('both have both', () => plugin.files.size === 3 && same(folder, plugin.files), SOON_MS);
      await plugin.rename('daily.md', 'journal/daily.md');
      fs.rmSync(path.join(folder, 'task.md'));
      await eventually(
        'a rename and a deletion arrive',
        () =>
          plugin.files.size === 2 && filesOf(folder)['journal/daily.md'] !== undefined && same(folder, plugin.files),
        SOON_MS,
      );
      plugin.disconnect();
      await vault.stop();
      // Away, the plugin edits; the folder's deletion reaches it as a tombstone.
      fs.rmSync(path.join(folder, 'from the plugin.md'));
      expect((await once(folder)).code).toBe(0);
      await plugin.connect();
      expect([...plugin.files]).toEqual([['journal/daily.md', 'written by the plugin']]);
      plugin.disconnect();
    },
    TEST_MS,
  );

  it(
    'goes on after kill -9 in the middle of many files',
    async () => {
      const [a, b] = [aFolder(), aFolder()];
      for (let n = 0; n < 300; n++) write(a, `many/${n}.md`, `file ${n}\n`);
      expect((await once(a)).code).toBe(0);
      const vault = new RunningVault(['sync', b, '--server', url, '--key', key, '--device', 'phone']);
      await eventually('some files are there', () => Object.keys(filesOf(b)).length >= 40, SOON_MS);
      await vault.kill();
      write(b, 'typed meanwhile.md', 'typed');
      expect((await once(b)).code).toBe(0);
      expect((await once(a)).code).toBe(0);
      expect(same(a, b)).toBe(true);
      expect(Object.keys(filesOf(a))).toHaveLength(301);
      expect(fs.readdirSync(path.join(b, '.atomo-sync/under-way'))).toEqual([]);
    },
    TEST_MS,
  );

  it(
    'ends with a sentence when its key is revoked or its folder vanishes, and deletes nothing',
    async () => {
      const [a, b] = [aFolder(), aFolder()];
      for (const name of ['1.md', '2.md', '3.md']) write(a, name, name);
      await once(a);
      const vanishing = await start(b, 'phone');
      await eventually('the files arrive', () => vanishing.output.includes('Both sides are the same'), SOON_MS);
      fs.renameSync(b, `${b}-gone`);
      roots.push(`${b}-gone`);
      fs.mkdirSync(b);
      fs.writeFileSync(path.join(b, 'other.md'), 'what is below a disk that was taken away');
      expect(await vanishing.ended()).toBe(1);
      expect(vanishing.output).toContain('is not the folder it was');
      expect((await once(a)).output).toContain('Nothing to do');

      const revoked = await start(a, 'laptop');
      const listed = await fetch(`${url}/api/v1/admin/stores/${storeId}/keys`, {
        headers: { 'x-api-key': 'sk_admin_dev' },
      });
      const { keys } = (await listed.json()) as { keys: { id: string }[] };
      for (const { id } of keys) {
        await fetch(`${url}/api/v1/admin/stores/${storeId}/keys/${id}`, {
          method: 'DELETE',
          headers: { 'x-api-key': 'sk_admin_dev' },
        });
      }
      expect(await revoked.ended()).toBe(1);
      // Told by the gateway, or by the refusal of what was under way just then.
      expect(revoked.output).toContain('(SYNC_KEY_REFUSED)');
      expect(Object.keys(filesOf(a))).toEqual(['1.md', '2.md', '3.md']);
    },
    TEST_MS,
  );

  it(
    'is of one client at a time, and says in a sentence what is wrong',
    async () => {
      const folder = aFolder();
      await start(folder, 'laptop');
      const busy = await once(folder);
      expect(busy.code).toBe(1);
      expect(busy.output).toContain(`Another client syncs ${fs.realpathSync(folder)}`);
      const wrongKey = await once(aFolder(), '--key', `sk_store_000000_${'x'.repeat(32)}`);
      expect(wrongKey.output).toContain('SYNC_KEY_REFUSED');
      const wrongUrl = await once(aFolder(), '--server', theSystem().services['content-core'].url);
      expect(wrongUrl.output).toContain('is no sync gateway');
    },
    TEST_MS,
  );
});

/** `npm run vault` in the background; Ctrl-C ends it. */
class RunningVault {
  output = '';
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;

  constructor(args: string[]) {
    this.#child = spawn('npm', ['run', 'vault', '--', ...args], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.on('data', (chunk: Buffer) => (this.output += chunk.toString()));
    }
    this.#ended = new Promise((done) => this.#child.once('close', done));
  }

  count(word: string): number {
    return this.output.split('\n').filter((line) => line.startsWith(word)).length;
  }

  /** Its exit code, once it has ended. */
  async ended(): Promise<number | null> {
    await this.#ended;
    return this.#child.exitCode;
  }

  /** kill -9, npm and its shell included. */
  async kill(): Promise<void> {
    process.kill(-this.#child.pid!, 'SIGKILL');
    await this.#ended;
  }

  /** Ctrl-C, which reaches the whole group. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) process.kill(-this.#child.pid!, 'SIGINT');
    await this.#ended;
  }
}

/** What a folder holds, without the client's own, by name. */
function filesOf(root: string): Record<string, string> {
  const names = fs.readdirSync(root, { recursive: true, encoding: 'utf8' });
  const files = names.filter((name) => !name.startsWith('.atomo-sync') && fs.statSync(path.join(root, name)).isFile());
  return sorted(new Map(files.map((name) => [name, fs.readFileSync(path.join(root, name), 'utf8')])));
}

function sorted(files: ReadonlyMap<string, string>): Record<string, string> {
  return Object.fromEntries([...files].sort(([a], [b]) => (a < b ? -1 : 1)));
}
