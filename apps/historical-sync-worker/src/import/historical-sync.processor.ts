import { OnWorkerEvent, Processor, WorkerHost } from '@nestjs/bullmq';
import { Inject, type BeforeApplicationShutdown, type OnApplicationBootstrap } from '@nestjs/common';
import type { Job } from 'bullmq';
import { tenantId } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import type { OutboxRelay } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { Metrics, type Counter, type Histogram } from '@atomo-cc/platform/telemetry';
import { HISTORICAL_SYNC_QUEUE, parsePayload, progressChannel } from '@atomo-cc/queues';
import { claimSyncJob, failSyncJob, type SyncJobClaim } from '@atomo-cc/sync-jobs';
import { describeFailure, runImportSlice, type ImportContext } from './import-slice.js';

/** What the processor works with beside the logger and metrics. */
export class ImportResources {
  constructor(
    readonly context: Omit<ImportContext, 'onChunk'>,
    readonly relay: OutboxRelay,
    /** A connection of use `command`, for hints to those who watch a job. */
    readonly redis: Redis,
  ) {}
}

const { lockMs, stalledCheckMs, maxStalled } = HISTORICAL_SYNC_QUEUE.policy;

/** The worker's end of queue `historical-sync`: claims the job's row, runs one slice, notes how it ended. */
@Processor(HISTORICAL_SYNC_QUEUE.name, {
  // One slice at a time: parsing mail keeps one core busy, and more workers are the way to more cores.
  concurrency: 1,
  lockDuration: lockMs,
  stalledInterval: stalledCheckMs,
  maxStalledCount: maxStalled,
})
export class HistoricalSyncProcessor extends WorkerHost implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly ending = new AbortController();
  private readonly records: Counter;
  private readonly chunks: Histogram;
  private active = 0;
  /** Told when a slice begins or ends. */
  onActivity: () => void = () => undefined;

  constructor(
    @Inject(ImportResources) private readonly resources: ImportResources,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(Metrics) metrics: Metrics,
  ) {
    super();
    this.records = metrics.counter('historical_sync_records_total', 'Messages read from archives.');
    this.chunks = metrics.histogram('historical_sync_chunk_seconds', 'Time to read and store one chunk of messages.');
  }

  onApplicationBootstrap(): void {
    this.worker.on('error', (error) => this.logger.warn({ err: error }, 'the queue connection reports an error'));
  }

  /** How many slices run now. */
  get activeJobs(): number {
    return this.active;
  }

  /** Takes no further job, and ends the slice under way after its chunk; the rest is queued for another worker. */
  async drain(): Promise<void> {
    this.ending.abort();
    await this.worker.pause(true);
  }

  async process(job: Job): Promise<void> {
    const payload = parsePayload(HISTORICAL_SYNC_QUEUE, job.data);
    const { database } = this.resources.context;
    const tenant = tenantId(payload.tenantId);
    const worker = `${process.pid}`;
    const claimed = await database.transaction(tenant, (tx) => claimSyncJob(tx, payload.jobId, worker));
    if (!claimed) return;
    this.active += 1;
    this.onActivity();
    const log = this.logger.child({ jobId: payload.jobId, tenantId: tenant, epoch: claimed.claim.epoch });
    log.info({ checkpoint: claimed.job.checkpoint }, 'slice begins');
    try {
      const context: ImportContext = {
        ...this.resources.context,
        onChunk: (claim, count, seconds) => this.chunkDone(claim, count, seconds),
      };
      const outcome = await runImportSlice(context, claimed.job, claimed.claim, this.ending.signal);
      log.info({ outcome }, 'slice ends');
    } catch (error) {
      const failure = describeFailure(error);
      log.error({ err: error, code: failure.code }, 'slice failed');
      const status = await database.transaction(tenant, (tx) => failSyncJob(tx, claimed.claim, failure));
      log.info({ status }, 'failure noted');
    } finally {
      this.active -= 1;
      this.resources.relay.kick();
      this.hint(payload.jobId);
      this.onActivity();
    }
  }

  @OnWorkerEvent('failed')
  onFailed(job: Job | undefined, error: Error): void {
    // Reached when not even the row could be told, such as when Postgres is away: the reaper queues the job again.
    this.logger.error({ err: error, queueJob: job?.id }, 'a queued job failed');
  }

  async beforeApplicationShutdown(): Promise<void> {
    this.ending.abort();
    await this.worker.close();
  }

  private chunkDone(claim: SyncJobClaim, records: number, seconds: number): void {
    this.records.inc(records);
    this.chunks.observe(seconds);
    this.hint(claim.jobId);
  }

  private hint(jobId: string): void {
    this.resources.redis.publish(progressChannel(jobId), '').catch(() => undefined);
  }
}
