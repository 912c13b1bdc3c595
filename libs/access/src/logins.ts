import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { recordAccess } from './access-log.js';
import { Credentials } from './credentials.js';
import { hashPassword, isOutdated, verifyPassword } from './passwords.js';
import type { Origin, Person } from './principal.js';
import type { AccessOptions, Grant, Sessions } from './sessions.js';
import { SHORTEST_PASSWORD, User } from './users.js';

/** Lets people in who know their password, and lets them choose another. */
export class Logins {
  private readonly credentials: Credentials;

  constructor(
    system: SystemDatabase,
    private readonly sessions: Sessions,
    private readonly options: AccessOptions = {},
  ) {
    this.credentials = new Credentials(system);
  }

  /**
   * Opens a session for the right e-mail address and password. A hash that is not as we make them today is made anew.
   * @throws CodedError UNAUTHENTICATED, the same whether the user, the password or the permission to log in is missing
   */
  async login(login: { readonly email: string; readonly password: string }, from: Origin = {}): Promise<Grant> {
    const user = await this.credentials.user({ email: login.email });
    const isRight = await verifyPassword(user?.passwordHash, login.password);
    if (!user || !isRight || user.disabledAt) throw wrongLogin();
    const proved = isOutdated(user.passwordHash) ? await this.replaceHash(user, login.password) : user;
    const grant = await this.sessions.open(proved, from);
    if (!grant) throw wrongLogin();
    return grant;
  }

  /**
   * Gives the caller another password and ends their other sessions: whoever had the old one is out.
   * @throws CodedError VALIDATION_ERROR when the current password is wrong or the new one is not fit to be one
   */
  async changePassword(
    person: Person,
    { currentPassword, newPassword }: { readonly currentPassword: string; readonly newPassword: string },
    from: Origin = {},
  ): Promise<void> {
    if (newPassword.length < SHORTEST_PASSWORD) {
      throw apiError('VALIDATION_ERROR', `The new password is shorter than ${SHORTEST_PASSWORD} characters.`, {
        field: 'newPassword',
      });
    }
    if (newPassword === currentPassword) {
      throw apiError('VALIDATION_ERROR', 'The new password is the current one.', { field: 'newPassword' });
    }
    const { tenantId, userId, actor } = person;
    const user = await this.credentials.user({ id: userId });
    const isRight = await verifyPassword(user?.passwordHash, currentPassword);
    if (!user || !isRight) {
      throw apiError('VALIDATION_ERROR', 'The current password is wrong.', { field: 'currentPassword' });
    }
    const passwordHash = await hashPassword(newPassword);
    const ended = await this.credentials.system.transaction(async (tx) => {
      await tx.repository(User).update({ id: userId }, { passwordHash });
      const event = accessEvent('passwordChanged', {});
      await recordAccess(tx, tenantId, accessStream('user', userId), event, { ...from, actor });
      return this.sessions.revokeOthers(tx, person, 'passwordChanged', from);
    });
    this.sessions.forget(ended);
    this.options.onAppended?.(tenantId);
  }

  private async replaceHash(user: User, password: string): Promise<User> {
    const { id, passwordHash: from } = user;
    const passwordHash = await hashPassword(password);
    // Only if it still is the one that was checked: a password that is changed at this moment stays changed.
    await this.credentials.system.transaction((tx) =>
      tx.repository(User).update({ id, passwordHash: from }, { passwordHash }),
    );
    return Object.assign(user, { passwordHash });
  }
}

function wrongLogin() {
  return apiError('UNAUTHENTICATED', 'The e-mail address or the password is wrong.');
}
