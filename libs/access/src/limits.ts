import type { MigrationInterface, QueryRunner } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError, type TenantId } from '@atomo-cc/kernel';
import { runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { type By, recordAccess } from './access-log.js';
import { isQuota, type Plan, QUOTA_NAMES, type QuotaName, QUOTAS } from './plans.js';
import { changeTenant, type Tenant, type Transactions } from './tenants.js';

/** The word that takes an operator's limit back. */
const AS_THE_PLAN = 'plan';
/** The word for no limit. */
const NO_LIMIT = 'none';

/** Limits that an operator has set for a tenant; where there is none, that of its plan holds. */
export class TenantLimits1700000260000 implements MigrationInterface {
  name = 'TenantLimits1700000260000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table tenant_limits (
         tenant_id uuid not null references tenants (id) on delete cascade,
         quota text not null,
         amount bigint check (amount >= 0),
         primary key (tenant_id, quota)
       )`,
      ...tenantTable('tenant_limits', { app: 'select', system: 'select, insert, update, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table tenant_limits');
  }
}

/** A limit that holds for a tenant. */
export interface Limit {
  /** Null: no limit. */
  readonly limit: number | null;
  /** Whether an operator has set it for this tenant, whatever its plan says. */
  readonly isOwn: boolean;
}

/** The limits that hold for a tenant, asked for anew each time, so that another plan holds at once. @throws CodedError NOT_FOUND */
export async function limitsOf(
  tx: Tx,
  tenant: TenantId,
): Promise<{ readonly plan: Plan; readonly of: (quota: QuotaName) => Limit }> {
  const rows = await tx.query<{ plan: Plan; quota: string | null; amount: string | null }>(
    `select t.plan, l.quota, l.amount from tenants t left join tenant_limits l on l.tenant_id = t.id where t.id = $1`,
    [tenant],
  );
  const [first] = rows;
  if (!first) throw apiError('NOT_FOUND', 'There is no such tenant.');
  return {
    plan: first.plan,
    of: (quota) => {
      const own = rows.find((row) => row.quota === quota);
      if (!own) return { limit: QUOTAS[quota].limits[first.plan], isOwn: false };
      return { limit: own.amount === null ? null : Number(own.amount), isOwn: true };
    },
  };
}

/**
 * Sets a limit for one tenant, whatever its plan says. What is beyond a lower one stays; nothing is added to it.
 * @param setting `users=40`; `users=none` for no limit, `users=plan` for that of the plan again
 * @throws CodedError NOT_FOUND, VALIDATION_ERROR
 */
export async function setLimit(system: Transactions, which: string, setting: string, by: By): Promise<Tenant> {
  const { quota, amount } = settingOf(setting);
  return changeTenant(system, which, async (tx, tenant) => {
    const before = (await limitsOf(tx, tenant.id)).of(quota);
    if (amount === undefined) {
      await tx.execute('delete from tenant_limits where tenant_id = $1 and quota = $2', [tenant.id, quota]);
    } else {
      await tx.execute(
        `insert into tenant_limits (tenant_id, quota, amount) values ($1, $2, $3)
         on conflict (tenant_id, quota) do update set amount = excluded.amount`,
        [tenant.id, quota, amount],
      );
    }
    const { limit, isOwn } = (await limitsOf(tx, tenant.id)).of(quota);
    if (limit === before.limit && isOwn === before.isOwn) return;
    const event = accessEvent('tenantLimitChanged', { quota, limit, isOwn });
    await recordAccess(tx, tenant.id, accessStream('tenant', tenant.id), event, by);
  });
}

/** @returns amount: null is no limit, undefined that of the plan @throws CodedError VALIDATION_ERROR */
export function settingOf(setting: string): { quota: QuotaName; amount: number | null | undefined } {
  const [quota = '', value = '', ...rest] = setting.split('=');
  if (!isQuota(quota) || rest.length > 0) {
    throw apiError(
      'VALIDATION_ERROR',
      `${JSON.stringify(setting)} is no limit, such as users=40. There are ${QUOTA_NAMES.join(', ')}.`,
      { field: 'limit' },
    );
  }
  if (value === AS_THE_PLAN) return { quota, amount: undefined };
  if (value === NO_LIMIT) return { quota, amount: null };
  const amount = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(amount)) return { quota, amount };
  throw apiError(
    'VALIDATION_ERROR',
    `${quota} is a whole number from 0 on, "${NO_LIMIT}" for no limit, or "${AS_THE_PLAN}" for that of the plan.`,
    { field: 'limit' },
  );
}
