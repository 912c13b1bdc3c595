import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** What the fake can be asked for, by the names of the S3 API. */
export type S3Operation =
  | 'HeadBucket'
  | 'ListMultipartUploads'
  | 'PutObject'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'CreateMultipartUpload'
  | 'UploadPart'
  | 'CompleteMultipartUpload'
  | 'AbortMultipartUpload';

/** A fault that the next `times` (1) requests of an operation meet. */
export interface Fault {
  readonly operation: S3Operation;
  readonly times?: number;
  /** The connection breaks after so many bytes of the body that is sent; -1 breaks it before any answer. */
  readonly breakAfter?: number;
  /** An answer with this status and code instead. */
  readonly status?: number;
  readonly code?: string;
  /** CompleteMultipartUpload is carried out, and its answer lost. */
  readonly isLost?: boolean;
  /** The answer ignores the range that was asked for. */
  readonly ignoreRange?: boolean;
}

interface Stored {
  readonly file: string;
  readonly size: number;
  readonly etag: string;
}

interface Unfinished {
  readonly key: string;
  readonly parts: Map<number, Stored>;
}

/** The smallest part but the last that S3 takes. */
const MIN_PART_BYTES = 5 * 1024 * 1024;

/** An error as S3 tells it. */
class S3Error extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super(code);
  }
}

/**
 * S3 for tests, on a free port of this machine: two buckets, path style, bytes on disk so that it holds none in memory. As
 * strict as S3 about what it knows: signatures must be there and of the right key, the signed hash must be that of the
 * body, parts must be large enough and complete. It does not know chunked signing and checksums, as many servers do not.
 */
export class FakeS3 {
  /** Every request in order. */
  readonly requests: { readonly operation: S3Operation; readonly range?: string }[] = [];
  /** By `bucket/key`. */
  readonly objects = new Map<string, Stored>();
  readonly unfinished = new Map<string, Unfinished>();
  readonly accessKeyId = `AKIA${randomBytes(8).toString('hex').toUpperCase()}`;
  private readonly faults: { left: number; fault: Fault }[] = [];
  private readonly server = createServer((request, response) => void this.serve(request, response));

  private constructor(
    readonly bucket: string,
    private readonly folder: string,
  ) {}

  /** Starts one with an empty bucket, and another beside it. */
  static async start(bucket: string): Promise<FakeS3> {
    const fake = new FakeS3(bucket, await mkdtemp(path.join(tmpdir(), 'fake-s3-')));
    fake.server.listen(0, '127.0.0.1');
    await once(fake.server, 'listening');
    return fake;
  }

  get otherBucket(): string {
    return `${this.bucket}-2`;
  }

  /** `http://127.0.0.1:port`. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** A BLOBS_URL that leads here. */
  url(prefix: string, bucket = this.bucket): string {
    return `s3://${bucket}/${prefix}?endpoint=${encodeURIComponent(this.endpoint)}&region=eu-test-1&forcePathStyle=true`;
  }

  /** Plants a fault. */
  fail(fault: Fault): void {
    this.faults.push({ left: fault.times ?? 1, fault });
  }

  /** Forgets faults that were not met, and the requests so far. */
  reset(): void {
    this.faults.length = 0;
    this.requests.length = 0;
  }

