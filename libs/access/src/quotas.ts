import { apiError, type CodedError, type TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { type Limit, limitsOf } from './limits.js';
import { type CountedQuota, isMonthly, type Plan, QUOTA_NAMES, type QuotaName, QUOTAS } from './plans.js';
import { ledgerStanding, windowOf } from './quota-ledger.js';

/** How a tenant stands with something that plans limit. */
export interface Standing extends Limit {
  readonly quota: QuotaName;
  /** Null of a rate, of which nothing is kept. */
  readonly used: number | null;
  /** Set aside for work that is under way. */
  readonly reserved: number;
  /** When all of it is free again; null of what is counted and does not come back by itself. */
  readonly renewsAt: Date | null;
}

/**
 * Makes sure that there is room for one more, and that nobody else takes it until the caller's transaction ends: those who count
 * the same wait for each other.
 * @param at tokens that have run out by then do not count
 * @throws CodedError CONFLICT naming quota, limit and how many there are
 */
export async function requireRoom(tx: Tx, tenant: TenantId, quota: CountedQuota, at = new Date()): Promise<void> {
  await tx.query(`select pg_advisory_xact_lock(hashtextextended('quota ' || $1 || ' ' || $2, 0))`, [quota, tenant]);
  const { plan, of } = await limitsOf(tx, tenant);
  const { limit } = of(quota);
  if (limit === null) return;
  const used = await COUNTS[quota](tx, tenant, at);
  if (used >= limit) throw noRoom(plan, { quota, limit, used });
}

function noRoom(plan: Plan, { quota, limit, used }: Pick<Standing, 'quota' | 'limit' | 'used'>): CodedError {
  const { unit } = QUOTAS[quota];
  return apiError(
    'CONFLICT',
    `There may be ${limit} ${unit} (plan ${plan}), and there are ${used}. Remove some, or ask whoever runs Atomo for more.`,
    { quota, limit, used },
  );
}

/** Counts what there is of a tenant, under the rights of an application or of the system. */
const COUNTS: Readonly<Record<CountedQuota, (tx: Tx, tenant: TenantId, at: Date) => Promise<number>>> = {
  users: (tx, tenant) => countOf(tx, 'from users where tenant_id = $1', [tenant]),
  apiTokens: (tx, tenant, at) =>
    countOf(
      tx,
      'from api_tokens where tenant_id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)',
      [tenant, at],
    ),
};

async function countOf(tx: Tx, from: string, parameters: readonly unknown[]): Promise<number> {
  const [row] = await tx.query<{ count: number }>(`select count(*)::int as count ${from}`, parameters);
  return row!.count;
}

/** How a tenant stands with everything that plans limit. @throws CodedError NOT_FOUND */
export async function standingsOf(
  tx: Tx,
  tenant: TenantId,
  now: Date = new Date(),
): Promise<{ readonly plan: Plan; readonly standings: readonly Standing[] }> {
  const { plan, of } = await limitsOf(tx, tenant);
  const standings: Standing[] = [];
  for (const quota of QUOTA_NAMES) {
    standings.push({ quota, ...of(quota), ...(await useOf(tx, tenant, quota, now)) });
  }
  return { plan, standings };
}

async function useOf(
  tx: Tx,
  tenant: TenantId,
  quota: QuotaName,
  now: Date,
): Promise<Pick<Standing, 'used' | 'reserved' | 'renewsAt'>> {
  if (isMonthly(quota)) {
    const { start, end } = windowOf(now);
    return { ...(await ledgerStanding(tx, tenant, quota, start)), renewsAt: end };
  }
  const used = isCounted(quota) ? await COUNTS[quota](tx, tenant, now) : null;
  return { used, reserved: 0, renewsAt: null };
}

function isCounted(quota: QuotaName): quota is CountedQuota {
  return Object.hasOwn(COUNTS, quota);
}
