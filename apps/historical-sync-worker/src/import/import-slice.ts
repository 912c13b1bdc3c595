import { isCodedError, sleep } from '@atomo-cc/kernel';
import { indexPending, ingestMessages, optimiseIndex, type IndexTarget, type SourceMessage } from '@atomo-cc/memory';
import type { BlobStore } from '@atomo-cc/platform/blobs';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  commitChunk,
  completeSyncJob,
  continueSyncJob,
  quarantine,
  waitSyncJob,
  type ChunkCounts,
  type Quarantined,
  type SyncJob,
  type SyncJobClaim,
} from '@atomo-cc/sync-jobs';
import { openMailArchive, parseMail, type MailArchive, type MboxEntry } from '../connectors/mbox/index.js';
import { QuotaShare } from './quota-share.js';

/** Messages per transaction, embedding call and LanceDB commit: a second's work at most, and what a crash repeats at most. */
const CHUNK = 100;
/** Bytes of raw messages in a chunk, which are in memory together: mails with attachments make smaller chunks. */
const CHUNK_BYTES = 32 * 1024 * 1024;
/**
 * How long one slice works before it queues the next: long enough that unpacking a gzip again up to the checkpoint costs
 * little beside it, short enough that one huge archive does not keep a worker from everybody else's jobs.
 */
const SLICE_MS = 5 * 60_000;

/** How often to ask again for the index while another worker writes it. */
const INDEX_BUSY_MS = 100;

/**
 * How a slice ended: the job is complete, more is queued, it waits for the quota of its tenant, or the claim was lost (paused,
 * cancelled, taken over).
 */
export type SliceOutcome = 'completed' | 'continued' | 'waiting' | 'lost';

/** What a slice works with. */
export interface ImportContext {
  readonly database: AppDatabase;
  readonly blobs: BlobStore;
  /** Where vectors and full text of the records go. */
  readonly index: Omit<IndexTarget, 'tenant' | 'db'>;
  /** Called after every chunk with the number of messages in it and how long it took. */
  readonly onChunk: (claim: SyncJobClaim, records: number, seconds: number) => void;
}

/** A chunk that must be rolled back because the claim on its job is lost. */
class ClaimLost extends Error {}

/**
 * Reads an uploaded mail archive into memory, from the job's checkpoint on, a chunk at a time: one transaction for records,
 * graph, quarantine, checkpoint, counters and what is used of the plan, then one embedding call and one LanceDB commit, under way while the next
 * chunk is read. Whatever happens in between, the checkpoint and what it stands for are committed together, so a repeated
 * chunk finds its records unchanged.
 * @param signal ends the slice after the chunk under way; the rest is queued again
 * @throws ArchiveError when the archive cannot be read further; other errors may pass
 */
export async function runImportSlice(
  context: ImportContext,
  job: SyncJob,
  claim: SyncJobClaim,
  signal: AbortSignal,
): Promise<SliceOutcome> {
  const share = new QuotaShare(context.database, claim);
  let outcome: SliceOutcome | undefined;
  try {
    return (outcome = await readOn(context, job, claim, share, signal));
  } finally {
    // Whoever has taken the job over goes on with it.
    if (outcome !== 'lost') await share.giveBack();
  }
}

async function readOn(
  context: ImportContext,
  job: SyncJob,
  claim: SyncJobClaim,
  share: QuotaShare,
  signal: AbortSignal,
): Promise<SliceOutcome> {
  const { tenant } = claim;
  const from = (job.checkpoint as { offset: number } | null)?.offset ?? 0;
  const deadline = Date.now() + SLICE_MS;
  const target: IndexTarget = { ...context.index, db: context.database, tenant };
  let indexing: Promise<unknown> = Promise.resolve();
  try {
    const archive = await openMailArchive(context.blobs.read(tenant, job.importId), { from });
    let started = performance.now();
    for await (const read of oneAhead(readChunks(archive))) {
      for (let rest: Chunk | null = read; rest;) {
        const waitingFor = await share.enough(messagesIn(rest));
        if (waitingFor) {
          await indexing;
          const isOurs = await context.database.transaction(tenant, (tx) => waitSyncJob(tx, claim, waitingFor));
          return isOurs ? 'waiting' : 'lost';
        }
        const chunk: Chunk = upTo(rest, share.left);
        rest = rest.entries.length > chunk.entries.length ? behind(rest, chunk) : null;
        await storeChunk(context.database, job, claim, chunk, share);
        await indexing;
        indexing = indexPending(target);
        // The rejection is met at the next await; without this the process would end on it before.
        indexing.catch(() => undefined);
        context.onChunk(claim, chunk.entries.length, (performance.now() - started) / 1000);
        started = performance.now();
      }
      if (signal.aborted || Date.now() > deadline) {
        await indexing;
        const isOurs = await context.database.transaction(tenant, (tx) => continueSyncJob(tx, claim));
        return isOurs ? 'continued' : 'lost';
      }
    }
    await indexing;
    await finishIndex(target);
    const isOurs = await context.database.transaction(tenant, (tx) => completeSyncJob(tx, claim));
    return isOurs ? 'completed' : 'lost';
  } catch (error) {
    await indexing.catch(() => undefined);
    if (error instanceof ClaimLost) return 'lost';
    throw error;
  }
}

