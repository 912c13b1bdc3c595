import { apiError } from '@atomo-cc/kernel';
import type { Principal } from './principal.js';
import { ADMIN_ROLE } from './users.js';

/**
 * Who may use what no schema declares: the fields of the API beside those of models, and what REST offers of the same. By name,
 * with the roles that may beside Admin; what is not listed is Admin's alone, so that a new field is closed until someone opens it.
 * Events, the audit log and the memory hold the values of all records, whatever the rules of their fields.
 */
const PLATFORM_ACCESS: Readonly<Record<string, readonly string[] | 'everyone'>> = {
  me: 'everyone',
  sessions: 'everyone',
  revokeSession: 'everyone',
};

/** Whether a role may use a part of the platform: `events`, `startHistoricalSync`. */
export function mayUse(role: string, name: string): boolean {
  if (role === ADMIN_ROLE) return true;
  const roles = Object.hasOwn(PLATFORM_ACCESS, name) ? PLATFORM_ACCESS[name]! : [];
  return roles === 'everyone' || roles.includes(role);
}

/** Lets a caller go on who may use a part of the platform. @throws CodedError FORBIDDEN */
export function requireUse({ role }: Principal, name: string): void {
  if (!mayUse(role, name)) throw apiError('FORBIDDEN', `You may not use ${name}.`);
}
