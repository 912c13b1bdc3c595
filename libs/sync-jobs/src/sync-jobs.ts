import { apiError, backoffMs, uuidv5, uuidv7, type Backoff, type TenantId } from '@atomo-cc/kernel';
import { enqueue } from '@atomo-cc/platform/queues';
import type { Tx } from '@atomo-cc/platform/postgres';
import {
  HISTORICAL_SYNC_QUEUE,
  moveSyncJob,
  SYNC_JOB_MOVES,
  type SyncJobMove,
  type SyncJobState,
} from '@atomo-cc/queues';

/** Errors in a row, without a chunk done between them, after which a job fails. */
const MAX_RETRIES = 5;
/** Pauses between those errors: a vendor's or database's short trouble is over in minutes. */
const RETRY_BACKOFF: Backoff = { firstMs: 2_000, maxMs: 300_000 };
/**
 * A job without a sign of life for this long is put back into the queue. Longer than a worker needs for its slowest chunk;
 * a worker that was only slow loses nothing but its claim.
 */
const ABANDONED_AFTER_MS = 60_000;
/** Jobs put back, or renewed, at a time, so that the reaper's transaction stays short. */
const REAP_BATCH = 100;

/** Where a job's work stands, for people and programs that watch it. */
export interface SyncJob {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly integration: string;
  readonly importId: string;
  readonly status: SyncJobState;
  /** Where the next chunk starts; its shape belongs to the connector. */
  readonly checkpoint: unknown;
  /** Stored bytes of the import, and how many of them are worked off. */
  readonly bytesTotal: number;
  readonly bytesProcessed: number;
  /** 0 to 100. */
  readonly progressPercentage: number;
  /** New, changed, unchanged and quarantined ones together. */
  readonly recordsProcessed: number;
  readonly recordsNew: number;
  readonly recordsChanged: number;
  readonly recordsUnchanged: number;
  readonly recordsQuarantined: number;
  /** What this job added to the graph: people, threads, replies, and all nodes and edges together. */
  readonly people: number;
  readonly threads: number;
  readonly replies: number;
  readonly entitiesExtracted: number;
  readonly relationshipsExtracted: number;
  readonly lastError: { code: string; message: string } | null;
  /** Of a waiting job; null of all others. */
  readonly waitingFor: WaitingFor | null;
  readonly errorCount: number;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly completedAt: Date | null;
  readonly lastHeartbeat: Date | null;
}

/** What a job waits for. */
export interface WaitingFor {
  /** The name of what is used up. */
  readonly quota: string;
  readonly limit: number;
  /** When it is there again at the latest, as ISO 8601. */
  readonly renewsAt: string;
  /** The same as a sentence for people. */
  readonly message: string;
}

/** A worker's claim on a job. Every write names its epoch: once another worker has claimed the job, it changes nothing. */
export interface SyncJobClaim {
  readonly jobId: string;
  readonly tenant: TenantId;
  readonly epoch: number;
}

/** What a chunk adds to the job's counters. */
export interface ChunkCounts {
  readonly recordsNew: number;
  readonly recordsChanged: number;
  readonly recordsUnchanged: number;
  readonly recordsQuarantined: number;
  readonly people: number;
  readonly threads: number;
  readonly replies: number;
  readonly nodes: number;
  readonly edges: number;
}

/** A message that could not be read, with the place in the uncompressed archive where it starts. */
export interface Quarantined {
  readonly offset: number;
  readonly code: string;
  readonly reason: string;
}

/** Creates a job and queues its first slice; both happen if the transaction commits. */
export async function startSyncJob(
  tx: Tx,
  job: { tenant: TenantId; integration: string; importId: string; bytesTotal: number },
): Promise<SyncJob> {
  const id = uuidv7();
  const [row] = await tx.query<Row>(
    `insert into historical_sync_jobs (id, tenant_id, integration, import_id, status, bytes_total, max_retries)
     values ($1, $2, $3, $4, 'pending', $5, $6) returning *`,
    [id, job.tenant, job.integration, job.importId, job.bytesTotal, MAX_RETRIES],
  );
  await enqueueSlice(tx, row!, 0);
  return toSyncJob(row!);
}