  /** Stops it and removes its bytes. */
  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
    await rm(this.folder, { recursive: true });
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = new URL(request.url!, this.endpoint);
      const [bucket = '', ...segments] = url.pathname.slice(1).split('/').map(decodeURIComponent);
      const key = segments.join('/');
      const operation = operationOf(request.method!, key, url.searchParams);
      this.requests.push({ operation, ...(request.headers.range && { range: request.headers.range }) });
      this.requireSignature(request);
      if (![this.bucket, this.otherBucket].includes(bucket)) throw new S3Error(404, 'NoSuchBucket');
      const fault = this.takeFault(operation);
      if (fault?.status !== undefined) throw new S3Error(fault.status, fault.code ?? 'InternalError');
      if (fault?.breakAfter === -1) return void request.socket.destroy();
      await this.answer(operation, `${bucket}/${key}`, url.searchParams, request, response, fault);
    } catch (error) {
      // What is left of the body must be read, or the sender never comes to see the answer.
      request.resume();
      if (response.headersSent || request.destroyed) return void response.destroy();
      const { status, code } = error instanceof S3Error ? error : new S3Error(500, String(error));
      const isHead = request.method === 'HEAD';
      response.writeHead(status, { 'content-type': 'application/xml' });
      response.end(isHead ? '' : `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}</Message></Error>`);
    }
  }

  private takeFault(operation: S3Operation): Fault | undefined {
    const planted = this.faults.find(({ fault, left }) => fault.operation === operation && left > 0);
    if (planted) planted.left -= 1;
    return planted?.fault;
  }

  private requireSignature({ headers }: IncomingMessage): void {
    const signed = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/\d{8}\/eu-test-1\/s3\/aws4_request, /.exec(
      headers.authorization ?? '',
    );
    if (!signed || !headers['x-amz-date']) throw new S3Error(403, 'AccessDenied');
    if (signed[1] !== this.accessKeyId) throw new S3Error(403, 'InvalidAccessKeyId');
    if (/aws-chunked/.test(headers['content-encoding'] ?? '')) throw new S3Error(501, 'NotImplemented');
  }

  private async answer(
    operation: S3Operation,
    key: string,
    query: URLSearchParams,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | undefined,
  ): Promise<void> {
    const uploadId = query.get('uploadId') ?? '';
    switch (operation) {
      case 'HeadBucket':
        return void response.end();
      case 'ListMultipartUploads': {
        const uploads = [...this.unfinished].map(
          ([id, { key }]) => `<Upload><Key>${key}</Key><UploadId>${id}</UploadId></Upload>`,
        );
        return xml(response, `<ListMultipartUploadsResult>${uploads.join('')}</ListMultipartUploadsResult>`);
      }
      case 'PutObject': {
        const stored = await this.store(request);
        this.objects.set(key, stored);
        return void response.writeHead(200, { etag: stored.etag }).end();
      }
      case 'HeadObject': {
        const { size, etag } = this.object(key);
        return void response.writeHead(200, { etag, 'content-length': size }).end();
      }
      case 'GetObject':
        return this.send(this.object(key), fault?.ignoreRange ? undefined : request.headers.range, response, fault);
      case 'DeleteObject':
        this.objects.delete(key);
        return void response.writeHead(204).end();
      case 'CreateMultipartUpload': {
        const id = randomBytes(8).toString('hex');
        this.unfinished.set(id, { key, parts: new Map() });
        return xml(
          response,
          `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
        );
      }
      case 'UploadPart': {
        const { parts } = this.upload(uploadId);
        const stored = await this.store(request);
        parts.set(Number(query.get('partNumber')), stored);
        return void response.writeHead(200, { etag: stored.etag }).end();
      }
      case 'CompleteMultipartUpload':
        await this.complete(uploadId, (await request.toArray()).join(''));
        if (fault?.isLost) return void request.socket.destroy();
        return xml(response, '<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>');
      case 'AbortMultipartUpload':
        this.upload(uploadId);
        this.unfinished.delete(uploadId);
        return void response.writeHead(204).end();
    }
  }

  private object(key: string): Stored {
    const stored = this.objects.get(key);
    if (!stored) throw new S3Error(404, 'NoSuchKey');
    return stored;
  }

  private upload(id: string): Unfinished {
    const upload = this.unfinished.get(id);
    if (!upload) throw new S3Error(404, 'NoSuchUpload');
    return upload;
  }

  private async store(request: IncomingMessage): Promise<Stored> {
    const file = path.join(this.folder, randomBytes(8).toString('hex'));
    const sha256 = createHash('sha256');
    const md5 = createHash('md5');
    const watched = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        sha256.update(chunk);
        md5.update(chunk);
        done(null, chunk);
      },
    });
    await pipeline(request, watched, createWriteStream(file));
    const signed = request.headers['x-amz-content-sha256'];
    if (signed !== sha256.digest('hex')) {
      throw new S3Error(400, 'XAmzContentSHA256Mismatch');
    }
    return { file, size: (await stat(file)).size, etag: `"${md5.digest('hex')}"` };
  }

  private async complete(id: string, body: string): Promise<void> {
    const { key, parts } = this.upload(id);
    const named = [...body.matchAll(/<Part>.*?<\/Part>/gs)].map(([part]) => ({
      n: Number(/<PartNumber>(\d+)</.exec(part)?.[1]),
      etag: /<ETag>(.*?)</.exec(part)?.[1]?.replaceAll('&quot;', '"'),
    }));
    const stored = named.map(({ n, etag }) => {
      const part = parts.get(n);
      if (!part || part.etag !== etag) throw new S3Error(400, 'InvalidPart');
      return part;
    });
    if (stored.slice(0, -1).some(({ size }) => size < MIN_PART_BYTES)) throw new S3Error(400, 'EntityTooSmall');
    if (named.some(({ n }, at) => at > 0 && n <= named[at - 1]!.n)) throw new S3Error(400, 'InvalidPartOrder');
    const file = path.join(this.folder, randomBytes(8).toString('hex'));
    const whole = createWriteStream(file);
    for (const part of stored) {
      for await (const chunk of createReadStream(part.file)) if (!whole.write(chunk)) await once(whole, 'drain');
    }
    whole.end();
    await once(whole, 'close');
    this.objects.set(key, { file, size: (await stat(file)).size, etag: `"${id}-${stored.length}"` });
    this.unfinished.delete(id);
  }

  private async send(
    { file, size, etag }: Stored,
    range: string | undefined,
    response: ServerResponse,
    fault: Fault | undefined,
  ): Promise<void> {
    const asked = /^bytes=(\d+)-(\d*)$/.exec(range ?? '');
    const start = Number(asked?.[1] ?? 0);
    const end = Math.min(size, asked?.[2] ? Number(asked[2]) + 1 : size);
    if (asked && start >= size) throw new S3Error(416, 'InvalidRange');
    response.writeHead(asked ? 206 : 200, {
      etag,
      'content-length': end - start,
      ...(asked && { 'content-range': `bytes ${start}-${end - 1}/${size}` }),
    });
    response.flushHeaders();
    const cut = fault?.breakAfter;
    const until = cut === undefined ? end : Math.min(end, start + cut);
    if (until > start) {
      await pipeline(createReadStream(file, { start, end: until - 1 }), response, { end: cut === undefined });
    }
    if (cut === undefined) return void response.end();
    // Only when what was sent has left: the reader shall get these bytes, and then the break.
    await new Promise<void>((resolve) => response.socket!.end(resolve));
  }
}

function operationOf(method: string, key: string, query: URLSearchParams): S3Operation {
  const known: Record<string, S3Operation> = {
    'HEAD bucket': 'HeadBucket',
    'GET bucket uploads': 'ListMultipartUploads',
    'PUT key': 'PutObject',
    'GET key': 'GetObject',
    'HEAD key': 'HeadObject',
    'DELETE key': 'DeleteObject',
    'POST key uploads': 'CreateMultipartUpload',
    'PUT key uploadId': 'UploadPart',
    'POST key uploadId': 'CompleteMultipartUpload',
    'DELETE key uploadId': 'AbortMultipartUpload',
  };
  const about = ['uploads', 'uploadId'].find((name) => query.has(name));
  const operation = known[[method, key ? 'key' : 'bucket', about].filter(Boolean).join(' ')];
  if (!operation) throw new S3Error(501, 'NotImplemented');
  return operation;
}

function xml(response: ServerResponse, body: string): void {
  response.setHeader('content-type', 'application/xml');
  response.end(`<?xml version="1.0" encoding="UTF-8"?>${body}`);
}
