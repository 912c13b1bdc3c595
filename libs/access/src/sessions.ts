import { Not } from 'typeorm';
import { accessEvent, accessStream } from '@atomo-cc/events';
import {
  apiError,
  type Clock,
  isCodedError,
  isUuid,
  systemClock,
  type TenantId,
  type UserId,
  uuidv7,
} from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { NOBODY, recordAccess } from './access-log.js';
import { Beliefs } from './beliefs.js';
import type { RefreshBrake } from './brakes.js';
import { Credentials, endSessions, isStillHash, openSession, rotateSession } from './credentials.js';
import { type Origin, type Person, type Principal, SCOPES } from './principal.js';
import type { Refusals } from './refusals.js';
import {
  ACCESS_TOKEN_SECONDS,
  AccessTokens,
  invalidAccessToken,
  issueAccessToken,
  newRefreshToken,
  readRefreshToken,
  type RefreshToken,
  secretHash,
  type TokenKeys,
  writeRefreshToken,
} from './tokens.js';
import type { User } from './users.js';

/** A session ends when it was not refreshed for this long. */
const IDLE_MS = 30 * 24 * 60 * 60 * 1000;
/** A user agent is shown to people; nobody reads more of it. */
const LONGEST_USER_AGENT = 300;

/** What a login or a refresh answers. */
export interface Grant {
  readonly accessToken: string;
  readonly refreshToken: string;
  /** Seconds until the access token ends. */
  readonly expiresIn: number;
  readonly user: { readonly id: UserId; readonly email: string; readonly name: string; readonly role: string };
}

/** A login of a person, as the person sees it. */
export interface OwnSession {
  readonly id: string;
  readonly createdAt: Date;
  /** When it was last refreshed; a session in use is every 15 minutes. */
  readonly refreshedAt: Date;
  /** When it ends unless it is refreshed before. */
  readonly expiresAt: Date;
  readonly address: string | null;
  readonly userAgent: string | null;
  /** True for the one that asks. */
  readonly isCurrent: boolean;
}

/** What Sessions and its kin work with. */
export interface AccessOptions {
  /** Told after each commit that wrote events of a tenant. */
  readonly onAppended?: (tenant: TenantId) => void;
  readonly clock?: Clock;
}

/** Opens, keeps and ends sessions, and says who an access token belongs to. One per process, because it remembers. */
export class Sessions {
  private readonly credentials: Credentials;
  private readonly clock: Clock;
  private readonly known: Beliefs<Principal | undefined>;
  private readonly tokens: AccessTokens;

  constructor(
    system: SystemDatabase,
    private readonly keys: TokenKeys,
    private readonly brake: RefreshBrake,
    private readonly refusals: Refusals,
    private readonly options: AccessOptions = {},
  ) {
    this.credentials = new Credentials(system);
    this.clock = options.clock ?? systemClock;
    this.tokens = new AccessTokens(keys);
    this.known = new Beliefs((id, now) => this.lookUp(id, now), this.clock);
  }

  /**
   * Opens a session for a user who has proved who they are by the password of `user.passwordHash`.
   * @returns undefined when they have another one by now, or may no longer log in
   */
  async open(user: User, from: Origin = {}): Promise<Grant | undefined> {
    const now = this.clock.now();
    const id = uuidv7();
    const token = newRefreshToken();
    const { tenantId, id: userId } = user;
    const isOpen = await this.write(tenantId, async (tx) => {
      if (!(await isStillHash(tx, user))) return false;
      const session = {
        id,
        tenantId,
        userId,
        familyHash: secretHash(token.family),
        refreshHash: secretHash(token.secret),
        expiresAt: new Date(now + IDLE_MS),
        address: from.address ?? null,
        userAgent: from.userAgent?.slice(0, LONGEST_USER_AGENT) ?? null,
      };
      await openSession(tx, session, new Date(now));
      const by = { ...from, actor: `user:${userId}` };
      await recordAccess(tx, tenantId, accessStream('user', userId), accessEvent('loggedIn', { session: id }), by);
      return true;
    });
    if (!isOpen) return undefined;
    return this.grant(id, user, writeRefreshToken(token), now);
  }

  /**
   * Exchanges a refresh token for new tokens; each can be used once. One that comes a second time is in two hands, and
   * nobody can tell which of them is the thief's: the session ends (RFC 9700 §4.14.2).
   * @throws CodedError UNAUTHENTICATED; RATE_LIMITED after too many wrong ones from one address
   */
  async refresh(refreshToken: string, from: Origin = {}): Promise<Grant> {
    const token = readRefreshToken(refreshToken);
    // Costs nothing to tell, so it is not counted.
    if (!token) throw invalidRefreshToken();
    await this.brake.check(from.address).catch((error: unknown) => {
      if (isCodedError(error)) this.refusals.denied(null, 'POST /auth/refresh', from);
      throw error;
    });
    const grant = await this.exchange(token, from);
    if (grant) return grant;
    await this.brake.countWrong(from.address);
    throw invalidRefreshToken();
  }

  /** Ends the caller's session: at once in this process, within 5 s in others. */
  async logout({ sessionId, userId, tenantId, actor }: Person, from: Origin = {}): Promise<void> {
    await this.write(tenantId, async (tx) => {
      const ended = await endSessions(tx, { id: sessionId, userId }, this.now());
      if (ended.length === 0) return;
      const event = accessEvent('loggedOut', { session: sessionId });
      await recordAccess(tx, tenantId, accessStream('user', userId), event, { ...from, actor });
    });
    this.known.forget(sessionId);
  }

