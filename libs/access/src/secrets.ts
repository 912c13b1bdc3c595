import { createSecretKey, randomBytes } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError, type Clock, CodedError, systemClock, type TenantId } from '@atomo-cc/kernel';
import {
  KEY_BYTES,
  type KeyRing,
  open,
  seal,
  SEALED_DATA_ERRORS,
  type WrappedKey,
} from '@atomo-cc/platform/encryption';
import { type AppDatabase, runAll, type SystemDatabase, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { type By, checkBy, recordAccess } from './access-log.js';
import { ofOpenTenant } from './tenants.js';

/**
 * What a secret may be for. `openai` is the key of an OpenAI-compatible endpoint, the others are what a provider gave to whoever
 * connected: a token, or JSON with several.
 */
export const SECRET_KINDS = ['google', 'microsoft-graph', 'openai', 'slack'] as const;

/** `slack` is the tenant's own, `slack/team-a` one of several; the table's check says the same. */
const NAME = /^([a-z-]+)(?:\/[a-z0-9][a-z0-9-]{0,62})?$/;
/** Of a value, in UTF-16 units: the keys of a service account, or tokens of a provider, are a few thousand. */
const LONGEST_VALUE = 16_384;
/** Characters that a list shows, to tell values apart by … */
const HINT_CHARACTERS = 4;
/** … and from which length on: of a shorter value they would be too large a part. */
const SHORTEST_HINTED = 16;
/** Secrets of a tenant: one for each of its connections, and some. */
const MOST_SECRETS = 1_000;
/** `used_at` is true to this many seconds, so that a busy worker does not rewrite the row with every call. */
const USED_SECONDS = 60;
/** Secrets that are wrapped anew in one transaction, for which their rows are locked. */
const SECRETS_PER_REWRAP = 500;

/** A secret as an Admin sees it. Its value is told to nobody. */
export interface Secret {
  readonly name: string;
  /** What it is for. */
  readonly kind: string;
  /** The last characters of the value; null for a short one. */
  readonly hint: string | null;
  /** Who set it last, as in events. */
  readonly setBy: string;
  readonly createdAt: Date;
  /** When it was last set. */
  readonly updatedAt: Date;
  /** When a worker last used the value that is set now; true to the minute. */
  readonly usedAt: Date | null;
}

/** The table of secrets. The role that serves requests may write values and never read them. */
export class TenantSecrets1700000270000 implements MigrationInterface {
  name = 'TenantSecrets1700000270000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table tenant_secrets (
         tenant_id uuid not null references tenants (id) on delete cascade,
         name text not null check (name ~ '^[a-z-]+(/[a-z0-9][a-z0-9-]{0,62})?$'),
         wrapped bytea not null,
         wrapped_by text not null,
         sealed bytea not null,
         hint text,
         set_by text not null,
         created_at timestamptz not null,
         updated_at timestamptz not null,
         used_at timestamptz,
         primary key (tenant_id, name)
       )`,
      ...tenantTable('tenant_secrets', {
        app: `select (tenant_id, name, hint, set_by, created_at, updated_at, used_at), insert, delete,
              update (wrapped, wrapped_by, sealed, hint, set_by, updated_at, used_at)`,
        system: 'select, update (wrapped, wrapped_by, used_at)',
      }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table tenant_secrets');
  }
}

interface SecretRow {
  readonly name: string;
  readonly hint: string | null;
  readonly set_by: string;
  readonly created_at: Date;
  readonly updated_at: Date;
  readonly used_at: Date | null;
}

interface StoredSecret extends WrappedKey {
  readonly tenant_id: TenantId;
  readonly name: string;
}

const COLUMNS = 'name, hint, set_by, created_at, updated_at, used_at';

/**
 * Secrets of tenants: tokens of providers, keys of endpoints. Each value is sealed (AES-256-GCM) under a key of its own, which is
 * made with it and stored wrapped under the ring's. Both are bound to tenant and name: in another row they do not open.
 */
export class Secrets {
  constructor(
    private readonly ring: KeyRing,
    private readonly clock: Clock = systemClock,
  ) {}

  /**
   * Sets a secret, in place of the one of this name if there is one. The log says that it was done, and nothing of the value.
   * @throws CodedError VALIDATION_ERROR; CONFLICT when there are too many
   */
  async set(database: AppDatabase, tenant: TenantId, name: string, value: string, by: By): Promise<Secret> {
    checkName(name);
    checkValue(value);
    const reasoned = checkBy(by);
    const key = randomBytes(KEY_BYTES);
    const sealed = seal(createSecretKey(key), valueContext(tenant, name), value);
    const hint = value.length < SHORTEST_HINTED ? null : [...value].slice(-HINT_CHARACTERS).join('');
    return database.transaction(tenant, async (tx) => {
      const [others] = await tx.query<{ count: number }>(
        'select count(*)::int as count from tenant_secrets where name <> $1',
        [name],
      );
      if (others!.count >= MOST_SECRETS) {
        throw apiError('CONFLICT', `There are ${MOST_SECRETS} secrets already. Remove those that nobody uses.`);
      }
      const now = new Date(this.clock.now());
      await tx.execute(
        `insert into tenant_secrets (tenant_id, name, wrapped, wrapped_by, sealed, hint, set_by, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         on conflict (tenant_id, name) do update
         set wrapped = $3, wrapped_by = $4, sealed = $5, hint = $6, set_by = $7, updated_at = $8, used_at = null`,
        [tenant, name, this.ring.wrap(keyContext(tenant, name), key), this.ring.id, sealed, hint, by.actor, now],
      );
      await record(tx, tenant, 'secretSet', name, reasoned);
      const [row] = await tx.query<SecretRow>(`select ${COLUMNS} from tenant_secrets where name = $1`, [name]);
      return secretOf(row!);
    });
  }

  /** The secrets of a tenant by their names; never more than the 1,000 there can be. */
  async list(database: AppDatabase, tenant: TenantId): Promise<Secret[]> {
    const rows = await database.transaction(tenant, (tx) =>
      tx.query<SecretRow>(`select ${COLUMNS} from tenant_secrets order by name collate "C"`),
    );
    return rows.map(secretOf);
  }

  /** Removes a secret. False: there is none of this name. @throws CodedError VALIDATION_ERROR for a wrong reason */
  async remove(database: AppDatabase, tenant: TenantId, name: string, by: By): Promise<boolean> {
    const reasoned = checkBy(by);
    if (!NAME.test(name)) return false;
    return database.transaction(tenant, async (tx) => {
      if ((await tx.execute('delete from tenant_secrets where name = $1', [name])) === 0) return false;
      await record(tx, tenant, 'secretRemoved', name, reasoned);
      return true;
    });
  }

  /**
   * The value of a secret, for the worker that needs it at this moment: it is not to be kept, logged or sent to anyone but whom it
   * is for. Null when there is none, or the tenant is suspended.
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   */
  async open(system: SystemDatabase, tenant: TenantId, name: string): Promise<string | null> {
    return system.transaction(async (tx) => {
      const [row] = await tx.query<StoredSecret & { sealed: Buffer; used_at: Date | null }>(
        `select tenant_id, name, wrapped, wrapped_by, sealed, used_at from tenant_secrets
         where tenant_id = $1 and name = $2 and ${ofOpenTenant('tenant_secrets')}`,
        [tenant, name],
      );
      if (!row) return null;
      const value = open(this.unwrap(row), valueContext(tenant, name), row.sealed);
      if (!value) {
        throw new CodedError(
          'SEALED_DATA_BROKEN',
          `The secret ${name} of ${tenant} is not as it was written. ${SEALED_DATA_ERRORS.SEALED_DATA_BROKEN}`,
        );
      }
      const now = this.clock.now();
      if (row.used_at === null || now - row.used_at.getTime() > USED_SECONDS * 1000) {
        const used = 'update tenant_secrets set used_at = $3 where tenant_id = $1 and name = $2 and wrapped = $4';
        await tx.execute(used, [tenant, name, new Date(now), row.wrapped]);
      }
      return value.toString('utf8');
    });
  }

  /** Looks whether the secrets that are there can be opened, by one of them. @throws CodedError as `open` */
  async check(tx: Tx): Promise<void> {
    const [row] = await tx.query<StoredSecret>(
      'select tenant_id, name, wrapped, wrapped_by from tenant_secrets limit 1',
    );
    if (row) this.unwrap(row);
  }

  /** How many secrets there are under each key-encryption key, by its id. @param tx of the system role, here and in `check` */
  async counts(tx: Tx): Promise<{ readonly id: string; readonly secrets: number }[]> {
    return tx.query('select wrapped_by as id, count(*)::int as secrets from tenant_secrets group by 1 order by 1');
  }

  /**
   * Wraps the keys of all secrets that are under another key-encryption key under the one in use, while others set and open them.
   * After an interruption it is called again and goes on with those that are left.
   * @returns how many were wrapped anew
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN; what was wrapped until then stays so
   */
  async rewrap(system: SystemDatabase): Promise<number> {
    let total = 0;
    for (let some = -1; some !== 0; total += some) {
      some = await system.transaction(async (tx) => {
        const rows = await tx.query<StoredSecret>(
          `select tenant_id, name, wrapped, wrapped_by from tenant_secrets where wrapped_by <> $1
           order by tenant_id, name limit ${SECRETS_PER_REWRAP} for update`,
          [this.ring.id],
        );
        for (const row of rows) {
          const wrapped = this.ring.wrap(keyContext(row.tenant_id, row.name), this.unwrap(row).export());
          await tx.execute(
            'update tenant_secrets set wrapped = $3, wrapped_by = $4 where tenant_id = $1 and name = $2',
            [row.tenant_id, row.name, wrapped, this.ring.id],
          );
        }
        return rows.length;
      });
    }
    return total;
  }

  private unwrap(row: StoredSecret) {
    return this.ring.unwrap(keyContext(row.tenant_id, row.name), row, `key of the secret ${row.name}`);
  }
}

function checkName(name: string): void {
  const [, kind] = NAME.exec(name) ?? [];
  if (SECRET_KINDS.some((known) => known === kind)) return;
  throw apiError(
    'VALIDATION_ERROR',
    `The name of a secret is what it is for, one of ${SECRET_KINDS.join(', ')}, and where there are several a word of small letters, digits and hyphens behind it: slack/team-a.`,
    { field: 'name' },
  );
}

function checkValue(value: string): void {
  const fault =
    value === ''
      ? 'is empty'
      : value.length > LONGEST_VALUE
        ? `has more than ${LONGEST_VALUE} characters`
        : value !== value.trim()
          ? 'begins or ends with a space or a line break'
          : value.isWellFormed()
            ? null
            : 'has half a character';
  if (fault) throw apiError('VALIDATION_ERROR', `The value of the secret ${fault}.`, { field: 'value' });
}

function secretOf(row: SecretRow): Secret {
  const { name, hint, set_by: setBy, created_at: createdAt, updated_at: updatedAt, used_at: usedAt } = row;
  return { name, kind: name.split('/', 1)[0]!, hint, setBy, createdAt, updatedAt, usedAt };
}

function record(tx: Tx, tenant: TenantId, kind: 'secretSet' | 'secretRemoved', name: string, by: By): Promise<void> {
  return recordAccess(tx, tenant, accessStream('tenant', tenant), accessEvent(kind, { name }), by);
}

function keyContext(tenant: TenantId, name: string): readonly unknown[] {
  return ['atomo secret key', tenant, name];
}

function valueContext(tenant: TenantId, name: string): readonly unknown[] {
  return ['atomo secret', tenant, name];
}
