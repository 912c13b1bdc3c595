import type { MigrationInterface, QueryRunner } from 'typeorm';
import { runAll, SYSTEM_ROLE, tenantTable } from '@atomo-cc/platform/postgres';

/**
 * How far each shard of each projection is, and the events that a projection could not apply. Requests have no right to
 * either: a checkpoint belongs to no tenant, and a dead letter's error may say anything.
 */
export class Projections1700000405000 implements MigrationInterface {
  name = 'Projections1700000405000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table projection_checkpoints (
         projection text not null,
         version int not null,
         shard int not null,
         shards int not null check (shard >= 0 and shard < shards),
         position bigint not null default 0,
         epoch bigint not null default 0,
         state text not null default 'running' check (state in ('running', 'paused', 'stopped')),
         events_total bigint not null default 0,
         errors_total bigint not null default 0,
         last_error text,
         updated_at timestamptz not null default clock_timestamp(),
         primary key (projection, version, shard)
       )`,
      `grant select, insert, update on projection_checkpoints to ${SYSTEM_ROLE}`,
      `create table projection_dead_letters (
         projection text not null,
         version int not null,
         position bigint not null,
         shard int not null,
         tenant_id uuid not null,
         stream text not null,
         stream_version int not null,
         type text not null,
         error text not null,
         stack text not null,
         attempts int not null,
         state text not null default 'open' check (state in ('open', 'retried', 'skipped')),
         reason text,
         failed_at timestamptz not null default clock_timestamp(),
         resolved_at timestamptz,
         primary key (projection, version, position),
         check ((state = 'open') = (resolved_at is null)),
         check ((state = 'skipped') = (reason is not null))
       )`,
      `create index projection_dead_letters_open on projection_dead_letters (projection, version, shard) where state = 'open'`,
      ...tenantTable('projection_dead_letters', { app: '', system: 'select, insert, update' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop table projection_dead_letters', 'drop table projection_checkpoints']);
  }
}
