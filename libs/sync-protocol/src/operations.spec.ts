import { digestOf, digestTerm, EMPTY_DIGEST } from './digest.js';
import { isSyncErrorCode, protocol1Code, SYNC_ERROR_STATUS, SYNC_PROTOCOL_ERRORS } from './errors.js';
import { contentHash, type ContentHash, EMPTY_HASH } from './hashes.js';
import { INLINE_LIMIT_BYTES } from './limits.js';
import { parseOp } from './operations.js';
import { isBelow, syncPath } from './paths.js';
import { parseHandshake, parsePresence } from './session.js';

const opId = '019a0000-0000-7000-8000-000000000001';
const put = { opId, op: 'put', path: 'a.md', hash: EMPTY_HASH, size: 0 };

describe('an operation', () => {
  it('tells a precondition that there be no file from none at all', () => {
    expect(parseOp({ ...put, baseHash: null })).toHaveProperty('baseHash', null);
    expect(parseOp(put)).not.toHaveProperty('baseHash');
  });

  it('comes out with its declared fields alone, and its paths in NFC', () => {
    const renamed = parseOp({ opId, op: 'rename', path: 'e\u0301', newPath: 'o\u0308', hash: EMPTY_HASH, more: 1 });
    expect(Object.entries(renamed).toSorted(([a], [b]) => a.localeCompare(b))).toEqual([
      ['newPath', 'ö'],
      ['op', 'rename'],
      ['opId', opId],
      ['path', 'é'],
    ]);
  });

  it.each([
    [{ ...put, op: 'append' }, 'VALIDATION_ERROR', 'op'],
    [{ ...put, op: { toString: (): string => 'put' } }, 'VALIDATION_ERROR', 'op'],
    [{ ...put, opId: '1' }, 'VALIDATION_ERROR', 'opId'],
    [{ ...put, path: '../x' }, 'PATH_INVALID', 'path'],
    [{ ...put, path: 'NUL' }, 'PATH_NOT_PORTABLE', 'path'],
    [{ ...put, hash: 'sha256:AB' }, 'VALIDATION_ERROR', 'hash'],
    [{ ...put, size: -1 }, 'VALIDATION_ERROR', 'size'],
    [{ ...put, size: 1.5 }, 'VALIDATION_ERROR', 'size'],
    [{ ...put, baseHash: 'x' }, 'VALIDATION_ERROR', 'baseHash'],
    [{ ...put, inline: '%' }, 'VALIDATION_ERROR', 'inline'],
    [{ ...put, inline: 'A'.repeat(2 * INLINE_LIMIT_BYTES) }, 'VALIDATION_ERROR', 'inline'],
    [{ ...put, parts: [] }, 'VALIDATION_ERROR', 'parts'],
    [{ ...put, parts: ['x'] }, 'VALIDATION_ERROR', 'parts'],
    [{ ...put, parts: Array(257).fill(EMPTY_HASH) }, 'VALIDATION_ERROR', 'parts'],
    [{ ...put, inline: 'AAAA', parts: [EMPTY_HASH] }, 'VALIDATION_ERROR', 'parts'],
    [{ opId, op: 'rename', path: 'a' }, 'PATH_INVALID', 'newPath'],
    [null, 'VALIDATION_ERROR', 'op'],
    [[put], 'VALIDATION_ERROR', 'op'],
  ])('such as %j is refused as %s for its %s', (given, code, field) => {
    expect(() => parseOp(given)).toThrow(
      expect.objectContaining({ code, details: expect.objectContaining({ field }) as object }),
    );
  });
});

describe('a handshake', () => {
  const device = { id: 'laptop' };

  it('is read with its device and its cursor', () => {
    const cursor = { epoch: opId, seq: 7 };
    expect(parseHandshake({ apiKey: 'x', protocol: 2, device: { ...device, x: 1 }, cursor })).toEqual({
      protocol: 2,
      device,
      cursor,
    });
    expect(parseHandshake({ protocol: 2, device })).toEqual({ protocol: 2, device });
  });

  it.each([
    [{ protocol: 3, device }, 'UNSUPPORTED_PROTOCOL'],
    [{ protocol: '2', device }, 'UNSUPPORTED_PROTOCOL'],
    [{ protocol: 2 }, 'VALIDATION_ERROR'],
    [{ protocol: 2, device: { id: '' } }, 'VALIDATION_ERROR'],
    [{ protocol: 2, device, cursor: { epoch: 'x', seq: 1 } }, 'VALIDATION_ERROR'],
    [{ protocol: 2, device, cursor: { epoch: opId, seq: -1 } }, 'VALIDATION_ERROR'],
    [{ protocol: 2, device, cursor: 7 }, 'VALIDATION_ERROR'],
  ])('such as %j is refused as %s', (auth, code) => {
    expect(() => parseHandshake(auth)).toThrow(expect.objectContaining({ code }));
  });
});

