import type { SyncPath } from './paths.js';

/** The longest content in UTF-16 code units, the limit of protocol 1; binary files count as their base64 text. */
export const CONTENT_LIMIT = 10 * 1024 * 1024;

/**
 * The largest frame or body that carries a content of CONTENT_LIMIT. In JSON a character takes up to three bytes of UTF-8
 * (a surrogate pair four for its two); quotes, backslashes and line breaks take two. Only a text that is mostly control
 * characters (six bytes each) is refused although its length is allowed.
 */
export const FRAME_LIMIT_BYTES = 3 * CONTENT_LIMIT + 64 * 1024;

/** What is wrong with a content, as a sentence for the user; null when nothing is. */
export function contentFault(value: unknown): string | null {
  if (typeof value === 'string' && value.length > CONTENT_LIMIT) {
    return `must be at most ${CONTENT_LIMIT} characters long`;
  }
  const fault = textFault(value);
  return fault?.startsWith('contains') ? `${fault}; send binary files as base64` : fault;
}

/** Why a value cannot be stored as text unchanged; null when it can. */
export function textFault(value: unknown): string | null {
  if (typeof value !== 'string') return 'must be a string';
  if (value.includes('\0')) return 'contains U+0000, which Postgres cannot store in text';
  // Such text has no UTF-8 form: stored it would change, and its hash would be that of another text.
  if (!isWellFormed(value)) return 'contains half of a surrogate pair';
  return null;
}

function isWellFormed(value: string): boolean {
  return (value as string & { isWellFormed(): boolean }).isWellFormed();
}

/** The extensions whose content is base64 in protocol 1; clients hold the same list, so it may not change within it. */
const BINARY_EXTENSIONS: ReadonlySet<string> = new Set(
  [
    'png jpg jpeg gif bmp webp ico svg tiff tif',
    'pdf doc docx xls xlsx ppt pptx odt ods odp',
    'zip rar 7z tar gz bz2 xz',
    'mp3 wav ogg flac aac wma m4a mp4 avi mkv mov wmv flv webm',
    'exe dll so dylib bin ttf otf woff woff2 eot db sqlite sqlite3',
  ].flatMap((line) => line.split(' ')),
);

/** What protocol 1 derives from a name: the extension in lower case without its dot, and whether the content is base64. */
export function fileKind(path: SyncPath): { extension: string | null; isBinary: boolean } {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const dot = name.lastIndexOf('.');
  // A leading dot marks a hidden file, no extension.
  const extension = dot > 0 ? name.slice(dot + 1).toLowerCase() : null;
  return { extension, isBinary: extension !== null && BINARY_EXTENSIONS.has(extension) };
}
