export { aPrincipal, anApi, callers, revoked, SHOP, SHOP_TENANTS, unanswered } from './api.js';
export type { Answer, Json, TestApi } from './api.js';
export { aContentCore, DEVELOPMENT_LOGIN } from './process.js';
export type { RunningContentCore } from './process.js';
