import { apiError, type TenantId, type UserId } from '@atomo-cc/kernel';

/** What a caller may do at all, before its role is asked: `read` answers questions, `write` changes things. */
export const SCOPES = ['read', 'write'] as const;
/** One of the two. */
export type Scope = (typeof SCOPES)[number];

/** Who a request comes from: a person who has logged in, or a machine with a token. All that a request handler learns of it. */
export interface Principal {
  readonly tenantId: TenantId;
  readonly role: string;
  /** The name in events: `user:<id>` or `token:<id>`. */
  readonly actor: string;
  /** The person; absent for a machine, which no rule about users can mean. */
  readonly userId?: UserId;
  /** The session that the person is in. */
  readonly sessionId?: string;
  /** The token that a machine comes with; absent for a person. */
  readonly tokenId?: string;
  /** What a token is narrowed to; a person has all. */
  readonly scopes: readonly Scope[];
}

/** A principal that is a person. */
export type Person = Principal & Required<Pick<Principal, 'userId' | 'sessionId'>>;

/** Where a request came from, for events and for the person who looks through their sessions. */
export interface Origin {
  /** The network address, as far as it can be believed. */
  readonly address?: string;
  readonly userAgent?: string;
  /** One id for everything that the request sets off. */
  readonly requestId?: string;
}

/** @throws CodedError FORBIDDEN when the caller's token was not made for this */
export function requireScope(principal: Principal, scope: Scope): void {
  if (!principal.scopes.includes(scope)) {
    throw apiError('FORBIDDEN', `This token was made without the scope "${scope}".`);
  }
}

/** The person behind a request. @throws CodedError FORBIDDEN for a machine, which has no password and no sessions */
export function requirePerson(principal: Principal): Person {
  if (principal.userId === undefined || principal.sessionId === undefined) {
    throw apiError('FORBIDDEN', 'This is for people who have logged in; a token cannot do it.');
  }
  return principal as Person;
}
