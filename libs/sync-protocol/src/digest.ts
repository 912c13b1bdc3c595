import type { Branded } from '@atomo-cc/kernel';
import type { ContentHash } from './hashes.js';
import type { SyncPath } from './paths.js';
import { named, shape } from './shape.js';

/**
 * What a set of files comes to, whatever their order: 16 hex digits. Two sides with equal digests and counts at the same
 * `seq` hold the same files. It finds accidents; against an adversary it proves nothing.
 */
export type Digest = Branded<'Digest'>;

/** A digest in a message. */
export const DIGEST = named(
  'Digest',
  shape<Digest>({ type: 'string', pattern: '^[0-9a-f]{16}$' }, 'What a set of files comes to, whatever their order.'),
);

/** The digest of no files. */
export const EMPTY_DIGEST = '0000000000000000' as Digest;

const BITS = 64;
const TWO_TO_32 = 2 ** 32;
const utf8 = new TextEncoder();
const low = (value: bigint) => BigInt.asUintN(BITS, value);

/** FNV-1a, 64 bits. In halves of 32, because a bigint for each step costs twenty times as much; the prime is 2^40 + 0x1b3. */
function fnv1a(bytes: Uint8Array): bigint {
  let [high, rest] = [0xcbf29ce4, 0x84222325];
  for (const byte of bytes) {
    rest = (rest ^ byte) >>> 0;
    const product = rest * 0x1b3;
    high = (high * 0x1b3 + Math.floor(product / TWO_TO_32) + (rest << 8)) >>> 0;
    rest = product >>> 0;
  }
  return (BigInt(high) << 32n) | BigInt(rest);
}

/** What one file adds to a digest, 64 bits: its path in NFC as it is shown, and the hash of its bytes. */
export function digestTerm(path: SyncPath, hash: ContentHash): bigint {
  // FNV-1a of the path, then the beginning of the hash, then the finaliser of splitmix64: without the last step two files
  // that swap their contents would leave the digest as it was.
  let term = low(fnv1a(utf8.encode(path)) + BigInt(`0x${hash.slice('sha256:'.length, 'sha256:'.length + 16)}`));
  term = low((term ^ (term >> 30n)) * 0xbf58476d1ce4e5b9n);
  term = low((term ^ (term >> 27n)) * 0x94d049bb133111ebn);
  return term ^ (term >> 31n);
}

/** The digest of the exclusive or of all terms; adding a file and taking it away are the same operation. */
export function digestOf(terms: Iterable<bigint>): Digest {
  let sum = 0n;
  for (const term of terms) sum ^= term;
  return sum.toString(16).padStart(16, '0') as Digest;
}
