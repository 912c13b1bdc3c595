import type { Branded } from '@atomo-cc/kernel';
import { syncError } from './errors.js';
import { named, shape } from './shape.js';

/** A path that passed the rules below, in Unicode form NFC, segments joined by `/`. */
export type SyncPath = Branded<'SyncPath'>;
/** What two paths share when a case-insensitive or normalising file system would take them for one file. */
export type PathKey = Branded<'PathKey'>;

/** The longest path in UTF-16 code units: the limit of protocol 1. */
export const PATH_LIMIT = 1_000;
/** The longest segment in UTF-8 bytes: what ext4, APFS and most others can store as one name. */
export const SEGMENT_LIMIT_BYTES = 255;

/** A path in a message. */
export const PATH = named(
  'SyncPath',
  shape<SyncPath>(
    { type: 'string', minLength: 1, maxLength: PATH_LIMIT },
    'Relative to the store, segments joined by /, in Unicode form NFC. Names that some device cannot store are refused.',
  ),
);

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

/** Why a path is refused: `details.reason` of PATH_INVALID and PATH_NOT_PORTABLE, and what clients show for a skipped file. */
export const PATH_ERRORS = {
  NOT_A_STRING: 'The path is no string.',
  EMPTY: 'The path is empty.',
  TOO_LONG: 'The path is longer than 1,000 characters.',
  LONE_SURROGATE: 'The path contains half of a surrogate pair, which has no UTF-8 form.',
  CONTROL_CHARACTER: 'The path contains a control character.',
  BIDI_CHARACTER: 'The path contains a character that changes the direction of text, so that it reads as another one.',
  BACKSLASH: 'The path contains a backslash; folders are separated by /.',
  ABSOLUTE: 'The path begins with /; paths are relative to the store.',
  EMPTY_SEGMENT: 'The path has an empty folder or file name.',
  DOT_SEGMENT: 'The path contains . or .. as a name.',
  SEGMENT_TOO_LONG: 'A name of the path has more than 255 bytes in UTF-8.',
  FORBIDDEN_CHARACTER: 'The path contains one of < > : " | ? *, which Windows cannot store.',
  TRAILING_DOT_OR_SPACE: 'A name of the path ends in a dot or a space, which Windows drops.',
  RESERVED_NAME: 'A name of the path is a device on Windows, such as CON or NUL.',
} as const;

/** A reason to refuse a path. */
export type PathReason = keyof typeof PATH_ERRORS;

/** What is wrong with a path. */
export interface PathFault {
  readonly reason: PathReason;
  /** PATH_NOT_PORTABLE when some devices could store it, else PATH_INVALID. */
  readonly code: 'PATH_INVALID' | 'PATH_NOT_PORTABLE';
  /** Ends a sentence for the user that begins with "The path". */
  readonly message: string;
}

const NOT_ON_EVERY_DEVICE: ReadonlySet<PathReason> = new Set<PathReason>([
  'FORBIDDEN_CHARACTER',
  'TRAILING_DOT_OR_SPACE',
  'RESERVED_NAME',
]);

function fault(reason: PathReason, message: string): PathFault {
  return { reason, code: NOT_ON_EVERY_DEVICE.has(reason) ? 'PATH_NOT_PORTABLE' : 'PATH_INVALID', message };
}

/** What is wrong with a path; null when nothing is. The one validator, for REST, sockets, clients and their disks. */
export function pathFault(value: unknown): PathFault | null {
  if (typeof value !== 'string') return fault('NOT_A_STRING', 'must be a string');
  if (value === '') return fault('EMPTY', 'is required');
  if (value.length > PATH_LIMIT) return fault('TOO_LONG', `must be at most ${PATH_LIMIT} characters long`);
  if (LONE_SURROGATE.test(value)) return fault('LONE_SURROGATE', 'contains half of a surrogate pair');
  if (CONTROL.test(value)) return fault('CONTROL_CHARACTER', 'contains a control character');
  if (BIDI.test(value)) return fault('BIDI_CHARACTER', 'contains a character that changes the direction of text');
  if (value.includes('\\')) return fault('BACKSLASH', 'contains a backslash; separate folders by /');
  if (NOT_PORTABLE.test(value)) {
    return fault('FORBIDDEN_CHARACTER', 'contains one of < > : " | ? *, which not every device can store');
  }
  if (value.startsWith('/')) return fault('ABSOLUTE', 'must be relative: it may not begin with /');
  const normal = value.normalize('NFC');
  if (normal.length > PATH_LIMIT) {
    return fault('TOO_LONG', `must be at most ${PATH_LIMIT} characters long in Unicode form NFC`);
  }
  for (const segment of normal.split('/')) {
    const found = segmentFault(segment);
    if (found) return found;
  }
  return null;
}

function segmentFault(segment: string): PathFault | null {
  if (segment === '') return fault('EMPTY_SEGMENT', 'has an empty folder or file name');
  if (segment === '.' || segment === '..') return fault('DOT_SEGMENT', 'may not contain . or .. as a name');
  if (segment.endsWith('.') || segment.endsWith(' ')) {
    return fault('TRAILING_DOT_OR_SPACE', 'has a name that ends in a dot or a space');
  }
  // A unit of UTF-16 takes three bytes at most: what is short enough need not be encoded to know.
  if (3 * segment.length > SEGMENT_LIMIT_BYTES && utf8.encode(segment).length > SEGMENT_LIMIT_BYTES) {
    return fault('SEGMENT_TOO_LONG', `has a name of more than ${SEGMENT_LIMIT_BYTES} bytes in UTF-8`);
  }
  const stem = segment.split('.', 1)[0]!.trimEnd();
  return DEVICE.test(stem) ? fault('RESERVED_NAME', `contains "${stem}", a device name on Windows`) : null;
}

/**
 * The path in the form that is stored and sent. The only maker of a SyncPath, for REST, sockets and clients alike.
 * @throws CodedError PATH_INVALID, PATH_NOT_PORTABLE; `details.reason` is a PathReason
 */
export function syncPath(value: string): SyncPath {
  const found = pathFault(value);
  if (found) throw syncError(found.code, `The path ${found.message}.`, { field: 'path', reason: found.reason });
  return value.normalize('NFC') as SyncPath;
}

/** Whether `path` lies below the folder; case and Unicode form do not matter, as on the disks of many devices. */
export function isBelow(folder: SyncPath, path: SyncPath): boolean {
  return pathKey(path).startsWith(`${pathKey(folder)}/`);
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
