import { createGunzip } from 'node:zlib';

import type { MboxEntry, ReadMboxOptions } from './mbox.js';
import { ArchiveError, MAX_MESSAGE_BYTES, notAnMbox, parseSeparator, readMbox, tooLarge } from './mbox.js';

/**
 * How much compressed data is handed to zlib at a time. Small, because what one step unpacks before it meets damage is
 * lost with it (about two mails at this size), and still 50 MB/s, ten times what the MIME parser takes.
 */
const GUNZIP_STEP_BYTES = 1024;

/** How much of the unpacked beginning is looked at to tell an mbox from a single message; headers rarely pass 16 KiB. */
const SNIFF_BYTES = 64 * 1024;

/** An opened archive: read `entries` once, from one place. */
export interface MailArchive {
  /** `eml` is a single RFC 822 message, read as an archive of one entry. */
  format: 'mbox' | 'eml';
  compression: 'gzip' | 'none';
  entries: AsyncGenerator<MboxEntry, void, undefined>;
  /** Bytes of the source (compressed, if it is) taken so far: compare with the stored size for progress. */
  consumedBytes(): number;
}

/** Options of {@link openMailArchive}; offsets are bytes of the uncompressed archive. */
export type OpenMailArchiveOptions = Pick<ReadMboxOptions, 'from' | 'signal' | 'maxMessageBytes'>;

/**
 * Opens a stored upload, which `source` delivers from its first byte: an mbox or a single message, plain or gzipped (also
 * with several members). What it is is told by its bytes, never by its name. An empty file is an mbox without entries.
 *
 * With `from`, the bytes before it are unpacked again and dropped, because gzip cannot be entered in the middle.
 *
 * @throws ArchiveError `NOT_AN_MBOX` at once; `ARCHIVE_TRUNCATED`, `ARCHIVE_CORRUPT` from `entries` after those that were whole
 *   (at once, if the damage is at the very start); `RESUME_POINT_INVALID` from `entries`.
 */
export async function openMailArchive(
  source: AsyncIterable<Uint8Array>,
  options: OpenMailArchiveOptions = {},
): Promise<MailArchive> {
  const { from = 0, signal, maxMessageBytes = MAX_MESSAGE_BYTES } = options;
  let consumed = 0;
  const stored = new PeekedStream(source, signal);
  const magic = await stored.peek(2);
  const gzipped = magic[0] === 0x1f && magic[1] === 0x8b;
  const count = (bytes: number): void => {
    consumed += bytes;
  };
  const unpacked = new PeekedStream(gzipped ? gunzip(stored.rest(), count) : counted(stored.rest(), count), signal);

  let head: Buffer;
  let format: MailArchive['format'];
  try {
    head = await unpacked.peek(SNIFF_BYTES);
    format = looksLikeMessage(head) ? 'eml' : 'mbox';
    if (format === 'mbox' && !beginsWithSeparator(head))
      throw (unpacked.failure?.error as Error | undefined) ?? notAnMbox(head);
  } catch (error) {
    await unpacked.close();
    throw error;
  }
  const entries =
    format === 'eml'
      ? readMessage(unpacked.rest(), from, maxMessageBytes, signal)
      : readMbox(unpacked.rest(), { from, maxMessageBytes, ...(signal ? { signal } : {}) });
  return { format, compression: gzipped ? 'gzip' : 'none', entries, consumedBytes: () => consumed };
}

/** A stream whose beginning can be looked at before it is read. A failure met while looking is kept until its place. */
class PeekedStream {
  private readonly iterator: AsyncIterator<Uint8Array>;
  private seen: Buffer[] = [];
  private ended = false;
  /** What {@link peek} ran into behind the bytes it answers; {@link rest} throws it in its place. */
  failure: { error: unknown } | null = null;

  constructor(
    source: AsyncIterable<Uint8Array>,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.iterator = source[Symbol.asyncIterator]();
  }

  /** At least `bytes` from the beginning, fewer only where the stream is shorter or fails later than at its first byte. */
  async peek(bytes: number): Promise<Buffer> {
    let size = 0;
    while (size < bytes && !this.ended && !this.failure) {
      this.signal?.throwIfAborted();
      try {
        const { done, value } = await this.iterator.next();
        if (done) this.ended = true;
        else {
          this.seen.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength));
          size += value.byteLength;
        }
      } catch (error) {
        if (size === 0) throw error;
        this.failure = { error };
      }
    }
    return Buffer.concat(this.seen);
  }

  async *rest(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (let chunk = this.seen.shift(); chunk; chunk = this.seen.shift()) yield chunk;
      if (this.failure) throw this.failure.error;
      while (!this.ended) {
        const { done, value } = await this.iterator.next();
        if (done) this.ended = true;
        else yield value;
      }
    } finally {
      await this.close();
    }
  }

  async close(): Promise<void> {
    await this.iterator.return?.();
  }
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of source) {
    count(chunk.byteLength);
    yield chunk;
  }
}

