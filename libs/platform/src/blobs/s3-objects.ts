import { Readable } from 'node:stream';
import { DeleteObjectCommand, GetObjectCommand, HeadBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { apiError, backoffMs, CodedError, isCodedError, sleep, type TenantId } from '@atomo-cc/kernel';
import { parseBlobsUrl, type BlobsLocation } from '../config/index.js';
import type { PlacedBlob, RemoteBytes } from './blobs.js';

/** The size of one uploaded part. S3 wants 5 MiB or more, and no more than 10,000 of them. */
const PART_BYTES = 8 * 1024 * 1024;
const MAX_PARTS = 10_000;
/** Parts on their way at once: with the one that fills up, and its copy, an upload holds some 32 MiB. */
const PARTS_AT_ONCE = 2;
/**
 * Bytes asked for at once. The body is streamed, so this is no memory; it bounds how long a connection is held for a
 * reader who takes his time, and how late a removed object is noticed.
 */
const RANGE_BYTES = 8 * 1024 * 1024;
/** Attempts the SDK makes for an answer, with growing pauses; it does not retry a body that breaks off. */
const MAX_ATTEMPTS = 4;
/** Bodies in a row that break off before their first byte; any byte is progress and starts the count again. */
const MAX_BARREN_BODIES = 5;
const BODY_BACKOFF = { firstMs: 100, maxMs: 2_000 };
const CONNECT_TIMEOUT_MS = 5_000;
/** Silence after which a connection counts as dead. Completing an upload of thousands of parts takes some servers long. */
const SILENCE_TIMEOUT_MS = 60_000;
/** Below the limit of a health check, so that a request does not outlive its asker. */
const PING_TIMEOUT_MS = 1_900;
/** Servers other than AWS mostly do not care which region a signature names; this is what they take. */
const COMPATIBLE_REGION = 'us-east-1';

/** Opens the storage that a BLOBS_URL names. Keys come from where the SDK looks: the AWS_… variables first. */
export async function openS3Objects(url: string): Promise<S3Objects> {
  const location = parseBlobsUrl(url);
  const client = new S3Client({
    region: await regionOf(location),
    ...(location.endpoint !== undefined && { endpoint: location.endpoint }),
    forcePathStyle: location.forcePathStyle,
    maxAttempts: MAX_ATTEMPTS,
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: SILENCE_TIMEOUT_MS },
    // Many S3-compatible servers do not know the checksums that the SDK adds by default; the signature covers the bytes.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  return new S3Objects(client, location);
}

async function regionOf({ region, endpoint }: BlobsLocation): Promise<string> {
  if (region !== undefined) return region;
  const probe = new S3Client({});
  try {
    return await probe.config.region();
  } catch {
    if (endpoint !== undefined) return COMPATIBLE_REGION;
    throw new CodedError(
      'CONFIG_INVALID',
      'BLOBS_URL names no region, and AWS_REGION is not set. Example: BLOBS_URL=s3://my-bucket/blobs?region=eu-central-1',
    );
  } finally {
    probe.destroy();
  }
}

/** Bytes of blobs as objects on S3-compatible storage, under `prefix/tenant/id`. */
export class S3Objects implements RemoteBytes {
  constructor(
    private readonly client: S3Client,
    private readonly location: BlobsLocation,
  ) {}

  place(tenant: TenantId, id: string) {
    const key = [this.location.prefix, tenant, id].filter(Boolean).join('/');
    return { storage: 's3', bucket: this.location.bucket, key } as const;
  }

  async write(_tenant: TenantId, blob: PlacedBlob, source: AsyncIterable<Uint8Array>): Promise<void> {
    // Not in object mode, where 16 chunks of any size would be read ahead.
    const body = Readable.from(limited(source), { objectMode: false });
    try {
      const upload = new Upload({
        client: this.client,
        params: { ...addressOf(blob), Body: body, ContentType: 'application/octet-stream' },
        partSize: PART_BYTES,
        queueSize: PARTS_AT_ONCE,
      });
      // When it fails it ends the source, lets the parts under way finish and aborts the multipart upload.
      await upload.done();
    } catch (error) {
      throw translated(error);
    } finally {
      body.destroy();
    }
  }

  async *read(_tenant: TenantId, blob: PlacedBlob, from: number, size: number): AsyncGenerator<Buffer> {
    let at = from;
    let barren = 0;
    while (at < size) {
      const start = at;
      const body = await this.range(blob, at, Math.min(at + RANGE_BYTES, size));
      let broken: unknown;
      try {
        for await (const chunk of body as AsyncIterable<Buffer>) {
          at += chunk.length;
          yield chunk;
        }
      } catch (error) {
        broken = error;
      }
      if (at > start) {
        barren = 0;
        continue;
      }
      barren += 1;
      if (barren === MAX_BARREN_BODIES) throw translated(broken);
      await sleep(backoffMs(barren, BODY_BACKOFF));
    }
  }

  async remove(blob: PlacedBlob): Promise<void> {
    try {
      await this.client.send(new DeleteObjectCommand(addressOf(blob)));
    } catch (error) {
      // S3 answers that it removed what was not there; some others say that it was not.
      const failure = translated(error);
      if (failure.code !== 'NOT_FOUND') throw failure;
    }
  }

  async ping(): Promise<void> {
    try {
      const abortSignal = AbortSignal.timeout(PING_TIMEOUT_MS);
      await this.client.send(new HeadBucketCommand({ Bucket: this.location.bucket }), { abortSignal });
    } catch (error) {
      throw translated(error, 'BLOBS_NOT_PERMITTED');
    }
  }

  close(): void {
    this.client.destroy();
  }

  private async range(blob: PlacedBlob, at: number, end: number): Promise<Readable> {
    const Range = `bytes=${at}-${end - 1}`;
    const answer = await this.client
      .send(new GetObjectCommand({ ...addressOf(blob), Range }))
      .catch((error: unknown) => {
        throw translated(error);
      });
    const body = answer.Body as Readable;
    // A proxy that drops the header would give the object's first bytes for those that were asked for.
    if (!answer.ContentRange?.startsWith(`bytes ${at}-`)) {
      body.destroy();
      throw unavailable('it ignores ranges');
    }
    return body;
  }
}

function addressOf({ bucket, key }: PlacedBlob): { Bucket: string; Key: string } {
  return { Bucket: bucket!, Key: key! };
}

/** Ends a source that is longer than a multipart upload may be, before all of it was sent in vain. */
async function* limited(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_PARTS * PART_BYTES) {
      throw apiError('VALIDATION_ERROR', `The upload is larger than ${(MAX_PARTS * PART_BYTES) / 1024 ** 3} GiB.`);
    }
    yield chunk;
  }
}

