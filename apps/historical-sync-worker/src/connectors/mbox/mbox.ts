/**
 * The streaming mbox splitter: bytes in, one entry per message out, with exact byte offsets to resume from.
 *
 * The format follows RFC 4155 and the `mboxrd` quoting rule, read leniently: `mboxo` files, LF and CRLF, a missing last
 * newline and the separators of Mailman, Thunderbird, Eudora and Google Takeout are all accepted. `Content-Length`
 * (mboxcl) is ignored on purpose, because it is wrong in most archives whose line ends were ever converted.
 */
import type { ArchiveErrorCode } from './errors.js';

/** 64 MiB: above what mail servers accept (25–50 MB is usual), small enough that three copies of it fit a 2 GB worker. */
export const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Longest line that is looked at as a separator. An address has at most 254 characters, a date fewer than 40. */
const MAX_SEPARATOR_BYTES = 1024;

/** An archive cannot be read (further); the message says what was found and what to do. */
export class ArchiveError extends Error {
  override readonly name = 'ArchiveError';
  constructor(
    readonly code: ArchiveErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What the `From ` line says. `sender` is `''` where there is none; `date` is null where it cannot be read. */
export interface MboxEnvelope {
  sender: string;
  date: Date | null;
}

/** One whole message. `raw` is the RFC 822 message without separator, quoting and the blank line that closes it. */
export interface MboxMessageEntry {
  /** Offset of the separator line in the uncompressed archive. */
  offset: number;
  /** Offset just behind the message: where the next separator stands, or the end. A legal `from` of a later run. */
  end: number;
  envelope: MboxEnvelope;
  raw: Buffer;
}

/** A message that was skipped; the entries after it are still read. */
export interface MboxFaultEntry {
  offset: number;
  end: number;
  fault: { code: 'MESSAGE_TOO_LARGE'; reason: string };
}

/** What {@link readMbox} yields; `'fault' in entry` tells the two apart. */
export type MboxEntry = MboxMessageEntry | MboxFaultEntry;

/** Options of {@link readMbox}. All offsets are bytes of the uncompressed archive. */
export interface ReadMboxOptions {
  /** Where reading starts: 0 or the `end` of an earlier entry. */
  from?: number;
  /** Offset of the first byte that `source` delivers, for a source that can seek; bytes before `from` are dropped. */
  sourceStart?: number;
  /** Checked at every chunk and every entry; reading then throws the signal's reason. */
  signal?: AbortSignal;
  /** For tests; {@link MAX_MESSAGE_BYTES} otherwise. */
  maxMessageBytes?: number;
}

const LF = 0x0a;
const CR = 0x0d;
const FROM = Buffer.from('From ');
const QUOTED_FROM = Buffer.from('>From ');
const BOM = Buffer.from([0xef, 0xbb, 0xbf]);

const WEEKDAY = '(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)';
const MONTH = '(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)';
const CLOCK = '(\\d{1,2}:\\d{2}(?::\\d{2})?)';
const ZONE = '[+-]\\d{4}|[A-Z]{1,5}';
/** `Sat Apr  7 09:05:59 2001`, with a zone before or behind the year in some writers. */
const ASCTIME = new RegExp(
  `${WEEKDAY} +${MONTH} +(\\d{1,2}) +${CLOCK}(?: +(${ZONE}))? +(\\d{4})(?: +(${ZONE}))?(?: +remote from \\S+)? *$`,
);
/** `Sat, 7 Apr 2001 09:05:59 +0200`, which a few exporters write in place of the asctime form. */
const RFC_DATE = new RegExp(`${WEEKDAY}, +(\\d{1,2}) +${MONTH} +(\\d{4}) +${CLOCK}(?: +(${ZONE}))? *$`);
/** One word, or Mailman's masked `name at host`: a sentence that happens to end in a date is no separator. */
const SENDER = /^(?:\S*|"[^"]*"@\S+|\S+ at \S+)$/;

/**
 * Reads a line as an mbox separator: `From `, a sender, a date. Answers null for any other line, such as a sentence that
 * starts with "From". A date without a zone, or with one that has no known offset, counts as UTC (RFC 4155).
 */
export function parseSeparator(line: string): MboxEnvelope | null {
  if (!line.startsWith('From ')) return null;
  const rest = line.slice(5);
  const asctime = ASCTIME.exec(rest);
  const match = asctime ?? RFC_DATE.exec(rest);
  if (!match) return null;
  const sender = rest.slice(0, match.index).trim();
  if (!SENDER.test(sender)) return null;
  const [month, day, clock, year, zone] = asctime
    ? [match[1], match[2], match[3], match[5], match[4] ?? match[6]]
    : [match[2], match[1], match[4], match[3], match[5]];
  const stamp = `${day} ${month} ${year} ${clock}`;
  const zoned = Date.parse(`${stamp} ${zone ?? '+0000'}`);
  const time = Number.isNaN(zoned) ? Date.parse(`${stamp} +0000`) : zoned;
  return { sender, date: Number.isNaN(time) ? null : new Date(time) };
}

/**
 * Splits an mbox into its messages, in file order, holding one message at a time.
 *
 * A separator stands at the very start or after an empty line and reads as {@link parseSeparator} wants it. A message
 * above the limit is skipped without being held and reported as an entry with `fault`. When `source` fails in the middle
 * of a message, that message is not yielded and the failure passes through.
 *
 * @throws ArchiveError `NOT_AN_MBOX` when the first line that is not blank is no separator; `RESUME_POINT_INVALID` when no
 *   entry starts at `from`.
 */
export async function* readMbox(
  source: AsyncIterable<Uint8Array>,
  options: ReadMboxOptions = {},
): AsyncGenerator<MboxEntry, void, undefined> {
  const { from = 0, sourceStart = 0, signal, maxMessageBytes = MAX_MESSAGE_BYTES } = options;
  if (!Number.isSafeInteger(from) || from < sourceStart) {
    throw new ArchiveError(
      'RESUME_POINT_INVALID',
      `Cannot resume at byte ${from}: the source starts at ${sourceStart}.`,
    );
  }
  signal?.throwIfAborted();

  let skip = from - sourceStart;
  /** Offset in the archive of the first byte of the window that is being scanned. */
  let windowStart = from;
  /** The unfinished line at the end of the last chunk; at most MAX_SEPARATOR_BYTES long, else `insideLine` is set. */
  let carry: Buffer = Buffer.alloc(0);
  let insideLine = false;
  let afterEmptyLine = true;
  let message: OpenMessage | null = null;

  /** Called for each line start while no message is open: skips what may precede the first separator, or throws. */
  const expectSeparator = (line: Buffer): void => {
    if (from > 0) {
      throw new ArchiveError(
        'RESUME_POINT_INVALID',
        `No message starts at byte ${from} of this archive. Resume only where an earlier entry ended, on the same file.`,
      );
    }
    if (!isEmpty(line)) throw notAnMbox(line);
  };

  for await (const bytes of source) {
    signal?.throwIfAborted();
    let chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (skip > 0) {
      const dropped = Math.min(skip, chunk.length);
      skip -= dropped;
      chunk = chunk.subarray(dropped);
    }
    if (chunk.length === 0) continue;
    const window = carry.length > 0 ? Buffer.concat([carry, chunk]) : chunk;
    let lineStart = 0;
    let kept = 0;
    for (;;) {
      const lineEnd = window.indexOf(LF, lineStart);
      if (lineEnd < 0) break;
      const line = window.subarray(lineStart, lineEnd);
      const nextLine = lineEnd + 1;
      if (insideLine) {
        insideLine = false;
        afterEmptyLine = false;
      } else {
        const envelope = afterEmptyLine ? separatorIn(line, windowStart + lineStart) : null;
        if (envelope) {
          if (message) {
            message.add(window.subarray(kept, lineStart));
            yield message.close(windowStart + lineStart);
            signal?.throwIfAborted();
          }
          message = new OpenMessage(windowStart + lineStart, envelope, maxMessageBytes);
          kept = nextLine;
          afterEmptyLine = false;
        } else {
          if (!message) expectSeparator(line);
          afterEmptyLine = isEmpty(line);
        }
      }
      lineStart = nextLine;
    }
    const rest = window.length - lineStart;
    const giveUp: boolean = insideLine || rest > MAX_SEPARATOR_BYTES;
    if (giveUp && !message) expectSeparator(window.subarray(lineStart));
    insideLine = giveUp && rest + (insideLine ? 1 : 0) > 0;
    const keepFrom = insideLine ? window.length : lineStart;
    message?.add(window.subarray(kept, keepFrom));
    carry = window.subarray(keepFrom);
    windowStart += keepFrom;
  }
  signal?.throwIfAborted();

  if (skip > 0) {
    throw new ArchiveError(
      'RESUME_POINT_INVALID',
      `Cannot resume at byte ${from}: the archive has only ${from - skip} bytes. Was another file uploaded in its place?`,
    );
  }
  const end = windowStart + carry.length;
  if (carry.length > 0) {
    const envelope = afterEmptyLine ? separatorIn(carry, windowStart) : null;
    if (envelope) {
      if (message) yield message.close(windowStart);
      message = new OpenMessage(windowStart, envelope, maxMessageBytes);
    } else if (message) {
      message.add(carry);
    } else {
      expectSeparator(carry);
    }
  }
  if (message) yield message.close(end);
}

/** A message whose end has not been seen yet. Drops what it holds as soon as the limit is passed. */
class OpenMessage {
  private parts: Buffer[] = [];
  private size = 0;

  constructor(
    private readonly offset: number,
    private readonly envelope: MboxEnvelope,
    private readonly limit: number,
  ) {}

  add(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.size += bytes.length;
    if (this.size > this.limit) this.parts = [];
    else this.parts.push(bytes);
  }

  close(end: number): MboxEntry {
    if (this.size > this.limit) return tooLarge(this.offset, end, this.size, this.limit);
    const bytes = Buffer.concat(this.parts);
    this.parts = [];
    return { offset: this.offset, end, envelope: this.envelope, raw: unquote(withoutClosingLine(bytes)) };
  }
}

/** The entry that stands for a message above the limit. Shared with the reader of single messages. */
export function tooLarge(offset: number, end: number, size: number, limit: number): MboxFaultEntry {
  const reason = `The message at byte ${offset} has ${size} bytes; messages above ${limit} bytes are skipped.`;
  return { offset, end, fault: { code: 'MESSAGE_TOO_LARGE', reason } };
}

function separatorIn(line: Buffer, offset: number): MboxEnvelope | null {
  const start = offset === 0 && startsWith(line, BOM) ? BOM.length : 0;
  if (line.length > MAX_SEPARATOR_BYTES || !startsWith(line, FROM, start)) return null;
  const end = line[line.length - 1] === CR ? line.length - 1 : line.length;
  return parseSeparator(line.toString('latin1', start, end));
}

function startsWith(bytes: Buffer, prefix: Buffer, at = 0): boolean {
  return bytes.length >= at + prefix.length && bytes.compare(prefix, 0, prefix.length, at, at + prefix.length) === 0;
}

function isEmpty(line: Buffer): boolean {
  return line.length === 0 || (line.length === 1 && line[0] === CR);
}

/** Writers add one empty line behind each message; it belongs to the archive, not to the message. */
function withoutClosingLine(bytes: Buffer): Buffer {
  const n = bytes.length;
  if (n >= 2 && bytes[n - 1] === LF && bytes[n - 2] === LF) return bytes.subarray(0, n - 1);
  if (n >= 4 && bytes[n - 1] === LF && bytes[n - 2] === CR && bytes[n - 3] === LF) return bytes.subarray(0, n - 2);
  return bytes;
}

/**
 * Takes one `>` from each body line that reads `>From `, `>>From ` and so on (mboxrd). A mboxo writer quoted only the
 * first kind, so its own `>>From ` lines lose one sign too: nothing in the file tells the two dialects apart.
 */
function unquote(bytes: Buffer): Buffer {
  let hit = bytes.indexOf(QUOTED_FROM, bodyStart(bytes));
  if (hit < 0) return bytes;
  const parts: Buffer[] = [];
  let kept = 0;
  for (; hit >= 0; hit = bytes.indexOf(QUOTED_FROM, hit + QUOTED_FROM.length)) {
    let first = hit;
    while (first > kept && bytes[first - 1] === 0x3e) first--;
    if (first > 0 && bytes[first - 1] !== LF) continue;
    parts.push(bytes.subarray(kept, hit));
    kept = hit + 1;
  }
  parts.push(bytes.subarray(kept));
  return Buffer.concat(parts);
}

function bodyStart(bytes: Buffer): number {
  for (let at = 0; at < bytes.length;) {
    const lineEnd = bytes.indexOf(LF, at);
    if (lineEnd < 0) return bytes.length;
    if (isEmpty(bytes.subarray(at, lineEnd))) return lineEnd + 1;
    at = lineEnd + 1;
  }
  return bytes.length;
}

const SIGNATURES: readonly (readonly [Buffer, string])[] = [
  [Buffer.from([0x1f, 0x8b]), 'gzip data (open it as an archive, not as a plain mbox)'],
  [Buffer.from('PK\u0003\u0004'), 'a zip file (unpack it and import the mbox inside)'],
  [Buffer.from('!BDN'), 'an Outlook .pst file (export the folder as mbox or .eml first)'],
  [Buffer.from([0xd0, 0xcf, 0x11, 0xe0]), 'an Outlook .msg or Office file (save the message as .eml first)'],
  [Buffer.from('BZh'), 'bzip2 data (unpack it, or compress with gzip)'],
  [Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a]), 'xz data (unpack it, or compress with gzip)'],
  [Buffer.from('%PDF'), 'a PDF document'],
];

/** The error for bytes that are no mail archive, naming what they seem to be. `head` is their beginning. */
export function notAnMbox(head: Buffer): ArchiveError {
  const known = SIGNATURES.find(([magic]) => startsWith(head, magic))?.[1];
  const sample = head.toString('latin1', 0, 60).split(/\r?\n/, 1)[0] ?? '';
  const printable = sample.replace(/[^\x20-\x7e]/g, '?');
  const found =
    known ?? (/[^\t\x20-\xff]/.test(sample) ? 'binary data' : `text that begins ${JSON.stringify(printable)}`);
  return new ArchiveError(
    'NOT_AN_MBOX',
    `This is no mail archive: found ${found}. An mbox begins with a line such as "From ann@example.org Sat Apr  7 09:05:59 2001".`,
  );
}
