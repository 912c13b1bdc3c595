import { Column, Entity, PrimaryColumn } from 'typeorm';
import { apiError, DEFAULT_TENANT_ID, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { hashPassword } from './passwords.js';

/** The role that may do everything. Others (Manager, Sales, Support, Viewer) get their rights from a schema's access rules. */
export const ADMIN_ROLE = 'Admin';
/** NIST SP 800-63B asks for 8 characters or more of a password that a person chooses. */
export const SHORTEST_PASSWORD = 8;
/** Longer than any passphrase, and far below what would make hashing it work. */
export const LONGEST_PASSWORD = 1_024;
/** The longest e-mail address that SMTP can carry (RFC 5321 §4.5.3.1.3). */
export const LONGEST_EMAIL = 254;
/** One @ between two parts without spaces or control characters; whether mail arrives there is not for us to say. */
export const EMAIL_PATTERN = /^[^\s@\p{C}]+@[^\s@\p{C}]+$/u;

/** The advisory lock under which the first administrator is made, so that two services that boot at once make one. */
const FIRST_ADMIN_LOCK = 0x61646d696e;

/** A person who logs in. */
@Entity('users')
export class User {
  @PrimaryColumn('uuid')
  id!: UserId;

  @Column('uuid', { name: 'tenant_id' })
  tenantId!: TenantId;

  /** In lower case, and of one user only, across tenants: a login names no tenant. */
  @Column('text')
  email!: string;

  @Column('text')
  name!: string;

  /** Loaded only where a login asks for it; the application's role may not read the column at all. */
  @Column('text', { name: 'password_hash', select: false })
  passwordHash!: string;

  @Column('text')
  role!: string;

  @Column('timestamptz', { name: 'created_at' })
  createdAt!: Date;

  @Column('timestamptz', { name: 'disabled_at', nullable: true })
  disabledAt!: Date | null;
}

/** The form in which an e-mail address is stored and looked up. */
export function normalEmail(email: string): string {
  return email.trim().toLowerCase();
}

/** The form in which an e-mail address is stored. @throws CodedError VALIDATION_ERROR for what is none */
export function emailOf(email: string, whose = ''): string {
  const normal = normalEmail(email);
  if (EMAIL_PATTERN.test(normal) && normal.length <= LONGEST_EMAIL) return normal;
  throw apiError('VALIDATION_ERROR', `The e-mail address${whose} is not one, such as ada@example.com.`, {
    field: 'email',
  });
}

/** A password that may be set. @throws CodedError VALIDATION_ERROR */
export function checkPassword(password: string, whose = ''): string {
  if (password.length >= SHORTEST_PASSWORD && password.length <= LONGEST_PASSWORD) return password;
  throw apiError(
    'VALIDATION_ERROR',
    `The password${whose} has fewer than ${SHORTEST_PASSWORD} or more than ${LONGEST_PASSWORD} characters.`,
    {
      field: 'password',
    },
  );
}

/** A user of the transaction's tenant; undefined when there is none of that id. */
export async function findUser(tx: Tx, id: UserId): Promise<User | undefined> {
  return (await tx.repository(User).findOneBy({ id })) ?? undefined;
}

/**
 * Makes the first administrator, in the default tenant, when there is no user at all; otherwise changes nothing.
 * Safe to call at every boot and from several processes at once.
 * @returns true when the user was made
 * @throws CodedError VALIDATION_ERROR when the address or the password is not fit for it
 */
export async function ensureFirstAdmin(
  system: SystemDatabase,
  admin: { readonly email: string; readonly password: string },
): Promise<boolean> {
  const email = emailOf(admin.email, ' of the first administrator');
  checkPassword(admin.password, ' of the first administrator');
  return system.transaction(async (tx) => {
    await tx.query('select pg_advisory_xact_lock($1)', [FIRST_ADMIN_LOCK]);
    const users = tx.repository(User);
    if (await users.exists()) return false;
    await users.insert({
      id: uuidv7() as UserId,
      tenantId: DEFAULT_TENANT_ID,
      email,
      name: 'Administrator',
      passwordHash: await hashPassword(admin.password),
      role: ADMIN_ROLE,
    });
    return true;
  });
}
