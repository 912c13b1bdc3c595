export { OPS_ACCESS, OpsTokenGuard } from './ops-token.js';
export type { OpsAccess } from './ops-token.js';
export { OPS_PARTS, OpsController } from './ops.controller.js';
export type { OpsParts } from './ops.controller.js';