/** The job, or null when the tenant has none of that id. */
export async function findSyncJob(tx: Tx, id: string): Promise<SyncJob | null> {
  const [row] = await tx.query<Row>('select * from historical_sync_jobs where id = $1', [id]);
  return row ? toSyncJob(row) : null;
}

/** The tenant's jobs, newest first, from behind `after` on. */
export async function listSyncJobs(tx: Tx, page: { first: number; after: string | null }): Promise<SyncJob[]> {
  const rows = await tx.query<Row>(
    `select * from historical_sync_jobs where ($2::uuid is null or id < $2) order by id desc limit $1`,
    [page.first, page.after],
  );
  return rows.map(toSyncJob);
}

/** The messages a job set aside, in the order of the archive. */
export async function listQuarantined(tx: Tx, jobId: string, limit: number): Promise<Quarantined[]> {
  const rows = await tx.query<{ byte_offset: string; code: string; reason: string }>(
    'select byte_offset, code, reason from quarantined_records where job_id = $1 order by byte_offset limit $2',
    [jobId, limit],
  );
  return rows.map((row) => ({ offset: Number(row.byte_offset), code: row.code, reason: row.reason }));
}

/**
 * The uploads that jobs of the tenant have read, and whether the work on them is over: completed, cancelled, or failed for good. An
 * upload that two jobs read is over when both are.
 */
export function listImports(tx: Tx): Promise<{ readonly importId: string; readonly isOver: boolean }[]> {
  return tx.query(
    `select import_id as "importId", bool_and(status in ('completed', 'cancelled', 'failed')) as "isOver"
     from historical_sync_jobs group by import_id order by import_id`,
  );
}

/** Takes away the reasons of messages set aside, and the errors of jobs, that quote one of these texts, in whichever letters. */
export async function eraseQuotes(tx: Tx, texts: readonly string[]): Promise<void> {
  const patterns = texts.filter(Boolean).map((text) => `%${text.replaceAll(/[\\%_]/g, String.raw`\$&`)}%`);
  await tx.execute(`update quarantined_records set reason = '[erased]' where reason ilike any($1::text[])`, [patterns]);
  await tx.execute(
    `update historical_sync_jobs set last_error = last_error || '{"message": "[erased]"}'
     where last_error ->> 'message' ilike any($1::text[])`,
    [patterns],
  );
}

/**
 * Takes the job for a worker and gives it the first sign of life. From now on only writes with the new epoch count.
 * Null: the job is gone, or in a state in which there is nothing to do.
 */
export async function claimSyncJob(
  tx: Tx,
  jobId: string,
  worker: string,
): Promise<{ job: SyncJob; claim: SyncJobClaim } | null> {
  const [row] = await tx.query<Row>(
    `update historical_sync_jobs
     set status = 'running', epoch = epoch + 1, worker = $2, waiting_for = null, started_at = coalesce(started_at, clock_timestamp()),
         last_heartbeat = clock_timestamp(), updated_at = clock_timestamp()
     where id = $1 and status = any($3) returning *`,
    [jobId, worker, SYNC_JOB_MOVES.claim.from],
  );
  if (!row) return null;
  const job = toSyncJob(row);
  return { job, claim: { jobId, tenant: job.tenantId, epoch: Number(row.epoch) } };
}

/**
 * Records a chunk's end in the chunk's own transaction: checkpoint, counters, sign of life. False: the claim is lost or the
 * job was paused or cancelled; the caller must roll the chunk back.
 */