/** A complete job can be searched: everything queued for the index is in it, and the index is in its best shape. */
async function finishIndex(target: IndexTarget): Promise<void> {
  for (let round = await indexPending(target); round.pending; round = await indexPending(target)) {
    if (round.busy) await sleep(INDEX_BUSY_MS);
  }
  await optimiseIndex(target);
}

/** Groups entries. Where the archive breaks off, those read before are given as a chunk first, and then the error is thrown. */
async function* inChunks(entries: AsyncIterable<MboxEntry>): AsyncGenerator<MboxEntry[]> {
  let chunk: MboxEntry[] = [];
  let bytes = 0;
  let failure: { error: unknown } | undefined;
  try {
    for await (const entry of entries) {
      chunk.push(entry);
      bytes += entry.end - entry.offset;
      if (chunk.length < CHUNK && bytes < CHUNK_BYTES) continue;
      yield chunk;
      chunk = [];
      bytes = 0;
    }
  } catch (error) {
    failure = { error };
  }
  if (chunk.length > 0) yield chunk;
  if (failure) throw failure.error;
}

/** A message that was read, or why it could not be, and where the next one starts in the uncompressed archive. */
interface ReadEntry {
  readonly read: SourceMessage | Quarantined;
  readonly end: number;
}

interface Chunk {
  readonly entries: readonly ReadEntry[];
  /** Stored bytes of the archive that were taken when the chunk had been read. */
  readonly bytesProcessed: number;
}

async function* readChunks(archive: MailArchive): AsyncGenerator<Chunk, void, undefined> {
  for await (const given of inChunks(archive.entries)) {
    const entries: ReadEntry[] = [];
    for (const entry of given) {
      const { offset, end } = entry;
      const read = 'fault' in entry ? entry.fault : await parseMail(entry.raw, entry.envelope);
      entries.push({ read: isFault(read) ? { offset, code: read.code, reason: read.reason } : read, end });
    }
    yield { entries, bytesProcessed: archive.consumedBytes() };
  }
}

function isFault<Fault extends { readonly code: string }>(read: SourceMessage | Fault): read is Fault {
  return 'code' in read;
}

function messagesIn({ entries }: Chunk): number {
  return entries.filter(({ read }) => !isFault(read)).length;
}

/** The beginning of a chunk that has so many messages at most, with the faults between and behind them. */
function upTo(chunk: Chunk, messages: number): Chunk {
  let left = messages;
  const end = chunk.entries.findIndex(({ read }) => !isFault(read) && (left -= 1) < 0);
  return end < 0 ? chunk : { ...chunk, entries: chunk.entries.slice(0, end) };
}

function behind(chunk: Chunk, { entries }: Chunk): Chunk {
  return { ...chunk, entries: chunk.entries.slice(entries.length) };
}

/** Asks for the next item while the one before is worked on: parsing needs the processor, storing mostly waits for Postgres. */
async function* oneAhead<Item>(source: AsyncGenerator<Item, void, undefined>): AsyncGenerator<Item, void, undefined> {
  let next = source.next();
  try {
    for (;;) {
      const item = await next;
      if (item.done) return;
      next = source.next();
      // A failure is met when it is that item's turn; until then it must not end the process.
      next.catch(() => undefined);
      yield item.value;
    }
  } finally {
    await next.catch(() => undefined);
    await source.return();
  }
}

async function storeChunk(
  database: AppDatabase,
  job: SyncJob,
  claim: SyncJobClaim,
  { entries, bytesProcessed }: Chunk,
  share: QuotaShare,
): Promise<void> {
  const messages: SourceMessage[] = [];
  const faults: Quarantined[] = [];
  for (const { read } of entries) {
    if (isFault(read)) faults.push(read);
    else messages.push(read);
  }
  const { end } = entries.at(-1)!;
  const taken = await database.transaction(claim.tenant, async (tx) => {
    await quarantine(tx, claim, job.importId, faults);
    const ingested = await ingestMessages(tx, {
      tenant: claim.tenant,
      jobId: job.id,
      source: job.integration,
      messages,
    });
    const records = ingested.recordsNew + ingested.recordsChanged;
    const counts: ChunkCounts = { ...ingested, recordsQuarantined: faults.length };
    const [isOurs] = await Promise.all([
      commitChunk(tx, claim, { checkpoint: { offset: end }, bytesProcessed, counts }),
      share.count(tx, records, end),
    ]);
    if (!isOurs) throw new ClaimLost();
    return records;
  });
  share.counted(taken);
}

/** What a failed slice says to the job's owner: the code and sentence of an error that is meant for people, else a hint to the log. */
export function describeFailure(error: unknown): { code: string; message: string; mayPass: boolean } {
  const { name, code, message } = error as { name?: string; code?: string; message?: string };
  if (name === 'ArchiveError') return { code: code!, message: message!, mayPass: false };
  if (isCodedError(error)) return { code: error.code, message: error.message, mayPass: true };
  return {
    code: 'INTERNAL_ERROR',
    message: 'Something went wrong on our side; the log of the worker has it.',
    mayPass: true,
  };
}
