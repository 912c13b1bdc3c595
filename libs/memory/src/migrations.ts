import type { MigrationInterface, QueryRunner } from 'typeorm';
import { runAll, tenantTable, type Migration } from '@atomo-cc/platform/postgres';

const ROWS = 'select, insert, update, delete';

/**
 * Records, graph and index queue. Ids are made by the code (ids.ts), never by the database. Columns that only order or
 * compare are collated "C": the same on every machine, and cheap.
 */
export class Memory1700000100001 implements MigrationInterface {
  name = 'Memory1700000100001';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table memory_records (
         id uuid primary key,
         tenant_id uuid not null,
         kind text not null check (kind in ('message')),
         source text not null,
         message_id text collate "C" not null,
         subject text not null,
         text text not null,
         truncated boolean not null,
         author_name text,
         author_address text not null,
         recipients jsonb not null,
         attachments jsonb not null,
         list_address text,
         sent_at timestamptz not null,
         content_hash text not null,
         content_hashes text[] not null,
         in_reply_to text collate "C",
         reference_ids text[] not null,
         thread_id uuid,
         first_job_id text not null,
         created_at timestamptz not null default now(),
         updated_at timestamptz not null default now()
       )`,
      `create index memory_records_message on memory_records (tenant_id, message_id)`,
      `create index memory_records_parent on memory_records (tenant_id, in_reply_to) where in_reply_to is not null`,
      `create index memory_records_thread on memory_records (tenant_id, thread_id, sent_at, id)`,
      ...tenantTable('memory_records', { app: ROWS, system: ROWS }),

      // name_rank says which of several names wins whatever the order of arrival; see graph.ts.
      `create table graph_nodes (
         id uuid primary key,
         tenant_id uuid not null,
         type text not null check (type in ('message', 'person', 'address', 'thread')),
         key text collate "C" not null,
         name text collate "C" not null,
         name_rank text collate "C" not null,
         properties jsonb not null default '{}',
         created_at timestamptz not null default now(),
         updated_at timestamptz not null default now(),
         unique (tenant_id, type, key)
       )`,
      `create index graph_nodes_name on graph_nodes (tenant_id, name, id)`,
      `create index graph_nodes_type_name on graph_nodes (tenant_id, type, name, id)`,
      ...tenantTable('graph_nodes', { app: ROWS, system: ROWS }),

      // The words of people's names, so that a person named in a query is found by equality: under row-level security
      // Postgres uses no text-search or trigram index, because their operators are not leakproof.
      `create table graph_person_words (
         tenant_id uuid not null,
         word text collate "C" not null,
         node_id uuid not null references graph_nodes (id) on delete cascade,
         primary key (tenant_id, word, node_id)
       )`,
      `create index graph_person_words_node on graph_person_words (node_id)`,
      ...tenantTable('graph_person_words', { app: ROWS, system: ROWS }),

      // valid_at / invalid_at: when it held in the world. recorded_at / expired_at: when we believed it.
      `create table graph_edges (
         id uuid primary key,
         tenant_id uuid not null,
         type text not null check (type in ('sent', 'uses', 'addressed', 'replied_to', 'in_thread')),
         source_id uuid not null references graph_nodes (id) on delete cascade,
         target_id uuid not null references graph_nodes (id) on delete cascade,
         valid_at timestamptz not null,
         invalid_at timestamptz,
         recorded_at timestamptz not null default now(),
         expired_at timestamptz,
         properties jsonb not null default '{}'
       )`,
      `create index graph_edges_source on graph_edges (source_id, valid_at, id)`,
      `create index graph_edges_target on graph_edges (target_id, valid_at, id)`,
      ...tenantTable('graph_edges', { app: ROWS, system: ROWS }),

      `create table graph_edge_evidence (
         tenant_id uuid not null,
         edge_id uuid not null references graph_edges (id) on delete cascade,
         record_id uuid not null references memory_records (id) on delete cascade,
         primary key (edge_id, record_id)
       )`,
      `create index graph_edge_evidence_record on graph_edge_evidence (record_id)`,
      ...tenantTable('graph_edge_evidence', { app: ROWS, system: ROWS }),

      // position grows with every queueing: the indexer deletes only the positions it read, so a record that changed
      // while its old text was being embedded stays queued.
      `create table memory_index_queue (
         record_id uuid primary key references memory_records (id) on delete cascade,
         tenant_id uuid not null,
         position bigint generated always as identity
       )`,
      `create index memory_index_queue_next on memory_index_queue (tenant_id, position)`,
      ...tenantTable('memory_index_queue', { app: ROWS, system: ROWS }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(
      `drop table memory_index_queue, graph_edge_evidence, graph_edges, graph_person_words, graph_nodes, memory_records`,
    );
  }
}

/** Who was forgotten, by the id that their node would have, so that mail of before does not bring them back. */
class MemoryForgotten1700000100002 implements MigrationInterface {
  name = 'MemoryForgotten1700000100002';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table memory_forgotten (
         tenant_id uuid not null,
         person uuid not null,
         until timestamptz not null,
         primary key (tenant_id, person)
       )`,
      ...tenantTable('memory_forgotten', { app: 'select, insert, update', system: 'select' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table memory_forgotten');
  }
}

/** The migrations of memory's tables, in order. */
export const memoryMigrations: Migration[] = [Memory1700000100001, MemoryForgotten1700000100002];
