import { posix } from 'node:path';
import fc from 'fast-check';
import { pathFault, pathKey, syncPath } from './paths.js';

describe('a path', () => {
  it.each([
    'a',
    'Notes/Idea.md',
    '.obsidian/app.json',
    'a b/c d.md',
    'ünïcode/日本語.md',
    'emoji 👩‍👩‍👧.md',
    'Control.md',
    'com10.txt',
    'null',
    'a..b/c',
    'x'.repeat(255),
  ])('such as %j is taken', (path) => {
    expect(pathFault(path)).toBeNull();
    expect(syncPath(path)).toBe(path);
  });

  it.each([
    [undefined, 'string'],
    [['a'], 'string'],
    ['', 'required'],
    ['/', 'relative'],
    ['/abs', 'relative'],
    ['a//b', 'empty'],
    ['trail/', 'empty'],
    ['.', '.'],
    ['..', '.'],
    ['./x', '.'],
    ['a/../b', '.'],
    ['../../etc/passwd', '.'],
    ['C\\x', 'backslash'],
    ['C:/x', 'not every device'],
    ['a?.md', 'not every device'],
    ['a\0b', 'control'],
    ['a\nb', 'control'],
    ['a\u0085b', 'control'],
    ['a\u2028b', 'control'],
    ['a\u202egnp.exe', 'direction'],
    ['a\u2066b', 'direction'],
    ['a\ud800', 'surrogate'],
    ['\udc00a', 'surrogate'],
    ['CON', 'device'],
    ['a/nul.txt', 'device'],
    ['Com1', 'device'],
    ['lpt¹.md', 'device'],
    ['aux .md', 'device'],
    ['dot.', 'dot or a space'],
    ['dot./x', 'dot or a space'],
    ['space /x', 'dot or a space'],
    ['x'.repeat(256), '255 bytes'],
    ['é'.repeat(128), '255 bytes'],
    [`${'x/'.repeat(500)}x`, '1000 characters'],
  ])('such as %j is refused', (path, why) => {
    expect(pathFault(path)?.message).toContain(why);
  });

  it('that is taken never leads out of a folder, and reads the same when it is read again', () => {
    const piece = fc.oneof(
      fc.constantFrom('.', '..', '/', '\\', '\0', ' ', 'a', 'é', '~', 'con', '\u202e'),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const given = pieces.join('');
        if (pathFault(given) !== null) return;
        const path = syncPath(given);
        expect(posix.join('/vault', path)).toBe(`/vault/${path}`);
        expect(posix.normalize(path)).toBe(path);
        expect(syncPath(path)).toBe(path);
        expect(pathKey(syncPath(path))).toBe(pathKey(path));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the key of a path', () => {
  const keyOf = (path: string) => pathKey(syncPath(path));

  it.each([
    ['Case.md', 'case.MD'],
    ['caf\u00e9', 'cafe\u0301'],
    ['CAF\u00c9', 'cafe\u0301'],
    ['Straße', 'STRASSE'],
    ['STRA\u1e9eE', 'strasse'],
    ['ΟΔΟΣ', 'οδος'],
    ['οδοσ', 'οδος'],
    ['\u212aelvin', 'kelvin'],
    ['ﬁle', 'FILE'],
  ])('is one for %j and %j', (left, right) => {
    expect(keyOf(left)).toBe(keyOf(right));
  });

  it.each([
    ['a', 'b'],
    ['ısı', 'isi'],
    ['resume', 'résumé'],
    ['a/b', 'ab'],
  ])('is another for %j than for %j', (left, right) => {
    expect(keyOf(left)).not.toBe(keyOf(right));
  });
});
