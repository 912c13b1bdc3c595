import type { MigrationInterface, QueryRunner } from 'typeorm';
import { apiError, CodedError, type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { type AppDatabase, runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import { isMonthly, type MonthlyQuota, QUOTAS } from './plans.js';
import { limitsOf } from './limits.js';

/** What the ledger answers where it cannot do what was asked for. */
export const QUOTA_ERRORS = {
  QUOTA_RESERVATION_LOST:
    'The reservation was settled, has expired, holds less than that, or is another tenant’s. Undo the work, reserve again, repeat.',
} as const;

/** Characters of a key: the id of a job and a place in it, with room. */
const LONGEST_KEY = 200;
/** How long a receipt is kept. Work that failed is repeated within minutes, and work that waited for its quota within a month. */
const RECEIPT_DAYS = 62;
/** Expired reservations released in one transaction, so that it stays short. */
const RELEASED_AT_A_TIME = 1_000;

/**
 * The ledger's tables. A balance counts what is settled and what is set aside: `reserved` is the sum of the amounts of all
 * reservations of its window, and `used` what those consumed that are gone. What an open reservation has consumed stands in its own
 * row until then, so that whoever consumes locks nothing that others of the tenant wait for.
 */
export class QuotaLedger1700000280000 implements MigrationInterface {
  name = 'QuotaLedger1700000280000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table quota_balances (
         tenant_id uuid not null,
         quota text not null,
         window_start timestamptz not null,
         used bigint not null default 0 check (used >= 0),
         reserved bigint not null default 0 check (reserved >= 0),
         primary key (tenant_id, quota, window_start)
       )`,
      ...tenantTable('quota_balances', { app: 'select, insert, update', system: 'select, update' }),
      `create table quota_reservations (
         id uuid primary key,
         tenant_id uuid not null,
         quota text not null,
         window_start timestamptz not null,
         key text not null,
         amount bigint not null check (amount >= consumed),
         consumed bigint not null default 0 check (consumed >= 0),
         ttl_ms bigint not null,
         expires_at timestamptz not null,
         unique (tenant_id, quota, window_start, key)
       )`,
      'create index quota_reservations_expiry on quota_reservations (expires_at)',
      ...tenantTable('quota_reservations', { app: 'select, insert, update, delete', system: 'select, update, delete' }),
      `create table quota_receipts (
         tenant_id uuid not null,
         quota text not null,
         key text not null,
         amount bigint not null,
         consumed_at timestamptz not null default clock_timestamp(),
         primary key (tenant_id, quota, key)
       )`,
      'create index quota_receipts_age on quota_receipts (consumed_at)',
      ...tenantTable('quota_receipts', { app: 'select, insert', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table quota_receipts, quota_reservations, quota_balances');
  }
}

/** A calendar month in UTC, within which a quota may be used up. */
export interface QuotaWindow {
  readonly start: Date;
  /** When the quota renews. */
  readonly end: Date;
}

/**
 * The window of a moment: a calendar month in UTC. Not the last thirty days, because a month has one row to count in, and one
 * moment at which all of it comes back, which a user can be told.
 */
export function windowOf(at: Date): QuotaWindow {
  const [year, month] = [at.getUTCFullYear(), at.getUTCMonth()];
  return { start: new Date(Date.UTC(year, month)), end: new Date(Date.UTC(year, month + 1)) };
}

/** A share of a quota that was set aside. */
export interface Reservation {
  readonly id: string;
  readonly tenant: TenantId;
  readonly quota: MonthlyQuota;
  /** How much of it could be consumed when it was answered. */
  readonly left: number;
}

/** Why nothing was set aside. */
export interface QuotaRefusal {
  readonly quota: MonthlyQuota;
  readonly limit: number;
  readonly used: number;
  readonly reserved: number;
  /** What nobody has used or reserved. */
  readonly left: number;
  readonly renewsAt: Date;
}

/** What is to be set aside. */
export interface Wanted {
  readonly quota: MonthlyQuota;
  /** Names the work: asked for again under the same key, the same reservation is answered, filled up to `amount`. */
  readonly key: string;
  readonly amount: number;
  /** Less than `amount`, and the least that is of use; `amount` unless given. */
  readonly least?: number;
  /** After this time without being consumed from it is released. */
  readonly ttlMs: number;
}

/**
 * Sets a share of this month's quota aside, so that what is begun can be finished: never more than the limit, whoever else reserves
 * at the same time. Takes a transaction of its own, because all reservations of a tenant wait for each other in it.
 * @throws CodedError VALIDATION_ERROR, NOT_FOUND (of the tenant)
 */
export async function reserve(
  database: AppDatabase,
  tenant: TenantId,
  wanted: Wanted,
  now: Date = new Date(),
): Promise<{ readonly reservation: Reservation } | { readonly refusal: QuotaRefusal }> {
  checkWanted(wanted);
  return database.transaction(tenant, (tx) => reserveIn(tx, tenant, wanted, windowOf(now)));
}

/**
 * Everybody locks reservations before balances; what is released on the way is skipped where somebody has it locked. So a new
 * reservation is there, empty, before the balance is touched: to add it behind might wait for one of the same key that is
 * being settled, which waits for the balance.
 */
async function reserveIn(
  tx: Tx,
  tenant: TenantId,
  { quota, key, amount, least = amount, ttlMs }: Wanted,
  { start, end }: QuotaWindow,
): Promise<{ reservation: Reservation } | { refusal: QuotaRefusal }> {
  const { limit } = (await limitsOf(tx, tenant)).of(quota);
  const balance = [tenant, quota, start] as const;
  await tx.execute(
    'insert into quota_balances (tenant_id, quota, window_start) values ($1, $2, $3) on conflict do nothing',
    balance,
  );
  // Alive from here on, or it could be released as expired below.
  const [held] = await tx.query<{ id: string; left: string }>(
    `insert into quota_reservations (id, tenant_id, quota, window_start, key, amount, ttl_ms, expires_at)
     values ($4, $1, $2, $3, $5, 0, $6::bigint, clock_timestamp() + $6::bigint * interval '1 millisecond')
     on conflict (tenant_id, quota, window_start, key) do update set ttl_ms = excluded.ttl_ms, expires_at = excluded.expires_at
     returning id, amount - consumed as left`,
    [...balance, uuidv7(), key, ttlMs],
  );
  const { id } = held!;
  const has = Number(held!.left);
  const more = Math.max(amount - has, 0);
  const taken = more === 0 ? 0 : await take(tx, balance, limit, more, Math.max(least - has, 0));
  if (typeof taken !== 'number') {
    await tx.execute('delete from quota_reservations where id = $1 and amount = 0', [id]);
    return { refusal: { ...taken, quota, renewsAt: end } };
  }
  await tx.execute('update quota_reservations set amount = amount + $2 where id = $1', [id, taken]);
  return { reservation: { id, tenant, quota, left: has + taken } };
}

/** Moves so much, or as much as there is if that is at least `least`, from what is free to what is reserved. */
async function take(
  tx: Tx,
  balance: readonly [TenantId, MonthlyQuota, Date],
  limit: number | null,
  more: number,
  least: number,
): Promise<number | Omit<QuotaRefusal, 'quota' | 'renewsAt'>> {
  // The one statement on which it rests that no limit is ever exceeded.
  const set = (amount: number) =>
    tx.execute(
      `update quota_balances set reserved = reserved + $4
       where tenant_id = $1 and quota = $2 and window_start = $3 and ($5::bigint is null or used + reserved + $4 <= $5)`,
      [...balance, amount, limit],
    );
  for (let isLast = false; ; isLast = true) {
    if ((await set(more)) === 1) return more;
    const standing = await standingIn(tx, balance, limit!);
    if (standing.left > 0 && standing.left >= least) {
      await set(standing.left);
      return standing.left;
    }
    if (least === 0) return 0;
    if (isLast || (await release(tx, balance)) === 0) return standing;
  }
}

/** How much is used, reserved and left; until the end of the transaction nobody changes what is left. */
async function standingIn(tx: Tx, balance: readonly [TenantId, MonthlyQuota, Date], limit: number) {
  await tx.query(
    'select 1 from quota_balances where tenant_id = $1 and quota = $2 and window_start = $3 for update',
    balance,
  );
  const { used, reserved } = await ledgerStanding(tx, ...balance);
  return { limit, used, reserved, left: Math.max(limit - used - reserved, 0) };
}

/** What is used in the window that begins at `start`, and what is reserved beside it. */
export async function ledgerStanding(
  tx: Tx,
  tenant: TenantId,
  quota: MonthlyQuota,
  start: Date,
): Promise<{ readonly used: number; readonly reserved: number }> {
  const [row] = await tx.query<{ used: string; reserved: string }>(
    `select b.used + r.consumed as used, b.reserved - r.consumed as reserved from quota_balances b,
       (select coalesce(sum(consumed), 0) as consumed from quota_reservations
        where tenant_id = $1 and quota = $2 and window_start = $3) r
     where b.tenant_id = $1 and b.quota = $2 and b.window_start = $3`,
    [tenant, quota, start],
  );
  return { used: Number(row?.used ?? 0), reserved: Number(row?.reserved ?? 0) };
}

/**
 * Counts what was done, in the transaction that did it, so that both hold or neither. It keeps the reservation alive, too.
 * @param key of this piece of work: the same a second time counts nothing, whatever the reservation
 * @returns whether it was counted now
 * @throws CodedError QUOTA_RESERVATION_LOST: the transaction is to be rolled back; VALIDATION_ERROR
 */
export async function consume(
  tx: Tx,
  { id, tenant, quota }: Reservation,
  amount: number,
  key: string,
): Promise<boolean> {
  checkAmount('amount', amount, 0);
  checkKey(key);
  const [done] = await tx.query<{ fresh: boolean; taken: boolean }>(
    `with receipt as (
       insert into quota_receipts (tenant_id, quota, key, amount) values ($1, $2, $3, $4) on conflict do nothing returning 1
     ), taken as (
       update quota_reservations set consumed = consumed + $4, expires_at = clock_timestamp() + ttl_ms * interval '1 millisecond'
       where id = $5 and tenant_id = $1 and quota = $2 and consumed + $4 <= amount and exists (select from receipt) returning 1
     )
     select exists (select from receipt) as fresh, exists (select from taken) as taken`,
    [tenant, quota, key, amount, id],
  );
  if (done!.fresh && !done!.taken) {
    throw new CodedError(
      'QUOTA_RESERVATION_LOST',
      `A reservation of ${quota} does not hold any more. Nothing was counted.`,
      {
        quota,
      },
    );
  }
  return done!.fresh;
}

const GIVE_BACK = `
  update quota_balances b set reserved = b.reserved - s.amount, used = b.used + s.consumed
  from (select tenant_id, quota, window_start, sum(amount) as amount, sum(consumed) as consumed from gone group by 1, 2, 3) s
  where (b.tenant_id, b.quota, b.window_start) = (s.tenant_id, s.quota, s.window_start)`;

/** Ends a reservation: what was consumed stays used, the rest is free again. One that is over already stays so. */
export async function settle(database: AppDatabase, { id, tenant }: Reservation): Promise<void> {
  await database.transaction(tenant, (tx) =>
    tx.execute(`with gone as (delete from quota_reservations where id = $1 returning *) ${GIVE_BACK}`, [id]),
  );
}

/** Settles expired reservations of one balance, or of all tenants under the system role; answers how many. */
async function release(tx: Tx, balance?: readonly [TenantId, MonthlyQuota, Date]): Promise<number> {
  const of = balance ? 'and tenant_id = $1 and quota = $2 and window_start = $3' : '';
  const [gone] = await tx.query<{ count: number }>(
    `with gone as (
       delete from quota_reservations where id in (
         select id from quota_reservations where expires_at < clock_timestamp() ${of}
         order by id limit ${RELEASED_AT_A_TIME} for update skip locked
       ) returning *
     ), back as (${GIVE_BACK})
     select count(*)::int as count from gone`,
    balance ?? [],
  );
  return gone!.count;
}

/** Settles what workers that died have left reserved, and forgets old receipts. Needs the system role; answers how many were settled. */
export async function releaseExpired(tx: Tx): Promise<number> {
  await tx.execute(`delete from quota_receipts where consumed_at < now() - interval '${RECEIPT_DAYS} days'`);
  return release(tx);
}

/**
 * Of tenants and quotas those where something is left this month: for work that waits for it. Tenants that are shut out have nothing.
 * Needs the system role.
 */
export async function withRoom<Asked extends { readonly tenant: string; readonly quota: string }>(
  tx: Tx,
  asked: readonly Asked[],
  now: Date = new Date(),
): Promise<Asked[]> {
  const limits = Object.fromEntries(Object.entries(QUOTAS).map(([name, quota]) => [name, quota.limits]));
  const rows = await tx.query<{ place: number }>(
    `select a.place::int from unnest($1::uuid[], $2::text[]) with ordinality as a (tenant_id, quota, place)
     join tenants t on t.id = a.tenant_id and t.suspended_at is null
     left join tenant_limits l on l.tenant_id = t.id and l.quota = a.quota
     left join quota_balances b on b.tenant_id = t.id and b.quota = a.quota and b.window_start = $3
     cross join lateral (select case when l.tenant_id is null then ($4::jsonb -> a.quota ->> t.plan)::bigint else l.amount end as amount) limited
     where limited.amount is null or limited.amount > coalesce(b.used + b.reserved, 0)`,
    [asked.map(({ tenant }) => tenant), asked.map(({ quota }) => quota), windowOf(now).start, JSON.stringify(limits)],
  );
  return rows.map(({ place }) => asked[place - 1]!);
}

function checkWanted({ quota, key, amount, least = amount, ttlMs }: Wanted): void {
  if (!isMonthly(quota))
    throw apiError('VALIDATION_ERROR', `There is no quota ${JSON.stringify(quota)} to reserve from.`);
  checkKey(key);
  checkAmount('amount', amount, 1);
  checkAmount('least', least, 0);
  checkAmount('ttlMs', ttlMs, 1);
  if (least > amount) throw apiError('VALIDATION_ERROR', 'The least that is of use cannot be more than the amount.');
}

function checkKey(key: string): void {
  if (key !== '' && key.length <= LONGEST_KEY && !key.includes('\0')) return;
  throw apiError('VALIDATION_ERROR', `A key has 1 to ${LONGEST_KEY} characters.`, { field: 'key' });
}

function checkAmount(field: string, amount: number, from: number): void {
  if (Number.isSafeInteger(amount) && amount >= from) return;
  throw apiError('VALIDATION_ERROR', `${field} is a whole number from ${from} on.`, { field });
}
