import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';

import type { AddressObject, AttachmentStream, EmailAddress, HeaderLines, Headers, MessageText } from 'mailparser';
import { MailParser } from 'mailparser';

import type { MailFaultCode } from './errors.js';
import type { MboxEnvelope } from './mbox.js';

/** Longest body that is kept, in UTF-16 units: about 40 times a long mail, and far below Postgres' 1 MB limit of a tsvector. */
export const MAX_TEXT_CHARS = 200_000;
/** Longest subject: one line of RFC 5322. */
export const MAX_SUBJECT_CHARS = 998;
/** Longest display name or file name that is kept; longer ones are junk or attacks. */
export const MAX_NAME_CHARS = 255;
/** Longest id that is kept as it is: ids are indexed, and a Postgres index row holds at most 2,704 bytes. */
export const MAX_ID_BYTES = 998;
/** Longest address (RFC 5321: 64 for the local part, 255 for the domain). */
export const MAX_ADDRESS_CHARS = 320;
/** Ancestors kept of one message: the first (root of the thread) and the nearest. */
export const MAX_REFERENCES = 100;
/** Recipients kept of each of To, Cc and Bcc. Above what mail services deliver (500 to 1,000 is usual). */
export const MAX_RECIPIENTS = 1_000;
/** HTML above this is not turned into text: the conversion holds a tree many times the size of its input. */
export const MAX_HTML_CHARS = 1_000_000;
/** Headers above this are refused: mailparser's time grows with the square of the header lines (2 s here, 30 s at 1 MiB). */
export const MAX_HEADER_BYTES = 256 * 1024;
/** A parser that answers nothing for so long never will; a 64 MiB message takes a few seconds. */
const PARSE_DEADLINE_MS = 60_000;

/** Dates outside are clock faults (1970, year 101, 2098), not mail; the envelope's date is taken instead. */
const EARLIEST_MAIL = Date.UTC(1971, 0, 1);
const LATEST_MAIL = Date.UTC(2100, 0, 1);

/** A person or list in a header. `address` is lower-cased; `name` is null where the header gives none. */
export interface MailAddress {
  address: string;
  name: string | null;
}

/** An attachment by name; its content is not kept. `size` counts decoded bytes. */
export interface MailAttachment {
  filename: string | null;
  contentType: string;
  size: number;
}

/**
 * One parsed message. All strings are storable in Postgres: NUL and lone surrogates became U+FFFD. Message ids stand
 * without their angle brackets (as in JMAP, RFC 8621 §4.1.2.3).
 */
export interface MailRecord {
  /** The Message-ID, or `sha256:` and {@link contentHash} where the message has none. */
  messageId: string;
  /** The first `<id>` of In-Reply-To; comments around it are ignored. */
  inReplyTo: string | null;
  /** Oldest first, without repetition. */
  references: string[];
  from: MailAddress;
  to: MailAddress[];
  cc: MailAddress[];
  bcc: MailAddress[];
  /** The mailing list's own address: List-Post, or the recipient that List-Id describes. Null for ordinary mail. */
  listAddress: string | null;
  subject: string;
  sentAt: Date;
  /** The plain text, or the HTML as text where there is no plain text. */
  text: string;
  /** True where `text` was cut at {@link MAX_TEXT_CHARS}, HTML was too long or broken to be read, or there were too many parts. */
  truncated: boolean;
  attachments: MailAttachment[];
  /** SHA-256 of the raw message, hex. */
  contentHash: string;
}

/** A message that cannot become a record; `'code' in result` tells it from one. `reason` is storable like a record. */
export interface MailFault {
  code: MailFaultCode;
  reason: string;
}

/**
 * Parses one RFC 822 message. Bad input never throws: it is answered as a {@link MailFault}.
 *
 * The envelope gives the date where the header has none that can be believed.
 */
