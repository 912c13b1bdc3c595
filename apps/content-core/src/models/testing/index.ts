export { aSystem } from './system.js';
export type { MoreParts, TestSystem } from './system.js';
