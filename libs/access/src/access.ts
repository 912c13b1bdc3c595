import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { Callers } from './callers.js';
import { Logins } from './logins.js';
import { type AccessOptions, Sessions } from './sessions.js';
import { tokenKeys } from './tokens.js';

/** All that decides who may come in. One per process, because its parts remember. */
export interface Access {
  readonly callers: Callers;
  readonly logins: Logins;
  readonly sessions: Sessions;
}

/** What it is set up with. */
export interface AccessSettings extends AccessOptions {
  /** AUTH_SECRET: the key that signs access tokens is derived from it. */
  readonly secret: string;
  /** AUTH_SECRETS_ACCEPTED: further secrets whose tokens are good. */
  readonly acceptedSecrets?: readonly string[];
}

/** @param system opened with `accessEntities` */
export function openAccess(system: SystemDatabase, settings: AccessSettings): Access {
  const sessions = new Sessions(system, tokenKeys(settings.secret, settings.acceptedSecrets), settings);
  return { sessions, logins: new Logins(system, sessions, settings), callers: new Callers(sessions) };
}
