import type { PathKey } from '@atomo-cc/sync-protocol';
import { keyOf, localTree, plan, type Action } from './plan.js';
import type { AgreedFile, Intent, RemoteFile, Scan } from './ports.js';

interface Case {
  base?: Record<string, string>;
  here?: Record<string, string>;
  there?: Record<string, string>;
  blocked?: Scan['blocked'];
  intents?: Record<string, Intent>;
  ignored?: string[];
}

const keyed = <Value>(record: Record<string, string>, make: (path: string, hash: string) => Value) =>
  new Map<PathKey, Value>(Object.entries(record).map(([path, hash]) => [keyOf(path), make(path, hash)]));

/** `hash` may be `content#fileId`. */
const split = (value: string): [string, string] => [value.split('#')[0]!, value.split('#')[1] ?? 'file'];
const sizeOf = (hash: string) => (hash === 'empty' ? 0 : 5);

function decisions({ base = {}, here = {}, there = {}, blocked = [], intents = {}, ignored = [] }: Case): string[] {
  const known = {
    base: keyed(base, (path, value): AgreedFile => {
      const [hash, fileId] = split(value);
      return { path, hash, fileId, size: sizeOf(hash) };
    }),
    remote: keyed(there, (path, value): RemoteFile => {
      const [hash, fileId] = split(value);
      return { path, hash, fileId, size: sizeOf(hash), seq: 1 };
    }),
    intents: new Map(Object.entries(intents).map(([path, intent]) => [keyOf(path), intent])),
  };
  const files = Object.entries(here).map(([disk, hash]) => ({ disk, hash, size: sizeOf(hash) }));
  const tree = localTree({ files, blocked }, known);
  return plan(known, tree, (path) => ignored.includes(path)).map(told);
}

function told(action: Action): string {
  if (action.do === 'put') return `put ${action.path} ${action.local.hash} over ${action.baseHash}`;
  if (action.do === 'download')
    return `${action.isRestored ? 'restore' : 'download'} ${action.disk} over ${action.expected}`;
  if (action.do === 'rename') return `rename ${action.path} to ${action.newPath}`;
  if (action.do === 'move') return `move ${action.local.disk} to ${action.remote.path}`;
  if (action.do === 'merge') return `merge ${action.local.hash} and ${action.remote.hash} from ${action.base}`;
  return `${action.do} ${action.key}`;
}

