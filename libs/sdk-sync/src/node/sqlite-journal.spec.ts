import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { bytesOf, hashOf } from '../content.js';
import { keyOf } from '../plan.js';
import type { JournalWrite } from '../ports.js';
import { MemoryJournal } from '../testing/memory-journal.js';
import { SqliteJournal } from './sqlite-journal.js';

describe('a journal in SQLite', () => {
  let file: string;
  beforeEach(() => {
    file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'journal-')), 'journal.sqlite');
  });
  afterEach(() => fs.rmSync(path.dirname(file), { recursive: true }));

  const key = keyOf('a.md');
  const remote = { path: 'a.md', fileId: 'f', hash: 'sha256:1', size: 3, seq: 7 };
  const agreed = { path: 'a.md', fileId: null, hash: 'sha256:1', size: 3 };
  const op = (opId: string) => ({ opId, op: 'put' as const, path: 'a.md', baseHash: null, hash: 'h', size: 3 });

  it('tells after it was closed all that it was told, and forgets what was taken away', async () => {
    const first = new SqliteJournal(file);
    await first.commit([
      { to: 'cursor', cursor: { epoch: 'e', seq: 7 } },
      { to: 'base', key, entry: agreed },
      { to: 'base', key: keyOf('b.md'), entry: agreed },
      { to: 'remote', key, entry: remote },
      { to: 'intent', key, entry: { hash: 'sha256:2', remote } },
      { to: 'outbox', opId: '2', entry: { ...op('2'), content: bytesOf('two') } },
      { to: 'outbox', opId: '1', entry: op('1') },
      { to: 'text', hash: 'sha256:1', content: bytesOf('one') },
      { to: 'text', hash: 'sha256:3', content: bytesOf('three') },
    ]);
    await first.commit([{ to: 'base', key: keyOf('b.md'), entry: null }]);
    first.clearTexts();
    first.close();
    const second = new SqliteJournal(file);
    const state = await second.load();
    expect(state.cursor).toEqual({ epoch: 'e', seq: 7 });
    expect([...state.base]).toEqual([[key, agreed]]);
    expect([...state.remote]).toEqual([[key, remote]]);
    expect([...state.intents]).toEqual([[key, { hash: 'sha256:2', remote }]]);
    expect(state.outbox.map(({ opId }) => opId)).toEqual(['2', '1']);
    expect(Buffer.from(state.outbox[0]!.content!).toString()).toBe('two');
    expect(Buffer.from((await second.text('sha256:1'))!).toString()).toBe('one');
    expect(await second.text('sha256:3')).toBeNull();
    second.close();
  });

  it('remembers what the journal does that the model of devices has, also when it is opened again', async () => {
    const path = fc.constantFrom('a.md', 'é.md', 'notes/b.md');
    const content = fc.uint8Array({ maxLength: 20 });
    const hash = fc.constantFrom('sha256:1', 'sha256:2');
    const size = fc.nat(9);
    const stored = fc.record({ path, fileId: fc.constantFrom('f', 'g'), hash, size, seq: fc.nat(99) });
    const keyed = path.map(keyOf);
    const entry = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: null, freq: 3 });
    const agreedFile = fc.record({ path, fileId: fc.constantFrom(null, 'f'), hash, size });
    const put = fc.tuple(path, content).map(([name, bytes]) => ({
      op: 'put' as const,
      path: name,
      baseHash: null,
      hash: hashOf(bytes),
      size: bytes.length,
      content: bytes,
    }));
    const rename = fc.record({ op: fc.constant('rename' as const), path, newPath: path, baseHash: hash });
    const write: fc.Arbitrary<JournalWrite> = fc.oneof(
      fc.nat(99).map((seq): JournalWrite => ({ to: 'cursor', cursor: { epoch: 'e', seq } })),
      fc.record({ to: fc.constant('base' as const), key: keyed, entry: entry(agreedFile) }),
      fc.record({ to: fc.constant('remote' as const), key: keyed, entry: entry(stored) }),
      fc.record({ to: fc.constant('intent' as const), key: keyed, entry: entry(fc.record({ hash, remote: stored })) }),
      fc
        .tuple(fc.constantFrom('1', '2', '3'), entry(fc.oneof(put, rename)))
        .map(([opId, op]): JournalWrite => ({ to: 'outbox', opId, entry: op && { opId, ...op } })),
      content.map((bytes): JournalWrite => ({ to: 'text', hash: hashOf(bytes), content: bytes })),
    );
    const sorted = (map: ReadonlyMap<string, unknown>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    let worlds = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(write, { maxLength: 5 }), { maxLength: 12 }), async (batches) => {
        const own = `${file}-${(worlds += 1)}`;
        const model = new MemoryJournal();
        for (const writes of batches) {
          const journal = new SqliteJournal(own);
          await journal.commit(writes);
          await model.commit(writes);
          journal.close();
        }
        const journal = new SqliteJournal(own);
        const [state, told] = [await journal.load(), await model.load()];
        expect(state.cursor).toEqual(told.cursor);
        for (const part of ['base', 'remote', 'intents'] as const)
          expect(sorted(state[part])).toEqual(sorted(told[part]));
        expect(state.outbox).toEqual(told.outbox);
        for (const each of batches.flat()) {
          if (each.to === 'text') expect(await journal.text(each.hash)).toEqual(await model.text(each.hash));
        }
        journal.close();
      }),
      { numRuns: 40 },
    );
  });

  it('keeps a batch whole or not at all', async () => {
    const journal = new SqliteJournal(file);
    const broken = { to: 'remote' as const, key, entry: { ...remote, hash: null as unknown as string } };
    await expect(journal.commit([{ to: 'base', key, entry: agreed }, broken])).rejects.toThrow('NOT NULL');
    expect((await journal.load()).base.size).toBe(0);
    journal.close();
  });

  it('is of one client at a time', () => {
    const journal = new SqliteJournal(file);
    expect(() => new SqliteJournal(file)).toThrow('locked');
    journal.close();
    new SqliteJournal(file).close();
  });
});
