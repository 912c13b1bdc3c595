import { SEGMENT_LIMIT_BYTES, type SyncPath } from './paths.js';

const SUFFIX = / \(conflict of [^()]*\)(?=(?:\.[^./]*)?$)/u;
/** The path of a conflict copy: the file's path, the device and the content, as Postgres and JavaScript both read it. */
export const CONFLICT_COPY = String.raw`^(.+) \(conflict of ([^()/]+), [0-9a-f]{8}\)(\.[^./]+)?$`;
const COPY = new RegExp(CONFLICT_COPY, 'u');
const utf8 = new TextEncoder();
const DEVICE_LIMIT = 40;
/** What is longer is no extension, and would leave no room for the rest of the name. */
const EXTENSION_LIMIT = 20;

/**
 * The path of the copy that keeps `content`'s bytes beside the file: `notes/a (conflict of laptop, 3fa9c1d2).md`. The same
 * content gets the same name, so that a copy which is made twice is made once.
 */
export function conflictPath(path: string, device: string, hash: string): string {
  const slash = path.lastIndexOf('/') + 1;
  const name = path.slice(slash).replace(SUFFIX, '');
  const lastDot = name.lastIndexOf('.');
  const dot = lastDot > 0 && name.length - lastDot <= EXTENSION_LIMIT ? lastDot : name.length;
  const tail = ` (conflict of ${deviceName(device)}, ${hash.slice(7, 15)})${name.slice(dot)}`;
  return path.slice(0, slash) + cut(name.slice(0, dot), SEGMENT_LIMIT_BYTES - bytesIn(tail)) + tail;
}

/** Of which file the path is a conflict copy, as far as its name tells, and whose version it is; null: it is none. */
export function conflictOf(path: SyncPath): { of: SyncPath; device: string } | null {
  const [, stem, device, extension = ''] = COPY.exec(path) ?? [];
  return stem === undefined ? null : { of: `${stem}${extension}` as SyncPath, device: device! };
}

/** A device's name as it can stand in a file's name on every device. */
export function deviceName(given: string): string {
  const plain = given.replaceAll(/[^\p{L}\p{N} _-]+/gu, ' ').trim();
  return cut(plain.normalize('NFC'), DEVICE_LIMIT).trim() || 'a device';
}

function bytesIn(text: string): number {
  return utf8.encode(text).length;
}

/** The beginning of a text that takes at most so many bytes in UTF-8. */
function cut(text: string, limitBytes: number): string {
  let taken = '';
  for (const character of text) {
    if (bytesIn(taken) + bytesIn(character) > limitBytes) break;
    taken += character;
  }
  return taken;
}
