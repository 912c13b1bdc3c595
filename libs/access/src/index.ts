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
export { hashPassword, verifyPassword } from './passwords.js';
export { accessEntities, accessMigrations } from './schema.js';
export { Sessions } from './sessions.js';
export type { Grant, Principal } from './sessions.js';
export { ADMIN_ROLE, EMAIL_PATTERN, ensureFirstAdmin, findUser, LONGEST_EMAIL, User } from './users.js';
