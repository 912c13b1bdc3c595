import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bytesOf } from '../content.js';
import { keyOf } from '../plan.js';
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
