import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import type { MboxEntry, ReadMboxOptions } from './mbox.js';
import { parseSeparator, readMbox } from './mbox.js';

const ORCHARD = readFileSync(join(__dirname, 'fixtures/orchard.mbox'));
/** Sets the random cases. The test names print it; put the printed number here to repeat a failure. */
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

async function* inChunks(bytes: Buffer, sizes: () => number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const size = sizes();
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function split(bytes: Buffer | string, options: ReadMboxOptions = {}, size = 64): Promise<MboxEntry[]> {
  const entries: MboxEntry[] = [];
  for await (const entry of readMbox(
    inChunks(Buffer.from(bytes as Buffer), () => size),
    options,
  ))
    entries.push(entry);
  return entries;
}

const raws = (entries: MboxEntry[]): string[] =>
  entries.map((entry) => ('fault' in entry ? entry.fault.code : entry.raw.toString('latin1')));

/** mulberry32: a small generator that gives the same numbers for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** A random archive out of the pieces that can confuse a splitter. */
function randomMbox(random: (below: number) => number): Buffer {
  const eol = random(2) === 0 ? '\n' : '\r\n';
  const lines = [
    '',
    '',
    'From here on it is easy',
    'From  ',
    'From',
    '>From a@b Sat Apr  7 09:05:59 2001',
    '>>From quoted',
    'x'.repeat(random(3000)),
    'F',
    'A: b',
    '\r',
    ' ',
  ];
  let archive = '';
  const messages = 1 + random(6);
  for (let n = 0; n < messages; n++) {
    archive += `From s${n}@x.org Sat Apr  7 09:05:59 2001${eol}Subject: ${n}${eol}${eol}`;
    for (let left = random(8); left > 0; left--) archive += (lines[random(lines.length)] ?? '') + eol;
    archive += eol;
  }
  return Buffer.from(archive.slice(0, archive.length - random(4)), 'latin1');
}

describe('parseSeparator', () => {
  it.each([
    ['From ann@x.org Sat Apr  7 09:05:59 2001', 'ann@x.org', '2001-04-07T09:05:59.000Z'],
    ['From - Sat Apr 07 09:05:59 2001', '-', '2001-04-07T09:05:59.000Z'],
    ['From ann at x.org  Sat Apr  7 09:05:59 2001', 'ann at x.org', '2001-04-07T09:05:59.000Z'],
    ['From 17@xxx Sat Apr 07 09:05:59 +0200 2001', '17@xxx', '2001-04-07T07:05:59.000Z'],
    ['From ann@x.org Sat Apr  7 09:05:59 EST 2001', 'ann@x.org', '2001-04-07T14:05:59.000Z'],
    ['From ann@x.org Sat Apr  7 09:05:59 CEST 2001', 'ann@x.org', '2001-04-07T09:05:59.000Z'],
    ['From ann@x.org Sat Apr  7 09:05 2001 -0100', 'ann@x.org', '2001-04-07T10:05:00.000Z'],
    ['From ann@x.org Sat, 7 Apr 2001 09:05:59 +0200', 'ann@x.org', '2001-04-07T07:05:59.000Z'],
    ['From  Sat Apr  7 09:05:59 2001', '', '2001-04-07T09:05:59.000Z'],
    ['From "a b"@x.org Sat Apr  7 09:05:59 2001', '"a b"@x.org', '2001-04-07T09:05:59.000Z'],
  ])('reads %s', (line, sender, date) => {
    expect(parseSeparator(line)).toEqual({ sender, date: new Date(date) });
  });

  it.each([
    'From here on it is easy',
    'From the meeting of Sat Apr  7 09:05:59 2001',
    'From ann@x.org Sat Apr  7 09:05:59 2001 we heard nothing',
    'From ann@x.org',
    'From: ann@x.org Sat Apr  7 09:05:59 2001',
    '>From ann@x.org Sat Apr  7 09:05:59 2001',
  ])('refuses %s', (line) => {
    expect(parseSeparator(line)).toBeNull();
  });
});

describe('readMbox', () => {
  const A = 'From a@x.org Sat Apr  7 09:05:59 2001\nA: 1\n\n';
  const B = 'From b@x.org Sun Apr  8 09:05:59 2001\nB: 1\n\n';

  it('splits messages and takes the closing blank line away', async () => {
    const entries = await split(`${A}one\n\n${B}two\n\n`);
    expect(raws(entries)).toEqual(['A: 1\n\none\n', 'B: 1\n\ntwo\n']);
    expect(entries.map(({ offset, end }) => [offset, end])).toEqual([
      [0, 49],
      [49, 98],
    ]);
  });

  it('splits CRLF archives and keeps CRLF in the messages', async () => {
    const archive = `${A}one\n\n${B}two\n\n`.replaceAll('\n', '\r\n');
    expect(raws(await split(archive))).toEqual(['A: 1\r\n\r\none\r\n', 'B: 1\r\n\r\ntwo\r\n']);
  });

  it('reads a last message without a newline, and one that is only a separator', async () => {
    expect(raws(await split(`${A}one`))).toEqual(['A: 1\n\none']);
    expect(raws(await split(`${A}one\n\n${B.slice(0, 37)}`))).toEqual(['A: 1\n\none\n', '']);
  });

  it('does not split at a "From " line inside a paragraph, nor at a sentence after an empty line', async () => {
    const body = `one\nFrom b@x.org Sun Apr  8 09:05:59 2001\n\nFrom now on\n`;
    expect(raws(await split(`${A}${body}\n`))).toEqual([`A: 1\n\n${body}`]);
  });

  it('takes one sign from quoted lines of the body only', async () => {
    const archive = `${A.replace('A: 1', '>From h')}>From one\n>>From two\n> >From no\nx >From no\n\n`;
    expect(raws(await split(archive))).toEqual(['>From h\n\nFrom one\n>From two\n> >From no\nx >From no\n']);
  });

  it('answers nothing for an empty file and for blank lines', async () => {
    expect(await split('')).toEqual([]);
    expect(await split('\n\r\n')).toEqual([]);
  });

  it('skips a byte order mark and leading blank lines', async () => {
    expect(await split(`\ufeff${A}one\n`)).toHaveLength(1);
    expect((await split(`\n\n${A}one\n`))[0]).toMatchObject({ offset: 2 });
  });

  it.each([
    ['Hello, this is a letter.\n', 'text that begins \\"Hello, this'],
    ['x'.repeat(5000), 'text that begins'],
    ['PK\u0003\u0004abc', 'a zip file'],
    ['\u0000\u0001\u0002\n', 'binary data'],
  ])('refuses what is no mbox and says what it found', async (bytes, found) => {
    const failure = await split(bytes).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'NOT_AN_MBOX' });
    expect(JSON.stringify((failure as Error).message)).toContain(found.replaceAll('\\"', '\\"'));
  });

  it('skips a message above the limit without holding it, and reads on', async () => {
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const MIB = 1024 * 1024;
    let held = 0;
    async function* source(): AsyncGenerator<Uint8Array> {
      const before = process.memoryUsage().arrayBuffers;
      yield Buffer.from(A);
      for (let block = 0; block < 48; block++) yield Buffer.alloc(MIB, 'x');
      collectGarbage();
      held = process.memoryUsage().arrayBuffers - before;
      yield Buffer.from(`\n\n${B}two\n`);
    }
    const entries: MboxEntry[] = [];
    for await (const entry of readMbox(source(), { maxMessageBytes: 4 * MIB })) entries.push(entry);
    const end = A.length + 48 * MIB + 2;
    expect(entries).toMatchObject([
      { offset: 0, end, fault: { code: 'MESSAGE_TOO_LARGE' } },
      { offset: end, envelope: { sender: 'b@x.org' } },
    ]);
    expect(held).toBeLessThan(12 * MIB);
  });

  it('resumes at an end, also from a source that starts there, and refuses any other place', async () => {
    const archive = Buffer.from(`${A}one\n\n${B}two\n\n`);
    expect(raws(await split(archive, { from: 49 }))).toEqual(['B: 1\n\ntwo\n']);
    expect(await split(archive.subarray(40), { from: 49, sourceStart: 40 })).toMatchObject([{ offset: 49, end: 98 }]);
    expect(await split(archive, { from: 98 })).toEqual([]);
    for (const from of [1, 48, 50, 97, 99, 1000, -1, 0.5]) {
      await expect(split(archive, { from })).rejects.toMatchObject({ code: 'RESUME_POINT_INVALID' });
    }
  });

  it('stops at an abort and closes the source', async () => {
    const stop = new AbortController();
    let closed = false;
    async function* source(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from(`${A}one\n\n`);
      } finally {
        closed = true;
      }
    }
    const reading = (async () => {
      let seen = 0;
      for await (const entry of readMbox(source(), { signal: stop.signal })) {
        if (entry.offset >= 0 && ++seen === 3) stop.abort(new Error('enough'));
      }
    })();
    await expect(reading).rejects.toThrow('enough');
    expect(closed).toBe(true);
  });

  it(`splits the same whatever the chunk boundaries (seed ${SEED})`, async () => {
    const random = generator(SEED);
    for (let round = 0; round < 150; round++) {
      const archive = randomMbox(random);
      const whole = await split(archive, {}, archive.length);
      expect(await split(archive, {}, 1)).toEqual(whole);
      const entries: MboxEntry[] = [];
      for await (const entry of readMbox(inChunks(archive, () => 1 + random(1 + random(2000))))) entries.push(entry);
      expect(entries).toEqual(whole);
    }
    for (const size of [1, 2, 3, 7, 64, 1000]) {
      expect(await split(ORCHARD, {}, size)).toEqual(await split(ORCHARD, {}, ORCHARD.length));
    }
  });

  it(`gives the rest when resumed at any end, and covers every byte (seed ${SEED})`, async () => {
    const random = generator(SEED + 1);
    const archives = [ORCHARD, ...Array.from({ length: 60 }, () => randomMbox(random))];
    for (const archive of archives) {
      const whole = await split(archive);
      expect(whole.map(({ offset }) => offset)).toEqual([0, ...whole.slice(0, -1).map(({ end }) => end)]);
      expect(whole.at(-1)?.end).toBe(archive.length);
      for (const [index, { end }] of whole.entries()) {
        expect(await split(archive, { from: end }, 1 + random(200))).toEqual(whole.slice(index + 1));
      }
    }
  });
});
