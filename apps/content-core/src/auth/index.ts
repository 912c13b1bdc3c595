export { AuthModule } from './auth.module.js';
export type { AuthSettings } from './auth.module.js';
export { principalOf, Public } from './bearer.guard.js';
export { sessionsApi } from './sessions-api.js';
export { tokensApi } from './tokens-api.js';
