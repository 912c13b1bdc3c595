export {
  HISTORICAL_SYNC_QUEUE,
  HistoricalSyncSlice,
  parsePayload,
  progressChannel,
  QUEUE_ERRORS,
  QUEUES,
} from './queues.js';
export type { JobPolicy, QueueDeclaration } from './queues.js';
export { moveSyncJob, SYNC_JOB_ERRORS, SYNC_JOB_MOVES, SYNC_JOB_STATES } from './sync-job.js';
export type { SyncJobMove, SyncJobState } from './sync-job.js';
