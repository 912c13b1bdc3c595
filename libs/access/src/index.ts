export { openAccess } from './access.js';
export type { Access, AccessSettings } from './access.js';
export {
  activeApiKeys,
  ApiKeys1700000200001,
  deleteStoreApiKeys,
  findApiKeyByHash,
  hashApiKey,
  issueApiKey,
  listApiKeys,
  revokeApiKey,
} from './api-keys.js';
export type { ApiKey, ApiKeyPermission } from './api-keys.js';
export { Callers } from './callers.js';
export { LONGEST_PASSWORD, Logins } from './logins.js';
export { hashPassword, verifyPassword } from './passwords.js';
export { requirePerson, requireScope, SCOPES } from './principal.js';
export type { Origin, Person, Principal, Scope } from './principal.js';
export { accessEntities, accessMigrations } from './schema.js';
export { Sessions } from './sessions.js';
export type { AccessOptions, Grant, OwnSession } from './sessions.js';
export { ADMIN_ROLE, EMAIL_PATTERN, ensureFirstAdmin, findUser, LONGEST_EMAIL, User } from './users.js';
