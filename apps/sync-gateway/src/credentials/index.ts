export { CredentialsModule } from './credentials.module.js';
export { Denials } from './denials.js';
export {
  Bearer,
  bearerOf,
  covers,
  MasterKeyGuard,
  Needs,
  requirePath,
  requirePermission,
  StoreKeyGuard,
} from './guards.js';
export { KeyRing } from './key-ring.js';
export type { StoreKey } from './key-ring.js';
