import { accessEvent, accessStream, type NewEvent } from '@atomo-cc/events';
import type { EventCodec } from '@atomo-cc/event-store';
import { apiError, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import { type AppDatabase, sqlState, type Tx } from '@atomo-cc/platform/postgres';
import { type By, checkBy, checkText, recordAccess } from './access-log.js';
import { endSessions } from './credentials.js';
import { hashPassword } from './passwords.js';
import { requireRoom } from './quotas.js';
import { ADMIN_ROLE, checkPassword, emailOf, User } from './users.js';

/** Longer than any name, and far below what would be a burden to show. */
const LONGEST_NAME = 200;

/** A user that is to be made. */
export interface NewAccount {
  readonly email: string;
  readonly role: string;
  /** What they are called; the part of the address before the @ unless given. */
  readonly name?: string | undefined;
  readonly password: string;
}

/** What is to become different; what is left out stays. */
export interface AccountChange {
  readonly role?: string | undefined;
  readonly name?: string | undefined;
  readonly disabled?: boolean | undefined;
  /** Another password, which somebody else has chosen: it ends all sessions. */
  readonly password?: string | undefined;
}

/**
 * Makes, changes and removes the users of a tenant. Each change is one transaction with its event. A changed role holds within
 * 5 s, as does the end of the sessions of who is disabled, removed or given another password. Always one who may log in
 * is left with the role Admin.
 */
export class Accounts {
  readonly #roles: readonly string[];

  /** @param roles those that the schema declares; Admin always is one */
  constructor(
    private readonly database: AppDatabase,
    private readonly codec: EventCodec,
    roles: readonly string[],
  ) {
    this.#roles = [...new Set([ADMIN_ROLE, ...roles])];
  }

  /** The users of a tenant in the order of their addresses, from the one behind `after` on. */
  async list(tenant: TenantId, page: { readonly after?: string | null; readonly limit: number }): Promise<User[]> {
    return this.database.transaction(tenant, (tx) =>
      tx
        .repository(User)
        .createQueryBuilder('user')
        .where('user.email > :after', { after: page.after ?? '' })
        .orderBy('user.email')
        .limit(page.limit)
        .getMany(),
    );
  }

  /** The user of an address in a tenant; undefined when there is none. */
  async find(tenant: TenantId, email: string): Promise<User | undefined> {
    const wanted = emailOf(email);
    const found = await this.database.transaction(tenant, (tx) => tx.repository(User).findOneBy({ email: wanted }));
    return found ?? undefined;
  }

  /**
   * @throws CodedError VALIDATION_ERROR; CONFLICT when the address has a user already, in this tenant or another,
   * or when the plan allows no further user
   */
  async create(tenant: TenantId, account: NewAccount, by: By): Promise<User> {
    const role = this.checkRole(account.role);
    const reasoned = checkBy(by);
    const hashed = await hashAccount({ ...account, role });
    return this.database.transaction(tenant, (tx) => addAccount(tx, this.codec, tenant, hashed, reasoned));
  }

  /** @throws CodedError VALIDATION_ERROR; NOT_FOUND; CONFLICT when no Admin would be left */
  async update(tenant: TenantId, id: UserId, change: AccountChange, by: By): Promise<User> {
    const { role, name, disabled, password } = change;
    const wanted = {
      ...(role !== undefined && { role: this.checkRole(role) }),
      ...(name !== undefined && { name: checkText('name', name, LONGEST_NAME) }),
      ...(disabled !== undefined && { disabled }),
    };
    const reasoned = checkBy(by);
    const passwordHash = password === undefined ? null : await hashPassword(checkPassword(password));
    return this.database.transaction(tenant, async (tx) => {
      const admins = await lockUser(tx, id);
      const user = await requireUser(tx, id);
      const isDisabled = user.disabledAt !== null;
      const before: Readonly<Record<string, unknown>> = { role: user.role, name: user.name, disabled: isDisabled };
      const changed = Object.fromEntries(Object.entries(wanted).filter(([field, value]) => before[field] !== value));
      const events = [];
      if (Object.keys(changed).length > 0) {
        const personal = 'name' in changed ? { subject: accessStream('user', id), fields: ['name'] } : undefined;
        events.push(accessEvent('userChanged', changed, personal));
      }
      if (passwordHash !== null) events.push(accessEvent('passwordReset', {}));
      if (events.length === 0) return user;
      if ((changed['role'] ?? ADMIN_ROLE) !== ADMIN_ROLE || changed['disabled'] === true) requireOtherAdmin(admins, id);
      await tx.execute(
        `update users set role = coalesce($2, role), name = coalesce($3, name),
           disabled_at = case $4::boolean when true then clock_timestamp() when false then null else disabled_at end
         where id = $1`,
        [id, changed['role'] ?? null, changed['name'] ?? null, changed['disabled'] ?? null],
      );
      if (passwordHash !== null)
        await tx.execute('update users set password_hash = $2 where id = $1', [id, passwordHash]);
      // Who is let in again some day would otherwise be in all their old sessions.
      const reason = passwordHash === null ? 'disabled' : 'passwordReset';
      const sessions =
        passwordHash !== null || changed['disabled'] === true ? await endSessions(tx, { userId: id }, new Date()) : [];
      if (sessions.length > 0) events.push(accessEvent('sessionsRevoked', { sessions, reason }));
      await this.record(tx, tenant, id, events, reasoned);
      return requireUser(tx, id);
    });
  }

  /** Removes a user and their sessions; events go on to name their id. @throws CodedError NOT_FOUND; CONFLICT as `update` */
  async delete(tenant: TenantId, id: UserId, by: By): Promise<User> {
    const reasoned = checkBy(by);
    return this.database.transaction(tenant, async (tx) => {
      const admins = await lockUser(tx, id);
      const user = await requireUser(tx, id);
      requireOtherAdmin(admins, id);
      await tx.execute('delete from users where id = $1', [id]);
      await this.record(tx, tenant, id, [accessEvent('userDeleted', {})], reasoned);
      return user;
    });
  }

  private checkRole(role: string): string {
    if (this.#roles.includes(role)) return role;
    throw apiError(
      'VALIDATION_ERROR',
      `There is no role ${JSON.stringify(role)}. There are ${this.#roles.join(', ')}.`,
      {
        field: 'role',
      },
    );
  }

  private record(tx: Tx, tenant: TenantId, id: UserId, events: readonly NewEvent[], by: By): Promise<void> {
    return recordAccess(tx, tenant, accessStream('user', id), events, by, this.codec);
  }
}

/** A user that is to be made, as checked, with the hash in the place of the password. */
export interface HashedAccount {
  readonly email: string;
  readonly role: string;
  readonly name: string;
  readonly passwordHash: string;
}

/** Checks all of a user that is to be made but the role. @throws CodedError VALIDATION_ERROR */
export async function hashAccount(account: NewAccount): Promise<HashedAccount> {
  const email = emailOf(account.email);
  const name = checkText('name', account.name ?? email.split('@')[0]!, LONGEST_NAME);
  return { email, role: account.role, name, passwordHash: await hashPassword(checkPassword(account.password)) };
}

/** Makes a user, with its event. @throws CodedError CONFLICT as `Accounts.create` */
export async function addAccount(
  tx: Tx,
  codec: EventCodec,
  tenant: TenantId,
  { email, role, name, passwordHash }: HashedAccount,
  by: By,
): Promise<User> {
  const id = uuidv7() as UserId;
  await requireRoom(tx, tenant, 'users');
  try {
    await tx.execute(
      'insert into users (id, tenant_id, email, name, password_hash, role) values ($1, $2, $3, $4, $5, $6)',
      [id, tenant, email, name, passwordHash, role],
    );
  } catch (error) {
    if (sqlState(error) !== '23505') throw error;
    throw apiError('CONFLICT', 'A user with this e-mail address is there already. An address has one user only.', {
      field: 'email',
    });
  }
  const personal = { subject: accessStream('user', id), fields: ['email', 'name'] };
  const event = accessEvent('userCreated', { email, name, role }, personal);
  await recordAccess(tx, tenant, accessStream('user', id), event, by, codec);
  return requireUser(tx, id);
}

/**
 * Locks a user and all who may log in as Admin, so that of two who each remove the other's role the second sees what the first
 * has left. Answers the ids of those Admins.
 */
async function lockUser(tx: Tx, id: UserId): Promise<string[]> {
  const rows = await tx.query<{ id: string; is_admin: boolean }>(
    `select id, role = $2 and disabled_at is null as is_admin from users
     where id = $1 or (role = $2 and disabled_at is null) order by id for update`,
    [id, ADMIN_ROLE],
  );
  return rows.filter(({ is_admin }) => is_admin).map((row) => row.id);
}

function requireOtherAdmin(admins: readonly string[], id: UserId): void {
  if (!admins.includes(id) || admins.length > 1) return;
  throw apiError('CONFLICT', 'This is the last Admin, without whom nobody could manage users. Make another one first.');
}

async function requireUser(tx: Tx, id: UserId): Promise<User> {
  const user = await tx.repository(User).findOneBy({ id });
  if (user) return user;
  throw apiError('NOT_FOUND', 'There is no user of this id.');
}
