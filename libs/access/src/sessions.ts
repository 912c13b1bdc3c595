import { apiError, type Clock, systemClock, type TenantId, type UserId, uuidv7 } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { Credentials } from './credentials.js';
import { verifyPassword } from './passwords.js';
import {
  ACCESS_TOKEN_SECONDS,
  invalidAccessToken,
  issueAccessToken,
  newRefreshToken,
  readAccessToken,
  readRefreshToken,
  secretHash,
  tokenKey,
  type TokenKey,
  writeRefreshToken,
} from './tokens.js';
import type { User } from './users.js';

/** A session ends when it was not refreshed for this long. */
const IDLE_MS = 30 * 24 * 60 * 60 * 1000;
/** How long this process may believe what it read of a session: revocation elsewhere holds here within this time. */
const BELIEVED_MS = 5_000;
/** Sessions remembered per process; some hundred bytes each. The oldest go first. */
const MOST_REMEMBERED = 10_000;
/** A user agent is shown to people; nobody reads more of it. */
const LONGEST_USER_AGENT = 300;

/** Who a request comes from. All that a request handler learns of it. */
export interface Principal {
  readonly userId: UserId;
  readonly tenantId: TenantId;
  readonly role: string;
  readonly sessionId: string;
}

/** What a login or a refresh answers. */
export interface Grant {
  readonly accessToken: string;
  readonly refreshToken: string;
  /** Seconds until the access token ends. */
  readonly expiresIn: number;
  readonly user: { readonly id: UserId; readonly email: string; readonly name: string; readonly role: string };
}

/** Opens, keeps and ends sessions, and says who an access token belongs to. One per process, because it remembers. */
export class Sessions {
  private readonly credentials: Credentials;
  private readonly key: TokenKey;
  private readonly clock: Clock;
  private readonly remembered = new Map<
    string,
    { readonly readAt: number; readonly principal: Promise<Principal | undefined> }
  >();

  /** @param options.secret AUTH_SECRET; the signing key is derived from it by `tokenKey` */
  constructor(system: SystemDatabase, options: { readonly secret: string; readonly clock?: Clock }) {
    this.credentials = new Credentials(system);
    this.key = tokenKey(options.secret);
    this.clock = options.clock ?? systemClock;
  }

  /**
   * Opens a session for the right e-mail address and password.
   * @throws CodedError UNAUTHENTICATED, the same whether the user, the password or the permission to log in is missing
   */
  async login(
    login: { readonly email: string; readonly password: string },
    from: { readonly address?: string; readonly userAgent?: string } = {},
  ): Promise<Grant> {
    const user = await this.credentials.userByEmail(login.email);
    const isRight = await verifyPassword(user?.passwordHash, login.password);
    if (!user || !isRight || user.disabledAt)
      throw apiError('UNAUTHENTICATED', 'The e-mail address or the password is wrong.');
    const now = this.clock.now();
    const id = uuidv7();
    const token = newRefreshToken();
    await this.credentials.open(
      {
        id,
        tenantId: user.tenantId,
        userId: user.id,
        familyHash: secretHash(token.family),
        refreshHash: secretHash(token.secret),
        expiresAt: new Date(now + IDLE_MS),
        address: from.address ?? null,
        userAgent: from.userAgent?.slice(0, LONGEST_USER_AGENT) ?? null,
      },
      new Date(now),
    );
    return this.grant(id, user, writeRefreshToken(token), now);
  }

  /**
   * Exchanges a refresh token for new tokens; each can be used once. One that comes a second time is in two hands, and
   * nobody can tell which of them is the thief's: the session ends (RFC 9700 §4.14.2).
   * @throws CodedError UNAUTHENTICATED
   */
  async refresh(refreshToken: string): Promise<Grant> {
    const token = readRefreshToken(refreshToken);
    const now = this.clock.now();
    const at = new Date(now);
    const session = token && (await this.credentials.active({ familyHash: secretHash(token.family) }, at));
    if (!token || !session) throw invalidRefreshToken();
    const next = newRefreshToken(token.family);
    const isNewest = await this.credentials.rotate(
      session.id,
      secretHash(token.secret),
      secretHash(next.secret),
      at,
      new Date(now + IDLE_MS),
    );
    if (!isNewest) {
      await this.end(session.id);
      throw invalidRefreshToken();
    }
    return this.grant(session.id, session.user, writeRefreshToken(next), now);
  }

  /** Ends the caller's session: at once in this process, within 5 s in others. */
  async logout(principal: Principal): Promise<void> {
    await this.end(principal.sessionId);
  }

  /**
   * Who an access token belongs to, if its session still holds. The role is the user's of now, not of when the token was made.
   * @param believedMs how old what this process knows of the session may be; 5 s unless given
   * @throws CodedError UNAUTHENTICATED
   */
  async verifyAccessToken(token: string, believedMs: number = BELIEVED_MS): Promise<Principal> {
    const claims = await readAccessToken(this.key, token, this.clock.now());
    const principal = await this.principalOf(claims.sessionId, believedMs);
    if (principal?.userId !== claims.userId || principal.tenantId !== claims.tenantId) throw invalidAccessToken();
    return principal;
  }

  /**
   * Who sent a request (or opened a socket), by its Authorization header.
   * @param believedMs as of `verifyAccessToken`
   * @throws CodedError UNAUTHENTICATED
   */
  async authenticate(authorization: string | undefined, believedMs?: number): Promise<Principal> {
    const [, token] = /^bearer +([\w.-]+)$/i.exec(authorization ?? '') ?? [];
    if (token === undefined) throw invalidAccessToken();
    return this.verifyAccessToken(token, believedMs);
  }

  private async grant(sessionId: string, user: User, refreshToken: string, now: number): Promise<Grant> {
    const { id, tenantId, email, name, role } = user;
    return {
      accessToken: await issueAccessToken(this.key, { userId: id, tenantId, sessionId }, now),
      refreshToken,
      expiresIn: ACCESS_TOKEN_SECONDS,
      user: { id, email, name, role },
    };
  }

  private async end(sessionId: string): Promise<void> {
    await this.credentials.revoke(sessionId, new Date(this.clock.now()));
    // After the commit: a look-up that began before it is forgotten too, so its old answer serves nobody who comes later.
    this.remembered.delete(sessionId);
  }

  private principalOf(sessionId: string, believedMs: number): Promise<Principal | undefined> {
    const now = this.clock.now();
    const known = this.remembered.get(sessionId);
    if (known && now - known.readAt < believedMs) return known.principal;
    const principal = this.lookUp(sessionId, now);
    // Removed first, so that a Map's order of insertion stays the order of age.
    this.remembered.delete(sessionId);
    this.remembered.set(sessionId, { readAt: now, principal });
    principal.catch(() => {
      // A database that was away for a moment is asked again, not remembered for 5 s.
      if (this.remembered.get(sessionId)?.principal === principal) this.remembered.delete(sessionId);
    });
    if (this.remembered.size > MOST_REMEMBERED) this.remembered.delete(this.remembered.keys().next().value!);
    return principal;
  }

  private async lookUp(sessionId: string, now: number): Promise<Principal | undefined> {
    const session = await this.credentials.active({ id: sessionId }, new Date(now));
    if (!session) return undefined;
    return { userId: session.userId, tenantId: session.tenantId, role: session.user.role, sessionId };
  }
}

function invalidRefreshToken() {
  return apiError('UNAUTHENTICATED', 'The refresh token is not valid, or no longer. Log in again.');
}