function unavailable(reason: string, cause?: unknown): CodedError {
  return new CodedError('BLOBS_UNAVAILABLE', `The storage of uploads does not serve (${reason}).`, undefined, {
    cause,
  });
}

/** The one place that knows what S3 and its SDK call things. @param gone the code for something that is not there */
function translated(error: unknown, gone: 'NOT_FOUND' | 'BLOBS_NOT_PERMITTED' = 'NOT_FOUND'): CodedError {
  if (isCodedError(error)) return error;
  const {
    name = '',
    code,
    $metadata,
  } = (error ?? {}) as {
    name?: string;
    code?: string;
    $metadata?: { httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode;
  const reason = code ?? (name || 'it broke off');
  if (gone === 'NOT_FOUND' && ['NoSuchKey', 'NotFound', 'InvalidRange'].includes(name)) {
    return new CodedError('NOT_FOUND', 'The upload was removed, or is no longer whole.', undefined, { cause: error });
  }
  // A redirect is a bucket of another region.
  const isRefused = [301, 307, 401, 403].includes(status ?? 0) || name === 'CredentialsProviderError';
  if (isRefused || name === 'NoSuchBucket' || (gone === 'BLOBS_NOT_PERMITTED' && status === 404)) {
    return new CodedError(
      'BLOBS_NOT_PERMITTED',
      `The storage of uploads refuses (${reason}): check BLOBS_URL and the AWS_… variables.`,
      undefined,
      { cause: error },
    );
  }
  return unavailable(reason, error);
}
