import { conflictOf, conflictPath } from './conflict-names.js';
import { SEGMENT_LIMIT_BYTES, syncPath } from './paths.js';

const HASH = `sha256:3fa9c1d2${'0'.repeat(56)}`;

it.each([
  ['notes/a.md', 'laptop', 'notes/a (conflict of laptop, 3fa9c1d2).md'],
  ['.env', 'Ada’s phone (old)', '.env (conflict of Ada s phone  old, 3fa9c1d2)'],
  ['no extension', '()', 'no extension (conflict of a device, 3fa9c1d2)'],
  ['tar.gz', 'x', 'tar (conflict of x, 3fa9c1d2).gz'],
  ['long.extensionthatisnone12345', 'x', 'long.extensionthatisnone12345 (conflict of x, 3fa9c1d2)'],
])('a copy of %s by %s is known again by its name', (path, device, copy) => {
  expect(conflictPath(path, device, HASH)).toBe(copy);
  expect(conflictOf(syncPath(copy))).toMatchObject({ of: path });
  // A copy of a copy is one of the file.
  expect(conflictPath(copy, device, HASH)).toBe(copy);
});

it('a copy of a long name has room for its own', () => {
  const copy = conflictPath(`d/${'é'.repeat(125)}.md`, 'd'.repeat(60), HASH);
  expect(new TextEncoder().encode(copy.slice(2)).length).toBeLessThanOrEqual(SEGMENT_LIMIT_BYTES);
  expect(conflictOf(syncPath(copy))?.device).toBe('d'.repeat(40));
});

it.each(['a.md', 'a (conflict of x).md', 'a (conflict of x, 3fa9c1d2)/b.md', 'a (conflict of x, 3fa9c1dz).md'])(
  '%s is no copy',
  (path) => expect(conflictOf(syncPath(path))).toBeNull(),
);
