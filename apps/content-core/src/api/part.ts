import type { GraphQLFieldConfigMap } from 'graphql';
import type { By, Principal } from '@atomo-cc/access';

/** What every resolver knows of the request it serves. */
export interface ApiContext {
  readonly principal: Principal;
  /** One id for everything the request sets off; it is in the answer's x-request-id, in logs and in events. */
  readonly requestId: string;
  /** The network address that the request came from: of the proxy where one stands in front. */
  readonly address?: string;
  /** The recorded span of the operation (W3C Trace Context), so that what others do for it later joins its trace. */
  readonly traceparent?: string | undefined;
}

/** The fields that one feature adds to the API. */
export interface ApiPart {
  readonly query?: GraphQLFieldConfigMap<unknown, ApiContext>;
  readonly mutation?: GraphQLFieldConfigMap<unknown, ApiContext>;
  readonly subscription?: GraphQLFieldConfigMap<unknown, ApiContext>;
  /** Names of fields that the role lacks and may know of: who asks for one is told FORBIDDEN instead of that there is none. */
  readonly forbidden?: readonly string[];
}

/** What a feature adds to the API of a role. */
export type RolePart = (role: string) => ApiPart;

/** Who asked for a change, as the log is told. @param why the caller's own words, if there are any */
export function byOf({ principal, requestId, address }: ApiContext, why?: string | null): By {
  return {
    actor: principal.actor,
    requestId,
    ...(address !== undefined && { address }),
    ...(why != null && { reason: why }),
  };
}
