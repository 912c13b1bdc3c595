export { DEFAULT_TENANT_ID, isUuid, tenantId, uuidv5, uuidv7 } from './ids.js';
export type { Branded, TenantId, UserId } from './ids.js';
export { API_ERRORS, apiError, CodedError, isCodedError } from './errors.js';
export type { ApiErrorCode } from './errors.js';
export { hasChecksum, withChecksum } from './checksum.js';
export { systemClock } from './clock.js';
export type { Clock } from './clock.js';
export { backoffMs, sleep } from './retry.js';
export type { Backoff } from './retry.js';
