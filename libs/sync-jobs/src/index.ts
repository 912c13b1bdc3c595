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
  startSyncJob,
  steerSyncJob,
} from './sync-jobs.js';
export type { ChunkCounts, Quarantined, SyncJob, SyncJobClaim } from './sync-jobs.js';
