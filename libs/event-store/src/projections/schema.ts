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

/**
 * Builds of projections: the checkpoints and dead letters of before belong to a build from here on. No release ran a
 * projection yet, so none of either is worth a guess at which build it was.
 */
export class ProjectionBuilds1700000405100 implements MigrationInterface {
  name = 'ProjectionBuilds1700000405100';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table projection_builds (
         projection text not null,
         build int not null check (build > 0),
         version int not null,
         tenant_id uuid,
         mode text not null check (mode in ('async', 'inline')),
         shards int not null,
         tables text[] not null,
         has_tables boolean not null default false,
         state text not null check (state in
           ('requested', 'building', 'ready', 'live', 'merged', 'retired', 'cancelled', 'failed', 'dropped')),
         hold_switch boolean not null default false,
         allow_dead_letters boolean not null default false,
         gate bigint[],
         from_position bigint not null default 0,
         to_position bigint not null default 0,
         events_before bigint not null default 0,
         events_to_do bigint,
         error text,
         requested_by text not null,
         reason text not null,
         requested_at timestamptz not null default clock_timestamp(),
         started_at timestamptz,
         ready_at timestamptz,
         live_at timestamptz,
         ended_at timestamptz,
         primary key (projection, build)
       )`,
      `create unique index projection_builds_live on projection_builds (projection) where state = 'live'`,
      `create unique index projection_builds_under_way on projection_builds (projection)
         where state in ('requested', 'building', 'ready')`,
      ...tenantTable('projection_builds', { app: '', system: 'select, insert, update' }),
      `truncate projection_checkpoints, projection_dead_letters`,
      `alter table projection_checkpoints rename column version to build`,
      `alter table projection_checkpoints
         add column window_at timestamptz not null default clock_timestamp(),
         add column window_events bigint not null default 0,
         add column window_errors bigint not null default 0,
         add column events_per_s float8 not null default 0,
         add column errors_per_s float8 not null default 0`,
      `alter table projection_dead_letters rename column version to build`,
      `alter table projection_dead_letters add column is_retry_asked boolean not null default false`,
      `grant delete on projection_checkpoints, projection_dead_letters to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `revoke delete on projection_checkpoints, projection_dead_letters from ${SYSTEM_ROLE}`,
      `alter table projection_dead_letters drop column is_retry_asked`,
      `alter table projection_dead_letters rename column build to version`,
      `alter table projection_checkpoints drop column window_at, drop column window_events, drop column window_errors,
         drop column events_per_s, drop column errors_per_s`,
      `alter table projection_checkpoints rename column build to version`,
      'drop table projection_builds',
    ]);
  }
}
