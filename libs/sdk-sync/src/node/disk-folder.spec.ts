import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bytesOf, hashOf } from '../content.js';
import { DiskFolder, STATE_FOLDER } from './disk-folder.js';
import type { Seen } from './sqlite-journal.js';

describe('a folder on disk', () => {
  let root: string;
  let folder: DiskFolder;
  const hashes = () => {
    const kept = new Map<string, Seen>();
    return {
      seen: () => new Map(kept),
      setSeen: (changed: ReadonlyMap<string, Seen | null>) =>
        changed.forEach((seen, disk) => (seen ? kept.set(disk, seen) : kept.delete(disk))),
    };
  };
  const on = (...names: string[]) => path.join(root, ...names);
  const read = (name: string) => fs.readFileSync(on(name), 'utf8');
  const hash = (text: string) => hashOf(bytesOf(text));
  const trash = () => fs.readdirSync(on(STATE_FOLDER, 'trash'));

  beforeEach(async () => {
    root = fs.mkdtempSync(path.join(os.tmpdir(), 'vault-'));
    folder = await DiskFolder.open(root, ['drafts/'], hashes());
  });
  afterEach(() => fs.rmSync(root, { recursive: true }));

  it('finds files, and tells why others are left out', async () => {
    fs.mkdirSync(on('notes/deep'), { recursive: true });
    fs.mkdirSync(on('drafts'));
    fs.writeFileSync(on('notes/deep/a.md'), 'one');
    fs.writeFileSync(on('drafts/b.md'), 'excluded');
    fs.writeFileSync(on('c.log'), 'ignored');
    fs.writeFileSync(on('.atomoignore'), '*.log\n');
    fs.symlinkSync('/etc', on('link'));
    const { files, blocked } = await folder.scan();
    expect(files.map(({ disk }) => disk).sort()).toEqual(['.atomoignore', 'notes/deep/a.md']);
    expect(files.find(({ disk }) => disk === 'notes/deep/a.md')).toMatchObject({ hash: hash('one'), size: 3 });
    expect(blocked).toEqual([{ disk: 'link', reason: expect.stringContaining('symbolic link'), isFolder: true }]);
    expect(folder.isIgnored('x/c.log')).toBe(true);
    expect(folder.isIgnored(`${STATE_FOLDER}/journal.sqlite`)).toBe(true);
  });

  it('sees a second write within the same moment and of the same size', async () => {
    fs.writeFileSync(on('a.md'), 'one');
    await folder.scan();
    const { atime, mtime } = fs.statSync(on('a.md'));
    fs.writeFileSync(on('a.md'), 'two');
    fs.utimesSync(on('a.md'), atime, mtime);
    expect((await folder.scan()).files).toEqual([{ disk: 'a.md', hash: hash('two'), size: 3 }]);
  });

  it('writes, replaces, moves and removes only what it expects to find', async () => {
    expect(await folder.write('x/a.md', bytesOf('one'), null)).toEqual({ outcome: 'done' });
    expect(await folder.write('x/a.md', bytesOf('two'), null)).toEqual({ outcome: 'changed' });
    expect(await folder.write('x/a.md', bytesOf('two'), hash('else'))).toEqual({ outcome: 'changed' });
    expect(await folder.write('x/gone.md', bytesOf('two'), hash('one'))).toEqual({ outcome: 'changed' });
    expect(read('x/a.md')).toBe('one');
    expect(await folder.write('x/a.md', bytesOf('two'), hash('one'))).toEqual({ outcome: 'done' });
    fs.writeFileSync(on('other.md'), 'other');
    expect(await folder.move('x/a.md', 'other.md', hash('two'))).toEqual({ outcome: 'changed' });
    expect(await folder.move('x/a.md', 'y/b.md', hash('one'))).toEqual({ outcome: 'changed' });
    expect(await folder.move('x/a.md', 'y/b.md', hash('two'))).toEqual({ outcome: 'done' });
    expect(fs.existsSync(on('x'))).toBe(false);
    expect(await folder.remove('y/b.md', hash('one'))).toEqual({ outcome: 'changed' });
    expect(await folder.remove('y/b.md', hash('two'))).toEqual({ outcome: 'done' });
    expect(fs.existsSync(on('y'))).toBe(false);
    expect(fs.readFileSync(on(STATE_FOLDER, 'trash', trash()[0]!), 'utf8')).toBe('two');
    expect(fs.readdirSync(on(STATE_FOLDER, 'under-way'))).toEqual([]);
  });

  it('is not taken for a folder without files when it vanishes, or another one is in its place', async () => {
    fs.writeFileSync(on('a.md'), 'one');
    await folder.scan();
    fs.renameSync(root, `${root}-gone`);
    await expect(folder.scan()).rejects.toMatchObject({ code: 'SYNC_FOLDER_UNUSABLE' });
    fs.mkdirSync(on(STATE_FOLDER), { recursive: true });
    await expect(folder.scan()).rejects.toMatchObject({ code: 'SYNC_FOLDER_UNUSABLE' });
    fs.rmSync(root, { recursive: true });
    fs.renameSync(`${root}-gone`, root);
    expect((await folder.scan()).files).toHaveLength(1);
  });

  it('keeps the mode of a file that it replaces', async () => {
    fs.writeFileSync(on('run.sh'), 'one', { mode: 0o755 });
    await folder.write('run.sh', bytesOf('two'), hash('one'));
    expect(fs.statSync(on('run.sh')).mode & 0o777).toBe(0o755);
  });

  it('does not write through a symbolic link, nor out of the folder', async () => {
    const outside = fs.mkdtempSync(path.join(os.tmpdir(), 'outside-'));
    fs.symlinkSync(outside, on('link'));
    expect(await folder.write('link/a.md', bytesOf('one'), null)).toMatchObject({ outcome: 'refused' });
    expect(fs.readdirSync(outside)).toEqual([]);
    await expect(folder.write('../a.md', bytesOf('one'), null)).rejects.toThrow('out of the folder');
    fs.rmSync(outside, { recursive: true });
  });

  it('tells that a folder or a file is in the way', async () => {
    fs.writeFileSync(on('a'), 'file');
    expect(await folder.write('a/b.md', bytesOf('one'), null)).toMatchObject({ outcome: 'refused' });
    expect(read('a')).toBe('file');
    fs.mkdirSync(on('b'));
    fs.writeFileSync(on('b/c.md'), 'in it');
    const inTheWay = { outcome: 'refused', reason: 'A folder of this name is here.' };
    expect(await folder.write('b', bytesOf('one'), null)).toEqual(inTheWay);
    expect(await folder.move('a', 'b', hash('file'))).toEqual(inTheWay);
    expect([read('a'), read('b/c.md')]).toEqual(['file', 'in it']);
  });

  it('puts beside the new file what somebody wrote in the moment before a crash', async () => {
    // What a replacement leaves when the machine stops after the rename, and an editor was faster than the rename.
    fs.writeFileSync(on('a.md'), 'new');
    fs.writeFileSync(on(STATE_FOLDER, 'under-way', '1-1.old'), 'typed meanwhile');
    const said = JSON.stringify({ disk: 'a.md', expected: hash('old') });
    fs.writeFileSync(on(STATE_FOLDER, 'under-way', '1-1.old.json'), said);
    folder = await DiskFolder.open(root, [], hashes());
    const names = fs.readdirSync(root).filter((name) => name !== STATE_FOLDER);
    expect(names.map(read).sort()).toEqual(['new', 'typed meanwhile']);
    expect(fs.readdirSync(on(STATE_FOLDER, 'under-way'))).toEqual([]);
  });
});
