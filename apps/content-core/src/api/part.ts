import type { GraphQLFieldConfigMap } from 'graphql';
import type { Principal } from '@atomo-cc/access';

/** What every resolver knows of the request it serves. */
export interface ApiContext {
  readonly principal: Principal;
  /** One id for everything the request sets off; it is in the answer's x-request-id, in logs and in events. */
  readonly requestId: string;
}

/** The fields that one feature adds to the API. */
export interface ApiPart {
  readonly query?: GraphQLFieldConfigMap<unknown, ApiContext>;
  readonly mutation?: GraphQLFieldConfigMap<unknown, ApiContext>;
  readonly subscription?: GraphQLFieldConfigMap<unknown, ApiContext>;
}
