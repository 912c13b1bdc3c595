import { accessEvent, accessStream } from '@atomo-cc/events';
import { apiError, isCodedError, systemClock } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { recordAccess } from './access-log.js';
import type { LoginBrakes } from './brakes.js';
import { Credentials } from './credentials.js';
import { hashPassword, isOutdated, verifyPassword } from './passwords.js';
import type { Origin, Person } from './principal.js';
import type { Refusals } from './refusals.js';
import type { AccessOptions, Grant, Sessions } from './sessions.js';
import { normalEmail, SHORTEST_PASSWORD, User } from './users.js';

/**
 * A wrong login is answered no sooner than this, in milliseconds: longer than checking a hash takes, also one of bcrypt with the
 * usual costs (10, 11), so that the time tells nothing of the account.
 */
const REFUSED_AFTER_MS = 250;
/** Passwords that a process checks or waits to check at a time. Four are hashed at once, so the last waits for about a second. */
const MOST_CHECKED = 64;

/** Lets people in who know their password, and lets them choose another. */
export class Logins {
  private readonly credentials: Credentials;
  private checking = 0;

  constructor(
    system: SystemDatabase,
    private readonly sessions: Sessions,
    private readonly brakes: LoginBrakes,
    private readonly refusals: Refusals,
    private readonly options: AccessOptions,
  ) {
    this.credentials = new Credentials(system);
  }

  /**
   * Opens a session for the right e-mail address and password. A hash that is not as we make them today is made anew.
   * @throws CodedError UNAUTHENTICATED, the same and after the same time whether the user, the password or the permission to log
   * in is missing; RATE_LIMITED after too many wrong ones, whether there is such an account or not
   */
  async login(login: { readonly email: string; readonly password: string }, from: Origin = {}): Promise<Grant> {
    const began = performance.now();
    const user = await this.checked(login.email, login.password, from, () =>
      this.credentials.user({ email: login.email }),
    );
    if (user) {
      const proved = isOutdated(user.passwordHash) ? await this.replaceHash(user, login.password) : user;
      const grant = await this.sessions.open(proved, from);
      if (grant) return grant;
      this.refusals.loginRefused(login.email, 'shut', from);
    }
    // A timer may fire a millisecond or two early, the sooner the busier the process.
    for (let restMs = 1; (restMs = began + REFUSED_AFTER_MS - performance.now()) > 0;)
      await new Promise((resolve) => setTimeout(resolve, Math.ceil(restMs)));
    throw apiError('UNAUTHENTICATED', 'The e-mail address or the password is wrong.');
  }

  /**
   * Gives the caller another password and ends their other sessions: whoever had the old one is out.
   * @throws CodedError RATE_LIMITED as a login; VALIDATION_ERROR when the current password is wrong or the new one is not fit to be one
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
    const found = await this.credentials.user({ id: userId });
    const user = found && (await this.checked(found.email, currentPassword, from, async () => found));
    if (!user) throw wrongPassword();
    const passwordHash = await hashPassword(newPassword);
    const ended = await this.credentials.system.transaction(async (tx) => {
      // Only if it still is the one that was checked: who knows a password that is being replaced must not win over who replaces it.
      const { affected } = await tx
        .repository(User)
        .update({ id: userId, passwordHash: user.passwordHash }, { passwordHash });
      if (affected !== 1) throw wrongPassword();
      const event = accessEvent('passwordChanged', {});
      await recordAccess(tx, tenantId, accessStream('user', userId), event, { ...from, actor });
      return this.sessions.revokeOthers(tx, person, 'passwordChanged', from);
    });
    this.sessions.forget(ended);
    this.options.onAppended?.(tenantId);
  }

  /**
   * The user if the password is theirs. Wrong ones are counted, and told to the log.
   * @throws CodedError RATE_LIMITED, before any password is looked at
   */
  private async checked(
    email: string,
    password: string,
    from: Origin,
    find: () => Promise<User | undefined>,
  ): Promise<User | undefined> {
    const account = normalEmail(email);
    const counted = await this.brakes
      .count(account, from.address, () => this.credentials.hasLoggedInFrom(account, from.address, this.now()))
      .catch((error: unknown) => {
        if (isCodedError(error)) this.refusals.loginRefused(account, 'limited', from);
        throw error;
      });
    if (this.checking >= MOST_CHECKED) {
      await counted.giveBack();
      throw apiError('RATE_LIMITED', 'Too many people log in at this moment. Try again in a second.', {
        retryAfterSeconds: 1,
      });
    }
    this.checking += 1;
    try {
      const user = await find();
      if (await verifyPassword(user?.passwordHash, password)) {
        await counted.giveBack();
        return user;
      }
      this.refusals.loginRefused(account, 'wrong', from);
      return undefined;
    } finally {
      this.checking -= 1;
    }
  }

  private now(): Date {
    return new Date((this.options.clock ?? systemClock).now());
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

function wrongPassword() {
  return apiError('VALIDATION_ERROR', 'The current password is wrong.', { field: 'currentPassword' });
}