describe('what a client decides from what it had, has and the store has', () => {
  it.each<[string, Case, string[]]>([
    ['nothing changed', { base: { a: '1' }, here: { a: '1' }, there: { a: '1' } }, []],
    ['changed here', { base: { a: '1' }, here: { a: '2' }, there: { a: '1' } }, ['put a 2 over 1']],
    ['changed there', { base: { a: '1' }, here: { a: '1' }, there: { a: '2' } }, ['download a over 1']],
    ['the same change on both sides', { base: { a: '1' }, here: { a: '2' }, there: { a: '2' } }, ['adopt a']],
    ['two changes', { base: { a: '1' }, here: { a: '2' }, there: { a: '3' } }, ['merge 2 and 3 from 1']],
    ['new here', { here: { a: '1' } }, ['put a 1 over null']],
    ['new there', { there: { a: '1' } }, ['download a over null']],
    ['new on both sides', { here: { a: '1' }, there: { a: '2' } }, ['merge 1 and 2 from null']],
    ['new and empty here', { here: { a: 'empty' }, there: { a: '2' } }, ['download a over empty']],
    ['new and empty there', { here: { a: '1' }, there: { a: 'empty' } }, ['put a 1 over empty']],
    ['deleted here while no client ran', { base: { a: '1' }, there: { a: '1' } }, ['delete a']],
    ['deleted here, changed there', { base: { a: '1' }, there: { a: '2' } }, ['restore a over null']],
    ['deleted there', { base: { a: '1' }, here: { a: '1' } }, ['remove a']],
    ['changed here, deleted there: the edit stays', { base: { a: '1' }, here: { a: '2' } }, ['forget a']],
    ['deleted on both sides', { base: { a: '1' } }, ['forget a']],
    ['renamed here', { base: { a: '1' }, here: { b: '1' }, there: { a: '1' } }, ['rename a to b']],
    ['renamed here, changed there', { base: { a: '1' }, here: { b: '1' }, there: { a: '2' } }, ['rename a to b']],
    [
      'renamed and changed here',
      { base: { a: '1' }, here: { b: '2' }, there: { a: '1' } },
      ['delete a', 'put b 2 over null'],
    ],
    [
      'an empty file is not taken for another',
      { base: { a: 'empty' }, here: { b: 'empty' }, there: { a: 'empty' } },
      ['delete a', 'put b empty over null'],
    ],
    [
      'the one with the same name was moved',
      { base: { 'x/a': '1', 'y/b': '1' }, here: { 'z/b': '1', 'x/a': '1' }, there: { 'x/a': '1', 'y/b': '1' } },
      ['rename y/b to z/b'],
    ],
    ['renamed there, and changed here', { base: { a: '1#f' }, here: { a: '2' }, there: { b: '1#f' } }, ['move a to b']],
    [
      'renamed in case here',
      { base: { 'a.md': '1' }, here: { 'A.md': '1' }, there: { 'a.md': '1' } },
      ['rename a.md to A.md'],
    ],
    [
      'renamed in case there',
      { base: { 'a.md': '1' }, here: { 'a.md': '1' }, there: { 'A.md': '1' } },
      ['move a.md to A.md'],
    ],
    [
      'a folder in another case is the same',
      { base: { 'F/a': '1' }, here: { 'f/a': '2' }, there: { 'F/a': '1' } },
      ['put F/a 2 over 1'],
    ],
    [
      'a name in another Unicode form is the same',
      { base: { é: '1' }, here: { 'e\u0301': '1' }, there: { é: '1' } },
      [],
    ],
    [
      'a merge that was written before a crash',
      {
        base: { a: '1' },
        here: { a: 'm' },
        there: { a: '3' },
        intents: { a: { hash: 'm', remote: { path: 'a', fileId: 'file', hash: '3', size: 5, seq: 1 } } },
      },
      ['adopt a'],
    ],
    [
      'ignored here from now on: nothing is deleted',
      { base: { a: '1' }, there: { a: '1' }, ignored: ['a'] },
      ['forget a'],
    ],
    [
      'not readable: nothing is concluded',
      { base: { 'd/a': '1' }, there: { 'd/a': '1' }, blocked: [{ disk: 'd', reason: 'no', isFolder: true }] },
      [],
    ],
    [
      'nothing of the folder is readable',
      { base: { a: '1' }, there: { a: '1' }, blocked: [{ disk: '', reason: 'no', isFolder: true }] },
      [],
    ],
  ])('%s', (_, given, then) => {
    expect(decisions(given)).toEqual(then);
  });
});

describe('the names on a disk', () => {
  const refusedOf = (...names: string[]) =>
    localTree(
      { files: names.map((disk) => ({ disk, hash: '1', size: 1 })), blocked: [] },
      {
        base: new Map(),
        remote: keyed({ 'a.md': '1' }, (path): RemoteFile => ({ path, hash: '1', fileId: 'f', size: 1, seq: 1 })),
      },
    ).refused;

  it('keep the one that the store knows, and tell why another that differs in case is left out', () => {
    expect(refusedOf('A.md', 'a.md')).toEqual([{ path: 'A.md', reason: expect.stringContaining('taken by a.md') }]);
  });

  it('are refused with the reason when not every device can store them', () => {
    expect(refusedOf('what?.md', 'CON.txt').map(({ path }) => path)).toEqual(['CON.txt', 'what?.md']);
  });
});
