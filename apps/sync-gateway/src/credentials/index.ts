export { CredentialsModule } from './credentials.module.js';
export { Bearer, MasterKeyGuard, Needs, requirePermission, StoreKeyGuard } from './guards.js';
export { KeyRing } from './key-ring.js';
export type { StoreKey } from './key-ring.js';
