import type { MigrationInterface, QueryRunner } from 'typeorm';
import { APP_ROLE, runAll, SYSTEM_ROLE, tenantTable, type Migration } from '@atomo-cc/platform/postgres';
import { ProjectionBuilds1700000405100, Projections1700000405000 } from './projections/schema.js';

/**
 * The log and the head of each stream. Both roles may only add to the log: nobody who serves requests can change or remove
 * an event, by privilege. The sequence has no cache, because a cached number would be handed out after the fence was read.
 */
class EventLog1700000400000 implements MigrationInterface {
  name = 'EventLog1700000400000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create sequence event_log_position as bigint cache 1`,
      `create table event_log (
         position bigint primary key,
         tenant_id uuid not null,
         stream text not null,
         stream_version int not null,
         type text not null,
         schema_version int not null,
         data jsonb not null,
         metadata jsonb not null,
         recorded_at timestamptz not null default clock_timestamp(),
         unique (tenant_id, stream, stream_version)
       )`,
      `create index event_log_by_tenant on event_log (tenant_id, position)`,
      `create index event_log_by_type on event_log (tenant_id, type, position)`,
      `create table event_streams (
         tenant_id uuid not null,
         stream text not null,
         version int not null,
         primary key (tenant_id, stream)
       )`,
      ...tenantTable('event_log', { app: 'select, insert', system: 'select' }),
      ...tenantTable('event_streams', { app: 'select, insert, update', system: 'select' }),
      `grant usage, select on sequence event_log_position to atomo_app, atomo_system`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop table event_streams', 'drop table event_log', 'drop sequence event_log_position']);
  }
}

/**
 * The chain of each stream (see chainHash): the link of every event, and the last one on the stream's row. Streams that are
 * older than the chain start it with their next event; the events before it have no link.
 */
class EventChain1700000401000 implements MigrationInterface {
  name = 'EventChain1700000401000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `alter table event_log add column hash bytea`,
      `alter table event_streams add column hash bytea not null default ''`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['alter table event_streams drop column hash', 'alter table event_log drop column hash']);
  }
}

/** The answers of commands that came with an idempotency key. */
class CommandAnswers1700000402000 implements MigrationInterface {
  name = 'CommandAnswers1700000402000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table command_answers (
         tenant_id uuid not null,
         key text not null,
         fingerprint text not null,
         record_id uuid not null,
         version int not null,
         created_at timestamptz not null default clock_timestamp(),
         primary key (tenant_id, key)
       )`,
      ...tenantTable('command_answers', { app: 'select, insert', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table command_answers');
  }
}

/**
 * Who did what and when, one row for each event, in the transaction of the event. It names fields and holds no values: those
 * stay in the event. Every index costs each write, so there is one besides the key: by action and by stream the log's own
 * indexes serve, and by time a search by halves in the key (see readAudit).
 */
class AuditLog1700000403000 implements MigrationInterface {
  name = 'AuditLog1700000403000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table audit_log (
         tenant_id uuid not null,
         position bigint not null,
         recorded_at timestamptz not null,
         actor text not null,
         action text not null,
         stream text not null,
         stream_version int not null,
         fields text[] not null,
         address text,
         primary key (tenant_id, position)
       )`,
      `create index audit_log_by_actor on audit_log (tenant_id, actor, action, position)`,
      ...tenantTable('audit_log', { app: 'select, insert', system: 'select, insert' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table audit_log');
  }
}

/**
 * The keys under which the log keeps what it knows about people, wrapped by a key that the database does not hold. A key that
 * was destroyed leaves its row, so that nobody waits for it; a subject that is written about again gets the next one.
 */
