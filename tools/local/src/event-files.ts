import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import { reasonOf, Refusal } from './refusal.js';

/** A line that is longer is none of ours: Postgres keeps no JSON of more than 255 MiB. */
const MAX_LINE_CHARS = 512 * 1024 * 1024 - 64;

/** Takes text at the pace of the disk. */
export type Write = (text: string) => Promise<void>;

/**
 * Writes a file that gets its name only when `work` has answered true and everything is on disk: one that is there is whole.
 * One that ends in .gz is compressed. A file that was there before is replaced.
 * @throws Refusal when it cannot be written
 */
export async function writeWholeFile(file: string, work: (write: Write) => Promise<boolean>): Promise<boolean> {
  const unfinished = `${file}.${process.pid}.new`;
  const handle = await fs.promises.open(unfinished, 'wx', 0o600).catch((error: unknown) => {
    throw new Refusal(`${file} cannot be written: ${reasonOf(error)}.`);
  });
  try {
    const entry = new PassThrough();
    const output = async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) await handle.appendFile(chunk);
    };
    const written = file.endsWith('.gz') ? pipeline(entry, createGzip(), output) : pipeline(entry, output);
    // Told to whoever writes next, and at the end.
    written.catch(() => undefined);
    const isWhole = await work(async (text) => {
      if (!entry.write(text)) await Promise.race([once(entry, 'drain'), written]);
    });
    if (!isWhole) return false;
    entry.end();
    await written;
    await handle.sync();
    await fs.promises.rename(unfinished, file);
    await syncFolder(path.dirname(file));
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code && /^(ENOSPC|EDQUOT|EFBIG|EIO|EROFS)$/.test(code)
      ? new Refusal(`${file} cannot be written: ${reasonOf(error)}.`)
      : error;
  } finally {
    await handle.close();
    await fs.promises.rm(unfinished, { force: true });
  }
}

/** The name is on disk too, where the system can be asked for that. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.promises.open(folder).catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/**
 * The lines of a file, one in memory at a time. Only \n ends a line. One that ends in .gz is decompressed.
 * @param onRead told the bytes of the file read so far
 * @throws Refusal when it cannot be read
 */
export async function* readLines(file: string, onRead: (bytes: number) => void = () => undefined) {
  const handle = await fs.promises.open(file).catch((error: unknown) => {
    throw new Refusal(`${file} cannot be read: ${reasonOf(error)}.`);
  });
  try {
    const input = handle.createReadStream({ autoClose: false });
    let text: Readable = input;
    if (file.endsWith('.gz')) {
      const gunzip = createGunzip();
      // Errors of both come out of the loop below.
      pipeline(input, gunzip).catch(() => undefined);
      text = gunzip;
    }
    let rest = '';
    for await (const chunk of text.setEncoding('utf8') as AsyncIterable<string>) {
      onRead(input.bytesRead);
      const parts = chunk.split('\n');
      parts[0] = rest + parts[0]!;
      rest = parts.pop()!;
      if (rest.length > MAX_LINE_CHARS) throw new Refusal(`${file} cannot be read: it has a line without an end.`);
      yield* parts;
    }
    if (rest !== '') yield rest;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw code?.startsWith('Z_') || code === 'EISDIR'
      ? new Refusal(`${file} cannot be read: it is damaged, cut off or no such file (${reasonOf(error)}).`)
      : error;
  } finally {
    await handle.close().catch(() => undefined);
  }
}
