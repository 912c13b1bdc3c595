import { type ApiTokens, isApiToken } from './api-tokens.js';
import type { Principal } from './principal.js';
import type { Sessions } from './sessions.js';
import { invalidAccessToken } from './tokens.js';

/** Says who sent a request: the one way from a header to a Principal, for GraphQL, sockets and REST alike. */
export class Callers {
  constructor(
    private readonly sessions: Sessions,
    private readonly tokens: ApiTokens,
  ) {}

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
