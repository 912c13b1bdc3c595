export { openAccess } from './access.js';
export type { Access, AccessSettings } from './access.js';
export { recordAccess } from './access-log.js';
export type { By } from './access-log.js';
export { Accounts } from './accounts.js';
export type { AccountChange, NewAccount } from './accounts.js';
export {
  activeApiKeys,
  deleteStoreApiKeys,
  findApiKeyByHash,
  hashApiKey,
  issueApiKey,
  listApiKeys,
  nameApiKeys,
  revokeApiKey,
  rotateApiKey,
} from './api-keys.js';
export type { ApiKey, ApiKeyPermission, ApiKeyRequest } from './api-keys.js';
export { ApiTokens, API_TOKEN_PREFIX, findApiToken } from './api-tokens.js';
export type { ApiToken, NewApiToken } from './api-tokens.js';
export { Callers } from './callers.js';
export { Logins } from './logins.js';
export { hashPassword, verifyPassword } from './passwords.js';
export { mayUse, requireUse } from './platform-access.js';
export { requirePerson, requireScope, SCOPES } from './principal.js';
export type { Origin, Person, Principal, Scope } from './principal.js';
export { accessEntities, accessMigrations } from './schema.js';
export { SECRET_KINDS, Secrets } from './secrets.js';
export type { Secret } from './secrets.js';
export { Refusals } from './refusals.js';
export { Sessions } from './sessions.js';
export type { AccessOptions, Grant, OwnSession } from './sessions.js';
export {
  ADMIN_ROLE,
  EMAIL_PATTERN,
  ensureFirstAdmin,
  findUser,
  LONGEST_EMAIL,
  LONGEST_PASSWORD,
  User,
} from './users.js';
export { QUOTAS } from './plans.js';
export type { Plan, Quota, QuotaName } from './plans.js';
export { setLimit } from './limits.js';
export type { Limit } from './limits.js';
export { consume, QUOTA_ERRORS, releaseExpired, reserve, settle, withRoom } from './quota-ledger.js';
export type { QuotaRefusal, Reservation, Wanted } from './quota-ledger.js';
export { standingsOf } from './quotas.js';
export type { Standing } from './quotas.js';
export { outcomeOf, orderTenant, pageOfTenants, readTenant, TenantOrders } from './tenant-orders.js';
export type { TenantWork } from './tenant-orders.js';
export {
  beginDeletion,
  createTenant,
  findTenant,
  listTenants,
  ofOpenTenant,
  setPlan,
  setSuspended,
  Tenant,
} from './tenants.js';
