export { ControlLoop } from './control-loop.js';
export { Figures } from './figures.js';
export { LEASE_MS, Leadership } from './leadership.js';
export { listFleet, Observer } from './observer.js';
export { floorOf, MIN_WORKERS } from './policy.js';
export type { Limits } from './policy.js';
export { DECISIONS_KEPT, markQueue, SharedState } from './shared-state.js';
export type { DecisionRecord, QueueMarks } from './shared-state.js';
