import type { Branded } from '@atomo-cc/kernel';
import { syncError } from './errors.js';

/** A path that passed the rules below, in Unicode form NFC, segments joined by `/`. */
export type SyncPath = Branded<'SyncPath'>;
/** What two paths share when a case-insensitive or normalising file system would take them for one file. */
export type PathKey = Branded<'PathKey'>;

/** The longest path in UTF-16 code units: the limit of protocol 1. */
export const PATH_LIMIT = 1_000;
/** The longest segment in UTF-8 bytes: what ext4, APFS and most others can store as one name. */
export const SEGMENT_LIMIT_BYTES = 255;

/** C0, DEL, C1 and the line and paragraph separators. */
// oxlint-disable-next-line no-control-regex -- these are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
/** Characters that turn the direction of text, so that a name reads as another one (CVE-2021-42574). */
const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
/** In Unicode mode a surrogate matches only when it stands alone. */
const LONE_SURROGATE = /\p{Surrogate}/u;
/** Characters that Windows cannot store; protocol 1 has always refused them. */
const NOT_PORTABLE = /[<>:"|?*]/;
/** Device names of Windows, which it reads so whatever the extension (Microsoft, "Naming Files, Paths, and Namespaces"). */
const DEVICE = /^(?:con|prn|aux|nul|conin\$|conout\$|com[1-9¹²³]|lpt[1-9¹²³])$/i;

const utf8 = new TextEncoder();

/** What is wrong with a path, as a sentence for the user; null when nothing is. */
export function pathFault(value: unknown): string | null {
  if (typeof value !== 'string') return 'must be a string';
  if (value === '') return 'is required';
  if (value.length > PATH_LIMIT) return `must be at most ${PATH_LIMIT} characters long`;
  if (LONE_SURROGATE.test(value)) return 'contains half of a surrogate pair';
  if (CONTROL.test(value)) return 'contains a control character';
  if (BIDI.test(value)) return 'contains a character that changes the direction of text';
  if (value.includes('\\')) return 'contains a backslash; separate folders by /';
  if (NOT_PORTABLE.test(value)) return 'contains one of < > : " | ? *, which not every device can store';
  if (value.startsWith('/')) return 'must be relative: it may not begin with /';
  const normal = value.normalize('NFC');
  if (normal.length > PATH_LIMIT) return `must be at most ${PATH_LIMIT} characters long in Unicode form NFC`;
  for (const segment of normal.split('/')) {
    const fault = segmentFault(segment);
    if (fault) return fault;
  }
  return null;
}

function segmentFault(segment: string): string | null {
  if (segment === '') return 'has an empty folder or file name';
  if (segment === '.' || segment === '..') return 'may not contain . or .. as a name';
  if (segment.endsWith('.') || segment.endsWith(' ')) return 'has a name that ends in a dot or a space';
  if (utf8.encode(segment).length > SEGMENT_LIMIT_BYTES) {
    return `has a name of more than ${SEGMENT_LIMIT_BYTES} bytes in UTF-8`;
  }
  const stem = segment.split('.', 1)[0]!.trimEnd();
  return DEVICE.test(stem) ? `contains "${stem}", a device name on Windows` : null;
}

/**
 * The path in the form that is stored and sent. The only maker of a SyncPath, for REST, sockets and clients alike.
 * @throws CodedError VALIDATION_ERROR
 */
export function syncPath(value: string): SyncPath {
  const fault = pathFault(value);
  if (fault) throw syncError('VALIDATION_ERROR', `The path ${fault}.`);
  return value.normalize('NFC') as SyncPath;
}

/**
 * The key under which a store has room for one file only. Full case folding is not in JavaScript; lower, upper, lower
 * equals it for everything that has a case (ß, ẞ and ss fold together, all three sigmas too), except the dotless ı, which
 * upper-casing would make an I although it is another letter.
 */
export function pathKey(path: SyncPath): PathKey {
  const folded = path
    .split('ı')
    .map((part) => part.toLowerCase().toUpperCase().toLowerCase())
    .join('ı');
  return folded.normalize('NFC') as PathKey;
}