/**
 * Unpacks gzip step by step. Not a pipe: a piped zlib stream that fails is destroyed together with what it had unpacked
 * and nobody had read yet, and messages that were whole would be lost.
 */
async function* gunzip(
  source: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const inflate = createGunzip();
  let unpacked: Buffer[] = [];
  let fed = 0;
  let failed: NodeJS.ErrnoException | null = null;
  let wake: (() => void) | null = null;
  inflate.on('data', (bytes: Buffer) => unpacked.push(bytes));
  inflate.on('error', (error) => {
    failed = error;
    wake?.();
  });
  inflate.on('end', () => wake?.());
  /** Resolves when zlib has taken the step, has ended or has failed, whichever comes first. */
  const step = (act: (done: () => void) => void): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
      act(resolve);
    });
  try {
    for await (const chunk of source) {
      for (let at = 0; at < chunk.byteLength; at += GUNZIP_STEP_BYTES) {
        const part = chunk.subarray(at, at + GUNZIP_STEP_BYTES);
        count(part.byteLength);
        if (inflate.readableEnded) {
          refuseTrailing(part);
          continue;
        }
        await step((done) => inflate.write(part, done));
        fed += part.byteLength;
        yield* unpacked;
        unpacked = [];
        if (failed) throw archiveFailure(failed);
        const untouched = fed - inflate.bytesWritten;
        if (untouched > 0 && inflate.readableEnded) refuseTrailing(part.subarray(part.byteLength - untouched));
      }
    }
    if (!inflate.readableEnded) await step(() => inflate.end());
    yield* unpacked;
    if (failed) throw archiveFailure(failed);
  } finally {
    inflate.destroy();
  }
}

/** Zero padding behind the last member is usual (tapes, block stores); anything else means that a member is unreadable. */
function refuseTrailing(bytes: Uint8Array): void {
  if (bytes.some((byte) => byte !== 0)) {
    throw new ArchiveError(
      'ARCHIVE_CORRUPT',
      'The gzip data ends, but other bytes follow that are no gzip. Messages before them were read; compress and upload the file again.',
    );
  }
}

function archiveFailure(error: NodeJS.ErrnoException): ArchiveError {
  return error.code === 'Z_BUF_ERROR'
    ? new ArchiveError(
        'ARCHIVE_TRUNCATED',
        'The gzip data stops before its end. Messages before that were read; upload the whole file again.',
        { cause: error },
      )
    : new ArchiveError(
        'ARCHIVE_CORRUPT',
        `The gzip data is damaged (${error.message}). Messages before that were read; compress and upload the file again.`,
        { cause: error },
      );
}

/** Header fields of which a real message has at least one; a text file whose first line has a colon has none of them. */
const MAIL_FIELD = /^(?:from|to|date|subject|message-id|received|return-path|delivered-to|mime-version):/im;
const FIELD_LINE = /^[!-9;-~]+[ \t]*:/;

function looksLikeMessage(head: Buffer): boolean {
  const text = head.toString('latin1').replace(/^(?:\xef\xbb\xbf)?(?:\r?\n)*/, '');
  const headers = text.split(/\r?\n\r?\n/, 1)[0] ?? '';
  return FIELD_LINE.test(headers) && MAIL_FIELD.test(headers);
}

function beginsWithSeparator(head: Buffer): boolean {
  const first = head.toString('latin1').replace(/^(?:\xef\xbb\xbf)?(?:\r?\n)*/, '');
  return first === '' || parseSeparator(first.split(/\r?\n/, 1)[0] ?? '') !== null;
}

/** Reads the whole source as one message, under the same limit and resume rule as {@link readMbox}. */
async function* readMessage(
  source: AsyncIterable<Uint8Array>,
  from: number,
  limit: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<MboxEntry, void, undefined> {
  let parts: Buffer[] = [];
  let size = 0;
  for await (const bytes of source) {
    signal?.throwIfAborted();
    size += bytes.byteLength;
    if (size > limit) parts = [];
    else parts.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }
  if (from === size) return;
  if (from !== 0) {
    throw new ArchiveError('RESUME_POINT_INVALID', `A single message can only be read from byte 0, not from ${from}.`);
  }
  yield size > limit
    ? tooLarge(0, size, size, limit)
    : { offset: 0, end: size, envelope: { sender: '', date: null }, raw: Buffer.concat(parts) };
}
