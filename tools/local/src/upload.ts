import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { reasonOf, Refusal } from './refusal.js';

/** What the server said; `body` is undefined where it was no JSON. */
export interface UploadAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** A file on its way. */
export interface Upload {
  /** Bytes of the file handed to the socket so far. */
  sentBytes(): number;
  /** @rejects Refusal when the connection fails before an answer */
  readonly answer: Promise<UploadAnswer>;
}

/**
 * Sends a file as the multipart field `file`, as a stream at the server's pace: never whole in memory. By hand rather than
 * with fetch, which does not tell how much was sent.
 */
export function openUpload(url: string, token: string, file: string): Upload {
  const boundary = `atomo-${crypto.randomBytes(16).toString('hex')}`;
  const head = Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="${escapeName(path.basename(file))}"\r\ncontent-type: application/octet-stream\r\n\r\n`,
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);
  const { size } = fs.statSync(file);
  let sent = 0;

  const request = (url.startsWith('https:') ? https : http).request(url, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'content-type': `multipart/form-data; boundary=${boundary}`,
      'content-length': head.length + size + tail.length,
    },
  });
  const answer = new Promise<UploadAnswer>((resolve, reject) => {
    const failed = (error: unknown) => reject(new Refusal(`The upload broke off: ${reasonOf(error)}.`));
    request.once('error', failed);
    request.once('response', (response) => {
      // A server that refuses answers before it has read everything and may then close: the answer counts, not the fault.
      request.off('error', failed).on('error', () => {});
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('error', failed);
      response.once('end', () => {
        resolve({ status: response.statusCode ?? 0, body: parsed(text) });
        request.destroy();
      });
    });
  });
  const counter = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sent += chunk.length;
      done(null, chunk);
    },
    // pipeline ends the request after the last chunk, so the closing boundary goes through here as that chunk.
    flush(done) {
      if (sent === size) done(null, tail);
      else done(new Error('the file became shorter meanwhile'));
    },
  });
  request.write(head);
  // A file that shrinks or cannot be read breaks the request, and that tells.
  pipeline(fs.createReadStream(file, { end: Math.max(0, size - 1) }), counter, request).catch((error: unknown) => {
    request.destroy(error as Error);
  });
  return { sentBytes: () => Math.min(sent, size), answer };
}

/** As the HTML standard writes file names in form data. */
function escapeName(name: string): string {
  return name.replaceAll('"', '%22').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
