import { accessMigrations } from '@atomo-cc/access';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import { memoryMigrations } from '@atomo-cc/memory';
import { blobMigrations } from '@atomo-cc/platform/blobs';
import { Leases1700000001000, type Migration } from '@atomo-cc/platform/postgres';
import { Outbox1700000002000 } from '@atomo-cc/platform/queues';
import { syncJobMigrations } from '@atomo-cc/sync-jobs';

/** The migrations of every table content-core touches; whichever service starts first applies them. */
export const contentCoreMigrations: readonly Migration[] = [
  Leases1700000001000,
  Outbox1700000002000,
  ...blobMigrations,
  ...memoryMigrations,
  ...accessMigrations,
  ...syncJobMigrations,
  ...eventStoreMigrations,
];
