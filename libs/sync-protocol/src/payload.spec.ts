import { validateSync } from 'class-validator';
import { CONTENT_LIMIT, contentFault, fileKind, FRAME_LIMIT_BYTES } from './content.js';
import { EMPTY_HASH } from './hashes.js';
import { parseStoreKey, storeKeyPrefix } from './keys.js';
import { DeleteFolderOp, DeleteOp, PutOp, RenameFolderOp, RenameOp } from './operations.js';
import { syncPath } from './paths.js';
import { parsePayload } from './payload.js';
import { CreateKeyBody, ListQuery } from './rest.js';
import { ModifiedFile } from './socket-events.js';

const AN_ID = '01920000-0000-7000-8000-000000000001';

describe('a payload', () => {
  it('is read by its declared fields alone', () => {
    const parsed = parsePayload(ModifiedFile, { path: 'a.md', content: 'x', seq: 9, more: {} });
    expect(Object.entries(parsed)).toEqual([
      ['path', 'a.md'],
      ['content', 'x'],
    ]);
    expect(parsed).toBeInstanceOf(ModifiedFile);
  });

  it('takes nothing from a prototype', () => {
    const crooked = JSON.parse('{"__proto__": {"path": "a.md", "content": "x"}}') as unknown;
    expect(() => parsePayload(ModifiedFile, crooked)).toThrow('Path must be a string');
    expect(() => parsePayload(ModifiedFile, Object.create({ path: 'a.md', content: 'x' }))).toThrow('Path');
    expect(({} as { path?: string }).path).toBeUndefined();
  });

  it.each([undefined, null, 0, '', 'x', [], [{}], () => undefined])('such as %p is refused', (payload) => {
    expect(() => parsePayload(ModifiedFile, payload)).toThrow('must be an object');
  });

  it('is never walked, however deep it is', () => {
    let deep: unknown = [];
    for (let level = 0; level < 200_000; level += 1) deep = { deep };
    expect(() => parsePayload(ModifiedFile, { path: deep, content: deep, more: deep })).toThrow(
      'Path must be a string',
    );
  });

  it('is refused with the field that is wrong and without what was sent', () => {
    const given = { path: 'secret?', content: 'x' };
    expect(() => parsePayload(ModifiedFile, given)).toThrow(
      expect.objectContaining({
        code: 'PATH_NOT_PORTABLE',
        details: { field: 'path', reason: 'FORBIDDEN_CHARACTER' },
      }),
    );
    expect(() => parsePayload(ModifiedFile, given)).not.toThrow('secret');
    expect(() => parsePayload(CreateKeyBody, { name: 'x', permissions: ['admin'] })).toThrow(
      'Each value in permissions',
    );
    const aKey = { name: 'x', permissions: ['read'] };
    expect(() => parsePayload(CreateKeyBody, { ...aKey, prefixes: ['notes', 'what?'] })).toThrow(
      expect.objectContaining({
        code: 'PATH_NOT_PORTABLE',
        message: expect.stringContaining('Prefixes contains one of'),
        details: { field: 'prefixes', reason: 'FORBIDDEN_CHARACTER' },
      }),
    );
    expect(() => parsePayload(CreateKeyBody, { ...aKey, prefixes: 'notes' })).toThrow('Prefixes must be an array');
    expect(() => parsePayload(ListQuery, { limit: ['1', '2'] })).toThrow('Limit must be a whole number');
  });

  it.each<[shape: new () => object, valid: object]>([
    [ModifiedFile, { path: 'a.md', content: 'x' }],
    [PutOp, { opId: AN_ID, op: 'put', path: 'a.md', hash: EMPTY_HASH, size: 0, inline: 'YQ==', parts: [EMPTY_HASH] }],
    [DeleteOp, { opId: AN_ID, op: 'delete', path: 'a.md', baseHash: EMPTY_HASH }],
    [RenameOp, { opId: AN_ID, op: 'rename', path: 'a.md', newPath: 'b.md', baseHash: null }],
    [DeleteFolderOp, { opId: AN_ID, op: 'delete-folder', path: 'a' }],
    [RenameFolderOp, { opId: AN_ID, op: 'rename-folder', path: 'a', newPath: 'b' }],
    [CreateKeyBody, { name: 'x', permissions: ['read'] }],
    [ListQuery, { limit: '10', path: 'a' }],
  ])('of %p is taken exactly when class-validator finds nothing', (shape, valid) => {
    const values = [
      undefined,
      null,
      '',
      'x',
      'a.md',
      '../x',
      'YQ==',
      'Y',
      'put',
      '7',
      AN_ID,
      EMPTY_HASH,
      0,
      -1,
      1.5,
      NaN,
    ];
    const odd = [...values, 2 ** 40, true, [], [EMPTY_HASH], ['x'], ['read'], {}, new Date(0), Buffer.from('x')];
    const isTaken = (payload: object) => {
      try {
        parsePayload(shape, payload);
        return true;
      } catch {
        return false;
      }
    };
    expect(isTaken(valid)).toBe(true);
    for (const field of Object.keys(valid)) {
      for (const value of odd) {
        const payload = { ...valid, [field]: value };
        const told = [field, value, isTaken(payload)];
        expect(told).toEqual([field, value, validateSync(Object.assign(new shape(), payload)).length === 0]);
      }
    }
  });
});

describe('a content', () => {
  it('is limited by its length and by what UTF-8 and Postgres can hold', () => {
    expect(contentFault('x'.repeat(CONTENT_LIMIT))).toBeNull();
    expect(contentFault('x'.repeat(CONTENT_LIMIT + 1))).toContain('at most');
    expect(contentFault('a\0')).toContain('U+0000');
    expect(contentFault('a\ud83d')).toContain('surrogate');
    expect(contentFault('😀')).toBeNull();
    expect(contentFault(Buffer.from('x'))).toContain('string');
  });

  it('of the longest length fits a frame, whatever its script', () => {
    for (const unit of ['x', '"', '\n', 'é', '€', '😀']) {
      const bytes = Buffer.byteLength(JSON.stringify(unit).slice(1, -1)) / unit.length;
      expect(bytes * CONTENT_LIMIT).toBeLessThan(FRAME_LIMIT_BYTES);
    }
  });

  it.each([
    ['notes/daily.md', 'md', false],
    ['file.test.MD', 'md', false],
    ['.gitignore', null, false],
    ['README', null, false],
    ['a.b/README', null, false],
    ['path/.env', null, false],
    ['.env.local', 'local', false],
    ['PHOTO.JPG', 'jpg', true],
    ['font.woff2', 'woff2', true],
  ])('of %s has the extension %p, base64: %p', (path, extension, isBinary) => {
    expect(fileKind(syncPath(path))).toEqual({ extension, isBinary });
  });
});

describe('a key', () => {
  it('tells its store by its beginning, and is recognised by its form', () => {
    const prefix = storeKeyPrefix('573c510a-0000-7000-8000-000000000001');
    expect(prefix).toBe('sk_store_573c51_');
    expect(parseStoreKey(`${prefix}${'Ab-_'.repeat(8)}`)).toEqual({ storeHint: '573c51' });
    for (const bad of [
      '',
      prefix,
      `${prefix}${'x'.repeat(31)}`,
      `${prefix}${'x'.repeat(33)}`,
      `${prefix}${'+'.repeat(32)}`,
      null,
      {},
    ]) {
      expect(parseStoreKey(bad)).toBeNull();
    }
  });
});
