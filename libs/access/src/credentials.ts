import {
  Column,
  Entity,
  IsNull,
  JoinColumn,
  LessThan,
  ManyToOne,
  MoreThan,
  PrimaryColumn,
  type Relation,
} from 'typeorm';
import type { TenantId, UserId } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { normalEmail, User } from './users.js';

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

/**
 * Looks up who someone is before it is known which tenant they belong to. It alone uses the system role for this; it stays
 * inside this package, and request handlers get a Principal from it, never rows of another tenant.
 */
export class Credentials {
  constructor(private readonly system: SystemDatabase) {}

  /** The user of an e-mail address, with the password's hash. */
  async userByEmail(email: string): Promise<User | undefined> {
    const found = await this.system.transaction((tx) =>
      tx
        .repository(User)
        .createQueryBuilder('user')
        .addSelect('user.passwordHash')
        .where({ email: normalEmail(email) })
        .getOne(),
    );
    return found ?? undefined;
  }

  /** Stores a new session, and forgets those of the same user that ended by time. */
  async open(session: Omit<Session, 'user' | 'createdAt' | 'refreshedAt' | 'revokedAt'>, at: Date): Promise<void> {
    await this.system.transaction(async (tx) => {
      const sessions = tx.repository(Session);
      await sessions.delete({ userId: session.userId, expiresAt: LessThan(at) });
      await sessions.insert({ ...session, createdAt: at, refreshedAt: at });
    });
  }

  /** A session that holds at `at` and whose user may log in, with the user. */
  async active(by: { id: string } | { familyHash: string }, at: Date): Promise<Session | undefined> {
    const found = await this.system.transaction((tx) =>
      tx.repository(Session).findOne({
        where: { ...by, revokedAt: IsNull(), expiresAt: MoreThan(at), user: { disabledAt: IsNull() } },
        relations: { user: true },
      }),
    );
    return found ?? undefined;
  }

  /**
   * Replaces the newest refresh secret, if `from` still is the newest: of two at once, one wins.
   * @returns false when `from` was used before or the session no longer holds
   */
  async rotate(id: string, from: string, to: string, at: Date, expiresAt: Date): Promise<boolean> {
    const { affected } = await this.system.transaction((tx) =>
      tx
        .repository(Session)
        .update({ id, refreshHash: from, revokedAt: IsNull() }, { refreshHash: to, refreshedAt: at, expiresAt }),
    );
    return affected === 1;
  }

  /** Ends a session; a session that has ended stays as it is. */
  async revoke(id: string, at: Date): Promise<void> {
    await this.system.transaction((tx) =>
      tx.repository(Session).update({ id, revokedAt: IsNull() }, { revokedAt: at }),
    );
  }
}