  /** Ends all of the caller's sessions, this one too. Answers how many there were. */
  async logoutEverywhere(person: Person, from: Origin = {}): Promise<number> {
    const { tenantId, userId } = person;
    const revoked = await this.write(tenantId, (tx) =>
      this.revokeAll(tx, person, { userId }, 'logoutEverywhere', from),
    );
    this.forget(revoked);
    return revoked.length;
  }

  /** The caller's sessions that hold, newest first. */
  async list({ userId, sessionId }: Person): Promise<OwnSession[]> {
    const sessions = await this.credentials.activeOf(userId, this.now());
    return sessions.map(({ id, createdAt, refreshedAt, expiresAt, address, userAgent }) => ({
      id,
      createdAt,
      refreshedAt,
      expiresAt,
      address,
      userAgent,
      isCurrent: id === sessionId,
    }));
  }

  /** Ends one of the caller's sessions. False: they have no such session, or it has ended before. */
  async revoke(person: Person, id: string, from: Origin = {}): Promise<boolean> {
    if (!isUuid(id)) return false;
    const of = { id, userId: person.userId };
    const revoked = await this.write(person.tenantId, (tx) => this.revokeAll(tx, person, of, 'revoked', from));
    this.forget(revoked);
    return revoked.length > 0;
  }

  /** @internal Ends the caller's sessions but this one, in the transaction that gives the reason; then `forget` them. */
  async revokeOthers(tx: Tx, person: Person, reason: string, from: Origin): Promise<string[]> {
    return this.revokeAll(tx, person, { userId: person.userId, id: Not(person.sessionId) }, reason, from);
  }

  /** Lets sessions that were ended in a transaction end at once in this process, not only within 5 s. */
  forget(ids: readonly string[]): void {
    for (const id of ids) this.known.forget(id);
  }

  /**
   * Who an access token belongs to, if its session still holds. The role is the user's of now, not of when the token was made.
   * @param believedMs how old what this process knows of the session may be; 5 s unless given
   * @throws CodedError UNAUTHENTICATED
   */
  async verifyAccessToken(token: string, believedMs?: number): Promise<Principal> {
    const claims = await this.tokens.read(token, this.clock.now());
    const principal = await this.known.get(claims.sessionId, believedMs);
    if (principal?.userId !== claims.userId || principal.tenantId !== claims.tenantId) throw invalidAccessToken();
    return principal;
  }

  private now(): Date {
    return new Date(this.clock.now());
  }

  /** @returns undefined for a token that is none, or was used before */
  private async exchange(token: RefreshToken, from: Origin): Promise<Grant | undefined> {
    const now = this.clock.now();
    const at = new Date(now);
    const session = await this.credentials.active({ familyHash: secretHash(token.family) }, at);
    if (!session) return undefined;
    const next = newRefreshToken(token.family);
    const [was, is] = [secretHash(token.secret), secretHash(next.secret)];
    const { id, user } = session;
    const until = new Date(now + IDLE_MS);
    if (!(await this.credentials.system.transaction((tx) => rotateSession(tx, id, was, is, at, until)))) {
      await this.endReused(id, user, from);
      return undefined;
    }
    return this.grant(id, user, writeRefreshToken(next), now);
  }

  private async write<Result>(tenant: TenantId, work: (tx: Tx) => Promise<Result>): Promise<Result> {
    const result = await this.credentials.system.transaction(work);
    this.options.onAppended?.(tenant);
    return result;
  }

  private async revokeAll(
    tx: Tx,
    { tenantId, userId, actor }: Person,
    of: Parameters<typeof endSessions>[1],
    reason: string,
    from: Origin,
  ): Promise<string[]> {
    const sessions = await endSessions(tx, of, this.now());
    if (sessions.length === 0) return [];
    const event = accessEvent('sessionsRevoked', { sessions, reason });
    await recordAccess(tx, tenantId, accessStream('user', userId), event, { ...from, actor });
    return sessions;
  }

  private async endReused(id: string, { id: userId, tenantId }: User, from: Origin): Promise<void> {
    await this.write(tenantId, async (tx) => {
      const ended = await endSessions(tx, { id }, this.now());
      if (ended.length === 0) return;
      // Nobody can tell whether it was the person or the thief.
      const by = { ...from, actor: NOBODY };
      await recordAccess(tx, tenantId, accessStream('user', userId), accessEvent('refreshReused', { session: id }), by);
    });
    this.known.forget(id);
  }

  private async grant(sessionId: string, user: User, refreshToken: string, now: number): Promise<Grant> {
    const { id, tenantId, email, name, role } = user;
    return {
      accessToken: await issueAccessToken(this.keys.signing, { userId: id, tenantId, sessionId }, now),
      refreshToken,
      expiresIn: ACCESS_TOKEN_SECONDS,
      user: { id, email, name, role },
    };
  }

  private async lookUp(sessionId: string, now: number): Promise<Principal | undefined> {
    const session = await this.credentials.active({ id: sessionId }, new Date(now));
    if (!session) return undefined;
    const { userId, tenantId, user } = session;
    return { userId, tenantId, role: user.role, sessionId, actor: `user:${userId}`, scopes: SCOPES };
  }
}

function invalidRefreshToken() {
  return apiError('UNAUTHENTICATED', 'The refresh token is not valid, or no longer. Log in again.');
}