class SubjectKeys1700000404000 implements MigrationInterface {
  name = 'SubjectKeys1700000404000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table subject_keys (
         tenant_id uuid not null,
         subject text not null,
         generation int not null,
         wrapped bytea,
         wrapped_by text not null,
         created_at timestamptz not null default clock_timestamp(),
         destroyed_at timestamptz,
         primary key (tenant_id, subject, generation),
         check ((wrapped is null) = (destroyed_at is not null))
       )`,
      ...tenantTable('subject_keys', { app: 'select, insert', system: 'select, insert, update' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table subject_keys');
  }
}

/** States of long streams at some of their versions: they save reading, and may be emptied at any time. */
class StreamSnapshots1700000404500 implements MigrationInterface {
  name = 'StreamSnapshots1700000404500';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table stream_snapshots (
         tenant_id uuid not null,
         stream text not null,
         stream_version int not null,
         shape int not null,
         state jsonb not null,
         recorded_at timestamptz not null,
         primary key (tenant_id, stream, stream_version)
       )`,
      ...tenantTable('stream_snapshots', { app: 'select, insert', system: 'select, insert, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table stream_snapshots');
  }
}

/**
 * Requests may see how projections and their builds stand, and of which events dead letters are; not what errors said, nor who
 * asked for a build and why, as that may name other tenants' affairs. An answer about a time in the past has to know
 * whether the projection that gives it has got there (see progressAt).
 */
class ProjectionProgress1700000409000 implements MigrationInterface {
  name = 'ProjectionProgress1700000409000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `grant select (projection, build, version, tenant_id, mode, shards, state, hold_switch, allow_dead_letters, from_position,
         to_position, events_before, events_to_do, requested_at, started_at, ready_at, live_at, ended_at)
         on projection_builds to ${APP_ROLE}`,
      `create policy whole on projection_builds for select to ${APP_ROLE} using (tenant_id is null)`,
      `grant select (projection, build, shard, shards, state, position, events_total, errors_total, window_at, window_events,
         window_errors, events_per_s, errors_per_s, updated_at) on projection_checkpoints to ${APP_ROLE}`,
      `grant select (projection, build, shard, position, tenant_id, type, state) on projection_dead_letters to ${APP_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `drop policy whole on projection_builds`,
      `revoke select on projection_builds, projection_checkpoints, projection_dead_letters from ${APP_ROLE}`,
    ]);
  }
}

/**
 * The look-up of credentials tells what it has done in the transaction in which it did it (a session that was opened, a
 * refused password), before any tenant is set: so the system role may add to the log, as little able to change it as requests.
 */
class SystemAppends1700000410000 implements MigrationInterface {
  name = 'SystemAppends1700000410000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `grant insert on event_log to ${SYSTEM_ROLE}`,
      `grant insert, update on event_streams to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `revoke insert, update on event_streams from ${SYSTEM_ROLE}`,
      `revoke insert on event_log from ${SYSTEM_ROLE}`,
    ]);
  }
}

/**
 * Subjects that are to be erased, and what is left to do of it; see erasures.ts. Requests write it down and may look, the rest is the system role's.
 * It may also take from kept answers what a command said.
 */
class SubjectErasures1700000411000 implements MigrationInterface {
  name = 'SubjectErasures1700000411000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table subject_erasures (
         id uuid primary key,
         tenant_id uuid not null,
         subject text not null,
         subject_version int not null,
         key_generation int not null,
         requested_by text not null,
         requested_at timestamptz not null default clock_timestamp(),
         sought jsonb,
         log_erased_at timestamptz,
         completed_at timestamptz,
         attempts int not null default 0,
         next_attempt_at timestamptz not null default clock_timestamp(),
         last_error text,
         unique (tenant_id, subject, subject_version),
         check (completed_at is null or sought is null)
       )`,
      `create index subject_erasures_open on subject_erasures (next_attempt_at) where completed_at is null`,
      ...tenantTable('subject_erasures', { app: 'select, insert', system: 'select, update' }),
      `grant update (fingerprint) on command_answers to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `revoke update (fingerprint) on command_answers from ${SYSTEM_ROLE}`,
      'drop table subject_erasures',
    ]);
  }
}

/** The migrations of the tables this lib owns. */
export const eventStoreMigrations: readonly Migration[] = [
  EventLog1700000400000,
  EventChain1700000401000,
  CommandAnswers1700000402000,
  AuditLog1700000403000,
  SubjectKeys1700000404000,
  StreamSnapshots1700000404500,
  Projections1700000405000,
  ProjectionBuilds1700000405100,
  ProjectionProgress1700000409000,
  SystemAppends1700000410000,
  SubjectErasures1700000411000,
];
