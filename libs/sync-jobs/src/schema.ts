import type { MigrationInterface, QueryRunner } from 'typeorm';
import { APP_ROLE, runAll, tenantTable, type Migration } from '@atomo-cc/platform/postgres';

/** The tables of historical-sync jobs and of the messages they could not read. */
class SyncJobs1700000300000 implements MigrationInterface {
  name = 'SyncJobs1700000300000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table historical_sync_jobs (
         id uuid primary key,
         tenant_id uuid not null,
         integration text not null,
         import_id uuid not null,
         status text not null,
         epoch bigint not null default 0,
         worker text,
         checkpoint jsonb,
         bytes_total bigint not null,
         bytes_processed bigint not null default 0,
         records_processed bigint not null default 0,
         records_new bigint not null default 0,
         records_changed bigint not null default 0,
         records_unchanged bigint not null default 0,
         records_quarantined bigint not null default 0,
         people bigint not null default 0,
         threads bigint not null default 0,
         replies bigint not null default 0,
         entities_extracted bigint not null default 0,
         relationships_extracted bigint not null default 0,
         last_error jsonb,
         error_count int not null default 0,
         max_retries int not null,
         last_heartbeat timestamptz,
         created_at timestamptz not null default clock_timestamp(),
         started_at timestamptz,
         completed_at timestamptz,
         updated_at timestamptz not null default clock_timestamp()
       )`,
      `create index historical_sync_jobs_by_tenant on historical_sync_jobs (tenant_id, id desc)`,
      `create index historical_sync_jobs_unfinished on historical_sync_jobs (updated_at) where status in ('pending', 'running')`,
      ...tenantTable('historical_sync_jobs', { app: 'select, insert, update', system: 'select, update' }),
      `create table quarantined_records (
         id uuid primary key,
         tenant_id uuid not null,
         job_id uuid not null references historical_sync_jobs (id) on delete cascade,
         import_id uuid not null,
         byte_offset bigint not null,
         code text not null,
         reason text not null,
         created_at timestamptz not null default clock_timestamp(),
         unique (job_id, byte_offset)
       )`,
      ...tenantTable('quarantined_records', { app: 'select, insert', system: 'select' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop table quarantined_records', 'drop table historical_sync_jobs']);
  }
}

/** What was said of messages that could not be read may quote them, so it may be taken away. */
class QuarantineErasure1700000300001 implements MigrationInterface {
  name = 'QuarantineErasure1700000300001';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`grant update (reason) on quarantined_records to ${APP_ROLE}`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`revoke update (reason) on quarantined_records from ${APP_ROLE}`);
  }
}

/** What a waiting job waits for. */
class WaitingSyncJobs1700000310000 implements MigrationInterface {
  name = 'WaitingSyncJobs1700000310000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      'alter table historical_sync_jobs add waiting_for jsonb',
      `create index historical_sync_jobs_waiting on historical_sync_jobs (tenant_id) where status = 'waiting'`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('alter table historical_sync_jobs drop waiting_for');
  }
}

/** The migrations of the tables this lib owns. */
export const syncJobMigrations: readonly Migration[] = [
  SyncJobs1700000300000,
  QuarantineErasure1700000300001,
  WaitingSyncJobs1700000310000,
];
