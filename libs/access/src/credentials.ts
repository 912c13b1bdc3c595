import {
  Column,
  Entity,
  type FindOptionsWhere,
  IsNull,
  JoinColumn,
  LessThan,
  ManyToOne,
  MoreThan,
  PrimaryColumn,
  type Relation,
} from 'typeorm';
import type { TenantId, UserId } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { addressBlock } from './brakes.js';
import { ofOpenTenant, Tenant } from './tenants.js';
import { normalEmail, User } from './users.js';

/** Addresses of an account that are looked through. */
const MOST_USUAL_ADDRESSES = 1_000;

/** One login of one user, until it is logged out, unused for too long, or revoked. */
@Entity('sessions')
export class Session {
  @PrimaryColumn('uuid')
  id!: string;

  @Column('uuid', { name: 'tenant_id' })
  tenantId!: TenantId;

  @Column('uuid', { name: 'user_id' })
  userId!: UserId;

  @ManyToOne(() => User)
  @JoinColumn({ name: 'user_id' })
  user!: Relation<User>;

  @ManyToOne(() => Tenant)
  @JoinColumn({ name: 'tenant_id' })
  tenant!: Relation<Tenant>;

  /** SHA-256, in hex, of the part of the refresh token that stays; finds the session. */
  @Column('text', { name: 'family_hash' })
  familyHash!: string;

  /** SHA-256, in hex, of the newest refresh token's secret. */
  @Column('text', { name: 'refresh_hash' })
  refreshHash!: string;

  @Column('timestamptz', { name: 'created_at' })
  createdAt!: Date;

  @Column('timestamptz', { name: 'refreshed_at' })
  refreshedAt!: Date;

  @Column('timestamptz', { name: 'expires_at' })
  expiresAt!: Date;

  @Column('timestamptz', { name: 'revoked_at', nullable: true })
  revokedAt!: Date | null;

  /** Where the login came from, for the person who looks through their sessions. */
  @Column('text', { nullable: true })
  address!: string | null;

  @Column('text', { name: 'user_agent', nullable: true })
  userAgent!: string | null;
}

/** Those sessions that hold at `at`: neither the user nor the tenant is shut out. */
const holding = (at: Date) => ({
  revokedAt: IsNull(),
  expiresAt: MoreThan(at),
  user: { disabledAt: IsNull() },
  tenant: { suspendedAt: IsNull() },
});

/**
 * Looks up who someone is before it is known which tenant they belong to, and keeps sessions and the hashes of passwords, which
 * requests may not touch. It alone uses the system role for this; it stays inside this package, and request handlers get a
 * Principal from it, never rows of another tenant.
 */
export class Credentials {
  constructor(readonly system: SystemDatabase) {}

  /** The user of an e-mail address, or of an id, with the password's hash. */
  async user(by: { email: string } | { id: UserId }): Promise<User | undefined> {
    const where = 'email' in by ? { email: normalEmail(by.email) } : by;
    const found = await this.system.transaction((tx) =>
      tx.repository(User).createQueryBuilder('user').addSelect('user.passwordHash').where(where).getOne(),
    );
    return found ?? undefined;
  }

  /** A session that holds at `at` and whose user may log in, with the user. */
  async active(by: { id: string } | { familyHash: string }, at: Date): Promise<Session | undefined> {
    const found = await this.system.transaction((tx) =>
      tx.repository(Session).findOne({ where: { ...by, ...holding(at) }, relations: { user: true } }),
    );
    return found ?? undefined;
  }

  /** A user's sessions that hold at `at`, newest first. */
  async activeOf(userId: UserId, at: Date): Promise<Session[]> {
    return this.system.transaction((tx) =>
      tx.repository(Session).find({ where: { userId, ...holding(at) }, order: { createdAt: 'DESC', id: 'DESC' } }),
    );
  }

  /** True when the account of an e-mail address has logged in from (the block of) a network address within 30 days. */
  async hasLoggedInFrom(email: string, address: string | undefined, at: Date): Promise<boolean> {
    if (address === undefined) return false;
    const rows = await this.system.transaction((tx) =>
      tx.query<{ address: string }>(
        `select distinct s.address from sessions s join users u on u.id = s.user_id
         where u.email = $1 and s.created_at > $2::timestamptz - interval '30 days' and s.address is not null
         limit ${MOST_USUAL_ADDRESSES}`,
        [email, at],
      ),
    );
    return rows.some((row) => addressBlock(row.address) === addressBlock(address));
  }
}

/**
 * True when the user still has the password of this hash and may log in. It stays so to the end of the transaction: a change of
 * the password waits, and then ends the session that is opened here.
 */
export async function isStillHash(tx: Tx, { id, passwordHash }: User): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from users where id = $1 and password_hash = $2 and disabled_at is null and ${ofOpenTenant('users')} for share`,
    [id, passwordHash],
  );
  return rows.length > 0;
}

/** Stores a new session, and forgets those of the same user that ended by time. */
export async function openSession(
  tx: Tx,
  session: Omit<Session, 'user' | 'tenant' | 'createdAt' | 'refreshedAt' | 'revokedAt'>,
  at: Date,
): Promise<void> {
  const sessions = tx.repository(Session);
  await sessions.delete({ userId: session.userId, expiresAt: LessThan(at) });
  await sessions.insert({ ...session, createdAt: at, refreshedAt: at });
}

/**
 * Replaces the newest refresh secret, if `from` still is the newest: of two at once, one wins.
 * @returns false when `from` was used before or the session no longer holds
 */
export async function rotateSession(
  tx: Tx,
  id: string,
  from: string,
  to: string,
  at: Date,
  expiresAt: Date,
): Promise<boolean> {
  const { affected } = await tx
    .repository(Session)
    .update({ id, refreshHash: from, revokedAt: IsNull() }, { refreshHash: to, refreshedAt: at, expiresAt });
  return affected === 1;
}

/** Ends those of the sessions that have not ended by revocation before, and answers their ids. */
export async function endSessions(tx: Tx, of: FindOptionsWhere<Session>, at: Date): Promise<string[]> {
  const { raw } = await tx
    .repository(Session)
    .createQueryBuilder()
    .update({ revokedAt: at })
    .where({ ...of, revokedAt: IsNull(), expiresAt: MoreThan(at) })
    .returning('id')
    .execute();
  return (raw as { id: string }[]).map(({ id }) => id);
}
