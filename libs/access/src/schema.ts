import type { MigrationInterface, QueryRunner } from 'typeorm';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { APP_ROLE, type Migration, runAll, SYSTEM_ROLE, tenantTable } from '@atomo-cc/platform/postgres';
import { ApiKeys1700000200001, ApiKeyScopes1700000200002 } from './api-keys.js';
import { ApiTokens1700000240000 } from './api-tokens.js';
import { Session } from './credentials.js';
import { TenantLimits1700000260000 } from './limits.js';
import { QuotaLedger1700000280000 } from './quota-ledger.js';
import { TenantSecrets1700000270000 } from './secrets.js';
import { TenantOrders1700000290000 } from './tenant-orders.js';
import { Tenant } from './tenants.js';
import { User } from './users.js';

/** Tenants, users and sessions. */
export class Access1700000200000 implements MigrationInterface {
  name = 'Access1700000200000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table tenants (
         id uuid primary key,
         tenant_id uuid not null generated always as (id) stored,
         name text not null,
         slug text not null unique check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
         created_at timestamptz not null default now()
       )`,
      // Before row-level security is forced: from then on the owner sees and writes nothing here either.
      `insert into tenants (id, name, slug) values ('${DEFAULT_TENANT_ID}', 'Default', 'default')`,
      ...tenantTable('tenants', { app: 'select', system: 'select' }),

      `create table users (
         id uuid primary key,
         tenant_id uuid not null references tenants (id),
         email text not null unique check (email = lower(email)),
         name text not null,
         password_hash text not null,
         role text not null check (role <> ''),
         created_at timestamptz not null default now(),
         disabled_at timestamptz,
         unique (tenant_id, id)
       )`,
      ...tenantTable('users', {
        app: 'select (id, tenant_id, email, name, role, created_at, disabled_at)', // never the hash of a password
        system: 'select, insert',
      }),

      // The pair of columns keeps a session in its user's tenant. Only credential look-up touches sessions: no grant to the app.
      `create table sessions (
         id uuid primary key,
         tenant_id uuid not null,
         user_id uuid not null,
         family_hash text not null unique,
         refresh_hash text not null,
         created_at timestamptz not null default now(),
         refreshed_at timestamptz not null default now(),
         expires_at timestamptz not null,
         revoked_at timestamptz,
         address text,
         user_agent text,
         foreign key (tenant_id, user_id) references users (tenant_id, id) on delete cascade
       )`,
      'create index sessions_user on sessions (user_id, expires_at)',
      ...tenantTable('sessions', { app: '', system: 'select, insert, update, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table sessions, users, tenants');
  }
}

/** A login makes an outdated hash anew, and people choose other passwords: both before or beside any tenant's transaction. */
class PasswordChanges1700000210000 implements MigrationInterface {
  name = 'PasswordChanges1700000210000';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query(`grant update (password_hash) on users to ${SYSTEM_ROLE}`);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query(`revoke update (password_hash) on users from ${SYSTEM_ROLE}`);
  }
}

/** Requests of an Admin manage the users of their tenant, and end sessions; hashes they may write and never read. */
class ManagedUsers1700000220000 implements MigrationInterface {
  name = 'ManagedUsers1700000220000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `grant insert, delete, update (name, role, password_hash, disabled_at) on users to ${APP_ROLE}`,
      `grant select (id, user_id, expires_at, revoked_at), update (revoked_at) on sessions to ${APP_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `revoke select (id, user_id, expires_at, revoked_at), update (revoked_at) on sessions from ${APP_ROLE}`,
      `revoke insert, delete, update (name, role, password_hash, disabled_at) on users from ${APP_ROLE}`,
    ]);
  }
}

/** The plan of a tenant, and whether its people get in. */
class TenantLife1700000230000 implements MigrationInterface {
  name = 'TenantLife1700000230000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `alter table tenants
         add column plan text not null default 'enterprise' check (plan in ('free', 'solo', 'team', 'enterprise')),
         add column suspended_at timestamptz,
         add column deleting_at timestamptz,
         add check (deleting_at is null or suspended_at is not null)`,
      `alter table tenants alter column plan set default 'free'`,
      `grant insert, update (plan, suspended_at, deleting_at) on tenants to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `revoke insert, update (plan, suspended_at, deleting_at) on tenants from ${SYSTEM_ROLE}`,
      'alter table tenants drop column deleting_at, drop column suspended_at, drop column plan',
    ]);
  }
}

/** All tables of this package, in order. */
export const accessMigrations: Migration[] = [
  Access1700000200000,
  ApiKeys1700000200001,
  ApiKeyScopes1700000200002,
  PasswordChanges1700000210000,
  ManagedUsers1700000220000,
  TenantLife1700000230000,
  ApiTokens1700000240000,
  TenantLimits1700000260000,
  TenantSecrets1700000270000,
  QuotaLedger1700000280000,
  TenantOrders1700000290000,
];

/** The entities of this package: a process that uses `Sessions` or `findUser` opens its databases with them. */
export const accessEntities = [User, Session, Tenant] as const;
