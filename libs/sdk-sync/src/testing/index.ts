export { converges, SERIES, SERIES_LIMIT_MS, WORLDS } from './convergence.js';
export { PlainRules } from './model-store.js';
export type { StoreOp, StoreRules, Verdict } from './model-store.js';
export type { ModelWorld } from './model-world.js';
