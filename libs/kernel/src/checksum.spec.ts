import { crc32 } from 'node:zlib';
import { hasChecksum, withChecksum } from './checksum.js';

describe('a checksum', () => {
  it('is the CRC-32 that others compute, in six characters', () => {
    for (const text of ['', 'sk_store_573c51_', 'x'.repeat(1_000)]) {
      const sum = withChecksum(text).slice(text.length);
      expect(sum).toMatch(/^[A-Za-z0-9_-]{6}$/);
      const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
      const value = [...sum].reduce((all, digit, place) => all + alphabet.indexOf(digit) * 64 ** place, 0);
      expect(value).toBe(crc32(text));
    }
  });

  it('finds each wrong, missing or swapped character', () => {
    const whole = withChecksum('sk_store_573c51_AbCdEfGhIjKlMnOpQrStUvWxYz');
    expect(hasChecksum(whole)).toBe(true);
    for (let place = 0; place < whole.length; place += 1) {
      const other = whole.charAt(place) === 'Z' ? 'z' : 'Z';
      expect([place, hasChecksum(whole.slice(0, place) + other + whole.slice(place + 1))]).toEqual([place, false]);
      expect([place, hasChecksum(whole.slice(0, place) + whole.slice(place + 1))]).toEqual([place, false]);
      const [one, two] = [whole.charAt(place), whole.charAt(place + 1)];
      if (two === '' || one === two) continue;
      expect(hasChecksum(whole.slice(0, place) + two + one + whole.slice(place + 2))).toBe(false);
    }
    expect(hasChecksum('')).toBe(false);
  });
});
