import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import type { Redis } from 'ioredis';
import { LoginBrakes, RefreshBrake } from './brakes.js';
import { ApiTokens } from './api-tokens.js';
import { Callers } from './callers.js';
import { Logins } from './logins.js';
import { Refusals } from './refusals.js';
import { RequestRates } from './request-rates.js';
import { type AccessOptions, Sessions } from './sessions.js';
import { tokenKeys } from './tokens.js';

/** All that decides who may come in. One per process, because its parts remember. */
export interface Access {
  readonly callers: Callers;
  readonly logins: Logins;
  readonly sessions: Sessions;
  readonly tokens: ApiTokens;
  /** Tells the log of what was refused. */
  readonly refusals: Refusals;
  /** Writes what is still to be told. */
  close(): Promise<void>;
}

/** What it is set up with. */
export interface AccessSettings extends AccessOptions {
  /** AUTH_SECRET: the key that signs access tokens is derived from it. */
  readonly secret: string;
  /** AUTH_SECRETS_ACCEPTED: further secrets whose tokens are good. */
  readonly acceptedSecrets?: readonly string[];
  /** Where wrong logins and requests are counted for all processes: a connection that fails fast. Without one this process counts for itself. */
  readonly redis?: Redis;
  /** Told why refusals could not be told to the log. */
  readonly onError?: (error: unknown) => void;
}

/** @param system opened with `accessEntities` */
export function openAccess(system: SystemDatabase, settings: AccessSettings): Access {
  const refusals = new Refusals(system, settings);
  const keys = tokenKeys(settings.secret, settings.acceptedSecrets);
  const sessions = new Sessions(system, keys, new RefreshBrake(settings.redis), refusals, settings);
  const logins = new Logins(system, sessions, new LoginBrakes(settings.redis), refusals, settings);
  const tokens = new ApiTokens(system, settings);
  return {
    sessions,
    tokens,
    logins,
    callers: new Callers(sessions, tokens, new RequestRates(system, settings)),
    refusals,
    close: () => refusals.close(),
  };
}