it('a presence state is bounded, also in depth', () => {
  expect(parsePresence({ state: { file: 'a.md' } })).toEqual({ file: 'a.md' });
  expect(parsePresence({})).toBeNull();
  let deep: unknown = {};
  for (let level = 0; level < 200_000; level += 1) deep = { deep };
  for (const state of [{ text: 'x'.repeat(1_100) }, deep]) {
    expect(() => parsePresence({ state })).toThrow(expect.objectContaining({ code: 'PAYLOAD_TOO_LARGE' }));
  }
});

describe('a content hash', () => {
  it('is the SHA-256 of the bytes', async () => {
    expect(await contentHash(new Uint8Array())).toBe(EMPTY_HASH);
    expect(await contentHash(new TextEncoder().encode('abc'))).toBe(
      'sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
  });
});

describe('a digest', () => {
  it('has the terms that the stores have, by the arithmetic of 64 bits', () => {
    const low = (value: bigint) => BigInt.asUintN(64, value);
    const term = (path: string, hash: string) => {
      let sum = 0xcbf29ce484222325n;
      for (const byte of Buffer.from(path)) sum = low((sum ^ BigInt(byte)) * 0x100000001b3n);
      sum = low(sum + BigInt(`0x${hash.slice(7, 23)}`));
      sum = low((sum ^ (sum >> 30n)) * 0xbf58476d1ce4e5b9n);
      sum = low((sum ^ (sum >> 27n)) * 0x94d049bb133111ebn);
      return sum ^ (sum >> 31n);
    };
    for (let length = 1; length <= 300; length += 1) {
      const path = syncPath(`${'é/ü'.repeat(length % 40)}${'~'.repeat(length % 100)}${length}.md`);
      const hash =
        `sha256:${(BigInt(length) * 0x9e3779b97f4a7c15f39cc0605cedc834n).toString(16).padStart(64, 'f')}` as ContentHash;
      expect(digestTerm(path, hash)).toBe(term(path, hash));
    }
  });

  it('does not depend on the order, and differs with every path, content and exchange', async () => {
    const hashes = await Promise.all(['a', 'b', 'c'].map((text) => contentHash(new TextEncoder().encode(text))));
    const [a, b, c] = hashes;
    const files = (...pairs: [string, ContentHash][]) =>
      digestOf(pairs.map(([path, hash]) => digestTerm(syncPath(path), hash)));
    const all = files(['x', a!], ['y', b!], ['z', c!]);
    expect(files(['z', c!], ['x', a!], ['y', b!])).toBe(all);
    for (const other of [
      files(['x', a!], ['y', b!]),
      files(['x', b!], ['y', a!], ['z', c!]),
      files(['X', a!], ['y', b!], ['z', c!]),
      files(['x', a!], ['y', b!], ['z', a!]),
    ]) {
      expect(other).not.toBe(all);
    }
    expect(files()).toBe(EMPTY_DIGEST);
  });

  it('has a golden value, because clients of every version compute it', () => {
    expect(digestOf([digestTerm(syncPath('Notes/é.md'), EMPTY_HASH)])).toMatchInlineSnapshot(`"7f8dbd82d3f6eeb5"`);
  });
});

it('what lies below a folder does so in every case and Unicode form', () => {
  expect(isBelow(syncPath('Notes'), syncPath('notes/a.md'))).toBe(true);
  expect(isBelow(syncPath('caf\u00e9'), syncPath('Cafe\u0301/x/y'))).toBe(true);
  for (const path of ['Notes', 'Notesbook/a.md', 'x/Notes/a.md']) {
    expect(isBelow(syncPath('Notes'), syncPath(path))).toBe(false);
  }
});

it.each(Object.keys(SYNC_ERROR_STATUS))('%s has one of the six codes for protocol 1', (code) => {
  expect(isSyncErrorCode(code) && protocol1Code(code) in SYNC_PROTOCOL_ERRORS).toBe(true);
});
