import { type ApiTokens, isApiToken } from './api-tokens.js';
import type { Principal } from './principal.js';
import type { RequestRates } from './request-rates.js';
import type { Sessions } from './sessions.js';
import { invalidAccessToken } from './tokens.js';

/** Says who sent a request: the one way from a header to a Principal, for GraphQL, sockets and REST alike. */
export class Callers {
  constructor(
    private readonly sessions: Sessions,
    private readonly tokens: ApiTokens,
    private readonly rates: RequestRates,
  ) {}

  /**
   * As `authenticate`, for what counts as a request of the caller's tenant: of a socket each operation.
   * @throws CodedError UNAUTHENTICATED; RATE_LIMITED with `retryAfterSeconds`
   */
  async admit(authorization: string | undefined): Promise<Principal> {
    const principal = await this.authenticate(authorization);
    await this.rates.take(principal.tenantId);
    return principal;
  }

  /**
   * Who sent a request (or opened a socket), by its Authorization header.
   * @param believedMs how old what this process knows of the session or token may be; 5 s unless given
   * @throws CodedError UNAUTHENTICATED, the same for whatever is wrong
   */
  async authenticate(authorization: string | undefined, believedMs?: number): Promise<Principal> {
    const [, token] = /^bearer +([\w.-]+)$/i.exec(authorization ?? '') ?? [];
    if (token === undefined) throw invalidAccessToken();
    if (isApiToken(token)) return this.tokens.verify(token, believedMs);
    return this.sessions.verifyAccessToken(token, believedMs);
  }
}
