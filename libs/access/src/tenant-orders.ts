import type { MigrationInterface, QueryRunner } from 'typeorm';
import type { EventCodec } from '@atomo-cc/event-store';
import {
  apiError,
  CodedError,
  DEFAULT_TENANT_ID,
  isCodedError,
  Rounds,
  sleep,
  type TenantId,
  uuidv7,
} from '@atomo-cc/kernel';
import {
  APP_ROLE,
  type AppDatabase,
  fateOf,
  runAll,
  type SystemDatabase,
  tenantTable,
  type Tx,
} from '@atomo-cc/platform/postgres';
import { type By, checkBy } from './access-log.js';
import { addAccount, hashAccount, type HashedAccount } from './accounts.js';
import { setLimit, settingOf } from './limits.js';
import type { Person } from './principal.js';
import {
  checkTenant,
  createTenant,
  type NewTenant,
  ofOpenTenant,
  planOf,
  setPlan,
  setSuspended,
  Tenant,
  type Transactions,
} from './tenants.js';
import { ADMIN_ROLE } from './users.js';

/** How often orders are looked for that nobody has told of: those of an instance that died before it came to them. */
const POLL_MS = 5_000;
/** How long who orders waits for the outcome; carrying one out takes some milliseconds where the database answers at all. */
const WAIT_MS = 10_000;
/** How often they look whether it is there. */
const LOOK_MS = 50;

/** What an Admin of the default tenant may order. Deleting is not among it: it cannot be undone, and asks for the slug typed. */
export type TenantWork =
  | {
      readonly action: 'create';
      readonly tenant: NewTenant;
      readonly admin: { readonly email: string; readonly name?: string | undefined; readonly password: string };
    }
  | { readonly action: 'suspend' | 'resume'; readonly tenant: TenantId }
  | { readonly action: 'plan'; readonly tenant: TenantId; readonly plan: string }
  | { readonly action: 'limit'; readonly tenant: TenantId; readonly setting: string };

/** As it is kept until it is carried out: checked, and without a password. */
type KeptWork =
  | Exclude<TenantWork, { readonly action: 'create' }>
  | { readonly action: 'create'; readonly tenant: NewTenant; readonly admin: HashedAccount };

/**
 * Requests write orders down and read how they ended, of the default tenant alone, and never what is in one. Its Admins see the list
 * of tenants.
 */
