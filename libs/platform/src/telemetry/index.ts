export { Metrics } from './metrics.js';
export type { Counter, Gauge, Histogram } from './metrics.js';
