import { Column, Entity, PrimaryColumn } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError, DEFAULT_TENANT_ID, type TenantId, tenantId, uuidv7 } from '@atomo-cc/kernel';
import { type SystemDatabase, sqlState, type Tx } from '@atomo-cc/platform/postgres';
import { type By, recordAccess } from './access-log.js';
import { isPlan, type Plan, PLANS } from './plans.js';

/** A slug as it may stand in a URL; the table's check says the same. */
const SLUG = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const LONGEST_NAME = 200;

/** Whoever shares nothing with the others: every row belongs to one. */
@Entity('tenants')
export class Tenant {
  @PrimaryColumn('uuid')
  id!: TenantId;

  @Column('text')
  name!: string;

  /** A second, readable name; no other tenant has it. */
  @Column('text')
  slug!: string;

  @Column('text')
  plan!: Plan;

  @Column('timestamptz', { name: 'created_at' })
  createdAt!: Date;

  /** Since when nobody of it gets in; null while all is well. */
  @Column('timestamptz', { name: 'suspended_at', nullable: true })
  suspendedAt!: Date | null;

  /** When its deletion began: from then on it stays suspended until nothing is left. */
  @Column('timestamptz', { name: 'deleting_at', nullable: true })
  deletingAt!: Date | null;
}

/**
 * A condition that holds for rows whose tenant lets people and programs in: whoever looks up a credential asks it.
 * @param table what the row's `tenant_id` is a column of; never from outside
 */
export function ofOpenTenant(table: string): string {
  return `not exists (select 1 from tenants shut where shut.id = ${table}.tenant_id and shut.suspended_at is not null)`;
}

/** Whatever opens transactions of the system role: the database, or one transaction that all is to happen in. */
export type Transactions = Pick<SystemDatabase, 'transaction'>;

/** The tenants, oldest first. */
export function listTenants(system: SystemDatabase): Promise<Tenant[]> {
  return system.transaction((tx) => tx.repository(Tenant).find({ order: { createdAt: 'ASC', id: 'ASC' } }));
}

/** The tenant of an id or a slug. @throws CodedError NOT_FOUND */
export function findTenant(system: SystemDatabase, which: string): Promise<Tenant> {
  return system.transaction(async (tx) => requireTenant(await bySlugOrId(tx, which), which));
}

/** A tenant that is to be made; its slug follows from the name, and its plan is free, unless given. */
export interface NewTenant {
  readonly name: string;
  readonly slug?: string | undefined;
  readonly plan?: string | undefined;
}

/** What is to be written of a new tenant. @throws CodedError VALIDATION_ERROR */
export function checkTenant(wanted: NewTenant): { readonly name: string; readonly slug: string; readonly plan: Plan } {
  const name = wanted.name.trim();
  if (name === '' || name.length > LONGEST_NAME || /\p{C}/u.test(name)) {
    throw apiError(
      'VALIDATION_ERROR',
      `The name of a tenant has 1 to ${LONGEST_NAME} characters, no control characters.`,
    );
  }
  const slug = wanted.slug ?? slugOf(name);
  if (!SLUG.test(slug)) {
    throw apiError('VALIDATION_ERROR', `The slug ${JSON.stringify(slug)} is not one, such as acme-europe.`);
  }
  return { name, slug, plan: planOf(wanted.plan ?? 'free') };
}

/** Makes a tenant, which has no users yet. @throws CodedError VALIDATION_ERROR; CONFLICT when the slug is taken */
export async function createTenant(system: Transactions, wanted: NewTenant, by: By): Promise<Tenant> {
  const { name, slug, plan } = checkTenant(wanted);
  const id = tenantId(uuidv7());
  try {
    return await system.transaction(async (tx) => {
      await tx.execute('insert into tenants (id, name, slug, plan) values ($1, $2, $3, $4)', [id, name, slug, plan]);
      await recordAccess(tx, id, accessStream('tenant', id), accessEvent('tenantCreated', { name, slug, plan }), by);
      return requireTenant(await bySlugOrId(tx, id), id);
    });
  } catch (error) {
    if (sqlState(error) !== '23505') throw error;
    throw apiError('CONFLICT', `There is a tenant with the slug ${slug} already.`, { field: 'slug' });
  }
}

