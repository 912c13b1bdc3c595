export { aPrincipal, anApi, revoked, SHOP, SHOP_TENANTS } from './api.js';
export type { Answer, Json, TestApi } from './api.js';
