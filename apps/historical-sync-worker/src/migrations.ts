import { accessMigrations } from '@atomo-cc/access';
import { memoryMigrations } from '@atomo-cc/memory';
import { blobMigrations } from '@atomo-cc/platform/blobs';
import { Leases1700000001000, type Migration } from '@atomo-cc/platform/postgres';
import { Outbox1700000002000 } from '@atomo-cc/platform/queues';
import { syncJobMigrations } from '@atomo-cc/sync-jobs';

/** The migrations of every table a worker touches; whichever service starts first applies them. */
export const workerMigrations: readonly Migration[] = [
  Leases1700000001000,
  Outbox1700000002000,
  ...blobMigrations,
  ...accessMigrations,
  ...syncJobMigrations,
  ...memoryMigrations,
];
