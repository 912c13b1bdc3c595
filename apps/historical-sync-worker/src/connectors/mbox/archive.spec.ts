import { createReadStream, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';

import type { MailArchive, OpenMailArchiveOptions } from './archive.js';
import { openMailArchive } from './archive.js';
import type { MailRecord } from './mail.js';
import { parseMail } from './mail.js';
import type { MboxEntry } from './mbox.js';

const ORCHARD = readFileSync(join(__dirname, 'fixtures/orchard.mbox'));
const REPOSITORY = join(__dirname, '../../../../..');
/** A public mailing list, kept beside the repository and never in it. */
const REAL_LIST = join(REPOSITORY, '../shared/data/r-sig-db.mbox.gz');

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** Reads an archive to its end or its failure. */
async function read(
  bytes: Uint8Array,
  options: OpenMailArchiveOptions = {},
  size = 100,
): Promise<{ entries: MboxEntry[]; failure: unknown; archive: MailArchive | null }> {
  const entries: MboxEntry[] = [];
  let archive: MailArchive | null = null;
  try {
    archive = await openMailArchive(inChunks(bytes, size), options);
    for await (const entry of archive.entries) entries.push(entry);
    return { entries, failure: null, archive };
  } catch (failure) {
    return { entries, failure, archive };
  }
}

describe('openMailArchive', () => {
  it('reads plain, gzipped and many-member archives alike, and counts what it took', async () => {
    const plain = await read(ORCHARD);
    expect(plain.entries).toHaveLength(12);
    expect(plain.archive).toMatchObject({ format: 'mbox', compression: 'none' });
    expect(plain.archive?.consumedBytes()).toBe(ORCHARD.length);
    const one = gzipSync(ORCHARD);
    const three = Buffer.concat([
      gzipSync(ORCHARD.subarray(0, 700)),
      gzipSync(ORCHARD.subarray(700, 3001)),
      gzipSync(ORCHARD.subarray(3001)),
      Buffer.alloc(512),
    ]);
    for (const bytes of [one, three]) {
      for (const size of [1, 7, 100, bytes.length]) {
        const { entries, failure, archive } = await read(bytes, {}, size);
        expect(failure).toBeNull();
        expect(entries).toEqual(plain.entries);
        expect(archive).toMatchObject({ format: 'mbox', compression: 'gzip' });
        expect(archive?.consumedBytes()).toBe(bytes.length);
      }
    }
  });

  it('reports progress while it reads, not only at the end', async () => {
    const bytes = gzipSync(
      Buffer.concat(Array.from({ length: 400 }, () => Buffer.concat([ORCHARD, Buffer.from('\n\n')]))),
    );
    const archive = await openMailArchive(inChunks(bytes, 512));
    const seen = new Set<number>();
    for await (const entry of archive.entries) if (entry.end > 0) seen.add(archive.consumedBytes());
    expect(seen.size).toBeGreaterThan(5);
  });

  it('resumes inside a gzipped archive', async () => {
    const { entries } = await read(ORCHARD);
    for (const [index, { end }] of entries.entries()) {
      expect((await read(gzipSync(ORCHARD), { from: end })).entries).toEqual(entries.slice(index + 1));
    }
  });

  it('gives every whole message before the place where a gzip was cut off', async () => {
    const { entries } = await read(ORCHARD);
    const bytes = gzipSync(ORCHARD, { level: 0 });
    const header = bytes.indexOf(ORCHARD.subarray(0, 50));
    for (let length = 20; length < bytes.length; length += 37) {
      const cut = await read(bytes.subarray(0, length));
      expect(cut.failure).toMatchObject({ code: 'ARCHIVE_TRUNCATED' });
      // A message is known to be whole when the separator behind it was seen to its end (at most 50 bytes here).
      const whole = entries.filter(({ end }) => end + 80 < length - header).slice(0, 11);
      expect(cut.entries.length).toBeGreaterThanOrEqual(whole.length);
      expect(cut.entries).toEqual(entries.slice(0, cut.entries.length));
      expect(cut.entries.length).toBeLessThan(12);
    }
  });

  it('says that a gzip is damaged, after the messages before the damage', async () => {
    const repeated = Buffer.concat(Array.from({ length: 40 }, () => Buffer.concat([ORCHARD, Buffer.from('\n\n')])));
    const bytes = gzipSync(repeated, { level: 0 });
    const wrongSum = Buffer.from(bytes);
    wrongSum.writeUInt32LE(0, bytes.length - 8);
    const summed = await read(wrongSum);
    expect(summed.failure).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
    expect(summed.entries.length).toBeGreaterThan(450);

    const { entries: whole } = await read(ORCHARD);
    const secondMember = Buffer.concat([gzipSync(ORCHARD), Buffer.from('no gzip at all')]);
    for (const size of [1, 100, secondMember.length]) {
      const { entries, failure } = await read(secondMember, {}, size);
      expect(failure).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
      expect(entries).toEqual(whole.slice(0, size === 1 ? 11 : entries.length));
    }
    for (const padding of [8, 3000]) {
      const padded = Buffer.concat([gzipSync(ORCHARD), Buffer.alloc(padding), Buffer.from('x')]);
      for (const size of [1, 100, padded.length]) {
        const { entries, failure } = await read(padded, {}, size);
        expect(failure).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
        expect(entries).toEqual(whole.slice(0, 11));
      }
    }
  });

  it('reads a single message, also gzipped, as one entry without an envelope', async () => {
    const eml = Buffer.from('\r\nReceived: from x\r\nFrom: ann@x.org\r\n\r\nFrom me\r\n');
    for (const bytes of [eml, gzipSync(eml)]) {
      const { entries, archive } = await read(bytes, {}, 5);
      expect(archive?.format).toBe('eml');
      expect(entries).toEqual([{ offset: 0, end: eml.length, envelope: { sender: '', date: null }, raw: eml }]);
      expect((await read(bytes, { from: eml.length })).entries).toEqual([]);
      expect((await read(bytes, { from: 3 })).failure).toMatchObject({ code: 'RESUME_POINT_INVALID' });
      expect((await read(bytes, { maxMessageBytes: 10 })).entries).toMatchObject([
        { fault: { code: 'MESSAGE_TOO_LARGE' } },
      ]);
    }
  });

  it('reads an empty file as an mbox without messages, and refuses what is no mail at once', async () => {
    expect(await read(Buffer.alloc(0))).toMatchObject({ entries: [], failure: null });
    expect(await read(gzipSync(Buffer.alloc(0)))).toMatchObject({ entries: [], failure: null });
    for (const bytes of [
      Buffer.from('name,age\nann,3\n'),
      Buffer.from('note: no header\n'),
      gzipSync(Buffer.from('PK\u0003\u0004')),
    ]) {
      expect(await read(bytes)).toMatchObject({ archive: null, failure: { code: 'NOT_AN_MBOX' } });
    }
    expect(await read(Buffer.from([0x1f, 0x8b, 1, 2, 3]))).toMatchObject({ failure: { code: 'ARCHIVE_CORRUPT' } });
    expect(await read(gzipSync(ORCHARD).subarray(0, 12))).toMatchObject({ failure: { code: 'ARCHIVE_TRUNCATED' } });
  });

  it('closes the source when it refuses and when the reader leaves early', async () => {
    let closed = 0;
    async function* source(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
      try {
        yield* inChunks(bytes, 100);
        yield Buffer.alloc(0);
      } finally {
        closed++;
      }
    }
    await expect(openMailArchive(source(Buffer.from('x'.repeat(70_000))))).rejects.toMatchObject({
      code: 'NOT_AN_MBOX',
    });
    expect(closed).toBe(1);
    const many = Buffer.concat(Array.from({ length: 40 }, () => Buffer.concat([ORCHARD, Buffer.from('\n\n')])));
    for (const bytes of [many, gzipSync(many, { level: 0 })]) {
      const archive = await openMailArchive(source(bytes));
      await archive.entries.next();
      await archive.entries.return();
    }
    expect(closed).toBe(3);
  });
});

interface Counts {
  records: number;
  quarantined: number;
  people: number;
  replies: number;
  repliesBeforeParent: number;
  lists: (string | null)[];
}

async function importCounts(source: AsyncIterable<Uint8Array>): Promise<Counts> {
  const records: MailRecord[] = [];
  let quarantined = 0;
  for await (const entry of (await openMailArchive(source)).entries) {
    const mail = 'fault' in entry ? entry.fault : await parseMail(entry.raw, entry.envelope);
    if ('code' in mail) quarantined++;
    else records.push(mail);
  }
  const place = new Map(records.map(({ messageId }, index) => [messageId, index]));
  const parents = records.map(({ inReplyTo }) => (inReplyTo === null ? undefined : place.get(inReplyTo)));
  return {
    records: place.size,
    quarantined,
    people: new Set(records.map(({ from }) => from.address)).size,
    replies: parents.filter((parent) => parent !== undefined).length,
    repliesBeforeParent: parents.filter((parent, index) => parent !== undefined && parent > index).length,
    lists: [...new Set(records.map(({ listAddress }) => listAddress))],
  };
}

describe('a whole archive', () => {
  it('gives the counts that fixtures/README.md promises', async () => {
    expect(await importCounts(inChunks(gzipSync(ORCHARD), 64))).toEqual({
      records: 11,
      quarantined: 1,
      people: 7,
      replies: 6,
      repliesBeforeParent: 1,
      lists: ['growers@orchard.example'],
    });
  });
});

const describeIfThere = existsSync(REAL_LIST) ? describe : describe.skip;

describeIfThere('a real mailing list', () => {
  it('gives the known counts', async () => {
    expect(await importCounts(createReadStream(REAL_LIST))).toEqual({
      records: 1559,
      quarantined: 0,
      people: 413,
      replies: 940,
      repliesBeforeParent: 1,
      lists: ['r-sig-db@example.org'],
    });
  });

  it('gives the messages before a cut', async () => {
    const bytes = readFileSync(REAL_LIST);
    const unpacked = gunzipSync(bytes);
    const cut = await read(bytes.subarray(0, bytes.length >> 1), {}, 64 * 1024);
    expect(cut.failure).toMatchObject({ code: 'ARCHIVE_TRUNCATED' });
    expect(cut.entries.length).toBeGreaterThan(600);
    const last = cut.entries.at(-1);
    expect(unpacked.toString('latin1', last?.end, (last?.end ?? 0) + 5)).toBe('From ');
  });
});