export async function commitChunk(
  tx: Tx,
  claim: SyncJobClaim,
  chunk: { checkpoint: unknown; bytesProcessed: number; counts: ChunkCounts },
): Promise<boolean> {
  const { counts } = chunk;
  const processed = counts.recordsNew + counts.recordsChanged + counts.recordsUnchanged + counts.recordsQuarantined;
  const changed = await tx.execute(
    `update historical_sync_jobs
     set checkpoint = $3, bytes_processed = least(bytes_total, $4), error_count = 0, last_error = null,
         records_processed = records_processed + $5, records_new = records_new + $6,
         records_changed = records_changed + $7, records_unchanged = records_unchanged + $8,
         records_quarantined = records_quarantined + $9, people = people + $10, threads = threads + $11,
         replies = replies + $12, entities_extracted = entities_extracted + $13,
         relationships_extracted = relationships_extracted + $14,
         last_heartbeat = clock_timestamp(), updated_at = clock_timestamp()
     where id = $1 and epoch = $2 and status = 'running'`,
    [
      claim.jobId,
      claim.epoch,
      JSON.stringify(chunk.checkpoint),
      chunk.bytesProcessed,
      processed,
      counts.recordsNew,
      counts.recordsChanged,
      counts.recordsUnchanged,
      counts.recordsQuarantined,
      counts.people,
      counts.threads,
      counts.replies,
      counts.nodes,
      counts.edges,
    ],
  );
  return changed === 1;
}

/** Gives a sign of life without progress. False: the claim is lost, or the job was paused or cancelled. */
export async function beatSyncJob(tx: Tx, claim: SyncJobClaim): Promise<boolean> {
  const changed = await tx.execute(
    `update historical_sync_jobs set last_heartbeat = clock_timestamp(), updated_at = clock_timestamp()
     where id = $1 and epoch = $2 and status = 'running'`,
    [claim.jobId, claim.epoch],
  );
  return changed === 1;
}

/** Sets messages aside that could not be read; one that was set aside before a crash is not noted twice. */
export async function quarantine(
  tx: Tx,
  claim: SyncJobClaim,
  importId: string,
  faults: readonly Quarantined[],
): Promise<void> {
  if (faults.length === 0) return;
  await tx.execute(
    `insert into quarantined_records (id, tenant_id, job_id, import_id, byte_offset, code, reason)
     select f.id, $1, $2, $3, f.byte_offset, f.code, f.reason
     from jsonb_to_recordset($4::jsonb) as f (id uuid, byte_offset bigint, code text, reason text)
     on conflict (job_id, byte_offset) do nothing`,
    [
      claim.tenant,
      claim.jobId,
      importId,
      JSON.stringify(
        faults.map((fault) => ({
          id: uuidv5(claim.jobId, String(fault.offset)),
          byte_offset: fault.offset,
          code: fault.code,
          reason: fault.reason,
        })),
      ),
    ],
  );
}

/** Queues the next slice of a job whose time slice is over. The job stays running. False: the claim is lost. */
export async function continueSyncJob(tx: Tx, claim: SyncJobClaim): Promise<boolean> {
  if (!(await beatSyncJob(tx, claim))) return false;
  await enqueueSlice(tx, { id: claim.jobId, tenant_id: claim.tenant, epoch: String(claim.epoch) }, 0);
  return true;
}

/** Ends a job whose work is all done. False: the claim is lost. */
export async function completeSyncJob(tx: Tx, claim: SyncJobClaim): Promise<boolean> {
  const set = 'bytes_processed = bytes_total, completed_at = clock_timestamp(), worker = null';
  return (await move(tx, claim, 'complete', set, [])) !== null;
}

/**
 * Lets a job wait until there is something left of what it needs and may not have now. It goes on from its last chunk.
 * False: the claim is lost.
 */
export async function waitSyncJob(tx: Tx, claim: SyncJobClaim, waitingFor: WaitingFor): Promise<boolean> {
  const set = 'waiting_for = $4::jsonb, worker = null';
  return (await move(tx, claim, 'wait', set, [JSON.stringify(waitingFor)])) !== null;
}

