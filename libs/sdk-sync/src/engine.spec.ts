import { conflictPath } from '@atomo-cc/sync-protocol';
import { bytesOf, hashOf } from './content.js';
import type { EngineOptions } from './engine.js';
import { keyOf } from './plan.js';
import { ModelDevice } from './testing/model-device.js';
import { ModelStore } from './testing/model-store.js';

describe('a client between a folder and a store', () => {
  let store: ModelStore;
  let now: number;
  beforeEach(() => {
    store = new ModelStore(() => {});
    now = 1_800_000_000_000;
  });

  const aDevice = (device: string, more: Partial<EngineOptions> = {}) =>
    new ModelDevice(store, {
      device,
      onConflict: 'copy',
      massDelete: 'ask',
      rules: 'exact',
      clock: { now: () => (now += 1) },
      ...more,
    });
  const write = (device: ModelDevice, path: string, text: string) => device.folder.put(path, bytesOf(text));
  const read = (device: ModelDevice, path: string) => {
    const content = device.folder.files.get(path);
    return content && Buffer.from(content).toString();
  };
  /** All devices hear that there may be news, and sync. */
  const settle = async (...devices: ModelDevice[]) => {
    for (const device of [...devices, ...devices]) {
      device.reconnect();
      await device.sync();
      expect(device.failure).toBeUndefined();
    }
  };
  /** Goes on until `condition` holds between two steps of the device. */
  const until = async (device: ModelDevice, condition: () => boolean) => {
    for (let steps = 0; !condition(); steps++) {
      if (steps > 200) throw new Error('does not happen');
      await device.step();
    }
  };
  const told = (device: ModelDevice, what: string) => device.events.filter((event) => event.what === what);

  it('sends an operation once, though it crashes before the answer, and does not bring back what was deleted since', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    await until(laptop, () => store.seq === 1);
    await laptop.crash();
    await settle(phone);
    phone.folder.files.delete('a.md');
    await settle(phone);
    await settle(laptop, phone);
    expect(store.log.map(({ op }) => op)).toEqual(['put', 'delete']);
    expect(laptop.folder.files.size).toBe(0);
  });

  it('tells the server where it stands, and only what its journal has', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    for (const path of ['a.md', 'b.md', 'c.md', 'd.md', 'e.md']) write(laptop, path, path);
    await settle(laptop);
    await until(phone, () => phone.folder.files.size === 1);
    await phone.crash();
    expect(phone.acked).toEqual(phone.journal.cursor);
    await settle(phone, laptop);
    const head = { epoch: store.epoch, seq: store.seq };
    expect([laptop.acked, phone.acked]).toEqual([head, head]);
  });

  it('does not mark the same conflict twice when it crashes after the marked text is written', async () => {
    const [laptop, phone] = [aDevice('laptop', { onConflict: 'markers' }), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    await settle(laptop, phone);
    write(phone, 'a.md', 'two');
    await settle(phone);
    write(laptop, 'a.md', 'three');
    laptop.reconnect();
    await until(laptop, () => read(laptop, 'a.md') !== 'three');
    await laptop.crash();
    await settle(laptop, phone);
    expect(read(phone, 'a.md')).toBe('<<<<<<< LOCAL\nthree\n=======\ntwo\n>>>>>>> SERVER');
    expect(read(laptop, 'a.md')).toBe(read(phone, 'a.md'));
  });

  it('has the copy of a conflict on disk before it replaces the file', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(phone, 'a.md', 'two');
    await settle(phone);
    write(laptop, 'a.md', 'three');
    await until(laptop, () => read(laptop, 'a.md') === 'two');
    let isReplacement = true;
    await laptop.powerCut(() => isReplacement === (isReplacement = false));
    const texts = [...laptop.folder.files.values()].map((content) => Buffer.from(content).toString());
    expect(texts.sort()).toEqual(['three', 'two']);
  });

  it('looks again where the file that was in the way of a copy has been moved meanwhile', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(phone, 'a.md', 'two');
    await settle(phone);
    write(laptop, 'a.md', 'three');
    const copy = conflictPath('a.md', 'laptop', hashOf(bytesOf('three')));
    write(laptop, copy, 'in the way');
    const reads = jest.spyOn(laptop.folder, 'read');
    await until(laptop, () => reads.mock.calls.some(([disk]) => disk === copy));
    laptop.folder.rename(copy, 'elsewhere.md');
    await settle(laptop);
    expect(laptop.report?.refused).toEqual([]);
    expect(['a.md', copy, 'elsewhere.md'].map((path) => read(laptop, path))).toEqual(['two', 'three', 'in the way']);
  });

  it('does not take its own upload for news', async () => {
    const laptop = aDevice('laptop');
    write(laptop, 'a.md', 'one');
    await settle(laptop);
    write(laptop, 'a.md', 'two');
    await settle(laptop);
    expect(told(laptop, 'uploaded')).toHaveLength(2);
    expect(told(laptop, 'downloaded')).toEqual([]);
  });

  it('keeps an edit that is made while another device’s edit arrives', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'top\nmiddle\nbottom');
    await settle(laptop, phone);
    write(phone, 'a.md', 'TOP\nmiddle\nbottom');
    await settle(phone);
    laptop.reconnect();
    // Pull, scan and fetch are done: the next step would write the file.
    for (let steps = 0; steps < 5; steps++) await laptop.step();
    write(laptop, 'a.md', 'top\nmiddle\nBOTTOM');
    await settle(laptop, phone);
    expect(read(laptop, 'a.md')).toBe('TOP\nmiddle\nBOTTOM');
    expect(read(phone, 'a.md')).toBe('TOP\nmiddle\nBOTTOM');
  });

  it('keeps an edit of a file that was deleted elsewhere', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    write(laptop, 'b.md', 'other');
    await settle(laptop, phone);
    phone.folder.files.clear();
    write(laptop, 'a.md', 'one and more');
    await settle(phone, laptop);
    expect([...laptop.folder.files.keys()]).toEqual(['a.md']);
    expect(read(phone, 'a.md')).toBe('one and more');
  });

  it('removes what was deleted while it was away for longer than the log goes back', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    write(laptop, 'b.md', 'two');
    await settle(laptop, phone);
    phone.folder.files.delete('a.md');
    await settle(phone);
    store.prune();
    await settle(laptop);
    expect([...laptop.folder.files.keys()]).toEqual(['b.md']);
    expect([...store.files.keys()]).toEqual(['b.md']);
  });

  it('removes and overwrites nothing when the store came back from an old backup', async () => {
    const laptop = aDevice('laptop');
    write(laptop, 'a.md', 'one');
    await settle(laptop);
    store.backUp();
    write(laptop, 'a.md', 'one, changed');
    write(laptop, 'b.md', 'new');
    await settle(laptop);
    store.restart(true);
    await settle(laptop);
    const texts = [...laptop.folder.files.values()].map((content) => Buffer.from(content).toString());
    expect(texts.sort()).toEqual(['new', 'one', 'one, changed']);
    expect(store.files.size).toBe(3);
  });

  it('carries a rename made while no client ran as one, with the file’s identity', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    await settle(laptop, phone);
    const { fileId } = store.files.get(keyOf('a.md'))!;
    laptop.folder.files.delete('a.md');
    write(laptop, 'notes/b.md', 'one');
    await settle(laptop, phone);
    expect(store.log.map(({ op }) => op)).toEqual(['put', 'rename']);
    expect(store.files.get(keyOf('notes/b.md'))!.fileId).toBe(fileId);
    expect(told(phone, 'moved')).toEqual([{ what: 'moved', path: 'a.md', detail: 'notes/b.md' }]);
    expect([...phone.folder.files.keys()]).toEqual(['notes/b.md']);
  });

  describe('when many files are gone at once', () => {
    const withTen = async (massDelete: EngineOptions['massDelete']) => {
      const device = aDevice('laptop', { massDelete });
      for (let index = 0; index < 10; index++) write(device, `${index}.md`, `text ${index}`);
      await settle(device);
      for (let index = 0; index < 8; index++) device.folder.files.delete(`${index}.md`);
      write(device, 'new.md', 'new');
      await settle(device);
      return device;
    };

    it('holds the deletions until they are allowed, and goes on with the rest', async () => {
      const device = await withTen('ask');
      expect(device.report!.heldDeletes).toHaveLength(8);
      expect(store.files.size).toBe(11);
    });

    it('carries them out when they are allowed', async () => {
      const device = await withTen('allow');
      expect(device.report!.heldDeletes).toEqual([]);
      expect(store.files.size).toBe(3);
    });

    it('brings the files back when that is what the user wants', async () => {
      const device = await withTen('restore');
      expect(device.folder.files.size).toBe(11);
      expect(store.files.size).toBe(11);
    });
  });

  it('tells what the server refuses, once, and asks for the rest', async () => {
    const laptop = aDevice('laptop');
    write(laptop, 'a.md', 'one');
    store.refusal = { code: 'FORBIDDEN', message: 'The key may not write.' };
    await settle(laptop);
    expect(laptop.report!.refused).toMatchObject([{ path: 'a.md', reason: 'The key may not write.' }]);
    expect(told(laptop, 'refused')).toHaveLength(1);
    store.refusal = undefined;
    await settle(laptop);
    expect(store.files.size).toBe(0);
    now += 10 * 60_000;
    await settle(laptop);
    expect(store.files.size).toBe(1);
  });

  it('finds by the digest that its picture of the store is wrong, and reads it anew', async () => {
    const [laptop, phone] = [aDevice('laptop'), aDevice('phone')];
    write(laptop, 'a.md', 'one');
    write(laptop, 'b.md', 'two');
    await settle(laptop, phone);
    await phone.crash();
    phone.journal.damage(keyOf('a.md'));
    await settle(phone);
    expect(told(phone, 'repaired')).toHaveLength(1);
    expect(read(phone, 'a.md')).toBe('one');
    expect([...store.files.keys()]).toEqual(['a.md', 'b.md']);
  });

  it('does not obey a server that names a file outside of the folder', async () => {
    const laptop = aDevice('laptop');
    store.files.set(keyOf('evil.md'), { path: '../evil.md', fileId: 'f', hash: 'sha256:0', size: 1, seq: 1 });
    await laptop.sync();
    expect(laptop.folder.files.size).toBe(0);
    expect(told(laptop, 'refused')[0]).toMatchObject({ path: '../evil.md' });
  });
});
