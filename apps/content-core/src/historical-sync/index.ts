export { HistoricalSyncController } from './historical-sync.controller.js';
export { Imports } from './imports.js';
export { ProgressFeed } from './progress-feed.js';
export { syncJobsApi } from './sync-jobs-api.js';