export class TenantOrders1700000290000 implements MigrationInterface {
  name = 'TenantOrders1700000290000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table tenant_orders (
         id uuid primary key,
         tenant_id uuid not null references tenants (id) check (tenant_id = '${DEFAULT_TENANT_ID}'),
         requested_by uuid not null,
         requested_at timestamptz not null default now(),
         request_id text,
         address text,
         reason text,
         work jsonb,
         settled_at timestamptz,
         subject uuid,
         error_code text,
         error_message text,
         check ((work is null) = (settled_at is not null)),
         check ((settled_at is not null) = (num_nonnulls(subject, error_code) = 1))
       )`,
      'create index tenant_orders_open on tenant_orders (id) where settled_at is null',
      ...tenantTable('tenant_orders', {
        app: 'select (id, tenant_id, settled_at, subject, error_code, error_message)', // never a hash, nor who is to be Admin
        system: 'select, update (work, settled_at, subject, error_code, error_message)',
      }),
      `grant insert (id, tenant_id, requested_by, request_id, address, reason, work) on tenant_orders to ${APP_ROLE}`,
      `create policy default_tenant_reads on tenants for select to ${APP_ROLE}
         using (nullif(current_setting('app.tenant_id', true), '')::uuid = '${DEFAULT_TENANT_ID}')`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runAll(runner, ['drop policy default_tenant_reads on tenants', 'drop table tenant_orders']);
  }
}

/** A page of all tenants by their ids, which is by their age; for the default tenant, whose requests alone see them. */
export function pageOfTenants(
  tx: Tx,
  page: { readonly after: string | null; readonly limit: number },
): Promise<Tenant[]> {
  const query = tx.repository(Tenant).createQueryBuilder('tenant').orderBy('tenant.id').limit(page.limit);
  return (page.after === null ? query : query.where('tenant.id > :after', { after: page.after })).getMany();
}

/** A tenant that the transaction's tenant may see; undefined when there is none of that id. */
export async function readTenant(tx: Tx, id: TenantId): Promise<Tenant | undefined> {
  return (await tx.repository(Tenant).findOneBy({ id })) ?? undefined;
}

/**
 * Writes down what a person orders, as a request may; a background part carries it out, because no request may change a tenant.
 * @returns the id of the order
 * @throws CodedError VALIDATION_ERROR
 */
export async function orderTenant(database: AppDatabase, person: Person, work: TenantWork, by: By): Promise<string> {
  const { requestId, address, reason } = checkBy(by);
  const kept = await checkWork(work);
  const id = uuidv7();
  await database.transaction(person.tenantId, (tx) =>
    tx.execute(
      `insert into tenant_orders (id, tenant_id, requested_by, request_id, address, reason, work)
       values ($1, $2, $3, $4, $5, $6, $7)`,
      [id, person.tenantId, person.userId, requestId, address, reason, JSON.stringify(kept)],
    ),
  );
  return id;
}

async function checkWork(work: TenantWork): Promise<KeptWork> {
  if (work.action === 'plan') planOf(work.plan);
  if (work.action === 'limit') settingOf(work.setting);
  if (work.action !== 'create') return work;
  const tenant = checkTenant(work.tenant);
  return { action: 'create', tenant, admin: await hashAccount({ ...work.admin, role: ADMIN_ROLE }) };
}

/**
 * Waits for the end of an order, some seconds.
 * @returns the tenant that it was about
 * @throws CodedError what it was refused with; RATE_LIMITED when it is still open, and will be carried out later
 */
export async function outcomeOf(
  database: AppDatabase,
  by: TenantId,
  id: string,
  waitMs: number = WAIT_MS,
): Promise<TenantId> {
  for (const end = performance.now() + waitMs; ;) {
    const [order] = await database.transaction(by, (tx) =>
      tx.query<{ subject: TenantId | null; code: string; message: string }>(
        'select subject, error_code as code, error_message as message from tenant_orders where id = $1 and settled_at is not null',
        [id],
      ),
    );
    if (order?.subject) return order.subject;
    if (order) throw new CodedError(order.code, order.message);
    if (performance.now() >= end) {
      throw apiError(
        'RATE_LIMITED',
        'The order is written down and will be carried out, but was not yet. Look at the tenants in a moment instead of sending it again.',
        { order: id, retryAfterSeconds: POLL_MS / 1_000 },
      );
    }
    await sleep(LOOK_MS);
  }
}

interface OrderRow extends Omit<By, 'actor'> {
  readonly id: string;
  readonly requestedBy: string;
  readonly work: KeptWork;
}

/** What orders are carried out with. */
export interface OrderSettings {
  readonly system: SystemDatabase;
  readonly codec: EventCodec;
  /** Told of each tenant whose log has something new. */
  readonly onAppended?: (tenant: TenantId) => void;
  /** Told of what is nobody's fault who orders. Its words may quote what was ordered. */
  readonly onError: (error: unknown) => void;
}

/**
 * Carries out orders about tenants with the rights of the system, one after the other, each in one transaction together with the
 * note that it is over, under the lock of its row: whatever dies leaves it as it was, and of several instances one does it, once.
 * Whoever ordered must then still be an Admin of the default tenant.
 */
export class TenantOrders {
  /** Woken by whoever has just ordered something; stops after the order that is under way. */
  readonly rounds: Rounds;

  constructor(private readonly settings: OrderSettings) {
    this.rounds = new Rounds(() => this.look(), POLL_MS, settings.onError);
  }

  /** Carries out all that nobody else is at. */
  async look(): Promise<void> {
    while (!this.rounds.isStopping && (await this.takeNext()));
  }

  /** @returns whether there was one */
  private async takeNext(): Promise<boolean> {
    const { system, onAppended, onError } = this.settings;
    const taken: OrderRow[] = [];
    try {
      const changed = await system.transaction(async (tx) => {
        const [order] = await tx.query<OrderRow>(
          `select id, requested_by as "requestedBy", request_id as "requestId", address, reason, work from tenant_orders
           where settled_at is null order by id limit 1 for update skip locked`,
        );
        if (!order) return null;
        taken.push(order);
        const tenant = await this.carryOut(tx, order);
        await tx.execute(
          'update tenant_orders set work = null, settled_at = clock_timestamp(), subject = $2 where id = $1',
          [order.id, tenant.id],
        );
        return tenant.id;
      });
      if (changed) onAppended?.(changed);
      return changed !== null;
    } catch (error) {
      const [order] = taken;
      // Of a connection that broke: the order stands as it did, or is over.
      if (!order || fateOf(error) !== null) throw error;
      if (!isCodedError(error)) onError(error);
      await this.refuse(order, error);
      return true;
    }
  }

  private async refuse({ id }: OrderRow, error: unknown): Promise<void> {
    const hidden = { code: 'INTERNAL_ERROR', message: `The order ${id} failed on our side; the log has why.` };
    const { code, message } = isCodedError(error) ? error : hidden;
    await this.settings.system.transaction((tx) =>
      tx.execute(
        `update tenant_orders set work = null, settled_at = clock_timestamp(), error_code = $2, error_message = $3
         where id = $1 and settled_at is null`,
        [id, code, message],
      ),
    );
  }

  private async carryOut(tx: Tx, { requestedBy, requestId, address, reason, work }: OrderRow): Promise<Tenant> {
    await requireStillAdmin(tx, requestedBy);
    const inside: Transactions = { transaction: (part) => part(tx) };
    const by: By = {
      actor: `user:${requestedBy}`,
      ...(requestId != null && { requestId }),
      ...(address != null && { address }),
      ...(reason != null && { reason }),
    };
    switch (work.action) {
      case 'create': {
        const tenant = await createTenant(inside, work.tenant, by);
        await addAccount(tx, this.settings.codec, tenant.id, work.admin, by);
        return tenant;
      }
      case 'suspend':
      case 'resume':
        if (work.tenant === DEFAULT_TENANT_ID && work.action === 'suspend')
          throw apiError(
            'CONFLICT',
            'The default tenant is the one that resumes the others. It cannot be suspended here.',
          );
        return setSuspended(inside, work.tenant, work.action === 'suspend', by);
      case 'plan':
        return setPlan(inside, work.tenant, work.plan, by);
      case 'limit':
        return setLimit(inside, work.tenant, work.setting, by);
    }
  }
}

/** Under a lock, so that who loses the role meanwhile does so before or after. @throws CodedError FORBIDDEN */
async function requireStillAdmin(tx: Tx, user: string): Promise<void> {
  const found = await tx.query(
    `select 1 from users where id = $1 and tenant_id = $2 and role = $3 and disabled_at is null and ${ofOpenTenant('users')}
     for share`,
    [user, DEFAULT_TENANT_ID, ADMIN_ROLE],
  );
  if (found.length === 0) throw apiError('FORBIDDEN', 'Whoever ordered this is no longer an Admin who may.');
}