/**
 * Notes an error. One that may pass puts the job back with a growing pause until it has failed too often in a row; one that
 * will not pass fails it at once. Answers the state it is in now, or null when the claim is lost.
 */
export async function failSyncJob(
  tx: Tx,
  claim: SyncJobClaim,
  error: { code: string; message: string; mayPass: boolean },
): Promise<SyncJobState | null> {
  const note = JSON.stringify({ code: error.code, message: error.message });
  const [current] = await tx.query<Row>('select * from historical_sync_jobs where id = $1 and epoch = $2 for update', [
    claim.jobId,
    claim.epoch,
  ]);
  if (!current) return null;
  if (error.mayPass && current.error_count < current.max_retries) {
    const row = await move(tx, claim, 'retry', 'error_count = error_count + 1, last_error = $4::jsonb, worker = null', [
      note,
    ]);
    if (row) await enqueueSlice(tx, row, backoffMs(row.error_count, RETRY_BACKOFF));
    return row && row.status;
  }
  const set = 'error_count = error_count + 1, last_error = $4::jsonb, completed_at = clock_timestamp(), worker = null';
  const row = await move(tx, claim, 'fail', set, [note]);
  return row && row.status;
}

/**
 * Pauses, resumes or cancels a job as its owner asks. Resuming raises the epoch, so that its slice has an id of its own: a
 * slice that a retry queued for later would make it wait, and a worker that missed the pause would go on beside it.
 * @throws CodedError NOT_FOUND, SYNC_JOB_ILLEGAL_MOVE
 */
export async function steerSyncJob(tx: Tx, id: string, asked: 'pause' | 'resume' | 'cancel'): Promise<SyncJob> {
  const [current] = await tx.query<Row>('select * from historical_sync_jobs where id = $1 for update', [id]);
  if (!current) throw apiError('NOT_FOUND', 'There is no such job.');
  const status = moveSyncJob(current.status, asked);
  const [row] = await tx.query<Row>(
    `update historical_sync_jobs
     set status = $2, updated_at = clock_timestamp(), waiting_for = null,
         epoch = epoch + case when $3 = 'resume' then 1 else 0 end,
         error_count = case when $3 = 'resume' then 0 else error_count end,
         completed_at = case when $3 = 'cancel' then clock_timestamp() when $3 = 'resume' then null else completed_at end
     where id = $1 returning *`,
    [id, status, asked],
  );
  if (asked === 'resume') await enqueueSlice(tx, row!, 0);
  return toSyncJob(row!);
}

/**
 * Queues every unfinished job again that gave no sign of life for a minute: its worker died, or Redis lost its queue. A slice
 * that still waits in the queue has the same id, so nothing is doubled. Needs the system role. Answers the ids.
 */
export async function reapAbandoned(tx: Tx): Promise<string[]> {
  const rows = await tx.query<Row>(
    `update historical_sync_jobs set updated_at = clock_timestamp()
     where id in (
       select id from historical_sync_jobs
       where status in ('pending', 'running') and updated_at < clock_timestamp() - $1 * interval '1 millisecond'
       order by updated_at limit $2 for update skip locked
     ) returning *`,
    [ABANDONED_AFTER_MS, REAP_BATCH],
  );
  for (const row of rows) await enqueueSlice(tx, row, 0);
  return rows.map((row) => row.id);
}

/**
 * Queues the waiting jobs again for which there is something left. Needs the system role. Answers the ids.
 * @param hasRoom which of these have something left
 */
