import { apiError, isUuid, type TenantId } from '@atomo-cc/kernel';
import { progressChannel } from '@atomo-cc/queues';
import type { Blob, BlobStore } from '@atomo-cc/platform/blobs';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import type { OutboxRelay } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { startSyncJob, type SyncJob } from '@atomo-cc/sync-jobs';
import { UploadQuota } from './upload-quota.js';

/** The integration whose connector reads uploads of mail. */
const MAIL_ARCHIVE = 'mbox';
/** Enough of an upload to tell what it is. */
const HEAD_BYTES = 64;

/** What is kept of a file's name, from its end; the longest that file systems take is 255 bytes. */
const MAX_NAME_CHARS = 255;

/** Uploads of mail archives and the jobs that read them. */
export class Imports {
  constructor(
    readonly database: AppDatabase,
    private readonly blobs: BlobStore,
    private readonly relay: OutboxRelay,
    private readonly redis: Redis,
  ) {}

  /**
   * Stores an upload of any size.
   * @throws CodedError VALIDATION_ERROR when its first bytes are those of no archive we read, RATE_LIMITED when the plan allows no
   * more this month; nothing is stored then
   */
  async store(tenant: TenantId, name: string, source: AsyncIterable<Uint8Array>): Promise<Blob> {
    const storable = name
      .replaceAll(/\p{Cc}/gu, '')
      .toWellFormed()
      .slice(-MAX_NAME_CHARS);
    const quota = new UploadQuota(this.database, tenant);
    try {
      const blob = await this.blobs.put(tenant, storable, quota.metered(checkedArchive(storable, source)));
      await quota.count().catch(async (error: unknown) => {
        await this.blobs.delete(tenant, blob.id);
        throw error;
      });
      return blob;
    } finally {
      await quota.giveBack();
    }
  }

  /** Starts the job that reads a stored upload. @throws CodedError NOT_FOUND */
  async start(tenant: TenantId, importId: string): Promise<SyncJob> {
    if (!isUuid(importId)) throw apiError('NOT_FOUND', 'There is no such upload.');
    const blob = await this.blobs.find(tenant, importId);
    const job = await this.database.transaction(tenant, (tx) =>
      startSyncJob(tx, { tenant, integration: MAIL_ARCHIVE, importId, bytesTotal: blob.size }),
    );
    this.relay.kick();
    return job;
  }

  /** Wakes those who follow a job, and the relay, after its row was changed here. */
  async jobChanged(id: string): Promise<void> {
    this.relay.kick();
    await this.redis.publish(progressChannel(id), '').catch(() => undefined);
  }
}

/** Passes an upload through once its first bytes are known to be those of mail. */
async function* checkedArchive(name: string, source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let head: Uint8Array | undefined = Buffer.alloc(0);
  for await (const chunk of arriving(name, source)) {
    if (!head) {
      yield chunk;
      continue;
    }
    head = Buffer.concat([head, chunk]);
    if (head.length < HEAD_BYTES) continue;
    refuseOthers(name, head);
    yield head;
    head = undefined;
  }
  if (head) {
    refuseOthers(name, head);
    yield head;
  }
}

/** An upload fails when its sender goes away or ends in the middle of the form; neither is a fault on our side. */
async function* arriving(name: string, source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* source;
  } catch {
    throw apiError('VALIDATION_ERROR', `${name} did not arrive whole. Send it again.`);
  }
}

function refuseOthers(name: string, head: Uint8Array): void {
  if (head.length === 0) throw apiError('VALIDATION_ERROR', `${name} is empty.`);
  const isGzip = head[0] === 0x1f && head[1] === 0x8b;
  const start = Buffer.from(head.subarray(0, HEAD_BYTES)).toString('latin1');
  // An mbox starts with its separator, a single message with a header line; some programs put a byte order mark or empty
  // lines before either.
  const isMail = /^(?:\xef\xbb\xbf)?(?:\r?\n)*(?:From |[A-Za-z][\w.-]*[ \t]*:)/.test(start);
  if (!isGzip && !isMail) {
    throw apiError('VALIDATION_ERROR', `${name} is no mail archive: send an .mbox, an .mbox.gz or an .eml file.`);
  }
}
