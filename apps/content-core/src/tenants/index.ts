export { planApi } from './plan-api.js';
export { removeTenant } from './removal.js';
export type { TenantPlaces } from './removal.js';
export { tenantsApi } from './tenants-api.js';
