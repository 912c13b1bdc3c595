export { syncJobMigrations } from './schema.js';
export {
  beatSyncJob,
  claimSyncJob,
  commitChunk,
  completeSyncJob,
  continueSyncJob,
  eraseQuotes,
  failSyncJob,
  findSyncJob,
  listImports,
  listQuarantined,
  listSyncJobs,
  quarantine,
  reapAbandoned,
  renewWaiting,
  startSyncJob,
  steerSyncJob,
  waitSyncJob,
} from './sync-jobs.js';
export type { ChunkCounts, Quarantined, SyncJob, SyncJobClaim, WaitingFor } from './sync-jobs.js';