export async function parseMail(raw: Buffer, envelope: MboxEnvelope): Promise<MailRecord | MailFault> {
  if (!/\S/.test(raw.toString('latin1', 0, 4096))) return fault('MAIL_EMPTY', 'The message is empty.');
  if (headerBytes(raw) > MAX_HEADER_BYTES) {
    return fault(
      'MAIL_UNPARSABLE',
      `The headers have ${headerBytes(raw)} bytes; at most ${MAX_HEADER_BYTES} are read.`,
    );
  }
  const contentHash = createHash('sha256').update(raw).digest('hex');
  try {
    let mime = await readMime(unmaskSender(raw));
    if (!mime.headerLines.some((header) => header.line.includes(':'))) {
      return fault(
        'MAIL_NO_HEADERS',
        `No header line found; the message begins ${quote(raw.toString('latin1', 0, 60))}.`,
      );
    }
    const from = addressesOf(mime.headers.get('from'))[0];
    if (!from) return fault('MAIL_NO_SENDER', `${describe(mime.headerLines, 'from', 'From')}.`);
    const sentAt = sentDate(mime.headerLines, envelope);
    if (!sentAt) {
      return fault('MAIL_NO_DATE', `${describe(mime.headerLines, 'date', 'Date')}, and the separator has no date.`);
    }
    if (mime.text.trim() === '' && mime.html) mime = { ...mime, ...(await textOfHtml(mime.html)) };

    const to = addressesOf(mime.headers.get('to'));
    const cc = addressesOf(mime.headers.get('cc'));
    const text = tidyBody(mime.text, mime.html !== '');
    return {
      messageId: idsOf(mime.headerLines, 'message-id')[0] ?? `sha256:${contentHash}`,
      inReplyTo: idsOf(mime.headerLines, 'in-reply-to')[0] ?? null,
      references: nearest(idsOf(mime.headerLines, 'references')),
      from,
      to,
      cc,
      bcc: addressesOf(mime.headers.get('bcc')),
      listAddress: listAddress(mime.headerLines, [...to, ...cc]),
      subject: line(stringOf(mime.headers.get('subject')), MAX_SUBJECT_CHARS),
      sentAt,
      text: storable(cut(text, MAX_TEXT_CHARS)),
      truncated: mime.incomplete || text.length > MAX_TEXT_CHARS,
      attachments: mime.attachments,
      contentHash,
    };
  } catch (error) {
    if (error instanceof ParseTimeout) return fault('MAIL_PARSE_TIMEOUT', error.message);
    return fault(
      'MAIL_UNPARSABLE',
      `The message cannot be parsed: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

interface Mime {
  headers: Headers;
  headerLines: HeaderLines;
  text: string;
  html: string;
  attachments: MailAttachment[];
  /** Some HTML could not be turned into text, or parts beyond the parser's limits were left out. */
  incomplete: boolean;
}

class ParseTimeout extends Error {}

/** Of the parser's errors these concern one HTML part only; it goes on, and sets a placeholder in place of the text. */
const HTML_FAILURE = /^(?:HTML too long for parsing|Failed to parse HTML)/;
const HTML_PLACEHOLDER = /^Invalid HTML content(?: \(too long\))?$/gm;

/**
 * Runs mailparser over a message. The class is used and not `simpleParser`, because that one holds every attachment and
 * gives the whole message up when one HTML part is too long.
 */
function readMime(raw: Buffer): Promise<Mime> {
  return new Promise((resolve, reject) => {
    const mime: Mime = { headers: new Map(), headerLines: [], text: '', html: '', attachments: [], incomplete: false };
    const parser = new MailParser({
      skipTextToHtml: true,
      skipTextLinks: true,
      skipImageLinks: true,
      maxHtmlLengthToParse: MAX_HTML_CHARS,
    });
    const deadline = setTimeout(() => {
      parser.destroy();
      reject(new ParseTimeout(`The parser gave no answer within ${PARSE_DEADLINE_MS / 1000} s.`));
    }, PARSE_DEADLINE_MS).unref();
    parser.on('headers', (headers) => {
      mime.headers = headers;
    });
    parser.on('headerLines', (lines: unknown) => {
      mime.headerLines = lines as HeaderLines;
    });
    parser.on('data', (part) => {
      if (part.type === 'text') readText(mime, part);
      else readAttachment(mime, part);
    });
    parser.on('error', (error: Error) => {
      if (HTML_FAILURE.test(error.message)) {
        mime.incomplete = true;
        return;
      }
      clearTimeout(deadline);
      reject(error);
    });
    parser.on('end', () => {
      clearTimeout(deadline);
      if (mime.incomplete) mime.text = mime.text.replace(HTML_PLACEHOLDER, '');
      // A message with too many parts or too long part headers ends here and not in 'error': mailparser 3.9 drops its own
      // splitter's failure once all input was written, and only this flag tells.
      if ((parser as unknown as { hasFailed?: boolean }).hasFailed) mime.incomplete = true;
      resolve(mime);
    });
    parser.end(raw);
  });
}

function readText(mime: Mime, part: MessageText): void {
  mime.text = part.text ?? '';
  mime.html = typeof part.html === 'string' ? part.html : '';
}

/**
 * Drains an attachment without keeping it: the parser goes on only when the content was read and released. A part with an
 * empty Content-Type arrives with `false` in its place, whatever the types say.
 */
function readAttachment(mime: Mime, part: AttachmentStream): void {
  const content = part.content as Readable;
  content.on('data', () => {});
  content.once('end', () => {
    const filename = line(stringOf(part.filename), MAX_NAME_CHARS);
    const contentType = line(stringOf(part.contentType), MAX_NAME_CHARS).toLowerCase();
    mime.attachments.push({
      filename: filename || null,
      contentType: contentType || 'application/octet-stream',
      size: part.size,
    });
    part.release();
  });
}

/**
 * The text of HTML that stands below a multipart without plain text: mailparser converts only HTML at the root or beside
 * plain text, so the HTML is given to it once more, as a message of its own.
 */
async function textOfHtml(html: string): Promise<Pick<Mime, 'text' | 'incomplete'>> {
  const { text, incomplete } = await readMime(Buffer.from(`Content-Type: text/html; charset=utf-8\r\n\r\n${html}`));
  return { text, incomplete };
}

function headerBytes(raw: Buffer): number {
  const ends = [raw.indexOf('\n\n'), raw.indexOf('\n\r\n')].filter((end) => end >= 0);
  return ends.length > 0 ? Math.min(...ends) : raw.length;
}

/** Mailman's web archives write `From: ann at example.org (Ann)`, which no address parser reads. */
const MASKED_SENDER = /^(From:[ \t]*[^\s@<>"()]+) at ([^\s@<>"()]+\.[^\s@<>"()]+[ \t]*(?:\(|\r?$))/im;

function unmaskSender(raw: Buffer): Buffer {
  const head = raw.toString('latin1', 0, 16 * 1024);
  const match = MASKED_SENDER.exec(head);
  if (!match || /\r?\n\r?\n/.test(head.slice(0, match.index))) return raw;
  const at = match.index + (match[1]?.length ?? 0);
  return Buffer.concat([raw.subarray(0, at), Buffer.from('@'), raw.subarray(at + ' at '.length)]);
}

/** Raw values of a header, unfolded. Ids and dates are read from these: mailparser's own values for them are repaired guesses. */
function rawValues(lines: HeaderLines, key: string): string[] {
  return lines
    .filter((header) => header.key === key)
    .map((header) =>
      header.line
        .slice(header.line.indexOf(':') + 1)
        .replace(/\r?\n/g, ' ')
        .trim(),
    );
}

/** Message ids of a header in order, without repetition. A value that is one bare word counts as an id. */
function idsOf(lines: HeaderLines, key: string): string[] {
  const ids = new Set<string>();
  for (const value of rawValues(lines, key)) {
    const bracketed = [...value.matchAll(/<\s*([^<>\s]+)\s*>/g)].map((match) => match[1] ?? '');
    const found = bracketed.length > 0 ? bracketed : /^[^<>\s]+@[^<>\s]+$/.test(value) ? [value] : [];
    for (const id of found) ids.add(boundedId(storable(id)));
  }
  return [...ids];
}

/** A giant id is replaced by its hash, the same wherever it is named, so that replies still find their parent. */
function boundedId(id: string): string {
  if (Buffer.byteLength(id) <= MAX_ID_BYTES) return id;
  return `id-sha256:${createHash('sha256').update(id).digest('hex')}`;
}

function nearest(references: string[]): string[] {
  if (references.length <= MAX_REFERENCES) return references;
  return [...references.slice(0, 1), ...references.slice(1 - MAX_REFERENCES)];
}

function sentDate(lines: HeaderLines, envelope: MboxEnvelope): Date | null {
  return [...rawValues(lines, 'date').map(headerDate), envelope.date].find(isCredible) ?? null;
}

function isCredible(date: Date | null): date is Date {
  return date !== null && date.getTime() >= EARLIEST_MAIL && date.getTime() < LATEST_MAIL;
}

/** JavaScript finds a date in almost anything ("next +0000" is the year 2000), so the shape is checked first. */
const DATE_SHAPE = /\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d|^\d{4}-\d{2}-\d{2}/i;
const KNOWN_ZONE = /(?:[+-]\d{2}:?\d{2}|\b(?:GMT|UTC?|[ECMP][SD]T)|\dZ)$/i;

/**
 * Reads a Date header. mailparser answers the present moment for what it cannot read, and JavaScript reads a date without
 * zone in the zone of the machine; both would give a different record on every run. An unknown zone counts as UTC
 * (RFC 5322 §4.3).
 */
function headerDate(value: string): Date | null {
  let date = value.replace(/\([^()]*\)/g, ' ').trim();
  if (!DATE_SHAPE.test(date) || !/\d{1,2}:\d{2}/.test(date)) return null;
  if (!KNOWN_ZONE.test(date)) date = `${date.replace(/(?:\s+[A-Za-z]{1,5}){1,3}$/, '')} +0000`;
  const time = Date.parse(date);
  return Number.isNaN(time) ? null : new Date(time);
}

const ADDRESS = /^[^\s@<>]+@[^\s@<>]+$/;

function addressesOf(header: unknown): MailAddress[] {
  const objects = (Array.isArray(header) ? header : header ? [header] : []) as AddressObject[];
  const found = new Map<string, MailAddress>();
  const visit = (entry: EmailAddress): void => {
    for (const member of entry.group ?? []) visit(member);
    const address = line(entry.address ?? '', MAX_ADDRESS_CHARS + 1).toLowerCase();
    if (address.length > MAX_ADDRESS_CHARS || !ADDRESS.test(address)) return;
    if (found.has(address) || found.size >= MAX_RECIPIENTS) return;
    found.set(address, { address, name: displayName(entry.name, address) });
  };
  for (const object of objects) for (const entry of object.value ?? []) visit(entry);
  return [...found.values()];
}

function displayName(name: string, address: string): string | null {
  const clean = line(name, MAX_NAME_CHARS)
    .replace(/^(['"])(.*)\1$/, '$2')
    .trim();
  return clean === '' || clean.toLowerCase() === address ? null : clean;
}

/** A List-Id is no address; it only confirms which of the recipients is the list (`r-sig-db.example.org`). */
function listAddress(lines: HeaderLines, recipients: MailAddress[]): string | null {
  const post = /<mailto:([^<>?\s]+)/i.exec(rawValues(lines, 'list-post')[0] ?? '')?.[1]?.toLowerCase() ?? '';
  if (post.length <= MAX_ADDRESS_CHARS && ADDRESS.test(post)) return storable(post);
  const id = /<?([^<>\s]+)>?$/.exec(rawValues(lines, 'list-id')[0] ?? '')?.[1]?.toLowerCase();
  return recipients.find(({ address }) => address.replace('@', '.') === id)?.address ?? null;
}

/** Cleans a body. `[cid:…]` and `[data:…]` are what images become when HTML is turned into text. */
function tidyBody(text: string, hasHtml: boolean): string {
  // The class must exclude `[`: without it the scan is quadratic in a body of unclosed brackets.
  const readable = hasHtml ? text.replace(/\[(?:cid|data):[^[\]\s]*\]/g, '') : text;
  const lines = readable.replace(/\r\n?/g, '\n').trimEnd();
  // Blank lines go, the indentation of the first line with text stays. No regex: one over 10 MB of blanks overflows.
  const indented = lines.length - lines.trimStart().length;
  return indented === 0 ? lines : lines.slice(lines.lastIndexOf('\n', indented - 1) + 1);
}

/** Postgres stores neither NUL (in text and jsonb) nor, in jsonb, a surrogate without its partner. */
function storable(value: string): string {
  return value.replace(/[\0\p{Surrogate}]/gu, '\ufffd');
}

/** One line of text: storable, without control characters and doubled blanks, at most `limit` characters. */
function line(value: string, limit: number): string {
  const spaced = storable(cut(value, limit * 4))
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim();
  return cut(spaced, limit);
}

/** Cuts at `limit` UTF-16 units, one earlier where that would split a pair. */
function cut(value: string, limit: number): string {
  if (value.length <= limit) return value;
  const last = value.charCodeAt(limit - 1);
  return value.slice(0, last >= 0xd800 && last <= 0xdbff ? limit - 1 : limit);
}

function stringOf(value: unknown): string {
  return typeof value === 'string' ? value : Array.isArray(value) ? value.map(String).join(' ') : '';
}

function quote(text: string): string {
  return JSON.stringify(text.split(/\r?\n/, 1)[0] ?? '');
}

function describe(lines: HeaderLines, key: string, name: string): string {
  const value = rawValues(lines, key)[0];
  return value === undefined
    ? `There is no ${name} header`
    : `The ${name} header is unusable: ${quote(cut(value, 200))}`;
}

function fault(code: MailFaultCode, reason: string): MailFault {
  return { code, reason: line(reason, 500) };
}