export async function renewWaiting(
  tx: Tx,
  hasRoom: <Asked extends { readonly tenant: TenantId; readonly quota: string }>(
    tx: Tx,
    asked: readonly Asked[],
  ) => Promise<readonly Asked[]>,
): Promise<string[]> {
  const asked = await tx.query<{ tenant: TenantId; quota: string }>(
    `select distinct tenant_id as tenant, waiting_for ->> 'quota' as quota from historical_sync_jobs where status = 'waiting'`,
  );
  if (asked.length === 0) return [];
  const free = await hasRoom(tx, asked);
  const rows = await tx.query<Row>(
    `update historical_sync_jobs
     set status = $3, epoch = epoch + 1, waiting_for = null, updated_at = clock_timestamp()
     where id in (
       select j.id from historical_sync_jobs j
       join unnest($1::uuid[], $2::text[]) as free (tenant, quota)
         on j.tenant_id = free.tenant and j.waiting_for ->> 'quota' = free.quota
       where j.status = any($4) order by j.updated_at limit $5 for update of j skip locked
     ) returning *`,
    [
      free.map(({ tenant }) => tenant),
      free.map(({ quota }) => quota),
      SYNC_JOB_MOVES.renew.to,
      SYNC_JOB_MOVES.renew.from,
      REAP_BATCH,
    ],
  );
  for (const row of rows) await enqueueSlice(tx, row, 0);
  return rows.map((row) => row.id);
}

async function move(
  tx: Tx,
  claim: SyncJobClaim,
  name: SyncJobMove,
  set: string,
  parameters: unknown[],
): Promise<Row | null> {
  const { from, to } = SYNC_JOB_MOVES[name];
  const [row] = await tx.query<Row>(
    `update historical_sync_jobs set status = '${to}', updated_at = clock_timestamp(), last_heartbeat = clock_timestamp()
       , ${set}
     where id = $1 and epoch = $2 and status = any($3) returning *`,
    [claim.jobId, claim.epoch, from, ...parameters],
  );
  return row ?? null;
}

/** The queue's id of a slice holds the epoch at which it was asked for, so asking twice before it is claimed is one slice. */
async function enqueueSlice(tx: Tx, row: Pick<Row, 'id' | 'tenant_id' | 'epoch'>, delayMs: number): Promise<void> {
  await enqueue(tx, HISTORICAL_SYNC_QUEUE, {
    tenant: row.tenant_id,
    jobId: `${row.id}-${row.epoch}`,
    payload: { jobId: row.id, tenantId: row.tenant_id },
    delayMs,
  });
}

interface Row {
  id: string;
  tenant_id: TenantId;
  integration: string;
  import_id: string;
  status: SyncJobState;
  epoch: string;
  checkpoint: unknown;
  bytes_total: string;
  bytes_processed: string;
  records_processed: string;
  records_new: string;
  records_changed: string;
  records_unchanged: string;
  records_quarantined: string;
  people: string;
  threads: string;
  replies: string;
  entities_extracted: string;
  relationships_extracted: string;
  last_error: { code: string; message: string } | null;
  waiting_for: WaitingFor | null;
  error_count: number;
  max_retries: number;
  last_heartbeat: Date | null;
  created_at: Date;
  started_at: Date | null;
  completed_at: Date | null;
}

function toSyncJob(row: Row): SyncJob {
  const total = Number(row.bytes_total);
  const done = Number(row.bytes_processed);
  return {
    id: row.id,
    tenantId: row.tenant_id,
    integration: row.integration,
    importId: row.import_id,
    status: row.status,
    checkpoint: row.checkpoint,
    bytesTotal: total,
    bytesProcessed: done,
    progressPercentage: row.status === 'completed' ? 100 : total === 0 ? 0 : Math.floor((100 * done) / total),
    recordsProcessed: Number(row.records_processed),
    recordsNew: Number(row.records_new),
    recordsChanged: Number(row.records_changed),
    recordsUnchanged: Number(row.records_unchanged),
    recordsQuarantined: Number(row.records_quarantined),
    people: Number(row.people),
    threads: Number(row.threads),
    replies: Number(row.replies),
    entitiesExtracted: Number(row.entities_extracted),
    relationshipsExtracted: Number(row.relationships_extracted),
    lastError: row.last_error,
    waitingFor: row.waiting_for,
    errorCount: row.error_count,
    createdAt: row.created_at,
    startedAt: row.started_at,
    completedAt: row.completed_at,
    lastHeartbeat: row.last_heartbeat,
  };
}
