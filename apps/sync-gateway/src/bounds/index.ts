export { Bounds } from './bounds.js';
export type { BoundsConfig } from './bounds.js';
