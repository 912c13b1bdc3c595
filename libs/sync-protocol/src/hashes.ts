import type { Branded } from '@atomo-cc/kernel';
import { named, shape } from './shape.js';

/**
 * The hash of protocol 2: `sha256:` and 64 hex digits of lower case, over the file's bytes. Protocol 1 shows another one,
 * over the string that it carries; they are equal for text.
 */
export type ContentHash = Branded<'ContentHash'>;

const FORM = /^sha256:[0-9a-f]{64}$/;

/** A hash of protocol 2 in a message. */
export const HASH = named(
  'ContentHash',
  shape<ContentHash>({ type: 'string', pattern: FORM.source }, 'SHA-256 of bytes.'),
);
const OF_NOTHING = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/** The hash of an empty file. */
export const EMPTY_HASH = OF_NOTHING as ContentHash;

/** True for what has the form of a ContentHash. */
export function isContentHash(value: unknown): value is ContentHash {
  return typeof value === 'string' && FORM.test(value);
}

/** The hash of bytes, by WebCrypto: the same in Node, browsers and Obsidian on a phone. */
export async function contentHash(bytes: Uint8Array<ArrayBuffer>): Promise<ContentHash> {
  return contentHashOf(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)));
}

/** The hash as it is written, of the 32 bytes of a SHA-256. */
export function contentHashOf(sha256: Uint8Array): ContentHash {
  let hex = '';
  for (const byte of sha256) hex += byte.toString(16).padStart(2, '0');
  return `sha256:${hex}` as ContentHash;
}