/**
 * Shuts everybody of a tenant out, or lets them in again: sessions, tokens and keys stop, and what they have open is cut, within
 * 5 s everywhere. What belongs to them stays as it is. One that is being deleted stays shut.
 * @throws CodedError NOT_FOUND, CONFLICT
 */
export async function setSuspended(system: Transactions, which: string, isSuspended: boolean, by: By): Promise<Tenant> {
  return changeTenant(system, which, async (tx, tenant) => {
    if (tenant.deletingAt) throw apiError('CONFLICT', `${tenant.slug} is being deleted: finish that.`);
    if ((tenant.suspendedAt !== null) === isSuspended) return;
    await tx.execute(`update tenants set suspended_at = case when $2 then clock_timestamp() end where id = $1`, [
      tenant.id,
      isSuspended,
    ]);
    const event = accessEvent(isSuspended ? 'tenantSuspended' : 'tenantResumed', {});
    await recordAccess(tx, tenant.id, accessStream('tenant', tenant.id), event, by);
  });
}

/** Puts a tenant on another plan. @throws CodedError NOT_FOUND, VALIDATION_ERROR */
export async function setPlan(system: Transactions, which: string, wanted: string, by: By): Promise<Tenant> {
  const plan = planOf(wanted);
  return changeTenant(system, which, async (tx, tenant) => {
    if (tenant.plan === plan) return;
    await tx.execute('update tenants set plan = $2 where id = $1', [tenant.id, plan]);
    await recordAccess(tx, tenant.id, accessStream('tenant', tenant.id), accessEvent('tenantChanged', { plan }), by);
  });
}

/**
 * Marks a tenant as one that is being deleted, which shuts everybody out for good; again for one that is marked changes nothing.
 * That it was done is written to the log of the default tenant, because its own goes with it.
 * @throws CodedError NOT_FOUND; CONFLICT for the default tenant, which the installation itself needs
 */
export async function beginDeletion(system: SystemDatabase, which: string, by: By): Promise<Tenant> {
  return changeTenant(system, which, async (tx, tenant) => {
    if (tenant.id === DEFAULT_TENANT_ID) throw apiError('CONFLICT', 'The default tenant cannot be deleted.');
    if (tenant.deletingAt) return;
    await tx.execute(
      `update tenants set suspended_at = coalesce(suspended_at, clock_timestamp()), deleting_at = clock_timestamp()
       where id = $1`,
      [tenant.id],
    );
    const event = accessEvent('tenantDeleted', { slug: tenant.slug });
    await recordAccess(tx, DEFAULT_TENANT_ID, accessStream('tenant', tenant.id), event, by);
  });
}

/** Changes a tenant under its lock, so that of two changes the second sees the first. @throws CodedError NOT_FOUND */
export async function changeTenant(
  system: Transactions,
  which: string,
  change: (tx: Tx, tenant: Tenant) => Promise<void>,
): Promise<Tenant> {
  return system.transaction(async (tx) => {
    const found = requireTenant(await bySlugOrId(tx, which), which);
    await tx.query('select 1 from tenants where id = $1 for update', [found.id]);
    await change(tx, requireTenant(await bySlugOrId(tx, found.id), which));
    return requireTenant(await bySlugOrId(tx, found.id), which);
  });
}

async function bySlugOrId(tx: Tx, which: string): Promise<Tenant | null> {
  return tx
    .repository(Tenant)
    .createQueryBuilder('tenant')
    .where('tenant.slug = :which or tenant.id::text = :which', { which: which.toLowerCase() })
    .getOne();
}

function requireTenant(tenant: Tenant | null, which: string): Tenant {
  if (tenant) return tenant;
  throw apiError('NOT_FOUND', `There is no tenant ${JSON.stringify(which)}.`);
}

/** The plan of a name. @throws CodedError VALIDATION_ERROR */
export function planOf(word: string): Plan {
  if (isPlan(word)) return word;
  throw apiError('VALIDATION_ERROR', `There is no plan ${JSON.stringify(word)}. There are ${PLANS.join(', ')}.`);
}

function slugOf(name: string): string {
  const plain = name.normalize('NFKD').replaceAll(/\p{M}/gu, '').toLowerCase();
  return plain
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, '');
}
